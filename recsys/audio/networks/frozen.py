"""What the published networks hear in a clip: their layers, pooled over time and over patches, as they come.

    patches (n, n_patches, 96, n_frames)  ->  Frozen  ->  features (n, n_features)
    clips  ->  clip_features  ->  features (n, n_features)

Both networks of the package are asked (trained on the Million Song Dataset and on MagnaTagATune): together they tell
genres apart better than either. Of two, the first hears every second patch: a quarter of the cost is saved, and no
figure falls (``docs/research/findings-audio.md``). A network of the user's own may stand beside them, or in their
place. ``recsys.audio.networks.head`` learns what of it matters.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import numpy as np
import soxr
import torch
from torch import Tensor, nn

from recsys.audio.networks.clips import clip_patches, of_one_length
from recsys.audio.networks.device import device_of, move
from recsys.audio.networks.musicnn import DIM, N_POOLED, MusicNN
from recsys.audio.networks.plug_in import PlugIn
from recsys.audio.networks.weights import tensors_sha256
from recsys.audio.settings import AudioSettings
from recsys.types import Clip, Float32
from recsys.util.threads import torch_threads

_N_TAGS = 50
# of one network, in the order of ``_statistics``
BLOCKS = {
    "mean": N_POOLED,
    "max": N_POOLED,
    "penultimate": DIM,
    "before": DIM,
    "tags": _N_TAGS,
    "highest": N_POOLED,
    "spread": N_POOLED,
    "before_spread": DIM,
}

_remembered: ContextVar[dict[bytes, Float32] | None] = ContextVar("features", default=None)


class Frozen(nn.Module):
    """Published networks whose weights stay as they are, and perhaps a plug-in; its features stand behind theirs."""

    def __init__(self, networks: Sequence[MusicNN], plug_in: PlugIn | None = None) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks).requires_grad_(False)
        self.plug_in = plug_in
        self.block_sizes = tuple(BLOCKS.values()) * len(networks) + (plug_in.block_sizes if plug_in else ())
        self.n_features = sum(self.block_sizes)

    def forward(self, clips: Tensor, most: int | None = None) -> Tensor:
        """Describe clips (n, n_patches, 96, n_frames) by the features of the published networks, side by side.

        Each hears at most so many patches, spread over the clip and between those of the others; by default all, but of
        two networks the first every second.
        """
        networks = [network for network in self.networks if isinstance(network, MusicNN)]
        heard = [_places(clips.shape[1], most, place, len(networks)) for place in range(len(networks))]
        parts = [_statistics(network, clips[:, some]) for network, some in zip(networks, heard, strict=True)]
        return torch.cat(parts, dim=1)


def _places(n_patches: int, most: int | None, network: int, n_networks: int) -> list[int]:
    """Which patches a network hears."""
    if most is None:
        return list(range(0, n_patches, 2 if n_networks > 1 and network == 0 else 1))
    if n_patches <= most:
        return list(range(n_patches))
    return [int((i + (network + 0.5) / n_networks) * n_patches / most) for i in range(most)]


def _statistics(network: MusicNN, clips: Tensor) -> Tensor:
    """Pool one network's layers: means over patches, then the greatest and the deviation over patches of some."""
    maxima, means = network.pooled(network.front_end(clips.flatten(0, 1)))
    before, features = network.dense_layer(maxima, means)
    layers = {
        "mean": means,
        "max": maxima,
        "penultimate": features,
        "before": before,
        "tags": network.to_tags(features),
    }
    by_clip = {name: layer.view(*clips.shape[:2], -1) for name, layer in layers.items()}
    pooled = [layer.mean(dim=1) for layer in by_clip.values()]
    pooled.append(by_clip["max"].amax(dim=1))
    pooled += [by_clip[name].std(dim=1, correction=0) for name in ("mean", "before")]
    return torch.cat(pooled, dim=1)


def clip_features(frozen: Frozen, clips: Sequence[Clip], settings: AudioSettings) -> Float32:
    """Describe clips of any lengths, each by itself: (n, n_features) float32 in their order.

    Raises:
        DataError: a clip has another sample rate.
    """
    device = device_of(settings.device)
    move(frozen, device)
    most = settings.network.patches if isinstance(settings.network.patches, int) else None
    what = f"{settings.log_mel.model_dump_json()} {most}"

    def features(samples: Float32) -> Float32:
        parts = []
        with torch.inference_mode(), torch_threads(1):
            if len(frozen.networks):
                heard = _resampled(samples, settings.decode.sample_rate, settings.log_mel.sample_rate)
                parts.append(frozen(clip_patches(heard[None], settings, device), most)[0].cpu().numpy())
            if frozen.plug_in is not None:
                parts.append(frozen.plug_in.features(samples, settings.decode.n_stretches))
        return np.concatenate(parts)

    rows_of = np.zeros((len(clips), frozen.n_features), np.float32)
    for rows, samples in of_one_length(clips, settings.decode.sample_rate):
        for row, one in zip(rows, samples, strict=True):  # a batch is no faster, and a clip's bits are then its own
            rows_of[row] = remembered(frozen, one, what, partial(features, one))
    return rows_of


def _resampled(samples: Float32, from_rate: int, to_rate: int) -> Float32:
    """Bring samples to the rate of the published networks, where a plug-in hears them at another."""
    if from_rate == to_rate:
        return samples
    resampled: Float32 = soxr.resample(samples, from_rate, to_rate)
    return resampled


def remembered(frozen: Frozen, samples: Float32, what: str, make: Callable[[], Float32]) -> Float32:
    """Make features, or inside ``remembered_features`` give those that were made of the same samples before.

    ``what`` says what is made of the samples, besides the networks' weights.
    """
    memory = _remembered.get()
    if memory is None:
        return make()
    own = frozen.plug_in.identity if frozen.plug_in is not None else ""
    digest = hashlib.blake2b(f"{tensors_sha256(frozen.state_dict())} {own} {what}".encode())
    digest.update(samples.tobytes())
    if digest.digest() not in memory:
        memory[digest.digest()] = make()
    return memory[digest.digest()]


@contextmanager
def remembered_features() -> Iterator[None]:
    """Keep features by the samples' content inside a ``with`` block: folds of an evaluation hear the same clips."""
    memory = _remembered.get()
    token = _remembered.set({} if memory is None else memory)  # one inside another remembers with it
    try:
        yield
    finally:
        _remembered.reset(token)
