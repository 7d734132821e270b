"""Listens in, parts out: what a model may see, and what it is then judged on.

    Listens  ->  splits            ->  Split(train, held_out, unused), one or several a protocol
    Split    ->  validation_split  ->  Split of its train alone, by the same protocol: what tuning may see

Every row lands in exactly one part. ``held_out`` has rows of pairs (user, track) that were heard (plays > 0) and not
disliked, none of them in ``train``. What can be neither seen nor judged fairly (a repeat after the cut) is ``unused``.

    warm, with times      rows before one global cut train, later pairs are held out; several cuts roll forward
    warm, last            the last part of each user's plays is held out, by that user's own order
    warm, without times   a random part of each user's tracks is held out
    cold-track            a random part of the heard tracks, or all tracks of some artists, loses all its rows
    cold-track, by time   rows before one global cut train, later pairs of tracks that nobody had met are held out
    cold-user             a random part of the users loses all its rows; their tracks come in an order
    live                  rows before one global cut train, later ones are told one by one, and asked for before

Splits are functions of the rows as a set and the seed: the order of the table plays no part in the choice.
Ranking and judging are not done here (``eval.run``).
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl

from eval.splitting.last import LAST, warm_last
from eval.splitting.live import live_by_time
from eval.splitting.made_up import with_made_up
from eval.splitting.split import PAIR, Protocol, Split, SplitSettings, heard_pairs, marked, nothing_held_out, parted
from eval.splitting.temporal import cold_by_time, warm_by_time
from recsys.catalogue.listens import has_times
from recsys.catalogue.names import one_spelling
from recsys.types import Listens, Tags, Tracks

_BY_TIME = {"warm": warm_by_time, "cold-track": cold_by_time, "live": live_by_time}
_MIN_COLD_USER_TRACKS = 2  # one to begin with, one to be judged on


def splits(
    listens: Listens,
    protocol: Protocol,
    settings: SplitSettings,
    tracks: Tracks | None = None,
    tags: Tags | None = None,
) -> Iterator[Split]:
    """Part the listens once for each seed, or for each cut in time, one at a time.

    ``tracks`` tells the artists; without it every track stands for an artist of its own. With it, and ``made_up`` in
    the settings, each split that has truly new tracks is followed by itself with made-up ones, which have ``tags``.

    Raises:
        DataError: nothing can be held out, or tracks are to be cold by time and the listens have none.
    """
    frame = None if tracks is None else tracks.frame.select("track_id", "artist").drop_nulls()
    artists = None if frame is None else frame.with_columns(one_spelling(frame["artist"]))
    seeds = range(settings.seed, settings.seed + settings.n_splits)
    if protocol == "warm" and settings.warm_split != "usual":
        made = iter([warm_last(listens, settings)])
    elif protocol == "warm" and has_times(listens):
        made = (warm_by_time(listens, settings, cut) for cut in range(settings.n_cuts))
    elif protocol == "warm":
        made = (warm_at_random(listens, settings, seed) for seed in seeds)
    elif protocol == "cold-track" and settings.cold_by == "time":
        made = (cold_by_time(listens, settings, cut) for cut in range(settings.n_cuts))
    elif protocol == "live":
        made = (live_by_time(listens, settings, cut) for cut in range(settings.n_cuts))
    elif protocol == "cold-track":
        made = (cold_track(listens, settings, seed, artists) for seed in seeds)
    else:
        made = (cold_user(listens, settings, seed) for seed in seeds)
    for bare in made:
        split = replace(bare, artists=artists)
        yield split
        if tracks is not None:
            added = (with_made_up(split, n, tracks, tags) for n in settings.made_up)
            yield from (one for one in added if one.made_up is not None)


def validation_split(split: Split, settings: SplitSettings) -> Split:
    """Part the training listens of a split once more by its own protocol, so that tuning sees nothing held out.

    Every row of ``split.train`` lands in one part of the result; ``held_out`` and ``unused`` of ``split`` in none.
    ``DataError`` is raised where the training listens are too few to hold anything out.
    """
    if split.variant.startswith(LAST):
        inner = warm_last(split.train, settings)
    elif split.cut_at is not None:
        inner = _BY_TIME[split.protocol](split.train, settings.model_copy(update={"n_cuts": 1, "seed": split.seed}))
    elif split.protocol == "warm":
        inner = warm_at_random(split.train, settings, split.seed)
    elif split.protocol == "cold-track":
        inner = cold_track(split.train, settings, split.seed, split.artists)
    else:
        inner = cold_user(split.train, settings, split.seed)
    return replace(inner, artists=split.artists)


def warm_at_random(listens: Listens, settings: SplitSettings, seed: int) -> Split:
    """Hold out a random part of each user's tracks, with all rows of each; dislikes stay in training.

    A track whose every listener falls in the held-out part is unknown in training and still counts.
    """
    pairs = heard_pairs(listens.frame).sort(PAIR)
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
    held = marked(listens.frame, chosen, PAIR)
    return parted("warm", listens, ~held, held, how=how, seed=seed)


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
    is_cold = marked(listens.frame, touched, ["track_id"])
    of_artists = f" of {n_cold:,} of {len(keys):,} artists" if settings.cold_by == "artist" else ""
    how = f"{len(cold):,} of {len(heard):,} heard tracks{of_artists}, drawn at random, lose all their rows, seed {seed}"
    return parted("cold-track", listens, ~is_cold, is_cold, how=how, seed=seed, cold_track_ids=cold.to_list())


def cold_user(listens: Listens, settings: SplitSettings, seed: int) -> Split:
    """Take all rows from a random part of the users with two or more heard tracks, as if they came just now.

    Their heard tracks stand in the order of the first time that each was played, or where most rows tell no time
    in a random order. What was disliked is unused.
    """
    frame, by_time = listens.frame, has_times(listens)
    pairs = heard_pairs(frame).sort(PAIR)
    able = pairs.group_by("user_id").len().filter(pl.col("len") >= _MIN_COLD_USER_TRACKS)["user_id"].sort()
    rng = np.random.default_rng(seed)
    n_cold = round(len(able) * settings.held_out_share)
    cold = able.gather(np.sort(rng.choice(len(able), size=n_cold, replace=False))).to_frame()
    held = pairs.with_columns(pl.Series("draw", rng.random(len(pairs)))).join(cold, on="user_id", how="semi")
    is_cold = marked(frame, cold, ["user_id"])
    is_held_out = is_cold & marked(frame, held.select(PAIR), PAIR)
    train = frame.filter(~is_cold)
    if held.is_empty() or not bool((train["plays"] > 0).any()):
        raise nothing_held_out("cold-user", listens)
    first = _in_order(held, frame.filter(is_held_out), by_time)
    unused = frame.filter(is_cold & ~is_held_out)
    note = (
        f"{n_cold:,} of {len(able):,} users with {_MIN_COLD_USER_TRACKS} or more tracks, drawn at random, lose all "
        f"their rows, seed {seed}; their tracks come in {'the order of time' if by_time else 'a random order'}: "
        f"{len(train):,} rows train, {len(held):,} pairs are held out, {len(unused):,} rows are unused"
    )
    parts = Listens(train), Listens(frame.filter(is_held_out)), Listens(unused)
    return Split("cold-user", seed, *parts, None, note, None, None, first, settings.fold_in_tracks)


def _in_order(held: pl.DataFrame, rows: pl.DataFrame, by_time: bool) -> pl.DataFrame:
    """Number each cold user's tracks from 1: user_id, track_id, plays, place."""
    facts = rows.group_by(PAIR).agg(pl.col("plays").sum(), pl.col("listened_at").min())
    keys = ["user_id", "listened_at", "draw"] if by_time else ["user_id", "draw"]
    ordered = held.join(facts, on=PAIR).sort(keys, nulls_last=True)
    place = pl.int_range(1, pl.len() + 1).over("user_id").alias("place")
    return ordered.with_columns(place).select(*PAIR, "plays", "place")


def _drawn_by(track_ids: pl.DataFrame, cold_by: str, artists: pl.DataFrame | None) -> pl.DataFrame:
    """Give each track its artist, or where that is not known itself, to be drawn by: columns track_id, key."""
    if cold_by == "track" or artists is None:
        return track_ids.select("track_id", key="track_id")
    alone = pl.concat_str(pl.lit("\0"), "track_id")  # so that no artist of that name joins it
    return track_ids.join(artists, on="track_id", how="left").select("track_id", key=pl.coalesce("artist", alone))
