"""What every model must beat, behind the one interface that all models are judged through.

    Plays (training)  ->  Popularity, Random  ->  rank(user_rows, k, candidates)  ->  Candidates

Rows are those of the training ``Plays``. Heard and disliked tracks are never ranked. The fitted recommender
comes in by ``Part``, so that it is judged by the very lists that it would serve. Users whom no training has seen
have rows in a ``Plays`` of their own, what they begin with, and a model that folds them in comes by ``Folded``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from eval.splitting.moments import Moments
from recsys.types import NO_ITEM, Candidates, Float32, Histories, Int32, Plays

_BLOCK_USERS = 256  # beside a listener of 100,000 tracks this is 100 MB


class Ranker(Protocol):
    """A model that has seen the training plays and nothing else."""

    def rank(self, user_rows: Int32, k: int, candidates: Int32 | None = None) -> Candidates:
        """Rank items for users, (n_users, k), best first, without what they heard or disliked in training.

        ``candidates`` are the item rows that may be ranked, None for the whole catalogue. Where fewer than k
        are left the last places are empty: item -1, score -inf.
        """


@runtime_checkable
class Folding(Protocol):
    """A model that ranks for somebody by a few tracks, without training anew. A baseline may be one too."""

    def rank_folded(self, counts: csr_matrix, k: int, candidates: Int32 | None = None) -> Candidates:
        """Rank items for people who played ``counts`` (n, n_items), one or more in each row, and leave these out."""


@runtime_checkable
class Following(Protocol):
    """A model whose lists follow the listener: it looks at the order and the times of the last plays."""

    def rank_at(self, moments: Moments, k: int, candidates: Int32 | None = None) -> Candidates:
        """Rank items for each request (n, k), those in its ``counts`` left out; empty places as ``Ranker`` has them.

        A row may have no history, where no times are known.
        """


@runtime_checkable
class FollowingFitted(Protocol):
    """A fitted recommender whose lists follow the listener; one without is asked by ``rank_folded``."""

    def rank_at(
        self,
        counts: csr_matrix,
        histories: Histories,
        now: NDArray[np.int64],
        k: int,
        candidates: Int32 | None = None,
    ) -> Candidates:
        """Rank as a ``Following`` model does."""


class Fitted(Protocol):
    """What evaluation needs of ``recsys.recommender.Recommender``."""

    @property
    def plays(self) -> Plays:
        """The training plays, in the rows that ``rank`` speaks of."""

    @property
    def parts(self) -> Sequence[str]:
        """Names of the models inside the blend."""

    def rank(
        self, user_ids: Sequence[str], k: int, candidates: Int32 | None = None, *, part: str | None = None
    ) -> Candidates:
        """Rank by one part, or by the blend of all when ``part`` is None."""

    def rank_folded(
        self, counts: csr_matrix, k: int, candidates: Int32 | None = None, *, part: str | None = None
    ) -> Candidates:
        """Rank as a ``Folding`` model does, by one part or by all."""

    @property
    def sound(self) -> tuple[Int32, Float32]:
        """Item rows that have a sound vector (m,), and the vectors (m, d); m may be 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """A model that folds in, as a ``Ranker`` of the rows of what somebody has played."""

    given: Plays | Moments
    rank_folded: Callable[[csr_matrix, int, Int32 | None], Candidates]

    def rank(self, user_rows: Int32, k: int, candidates: Int32 | None = None) -> Candidates:
        """Rank by these plays."""
        return self.rank_folded(self.given.counts[user_rows], k, candidates)


