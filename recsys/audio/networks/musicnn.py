"""musicnn: log-mel patches in, the published network's features out.

    patches (n, 96, n_frames)  ->  MusicNN  ->  embeddings (n, 200); also pooled (n, 753), twice, and tags (n, 50)

Musically shaped filters (Pons and Serra 2019, arXiv:1909.06654): timbral ones see 7 frames of 38 or 67 mel bands,
temporal ones 32, 64 or 128 frames of one band, and each keeps only its maximum over the bands. Three dense layers
along time follow, each with a view of 7 frames; all of it is pooled over time by mean and maximum. Made for 187 frames
(3 s); any number goes in. The weights come from ``recsys.audio.networks.weights``. Patches are cut and averaged
elsewhere.

Nearly all the cost is in the front end, which is ``recsys.audio.networks.musicnn_front``.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from recsys.audio.networks.musicnn_front import (
    N_FILTERS,
    SIZES,
    SMALL_VARIANCE,
    Front,
    FrontEnd,
    fastest_dtype,
    fastest_float,
    front_end,
)

_MIDDLE = 64  # filters of each dense layer along time
_MIDDLE_FRAMES = 7
DIM = 200
N_POOLED = N_FILTERS + 3 * _MIDDLE


class MusicNN(nn.Module):
    """The published network, without its dropout.

    Args:
        n_tags: that the last layer tells apart.
        dtype: of the front end's products without gradients on the processor; by default the fastest it has.
    """

    def __init__(self, n_tags: int = 50, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.dim = DIM
        self.dtype = dtype or fastest_dtype()
        self.normalise = _norm2d(1)
        self.front = nn.ModuleList(Front(*sizes) for sizes in SIZES)
        quick = torch.float32 if self.dtype == torch.float32 else fastest_float()
        self.middle = nn.ModuleList(
            [_Middle(N_FILTERS, quick), _Middle(_MIDDLE, torch.float32), _Middle(_MIDDLE, torch.float32)]
        )
        self.normalise_pooled = _norm1d(2 * N_POOLED)
        self.dense = nn.Linear(2 * N_POOLED, DIM)
        self.normalise_dense = _norm1d(DIM)
        self.to_tags = nn.Linear(DIM, n_tags)

    def forward(self, patches: Tensor) -> Tensor:
        """Embed patches (n, 96, n_frames) as (n, 200)."""
        return self.penultimate(*self.pooled(self.front_end(patches)))

    def front_end(self, patches: Tensor) -> Tensor:
        """Hear patches by the front end alone, (n, 561, n_frames)."""
        fronts = [part for part in self.front if isinstance(part, Front)]
        tuned = next(self.front.parameters()).requires_grad
        with torch.set_grad_enabled(torch.is_grad_enabled() and tuned):  # without gradients it goes by products
            return front_end(FrontEnd(self.normalise, fronts), patches, self.dtype)

    def pooled(self, front: Tensor) -> tuple[Tensor, Tensor]:
        """Pool every layer over time, given the front end's: maxima and means, each (n, 753), front end first."""
        first = self.middle[0](front)
        second = first + self.middle[1](first)
        third = second + self.middle[2](second)
        layers = (front, first, second, third)
        return torch.cat([x.amax(dim=2) for x in layers], dim=1), torch.cat([x.mean(dim=2) for x in layers], dim=1)

    def penultimate(self, maxima: Tensor, means: Tensor) -> Tensor:
        """Turn pooled layers into the 200 features below the tags."""
        return self.dense_layer(maxima, means)[1]

    def dense_layer(self, maxima: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        """The dense layer before its ReLU, and the 200 features that come of it."""
        both = torch.stack([maxima, means], dim=2).flatten(1)
        before: Tensor = self.dense(self.normalise_pooled(both))
        features: Tensor = self.normalise_dense(before.relu())
        return before, features

    def tags(self, patches: Tensor) -> Tensor:
        """Tell the probability of each tag, (n, n_tags)."""
        return torch.sigmoid(self.to_tags(self(patches)))


class _Middle(nn.Module):
    """A dense layer along time: (n, n_in, t) to (n, 64, t); ``dtype`` is that of its products without gradients."""

    def __init__(self, n_in: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.convolution = nn.Conv1d(n_in, _MIDDLE, _MIDDLE_FRAMES, padding=_MIDDLE_FRAMES // 2)
        self.norm = _norm1d(_MIDDLE)

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self._convolved(x).relu())
        return normalised

    def _convolved(self, x: Tensor) -> Tensor:
        layer = self.convolution
        if self.dtype == torch.float32 or torch.is_grad_enabled() or not x.is_cpu:
            convolved: Tensor = layer(x)
            return convolved
        products = conv1d(x.to(self.dtype), layer.weight.to(self.dtype), padding=_MIDDLE_FRAMES // 2)
        return products.float() + layer.get_parameter("bias")[:, None]


def _norm1d(n: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(n, eps=SMALL_VARIANCE)


def _norm2d(n: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(n, eps=SMALL_VARIANCE)
