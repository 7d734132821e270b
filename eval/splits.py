"""Listens in, parts out: what a model may see, and what it is then judged on.

    Listens  ->  splits  ->  Split(train, held_out, unused), one or several a protocol

Every row lands in exactly one part. ``held_out`` has rows of pairs (user, track) that were heard (plays > 0)
and not disliked, of users who have plays in ``train``; no pair of it is in ``train``. What can be neither
seen nor judged fairly (a repeat after the cut, a user without training plays) is ``unused``.

    warm, with times      rows before one global cut train, later pairs are held out
    warm, without times   a random part of each user's tracks is held out
    cold-track            a random part of the heard tracks loses all its rows

Splits are functions of the rows as a set and the seed: the order of the table plays no part in the choice.
Ranking and judging are not done here (``eval.run``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from recsys.errors import DataError
from recsys.settings import Settings
from recsys.types import Listens

Protocol = Literal["warm", "cold-track"]
PROTOCOLS: tuple[Protocol, ...] = ("warm", "cold-track")

_PAIR = ["user_id", "track_id"]


class SplitSettings(Settings):
    """How listens are parted."""

    held_out_share: float = Field(default=0.2, gt=0, lt=1)  # of the events, of each user's tracks, or of the tracks
    n_splits: int = Field(default=3, ge=1)  # random splits, each with a seed of its own; a cut in time is one split
    min_user_tracks: int = Field(default=5, ge=2)  # random warm split: users with fewer tracks only train
    min_user_plays: float = Field(default=5, ge=0)  # cut in time: users with fewer plays in all only train
    max_user_plays: float = Field(default=500, gt=0)  # cut in time: above are shops and radio stations, not persons
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One parting of the listens.

    ``cold_track_ids`` (sorted) are the tracks that lost their rows, None where the protocol makes none cold.
    ``note`` says in a sentence how the parts were made and how large they are.
    """

    protocol: Protocol
    seed: int
    train: Listens
    held_out: Listens
    unused: Listens
    cold_track_ids: list[str] | None
    note: str


def splits(listens: Listens, protocol: Protocol, settings: SplitSettings) -> Iterator[Split]:
    """Part the listens once for each seed, one at a time; a cut in time needs no seed and comes once.

    Raises:
        DataError: nothing can be held out.
    """
    if protocol == "warm" and has_times(listens):
        yield warm_by_time(listens, settings)
        return
    part = warm_at_random if protocol == "warm" else cold_track
    for seed in range(settings.seed, settings.seed + settings.n_splits):
        yield part(listens, settings, seed)


def has_times(listens: Listens) -> bool:
    """Say whether most rows tell when they were heard, so that the split can be one of time."""
    return listens.frame["listened_at"].count() * 2 > len(listens)


def warm_by_time(listens: Listens, settings: SplitSettings) -> Split:
    """Cut the listens at one moment: rows before it train, later new pairs are held out.

    Dislikes after the cut are not known at the cut, so they neither train nor bar. Rows without a time are
    unused.
    """
    frame = listens.frame
    times = frame["listened_at"].drop_nulls().sort()
    cut: datetime = times[int(len(times) * (1 - settings.held_out_share))]
    before = (frame["listened_at"] < cut).fill_null(False)
    after = (frame["listened_at"] >= cut).fill_null(False)
    known = frame.filter(before & (frame["plays"] > 0)).select("track_id").unique()
    persons = (
        frame.group_by("user_id")
        .agg(pl.col("plays").sum())
        .filter(pl.col("plays").is_between(settings.min_user_plays, settings.max_user_plays))
    )
    judged = after & _marked(frame, known, ["track_id"]) & _marked(frame, persons, ["user_id"])
    how = (
        f"rows before {cut:%Y-%m-%d %H:%M:%S} UTC train, later pairs of tracks known by then are held out "
        f"for users with {settings.min_user_plays:g} to {settings.max_user_plays:g} plays in all"
    )
    n_undated = frame["listened_at"].null_count()
    if n_undated:
        how += f"; {n_undated:,} rows without a time are unused"
    return _parted("warm", listens, before, judged, how=how, seed=settings.seed)


