"""A split and the training plays in, panels out: who is judged, on which tracks, among which candidates.

    Split, Plays (training)  ->  panels_of  ->  Panel, one a name in the table of figures

    warm         all tracks are candidates
    cold-track   ``cold-track`` ranks the cold tracks among themselves, ``cold-track-among-all`` among all
    cold-user    ``cold-user-3`` are those users who have more than three tracks, known by their first three; the
                 others of their tracks are held out, so users and held-out tracks differ from panel to panel
    warm-last    ``warm-last-played`` ranks among the tracks that were played in training, ``warm-last-unplayed`` among
                 the others, ``warm-last-total`` among all; asked at the time of the user's first held-out play
    live         a list an event, among all tracks; ``live`` are all events of users with plays before the cut,
                 ``live-played`` and ``live-unplayed`` those of tracks that somebody had played by then, or nobody,
                 ``live-cold-users`` the events of the other users, from their second play on

Here ids become rows. Nothing is ranked here.
"""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from eval.splitting.last import LAST
from eval.splitting.leakage import assert_no_foresight
from eval.splitting.moments import Moments, first_held_out, replayed
from eval.splitting.split import Split
from recsys.errors import DataError
from recsys.types import Int32, Plays


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Some of a panel's lists that are judged under a name of their own; ``rows`` (n,) bool says which."""

    name: str
    rows: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """Users to rank for and what is held out for each.

    ``heard`` has the rows that ``user_rows`` (n,) speak of: the training plays, or where ``is_folded`` what cold users
    begin with, or what was played until each event. ``held_out`` (n, n_items) is bool; ``candidates`` None are all
    items. ``moments``, in the rows of ``heard``, say when each asks and what came last; None where nobody asks at a
    time. ``views`` name the parts that are judged; empty where all lists are judged under the panel's own name. A user
    of several rows has a list an event.
    """

    name: str
    heard: Plays
    user_rows: Int32
    held_out: csr_matrix
    candidates: Int32 | None
    is_folded: bool = False
    moments: Moments | None = None
    views: tuple[View, ...] = ()

    @property
    def judged(self) -> tuple[View, ...]:
        """The parts that are judged, those without a list left out."""
        whole = View(self.name, np.ones(len(self.user_rows), dtype=np.bool_))
        return tuple(view for view in self.views or (whole,) if view.rows.any())

    @property
    def user_ids(self) -> list[str]:
        """Ids of the judged users, in order."""
        return [self.heard.user_ids[row] for row in self.user_rows]

    @property
    def n_candidates(self) -> int:
        """How many items may be ranked."""
        return len(self.heard.track_ids) if self.candidates is None else len(self.candidates)


def panels_of(split: Split, plays: Plays, max_users: int) -> list[Panel]:
    """Make the panels of a split; of more than ``max_users`` users so many are drawn by the split's seed.

    Raises:
        DataError: a held-out user or track is unknown to the fit.
    """
    if split.protocol == "live":
        return [_live(split, plays)]
    if split.first_tracks is not None:
        panels = [_begun(split, split.first_tracks, n, plays) for n in split.fold_in_tracks]
        panels = [panel for panel in panels if len(panel.user_rows)]
        if not panels:
            raise DataError(f"no cold user has more than {min(split.fold_in_tracks)} tracks; lower fold_in_tracks")
    elif split.variant.startswith(LAST):
        panels = _last(split, plays)
    else:
        users, held_out = held_out_of(split, plays)
        cold = _cold_items(split, plays)
        panels = [Panel(split.name, plays, users, held_out, cold)]
        if cold is not None:
            panels.append(Panel(f"{split.name}-among-all", plays, users, held_out, None))
    return [_drawn(panel, max_users, split.seed) for panel in panels]


def _live(split: Split, plays: Plays) -> Panel:
    """Lay the events of a live split beside each other; their number is bounded by the split itself."""
    replay = replayed(split, plays.track_ids)
    assert_no_foresight(replay, split, plays.track_ids)
    n, n_items = len(replay.items), len(plays.track_ids)
    if not n:
        raise DataError("no event of the live protocol comes after another play of its user; give more listens")
    held_out = csr_matrix((np.ones(n, dtype=np.bool_), replay.items, np.arange(n + 1)), shape=(n, n_items))
    nothing_barred = csr_matrix((n, n_items), dtype=np.bool_)
    heard = Plays(replay.moments.counts, nothing_barred, replay.user_ids, plays.track_ids, replay.moments.histories)
    met = split.train.frame.filter(pl.col("plays") > 0)
    is_known = pl.Series(replay.user_ids).is_in(met["user_id"].unique().implode()).to_numpy()
    was_played = pl.Series(plays.track_ids).is_in(met["track_id"].unique().implode()).to_numpy()[replay.items]
    views = (
        View(split.name, is_known),
        View(f"{split.name}-played", is_known & was_played),
        View(f"{split.name}-unplayed", is_known & ~was_played),
        View(f"{split.name}-cold-users", ~is_known),
    )
    rows = np.arange(n, dtype=np.int32)
    return Panel(split.name, heard, rows, held_out, None, True, replay.moments, views)


