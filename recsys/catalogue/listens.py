"""Listening histories: a table of events, of pairs or of users' lists in, ``Listens`` and then ``Plays`` out.

    listens table  ->  read_listens  ->  Listens, a row an event  ->  plays_of  ->  Plays (n_users, n_items)

A rating is not a play count: a like is a play of a set weight, a neutral row is a play, and a dislike adds
no play and bars the track for that user, whatever else is said of the pair. Confidence is left to ``cf``.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import Field
from scipy.sparse import csr_matrix

from recsys.catalogue.cells import as_text, check_fits, check_type, is_scalar, one_sentence
from recsys.catalogue.histories import in_order, last_plays, rows_of
from recsys.catalogue.lookalikes import report_alike, with_known_tracks
from recsys.catalogue.numbers import read_numbers, report_numbers
from recsys.catalogue.problems import Problems
from recsys.catalogue.tables import read_table, split_list, text_column
from recsys.catalogue.times import read_times, to_the_second
from recsys.errors import DataError
from recsys.types import LISTENS_SCHEMA, Listens, Plays
from recsys.util.settings import Settings

RATING_SCALES = ((0.0, 1.0), (1.0, 5.0), (0.0, 5.0), (0.0, 10.0), (0.0, 100.0))  # guessed in this order
SIGNED_SCALE = (-1.0, 1.0)
LIKED_FROM, DISLIKED_TO = 0.75, 0.25  # places in a rating scale that runs from 0 to 1
TRUE, FALSE = ("1", "true", "yes", "t", "y", "1.0"), ("0", "false", "no", "f", "n", "0.0")
OPTIONAL = ("plays", "listened_at", "ms_played", "rating", "liked", "disliked")
_KNOWN = ("user_id", "track_id", "track_ids", *OPTIONAL)


class ListensSettings(Settings):
    """``[listens]`` in the run's TOML file."""

    liked_plays: float = Field(default=3.0, gt=0)  # plays that a like counts
    rating_liked_from: float | None = None  # None: from 0.75 of the scale that the ratings seem to be on
    rating_disliked_to: float | None = None  # None: to 0.25 of it
    min_ms_played: int = Field(default=0, ge=0)  # a shorter row is no play
    keep_repeats: bool = False  # count rows that say again when a user heard a track, in a table of times to the second


def read_listens(path: Path, track_ids: pl.Series, problems: Problems, settings: ListensSettings) -> Listens:
    """Read listens in any of their forms; times are kept, repeats are not yet added up.

    Args:
        path: an event a row (``user_id, track_id``, optionally ``listened_at``, ``ms_played``), a pair a row
            (``plays``) or a user a row (``track_ids``); optionally ``rating``, ``liked``, ``disliked``.
        track_ids: the catalogue's ids; listens of others are problems.
        problems: takes what is wrong, and what was made of it; rows shorter than ``min_ms_played`` are only counted.
        settings: what a like weighs and where ratings divide.

    Raises:
        DataError: the table cannot be read, a column is missing, the ratings are on no known scale, or none of the
            values of a column fits.
    """
    frame = read_table(path, problems, _KNOWN, [["user_id"], ["track_ids", "track_id"]])
    with one_sentence(path):
        frame = _with_users(frame, path, problems)
        frame = _an_event_a_row(frame, path, problems)
        frame = frame.with_columns(text_column(frame, path, name) for name in ("track_id", *OPTIONAL))
        frame = _with_tracks(frame, track_ids, str(path), problems)
        frame = _with_taste(frame, str(path), settings, problems)
        frame = _with_plays(frame, str(path), settings, problems)
        frame = _without_short(frame, str(path), settings, problems)
        frame = read_times(frame, str(path), problems)
        if not settings.keep_repeats:
            frame = _without_repeats(frame, str(path), problems)
        return Listens(frame.select(LISTENS_SCHEMA.names()))


def has_times(listens: Listens) -> bool:
    """Say whether most rows tell when they were heard, so that the split can be one of time."""
    return listens.frame["listened_at"].count() * 2 > len(listens)


def plays_of(listens: Listens, track_ids: Sequence[str], user_ids: Sequence[str] | None = None) -> Plays:
    """Add up listens to a matrix of users and tracks.

    Args:
        listens: any rows; those of tracks or users not named are left out.
        track_ids: the columns, in order.
        user_ids: the rows, in order; None means all users of ``listens`` as they first appear.

    Returns:
        Plays of each pair, and each user's last plays in the order of time, then of rows. A pair with any dislike is
        barred and has no count, and its plays are not in the history.
    """
    frame = listens.frame
    users = frame["user_id"].unique(maintain_order=True) if user_ids is None else _text_series(user_ids)
    tracks = _text_series(track_ids)
    pairs = (
        frame.lazy()
        .select("user_id", "track_id", "plays", "disliked")
        .join(rows_of(users, "user").lazy(), left_on="user_id", right_on="id")
        .join(rows_of(tracks, "item").lazy(), left_on="track_id", right_on="id")
        .group_by("user", "item")
        .agg(pl.col("plays").sum(), pl.col("disliked").any())
        .sort("user", "item")
        .collect()
    )
    barred = pl.col("disliked")
    shape = (len(users), len(tracks))
    return Plays(
        counts=_matrix(pairs.filter(~barred & (pl.col("plays") > 0)), shape),
        barred=_matrix(pairs.filter(barred).with_columns(plays=True), shape),
        user_ids=users.to_list(),
        track_ids=tracks.to_list(),
        histories=last_plays(in_order(listens, users.to_list(), tracks.to_list()), len(users)),
    )


