"""A moment in, parts out: what came before it trains, what came after is played one event after another.

    Listens, one cut  ->  live_by_time  ->  train: rows before; held out: events that are asked for; unused: the others

An event is asked for where a user plays a track that is new to them: not played before by them, before the cut or
after. All rows after the cut are told in their order, those that nobody asks for too (``eval.splitting.moments``).
"""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl

from eval.splitting.split import PAIR, Split, SplitSettings, heard_pairs, marked, nothing_held_out
from eval.splitting.temporal import Window, check_times
from recsys.types import Listens


def live_by_time(listens: Listens, settings: SplitSettings, cut: int = 0) -> Split:
    """Cut the listens at one moment: rows before it train, later first plays of a track by a user are asked for.

    The cut is ``live_days`` before the last row, or as ``warm_by_time`` cuts. Pairs that were ever disliked are not
    asked for. Users who have no row before the cut are asked for too; ``eval.metrics.panels`` keeps them apart.

    Raises:
        DataError: too few rows have a time, or nothing is left to be asked for.
    """
    check_times(listens)
    frame, window = listens.frame, _window(listens, settings, cut)
    train = frame.filter(window.before)
    busy = frame.group_by("user_id").agg(pl.col("plays").sum()).filter(pl.col("plays") > settings.max_user_plays)
    pairs = (
        heard_pairs(frame.filter(window.after))
        .join(train.filter(pl.col("plays") > 0), on=PAIR, how="anti")
        .join(busy, on="user_id", how="anti")
    )
    judged = window.after & (frame["plays"] > 0) & marked(frame, pairs, PAIR)
    first = _first(frame, judged)
    drawn = _drawn(frame.filter(first), settings.max_events, settings.seed + cut)
    first &= marked(frame, drawn, ["user_id"])
    held_out, unused = frame.filter(first), frame.filter(~first & ~window.before)
    if held_out.is_empty() or not bool((train["plays"] > 0).any()):
        raise nothing_held_out("live", listens)
    until = "" if window.end is None else f" until {window.end:%Y-%m-%d %H:%M:%S}"
    note = (
        f"rows before {window.at:%Y-%m-%d %H:%M:%S} UTC train, later ones{until} are told one by one, and before each "
        f"first play of a track by a user with at most {settings.max_user_plays:g} plays in all is asked: "
        f"{len(train):,} rows train, {len(held_out):,} events of {held_out['user_id'].n_unique():,} users are asked "
        f"for, {len(unused):,} rows are only told or unused"
    )
    parts = Listens(train), Listens(held_out), Listens(unused)
    return Split("live", settings.seed + cut, *parts, None, note, None, window.at)


def _window(listens: Listens, settings: SplitSettings, cut: int) -> Window:
    window = Window.of(listens, settings, cut)
    if settings.live_days is None:
        return window
    heard_at = listens.frame["listened_at"]
    at = heard_at.drop_nulls().sort()[-1] - timedelta(days=settings.live_days * (settings.n_cuts - cut))
    end = None if cut == settings.n_cuts - 1 else at + timedelta(days=settings.live_days)
    after = (heard_at >= at).fill_null(False)
    if end is not None:
        after &= (heard_at < end).fill_null(False)
    return replace(window, at=at, end=end, before=(heard_at < at).fill_null(False), after=after)


def _first(frame: pl.DataFrame, judged: pl.Series) -> pl.Series:
    """Mark the first of the judged rows of each pair in time; of rows at the same second any one."""
    rows = frame.select(*PAIR, "listened_at").with_row_index("row").filter(judged)
    first = rows.sort("listened_at", "row").unique(PAIR, keep="first", maintain_order=True)["row"]
    marks = np.zeros(len(frame), dtype=np.bool_)
    marks[first.to_numpy()] = True
    return pl.Series(marks)


def _drawn(events: pl.DataFrame, most: int, seed: int) -> pl.DataFrame:
    """Draw users until they have ``most`` events, one user at the least: column user_id."""
    users = events.group_by("user_id").len().sort("user_id")
    if len(events) <= most:
        return users.select("user_id")
    mixed = users.sample(fraction=1, shuffle=True, seed=seed)
    return mixed.filter((mixed["len"].cum_sum() <= most) | (pl.int_range(pl.len()) == 0)).select("user_id")