def _last(split: Split, plays: Plays) -> list[Panel]:
    """Rank among played tracks, among those nobody played in training, and among all; made-up ones are unplayed."""
    users, held_out = held_out_of(split, plays)
    moments = first_held_out(split, plays)
    is_played = plays.n_listeners > 0
    panels = []
    for name, items in (("played", is_played), ("unplayed", ~is_played), ("total", None)):
        wanted = held_out if items is None else only_items(held_out, items)
        rows = np.flatnonzero(np.diff(wanted.indptr))
        among = None if items is None else np.flatnonzero(items).astype(np.int32)
        if len(rows):
            panel = Panel(f"{split.name}-{name}", plays, users[rows], csr_matrix(wanted[rows]), among)
            panels.append(replace(panel, moments=moments))
    return panels


def only_items(pairs: csr_matrix, items: NDArray[np.bool_]) -> csr_matrix:
    """Keep the stored pairs of some items (n_items,); the shape stays."""
    kept = items[pairs.indices]
    indptr = np.concatenate([[0], np.cumsum(kept)])[pairs.indptr]
    return csr_matrix((pairs.data[kept], pairs.indices[kept], indptr), shape=pairs.shape)


def held_out_of(split: Split, plays: Plays) -> tuple[Int32, csr_matrix]:
    """Bring the held-out pairs into the rows of the training plays.

    Returns:
        The rows of users with held-out pairs (n,), ascending, and their pairs (n, n_items), bool.

    Raises:
        DataError: a held-out user or track is missing from the training plays.
    """
    return _in_rows(split.held_out.frame, plays.user_ids, plays.track_ids)


def _in_rows(frame: pl.DataFrame, user_ids: list[str], track_ids: list[str]) -> tuple[Int32, csr_matrix]:
    users = pl.DataFrame({"user_id": user_ids}, {"user_id": pl.String}).with_row_index("user")
    items = pl.DataFrame({"track_id": track_ids}).with_row_index("item")
    pairs = frame.select("user_id", "track_id").unique()
    rows = pairs.join(users, on="user_id").join(items, on="track_id")
    if len(rows) < len(pairs):
        raise DataError(
            f"{len(pairs) - len(rows)} of {len(pairs)} held-out pairs have a user or track that the fit does "
            "not know, expected none; give the catalogue that the listens were read with"
        )
    user_rows, index = np.unique(rows["user"].to_numpy(), return_inverse=True)
    pairs_of = (index, rows["item"].to_numpy().astype(np.int64))
    shape = (len(user_rows), len(track_ids))
    return user_rows.astype(np.int32), csr_matrix((np.ones(len(rows), dtype=np.bool_), pairs_of), shape=shape)


def _cold_items(split: Split, plays: Plays) -> Int32 | None:
    if split.cold_track_ids is None:
        return None
    items = pl.DataFrame({"track_id": plays.track_ids}).with_row_index("item")
    cold = items.join(pl.DataFrame({"track_id": split.cold_track_ids}), on="track_id", how="semi")["item"].sort()
    return cold.to_numpy().astype(np.int32)


def _begun(split: Split, first_tracks: pl.DataFrame, n: int, plays: Plays) -> Panel:
    """Give each cold user the first n tracks, and hold the others out."""
    others = first_tracks.filter(pl.col("place") > n)
    user_ids = others["user_id"].unique().sort().to_list()
    user_rows, held_out = _in_rows(others, user_ids, plays.track_ids)
    users = pl.DataFrame({"user_id": user_ids}, {"user_id": pl.String}).with_row_index("user")
    items = pl.DataFrame({"track_id": plays.track_ids}).with_row_index("item")
    begun = first_tracks.filter(pl.col("place") <= n).join(users, on="user_id").join(items, on="track_id")
    shape = (len(user_ids), len(plays.track_ids))
    pairs_of = (begun["user"].to_numpy().astype(np.int64), begun["item"].to_numpy().astype(np.int64))
    counts = csr_matrix((begun["plays"].to_numpy().astype(np.float32), pairs_of), shape=shape)
    heard = Plays(counts, csr_matrix(shape, dtype=np.bool_), user_ids, plays.track_ids)
    return Panel(f"{split.name}-{n}", heard, user_rows, held_out, None, is_folded=True)


def _drawn(panel: Panel, max_users: int, seed: int) -> Panel:
    n_users = len(panel.user_rows)
    if n_users <= max_users:
        return panel
    drawn = np.sort(np.random.default_rng(seed).choice(n_users, max_users, replace=False))
    rows, held_out = panel.user_rows[drawn], panel.held_out[drawn]
    return replace(panel, user_rows=rows, held_out=held_out)
