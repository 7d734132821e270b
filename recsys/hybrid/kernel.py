"""How alike two tracks are by what is known of them: the kernel of the map from features to factors.

    Features of tracks (n), Features of landmarks (m)  ->  Kernel  ->  likeness (n, m)

Labels (genres, tags with log weights, years) count as they are and by their directions, their number and size by
themselves, sound by its distance, and all of them together once more. Only landmarks are kept, so that time grows with
the tracks and not with their square (Nyström: Williams & Seeger, NIPS 2000).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.types import Float32

BLOCK = 4096  # tracks whose likeness to all landmarks is held at a time

# Weights and widths were chosen by recall of new tracks on hetrec-spotify, with all tags and with five
# (docs/research/findings.md)
LINEAR, DIRECTION, LENGTHS, TOGETHER, SOUND = 0.5, 1.0, 0.3, 0.5, 0.2
LENGTH_WIDTH = 8.0  # in squared standard deviations
SOUND_WIDTH, SOUND_WIDTH_TOGETHER = 3.0, 6.0  # the same, a dimension of the sound vector


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What a map to factors looks at: ``labels`` csr (n, F) >= 0, ``sound`` (n, d) standardised, zeros where there is
    none, d may be 0, and ``artist`` (n,) class or -1.
    """

    labels: csr_matrix
    sound: Float32
    artist: NDArray[np.int64]

    def __len__(self) -> int:
        """Count the tracks."""
        return len(self.artist)

    def take(self, rows: NDArray[np.integer[Any]] | slice) -> "Features":
        """Keep some rows, in the order asked for."""
        return Features(csr_matrix(self.labels[rows]), self.sound[rows], self.artist[rows])

    def blocks(self) -> Iterator[tuple[slice, "Features"]]:
        """Cut into blocks of rows."""
        for start in range(0, len(self), BLOCK):
            rows = slice(start, min(start + BLOCK, len(self)))
            yield rows, self.take(rows)

    def distinct(self) -> NDArray[np.int64]:
        """Find the first row of every kind of track, by labels and sound: tracks that look alike are one landmark."""
        rng = np.random.default_rng(0)
        keys = self.labels @ rng.normal(size=self.labels.shape[1]) + self.sound @ rng.normal(size=self.sound.shape[1])
        return np.sort(np.unique(np.round(keys, 6), return_index=True)[1])


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """Likeness to ``landmarks`` (m tracks); ``size`` is the mean squared length of labels, the others scale lengths."""

    landmarks: Features
    size: float
    length_mean: Float32
    length_deviation: Float32

    @classmethod
    def of(cls, features: Features, landmarks: NDArray[np.int64]) -> "Kernel":
        """Learn the scales from tracks (n), n > 0, and keep some of them as landmarks."""
        lengths = _lengths(features.labels)
        deviation = lengths.std(axis=0)
        deviation = np.where(deviation > 1e-6, deviation, 1).astype(np.float32)
        size = float((lengths[:, 0] ** 2).mean())
        return cls(features.take(landmarks), size if size > 0 else 1.0, lengths.mean(axis=0), deviation)

    def __call__(self, features: Features) -> Float32:
        """The likeness (n, m) of tracks to the landmarks; n is best no more than ``BLOCK``."""
        one, other = features.labels, self.landmarks.labels
        inner = np.asarray((one @ other.T).toarray(), dtype=np.float32)
        own, others = self._scaled(one), self._scaled(other)
        far = _squared(own, others) / np.float32(LENGTH_WIDTH)
        found: Float32 = np.float32(LENGTHS) * np.exp(-far)
        found += np.float32(LINEAR / self.size) * inner
        norms, landmark_norms = _norms(one), _norms(other)
        inner /= np.maximum(norms, 1e-9)[:, None] * np.maximum(landmark_norms, 1e-9)
        apart = (norms > 0).astype(np.float32)[:, None] + (landmark_norms > 0) - 2 * inner
        found += np.float32(DIRECTION) * np.exp(-apart)
        far += apart
        d = features.sound.shape[1]
        if d:
            heard = _squared(features.sound, self.landmarks.sound) / np.float32(SOUND_WIDTH * d)
            found += np.float32(SOUND) * np.exp(-heard)
            far += heard * np.float32(SOUND_WIDTH / SOUND_WIDTH_TOGETHER)
        found += np.float32(TOGETHER) * np.exp(-far)
        return np.asarray(found, dtype=np.float32)

    def _scaled(self, labels: csr_matrix) -> Float32:
        return np.asarray((_lengths(labels) - self.length_mean) / self.length_deviation, dtype=np.float32)


def _norms(labels: csr_matrix) -> Float32:
    return np.asarray(np.sqrt(labels.multiply(labels).sum(axis=1)), dtype=np.float32).ravel()


def _lengths(labels: csr_matrix) -> Float32:
    """How much is known: the length of the labels, and the logarithms of their sum and of their number, (n, 3)."""
    sums = np.log1p(np.asarray(labels.sum(axis=1), dtype=np.float32).ravel())
    return np.stack([_norms(labels), sums, np.log1p(np.diff(labels.indptr))], axis=1).astype(np.float32)


def _squared(one: Float32, other: Float32) -> Float32:
    """Squared distances (n, m)."""
    found = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    return np.asarray(np.maximum(found, 0), dtype=np.float32)
