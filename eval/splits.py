"""Listens in, parts out: what a model may see, and what it is then judged on.

    Listens  ->  splits            ->  Split(train, held_out, unused), one or several a protocol
    Split    ->  validation_split  ->  Split of its train alone, by the same protocol: what tuning may see

Every row lands in exactly one part. ``held_out`` has rows of pairs (user, track) that were heard (plays > 0)
and not disliked; no pair of it is in ``train``. What can be neither seen nor judged fairly (a repeat after the
cut, a user without training plays) is ``unused``.

    warm, with times      rows before one global cut train, later pairs are held out; several cuts roll forward
    warm, without times   a random part of each user's tracks is held out
    cold-track            a random part of the heard tracks, or all tracks of some artists, loses all its rows
    cold-user             a random part of the users loses all its rows; their tracks come in an order

Splits are functions of the rows as a set and the seed: the order of the table plays no part in the choice.
Ranking and judging are not done here (``eval.run``).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Self

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from recsys.errors import DataError
from recsys.settings import Settings
from recsys.types import Listens, Tracks

Protocol = Literal["warm", "cold-track", "cold-user"]
PROTOCOLS: tuple[Protocol, ...] = ("warm", "cold-track", "cold-user")

_PAIR = ["user_id", "track_id"]
_MIN_COLD_USER_TRACKS = 2  # one to begin with, one to be judged on


class SplitSettings(Settings):
    """How listens are parted."""

    held_out_share: float = Field(default=0.2, gt=0, lt=1)  # of the events, a user's tracks, the tracks, or the users
    n_splits: int = Field(default=3, ge=1)  # random splits, each with a seed of its own
    n_cuts: int = Field(default=1, ge=1)  # cuts in time; of several, each tests half of held_out_share, up to the next
    cold_by: Literal["track", "artist"] = "track"  # artist: all tracks of an artist are cold, or none
    fold_in_tracks: tuple[int, ...] = Field(default=(1, 3, 5, 10), min_length=1)  # a cold user begins with so many
    min_user_tracks: int = Field(default=5, ge=2)  # random warm split: users with fewer tracks only train
    min_user_plays: float = Field(default=5, ge=0)  # cut in time: users with fewer plays in all only train
    max_user_plays: float = Field(default=500, gt=0)  # cut in time: above are shops and radio stations, not persons
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.n_cuts > 1 and self.n_cuts * self.held_out_share / 2 >= 1:
            raise ValueError(f"n_cuts is {self.n_cuts}, and so many windows leave nothing before the first cut")
        if list(self.fold_in_tracks) != sorted(set(self.fold_in_tracks)) or self.fold_in_tracks[0] < 1:
            raise ValueError(f"fold_in_tracks is {self.fold_in_tracks}, expected rising whole numbers from 1")
        return self

    def windows(self) -> list[tuple[float, float]]:
        """Tell where each cut in time begins and ends its test, as shares of the events."""
        if self.n_cuts == 1:
            return [(1 - self.held_out_share, 1.0)]
        width, n = self.held_out_share / 2, self.n_cuts
        return [(1 - width * (n - cut), 1 - width * (n - cut - 1)) for cut in range(n)]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One parting of the listens; protocol and seed tell the splits of a run apart.

    ``cold_track_ids`` (sorted) are the tracks that lost their rows, None where the protocol makes none cold.
    ``note`` says in a sentence how the parts were made and how large they are. ``artists`` has the columns
    track_id, artist of the tracks whose artist is known. ``cut_at`` is the moment of a cut in time.
    ``first_tracks`` (cold-user) has a row a held-out pair: user_id, track_id, plays, place from 1.
    """

    protocol: Protocol
    seed: int
    train: Listens
    held_out: Listens
    unused: Listens
    cold_track_ids: list[str] | None
    note: str
    artists: pl.DataFrame | None = None
    cut_at: datetime | None = None
    first_tracks: pl.DataFrame | None = None


def splits(
    listens: Listens, protocol: Protocol, settings: SplitSettings, tracks: Tracks | None = None
) -> Iterator[Split]:
    """Part the listens once for each seed, or for each cut in time, one at a time.

    ``tracks`` tells the artists; without it every track stands for an artist of its own.

    Raises:
        DataError: nothing can be held out.
    """
    artists = None if tracks is None else tracks.frame.select("track_id", "artist").drop_nulls()
    seeds = range(settings.seed, settings.seed + settings.n_splits)
    if protocol == "warm" and has_times(listens):
        parted = (warm_by_time(listens, settings, cut) for cut in range(settings.n_cuts))
    elif protocol == "warm":
        parted = (warm_at_random(listens, settings, seed) for seed in seeds)
    elif protocol == "cold-track":
        parted = (cold_track(listens, settings, seed, artists) for seed in seeds)
    else:
        parted = (cold_user(listens, settings, seed) for seed in seeds)
    for split in parted:
        yield replace(split, artists=artists)


