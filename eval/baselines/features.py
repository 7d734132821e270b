"""What baselines learn from: training plays and what is known of the tracks, brought into the rows of the plays.

    Plays (training), Tracks, Tags, sound vectors  ->  BaselineData.of  ->  BaselineData

Tags are given whole, as input of the tracks. ALS factors are kept by their settings, so that the models which only
look at them do not fit them again at every trial. One material belongs to one set of training plays.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack

from eval.baselines.timeline import Timeline
from recsys.cf.als import ALSSettings, fit_als
from recsys.content.metadata import Metadata, MetadataSettings, Vocabulary, encode, learn_vocabulary, one_hot
from recsys.types import Factors, Float32, Int32, Listens, Plays, Tags, Tracks

Value = Literal["log", "raw", "binary"]
VALUES: tuple[Value, ...] = ("log", "raw", "binary")
_KEPT_FACTORS = 12  # sets of ALS factors at once: 128 factors of 100,000 tracks and users are 100 MB


@dataclass(frozen=True, slots=True, eq=False)
class BaselineData:
    """Training plays, and features in their item rows.

    ``sound`` (n_items, d) is standardised, zeros for a track without; d may be 0. ``timeline`` has all timed plays in
    their order; empty where none has a time.
    """

    plays: Plays
    metadata: Metadata
    vocabulary: Vocabulary
    sound: Float32
    timeline: Timeline = field(default_factory=Timeline.none)
    _factors: dict[tuple[int, float, float, int], Factors] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        plays: Plays,
        tracks: Tracks,
        tags: Tags | None,
        sound: tuple[Int32, Float32] | None,
        listens: Listens | None = None,
    ) -> "BaselineData":
        """Bring tracks, in any order, and sound (item rows of ``plays``, vectors) into the rows of the plays.

        ``listens`` are those that the plays were added up from; without them no order of plays is known.
        """
        wanted = pl.DataFrame({"track_id": plays.track_ids}, schema={"track_id": pl.String()})
        in_order = wanted.join(tracks.frame, on="track_id", how="left", maintain_order="left")
        ordered = Tracks(in_order.select(tracks.frame.columns))
        vocabulary = learn_vocabulary(ordered, tags, MetadataSettings())
        timeline = Timeline.none() if listens is None else Timeline.of(listens, plays)
        return cls(plays, encode(ordered, tags, vocabulary), vocabulary, _standardised(sound, len(ordered)), timeline)

    @property
    def n_artists(self) -> int:
        """Artists of two tracks or more."""
        return len(self.vocabulary.artists)

    @property
    def has_features(self) -> bool:
        """Whether anything is known that two tracks may share."""
        columns = self.metadata.tags.nnz + self.metadata.genres.nnz + self.sound.shape[1] + self.n_artists
        return bool(columns or self.vocabulary.n_year_buckets)

    @property
    def artists(self) -> csr_matrix:
        """Artist columns (n_items, n_artists), empty rows for the others."""
        return one_hot(self.metadata.artist, self.n_artists)

    def columns(self, tags: Value, artist_weight: float = 1.0) -> csr_matrix:
        """Join tags, genres, years and artists into one csr (n_items, F) float32 >= 0."""
        blocks = [
            self.tags(tags),
            self.metadata.genres,
            one_hot(self.metadata.year, self.vocabulary.n_year_buckets),
            self.artists * np.float32(artist_weight),
        ]
        return csr_matrix(hstack(blocks, format="csr", dtype=np.float32))

    def tags(self, value: Value) -> csr_matrix:
        """Tag weights (n_items, T): log(1 + weight), the weight itself, or 1."""
        tags = self.metadata.tags  # holds log(1 + weight)
        if value == "log":
            return tags
        data = np.expm1(tags.data) if value == "raw" else np.ones_like(tags.data)
        return csr_matrix((data, tags.indices, tags.indptr), shape=tags.shape)

    def als(self, n_factors: int, l2: float, mean_confidence: float, seed: int) -> Factors:
        """Fit ALS, or give what was fitted before with these settings."""
        key = (n_factors, l2, mean_confidence, seed)
        if key not in self._factors:
            if len(self._factors) >= _KEPT_FACTORS:
                del self._factors[next(iter(self._factors))]
            scale = confidence_scale_of(self.plays.counts, mean_confidence)
            settings = ALSSettings(n_factors=n_factors, l2=l2, confidence_scale=scale)
            self._factors[key] = fit_als(self.plays, settings, seed)
        return self._factors[key]


def confidence_scale_of(counts: csr_matrix, mean_confidence: float) -> float:
    """Find the scale in c = 1 + scale * log(1 + plays) that gives played pairs this mean above 1."""
    return mean_confidence / float(np.log1p(counts.data).mean())


def valued(counts: csr_matrix, value: Value) -> csr_matrix:
    """Play counts as log(1 + plays), as they are, or as 1; same stored pairs."""
    data = counts.data if value == "raw" else np.log1p(counts.data) if value == "log" else np.ones_like(counts.data)
    return csr_matrix((data.astype(np.float32), counts.indices, counts.indptr), shape=counts.shape)


def with_mean_one(matrix: csr_matrix) -> csr_matrix:
    """Scale a matrix so that the mean of its stored values > 0 is 1: a penalty then weighs alike on any set."""
    mean = float(matrix.data.mean()) if matrix.nnz else 1.0
    return csr_matrix((matrix.data / np.float32(mean), matrix.indices, matrix.indptr), shape=matrix.shape)


def _standardised(sound: tuple[Int32, Float32] | None, n_items: int) -> Float32:
    if sound is None or not len(sound[0]):
        return np.zeros((n_items, 0), dtype=np.float32)
    rows, vectors = sound
    deviation: NDArray[np.float32] = vectors.std(axis=0)
    scaled = np.zeros((n_items, vectors.shape[1]), dtype=np.float32)
    scaled[rows] = (vectors - vectors.mean(axis=0)) / np.where(deviation > 1e-6, deviation, 1)
    return scaled
