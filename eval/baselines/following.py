"""Ranking at a moment: any function that scores all items by what each asker has just played.

score(Moments) -> csr (n, n_items)  ->  ByMoments.rank_at  ->  Candidates
                                        ByMoments.rank     ->  the same as of each user's last training play

Histories  ->  recent  ->  weights of the last plays by item, csr (n, n_items)
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from eval.baselines.rankers import tie_break
from eval.splitting.moments import Moments
from recsys.types import NO_ITEM, Candidates, Float32, Histories, Int32, Plays

_BLOCK_ROWS = 2048  # requests at once: some thousands of scored tracks each


@dataclass(frozen=True, slots=True, eq=False)
class ByMoments:
    """Ranks by ``score``, which gives csr (n, n_items) float32 >= 0 for some requests, each row by itself.

    ``plays`` and ``histories`` are those of training, in the same rows. Tracks without a score come last with 0; ties
    go to the track with more listeners, then by lot.
    """

    plays: Plays
    histories: Histories
    score: Callable[[Moments], csr_matrix]
    seed: int = 0
    _tie: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Order the catalogue once, for ties."""
        object.__setattr__(self, "_tie", tie_break(self.plays, self.seed))

    def rank(self, user_rows: Int32, k: int, candidates: Int32 | None = None) -> Candidates:
        """Rank as of each user's last training play."""
        moments = trained_moments(self.plays, self.histories, user_rows)
        return self._ranked(moments, k, candidates, self.plays.barred[user_rows])

    def rank_at(self, moments: Moments, k: int, candidates: Int32 | None = None) -> Candidates:
        """Rank as of each moment."""
        return self._ranked(moments, k, candidates, None)

    def _ranked(self, moments: Moments, k: int, candidates: Int32 | None, barred: csr_matrix | None) -> Candidates:
        n = len(moments)
        items = np.full((n, k), NO_ITEM, dtype=np.int32)
        scores = np.full((n, k), -np.inf, dtype=np.float32)
        is_open = np.ones(len(self._tie), dtype=np.bool_)
        if candidates is not None:
            is_open[:] = False
            is_open[candidates] = True
        usual = np.argsort(-self._tie, kind="stable").astype(np.int32)
        usual = usual[is_open[usual]]
        for start in range(0, n, _BLOCK_ROWS):
            rows = slice(start, min(start + _BLOCK_ROWS, n))
            block = moments.rows(np.arange(rows.start, rows.stop))
            closed = block.counts if barred is None else csr_matrix(block.counts + barred[rows].astype(np.float32))
            found = _open_pairs(self.score(block), closed, is_open)
            items[rows], scores[rows] = _best(found, self._tie, k)
            _fill(items[rows], scores[rows], usual, closed)
        return Candidates(items, scores)


def trained_moments(plays: Plays, histories: Histories, user_rows: Int32) -> Moments:
    """Each user at the time of their last training play."""
    theirs = histories.rows(user_rows)
    has = np.diff(theirs.starts) > 0
    now = np.zeros(len(user_rows), dtype=np.int64)
    now[has] = theirs.seconds[theirs.starts[1:][has] - 1]
    return Moments(plays.counts[user_rows], theirs, now)


def _open_pairs(scores: csr_matrix, closed: csr_matrix, is_open: NDArray[np.bool_]) -> csr_matrix:
    """Leave out what is closed, and what may not be ranked."""
    rows = np.repeat(np.arange(scores.shape[0]), np.diff(scores.indptr))
    keys = rows * np.int64(scores.shape[1]) + scores.indices
    shut = np.repeat(np.arange(closed.shape[0]), np.diff(closed.indptr)) * np.int64(closed.shape[1]) + closed.indices
    kept = (scores.data > 0) & is_open[scores.indices] & ~np.isin(keys, shut)
    return csr_matrix((scores.data[kept], (rows[kept], scores.indices[kept])), shape=scores.shape)


def _best(scores: csr_matrix, tie: NDArray[np.float64], k: int) -> tuple[Int32, Float32]:
    """The k best of each row, best first; empty places at the end."""
    n = scores.shape[0]
    rows = np.repeat(np.arange(n), np.diff(scores.indptr))
    order = np.lexsort((-tie[scores.indices], -scores.data, rows))
    place = np.arange(len(rows)) - scores.indptr[rows]
    near = place < k
    items = np.full((n, k), NO_ITEM, dtype=np.int32)
    values = np.full((n, k), -np.inf, dtype=np.float32)
    items[rows[near], place[near]] = scores.indices[order[near]]
    values[rows[near], place[near]] = scores.data[order[near]]
    return items, values


def _fill(items: Int32, scores: Float32, usual: Int32, closed: csr_matrix) -> None:
    """Put the first of ``usual`` that are neither closed nor there into the empty places of lists, with score 0."""
    k = items.shape[1]
    for row in np.flatnonzero((items == NO_ITEM).any(axis=1)).tolist():
        n = int((items[row] != NO_ITEM).sum())
        shut = np.concatenate([closed.indices[closed.indptr[row] : closed.indptr[row + 1]], items[row, :n]])
        some = usual[: k + len(shut)]
        rest = some[~np.isin(some, shut)][: k - n]
        items[row, n : n + len(rest)], scores[row, n : n + len(rest)] = rest, 0


def recent(moments: Moments, half_life: float, n_last: int, *, linear: bool = False) -> csr_matrix:
    """Weigh the last plays of each request by 2^-(rank / half-life), the latest at rank 0 with 1: (n, n_items).

    With ``linear`` by 1 - rank / n_last. A track that stands there twice has the weight of its last play. ``n_last``
    plays count at most.
    """
    histories = moments.histories
    ends = np.repeat(histories.starts[1:], np.diff(histories.starts))
    rank = ends - 1 - np.arange(len(histories.items))
    near = rank < n_last
    rows = np.repeat(np.arange(len(moments)), np.diff(histories.starts))[near]
    items, rank = histories.items[near], rank[near]
    order = np.lexsort((rank, items, rows))
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = (np.diff(rows[order]) != 0) | (np.diff(items[order]) != 0)
    kept = order[first]
    weights = 1 - rank[kept] / n_last if linear else np.exp2(-rank[kept] / half_life)
    return csr_matrix((weights.astype(np.float32), (rows[kept], items[kept])), shape=moments.counts.shape)


def to_one(scores: csr_matrix) -> csr_matrix:
    """Divide each row by its largest score, so that it lies in [0, 1]; rows of zeros stay."""
    largest = np.asarray(scores.max(axis=1).todense()).ravel() if scores.shape[1] else np.zeros(scores.shape[0])
    by = np.divide(1, largest, out=np.zeros(len(largest)), where=largest > 0)
    data = scores.data * np.repeat(by, np.diff(scores.indptr)).astype(np.float32)
    return csr_matrix((data, scores.indices, scores.indptr), shape=scores.shape)
