"""Pools of tracks for users who are alike: nobody is left out, and what is best for a user is in their pool."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from benchmarks.listens import made_listens, model_of
from recsys.cf.als import ALSSettings, fit_als
from recsys.ranking import candidates
from recsys.ranking.candidates import PoolSettings, cluster_users, pool_of, user_blocks
from recsys.types import Factors, Float32, Int32
from recsys.util.topk import top_k, unit_rows

DIRECTIONS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)


def users_of_three_kinds(n: int, seed: int = 0) -> Float32:
    """User n is of kind n % 3, of any length."""
    rng = np.random.default_rng(seed)
    near = DIRECTIONS[np.arange(n) % 3] + 0.05 * rng.normal(size=(n, 3))
    return np.asarray(near * rng.uniform(0.01, 100, (n, 1)), dtype=np.float32)


def test_users_of_a_group_point_the_same_way_and_everybody_is_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    queries = users_of_three_kinds(50)
    monkeypatch.setattr(candidates, "BLOCK", 7)
    groups = cluster_users(lambda users: queries[users], 50, PoolSettings(users_together=17))
    assert sorted(sorted({int(user) % 3 for user in group}) for group in groups) == [[0], [1], [2]]
    assert sorted(np.concatenate(groups).tolist()) == list(range(50))
    assert all(group.dtype == np.int32 and (np.diff(group) > 0).all() for group in groups)
    assert cluster_users(lambda users: queries[users], 0, PoolSettings()) == []


def test_users_without_a_direction_are_in_a_group_too() -> None:
    queries = np.zeros((5, 3), np.float32)
    queries[2] = 1
    groups = cluster_users(lambda users: queries[users], 5, PoolSettings(users_together=2))
    assert sorted(np.concatenate(groups).tolist()) == [0, 1, 2, 3, 4]


def lengths_of(items: Float32) -> Float32:
    return np.asarray(np.linalg.norm(items, axis=1), dtype=np.float32)


def test_a_pool_holds_what_the_centre_likes_and_is_in_order() -> None:
    items = np.array([[0, 9], [3, 0], [1, 0], [2, 0], [-9, 0]], np.float32)
    same = np.array([[5, 0], [1, 0]], np.float32)  # no spread: length off the centre's way is worth nothing
    pool = pool_of(same, items, lengths_of(items), 2)
    assert pool.tolist() == [1, 3]
    assert pool.dtype == np.int32
    assert pool_of(same, items, lengths_of(items), 5).tolist() == [0, 1, 2, 3, 4]
    assert pool_of(same, items, lengths_of(items), 99).tolist() == [0, 1, 2, 3, 4]


def test_a_pool_minds_how_far_its_users_are_apart() -> None:
    """The two stand left and right of their centre: long tracks to the side are the best for one of them."""
    users = np.array([[1, 0.8], [1, -0.8]], np.float32)
    items = np.array([[1, 0], [0, 2.5], [0.9, 0], [0, -2.5], [0.8, 0]], np.float32)
    assert (users @ items.T).argmax(axis=1).tolist() == [1, 3]
    assert pool_of(users, items, lengths_of(items), 2).tolist() == [1, 3]


def ranked(n_users: int, settings: PoolSettings, k: int) -> tuple[Int32, Int32, list[Int32 | None]]:
    """Lists by pools and by all tracks, and the pools, on listens with planted tastes."""
    counts = made_listens(n_users, 3000, 40 * n_users, seed=2).counts
    counts = csr_matrix(counts[np.diff(counts.indptr) > 0])
    n_users = counts.shape[0]
    rng = np.random.default_rng(0)
    tastes = rng.normal(size=(15, 6))
    users = tastes[rng.integers(0, 15, n_users)] + 0.3 * rng.normal(size=(n_users, 6))
    items = (tastes[np.arange(3000) % 15] + 0.3 * rng.normal(size=(3000, 6))) * rng.lognormal(0, 0.5, (3000, 1))
    model = model_of(counts, Factors(users.astype(np.float32), items.astype(np.float32)))
    queries = model.blend.queries(model.user_vectors, model.has_plays)
    found, pools = np.full((n_users, k), -9, np.int32), []
    for rows, pool in user_blocks(model, settings):
        found[rows] = top_k(queries[rows], model.item_vectors, k, (counts[rows],), pool).items
        pools.append(pool)
    return found, top_k(queries, model.item_vectors, k, (counts,)).items, pools


def test_lists_from_pools_are_those_from_all_tracks() -> None:
    found, exact, pools = ranked(300, PoolSettings(exact_below=1000, pool=1000, users_together=20), k=50)
    assert all(pool is not None and 1000 < len(pool) < 2000 for pool in pools)
    hits = [len(np.intersect1d(a, b)) for a, b in zip(found, exact, strict=True)]
    assert np.mean(hits) / 50 > 0.97


def test_a_small_catalogue_is_scored_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "BLOCK", 64)
    found, exact, pools = ranked(300, PoolSettings(exact_below=3001), k=9)
    assert pools == [None] * len(pools)
    assert len(pools) >= 4
    assert np.array_equal(found, exact)


def test_a_listener_who_heard_a_whole_pool_still_gets_a_full_list() -> None:
    heard = np.zeros((2, 3000), np.float32)
    heard[0, :2900], heard[1, 7] = 1, 1
    items = np.linspace(2, 1, 3000, dtype=np.float32)[:, None]
    model = model_of(csr_matrix(heard), Factors(np.ones((2, 1), np.float32), items))
    [(users, pool)] = user_blocks(model, PoolSettings(exact_below=0, pool=1000))
    assert pool is not None
    queries = model.blend.queries(model.user_vectors[users], model.has_plays[users])
    best = top_k(queries, model.item_vectors, 100, (model.counts[users],), pool)
    assert best.items[0].tolist() == list(range(2900, 3000))


@pytest.mark.slow
def test_lists_out_of_factors_of_listens_miss_next_to_nothing() -> None:
    """Of 40,000 tracks 4,000 are scored, in factors that ALS made of listens."""
    listening = made_listens(20_000, 40_000, 800_000)
    plays = listening.plays
    model = model_of(plays.counts, fit_als(plays, ALSSettings(epochs=5)))
    recalls = []
    for users, pool in user_blocks(model, PoolSettings(exact_below=0, pool=4000)):
        few = users[:10]
        queries, heard = model.blend.queries(model.user_vectors[few], model.has_plays[few]), (plays.counts[few],)
        found, exact = (top_k(queries, model.item_vectors, 200, heard, among).items for among in (pool, None))
        recalls += [len(np.intersect1d(a, b)) / 200 for a, b in zip(found, exact, strict=True)]
    assert len(recalls) > 300
    assert np.mean(recalls) >= 0.97
    assert unit_rows(model.user_vectors).std(axis=0).max() > 0.05, "the users differ"
