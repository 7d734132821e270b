"""Candidates to ranked lists: exact scoring in blocks of users, heard and barred tracks left out, best k kept.

    queries (n_users, d), item vectors (n_items, d)  ->  top_k  ->  Candidates (n_users, k)

Never a whole users x items matrix: a block of users at a time. Ties go to the lower item row, so that a list does not
depend on how users were grouped.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.types import NO_ITEM, Candidates, Float32, Int32

BLOCK_SCORES = 16_000_000  # scores held at a time: 64 MB


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
    for start in range(0, len(queries), block):
        rows = slice(start, start + block)
        matrix = np.asarray(queries[rows] @ vectors.T, dtype=np.float32)
        for pairs in left_out:
            _leave_out(matrix, pairs[rows], pool if candidates is not None else None)
        best_scores, best = _best(matrix, k)
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


def _best(matrix: Float32, k: int) -> tuple[Float32, NDArray[np.int64]]:
    """Give the k best of each row with their columns, best first, ties by column; at the edge of the k too."""
    n_rows, n_columns = matrix.shape
    k = min(k, n_columns)
    if k == 0:
        return np.zeros((n_rows, 0), dtype=np.float32), np.zeros((n_rows, 0), dtype=np.int64)
    chosen = np.argpartition(-matrix, k - 1, axis=1)[:, :k]
    edge = np.take_along_axis(matrix, chosen, axis=1).min(axis=1)
    tied = np.flatnonzero((matrix >= edge[:, None]).sum(axis=1) > k)
    for row in tied:  # more columns share the k-th score than fit: the lower ones win
        above = np.flatnonzero(matrix[row] > edge[row])
        chosen[row] = np.concatenate([above, np.flatnonzero(matrix[row] == edge[row])[: k - len(above)]])
    chosen.sort(axis=1)
    scores = np.take_along_axis(matrix, chosen, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(chosen, order, axis=1)


def cap_per_artist(artists: Sequence[str | None], at_most: int) -> list[int]:
    """Say which places of a list stay when an artist may appear ``at_most`` times; unknown artists always may."""
    seen: dict[str, int] = {}
    kept = []
    for place, artist in enumerate(artists):
        if artist is not None:
            seen[artist] = seen.get(artist, 0) + 1
            if seen[artist] > at_most:
                continue
        kept.append(place)
    return kept
