"""The order of plays: listens in, plays by user and time out, and each user's last ones.

    Listens  ->  in_order  ->  Ordered (users, items, seconds)  ->  last_plays  ->  Histories

Order is that of time, and where that is the same of rows, so that any order of arrival gives the same. Plays without a
time have no place in it, and what a user disliked at any time is not there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.types import HISTORY, Histories, Int32, Listens

LAST_SECOND = 2**32 - 1  # of the year 2106


@dataclass(frozen=True, slots=True, eq=False)
class Ordered:
    """Plays whose time is known, by user row, then by time: ``users``, ``items`` int32 and ``seconds`` int64, all (n,).

    Seconds are counted from 1970.
    """

    users: Int32
    items: Int32
    seconds: NDArray[np.int64]

    def __len__(self) -> int:
        """Count the plays."""
        return len(self.items)

    def only(self, kept: NDArray[np.bool_]) -> "Ordered":
        """Those that are marked, (n,)."""
        return Ordered(self.users[kept], self.items[kept], self.seconds[kept])


def in_order(listens: Listens, user_ids: Sequence[str], track_ids: Sequence[str]) -> Ordered:
    """Put the plays of some users and tracks, whose rows these are, in their order."""
    rows = listens.frame.lazy().select("user_id", "track_id", "plays", "disliked", "listened_at")
    pair = ["user_id", "track_id"]
    ordered = (
        rows.filter(pl.col("listened_at").is_not_null() & (pl.col("plays") > 0))
        .join(rows.filter("disliked").select(pair), on=pair, how="anti", maintain_order="left")
        .join(rows_of(user_ids, "user").lazy(), left_on="user_id", right_on="id", maintain_order="left")
        .join(rows_of(track_ids, "item").lazy(), left_on="track_id", right_on="id", maintain_order="left")
        .select("user", "item", seconds=pl.col("listened_at").dt.epoch("s").clip(0, LAST_SECOND))
        .sort("user", "seconds", maintain_order=True)
        .collect()
    )
    return Ordered(ordered["user"].to_numpy(), ordered["item"].to_numpy(), ordered["seconds"].to_numpy())


def last_plays(plays: Ordered, n_users: int) -> Histories:
    """Keep the last ``HISTORY`` plays of each of ``n_users`` users."""
    n_plays = np.bincount(plays.users, minlength=n_users)
    ends = np.cumsum(n_plays)
    left = ends[plays.users] - np.arange(len(plays))  # plays of the user from this one on
    kept = left <= HISTORY
    starts = np.concatenate([[0], np.cumsum(np.minimum(n_plays, HISTORY))]).astype(np.int64)
    return Histories(starts, plays.items[kept], plays.seconds[kept].astype(np.uint32))


def rows_of(ids: Sequence[str] | pl.Series, name: str) -> pl.DataFrame:
    """A table of ids and their rows: columns ``id`` and ``name``."""
    texts = pl.Series("id", ids, dtype=pl.String)
    return pl.DataFrame({"id": texts, name: pl.int_range(len(texts), dtype=pl.Int32, eager=True)})
