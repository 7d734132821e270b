"""Candidates to ranked lists: exact scoring in blocks of users, heard and barred tracks left out, best k kept.

    queries (n_users, d), item vectors (n_items, d)  ->  top_k  ->  Candidates (n_users, k)

Never a whole users x items matrix: a block of users at a time. Ties go to the lower item row, so that a list does not
depend on how users were grouped. A matrix product rounds by block and place (two equal vectors can differ in the last
bit), so it only finds the best; their scores are then added up once more, each in the same order.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.types import NO_ITEM, Candidates, Float32, Int32

BLOCK_SCORES = 16_000_000  # scores held at a time: 64 MB
ROUNDING = 4e-6  # of the scores at the edge of a list, relative to its largest


def top_k(
    queries: Float32,
    item_vectors: Float32,
    k: int,
    left_out: Sequence[csr_matrix] = (),
    candidates: Int32 | None = None,
) -> Candidates:
    """Rank items for each query by inner product.

    Args:
        queries: (n, d).
        item_vectors: (n_items, d).
        k: length of the lists; what a short catalogue cannot fill is item -1 with score -inf.
        left_out: csr matrices (n, n_items) whose stored pairs never appear, row for row with ``queries``.
        candidates: item rows that may appear; all by default.

    Returns:
        Candidates (n, k), best first.
    """
    pool = np.arange(len(item_vectors), dtype=np.int32) if candidates is None else np.sort(candidates)
    vectors = item_vectors if candidates is None else item_vectors[pool]
    items = np.full((len(queries), k), NO_ITEM, dtype=np.int32)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    block = max(1, BLOCK_SCORES // max(len(pool), 1))
    for start in range(0, len(queries) if len(pool) else 0, block):
        rows = slice(start, start + block)
        matrix = np.asarray(queries[rows] @ vectors.T, dtype=np.float32)
        for pairs in left_out:
            _leave_out(matrix, pairs[rows], pool if candidates is not None else None)
        best_scores, best = _best(matrix, queries[rows], vectors, k)
        found = best_scores > -np.inf
        items[rows, : best.shape[1]] = np.where(found, pool[best], NO_ITEM)
        scores[rows, : best.shape[1]] = best_scores
    return Candidates(items, scores)


def _leave_out(matrix: Float32, pairs: csr_matrix, pool: Int32 | None) -> None:
    rows = np.repeat(np.arange(pairs.shape[0]), np.diff(pairs.indptr))
    columns = pairs.indices
    if pool is not None:
        place = np.searchsorted(pool, columns)
        here = (place < len(pool)) & (pool[np.minimum(place, len(pool) - 1)] == columns)
        rows, columns = rows[here], place[here]
    matrix[rows, columns] = -np.inf


def _best(matrix: Float32, queries: Float32, vectors: Float32, k: int) -> tuple[Float32, NDArray[np.int64]]:
    """Give the k best of each row with their columns, best first, ties by column; at the edge of the k too."""
    n_rows, n_columns = matrix.shape
    k = min(k, n_columns)
    if k == 0:
        return np.zeros((n_rows, 0), dtype=np.float32), np.zeros((n_rows, 0), dtype=np.int64)
    chosen = np.argpartition(-matrix, k - 1, axis=1)[:, :k]
    found = np.take_along_axis(matrix, chosen, axis=1)
    edge = found.min(axis=1)
    edge -= ROUNDING * np.abs(found, where=np.isfinite(found), out=np.zeros_like(found)).max(axis=1)
    crowded = np.flatnonzero((matrix >= edge[:, None]).sum(axis=1) > k)
    for row in crowded:  # more columns share the k-th score, but for rounding, than fit: the exact scores decide
        near = np.flatnonzero(matrix[row] >= edge[row])[None]
        scores = _exact(matrix[[row]], queries[[row]], vectors, near)
        chosen[row] = near[0, np.argsort(-scores[0], kind="stable")[:k]]
    chosen.sort(axis=1)
    scores = _exact(matrix, queries, vectors, chosen)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(chosen, order, axis=1)


def _exact(matrix: Float32, queries: Float32, vectors: Float32, columns: NDArray[np.int64]) -> Float32:
    """Add up the scores of some columns of each row, always in the same order; what is left out stays so."""
    scores = np.take_along_axis(matrix, columns, axis=1)
    step = max(1, BLOCK_SCORES // (columns.shape[1] * max(vectors.shape[1], 1)))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        again = np.einsum("nd,nkd->nk", queries[rows], vectors[columns[rows]])  # no BLAS in it
        scores[rows] = np.where(np.isneginf(scores[rows]), scores[rows], again)
    return scores