def validation_split(split: Split, settings: SplitSettings) -> Split:
    """Part the training listens of a split once more by its own protocol, so that tuning sees nothing held out.

    Every row of ``split.train`` lands in one part of the result; ``held_out`` and ``unused`` of ``split`` in none.
    ``DataError`` is raised where the training listens are too few to hold anything out.
    """
    if split.cut_at is not None:
        inner = warm_by_time(split.train, settings.model_copy(update={"n_cuts": 1, "seed": split.seed}))
    elif split.protocol == "warm":
        inner = warm_at_random(split.train, settings, split.seed)
    elif split.protocol == "cold-track":
        inner = cold_track(split.train, settings, split.seed, split.artists)
    else:
        inner = cold_user(split.train, settings, split.seed)
    return replace(inner, artists=split.artists)


def has_times(listens: Listens) -> bool:
    """Say whether most rows tell when they were heard, so that the split can be one of time."""
    return listens.frame["listened_at"].count() * 2 > len(listens)


def warm_by_time(listens: Listens, settings: SplitSettings, cut: int = 0) -> Split:
    """Cut the listens at one moment: rows before it train, later new pairs are held out.

    Dislikes after the cut are not known at the cut, so they neither train nor bar. Rows without a time are
    unused, and so are those after the end of the test. The seed of the n-th cut is the settings' plus n.
    """
    frame = listens.frame
    times = frame["listened_at"].drop_nulls().sort()
    start, stop = settings.windows()[cut]
    at: datetime = times[int(len(times) * start)]
    before = (frame["listened_at"] < at).fill_null(False)
    after = (frame["listened_at"] >= at).fill_null(False)
    until = ""
    if stop < 1:
        end: datetime = times[int(len(times) * stop)]
        after &= (frame["listened_at"] < end).fill_null(False)
        until = f"until {end:%Y-%m-%d %H:%M:%S} "
    known = frame.filter(before & (frame["plays"] > 0)).select("track_id").unique()
    persons = (
        frame.group_by("user_id")
        .agg(pl.col("plays").sum())
        .filter(pl.col("plays").is_between(settings.min_user_plays, settings.max_user_plays))
    )
    judged = after & _marked(frame, known, ["track_id"]) & _marked(frame, persons, ["user_id"])
    how = (
        f"rows before {at:%Y-%m-%d %H:%M:%S} UTC train, later pairs of tracks known by then are held out "
        f"{until}for users with {settings.min_user_plays:g} to {settings.max_user_plays:g} plays in all"
    )
    n_undated = frame["listened_at"].null_count()
    if n_undated:
        how += f"; {n_undated:,} rows without a time are unused"
    return replace(_parted("warm", listens, before, judged, how=how, seed=settings.seed + cut), cut_at=at)


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


def cold_track(listens: Listens, settings: SplitSettings, seed: int, artists: pl.DataFrame | None = None) -> Split:
    """Take all rows, dislikes too, from a random part of the heard tracks, as if uploaded just now.

    By artist whole artists are drawn, a track without one standing for itself; ``artists`` has track_id, artist.
    """
    heard = heard_pairs(listens.frame).select("track_id").unique().sort("track_id")
    drawn_from = _drawn_by(listens.frame.select("track_id").unique(), settings.cold_by, artists)
    keys = drawn_from.join(heard, on="track_id", how="semi")["key"].unique().sort()
    n_cold = round(len(keys) * settings.held_out_share)
    rows = np.random.default_rng(seed).choice(len(keys), size=n_cold, replace=False)
    touched = drawn_from.filter(pl.col("key").is_in(keys.gather(np.sort(rows)).implode())).select("track_id")
    cold = heard.join(touched, on="track_id", how="semi")["track_id"].sort()
    is_cold = _marked(listens.frame, touched, ["track_id"])
    of_artists = f" of {n_cold:,} of {len(keys):,} artists" if settings.cold_by == "artist" else ""
    how = f"{len(cold):,} of {len(heard):,} heard tracks{of_artists}, drawn at random, lose all their rows, seed {seed}"
    return _parted("cold-track", listens, ~is_cold, is_cold, how=how, seed=seed, cold_track_ids=cold.to_list())


