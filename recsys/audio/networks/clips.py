"""Clips of any lengths in, the patches of clips of one length out: what every network is fed.

    clips  ->  of_one_length  ->  rows, samples (n, n_samples)  ->  clip_patches  ->  (n, n_patches, n_mels, n_frames)

A clip that was put together from stretches of a recording is cut where they meet, so that no patch lies across.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from recsys.audio.logmel import log_mel, patches
from recsys.audio.settings import AudioSettings
from recsys.errors import DataError
from recsys.types import Clip, Float32

_SAME_LENGTH = 8  # clips whose spectrum is made at once: 30 MB, and no faster with more


def of_one_length(clips: Sequence[Clip], sample_rate: int) -> Iterator[tuple[list[int], Float32]]:
    """Group clips by length: the rows of a few, and their samples (n, n_samples).

    Raises:
        DataError: a clip has another sample rate.
    """
    by_length: dict[int, list[int]] = {}
    for row, clip in enumerate(clips):
        if clip.sample_rate != sample_rate:
            raise DataError(f"a clip has {clip.sample_rate} samples a second, expected {sample_rate}; decode it anew")
        by_length.setdefault(len(clip.samples), []).append(row)
    for rows in by_length.values():
        for start in range(0, len(rows), _SAME_LENGTH):
            part = rows[start : start + _SAME_LENGTH]
            yield part, np.stack([clips[row].samples for row in part])


def clip_patches(samples: Float32, settings: AudioSettings, device: torch.device) -> Tensor:
    """Turn clips of one length (n, n_samples) into their patches (n, n_patches, n_mels, patch_frames)."""
    n, length = samples.shape
    n_stretches = settings.decode.n_stretches
    if length < n_stretches * settings.log_mel.n_fft:  # too short to be cut
        n_stretches = 1
    stretches = torch.from_numpy(samples[:, : length // n_stretches * n_stretches]).to(device)
    cut = patches(log_mel(stretches.reshape(n * n_stretches, -1), settings.log_mel), settings.log_mel)
    return cut.reshape(n, -1, *cut.shape[2:])
