"""What proxy tasks are held against: labels of tracks, gathered once a fit.

    Tracks, Tags, item factors, listeners  ->  targets_of  ->  Targets, a row a track

Whatever comes from listening (factors, listeners, dislikes) must come from training plays only. A label that is
missing is missing: no task takes it for a zero.
"""

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.catalogue.names import one_spelling
from recsys.content.settings import TaskSettings
from recsys.errors import DataError
from recsys.types import Float32, Int32, Tags, Tracks

_MIN_TRACKS = 2  # of a genre, tag or artist, else there is nothing to have in common
_HALF_TRUST_LISTENERS = 5.0  # listeners at which a track's factors weigh half as much as they ever will
_FURTHEST = 3.0  # standard deviations: a recording of 1910 among pop must not be half of the cost


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What is known of n tracks, rows in their order.

    ``genres`` (n, G) float32 and ``tags`` (n, T) bool have 1 where a track is of a genre or has a tag; a row without
    any is unknown. ``artists`` (n,) int64 is a class below ``n_artists``, or -1. ``factors`` (n, f) float32 are
    scaled to a mean square of 1 and count by ``factor_weights`` (n,), 0 for none. ``years`` and ``popularity`` (n,)
    float32 have mean 0 and variance 1 over the tracks that have them, and NaN for the others.
    """

    genres: Float32
    genre_names: tuple[str, ...]
    artists: NDArray[np.int64]
    n_artists: int
    factors: Float32
    factor_weights: Float32
    tags: NDArray[np.bool_]
    tag_names: tuple[str, ...]
    years: Float32
    popularity: Float32

    def __post_init__(self) -> None:
        """Check that all have a row a track, and a column a name."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)}
        n_rows = {name: len(array) for name, array in arrays.items()}
        if len(set(n_rows.values())) != 1:
            raise DataError(f"targets have {n_rows} rows, expected one number, of the tracks")
        for what, names, columns in (
            ("genres", self.genre_names, self.genres.shape[1]),
            ("tags", self.tag_names, self.tags.shape[1]),
        ):
            if columns != len(names):
                raise DataError(f"targets have {columns} columns for {len(names)} {what}, expected one number of each")

    def __len__(self) -> int:
        """Count the tracks."""
        return len(self.artists)

    def take(self, rows: NDArray[np.integer[Any]]) -> Self:
        """Pick rows; classes stay as they are."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return type(self)(**{name: value[rows] if isinstance(value, np.ndarray) else value for name, value in values})


def targets_of(
    tracks: Tracks,
    factors: Float32 | None,
    n_listeners: Int32 | None,
    settings: TaskSettings | None = None,
    tags: Tags | None = None,
    n_dislikers: Int32 | None = None,
) -> Targets:
    """Collect the targets of a catalogue.

    Args:
        tracks: n tracks.
        factors: (n, f) item factors from training plays only; None where there are no listens.
        n_listeners: (n,) distinct listeners in training plays; a track with none has no factors and no popularity to
            learn. Needed with ``factors``.
        settings: how many classes.
        tags: of the tracks; None where there are none.
        n_dislikers: (n,) users who disliked a track. Where anybody did, popularity is the share of those who did not;
            else it is log(1 + listeners).

    Raises:
        DataError: factors, listeners or dislikers do not have a row a track.
    """
    settings = settings or TaskSettings()
    n = len(tracks)
    genres, genre_names = _genres(tracks.frame, settings.max_genres)
    artists, n_artists = _artists(tracks.frame, settings.max_artists)
    scaled, weights = _factors(n, factors, n_listeners)
    labels, tag_names = _tags(tracks.frame, tags, settings.max_tags)
    years = standardised(tracks.frame["year"].cast(pl.Float64).fill_null(np.nan).to_numpy())
    popularity = _popularity(n, n_listeners, n_dislikers)
    return Targets(
        genres, genre_names, artists, n_artists, scaled, weights, labels, tag_names, years, popularity
    )  # fmt: skip


def _most_frequent(values: pl.Series, n_most: int) -> pl.Series:
    """List values that occur often enough, most frequent first, ties by name."""
    counts = values.drop_nulls().to_frame("value").group_by("value").len()
    counts = counts.filter((pl.col("len") >= _MIN_TRACKS) & (pl.col("value") != ""))
    return counts.sort(["len", "value"], descending=[True, False])["value"].head(n_most)


def _marks(pairs: pl.DataFrame, n: int, n_most: int) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Mark (n, classes) from pairs of ``row`` and ``name``, for the most frequent names."""
    names = _most_frequent(pairs["name"], n_most)
    known = pairs.join(pl.DataFrame({"name": names}).with_row_index("class"), on="name", how="inner")
    marks = np.zeros((n, len(names)), dtype=bool)
    marks[known["row"].to_numpy(), known["class"].to_numpy()] = True
    return marks, tuple(names)