def cold_user(listens: Listens, settings: SplitSettings, seed: int) -> Split:
    """Take all rows from a random part of the users with two or more heard tracks, as if they came just now.

    Their heard tracks stand in the order of the first time that each was played, or where most rows tell no time
    in a random order. What was disliked is unused.
    """
    frame, by_time = listens.frame, has_times(listens)
    pairs = heard_pairs(frame).sort(_PAIR)
    able = pairs.group_by("user_id").len().filter(pl.col("len") >= _MIN_COLD_USER_TRACKS)["user_id"].sort()
    rng = np.random.default_rng(seed)
    n_cold = round(len(able) * settings.held_out_share)
    cold = able.gather(np.sort(rng.choice(len(able), size=n_cold, replace=False))).to_frame()
    held = pairs.with_columns(pl.Series("draw", rng.random(len(pairs)))).join(cold, on="user_id", how="semi")
    is_cold = _marked(frame, cold, ["user_id"])
    is_held_out = is_cold & _marked(frame, held.select(_PAIR), _PAIR)
    train = frame.filter(~is_cold)
    if held.is_empty() or not bool((train["plays"] > 0).any()):
        raise _nothing_held_out("cold-user", listens)
    first = _in_order(held, frame.filter(is_held_out), by_time)
    unused = frame.filter(is_cold & ~is_held_out)
    note = (
        f"{n_cold:,} of {len(able):,} users with {_MIN_COLD_USER_TRACKS} or more tracks, drawn at random, lose all "
        f"their rows, seed {seed}; their tracks come in {'the order of time' if by_time else 'a random order'}: "
        f"{len(train):,} rows train, {len(held):,} pairs are held out, {len(unused):,} rows are unused"
    )
    parts = Listens(train), Listens(frame.filter(is_held_out)), Listens(unused)
    return Split("cold-user", seed, *parts, cold_track_ids=None, note=note, first_tracks=first)


def heard_pairs(frame: pl.DataFrame) -> pl.DataFrame:
    """Find the distinct pairs (user_id, track_id) that were played and never disliked, in any order."""
    return (
        frame.group_by(_PAIR)
        .agg(pl.col("plays").sum(), pl.col("disliked").fill_null(False).any())
        .filter((pl.col("plays") > 0) & ~pl.col("disliked"))
        .select(_PAIR)
    )


def _in_order(held: pl.DataFrame, rows: pl.DataFrame, by_time: bool) -> pl.DataFrame:
    """Number each cold user's tracks from 1: user_id, track_id, plays, place."""
    facts = rows.group_by(_PAIR).agg(pl.col("plays").sum(), pl.col("listened_at").min())
    keys = ["user_id", "listened_at", "draw"] if by_time else ["user_id", "draw"]
    ordered = held.join(facts, on=_PAIR).sort(keys, nulls_last=True)
    place = pl.int_range(1, pl.len() + 1).over("user_id").alias("place")
    return ordered.with_columns(place).select(*_PAIR, "plays", "place")


def _drawn_by(track_ids: pl.DataFrame, cold_by: str, artists: pl.DataFrame | None) -> pl.DataFrame:
    """Give each track what it is drawn by: its artist, or where that is not known itself; columns track_id, key."""
    if cold_by == "track" or artists is None:
        return track_ids.select("track_id", key="track_id")
    alone = pl.concat_str(pl.lit("\0"), "track_id")  # so that no artist of that name joins it
    return track_ids.join(artists, on="track_id", how="left").select("track_id", key=pl.coalesce("artist", alone))


def _marked(frame: pl.DataFrame, keys: pl.DataFrame, on: list[str]) -> pl.Series:
    """Mark the rows of the frame whose ``on`` columns are among the (distinct) keys."""
    marks = keys.select(*on, pl.lit(True).alias("marked"))
    return frame.select(on).join(marks, on=on, how="left", maintain_order="left")["marked"].fill_null(False)


def _nothing_held_out(protocol: str, listens: Listens) -> DataError:
    given = f"{len(listens):,} listens of {listens.frame['user_id'].n_unique():,} users"
    return DataError(f"the {protocol} protocol can hold nothing out of {given}; give listens of users with more tracks")


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
        raise _nothing_held_out(protocol, listens)
    is_held_out = judged & _marked(frame, fair, _PAIR)
    held_out, unused = frame.filter(is_held_out), frame.filter(~is_held_out & ~in_train)
    note = (
        f"{how}: {len(train):,} rows train, {len(fair):,} pairs of {fair['user_id'].n_unique():,} users are "
        f"held out, {len(unused):,} rows are unused"
    )
    return Split(protocol, seed, Listens(train), Listens(held_out), Listens(unused), cold_track_ids, note)
