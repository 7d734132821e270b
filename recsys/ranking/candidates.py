"""Lists out of a large catalogue: users who are alike share a pool of tracks, and only the pool is scored for each.

    Model  ->  user_blocks  ->  blocks of users, and the item rows that ``Recommender.rank`` chooses their lists from

The usual way, an inverted file, suits inner products badly: in ALS factors length follows popularity, so that the best
of a user lie in many cells (measured: docs/research/findings.md). Here a user u of a group whose unit queries have the
mean c scores a track v by |u| (c.v + r.v), r being how far the user's unit query lies from c. Over the group r.v is
about normal with the deviation s |v|, so a track belongs into the pool if c.v + MARGIN s |v| is high. Scores and what
was heard are then exact; only a track outside the pool can be missed.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recsys.ranking.model import Model
from recsys.types import Float32, Int32
from recsys.util.settings import Settings
from recsys.util.topk import unit_rows

MARGIN = 3.0  # deviations
TRAINING_ROUNDS = 10  # of k-means, on so many users a group
TRAINING_USERS = 64
BLOCK = 2048  # users at a time


class PoolSettings(Settings):
    """``[pools]`` in the run's TOML file: how the stored lists of users are found."""

    exact_below: int = Field(default=200_000, ge=0)  # tracks; every one of fewer is scored for every user
    pool: int = Field(default=50_000, ge=1000)  # tracks that are scored for a user of a larger catalogue
    users_together: int = Field(default=512, ge=1)  # users of a group, on average


def user_blocks(model: Model, settings: PoolSettings) -> Iterator[tuple[Int32, Int32 | None]]:
    """Blocks of user rows with the item rows that their lists are chosen from; None is all of them.

    Every user is in one block. Item rows are as ``Recommender.rank`` takes them.
    """
    n_users, n_items = len(model.users), len(model.items)
    if n_items < settings.exact_below:
        for start in range(0, n_users, BLOCK):
            yield np.arange(start, min(start + BLOCK, n_users), dtype=np.int32), None
        return

    def queries_of(users: Int32) -> Float32:
        return model.blend.queries(np.asarray(model.user_vectors[users]), model.has_plays[users])

    lengths = np.sqrt(np.einsum("nd,nd->n", model.item_vectors, model.item_vectors))
    n_left_out = np.diff(model.counts.indptr) + np.diff(model.barred.indptr)
    for group in cluster_users(queries_of, n_users, settings):
        size = settings.pool + int(n_left_out[group].max())
        pool = pool_of(queries_of(group), model.item_vectors, lengths, size)
        for start in range(0, len(group), BLOCK):
            yield group[start : start + BLOCK], pool


def cluster_users(queries_of: Callable[[Int32], Float32], n_users: int, settings: PoolSettings) -> list[Int32]:
    """Group users whose queries point the same way, by k-means; faiss does it.

    Args:
        queries_of: gives the queries (m, d) of some users, by their rows.
        n_users: how many there are.
        settings: size of the groups.

    Returns:
        User rows of each group, rising; every user is in one.
    """
    import faiss

    if not n_users:
        return []
    n_groups = -(-n_users // settings.users_together)
    rng = np.random.default_rng(0)
    drawn = np.sort(rng.permutation(n_users)[: TRAINING_USERS * n_groups]).astype(np.int32)
    training = unit_rows(queries_of(drawn))
    means: Any = faiss.Kmeans(
        training.shape[1], n_groups, niter=TRAINING_ROUNDS, spherical=True, seed=1,
        min_points_per_centroid=1, max_points_per_centroid=TRAINING_USERS,
    )  # fmt: skip
    means.train(training)
    group_of = np.empty(n_users, dtype=np.int64)
    for start in range(0, n_users, BLOCK):
        users = np.arange(start, min(start + BLOCK, n_users), dtype=np.int32)
        group_of[users] = means.index.search(unit_rows(queries_of(users)), 1)[1][:, 0]
    order = np.argsort(group_of, kind="stable").astype(np.int32)
    bounds = np.searchsorted(group_of[order], np.arange(n_groups + 1))
    return [order[start:stop] for start, stop in pairwise(bounds) if stop > start]


def pool_of(queries: Float32, item_vectors: Float32, lengths: Float32, size: int) -> Int32:
    """Choose the tracks that the best ones of every user of a group are among.

    Args:
        queries: (m, d) of the group.
        item_vectors: (n_items, d).
        lengths: (n_items,) of the item vectors.
        size: of the pool; what the group's users have heard counts, so add the most that one of them has.

    Returns:
        Item rows, rising; all of them where ``size`` is as large.
    """
    n_items, d = item_vectors.shape
    if size >= n_items:
        return np.arange(n_items, dtype=np.int32)
    unit = unit_rows(queries)
    centre = unit.mean(axis=0)
    deviation = np.sqrt(((unit - centre) ** 2).sum(axis=1).mean() / d)
    promise = item_vectors @ centre + MARGIN * deviation * lengths
    pool: NDArray[np.int64] = np.argpartition(promise, n_items - size)[n_items - size :]
    return np.sort(pool).astype(np.int32)
