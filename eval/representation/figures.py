"""Values a track in, figures with intervals out.

    FoldValues of every fold  ->  summarise  ->  rows of ``FIGURES_SCHEMA``, split "representation"

A value is the mean over the tracks of all folds; its 95 % interval is that of the mean when artists are drawn anew,
each with all of its tracks: tracks of one artist are alike, and an interval over tracks would be too narrow. All
networks meet the same draws. Tags are judged by average precision and ROC-AUC a tag and fold, then averaged; these are
drawn anew in the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from eval.representation.distort import CONDITIONS
from eval.representation.folds import Labels
from eval.representation.probes import GENRE_PROBES, N_NEIGHBOURS
from eval.results import FIGURES_SCHEMA
from recsys.errors import DataError
from recsys.types import Float32, Int32

SPLIT = "representation"
K_GENRE = 10  # same-genre@10
LEVEL = 0.95

Float64 = NDArray[np.float64]


class Figure(NamedTuple):
    """What a column of values is about."""

    segment: str
    metric: str
    k: int | None


FIGURES: tuple[Figure, ...] = (
    *(Figure(probe, "genre_accuracy", N_NEIGHBOURS if probe == "knn" else None) for probe in GENRE_PROBES),
    Figure("nearest", "artist_accuracy", 1),
    Figure("centroid", "artist_accuracy", None),
    Figure("all", "same_genre", K_GENRE),
    Figure("fold", "same_genre", K_GENRE),
    Figure("all", "same_artist", 1),
    Figure("fold", "same_artist", 1),
    *(Figure(condition, "recall", 1) for condition in CONDITIONS),
)
TAG_FIGURES = (Figure("tags", "average_precision", None), Figure("tags", "roc_auc", None))

FORMULAS = {
    "genre_accuracy": "share of held-out tracks whose first genre is told right by a probe on the vectors, learned on "
    "the other folds: logistic, lda, svm (linear), or knn (10 nearest by cosine)",
    "artist_accuracy": "share of a fold's tracks, of artists with two or more in it, whose artist is told right from "
    "the fold's other such tracks: by the nearest one, or by the nearest artist's mean",
    "same_genre": "of the 10 nearest tracks of other artists, the share of the track's first genre; among all tracks, "
    "or among those of the fold",
    "same_artist": "1 where the nearest other track is of the same artist, for artists with another track among all "
    "tracks, or in the fold",
    "recall": "1 where the clean vector nearest to a distorted track's is its own, among all tracks",
    "average_precision": "of the fold's tracks ranked for a tag by a linear probe: mean of the precision at each "
    "tagged track; mean over tags and folds",
    "roc_auc": "share of pairs of a tagged and an untagged track of a fold that a linear probe ranks right; mean over "
    "tags and folds",
}
NOTES = (
    "representation: the vectors of a fold are of a network that saw none of the fold's artists; probes are learned on "
    "the other folds' vectors; the first of several genres counts",
    "representation: value is the mean over the tracks of all folds, n_users their number; ci_low and ci_high are the "
    "95 % bootstrap interval over artists, each with all of its tracks",
    "representation: in the segment all, all tracks are candidates, those that the network was trained on too; the "
    "segment fold has the fold's own tracks alone",
    "representation: a shift leaves out the first 0.5-3 s, at most half of a clip; distorted clips are the same for "
    "all networks",
)


@dataclass(frozen=True, slots=True, eq=False)
class FoldValues:
    """What one network came to on one fold.

    ``rows`` (m,) int32 are the fold's tracks, ``values`` (m, figures) float64 in the order of ``FIGURES``, NaN where
    not judged; ``tag_scores`` (m, T) float32, NaN where a probe could not be learned. ``facts`` is what ``json`` can
    write: parameters, seconds.
    """

    rows: Int32
    values: Float64
    tag_scores: Float32
    facts: dict[str, Any]

    def __post_init__(self) -> None:
        """Check that all have a row a track."""
        if self.values.shape != (len(self.rows), len(FIGURES)) or len(self.tag_scores) != len(self.rows):
            raise DataError(
                f"{len(self.rows)} tracks have values {self.values.shape} and tag scores {self.tag_scores.shape}, "
                f"expected ({len(self.rows)}, {len(FIGURES)}) and a row a track"
            )


def summarise(found: Mapping[str, Sequence[FoldValues]], labels: Labels, n_resamples: int, seed: int) -> pl.DataFrame:
    """Average each network's values over all folds' tracks, with intervals over artists.

    Args:
        found: by network, its folds. labels: of all tracks. n_resamples, seed: of the bootstrap.

    Returns:
        A row a figure that could be judged; ``n_users`` is the number of tracks.
    """
    weights = draw_artists(labels.groups, n_resamples, seed)
    rows: list[tuple[object, ...]] = []
    for network, folds in found.items():
        tracks = np.concatenate([fold.rows for fold in folds])
        values = np.concatenate([fold.values for fold in folds])
        for figure, column in zip(FIGURES, values.T, strict=True):
            judged = np.isfinite(column)
            if judged.any():
                drawn = pooled_means(column[judged], weights[:, tracks[judged]])
                rows.append(_row(network, figure, float(column[judged].mean()), drawn, int(judged.sum())))
        rows += _tag_rows(network, folds, labels, weights)
    return pl.DataFrame(rows, schema=FIGURES_SCHEMA, orient="row")


def draw_artists(groups: Int32, n_resamples: int, seed: int) -> Float64:
    """Draw as many artists as there are, with replacement, again and again.

    Args:
        groups: (n,) the artist of each track, from 0 without gaps.

    Returns:
        (n_resamples, n): how often each track comes, the same for all tracks of an artist.
    """
    n_groups = int(groups.max()) + 1
    rng = np.random.default_rng(seed)
    times = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples)
    drawn: Float64 = times[:, groups].astype(np.float64)
    return drawn


def pooled_means(values: Float64, weights: Float64) -> Float64:
    """Mean of values (m,) under each row of weights (b, m); NaN where no track was drawn."""
    total = weights.sum(axis=1)
    means: Float64 = np.divide(weights @ values, total, out=np.full(len(weights), np.nan), where=total > 0)
    return means


def precision_and_auc(scores: Float32, tagged: NDArray[np.bool_], weights: Float64) -> tuple[Float64, Float64]:
    """Average precision and ROC-AUC of one ranking, under each row of weights; tracks with one score share their place.

    Args:
        scores: (m,). tagged: (m,). weights: (b, m), >= 0.

    Returns:
        Both (b,), NaN where no tagged or no untagged track has a weight.
    """
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    positive = np.add.reduceat(weights[:, order] * tagged[order], starts, axis=1)
    negative = np.add.reduceat(weights[:, order] * ~tagged[order], starts, axis=1)
    n_positive, n_negative = positive.sum(axis=1), negative.sum(axis=1)
    hits, misses = positive.cumsum(axis=1), negative.cumsum(axis=1)
    precision = np.divide(hits, hits + misses, out=np.zeros_like(hits), where=hits + misses > 0)
    pairs = positive * (n_negative[:, None] - misses + negative / 2)
    judged = (n_positive > 0) & (n_negative > 0)
    unknown = np.full(len(weights), np.nan)
    average = np.divide((positive * precision).sum(axis=1), n_positive, out=unknown.copy(), where=judged)
    auc = np.divide(pairs.sum(axis=1), n_positive * n_negative, out=unknown.copy(), where=judged)
    return average, auc


def _tag_rows(network: str, folds: Sequence[FoldValues], labels: Labels, weights: Float64) -> list[tuple[object, ...]]:
    whole: list[tuple[Float64, Float64]] = []
    drawn: list[tuple[Float64, Float64]] = []
    for fold in folds:
        for column in range(fold.tag_scores.shape[1]):
            scores, tagged = fold.tag_scores[:, column], labels.tags[fold.rows, column]
            if np.isfinite(scores).all() and tagged.any() and not tagged.all():
                whole.append(precision_and_auc(scores, tagged, np.ones((1, len(scores)))))
                drawn.append(precision_and_auc(scores, tagged, weights[:, fold.rows]))
    if not whole:
        return []
    n_tracks = sum(len(fold.rows) for fold in folds)
    return [
        _row(
            network, figure, float(np.mean([one[n] for one in whole])), _mean_of_known([d[n] for d in drawn]), n_tracks
        )
        for n, figure in enumerate(TAG_FIGURES)
    ]


def _mean_of_known(drawn: Sequence[Float64]) -> Float64:
    """Average over tags and folds (t, b) those that a draw has left."""
    values = np.array(drawn)
    known = np.isfinite(values)
    n_known = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0)
    means: Float64 = np.divide(total, n_known, out=np.full(len(total), np.nan), where=n_known > 0)
    return means


def _row(network: str, figure: Figure, value: float, drawn: Float64, n_tracks: int) -> tuple[object, ...]:
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return (network, SPLIT, figure.segment, figure.metric, figure.k, value, float(low), float(high), n_tracks)
