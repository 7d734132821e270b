"""One network and one fold in, a value a track out.

    JudgedTracks, fold, fit  ->  fold_values: fit on the other folds, vectors of all tracks, of the fold's distorted
    clips
                         ->  probes, likeness, recall  ->  FoldValues

What is held out reaches neither the fit nor a probe: ``fitted_to`` hands over the clips, tracks and tags of the rows
that it is given, and nothing else. Which folds there are and what becomes of the values is decided in
``eval.representation.run``.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from eval.representation.distort import Distorted
from eval.representation.figures import FIGURES, K_GENRE, Figure, FoldValues
from eval.representation.folds import Labels
from eval.representation.likeness import found_again, same_artist, same_genre
from eval.representation.models import Fit, Fitted
from eval.representation.probes import artist_hits, genre_hits, tag_scores
from recsys.audio.sample import ClipSample
from recsys.errors import DataError
from recsys.types import Clip, Float32, Int32, Tags, Tracks
from recsys.util.progress import Bar, Progress
from recsys.util.threads import in_threads
from recsys.util.topk import unit_rows

_BLOCK_CLIPS = 8  # that a thread embeds at a time: 15 MB of samples
_TIMED_CLIPS = 16


@dataclass(frozen=True, slots=True, eq=False)
class JudgedTracks:
    """The n tracks that are judged, each with a clip; or with a ``given`` vector, and then there are no clips."""

    tracks: Tracks
    tags: Tags | None
    labels: Labels
    folds: Int32
    clips: ClipSample | None
    distorted: Mapping[str, Distorted]
    given: Float32 | None


def fold_values(material: JudgedTracks, fold: int, fit: Fit, progress: Progress) -> FoldValues:
    """Fit on the other folds, and judge on this one."""
    labels = material.labels
    held_out = np.flatnonzero(material.folds == fold).astype(np.int32)
    train = np.flatnonzero(material.folds != fold).astype(np.int32)
    started = time.perf_counter()
    fitted = fitted_to(material, train, fit, progress)
    facts: dict[str, Any] = {"fit_seconds": time.perf_counter() - started, "n_parameters": fitted.n_parameters}
    facts |= {"label": fitted.label, "embed_ms": _embed_ms(fitted, material.clips, held_out)}
    n_clips = (len(labels) + len(material.distorted) * len(held_out)) if material.clips is not None else 0
    columns: dict[Figure, NDArray[np.float64]] = {}
    with progress.bar("embedding", n_clips, "clips") as bar:
        clean = clean_vectors(material, fitted, bar)
        for condition, distorted in material.distorted.items():
            vectors = _embedded(fitted, (distorted[row] for row in held_out.tolist()), bar)
            columns[Figure(condition, "recall", 1)] = found_again(vectors, held_out, clean)
    columns |= _probed(clean, train, held_out, labels) | _likeness(clean, held_out, labels)
    unknown = np.full(len(held_out), np.nan)
    values = np.stack([columns.get(figure, unknown) for figure in FIGURES], axis=1)
    return FoldValues(held_out, values, tag_scores(clean[train], labels.tags[train], clean[held_out]), facts)


def fitted_to(material: JudgedTracks, rows: Int32, fit: Fit, progress: Progress) -> Fitted:
    """Fit on some tracks; of the others neither sound nor labels nor tags are given."""
    tracks = Tracks(material.tracks.frame[rows])
    tags = None
    if material.tags is not None:
        tags = Tags(material.tags.frame.filter(pl.col("track_id").is_in(tracks.frame["track_id"].implode())))
    return fit(() if material.clips is None else material.clips.take(rows), tracks, tags, progress)


def clean_vectors(material: JudgedTracks, fitted: Fitted, bar: Bar) -> Float32:
    """Embed every track as it is, (n, d) unit rows; given vectors are taken as they came."""
    if material.clips is None:
        return material.given if material.given is not None else np.zeros((0, 0), np.float32)
    return _embedded(fitted, material.clips, bar)


def _embedded(fitted: Fitted, clips: Iterable[Clip], bar: Bar) -> Float32:
    """Embed clips, a block a core at a time; unit rows in their order."""
    stream = iter(clips)
    blocks = iter(lambda: list(islice(stream, _BLOCK_CLIPS)), [])
    parts = []
    for part in in_threads(fitted.embed, blocks):
        parts.append(part)
        bar.advance(len(part))
    return unit_vectors(np.concatenate(parts))


def unit_vectors(vectors: Float32) -> Float32:
    """Scale vectors (n, d) to unit length; a vector of zeros stays.

    Raises:
        DataError: a number is not finite.
    """
    if not np.isfinite(vectors).all():
        raise DataError(f"vectors {vectors.shape} have numbers that are not finite; train the network anew")
    return unit_rows(vectors)


def _embed_ms(fitted: Fitted, clips: ClipSample | None, rows: Int32) -> float | None:
    """Time a clip's embedding, on one core, in ms.

    A little softer than before, so that no frozen network remembers it.
    """
    if clips is None:
        return None
    soft = [replace(clip, samples=clip.samples * np.float32(0.999)) for clip in clips.take(rows[:_TIMED_CLIPS])]
    started = time.perf_counter()
    list(in_threads(fitted.embed, [soft], 1))
    return 1000 * (time.perf_counter() - started) / len(soft)


def _probed(clean: Float32, train: Int32, held_out: Int32, labels: Labels) -> dict[Figure, NDArray[np.float64]]:
    genres = genre_hits(clean[train], labels.genres[train], clean[held_out], labels.genres[held_out])
    artists = artist_hits(clean[held_out], np.where(labels.has_artist, labels.groups, -1)[held_out])
    figures = [("genre_accuracy", genres), ("artist_accuracy", artists)]
    by_name = {(figure.segment, figure.metric): figure for figure in FIGURES}
    return {by_name[segment, metric]: hits for metric, found in figures for segment, hits in found.items()}


def _likeness(clean: Float32, held_out: Int32, labels: Labels) -> dict[Figure, NDArray[np.float64]]:
    found: dict[Figure, NDArray[np.float64]] = {}
    for segment, among in (("all", np.arange(len(labels), dtype=np.int32)), ("fold", held_out)):
        genre = same_genre(clean, held_out, among, labels.genres, labels.groups, K_GENRE)
        artist = same_artist(clean, held_out, among, labels.groups, labels.has_artist)
        found |= {Figure(segment, "same_genre", K_GENRE): genre, Figure(segment, "same_artist", 1): artist}
    return found
