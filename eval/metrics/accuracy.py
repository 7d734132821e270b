"""Ranked lists and held-out tracks in, figures out.

    ranked (n_users, K), held out (n_users, n_items)  ->  find_hits  ->  Hits  ->  recall_at_k, ndcg_at_k, ...
    a value a user  ->  mean_over_users, bootstrap_ci

A metric gives one value a user, NaN where nothing is held out for that user. Relevance is binary: a held-out
track is as good as any other. Definitions are in ``FORMULAS``, since libraries differ on them. Nothing is
ranked here: lists are taken as they come. What lists are like beside being right is in
``eval.metrics.beyond_accuracy``, tests of significance between models are in ``eval.significance``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.errors import DataError
from recsys.types import NO_ITEM, Int32

Float64 = NDArray[np.float64]

_BLOCK_USERS = 65_536  # keeps the working arrays at some tens of MB
_BLOCK_DRAWS = 4_000_000  # draws of the bootstrap at once: 32 MB


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """Which places of each list hold a held-out track (n_users, K), and how many are held out (n_users,)."""

    found: NDArray[np.bool_]
    n_held_out: NDArray[np.int64]


def find_hits(ranked: Int32, held_out: csr_matrix) -> Hits:
    """Compare lists with held-out tracks, row by row.

    Args:
        ranked: items, best first, (n_users, K); empty places are -1.
        held_out: stored entries are the held-out pairs, (n_users, n_items).

    Raises:
        DataError: the numbers of users differ, or a list has an item twice (it would be counted twice).
    """
    n_users, n_items = held_out.shape
    if ranked.ndim != 2 or len(ranked) != n_users:
        raise DataError(f"ranked lists are {ranked.shape}, expected ({n_users}, K) as the held-out pairs")
    ordered = np.sort(ranked, axis=1)
    if bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NO_ITEM)).any()):
        raise DataError("a ranked list has the same item twice; a model must rank each item once")
    found = np.zeros(ranked.shape, dtype=np.bool_)
    for start in range(0, n_users, _BLOCK_USERS):
        block = held_out[start : start + _BLOCK_USERS].tocoo()
        keys = np.unique(block.row * np.int64(n_items) + block.col)
        items = ranked[start : start + _BLOCK_USERS]
        wanted = np.arange(len(items), dtype=np.int64)[:, None] * n_items + items
        place = np.searchsorted(keys, wanted)
        same = np.append(keys, -1)[place] == wanted
        # an empty place, -1, has the key of the previous user's last item
        found[start : start + _BLOCK_USERS] = same & (items != NO_ITEM)
    return Hits(found, np.diff(held_out.indptr).astype(np.int64))


def recall_at_k(hits: Hits, k: int) -> Float64:
    """Hits in the top k / min(k, held-out tracks)."""
    return _per_user(np.sum(_top(hits, k), axis=1), np.minimum(k, hits.n_held_out))


def hit_rate_at_k(hits: Hits, k: int) -> Float64:
    """1 where the top k has a hit, else 0."""
    return _per_user(np.any(_top(hits, k), axis=1), np.minimum(1, hits.n_held_out))


def ndcg_at_k(hits: Hits, k: int) -> Float64:
    """Sum of 1 / log2(rank + 1) over the hits in the top k / the same sum with all hits first."""
    gain = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(gain)])[np.minimum(k, hits.n_held_out)]
    return _per_user(_top(hits, k) @ gain, ideal)


def mrr_at_k(hits: Hits, k: int) -> Float64:
    """1 / rank of the first hit, 0 where the top k has none."""
    top = _top(hits, k)
    first = np.where(top.any(axis=1), 1 / (top.argmax(axis=1) + 1), 0)
    return _per_user(first, np.minimum(1, hits.n_held_out))


def map_at_k(hits: Hits, k: int) -> Float64:
    """Sum of the precision at each hit in the top k / min(k, held-out tracks)."""
    top = _top(hits, k)
    precision = np.cumsum(top, axis=1) / np.arange(1, k + 1)
    return _per_user(np.sum(precision * top, axis=1), np.minimum(k, hits.n_held_out))


USER_METRICS: dict[str, Callable[[Hits, int], Float64]] = {
    "recall": recall_at_k,
    "ndcg": ndcg_at_k,
    "hit_rate": hit_rate_at_k,
    "mrr": mrr_at_k,
    "map": map_at_k,
}
FORMULAS: dict[str, str] = {
    "recall": "hits in the top k / min(k, held-out tracks of the user)",
    "ndcg": "sum over hits in the top k of 1 / log2(rank + 1), over the same sum with every hit first",
    "hit_rate": "1 where the top k has a hit, else 0",
    "mrr": "1 / rank of the first hit in the top k, 0 where it has none",
    "map": "sum over hits in the top k of hits so far / rank, over min(k, held-out tracks of the user)",
}


def mean_over_users(values: NDArray[np.floating], weights: NDArray[np.floating] | None = None) -> Float64:
    """Average over users, then over splits.

    Args:
        values: (n_users, n_splits, n_figures), NaN where a user was not judged in a split.
        weights: how many lists each value is the mean of, so that the mean is one over lists; None: 1 of each.
    """
    mean: Float64 = _weighted_mean(np.ones((1, len(values))), values, weights)[0]
    return mean


def bootstrap_ci(
    values: NDArray[np.floating],
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    weights: NDArray[np.floating] | None = None,
) -> tuple[Float64, Float64]:
    """The interval of ``mean_over_users`` when users are drawn anew, each with all of their splits and lists.

    The same seed draws the same users, so intervals of several models over the same users are paired.

    Args:
        values: (n_users, n_splits, n_figures), NaN where a user was not judged in a split.
        n_resamples: how often as many users as there are get drawn with replacement.
        level: share of the resampled means inside the interval.
        seed: of the draws.
        weights: as for ``mean_over_users``.

    Returns:
        Lower and upper end, each (n_figures,).
    """
    return interval(resampled_means(values, n_resamples, seed, weights), level)


def interval(draws: Float64, level: float = 0.95) -> tuple[Float64, Float64]:
    """The middle ``level`` of draws (n, n_figures), NaN among them left out: lower and upper end (n_figures,)."""
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    for figure in np.flatnonzero(np.isnan(low)):  # few users have a value, and in some draws none of them
        known = draws[~np.isnan(draws[:, figure]), figure]
        if len(known):
            low[figure], high[figure] = np.quantile(known, [tail, 1 - tail])
    return low, high


def resampled_means(
    values: NDArray[np.floating], n_resamples: int, seed: int, weights: NDArray[np.floating] | None = None
) -> Float64:
    """Give ``mean_over_users`` of each draw of the bootstrap, (n_resamples, n_figures); see ``bootstrap_ci``."""
    n_users = len(values)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_DRAWS // n_users)
    means = []
    for start in range(0, n_resamples, block):
        n = min(block, n_resamples - start)
        drawn = rng.integers(n_users, size=(n, n_users)) + np.arange(n)[:, None] * n_users
        times = np.bincount(drawn.ravel(), minlength=n * n_users).reshape(n, n_users)
        means.append(_weighted_mean(times.astype(np.float32), values, weights))
    return np.concatenate(means)


def _weighted_mean(
    draws: NDArray[Any], values: NDArray[np.floating], weights: NDArray[np.floating] | None = None
) -> Float64:
    """Average over users with each row of draws (n, n_users), then over the splits that have users left."""
    n_users, n_splits, n_figures = values.shape
    flat = values.reshape(n_users, -1).astype(draws.dtype)
    known = np.isfinite(flat)
    counted = known.astype(draws.dtype)
    if weights is not None:
        counted *= weights.reshape(n_users, -1).astype(draws.dtype)
    shape = (-1, n_splits, n_figures)
    total: Float64 = (draws @ (np.where(known, flat, 0) * counted)).astype(np.float64).reshape(shape)
    weight: Float64 = (draws @ counted).astype(np.float64).reshape(shape)
    mean = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    n_known = np.sum(weight > 0, axis=1)
    unknown = np.full(n_known.shape, np.nan)
    over_splits: Float64 = np.divide(np.sum(mean, axis=1), n_known, out=unknown, where=n_known > 0)
    return over_splits


def _top(hits: Hits, k: int) -> NDArray[np.bool_]:
    if not 0 < k <= hits.found.shape[1]:
        raise DataError(f"lists are {hits.found.shape[1]} long, expected k = {k} or more; rank more items")
    return hits.found[:, :k]


def _per_user(value: NDArray[Any], most: NDArray[Any]) -> Float64:
    """Divide by the most that could be had, NaN where that is nothing."""
    share: Float64 = np.divide(value, most, out=np.full(len(value), np.nan), where=most > 0)
    return share