def _text_series(ids: Sequence[str]) -> pl.Series:
    return pl.Series("id", ids, dtype=pl.String)


def _matrix(pairs: pl.DataFrame, shape: tuple[int, int]) -> csr_matrix:
    """Make a matrix of pairs sorted by user and item; ``plays`` holds its values."""
    n_stored = np.bincount(pairs["user"].to_numpy(), minlength=shape[0])
    indptr = np.concatenate([[0], np.cumsum(n_stored)])
    values = pairs["plays"].to_numpy()
    if values.dtype != np.bool_:  # in float32 a tiny count must not become 0 nor a huge one infinite
        limits = np.finfo(np.float32)
        values = np.clip(values, limits.tiny, limits.max).astype(np.float32)
    return csr_matrix((values, pairs["item"].to_numpy(), indptr), shape=shape)


def _with_users(frame: pl.DataFrame, path: Path, problems: Problems) -> pl.DataFrame:
    frame = frame.with_columns(text_column(frame, path, "user_id"))
    no_user = pl.col("user_id").is_null()
    reason = "the row has no user id"
    frame = problems.drop(frame, no_user, "empty-id", str(path), value="user_id", reason=reason)
    report_alike(frame, "user_id", str(path), problems)
    return frame


def _an_event_a_row(frame: pl.DataFrame, path: Path, problems: Problems) -> pl.DataFrame:
    """Bring the form with a list of tracks a row to the form with one track a row."""
    if "track_ids" not in frame.columns:
        return frame
    lists = frame["track_ids"]
    if isinstance(lists.dtype, pl.List):
        if not is_scalar(lists.dtype.inner):
            raise DataError(f"{path} has lists of {lists.dtype.inner} in 'track_ids', expected lists of ids")
        ids = lists.list.eval(as_text(pl.element(), lists.dtype.inner, is_id=True))
    else:
        check_type(lists.dtype, path, "track_ids")
        ids = split_list(lists)
    frame = frame.with_columns(track_id=ids)
    reason = "expected a list of one or more track ids, such as [1000, 11] or ['a', 'b']"
    bad = pl.col("track_id").list.len().fill_null(0) == 0
    check_fits(frame, ~bad, path, "track_ids", reason)
    frame = problems.drop(frame, bad, "bad-list", str(path), value="track_ids", reason=reason)
    return frame.drop("track_ids").explode("track_id")


def _with_tracks(frame: pl.DataFrame, track_ids: pl.Series, source: str, problems: Problems) -> pl.DataFrame:
    no_track, reason = pl.col("track_id").is_null(), "the row has no track id"
    frame = problems.drop(frame, no_track, "empty-id", source, value="user_id", reason=reason)
    return with_known_tracks(frame, track_ids, source, problems)


def _with_taste(frame: pl.DataFrame, source: str, settings: ListensSettings, problems: Problems) -> pl.DataFrame:
    """Make ``liked`` and ``disliked`` booleans, from their columns and from ``rating``; a dislike wins."""
    for name in ("liked", "disliked"):
        flag = pl.col(name).str.to_lowercase()
        bad = ~flag.is_in([*TRUE, *FALSE])
        reason = "expected 1, 0, true, false, yes or no"
        check_fits(frame, ~bad, source, name, reason)
        problems.report(frame, bad, "bad-flag", source, value=name, reason=reason)
        frame = frame.with_columns(flag.is_in(TRUE).fill_null(False).alias(name))
    frame = frame.with_columns(number=read_numbers(frame["rating"]))
    good = pl.col("number").is_finite().fill_null(False)
    check_fits(frame, good, source, "rating", "expected a number")
    bad = pl.col("rating").is_not_null() & ~good
    report_numbers(frame, bad, problems, "bad-rating", source, value="rating", reason="expected a number")
    frame = frame.with_columns(rating=pl.when(good).then("number"))
    if frame["rating"].count():
        liked_from, disliked_to = _rating_limits(frame["rating"], source, settings)
        likes, dislikes = pl.col("rating") >= liked_from, pl.col("rating") <= disliked_to
        frame = frame.with_columns(
            liked=pl.col("liked") | likes.fill_null(False),
            disliked=pl.col("disliked") | dislikes.fill_null(False),
        )
    return frame.with_columns(liked=pl.col("liked") & ~pl.col("disliked"))


