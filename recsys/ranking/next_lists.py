"""Lists that follow the last plays: for somebody with a history, as of a moment.

    plays and last plays until then, Order  ->  rank_at  ->  Candidates

Where the order of plays tells nothing, or no time of somebody's plays is known, these are the lists by all plays.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.hybrid.foldin import fold_in
from recsys.hybrid.following import latest, short_vector
from recsys.ranking.order import Order
from recsys.ranking.ranker import Ranking
from recsys.types import NO_ITEM, Candidates, Float32, Histories, Int32
from recsys.util.topk import behind_all, ranked, top_k

POOL = 200  # candidates that the query names, beside those that lie near the last plays
BLOCK = 64  # lists whose queries are ranked at once


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
    order = ranking.model.order
    if order is None:
        return ranking.rank_folded(counts, k, candidates)
    items = np.full((counts.shape[0], k), NO_ITEM, np.int32)
    scores = np.full((counts.shape[0], k), -np.inf, np.float32)
    follows = np.diff(histories.starts) > 0
    rest = np.flatnonzero(~follows)
    if len(rest):
        by_all = ranking.rank_folded(csr_matrix(counts[rest]), k, candidates)
        items[rest], scores[rest] = by_all.items, by_all.scores
    rows = np.flatnonzero(follows)
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        lists = _block(ranking, order, block, counts, histories, now, max(k, POOL), candidates)
        for row, (found, theirs) in zip(block, lists, strict=True):
            items[row, : min(k, len(found))], scores[row, : min(k, len(found))] = found[:k], theirs[:k]
    return Candidates(items, scores)


def _block(
    ranking: Ranking,
    order: Order,
    rows: NDArray[np.int64],
    counts: csr_matrix,
    histories: Histories,
    now: NDArray[np.int64],
    depth: int,
    candidates: Int32 | None,
) -> Iterator[tuple[Int32, Float32]]:
    """The lists of some rows, best first: what their queries name and what lies near, scored by both."""
    blend, vectors, following = ranking.model.blend, ranking.model.item_vectors, order.following
    plays = csr_matrix(counts[rows])
    lasts = [histories.of(int(row)) for row in rows]
    queries = []
    for place, (items, _) in enumerate(lasts):
        here = slice(plays.indptr[place], plays.indptr[place + 1])
        long = fold_in(plays.indices[here], plays.data[here], vectors, blend)
        queries.append(following.query(long, short_vector(items, following.half_life, vectors, blend), blend))
    named = top_k(np.stack(queries), vectors, depth, (plays,), candidates, ranking.model.unknown).items
    for place, (items, seconds) in enumerate(lasts):
        recent, heard = latest(items), plays.indices[plays.indptr[place] : plays.indptr[place + 1]]
        near = order.surroundings.candidates(recent)
        near = near[~np.isin(near, heard)]
        if candidates is not None:
            near = np.intersect1d(near, candidates)
        pool = np.union1d(named[place][named[place] != NO_ITEM], near).astype(np.int32)
        in_session = int(now[rows[place]]) - int(seconds[-1]) <= following.session_gap_s
        facts = RowFacts(ranking.unplayed.__getitem__, order.surroundings.artists_of, ranking.model.unknown)
        scored = vectors[pool] @ queries[place]
        yield best_next(order, scored, recent, pool, facts, in_session=in_session)


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
