"""Who asks when: plays until a moment, the last of them in their order, and the time of the moment.

    Split (live), ids of the tracks  ->  replayed           ->  Replay: a moment before each event that is asked for
    Plays of training, Split         ->  first_held_out     ->  Moments: each user's first held-out play

Rows know nothing of each other, so they may be ranked in any order and in any blocks. What a model learned is fixed at
the cut; after it only the asker's own plays are told, as a server is told them between two builds.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from eval.splitting.split import Split
from recsys.catalogue.listens import plays_of
from recsys.errors import DataError
from recsys.types import HISTORY, Histories, Int32, Plays

LAST_SECOND = 2**32 - 1  # of the year 2106, as histories have it


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Requests, one a row.

    ``counts`` csr (n, n_items) float32 are all plays of the asker until then, training plays included; ``histories``
    the last of them, n rows; ``now`` (n,) int64 the seconds since 1970 at which is asked.
    """

    counts: csr_matrix
    histories: Histories
    now: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check that the rows fit each other."""
        n = self.counts.shape[0]
        if len(self.histories) != n or self.now.shape != (n,):
            raise DataError(
                f"{n} rows of plays have {len(self.histories)} histories and {len(self.now)} times, expected {n} each"
            )

    def __len__(self) -> int:
        """Count the requests."""
        return len(self.now)

    def rows(self, rows: NDArray[np.integer]) -> "Moments":
        """Some of the requests, in the order asked for."""
        return Moments(self.counts[rows], self.histories.rows(rows), self.now[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """The events of a live split that are asked for, in order of time.

    ``moments`` are as of just before each, ``items`` (n,) what was then played, ``user_ids`` n ids of who played it;
    ``n_first`` events were not asked for, as nothing was known of the user yet.
    """

    moments: Moments
    items: Int32
    user_ids: list[str]
    n_first: int


class _State:
    """What is known of one user: plays by item, the last plays, and what was disliked."""

    def __init__(self, counts: dict[int, float], last: list[tuple[int, int]], barred: set[int]) -> None:
        self.counts, self.last, self.barred = counts, last, barred

    def tell(self, item: int, plays: float, second: int, disliked: bool) -> None:
        if disliked:
            self.barred.add(item)
            self.counts.pop(item, None)
            self.last = [play for play in self.last if play[0] != item]
        elif item not in self.barred and plays > 0:
            self.counts[item] = self.counts.get(item, 0.0) + plays
            self.last = [*self.last, (item, second)][-HISTORY:]


def replayed(split: Split, track_ids: list[str]) -> Replay:
    """Play what came after the cut one event after another, and take down each moment that is asked for.

    Args:
        split: a live one; ``held_out`` is asked for, ``unused`` rows after the cut are only told.
        track_ids: the columns, in order.

    Raises:
        DataError: the split has no cut in time, or a held-out track is not among ``track_ids``.
    """
    if split.cut_at is None:
        raise DataError(f"the {split.protocol} split has no cut in time, so there is nothing to play one by one")
    users = split.held_out.frame["user_id"].unique().sort()
    states = _at_the_cut(plays_of(split.train, track_ids, users.to_list()))
    taken: list[tuple[str, int, int, dict[int, float], list[tuple[int, int]]]] = []
    n_first = 0
    for user_id, user, item, plays, second, disliked, is_asked in _told(split, users, track_ids).iter_rows():
        state = states[user]
        if is_asked and not state.counts:
            n_first += 1
        elif is_asked:
            taken.append((user_id, item, second, dict(state.counts), state.last))
        state.tell(item, plays, second, disliked)
    return Replay(
        _moments([row[2:] for row in taken], len(track_ids)),
        np.array([row[1] for row in taken], dtype=np.int32),
        [row[0] for row in taken],
        n_first,
    )


def _at_the_cut(plays: Plays) -> list[_State]:
    histories = plays.histories or Histories.none(len(plays.user_ids))
    states = []
    for user in range(len(plays.user_ids)):
        row, barred = plays.counts[[user]], plays.barred[[user]]
        items, seconds = histories.of(user)
        counts = dict(zip(row.indices.tolist(), row.data.tolist(), strict=True))
        states.append(
            _State(counts, list(zip(items.tolist(), seconds.tolist(), strict=True)), {*barred.indices.tolist()})
        )
    return states


def _told(split: Split, users: pl.Series, track_ids: list[str]) -> pl.DataFrame:
    """All rows after the cut of the users that are asked for, in order: user_id, user, item, plays, second, ..."""
    rows = pl.DataFrame({"user_id": users}).with_row_index("user")
    items = pl.DataFrame({"track_id": track_ids}, {"track_id": pl.String}).with_row_index("item")
    asked = split.held_out.frame.with_columns(asked=True)
    known = asked.join(items, on="track_id", how="semi")
    if len(known) < len(asked):
        raise DataError(
            f"{len(asked) - len(known)} of {len(asked)} events are of tracks that the fit does not know, expected "
            "none; give the catalogue that the listens were read with"
        )
    told = pl.concat([asked, split.unused.frame.with_columns(asked=False)]).filter(
        pl.col("listened_at") >= split.cut_at
    )
    return (
        told.filter(pl.col("listened_at") >= split.cut_at)
        .join(rows, on="user_id")
        .join(items, on="track_id")
        .sort("listened_at", "user_id", "track_id", pl.col("asked").not_())  # of rows alike the asked one is the first
        .select(
            "user_id",
            "user",
            "item",
            "plays",
            pl.col("listened_at").dt.epoch("s").clip(0, LAST_SECOND),
            pl.col("disliked").fill_null(False),
            "asked",
        )
    )


def _moments(taken: list[tuple[int, dict[int, float], list[tuple[int, int]]]], n_items: int) -> Moments:
    sizes = np.array([len(counts) for _, counts, _ in taken], dtype=np.int64)
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    items = np.fromiter((item for _, counts, _ in taken for item in counts), np.int32, int(indptr[-1]))
    plays = np.fromiter((n for _, counts, _ in taken for n in counts.values()), np.float32, int(indptr[-1]))
    matrix = csr_matrix((plays, items, indptr), shape=(len(taken), n_items))
    matrix.sort_indices()
    starts = np.concatenate([[0], np.cumsum([len(last) for _, _, last in taken])]).astype(np.int64)
    pairs = np.array([play for _, _, last in taken for play in last], dtype=np.int64).reshape(-1, 2)
    histories = Histories(starts, pairs[:, 0].astype(np.int32), pairs[:, 1].astype(np.uint32))
    return Moments(matrix, histories, np.array([second for second, _, _ in taken], dtype=np.int64))


def first_held_out(split: Split, plays: Plays) -> Moments:
    """The moment of each user's first held-out play, a row a user of ``plays``; the last play's where none is held out.

    Plays and histories are those of training.
    """
    told = plays_of(split.train, plays.track_ids, plays.user_ids)
    histories = told.histories or Histories.none(len(plays.user_ids))
    first = split.held_out.frame.group_by("user_id").agg(pl.col("listened_at").min().dt.epoch("s").alias("first"))
    users = pl.DataFrame({"user_id": plays.user_ids}, {"user_id": pl.String})
    found = users.join(first, on="user_id", how="left", maintain_order="left")["first"].fill_null(-1).to_numpy()
    has = np.diff(histories.starts) > 0
    last = np.zeros(len(histories), dtype=np.int64)
    last[has] = histories.seconds[histories.starts[1:][has] - 1]
    return Moments(told.counts, histories, np.where(found < 0, last, found).astype(np.int64))