def _genres(tracks: pl.DataFrame, n_most: int) -> tuple[Float32, tuple[str, ...]]:
    pairs = tracks.select(name=pl.col("genres").list.unique()).with_row_index("row").explode("name")
    pairs = pairs.with_columns(one_spelling(pairs["name"])).unique(maintain_order=True)
    marks, names = _marks(pairs, len(tracks), n_most)
    return marks.astype(np.float32), names


def _tags(tracks: pl.DataFrame, tags: Tags | None, n_most: int) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    if tags is None:
        return np.zeros((len(tracks), 0), dtype=bool), ()
    rows = tracks.select("track_id").with_row_index("row")
    return _marks(tags.frame.join(rows, on="track_id").select("row", name="tag"), len(tracks), n_most)


def _artists(tracks: pl.DataFrame, n_most: int) -> tuple[NDArray[np.int64], int]:
    tracks = tracks.select(one_spelling(tracks["artist"]))
    names = _most_frequent(tracks["artist"], n_most)
    classes = pl.DataFrame({"artist": names}).with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("class"))
    joined = tracks.select("artist").join(classes, on="artist", how="left", maintain_order="left")
    return joined["class"].fill_null(-1).to_numpy().astype(np.int64), len(names)


def _factors(n: int, factors: Float32 | None, n_listeners: Int32 | None) -> tuple[Float32, Float32]:
    if factors is None:
        return np.zeros((n, 0), np.float32), np.zeros(n, np.float32)
    if n_listeners is None or len(factors) != n or len(n_listeners) != n:
        found = "none" if n_listeners is None else len(n_listeners)
        raise DataError(f"{n} tracks have {len(factors)} factors and {found} listener counts, expected a row a track")
    weights = (n_listeners / (n_listeners + _HALF_TRUST_LISTENERS)).astype(np.float32)
    known = factors[n_listeners > 0]
    scale = float(np.sqrt(np.mean(np.square(known, dtype=np.float64)))) if known.size else 0.0
    return (factors / (scale or 1.0)).astype(np.float32), weights if scale else np.zeros(n, np.float32)


def _popularity(n: int, n_listeners: Int32 | None, n_dislikers: Int32 | None) -> Float32:
    """Standardised; a share of few people leans on the mean share, as a factor of few listeners weighs less."""
    if n_listeners is None:
        return np.full(n, np.nan, dtype=np.float32)
    dislikers = np.zeros(n, dtype=np.int32) if n_dislikers is None else n_dislikers
    if len(n_listeners) != n or len(dislikers) != n:
        raise DataError(
            f"{n} tracks have {len(n_listeners)} listener counts and {len(dislikers)} counts of dislikers, expected "
            f"a row a track"
        )
    judged = n_listeners + dislikers
    if dislikers.any():
        mean = n_listeners.sum() / judged.sum()
        values = (n_listeners + _HALF_TRUST_LISTENERS * mean) / (judged + _HALF_TRUST_LISTENERS)
    else:
        values = np.log1p(n_listeners)
    return standardised(np.where(judged > 0, values, np.nan))


def standardised(values: NDArray[np.floating[Any]]) -> Float32:
    """Bring (n,) values to mean 0 and variance 1, at most three deviations away; all NaN where they are all one."""
    known = values[~np.isnan(values)]
    deviation = float(known.std()) if known.size else 0.0
    if deviation < 1e-9:
        return np.full(len(values), np.nan, dtype=np.float32)
    scaled: Float32 = np.clip((values - known.mean()) / deviation, -_FURTHEST, _FURTHEST).astype(np.float32)
    return scaled
