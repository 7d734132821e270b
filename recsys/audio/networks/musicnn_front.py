"""musicnn's front end: log-mel patches in, the greatest response of every filter over the mel bands out.

    patches (n, 96, n_frames)  ->  front_end  ->  (n, 561, n_frames)

Nearly all of musicnn's cost is here. With gradients the filters are convolutions. Without, they are matrix products,
one a mel position with a running maximum; in single precision the large ones go by tiles
(``recsys.audio.networks.tiles``). Numbers are whole ones of eight bits where the processor multiplies those (each patch
and each filter has its own unit), else bfloat16 or single precision; what that costs is in
``docs/research/findings-audio.md``.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from recsys.audio.networks.tiles import FRAMES, highest_in_tiles

SMALL_VARIANCE = 1e-3  # of the published network's batch norms
N_MELS = 96
_TIMBRAL = ((204, 7, 38), (204, 7, 67))  # filters, frames, mel bands
_TEMPORAL = ((51, 128, 1), (51, 64, 1), (51, 32, 1))
SIZES = _TIMBRAL + _TEMPORAL
N_FILTERS = sum(n_filters for n_filters, _, _ in SIZES)

_PATCHES = 10  # multiplied at once, a clip of 30 s: what they give, 3 MB, stays in the cache
_BLOCK_FRAMES = 8  # of one band that one row of a product covers: an eighth of the windows for 6 % more products
_LARGEST = 127  # whole number of eight bits
_SMALLEST_UNIT = 1e-6  # of a silent patch or filter


class Front(nn.Module):
    """Filters over time and mel bands, each with its maximum over the bands: (n, 1, 96, t) to (n, filters, t)."""

    def __init__(self, n_filters: int, n_frames: int, n_bands: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, n_filters, (n_bands, n_frames))
        self.norm = nn.BatchNorm1d(n_filters, eps=SMALL_VARIANCE)
        before = (n_frames - 1) // 2  # as TensorFlow pads for 'same'
        self.padding = (before, n_frames - 1 - before)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        activations = self.convolution(pad(x, self.padding)).relu()
        n, _, n_positions, n_frames = activations.shape
        normalised = self.norm(activations.flatten(2)).view(n, -1, n_positions, n_frames)
        highest: Tensor = normalised.amax(dim=2)
        return highest


class FrontEnd(NamedTuple):
    """One network's: the norm of its input, and its filters in the order of ``SIZES``."""

    normalise: nn.BatchNorm2d
    fronts: Sequence[Front]


def front_end(end: FrontEnd, patches: Tensor, dtype: torch.dtype) -> Tensor:
    """Hear patches (n, 96, n_frames) by a network's front end: (n, 561, n_frames).

    Args:
        end: of the network; a batch norm in training, gradients and other devices take the convolutions.
        patches: log-mel.
        dtype: of the products: int8, bfloat16 or float32.
    """
    if torch.is_grad_enabled() or end.normalise.training or not patches.is_cpu:
        normalised = end.normalise(patches[:, None])
        return torch.cat([front(normalised) for front in end.fronts], dim=1)
    slope, offset = _affine(end.normalise)
    scaled = _scaled(patches, slope, offset, dtype)
    heard = patches.new_empty(len(patches), N_FILTERS, patches.shape[2])
    at = 0
    for front in end.fronts:
        n_filters = len(front.norm.weight)
        _by_size(front, slope, offset, scaled, heard[:, at : at + n_filters])
        at += n_filters
    return heard


class _Scaled(NamedTuple):
    """Patches as ``unit * numbers + centre``, where numbers (n, 96, n_frames) are those that are multiplied."""

    numbers: Tensor
    unit: Tensor
    centre: Tensor


