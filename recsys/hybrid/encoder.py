"""From what is known of a track to its place in every part of the blend, plays or no plays.

    Modalities, Metadata  ->  Encoder  ->  content vectors, and for a cold track its item vector in each part

One class serves the fit and an upload a second ago, so that a track's vector never depends on the way it came in.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack

from recsys.cf.lightfm import nearest_columns, with_unit_rows
from recsys.content.fusion import Modalities
from recsys.content.lyrics import LyricsReader
from recsys.content.metadata import Vocabulary, encode, sparse_features
from recsys.content.train import ContentModel, modalities_of
from recsys.hybrid.blend import NEW, Blend
from recsys.hybrid.kernel import Features
from recsys.hybrid.mapping import FactorMap
from recsys.types import Float32, Int32, Tags, Tracks
from recsys.util.progress import Progress
from recsys.util.topk import unit_rows


@dataclass(frozen=True, slots=True, eq=False)
class Scaler:
    """Standardises the columns of sound vectors: ``mean`` and ``deviation`` (d,)."""

    mean: Float32
    deviation: Float32

    @classmethod
    def of(cls, vectors: Float32) -> "Scaler":
        """Learn from vectors (n, d), n > 0; a constant column is only centred."""
        deviation = vectors.std(axis=0)
        return cls(vectors.mean(axis=0), np.where(deviation > 1e-6, deviation, 1).astype(np.float32))

    def __call__(self, vectors: Float32) -> Float32:
        """Scale (n, d)."""
        return np.asarray((vectors - self.mean) / self.deviation, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class LightFMColumns:
    """What LightFM learned of features: ``embeddings`` (F + n_centroids, f + 1) and the ``centroids`` of content."""

    embeddings: Float32
    centroids: Float32
    nearest: int


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """Everything that turns a track without plays into vectors.

    ``scaler`` is None for a catalogue without sound; ``factor_map`` and ``lightfm`` are None without plays.
    ``signs`` (F, d) int8 project labels and artists, None for a catalogue without.
    ``content_mean`` (d,) is the catalogue's mean content vector, ``unplayed`` the popularity of no plays.
    """

    content: ContentModel
    scaler: Scaler | None
    content_mean: Float32
    factor_map: FactorMap | None
    lightfm: LightFMColumns | None
    unplayed: float
    signs: NDArray[np.int8] | None = None

    def modalities(self, tracks: Tracks, tags: Tags | None, sound: tuple[Int32, Float32] | None) -> Modalities:
        """Line up tracks with their sound vectors (rows, vectors), scaled as in training."""
        return line_up(self.content.vocabulary, self.content.reader, self.scaler, tracks, tags, sound)

    def profile(self, content: Float32) -> Float32:
        """Centre content vectors (n, d) on the catalogue and give them unit length; unknown tracks stay zero."""
        known = np.abs(content).sum(axis=1, keepdims=True) > 0
        return unit_rows(np.where(known, content - self.content_mean, 0).astype(np.float32))

    def features(self, tracks: Modalities) -> Features:
        """What the map to factors looks at."""
        labels = sparse_features(tracks.metadata, self.content.vocabulary, artists=False)
        return Features(labels, tracks.sound, tracks.metadata.artist)

    def labels(self, tracks: Modalities) -> Float32:
        """Genres, tags, year and artist as unit vectors (n, d) whose cosines are about those of the columns themselves.

        A random projection (Johnson & Lindenstrauss 1984): tracks of one artist are alike whatever networks make of it.
        """
        columns = sparse_features(tracks.metadata, self.content.vocabulary, artists=True)
        signs = np.zeros((columns.shape[1], 1), np.int8) if self.signs is None else self.signs
        return unit_rows(np.asarray(columns @ signs, dtype=np.float32))

    def cold_parts(self, tracks: Modalities, content: Float32, names: tuple[str, ...]) -> dict[str, Float32]:
        """Item vectors (n, f) of tracks that nobody has played, by part name, in the parts' own units."""
        mapped = {} if self.factor_map is None else self.factor_map(self.features(tracks))
        if "wide" in mapped:
            mapped["mapped"] = mapped["wide"]
        parts = {name: vectors for name, vectors in mapped.items() if name in names}
        if "lightfm" in names and self.lightfm is not None:
            columns = lightfm_features(
                tracks, self.content, nearest_columns(content, self.lightfm.centroids, self.lightfm.nearest)
            )
            parts["lightfm"] = np.asarray(with_unit_rows(columns) @ self.lightfm.embeddings, dtype=np.float32)
        if "labels" in names:
            parts["labels"] = self.labels(tracks)
        if "content" in names:
            parts["content"] = self.profile(content)
        if "popularity" in names:
            parts["popularity"] = np.full((len(content), 1), self.unplayed, dtype=np.float32)
        if NEW in names:
            parts[NEW] = np.ones((len(content), 1), dtype=np.float32)
        return parts

    def item_vectors(self, tracks: Modalities, content: Float32, blend: Blend) -> Float32:
        """Joint item vectors (n, d) of tracks that nobody has played, in the columns of ``blend``."""
        parts = self.cold_parts(tracks, content, tuple(p.name for p in blend.parts))
        return np.hstack([parts[p.name] * np.float32(p.scale * p.new) for p in blend.parts]).astype(np.float32)


def line_up(
    vocabulary: Vocabulary,
    reader: LyricsReader,
    scaler: Scaler | None,
    tracks: Tracks,
    tags: Tags | None,
    sound: tuple[Int32, Float32] | None,
    progress: Progress | None = None,
) -> Modalities:
    """Encode metadata by the vocabulary and lyrics by their reader, and scale the sound vectors (rows, vectors)."""
    scaled = None
    if scaler is not None:
        rows, vectors = sound or (np.zeros(0, np.int32), np.zeros((0, len(scaler.mean)), np.float32))
        scaled = (rows, scaler(vectors))
    return modalities_of(scaled, reader.read(tracks.frame["lyrics"], progress), encode(tracks, tags, vocabulary))


def lightfm_features(tracks: Modalities, content: ContentModel, centroid_columns: csr_matrix) -> csr_matrix:
    """Join the sparse features, artists among them, and the content's nearest centroids: csr (n, F + n_centroids)."""
    sparse = sparse_features(tracks.metadata, content.vocabulary, artists=True)
    return csr_matrix(hstack([sparse, centroid_columns], format="csr", dtype=np.float32))


def popularity(counts: csr_matrix, exposure: float) -> tuple[NDArray[np.float32], float]:
    """How popular each item is, (n, 1), and what one that nobody has played gets.

    log(1 + listeners), a listener of many plays counting for log2(1 + plays). A track with few listeners leans on the
    mean of all played ones, as far as it lacks exposure: n / (n + exposure) of its own. So a new track ranks neither
    below everything that was ever played, nor above it.
    """
    n_listeners = np.bincount(counts.indices, minlength=counts.shape[1])
    damped = np.bincount(counts.indices, weights=np.log2(1 + counts.data), minlength=counts.shape[1])
    own = np.log1p(damped)
    mean = float(own[n_listeners > 0].mean()) if counts.nnz else 0.0
    weight = n_listeners / (n_listeners + exposure)
    return (weight * own + (1 - weight) * mean)[:, None].astype(np.float32), mean
