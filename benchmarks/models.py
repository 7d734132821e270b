"""The networks whose speed is measured, ready to embed; what they have learned does not matter here.

a name  ->  sound_model  ->  SoundModel
"""

from typing import Literal

import torch
from torch import nn

from recsys.audio.front import fastest_dtype
from recsys.audio.frozen import Frozen
from recsys.audio.head import Head, Headed
from recsys.audio.model import Origin, SoundModel
from recsys.audio.musicnn import MusicNN
from recsys.audio.networks import Pooled, build_network
from recsys.audio.settings import AudioSettings, NetworkSettings
from recsys.audio.weights import NAMES, load_musicnn, musicnn_weights

Name = Literal["conv1d", "musicnn", "musicnn as published"]
NETWORKS: tuple[Name, ...] = ("conv1d", "musicnn as published", "musicnn")
_N_COMPONENTS, _N_GENRES = 150, 8  # of a head as the defaults fit it


def sound_model(name: Name) -> SoundModel:
    """Make a model: of published weights where they are present, else at random, which costs the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "conv1d":
            settings = AudioSettings(network=NetworkSettings(name="conv1d", start="random"))
            return SoundModel(build_network(settings.network, settings.log_mel), settings, Origin(settings))
        tune: Literal["none", "head"] = "head" if name == "musicnn" else "none"
        settings = AudioSettings(network=NetworkSettings(name="musicnn", tune=tune))
        networks = _networks()
        network: nn.Module = _headed(networks) if name == "musicnn" else _pooled(networks[0], settings)
        assert isinstance(network, Pooled | Headed)
        return SoundModel(network, settings, Origin(settings))


def described() -> str:
    """Say what the musicnn that is measured is made of."""
    weights = "published weights" if musicnn_weights() else "random weights: `recsys weights musicnn` was not run"
    return f"{weights}, products in {str(fastest_dtype()).removeprefix('torch.')}"


def _networks() -> list[MusicNN]:
    folder = musicnn_weights()
    return [load_musicnn(folder, name) if folder else MusicNN().eval() for name in NAMES]


def _pooled(network: MusicNN, settings: AudioSettings) -> Pooled:
    return Pooled(network.requires_grad_(False), network.dim, settings.network)


def _headed(networks: list[MusicNN]) -> Headed:
    frozen = Frozen(networks)
    shapes = {
        "mean": (frozen.n_features,),
        "scale": (frozen.n_features,),
        "components": (frozen.n_features, _N_COMPONENTS),
        "whitening": (_N_COMPONENTS, _N_COMPONENTS),
        "discriminants": (_N_COMPONENTS, _N_GENRES - 1),
        "weight": (),
    }
    head = Head(shapes)
    head.load_state_dict({name: torch.randn(shape) for name, shape in shapes.items()})
    return Headed(frozen, head)
