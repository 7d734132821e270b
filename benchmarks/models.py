"""The networks whose speed is measured, ready to embed; what they have learned does not matter here.

a name  ->  sound_model  ->  SoundModel
"""

from typing import Literal

import numpy as np
import torch
from torch import nn

from recsys.audio.model import Origin, SoundModel
from recsys.audio.networks.conv1d import Pooled, build_network
from recsys.audio.networks.frozen import Frozen
from recsys.audio.networks.head import Headed, fit_head
from recsys.audio.networks.musicnn import MusicNN
from recsys.audio.networks.musicnn_front import fastest_dtype
from recsys.audio.networks.weights import NAMES, load_musicnn, musicnn_weights
from recsys.audio.settings import AudioSettings, HeadSettings, NetworkSettings
from recsys.content.targets import Targets

Name = Literal["conv1d", "musicnn", "musicnn as published"]
NETWORKS: tuple[Name, ...] = ("conv1d", "musicnn as published", "musicnn")
_N_CLIPS, _N_GENRES = 400, 8  # that the head is fitted to


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
    features = np.random.default_rng(0).standard_normal((_N_CLIPS, 1, frozen.n_features)).astype(np.float32)
    genre_names = tuple(f"genre {n}" for n in range(_N_GENRES))
    unknown = np.zeros((_N_CLIPS, 0), np.float32)
    targets = Targets(
        genres=np.eye(_N_GENRES, dtype=np.float32)[np.arange(_N_CLIPS) % _N_GENRES],
        genre_names=genre_names,
        artists=np.arange(_N_CLIPS) // 2,
        n_artists=_N_CLIPS // 2,
        factors=unknown,
        factor_weights=np.zeros(_N_CLIPS, np.float32),
        tags=unknown.astype(np.bool_),
        tag_names=(),
        years=np.full(_N_CLIPS, np.nan, np.float32),
        popularity=np.full(_N_CLIPS, np.nan, np.float32),
    )
    return Headed(frozen, fit_head(features, frozen.block_sizes, targets, HeadSettings()))