def _affine(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Slope and offset of a batch norm that is not in training."""
    slope = norm.weight * torch.rsqrt(norm.get_buffer("running_var") + norm.eps)
    return slope, norm.bias - norm.get_buffer("running_mean") * slope


def _scaled(patches: Tensor, slope: Tensor, offset: Tensor, dtype: torch.dtype) -> _Scaled:
    """Scale each patch to the whole numbers of eight bits, or all as the network does."""
    if dtype != torch.int8:
        unit, centre = ((1 / slope.abs()).expand(len(patches), 1, 1), (-offset / slope).expand(len(patches), 1, 1))
        return _Scaled(((patches - centre) / unit).to(dtype), unit, centre)
    least, greatest = patches.amin(dim=(1, 2), keepdim=True), patches.amax(dim=(1, 2), keepdim=True)
    unit = ((greatest - least) / (2 * _LARGEST)).clamp(min=_SMALLEST_UNIT)
    centre = (greatest + least) / 2
    return _Scaled(((patches - centre) / unit).round().to(dtype), unit, centre)


def _by_size(front: Front, slope: Tensor, offset: Tensor, scaled: _Scaled, out: Tensor) -> None:
    """Work out the filters of one size, into ``out`` (n, filters, n_frames).

    A filter whose scale is negative has its maximum where its activation is least: its sign is turned before and
    after, so that the bias, the ReLU and the norm come once a frame instead of once a position. The network hears
    ``slope * (unit * numbers + centre) + offset``, with zeros beyond the ends: that is the product of its weights with
    the numbers, and a constant a frame that no maximum over bands sees.
    """
    weights, bias = front.convolution.weight[:, 0], front.convolution.get_parameter("bias")  # (filters, bands, frames)
    scale, shift = _affine(front.norm)
    sign = torch.where(scale * slope < 0, -1.0, 1.0)
    matrix, unit = _unit_weights(weights * sign[:, None, None], scaled.numbers.dtype)

    frames = out.new_ones(1, 1, out.shape[2])
    inside = conv1d(pad(frames, front.padding), weights.sum(dim=1)[:, None])[0].t()  # (n_frames, filters)
    over = _over_positions if weights.shape[1] > 1 else _over_bands
    if over is _over_positions and matrix.dtype == torch.float32 and weights.shape[2] == FRAMES:
        over = highest_in_tiles
    for start in range(0, len(scaled.numbers), _PATCHES):
        some = slice(start, start + _PATCHES)
        highest = over(pad(scaled.numbers[some], front.padding), matrix).float()
        constant = torch.addcmul(bias, slope * scaled.centre[some] + offset, inside)
        activations = torch.addcmul(constant, highest, sign * unit * slope * scaled.unit[some]).relu_()
        out[some] = torch.addcmul(shift, activations, scale).transpose(1, 2)  # from (n, n_frames, filters)


def _unit_weights(weights: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Filters in the type that is multiplied, and the unit of each.

    Sums along time are rounded, and their steps taken: what rounding adds is then noise of high frequency, where
    log-mel has little. A clip's vector is at a cosine of 0.99992 so, and of 0.9994 with each weight rounded by itself.
    """
    if dtype != torch.int8:
        return weights.to(dtype), weights.new_ones(len(weights))
    unit = (weights.abs().amax(dim=(1, 2)) / (_LARGEST - 1)).clamp(min=_SMALLEST_UNIT)  # a step may be one more
    sums = (weights / unit[:, None, None]).flatten(1).cumsum(dim=1).round()
    return pad(sums, (1, 0)).diff(dim=1).view_as(weights).to(dtype), unit


def _over_positions(x: Tensor, weights: Tensor) -> Tensor:
    """Slide filters (filters, bands, frames) along time and bands of x; maxima over bands, (n, n_frames, filters)."""
    n, n_mels, _ = x.shape
    n_filters, n_bands, n_frames = weights.shape
    windows = x.transpose(1, 2).unfold(1, n_frames, 1)  # (n, t, 96, n_frames)
    rows = windows.reshape(-1, n_mels * n_frames)  # some bands of it are a matrix that needs no further copy
    matrix = weights.flatten(1).t().contiguous()
    parts = (rows[:, at * n_frames : (at + n_bands) * n_frames] for at in range(n_mels - n_bands + 1))
    return _highest(parts, matrix).view(n, -1, n_filters)


def _over_bands(x: Tensor, weights: Tensor) -> Tensor:
    """Slide filters (filters, 1, frames) along time of each band; maxima over bands, (n, n_frames, filters)."""
    n, n_mels, length = x.shape
    n_filters, _, n_frames = weights.shape
    n_out = length - n_frames + 1
    n_blocks = -(-n_out // _BLOCK_FRAMES)
    reach = n_frames + _BLOCK_FRAMES - 1
    x = pad(x, (0, (n_blocks - 1) * _BLOCK_FRAMES + reach - length))
    windows = x.unfold(2, reach, _BLOCK_FRAMES)  # (n, 96, n_blocks, reach)
    matrix = torch.stack([pad(weights[:, 0], (at, _BLOCK_FRAMES - 1 - at)) for at in range(_BLOCK_FRAMES)])
    # rows that overlap in memory, as one patch's do, are nothing that _int_mm reads rightly: they are copied
    parts = (windows[:, band].reshape(n * n_blocks, reach).contiguous() for band in range(n_mels))
    highest = _highest(parts, matrix.flatten(0, 1).t().contiguous())  # a row is 8 frames of all filters
    return highest.view(n, n_blocks * _BLOCK_FRAMES, n_filters)[:, :n_out]


def _highest(parts: Iterator[Tensor], matrix: Tensor) -> Tensor:
    """Multiply each of several matrices by one, and keep the greatest of the products, place by place."""
    whole = matrix.dtype == torch.int8
    multiply = torch._int_mm if whole else torch.mm  # the former adds up in 32 bits, exactly
    best = multiply(next(parts), matrix)
    product = torch.empty_like(best)
    for part in parts:
        torch.maximum(best, multiply(part, matrix, out=product), out=best)
    return best


@lru_cache(maxsize=1)
def fastest_dtype() -> torch.dtype:
    """Name the type in which this processor multiplies the front end fastest, with enough precision."""
    able = torch.cpu.get_capabilities()
    if able.get("avx512_vnni") or able.get("amx_int8"):  # others add up pairs of products in 16 bits, which overflow
        return torch.int8
    return fastest_float()


@lru_cache(maxsize=1)
def fastest_float() -> torch.dtype:
    """Name the type of fractions that this processor multiplies fastest, with eight bits of precision or more."""
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32