def _rating_limits(ratings: pl.Series, source: str, settings: ListensSettings) -> tuple[float, float]:
    """The rating from which a track is liked, and the one to which it is disliked."""
    if settings.rating_liked_from is not None and settings.rating_disliked_to is not None:
        return settings.rating_liked_from, settings.rating_disliked_to
    values = ratings.drop_nulls()
    least, most = float(values.to_numpy().min()), float(values.to_numpy().max())
    scales = (SIGNED_SCALE,) if least < 0 else RATING_SCALES
    fitting = [(low, high) for low, high in scales if low <= least and most <= high]
    if not fitting:
        raise DataError(
            f"{source} has ratings from {least:g} to {most:g}, which fit none of the scales "
            "0-1, 1-5, 0-5, 0-10, 0-100 and -1-1; set rating_liked_from and rating_disliked_to"
        )
    low, high = fitting[0]
    liked_from, disliked_to = (low + place * (high - low) for place in (LIKED_FROM, DISLIKED_TO))
    return (
        liked_from if settings.rating_liked_from is None else settings.rating_liked_from,
        disliked_to if settings.rating_disliked_to is None else settings.rating_disliked_to,
    )


def _with_plays(frame: pl.DataFrame, source: str, settings: ListensSettings, problems: Problems) -> pl.DataFrame:
    """Count a row's plays: as it says or 1; one of a liked row counts as a like, a disliked row has none."""
    liked, disliked = pl.col("liked"), pl.col("disliked")
    if frame["plays"].count():
        frame = frame.with_columns(number=read_numbers(frame["plays"]))
        count = pl.col("number")
        judged = pl.col("plays").is_null() | (count == 0)
        good = pl.when(liked | disliked).then(judged | (count > 0)).otherwise(count > 0)
        good = (good & (count.is_finite() | pl.col("plays").is_null())).fill_null(False)
        reason = "plays are a finite number above 0"
        check_fits(frame, good, source, "plays", reason)
        report_numbers(frame, ~good, problems, "bad-plays", source, value="plays", reason=reason)
        frame = frame.filter(good).with_columns(count.fill_null(0.0).alias("plays"))
    else:
        frame = frame.with_columns(plays=pl.lit(1.0))
    as_like = pl.max_horizontal(pl.col("plays"), pl.lit(1.0)) - 1.0 + settings.liked_plays
    return frame.with_columns(plays=pl.when(disliked).then(0.0).when(liked).then(as_like).otherwise("plays"))


def _without_short(frame: pl.DataFrame, source: str, settings: ListensSettings, problems: Problems) -> pl.DataFrame:
    """Leave out rows too short to be a play, unless they say liked or disliked."""
    frame = frame.with_columns(number=read_numbers(frame["ms_played"]))
    played = pl.col("number")
    good = (played.is_finite() & (played >= 0)).fill_null(False)
    reason = "expected milliseconds, 0 or more; the row counts as a play"
    check_fits(frame, good, source, "ms_played", "expected milliseconds, 0 or more")
    bad = pl.col("ms_played").is_not_null() & ~good
    report_numbers(frame, bad, problems, "bad-ms-played", source, value="ms_played", reason=reason)
    short = good & (played < settings.min_ms_played) & ~pl.col("liked") & ~pl.col("disliked")
    kept = frame.filter(~short.fill_null(False))
    problems.leave_out("short-listen", len(frame) - len(kept))
    return kept


def _without_repeats(frame: pl.DataFrame, source: str, problems: Problems) -> pl.DataFrame:
    """Leave out rows that say again what an earlier one says, as exports that overlap do.

    Where all times are full minutes or days, two rows alike may be two listens, and stay.
    """
    if not to_the_second(frame["listened_at"]):
        return frame
    parts = ("user_id", "track_id", "listened_at")
    mixed = (
        pl.col(parts[0]).hash(0) ^ pl.col(parts[1]).hash(1) ^ pl.col(parts[2]).hash(2)
    )  # few rows need a closer look
    suspects = frame.with_row_index("at").filter(pl.col("listened_at").is_not_null() & mixed.is_duplicated())
    again = suspects.filter(~pl.struct(*parts, "plays", "liked", "disliked").is_first_distinct())
    rows = again.select("row", "track_id")
    if rows.is_empty():
        return frame
    reason = (
        f"{len(rows):,} rows say again that a user heard a track at a time, to the second; each counts once "
        "([listens] keep_repeats = true counts them all)"
    )
    problems.add("repeated-listen", source, rows["row"][0], rows["track_id"][0], reason)
    return frame.with_row_index("at").join(again.select("at"), on="at", how="anti", maintain_order="left").drop("at")
