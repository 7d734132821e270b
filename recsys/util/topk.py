"""Candidates to ranked lists: exact scoring in blocks of users, heard and barred tracks left out, best k kept.

    queries (n_users, d), item vectors (n_items, d)  ->  top_k  ->  Candidates (n_users, k)

Never a whole users x items matrix: a block of users at a time, a thread a core. Ties go to the lower item row, so that
a list does not depend on how users were grouped. A matrix product rounds by block and place (two equal vectors can
differ in the last bit), so it only finds what may be among the best; their scores are then added up once more, each in
the same order.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.types import NO_ITEM, Candidates, Float32, Int32
from recsys.util.threads import in_numpy_threads

BLOCK_SCORES = 4_000_000  # scores that a thread holds at a time: 16 MB; as fast as twice as many
BLOCK_USERS = 512  # at most; larger blocks are no faster
CROWD = 2_000_000  # rows times the most that one of them has to sort: 16 MB
GATHERED = 1_000_000  # numbers gathered at a time to add scores up again: what a cache holds
GROUP = 16  # scores of which only the best counts while the bar of a list is looked for
ROUNDING = 4e-6  # of the scores at the edge of a list, relative to its largest


def top_k(
    queries: Float32,
    item_vectors: Float32,
    k: int,
    left_out: Sequence[csr_matrix] = (),
    candidates: Int32 | None = None,
    last: Int32 | None = None,
) -> Candidates:
    """Rank items for each query by inner product.

    Args:
        queries: (n, d).
        item_vectors: (n_items, d).
        k: length of the lists; what a short catalogue cannot fill is item -1 with score -inf.
        left_out: csr matrices (n, n_items) whose stored pairs never appear, row for row with ``queries``.
        candidates: item rows that may appear; all by default.
        last: item rows that come after all others, whatever their score: in lists that these do not fill.

    Returns:
        Candidates (n, k), best first.
    """
    if last is not None and len(last):
        return _with_last(queries, item_vectors, k, left_out, candidates, last)
    return _top_k(queries, item_vectors, k, left_out, candidates)


def _with_last(
    queries: Float32,
    item_vectors: Float32,
    k: int,
    left_out: Sequence[csr_matrix],
    candidates: Int32 | None,
    last: Int32,
) -> Candidates:
    behind = last if candidates is None else np.intersect1d(candidates, last)
    first = _top_k(queries, item_vectors, k, left_out, candidates, behind)
    if not len(behind) or not (first.items == NO_ITEM).any():
        return first
    rest = _top_k(queries, item_vectors, k, left_out, behind.astype(np.int32))
    items, scores = first.items.copy(), first.scores.copy()
    for row in np.flatnonzero((items == NO_ITEM).any(axis=1)).tolist():
        n = int((items[row] != NO_ITEM).sum())
        items[row, n:] = rest.items[row, : k - n]
        scores[row, n:] = behind_all(scores[row, :n], rest.scores[row, : k - n])
    return Candidates(items, scores)


def behind_all(first: Float32, rest: Float32) -> Float32:
    """Falling scores for the items that follow ``first`` (n,), which fall too, scores that go on falling."""
    return np.asarray(np.minimum(rest, first[-1]), dtype=np.float32) if len(first) else rest


def _top_k(
    queries: Float32,
    item_vectors: Float32,
    k: int,
    left_out: Sequence[csr_matrix],
    candidates: Int32 | None,
    hidden: Int32 | None = None,
) -> Candidates:
    """Rank items; those of ``hidden``, which are among the candidates, never appear."""
    pool = None if candidates is None else np.sort(candidates)
    vectors = item_vectors if pool is None else item_vectors[pool]
    items = np.full((len(queries), k), NO_ITEM, dtype=np.int32)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    never = hidden if hidden is None or pool is None else np.searchsorted(pool, hidden)

    def rank_block(rows: slice) -> None:
        matrix = np.asarray(queries[rows] @ vectors.T, dtype=np.float32)
        for pairs in left_out:
            _leave_out(matrix, pairs[rows], pool)
        if never is not None:
            matrix[:, never] = -np.inf
        best, best_scores = _best(matrix, queries[rows], vectors, k)
        if pool is not None:
            best = np.where(best == NO_ITEM, NO_ITEM, pool[best])
        items[rows, : best.shape[1]], scores[rows, : best.shape[1]] = best, best_scores

    if k and len(vectors):
        for _ in in_numpy_threads(rank_block, blocks_of(len(queries), len(vectors))):
            pass
    return Candidates(items, scores)


def blocks_of(n_queries: int, n_vectors: int) -> list[slice]:
    """Cut queries into blocks that ``top_k`` scores at once."""
    step = min(BLOCK_USERS, max(1, BLOCK_SCORES // max(n_vectors, 1)))
    return [slice(start, min(start + step, n_queries)) for start in range(0, n_queries, step)]


def _leave_out(matrix: Float32, pairs: csr_matrix, pool: Int32 | None) -> None:
    rows = np.repeat(np.arange(pairs.shape[0]), np.diff(pairs.indptr))
    columns = pairs.indices
    if pool is not None:
        place = np.searchsorted(pool, columns)
        here = (place < len(pool)) & (pool[np.minimum(place, len(pool) - 1)] == columns)
        rows, columns = rows[here], place[here]
    matrix[rows, columns] = -np.inf


def _best(matrix: Float32, queries: Float32, vectors: Float32, k: int) -> tuple[Int32, Float32]:
    """The columns of the k best of each row with their scores, best first, ties by column."""
    near = matrix >= _bar(matrix, k)[:, None]
    if len(matrix) * int(np.count_nonzero(near, axis=1).max()) > CROWD and len(matrix) > 1:
        cut = len(matrix) // 2  # a row of equal scores, those of a query of zeros for one, would make the others wide
        halves = [_best(matrix[part], queries[part], vectors, k) for part in (slice(cut), slice(cut, None))]
        return np.concatenate([items for items, _ in halves]), np.concatenate([scores for _, scores in halves])
    # of the flat matrix: many times as fast as np.nonzero
    rows, columns = np.divmod(np.flatnonzero(near), matrix.shape[1])
    return ranked(rows, columns.astype(np.int32), exact(queries, vectors, rows, columns), len(matrix), k)


def _bar(matrix: Float32, k: int) -> Float32:
    """A score for each row that its k best reach, and few others; -inf never does.

    The k-th best of the groups' maxima will do, as k different scores reach it: that is a 16th of the row to sort.
    """
    n = matrix.shape[1]
    width = n // GROUP
    maxima: Float32 = matrix if width < 2 * k else matrix[:, : width * GROUP].reshape(-1, GROUP, width).max(axis=1)
    k = min(k, maxima.shape[1])
    lowest = np.finfo(np.float32).min
    top = np.partition(maxima, -k, axis=1)[:, -k:]
    largest = np.abs(top, where=np.isfinite(top), out=np.zeros_like(top)).max(axis=1)
    return np.asarray(np.maximum(top[:, 0] - np.float32(ROUNDING) * largest, lowest))


def exact(queries: Float32, vectors: Float32, rows: NDArray[np.int64], columns: NDArray[np.integer]) -> Float32:
    """Add up the scores of pairs of a query and a vector, each always in the same order: (n_pairs,)."""
    scores = np.empty(len(rows), dtype=np.float32)
    step = max(1, GATHERED // max(queries.shape[1], 1))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        scores[part] = np.einsum("nd,nd->n", queries[rows[part]], vectors[columns[part]])  # no BLAS in it
    return scores


def ranked(rows: NDArray[np.int64], items: Int32, scores: Float32, n: int, k: int) -> tuple[Int32, Float32]:
    """Sort scored pairs into the k best items of each of n rows, ties by item; what is missing is -1 with -inf.

    ``rows`` rise. Score and item become one whole number, which sorts four times as fast as scores by ``argsort``.
    """
    sizes = np.bincount(rows, minlength=n)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    keys = np.full((n, int(sizes.max(initial=k))), _key(np.float32(-np.inf), np.int32(NO_ITEM)), dtype=np.int64)
    keys[rows, place] = _key(scores, items)
    keys.sort(axis=1)
    best = keys[:, :k]
    falling = (best >> 32).astype(np.int32)
    return best.astype(np.int32), 0 - (falling ^ ((falling >> 31) & 0x7FFFFFFF)).view(np.float32)


def _key(scores: NDArray[np.float32] | np.float32, items: NDArray[np.int32] | np.int32) -> NDArray[np.int64]:
    """Whole numbers that rise as scores fall and, where these are equal, as items rise."""
    bits = np.asarray(0 - scores, dtype=np.float32).view(np.int32)  # 0 - 0.0 is 0.0, where -0.0 would be another number
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # below zero, floats rise as their bits fall
    return (rising.astype(np.int64) << 32) | np.asarray(items).view(np.uint32)


def unit_rows(vectors: Float32) -> Float32:
    """Scale rows to unit length; all-zero rows stay."""
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)
