"""Two ways to rank: by inner products of vectors, and by any function that scores all items of a few users.

    user vectors, item vectors  ->  ByVectors.rank  ->  Candidates
    score(user rows) -> (n, n_items)  ->  ByScores.rank  ->  Candidates

Both go through blocks of users, leave out what was heard or disliked, and pad with -1 and -inf, which
``implicit.recommend`` does not: it marks filtered items -3.4e38 and pads with item 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.types import NO_ITEM, Candidates, Float32, Int32, Plays
from recsys.util.topk import top_k

_BLOCK_SCORES = 8_000_000  # scores held at a time, in double precision: 64 MB
_TIE = 1e-9  # of a user's largest score: far below what single precision tells apart


@dataclass(frozen=True, slots=True, eq=False)
class ByVectors:
    """Ranks by inner product: ``users`` (n_users, f), ``items`` (n_items, f), rows of ``plays``."""

    plays: Plays
    users: Float32
    items: Float32

    def __post_init__(self) -> None:
        """Check that learning came to an end.

        Raises:
            DataError: a vector is not finite.
        """
        if not (np.isfinite(self.users).all() and np.isfinite(self.items).all()):
            raise DataError("the vectors are not finite: learning diverged; give a lower learning rate")

    def rank(self, user_rows: Int32, k: int, candidates: Int32 | None = None) -> Candidates:
        """Rank exactly, ties to the lower row."""
        closed = (self.plays.counts[user_rows], self.plays.barred[user_rows])
        return top_k(self.users[user_rows], self.items, k, closed, candidates)


@dataclass(frozen=True, slots=True, eq=False)
class ByScores:
    """Ranks by ``score``, which gives (n, n_items) float32 for some user rows, each row by itself.

    Ties go to the track with more listeners, then by lot: a sparse score is 0 for most of a catalogue.
    """

    plays: Plays
    score: Callable[[Int32], Float32]
    seed: int = 0
    _tie: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Order the catalogue once, from 0 for the least popular to below 1."""
        object.__setattr__(self, "_tie", tie_break(self.plays, self.seed))

    def rank(self, user_rows: Int32, k: int, candidates: Int32 | None = None) -> Candidates:
        """Rank in blocks of users."""
        items = np.full((len(user_rows), k), NO_ITEM, dtype=np.int32)
        scores = np.full((len(user_rows), k), -np.inf, dtype=np.float32)
        n_items = len(self.plays.track_ids)
        pool = np.arange(n_items, dtype=np.int32) if candidates is None else np.sort(candidates)
        block = max(1, _BLOCK_SCORES // max(n_items, 1))
        for start in range(0, len(user_rows) if len(pool) else 0, block):
            rows = slice(start, start + block)
            matrix = self._scored(user_rows[rows])
            if candidates is not None:
                matrix = matrix[:, pool]
            width = min(k, len(pool))
            best = np.argpartition(-matrix, width - 1, axis=1)[:, :width]
            values = np.take_along_axis(matrix, best, axis=1)
            order = np.argsort(-values, axis=1, kind="stable")
            best, values = np.take_along_axis(best, order, axis=1), np.take_along_axis(values, order, axis=1)
            items[rows, :width] = np.where(np.isneginf(values), NO_ITEM, pool[best])
            scores[rows, :width] = values
        return Candidates(items, scores)

    def _scored(self, user_rows: Int32) -> NDArray[np.float64]:
        """Score all items with their tie-break, -inf where heard or disliked."""
        matrix = np.asarray(self.score(user_rows), dtype=np.float64)
        largest = np.abs(matrix).max(axis=1, keepdims=True)
        matrix += self._tie * (_TIE * np.where(largest > 0, largest, 1))
        for closed in (self.plays.counts[user_rows], self.plays.barred[user_rows]):
            matrix[np.repeat(np.arange(len(user_rows)), np.diff(closed.indptr)), closed.indices] = -np.inf
        return matrix


def tie_break(plays: Plays, seed: int) -> NDArray[np.float64]:
    """Order the catalogue from 0 for the least popular to below 1, by lot where equal: (n_items,)."""
    listeners = plays.n_listeners
    order = np.lexsort((np.random.default_rng(seed).random(len(listeners)), listeners))
    tie = np.zeros(len(listeners))
    tie[order] = np.arange(len(listeners)) / max(len(listeners), 1)
    return tie


def unplayed_last(plays: Plays, users: Float32, items: Float32) -> ByVectors:
    """Rank by vectors, with tracks that nobody played behind all others: their vectors were never learned.

    One more factor, 1 for every user, holds the handicap: beyond any score that the vectors can give.
    """
    unplayed = plays.n_listeners == 0
    known = np.where(unplayed[:, None], 0, items).astype(np.float32)
    reach = np.linalg.norm(users, axis=1).max(initial=0) * np.linalg.norm(known, axis=1).max(initial=0)
    handicap = np.where(unplayed, -2 * reach, 0).astype(np.float32)
    ones = np.ones((len(users), 1), dtype=np.float32)
    return ByVectors(plays, np.hstack([users, ones]), np.hstack([known, handicap[:, None]]))
