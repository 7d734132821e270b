"""musicnn with made-up weights."""

import torch

from golden.make_musicnn import tensors
from recsys.audio.networks.musicnn import MusicNN
from recsys.audio.networks.weights import state_of


def made_up(dtype: torch.dtype) -> MusicNN:
    network = MusicNN(dtype=dtype)
    network.load_state_dict(state_of(tensors()))
    return network.eval()
