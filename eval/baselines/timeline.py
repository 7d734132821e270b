"""Training listens in, all timed plays in their order and their sessions out: what order-aware models learn from.

    Listens, ids  ->  Timeline: user, item and second of each play, user after user, the earliest first
    Timeline      ->  sessions   (n,) number of the session of each play
                  ->  follows    pairs of a play and the one a step later in the same session

A session ends where nothing was played for ``SESSION_GAP_S``. What was disliked and what has no time is left out.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from eval.splitting.last import SESSION_GAP_S
from recsys.types import Int32, Listens, Plays


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Plays whose time is known: ``users`` and ``items`` (n,) int32 rows, ``seconds`` (n,) int64 since 1970.

    They stand user after user, each user's in the order of time.
    """

    users: Int32
    items: Int32
    seconds: NDArray[np.int64]

    def __len__(self) -> int:
        """Count the plays."""
        return len(self.users)

    @classmethod
    def none(cls) -> "Timeline":
        """The one without plays."""
        return cls(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int64))

    @classmethod
    def of(cls, listens: Listens, plays: Plays) -> "Timeline":
        """Bring listens into the rows of ``plays``; rows of other users and tracks are left out."""
        users = pl.DataFrame({"user_id": plays.user_ids}, {"user_id": pl.String}).with_row_index("user")
        items = pl.DataFrame({"track_id": plays.track_ids}, {"track_id": pl.String}).with_row_index("item")
        barred = plays.barred.tocoo()
        closed = pl.DataFrame({"user": barred.row, "item": barred.col}, {"user": pl.UInt32, "item": pl.UInt32})
        rows = (
            listens.frame.lazy()
            .filter(pl.col("listened_at").is_not_null() & (pl.col("plays") > 0))
            .join(users.lazy(), on="user_id", maintain_order="left")
            .join(items.lazy(), on="track_id", maintain_order="left")
            .join(closed.lazy(), on=["user", "item"], how="anti", maintain_order="left")
            .select("user", "item", pl.col("listened_at").dt.epoch("s").alias("second"))
            .sort("user", "second", maintain_order=True)
            .collect()
        )
        return cls(
            rows["user"].to_numpy().astype(np.int32),
            rows["item"].to_numpy().astype(np.int32),
            rows["second"].to_numpy().astype(np.int64),
        )

    def sessions(self) -> NDArray[np.int64]:
        """Number the sessions from 0: (n,), never falling."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        begins = (np.diff(self.users) != 0) | (np.diff(self.seconds) > SESSION_GAP_S)
        return np.concatenate([[0], np.cumsum(begins)]).astype(np.int64)

    def follows(self, step: int) -> tuple[Int32, Int32]:
        """Items of each play and of the one so many steps later in the same session, where they differ."""
        session = self.sessions()
        together = session[step:] == session[:-step]
        before, after = self.items[:-step][together], self.items[step:][together]
        other = before != after
        return before[other], after[other]