def warm_at_random(listens: Listens, settings: SplitSettings, seed: int) -> Split:
    """Hold out a random part of each user's tracks, with all rows of each; dislikes stay in training.

    A track whose every listener falls in the held-out part is unknown in training and still counts.
    """
    pairs = heard_pairs(listens.frame).sort(_PAIR)
    draws = pl.Series("draw", np.random.default_rng(seed).random(len(pairs)))
    n_tracks = pl.len().over("user_id")
    place = pl.col("draw").rank("ordinal").over("user_id")
    chosen = pairs.with_columns(draws).filter(
        (n_tracks >= settings.min_user_tracks) & (place <= (n_tracks * settings.held_out_share).round())
    )
    how = (
        f"a random {settings.held_out_share:.0%} of the tracks of each user with {settings.min_user_tracks} "
        f"or more is held out, seed {seed}"
    )
    held = _marked(listens.frame, chosen, _PAIR)
    return _parted("warm", listens, ~held, held, how=how, seed=seed)


def cold_track(listens: Listens, settings: SplitSettings, seed: int) -> Split:
    """Take all rows, dislikes too, from a random part of the heard tracks, as if uploaded just now."""
    heard = heard_pairs(listens.frame)["track_id"].unique().sort()
    n_cold = round(len(heard) * settings.held_out_share)
    rows = np.random.default_rng(seed).choice(len(heard), size=n_cold, replace=False)
    cold = heard.gather(np.sort(rows))
    is_cold = _marked(listens.frame, cold.to_frame(), ["track_id"])
    how = f"{n_cold:,} of {len(heard):,} heard tracks, drawn at random, lose all their rows, seed {seed}"
    return _parted("cold-track", listens, ~is_cold, is_cold, how=how, seed=seed, cold_track_ids=cold.to_list())


def heard_pairs(frame: pl.DataFrame) -> pl.DataFrame:
    """Find the distinct pairs (user_id, track_id) that were played and never disliked, in any order."""
    return (
        frame.group_by(_PAIR)
        .agg(pl.col("plays").sum(), pl.col("disliked").fill_null(False).any())
        .filter((pl.col("plays") > 0) & ~pl.col("disliked"))
        .select(_PAIR)
    )


def _marked(frame: pl.DataFrame, keys: pl.DataFrame, on: list[str]) -> pl.Series:
    """Mark the rows of the frame whose ``on`` columns are among the (distinct) keys."""
    marks = keys.select(*on, pl.lit(True).alias("marked"))
    return frame.select(on).join(marks, on=on, how="left", maintain_order="left")["marked"].fill_null(False)


def _parted(
    protocol: Protocol,
    listens: Listens,
    in_train: pl.Series,
    judged: pl.Series,
    *,
    how: str,
    seed: int,
    cold_track_ids: list[str] | None = None,
) -> Split:
    """Make the parts from masks of rows: those to judge are held out where that is fair, otherwise unused."""
    frame = listens.frame
    train = frame.filter(in_train)
    listeners = train.filter(pl.col("plays") > 0).select("user_id").unique()
    heard = heard_pairs(frame.filter(judged))
    fair = heard.join(train, on=_PAIR, how="anti").join(listeners, on="user_id", how="semi")
    if fair.is_empty():
        raise DataError(
            f"the {protocol} protocol can hold nothing out of {len(listens):,} listens of "
            f"{frame['user_id'].n_unique():,} users; give listens of users with more tracks"
        )
    is_held_out = judged & _marked(frame, fair, _PAIR)
    held_out, unused = frame.filter(is_held_out), frame.filter(~is_held_out & ~in_train)
    note = (
        f"{how}: {len(train):,} rows train, {len(fair):,} pairs of {fair['user_id'].n_unique():,} users are "
        f"held out, {len(unused):,} rows are unused"
    )
    return Split(protocol, seed, Listens(train), Listens(held_out), Listens(unused), cold_track_ids, note)
