"""Audio networks: log-mel patches in, one embedding a patch out.

    patches (n, n_mels, n_frames)  ->  Conv1d  ->  embeddings (n, dim)

``Conv1d`` convolves along time only, with the mel bands as channels, then pools the whole time axis by mean,
maximum and L2 norm (van den Oord, Dieleman and Schrauwen, NIPS 2013; Dieleman 2014). Any number of frames
goes in. The cost of a 30 s clip is about 0.15 GFLOP at the defaults. Training is in ``recsys.audio.train``.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from recsys.audio.settings import NetworkSettings

_SMALLEST_SQUARE = 1e-6  # keeps the gradient of the L2 pool finite where all activations are 0


class Conv1d(nn.Module):
    """1-D convolutions along time, pooled over all of it."""

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
        """Embed patches (n, n_mels, n_frames) as (n, dim)."""
        x = self.layers(self.normalise(patches))
        pooled = torch.cat([x.mean(dim=2), x.amax(dim=2), (x.square().mean(dim=2) + _SMALLEST_SQUARE).sqrt()], dim=1)
        embeddings: Tensor = self.dense(pooled)
        return embeddings


def build_network(settings: NetworkSettings, n_mels: int) -> nn.Module:
    """Make the network that the settings name, at a random start taken from torch's generator."""
    return Conv1d(n_mels, settings)