@dataclass(frozen=True, slots=True, eq=False)
class At:
    """A model that follows, as a ``Ranker`` of the rows of the moments at which it is asked."""

    moments: Moments
    rank_at: Callable[[Moments, int, Int32 | None], Candidates]

    def rank(self, user_rows: Int32, k: int, candidates: Int32 | None = None) -> Candidates:
        """Rank as of each moment."""
        return self.rank_at(self.moments.rows(user_rows), k, candidates)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One part of a fitted recommender, or with ``part`` None the hybrid, as a ``Ranker``."""

    recommender: Fitted
    user_ids: Sequence[str]  # in the order of the rows
    part: str | None

    def rank(self, user_rows: Int32, k: int, candidates: Int32 | None = None) -> Candidates:
        """Rank as the recommender does."""
        ids = [self.user_ids[row] for row in user_rows]
        return self.recommender.rank(ids, k, candidates, part=self.part)


@dataclass(frozen=True, slots=True, eq=False)
class Popularity:
    """Ranks by the number of distinct listeners in ``trained_on``, the same for everyone; score = listeners.

    ``plays`` says what each user heard, which is left out; it is ``trained_on`` too unless that is given.

    By listeners it is stronger than by plays on each set tried (recall@20 0.100 against 0.089 on the
    Last.fm part of HetRec). Ties are drawn by the seed: the order of a table often tells what was popular.
    """

    plays: Plays
    seed: int = 0
    trained_on: Plays | None = None
    _listeners: Int32 = field(init=False, repr=False)
    _order: Int32 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Sort the catalogue once."""
        listeners = (self.plays if self.trained_on is None else self.trained_on).n_listeners
        shuffled = np.random.default_rng(self.seed).permutation(len(listeners)).astype(np.int32)
        object.__setattr__(self, "_listeners", listeners)
        object.__setattr__(self, "_order", shuffled[np.argsort(-listeners[shuffled], kind="stable")])

    def rank(self, user_rows: Int32, k: int, candidates: Int32 | None = None) -> Candidates:
        """The most popular candidates that each user has not heard."""
        order = _among(self._order, candidates)
        items, _ = _first_unheard(order, np.zeros(len(user_rows), dtype=np.int64), self.plays, user_rows, k)
        return _scored(items, self._listeners[items].astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Random:
    """Ranks uniformly at random; score = -place.

    Each user reads one shuffled catalogue in a circle from a place of their own: uniform for every user, and
    one draw a user is enough.
    """

    plays: Plays
    seed: int = 0
    _order: Int32 = field(init=False, repr=False)
    _starts: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Shuffle the catalogue once and draw where each user starts, as a share of it."""
        rng = np.random.default_rng(self.seed)
        object.__setattr__(self, "_order", rng.permutation(len(self.plays.track_ids)).astype(np.int32))
        object.__setattr__(self, "_starts", rng.random(len(self.plays.user_ids)))

    def rank(self, user_rows: Int32, k: int, candidates: Int32 | None = None) -> Candidates:
        """Give random candidates that each user has not heard."""
        order = _among(self._order, candidates)
        starts = (self._starts[user_rows] * len(order)).astype(np.int64)
        items, places = _first_unheard(order, starts, self.plays, user_rows, k)
        return _scored(items, -places.astype(np.float32))


def _among(order: Int32, candidates: Int32 | None) -> Int32:
    if candidates is None:
        return order
    wanted = np.zeros(len(order), dtype=np.bool_)
    wanted[candidates] = True
    return order[wanted[order]]


def _scored(items: Int32, scores: Float32) -> Candidates:
    return Candidates(items, np.where(items == NO_ITEM, np.float32(-np.inf), scores))


def _first_unheard(
    order: Int32, starts: NDArray[np.int64], plays: Plays, user_rows: Int32, k: int
) -> tuple[Int32, Int32]:
    """Read ``order`` in a circle from each user's start and take the first k items without plays or dislike.

    Returns:
        The items and how far from the start they stood, both (n_users, k); empty places are -1.
    """
    n = len(order)
    place_of = np.full(len(plays.track_ids), NO_ITEM, dtype=np.int64)
    place_of[order] = np.arange(n)
    closed = (plays.counts[user_rows].astype(np.bool_) + plays.barred[user_rows]).tocsr()
    n_closed = np.diff(closed.indptr)
    items = np.full((len(user_rows), k), NO_ITEM, dtype=np.int32)
    places = np.full((len(user_rows), k), NO_ITEM, dtype=np.int32)
    by_length = np.argsort(n_closed, kind="stable")  # so that one heavy listener does not widen every block
    for first in range(0, len(user_rows), _BLOCK_USERS):
        users = by_length[first : first + _BLOCK_USERS]
        width = min(n, k + int(n_closed[users].max()))
        block = closed[users].tocoo()
        place = place_of[block.col]
        distance = (place - starts[users][block.row]) % max(n, 1)
        near = (place != NO_ITEM) & (distance < width)
        taken = np.zeros((len(users), width), dtype=np.bool_)
        taken[block.row[near], distance[near]] = True
        free = np.argsort(taken, axis=1, kind="stable")[:, :k]
        is_free = ~np.take_along_axis(taken, free, axis=1)
        read = order[(starts[users][:, None] + free) % max(n, 1)] if n else free
        items[users, : free.shape[1]] = np.where(is_free, read, NO_ITEM)
        places[users, : free.shape[1]] = np.where(is_free, free, NO_ITEM)
    return items, places
