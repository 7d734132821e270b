"""Clips of any lengths, grouped and cut into patches."""

import numpy as np
import pytest
import torch

from recsys.audio.networks.clips import clip_patches, of_one_length
from recsys.audio.settings import AudioSettings, DecodeSettings
from recsys.errors import DataError
from recsys.types import Clip

CPU = torch.device("cpu")


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(n_samples)).astype(np.float32)


def with_stretches(n: int) -> AudioSettings:
    return AudioSettings(decode=DecodeSettings(n_stretches=n))


def test_clips_are_grouped_by_length_and_none_is_lost() -> None:
    lengths = [500, 400, 500, 400, 400, 600] + [700] * 20
    clips = [Clip(noise(length, row), 16_000, 1.0) for row, length in enumerate(lengths)]
    groups = list(of_one_length(clips, 16_000))
    assert sorted(row for rows, _ in groups for row in rows) == list(range(26))
    for rows, samples in groups:
        assert len(rows) == len(samples) <= 8
        for row, one in zip(rows, samples, strict=True):
            np.testing.assert_array_equal(one, clips[row].samples)
    with pytest.raises(DataError, match="8000 samples a second, expected 16000"):
        list(of_one_length([Clip(noise(9), 8000, 1.0)], 16_000))


@pytest.mark.slow
def test_no_patch_lies_across_two_stretches() -> None:
    first, second = noise(70_000, 1), noise(70_000, 2)
    together = clip_patches(np.concatenate([first, second])[None], with_stretches(2), CPU)
    apart = [clip_patches(one[None], with_stretches(1), CPU) for one in (first, second)]
    torch.testing.assert_close(together, torch.cat(apart, dim=1))
    as_one = clip_patches(np.concatenate([first, second])[None], with_stretches(1), CPU)
    assert not torch.equal(as_one[:, 1], together[:, 1])


@pytest.mark.parametrize("n_samples", [1600, 2000, 47_999])
def test_a_clip_shorter_than_its_stretches_still_gives_patches(n_samples: int) -> None:
    patches = clip_patches(noise(n_samples)[None], with_stretches(5), CPU)
    assert patches.shape[0] == 1
    assert patches.shape[2:] == (96, 187)
    assert bool(patches.isfinite().all())
