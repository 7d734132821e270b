"""MFCC statistics: the classic baseline that any learned vector must beat.

    clips  ->  log-mel, cosine transform  ->  mean and deviation of 20 coefficients and their differences  ->  (n, 80)

From the log-mel that the networks see. Standardised by the training clips, so that no coefficient outweighs the others
by its unit; nothing else is learned (Tzanetakis and Cook 2002 used the like).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import dct

from recsys.audio.logmel import log_mel
from recsys.audio.settings import LogMelSettings
from recsys.types import Clip, Float32

N_COEFFICIENTS = 20
N_STATISTICS = 4 * N_COEFFICIENTS
_SMALLEST_DEVIATION = 1e-6  # of a statistic that is the same in all clips


@dataclass(frozen=True, slots=True, eq=False)
class Mfcc:
    """The statistics' mean and deviation (80,) over the training clips."""

    mean: Float32
    deviation: Float32
    settings: LogMelSettings

    def embed(self, clips: Sequence[Clip]) -> Float32:
        """Describe clips by (n, 80) standardised statistics."""
        statistics = np.stack([mfcc_statistics(clip, self.settings) for clip in clips])
        standardised: Float32 = (statistics - self.mean) / self.deviation
        return standardised


def fit_mfcc(clips: Sequence[Clip], settings: LogMelSettings) -> Mfcc:
    """Learn the scale of the statistics."""
    statistics = np.stack([mfcc_statistics(clip, settings) for clip in clips])
    return Mfcc(statistics.mean(axis=0), np.maximum(statistics.std(axis=0), _SMALLEST_DEVIATION), settings)


def mfcc_statistics(clip: Clip, settings: LogMelSettings) -> Float32:
    """Mean and deviation over frames of the first 20 MFCCs, then of their first differences, (80,) float32."""
    spectrogram = log_mel(torch.from_numpy(clip.samples)[None], settings)[0].numpy()
    coefficients = dct(spectrogram, axis=0, norm="ortho")[:N_COEFFICIENTS]
    parts = [coefficients, np.diff(coefficients, axis=1, append=coefficients[:, -1:])]
    statistics: Float32 = np.concatenate([each for x in parts for each in (x.mean(axis=1), x.std(axis=1))])
    return statistics.astype(np.float32)
