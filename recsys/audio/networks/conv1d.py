"""Audio networks that are trained by gradient: the log-mel patches of clips in, one embedding a clip out.

    clips (n, n_patches, n_mels, n_frames)  ->  Pooled: a patch network -> mean or GRU over patches  ->  (n, dim)

``Conv1d`` convolves along time only, with the mel bands as channels, then pools the whole time axis by mean,
maximum and L2 norm (van den Oord, Dieleman and Schrauwen, NIPS 2013; Dieleman 2014). The cost of a 30 s clip is about
0.15 GFLOP at the defaults. ``Dense`` is the fully connected baseline, there to be beaten: it sees every band of every
frame apart, and so needs fifty times the weights. ``recsys.audio.networks.musicnn.MusicNN`` is a patch network too.
Training is in ``recsys.audio.train``.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from recsys.audio.networks.musicnn import DIM as MUSICNN_DIM
from recsys.audio.networks.musicnn import MusicNN
from recsys.audio.settings import LogMelSettings, NetworkSettings
from recsys.errors import ConfigError

_SMALLEST_SQUARE = 1e-6  # keeps the gradient of the L2 pool finite where all activations are 0


class Conv1d(nn.Module):
    """1-D convolutions along time, pooled over all of it: (n, n_mels, n_frames) to (n, dim), any number of frames."""

    def __init__(self, n_mels: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm1d(n_mels)
        widths = [n_mels] + [settings.width] * settings.n_layers
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            layers += [
                nn.Conv1d(n_in, n_out, settings.kernel_frames, padding=settings.kernel_frames // 2),
                nn.BatchNorm1d(n_out),
                nn.ReLU(),
                nn.MaxPool1d(2, ceil_mode=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.dense = nn.Sequential(
            nn.BatchNorm1d(3 * settings.width),
            nn.Dropout(settings.dropout),
            nn.Linear(3 * settings.width, settings.dim),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Embed patches."""
        x = self.layers(self.normalise(patches))
        pooled = torch.cat([x.mean(dim=2), x.amax(dim=2), (x.square().mean(dim=2) + _SMALLEST_SQUARE).sqrt()], dim=1)
        embeddings: Tensor = self.dense(pooled)
        return embeddings


class Dense(nn.Module):
    """Fully connected layers over a whole patch: (n, n_mels, patch_frames) to (n, dim)."""

    def __init__(self, n_mels: int, patch_frames: int, settings: NetworkSettings) -> None:
        super().__init__()
        hidden = 4 * settings.width
        self.normalise = nn.BatchNorm1d(n_mels)
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(n_mels * patch_frames, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(hidden, settings.dim),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Embed patches."""
        embeddings: Tensor = self.layers(self.normalise(patches))
        return embeddings


class Pooled(nn.Module):
    """A patch network, and its embeddings pooled over the patches of a clip: their mean, or a GRU's mean state."""

    def __init__(self, patch_network: nn.Module, dim: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.patch_network = patch_network
        self.gru = nn.GRU(dim, dim, batch_first=True) if settings.pooling == "gru" else None
        self.dim = dim

    def forward(self, clips: Tensor) -> Tensor:
        """Embed clips (n, n_patches, n_mels, n_frames) as (n, dim)."""
        of_patches = self.patch_network(clips.flatten(0, 1)).view(*clips.shape[:2], -1)
        if self.gru is not None:
            of_patches, _ = self.gru(of_patches)
        means: Tensor = of_patches.mean(dim=1)
        return means


def build_network(settings: NetworkSettings, log_mel: LogMelSettings) -> Pooled:
    """Make the network that the settings name, at a random start taken from torch's generator.

    Raises:
        ConfigError: the name is still ``auto``, or the patches are not those of musicnn.
    """
    if settings.name == "conv1d":
        return Pooled(Conv1d(log_mel.n_mels, settings), settings.dim, settings)
    if settings.name == "dense":
        return Pooled(Dense(log_mel.n_mels, log_mel.patch_frames, settings), settings.dim, settings)
    if settings.name == "musicnn":
        check_front_end(log_mel)
        return Pooled(MusicNN(), MUSICNN_DIM, settings)
    raise ConfigError(
        "audio.network.name is auto, expected a network; recsys.audio.networks.choice says which one that is here"
    )


def check_front_end(log_mel: LogMelSettings) -> None:
    """Hold the log-mel against the one that the published network was trained on.

    Raises:
        ConfigError: it is another one.
    """
    expected = LogMelSettings()
    for name in ("sample_rate", "n_fft", "hop_length", "n_mels"):
        found = getattr(log_mel, name)
        if found != getattr(expected, name):
            raise ConfigError(
                f"audio.log_mel.{name} is {found}, musicnn needs {getattr(expected, name)}; "
                "leave it out, or take network = conv1d"
            )
