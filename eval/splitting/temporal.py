"""A moment in, parts out: what was heard before it trains, what came after it is held out.

    Listens, one cut  ->  warm_by_time   ->  later pairs of tracks that were known by then
                      ->  cold_by_time   ->  pairs of tracks that nobody had met by then

Both cut at the same moments and judge the same users. Dislikes after the cut are not known at the cut, so they neither
train nor bar. Rows without a time, and those after the end of the test, are unused.
"""

from dataclasses import dataclass, replace
from datetime import datetime

import polars as pl

from eval.splitting.split import Split, SplitSettings, heard_pairs, marked, parted
from recsys.catalogue.listens import has_times
from recsys.errors import DataError
from recsys.types import Listens


def warm_by_time(listens: Listens, settings: SplitSettings, cut: int = 0) -> Split:
    """Cut the listens at one moment: rows before it train, later new pairs of known tracks are held out.

    The seed of the n-th cut is the settings' plus n.
    """
    frame, window = listens.frame, Window.of(listens, settings, cut)
    known = frame.filter(window.before & (frame["plays"] > 0)).select("track_id").unique()
    judged = window.after & marked(frame, known, ["track_id"]) & marked(frame, persons(frame, settings), ["user_id"])
    how = window.told("later pairs of tracks known by then", settings)
    split = parted("warm", listens, window.before, judged, how=how, seed=settings.seed + cut)
    return replace(split, cut_at=window.at)


def cold_by_time(listens: Listens, settings: SplitSettings, cut: int = 0) -> Split:
    """Cut the listens at one moment: rows before it train, tracks first met in the test after it are cold.

    A track is met by a listen or a dislike of anybody, no matter who is judged. The seed is as in ``warm_by_time``.

    Raises:
        DataError: too few rows have a time, or nothing can be held out.
    """
    check_times(listens)
    frame, window = listens.frame, Window.of(listens, settings, cut)
    met = frame.filter(window.before).select("track_id").unique()
    of_new = window.after & ~marked(frame, met, ["track_id"])
    cold = heard_pairs(frame.filter(of_new))["track_id"].unique().sort().to_list()
    judged = of_new & marked(frame, persons(frame, settings), ["user_id"])
    how = window.told(f"later pairs of {len(cold):,} tracks that nobody had met by then", settings)
    seed = settings.seed + cut
    split = parted("cold-track", listens, window.before, judged, how=how, seed=seed, cold_track_ids=cold)
    return replace(split, cut_at=window.at)


def check_times(listens: Listens) -> None:
    """Check that tracks can be taken out by the time of their first listen.

    Raises:
        DataError: half of the rows or more have no time.
    """
    if not has_times(listens):
        raise DataError(
            f"{listens.frame['listened_at'].count():,} of {len(listens):,} listens say when they were heard, and cold "
            "tracks by time need that of more than half; give listened_at, or take them by track or artist (--cold-by)"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One cut: masks of the rows ``before`` it and in the test ``after`` it, which ends at ``end`` or never."""

    at: datetime
    end: datetime | None
    before: pl.Series
    after: pl.Series
    n_undated: int

    @classmethod
    def of(cls, listens: Listens, settings: SplitSettings, cut: int) -> "Window":
        """Find the moment of the n-th cut, a quantile of the times of all rows."""
        heard_at = listens.frame["listened_at"]
        times = heard_at.drop_nulls().sort()
        start, stop = settings.windows()[cut]
        at: datetime = times[int(len(times) * start)]
        end: datetime | None = times[int(len(times) * stop)] if stop < 1 else None
        after = (heard_at >= at).fill_null(False)
        if end is not None:
            after &= (heard_at < end).fill_null(False)
        return cls(at, end, (heard_at < at).fill_null(False), after, heard_at.null_count())

    def told(self, what: str, settings: SplitSettings) -> str:
        """Say how the listens were parted."""
        until = "" if self.end is None else f"until {self.end:%Y-%m-%d %H:%M:%S} "
        undated = f"; {self.n_undated:,} rows without a time are unused" if self.n_undated else ""
        return (
            f"rows before {self.at:%Y-%m-%d %H:%M:%S} UTC train, {what} are held out {until}for users with "
            f"{settings.min_user_plays:g} to {settings.max_user_plays:g} plays in all{undated}"
        )


def persons(frame: pl.DataFrame, settings: SplitSettings) -> pl.DataFrame:
    """Find the users that are judged: column user_id."""
    plays = frame.group_by("user_id").agg(pl.col("plays").sum())
    return plays.filter(pl.col("plays").is_between(settings.min_user_plays, settings.max_user_plays))
