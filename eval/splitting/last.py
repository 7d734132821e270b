"""Each user's own order in, parts out: what a user played last is held out, whatever others did by then.

    Listens  ->  warm_last  ->  train: first four fifths of each user's plays; held out: the rest, tracks new to them

With ``last`` a session lies on one side: a user's cut is the start of the session that is nearest to four fifths of the
plays. With ``last-plays`` it is at that very play, so that most users' sessions go on where they were cut: an easier
question, and another one. Plays of other users may be later than those held out, so neither is a forecast. Dislikes
after a user's cut are unused, rows without a time too.
"""

from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from eval.splitting.split import Split, SplitSettings, parted
from eval.splitting.temporal import check_times
from recsys.types import Listens

SESSION_GAP_S = 30 * 60  # a session ends where nothing was played for so long: as in Ludewig & Jannach 2018
LAST = "last"  # how the variants of these splits begin


def warm_last(listens: Listens, settings: SplitSettings) -> Split:
    """Hold out the last ``held_out_share`` of each user's plays, in whole sessions at most half of them.

    Users with fewer than ``min_user_plays`` or more than ``max_user_plays`` timed plays, and with ``last`` those of a
    single session, only train. Tracks that nobody has played in training may be among those held out.

    Raises:
        DataError: too few rows have a time, or nothing can be held out.
    """
    check_times(listens)
    frame = listens.frame
    ordered = (
        frame.select("user_id", "listened_at", "plays")
        .with_row_index("row")
        .filter(pl.col("listened_at").is_not_null())
        .sort("user_id", "listened_at", "row")
    )
    late = np.zeros(len(frame), dtype=np.bool_)
    late[ordered["row"].to_numpy()[_late(ordered, settings)]] = True
    is_late, dated = pl.Series(late), frame["listened_at"].is_not_null()
    whole = settings.warm_split == "last"
    how = (
        f"the last {settings.held_out_share:.0%} of each user's plays{', in whole sessions,' if whole else ''} is held "
        f"out for users with {settings.min_user_plays:g} to {settings.max_user_plays:g} plays"
        f"{' and two sessions or more' if whole else ''}"
    )
    split = parted("warm", listens, dated & ~is_late, is_late & (frame["plays"] > 0), how=how, seed=settings.seed)
    return replace(split, variant=settings.warm_split)


def _late(ordered: pl.DataFrame, settings: SplitSettings) -> NDArray[np.bool_]:
    """Mark the rows after their user's cut: rows (user_id, listened_at, plays) stand by user, then in order."""
    user = ordered["user_id"].rle_id().to_numpy().astype(np.int64)
    seconds = ordered["listened_at"].dt.epoch("s").to_numpy()
    late = np.zeros(len(ordered), dtype=np.bool_)
    if not len(ordered):
        return late
    starts = np.concatenate([[0], np.flatnonzero(np.diff(user)) + 1])
    for start, end in zip(starts, [*starts[1:], len(ordered)], strict=True):
        n = end - start
        wanted = start + round(n * (1 - settings.held_out_share))
        if settings.warm_split == "last":
            begins = start + 1 + np.flatnonzero(np.diff(seconds[start:end]) > SESSION_GAP_S)
            begins = begins[begins >= start + n / 2]
        else:
            begins = np.array([wanted])[: int(start < wanted < end)]
        if settings.min_user_plays <= n <= settings.max_user_plays and len(begins):
            late[begins[np.argmin(np.abs(begins - wanted))] : end] = True
    return late
