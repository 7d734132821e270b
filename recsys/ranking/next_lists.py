"""Lists that follow the last plays: for somebody with a history, as of a moment.

    plays and last plays until then, Order  ->  rank_at  ->  Candidates
    Listener, over a generation and its uploads  ->  NextRanking.best  ->  rows and scores

Where the order of plays tells nothing, or no time of somebody's plays is known, these are the lists by all plays.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.hybrid.foldin import fold_in
from recsys.hybrid.following import latest, short_vector
from recsys.ranking.attributes import TrackAttributes
from recsys.ranking.catalogue_view import CatalogueView
from recsys.ranking.filters import artists_of
from recsys.ranking.order import Order
from recsys.ranking.ranker import Ranking
from recsys.types import NEVER, NO_ITEM, Candidates, Float32, Histories, Int32
from recsys.util.topk import behind_all, ranked, top_k

POOL = 200  # candidates that the query names, beside those that lie near the last plays
BLOCK = 64  # lists whose queries are ranked at once
UPLOADS_WITHIN = 1000  # places by the query; an upload there is a candidate, as nothing else says what it lies near


def rank_at(
    ranking: Ranking,
    counts: csr_matrix,
    histories: Histories,
    now: NDArray[np.int64],
    k: int,
    candidates: Int32 | None = None,
) -> Candidates:
    """Rank items for people with these plays at these moments; what they played is left out.

    Args:
        ranking: of a model.
        counts: csr (n, n_items), all plays of each until then.
        histories: of n rows, the last of these plays.
        now: (n,) seconds since 1970.
        k: length of the lists.
        candidates: item rows that may appear; all by default.

    Returns:
        Candidates (n, k); tracks of which nothing is known come last.
    """
    order, blend, vectors = ranking.model.order, ranking.model.blend, ranking.model.item_vectors
    if order is None:
        return ranking.rank_folded(counts, k, candidates)

    def queries(rows: NDArray[np.int64]) -> Float32:
        places = [slice(counts.indptr[row], counts.indptr[row + 1]) for row in rows.tolist()]
        long = [fold_in(counts.indices[here], counts.data[here], vectors, blend) for here in places]
        return np.stack(long) * blend.weights()

    asked = _Asked(order, (counts,), histories, now, queries)
    return _joined(
        asked, lambda rows: ranking.rank_folded(csr_matrix(counts[rows]), k, candidates), ranking, k, candidates
    )


def rank_after(ranking: Ranking, users: Int32, k: int, candidates: Int32 | None = None) -> Candidates:
    """Rank items for users (n,) of the generation after their last plays, once their sessions are over: (n, k).

    Heard and disliked tracks are left out. A build stores these lists: those of ``Ranking.rank`` for who has no play
    whose time is known, and for everybody where the last plays say nothing of what comes later.
    """
    model, order = ranking.model, None if ranking.model.order is None else ranking.model.order.of_stored()
    if order is None:
        return ranking.rank(users, k, candidates)
    left_out = csr_matrix(model.counts[users]), csr_matrix(model.barred[users])
    now = np.full(len(users), NEVER, np.int64)
    asked = _Asked(order, left_out, order.histories.rows(users), now, lambda rows: ranking.queries(users[rows]))
    return _joined(asked, lambda rows: ranking.rank(users[rows], k, candidates), ranking, k, candidates)


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """Who asks: csr (n, n_items) of what is left out, ``histories`` of n rows, when (n,), and ``queries`` of some."""

    order: Order
    left_out: tuple[csr_matrix, ...]
    histories: Histories
    now: NDArray[np.int64]
    queries: Callable[[NDArray[np.int64]], Float32]  # rows (m,)  ->  weighed queries (m, d) of all plays

    def left_out_of(self, rows: NDArray[np.int64]) -> tuple[csr_matrix, ...]:
        """What is left out for some rows."""
        return tuple(csr_matrix(pairs[rows]) for pairs in self.left_out)


def _joined(
    asked: _Asked,
    by_all: Callable[[NDArray[np.int64]], Candidates],
    ranking: Ranking,
    k: int,
    candidates: Int32 | None,
) -> Candidates:
    """Lists (n, k) of all who ask, block by block; ``by_all`` makes those of rows without a history."""
    n = len(asked.now)
    items, scores = np.full((n, k), NO_ITEM, np.int32), np.full((n, k), -np.inf, np.float32)
    follows = np.diff(asked.histories.starts) > 0
    rest = np.flatnonzero(~follows)
    if len(rest):
        found = by_all(rest)
        items[rest], scores[rest] = found.items, found.scores
    rows = np.flatnonzero(follows)
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        for row, (best, theirs) in zip(block, _block(ranking, asked, block, max(k, POOL), candidates), strict=True):
            items[row, : min(k, len(best))], scores[row, : min(k, len(best))] = best[:k], theirs[:k]
    return Candidates(items, scores)


def _block(
    ranking: Ranking, asked: _Asked, rows: NDArray[np.int64], depth: int, candidates: Int32 | None
) -> Iterator[tuple[Int32, Float32]]:
    """The lists of some rows, best first: what their queries name and what lies near, scored by both."""
    model, order = ranking.model, asked.order
    blend, vectors, following = model.blend, model.item_vectors, order.following
    left_out = asked.left_out_of(rows)
    lasts = [asked.histories.of(int(row)) for row in rows]
    shorts = (short_vector(items, following.half_life, vectors, blend) for items, _ in lasts)
    queries = [following.query(long, short, blend) for long, short in zip(asked.queries(rows), shorts, strict=True)]
    named = top_k(np.stack(queries), vectors, depth, left_out, candidates, model.unknown).items
    facts = RowFacts(ranking.unplayed.__getitem__, order.surroundings.artists_of, model.unknown)
    for place, (items, seconds) in enumerate(lasts):
        recent = latest(items)
        near = order.surroundings.candidates(recent)
        for out in left_out:
            near = near[~np.isin(near, out.indices[out.indptr[place] : out.indptr[place + 1]])]
        if candidates is not None:
            near = np.intersect1d(near, candidates)
        pool = np.union1d(named[place][named[place] != NO_ITEM], near).astype(np.int32)
        in_session = int(asked.now[rows[place]]) - int(seconds[-1]) <= following.session_gap_s
        yield best_next(order, vectors[pool] @ queries[place], recent, pool, facts, in_session=in_session)


@dataclass(frozen=True, slots=True, eq=False)
class RowFacts:
    """What is known of rows (n,): which are ``new``, played by nobody, their ``artists``; ``unknown`` come last."""

    new: Callable[[Int32], NDArray[np.bool_]]
    artists: Callable[[Int32], Int32]
    unknown: Int32


def best_next(
    order: Order, scores: Float32, recent: Int32, pool: Int32, facts: RowFacts, *, in_session: bool
) -> tuple[Int32, Float32]:
    """Rank the rows of a pool (n,) after the last plays, the latest first: rows and scores, best first.

    ``scores`` (n,) are those of the query; what the last plays are followed by is added to them.
    """
    new, near = facts.new(pool), order.surroundings
    features = near.features(recent, pool, new, in_session=in_session, artists_of=facts.artists)
    total = np.asarray(scores + order.following.weights() @ features, np.float32)
    found, theirs = ranked(np.zeros(len(pool), np.int64), pool, total, 1, len(pool))
    items, values = found[0][: len(pool)], theirs[0][: len(pool)]
    last = np.isin(items, facts.unknown)
    if not last.any():
        return items, values
    rest = behind_all(values[~last], values[last])
    return np.concatenate([items[~last], items[last]]), np.concatenate([values[~last], rest])


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """Somebody who listens: the weighed ``query`` (d,) of all plays, and item rows ``recent`` (n,) of the last ones.

    ``recent`` has one play or more, the latest last; ``in_session`` says that no pause came after it.
    """

    query: Float32
    recent: Int32
    in_session: bool


class NextRanking:
    """Ranks the tracks of a generation and its uploads after somebody's last plays; nothing changes."""

    def __init__(
        self, order: Order, unplayed: NDArray[np.bool_], catalogue: CatalogueView, attributes: TrackAttributes
    ) -> None:
        """Rank by an order; ``unplayed`` (n_items,) marks what nobody had played at the build."""
        self._order, self._unplayed, self._catalogue, self._attributes = order, unplayed, catalogue, attributes

    def session_ends(self, seconds: NDArray[np.unsignedinteger]) -> int:
        """The first second after which a listener with these last plays, n > 0 of them, is in no session any more."""
        return int(seconds[-1]) + self._order.following.session_gap_s + 1

    def query(self, listener: Listener) -> Float32:
        """The query (d,) of all plays and of the last ones."""
        blend, following = self._catalogue.model.blend, self._order.following
        items, places = np.unique(listener.recent, return_inverse=True)
        vectors = self._catalogue.vectors_of(items.astype(np.int32))
        short = short_vector(places.astype(np.int32), following.half_life, vectors, blend)
        return following.query(listener.query, short, blend)

    def near(self, listener: Listener) -> Int32:
        """Rows of the catalogue that lie near the last plays, rising, the plays themselves among them."""
        return self._order.surroundings.candidates(latest(listener.recent), self._artists)

    def pool(self, by_query: Int32, near: Int32, depth: int) -> Int32:
        """Candidates (n,) of a list ``depth`` deep: of rows that the query ranked, best first, and of those near."""
        first = by_query[: max(depth, POOL)]
        fresh = by_query[max(depth, POOL) : UPLOADS_WITHIN]
        fresh = fresh[fresh >= self._catalogue.n_built]
        return np.unique(np.concatenate([first, fresh, near])).astype(np.int32)

    def best(self, listener: Listener, query: Float32, pool: Int32) -> tuple[Int32, Float32]:
        """Rank a pool (n,) by a query of ``query`` and what the last plays are followed by: rows and scores."""
        facts = RowFacts(self._are_new, self._artists, self._catalogue.unknown)
        scores = self._catalogue.vectors_of(pool) @ query
        return best_next(self._order, scores, latest(listener.recent), pool, facts, in_session=listener.in_session)

    def _are_new(self, rows: Int32) -> NDArray[np.bool_]:
        """Mark the rows (n,) that nobody had played when the generation was built, uploads among them."""
        built = rows < self._catalogue.n_built
        return np.where(built, self._unplayed[np.where(built, rows, 0)], True)

    def _artists(self, rows: Int32) -> Int32:
        """Numbers of the artists of rows (n,), -1 where they are not the catalogue's."""
        artists = artists_of(rows, self._attributes, self._catalogue.uploads)
        return np.array([one if isinstance(one, int) else NO_ITEM for one in artists], dtype=np.int32)
