"""Clips in, the same clips as they come back from the world: later, noisier, louder, squeezed.

    clips, condition, seed  ->  Distorted  ->  clips, each made from its own row of the seed when it is read

Reading a row twice gives the same samples, so every network hears the same. mp3s, the only slow ones (0.16 s a clip),
are made once and kept in the clips' own file. Distortions are those of
``recsys.audio.augment``.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from recsys.audio.augment import amplified, as_mp3, band_passed, shifted, with_noise
from recsys.audio.sample import ClipSample
from recsys.types import Clip, Float32

Distort = Callable[[Float32, int, np.random.Generator], Float32]

_SHIFT_S = (0.5, 3.0)
_MP3 = "mp3-32kbit"


def _shift(samples: Float32, sample_rate: int, rng: np.random.Generator) -> Float32:
    """Start 0.5-3 s later; of a short clip half is kept."""
    return shifted(samples, sample_rate, min(rng.uniform(*_SHIFT_S), len(samples) / sample_rate / 2))


CONDITIONS: dict[str, Distort] = {
    "shift-0.5-3s": _shift,
    "noise-20db": lambda samples, _, rng: with_noise(samples, 20.0, rng),
    "noise-10db": lambda samples, _, rng: with_noise(samples, 10.0, rng),
    "gain+6db": lambda samples, _rate, _rng: amplified(samples, 6.0),
    "gain-6db": lambda samples, _rate, _rng: amplified(samples, -6.0),
    _MP3: lambda samples, sample_rate, _: as_mp3(samples, sample_rate, 32.0),
    "band-300-3400hz": lambda samples, sample_rate, _: band_passed(samples, sample_rate, 300.0, 3400.0),
}


class Distorted:
    """All clips under one of ``CONDITIONS``, made when they are read.

    Args:
        clips: n clean ones. condition: its name. seed: with the condition and the row it decides what is drawn.
    """

    def __init__(self, clips: ClipSample, condition: str, seed: int) -> None:
        self._clips, self._distort = clips, CONDITIONS[condition]
        self._seed = (seed, list(CONDITIONS).index(condition))
        self._place: dict[int, int] = {}  # of a row in the clips that are kept
        self._kept = clips.take(()) if condition == _MP3 else None  # behind them in their file

    def __getitem__(self, row: int) -> Clip:
        """Distort the clip of a row, or read what was made of it before.

        Raises:
            DataError: the condition is impossible at the clip's sample rate.
        """
        if self._kept is None:
            return self._made(row)
        if row not in self._place:
            self._place[row] = len(self._kept)
            self._kept.append(self._made(row))
        return self._kept[self._place[row]]

    def _made(self, row: int) -> Clip:
        clean = self._clips[row]
        rng = np.random.default_rng((*self._seed, row))
        return replace(clean, samples=self._distort(clean.samples, clean.sample_rate, rng))


def check_conditions(sample_rate: int) -> None:
    """Try every condition on a second of noise, before hours of work.

    Raises:
        DataError: one is impossible at this sample rate.
    """
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, sample_rate).astype(np.float32)
    for distort in CONDITIONS.values():
        distort(noise, sample_rate, np.random.default_rng(0))
