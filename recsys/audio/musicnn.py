"""musicnn: log-mel patches in, the published network's features out.

    patches (n, 96, n_frames)  ->  MusicNN  ->  embeddings (n, 200); also pooled (n, 753), twice, and tags (n, 50)

Musically shaped filters (Pons and Serra 2019, arXiv:1909.06654): timbral ones see 7 frames of 38 or 67 mel bands,
temporal ones 32, 64 or 128 frames of one band, and each keeps only its maximum over the bands. Three dense layers
along time follow, each with a view of 7 frames; all of it is pooled over time by mean and maximum. Made for 187 frames
(3 s); any number goes in. The weights come from ``recsys.audio.weights``. Patches are cut and averaged elsewhere.

Nearly all the cost is in the front end. Without gradients it is computed as one matrix product a mel position, in
bfloat16 where the processor multiplies that: 111 ms a 30 s clip and core instead of 850 by convolutions in single
precision, at a cosine above 0.9998 (``docs/findings-audio.md``).
"""

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

_N_MELS = 96
_SMALL_VARIANCE = 1e-3  # of the published network's batch norms
_TIMBRAL = ((204, 7, 38), (204, 7, 67))  # filters, frames, mel bands
_TEMPORAL = ((51, 128, 1), (51, 64, 1), (51, 32, 1))
_MIDDLE = 64  # filters of each dense layer along time
_MIDDLE_FRAMES = 7
DIM = 200
_FRONT = sum(n_filters for n_filters, _, _ in _TIMBRAL + _TEMPORAL)
N_POOLED = _FRONT + 3 * _MIDDLE


class MusicNN(nn.Module):
    """The published network, without its dropout.

    Args:
        n_tags: that the last layer tells apart.
        dtype: of the front end's products without gradients on the processor; by default the fastest it has.
    """

    def __init__(self, n_tags: int = 50, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.dim = DIM
        dtype = dtype or fastest_dtype()
        self.normalise = _norm2d(1)
        self.front = nn.ModuleList(_Front(*sizes, dtype) for sizes in _TIMBRAL + _TEMPORAL)
        self.middle = nn.ModuleList(_Middle(n_in) for n_in in (_FRONT, _MIDDLE, _MIDDLE))
        self.normalise_pooled = _norm1d(2 * N_POOLED)
        self.dense = nn.Linear(2 * N_POOLED, DIM)
        self.normalise_dense = _norm1d(DIM)
        self.to_tags = nn.Linear(DIM, n_tags)

    def forward(self, patches: Tensor) -> Tensor:
        """Embed patches (n, 96, n_frames) as (n, 200)."""
        return self.penultimate(*self.pooled(patches))

    def pooled(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Pool every layer over time: maxima and means, each (n, 753), front end first."""
        tuned = next(self.front.parameters()).requires_grad  # else without gradients, and so by products
        with torch.set_grad_enabled(torch.is_grad_enabled() and tuned):
            x = self.normalise(patches[:, None])
            front = torch.cat([part(x) for part in self.front], dim=1)
        first = self.middle[0](front)
        second = first + self.middle[1](first)
        third = second + self.middle[2](second)
        layers = torch.cat([front, first, second, third], dim=1)
        return layers.amax(dim=2), layers.mean(dim=2)

    def penultimate(self, maxima: Tensor, means: Tensor) -> Tensor:
        """Turn pooled layers into the 200 features below the tags."""
        return self.dense_layer(maxima, means)[1]

    def dense_layer(self, maxima: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        """Give the dense layer before its ReLU, and the 200 features that come of it."""
        both = torch.stack([maxima, means], dim=2).flatten(1)
        before: Tensor = self.dense(self.normalise_pooled(both))
        features: Tensor = self.normalise_dense(before.relu())
        return before, features

    def tags(self, patches: Tensor) -> Tensor:
        """Tell the probability of each tag, (n, n_tags)."""
        return torch.sigmoid(self.to_tags(self(patches)))


class _Front(nn.Module):
    """Filters over time and mel bands, each with its maximum over the bands: (n, 1, 96, t) to (n, filters, t)."""

    def __init__(self, n_filters: int, n_frames: int, n_bands: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, n_filters, (n_bands, n_frames))
        self.norm = _norm1d(n_filters)
        self._dtype = dtype
        before = (n_frames - 1) // 2  # as TensorFlow pads for 'same'
        self._padding = (before, n_frames - 1 - before)

    def forward(self, x: Tensor) -> Tensor:
        x = pad(x, self._padding)
        if torch.is_grad_enabled() or self.norm.training or not x.is_cpu:
            activations = self.convolution(x).relu()
            n, _, n_positions, n_frames = activations.shape
            normalised = self.norm(activations.flatten(2)).view(n, -1, n_positions, n_frames)
            highest: Tensor = normalised.amax(dim=2)
            return highest
        return self._by_products(x[:, 0])

    def _by_products(self, x: Tensor) -> Tensor:
        """Work out the same, one matrix product a mel position, with a running maximum.

        A filter whose scale is negative has its maximum where its activation is least: its sign is turned before and
        after, so that the bias, the ReLU and the norm come once a frame instead of once a position.
        """
        n_bands, n_frames = self.convolution.kernel_size
        sign = torch.where(self.norm.weight < 0, -1.0, 1.0)
        weights = self.convolution.weight[:, 0].flatten(1) * sign[:, None]
        weights = weights.t().to(self._dtype).contiguous()
        windows = x.to(self._dtype).transpose(1, 2).unfold(1, n_frames, 1)  # (n, t, 96, n_frames)
        if n_bands > 1:
            windows = windows.contiguous()  # then a slice of bands is a matrix that needs no copy
        n, length, n_mels, _ = windows.shape
        best = torch.full((n * length, len(sign)), -torch.inf, dtype=self._dtype)
        product = torch.empty_like(best)
        for position in range(n_mels - n_bands + 1):
            rows = windows[:, :, position : position + n_bands].reshape(n * length, -1)
            torch.maximum(best, torch.mm(rows, weights, out=product), out=best)
        highest = best.view(n, length, -1).transpose(1, 2).float() * sign[:, None]
        normalised: Tensor = self.norm((highest + self.convolution.get_parameter("bias")[:, None]).relu())
        return normalised


class _Middle(nn.Module):
    """A dense layer along time: (n, n_in, t) to (n, 64, t)."""

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(n_in, _MIDDLE, _MIDDLE_FRAMES, padding=_MIDDLE_FRAMES // 2)
        self.norm = _norm1d(_MIDDLE)

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.convolution(x).relu())
        return normalised


def _norm1d(n: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(n, eps=_SMALL_VARIANCE)


def _norm2d(n: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(n, eps=_SMALL_VARIANCE)


@lru_cache(maxsize=1)
def fastest_dtype() -> torch.dtype:
    """Name the type in which this processor multiplies matrices fastest with eight bits of precision or more."""
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32
