"""Plays that are held out to learn from what the parts cannot have seen: weights, levels, settings of ALS.

    Plays, Listens  ->  hold_out  ->  HeldOut: plays to fit on; pairs to predict, of played tracks and of new ones

Where most listens tell their time, the latest are held out, since what comes next is not like what was taken out at
random: tracks first heard then are the new ones. Otherwise some tracks lose all their plays, and some users a
share of their other tracks.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.catalogue.listens import has_times, plays_of
from recsys.hybrid.blend import BlendSettings
from recsys.types import Int32, Listens, Plays

MIN_TRACKS = 5  # users with fewer keep all
MIN_PAIRS = 30  # of fewer nothing is learned


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Plays that were ``kept``, of the same shape, and the ``pairs`` to predict, csr bool (n_users, n_items).

    ``new``: item rows (n,), rising, that lost all their plays. ``cut_s``: the moment of a cut in time, in seconds since
    1970, None where plays were drawn at random.
    """

    kept: Plays
    pairs: csr_matrix
    new: Int32
    cut_s: int | None = None

    @property
    def of_new(self) -> NDArray[np.bool_]:
        """Mark the new items, (n_items,)."""
        marks = np.zeros(self.pairs.shape[1], dtype=bool)
        marks[self.new] = True
        return marks

    def pairs_of(self, marked: NDArray[np.bool_]) -> csr_matrix:
        """Keep the pairs of marked items (n_items,)."""
        pairs = self.pairs.tocoo()
        keep = marked[pairs.col]
        data = np.ones(int(keep.sum()), dtype=bool)
        return csr_matrix((data, (pairs.row[keep], pairs.col[keep])), shape=pairs.shape)


def hold_out(plays: Plays, listens: Listens | None, settings: BlendSettings, seed: int) -> HeldOut:
    """Hold out the latest plays where times are known and enough of them can be predicted, or else random ones."""
    if not settings.validation_users or not settings.validation_share:
        nothing = csr_matrix(plays.counts.shape, dtype=bool)
        return HeldOut(plays, nothing, np.zeros(0, dtype=np.int32))
    if settings.by_time and listens is not None and has_times(listens):
        held_out = latest(plays, listens, settings.validation_share)
        if held_out.pairs_of(~held_out.of_new).nnz >= MIN_PAIRS:
            return held_out
    return at_random(plays, settings, seed)


def latest(plays: Plays, listens: Listens, share: float) -> HeldOut:
    """Hold out what the last share of the dated listens brought: pairs that were not there before, of known users."""
    frame = listens.frame
    times = frame["listened_at"].drop_nulls().sort()
    cut = times[min(int(len(times) * (1 - share)), len(times) - 1)]
    before = plays_of(Listens(frame.filter((pl.col("listened_at") < cut) | pl.col("listened_at").is_null())),
                      plays.track_ids, plays.user_ids)  # fmt: skip
    kept = Plays(before.counts, plays.barred, plays.user_ids, plays.track_ids, before.histories)
    known = np.diff(before.counts.indptr) > 0
    after = csr_matrix(plays.counts.astype(bool).astype(np.int8) - before.counts.astype(bool).astype(np.int8)).tocoo()
    fresh = (after.data > 0) & known[after.row]
    ones = np.ones(int(fresh.sum()), dtype=bool)
    pairs = csr_matrix((ones, (after.row[fresh], after.col[fresh])), shape=plays.counts.shape)
    new = np.flatnonzero((plays.n_listeners > 0) & (kept.n_listeners == 0)).astype(np.int32)
    return HeldOut(kept, pairs, new, int(np.ceil(cut.timestamp())))


def at_random(plays: Plays, settings: BlendSettings, seed: int) -> HeldOut:
    """Take all plays of some tracks out, and of the rest a share of the tracks of some users."""
    rng = np.random.default_rng(seed)
    counts = plays.counts
    sizes = np.diff(counts.indptr)
    eligible = np.flatnonzero(sizes >= MIN_TRACKS)
    chosen = np.zeros(len(sizes), dtype=bool)
    chosen[rng.permutation(eligible)[: settings.validation_users]] = True
    user_of = np.repeat(np.arange(len(sizes)), sizes)
    out = chosen[user_of] & (rng.random(counts.nnz) < settings.validation_share)
    indices = counts.indices
    played = np.flatnonzero(plays.n_listeners)
    new = np.sort(rng.permutation(played)[: int(len(played) * settings.validation_tracks)]).astype(np.int32)
    is_new = np.zeros(counts.shape[1], dtype=bool)
    is_new[new] = True
    out |= is_new[indices]

    def matrix(keep: NDArray[np.bool_], data: NDArray[np.generic]) -> csr_matrix:
        return csr_matrix((data[keep], (user_of[keep], indices[keep])), shape=counts.shape)

    kept = Plays(matrix(~out, counts.data), plays.barred, plays.user_ids, plays.track_ids)
    return HeldOut(kept, matrix(out, np.ones(counts.nnz, dtype=bool)), new)
