"""Ranking: equal to a full sort, whatever the blocks, the candidates and the ties."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys.types import NO_ITEM, Candidates, Float32, Int32
from recsys.util import topk
from recsys.util.topk import top_k


def by_full_sort(scores: Float32, k: int, left_out: np.ndarray, candidates: Int32 | None) -> Candidates:
    n_users, n_items = scores.shape
    items = np.full((n_users, k), NO_ITEM, np.int32)
    best = np.full((n_users, k), -np.inf, np.float32)
    allowed = range(n_items) if candidates is None else set(candidates.tolist())
    for user in range(n_users):
        open_items = [item for item in range(n_items) if item in allowed and not left_out[user, item]]
        ranked = sorted(open_items, key=lambda item: (-scores[user, item], item))[:k]
        items[user, : len(ranked)], best[user, : len(ranked)] = ranked, scores[user, ranked]
    return Candidates(items, best)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_best_k_are_those_of_a_full_sort(data: st.DataObject) -> None:
    n_users, n_items, d, k, block = (
        data.draw(st.integers(*limits)) for limits in ((0, 5), (0, 9), (1, 3), (1, 12), (1, 40))
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    queries = rng.integers(-2, 3, (n_users, d)).astype(np.float32)  # small whole numbers: many ties, no rounding
    vectors = rng.integers(-2, 3, (n_items, d)).astype(np.float32)
    heard, barred = (rng.random((2, n_users, n_items)) < data.draw(st.sampled_from([0.0, 0.3, 1.0]))).astype(np.float32)
    some = data.draw(st.booleans())
    candidates = rng.permutation(n_items)[: data.draw(st.integers(0, n_items))].astype(np.int32) if some else None
    with patch.object(topk, "BLOCK_SCORES", block):
        found = top_k(queries, vectors, k, (csr_matrix(heard), csr_matrix(barred)), candidates)
    expected = by_full_sort(queries @ vectors.T, k, (heard + barred) > 0, candidates)
    assert found.items.tolist() == expected.items.tolist()
    assert found.scores.tolist() == expected.scores.tolist()


def twins(n: int = 61, d: int = 33) -> tuple[Float32, Float32]:
    """Float vectors in which every fourth item is the same: BLAS gives such equals unequal scores."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(n, d)).astype(np.float32)
    vectors[::4] = vectors[0]
    return rng.normal(size=(37, d)).astype(np.float32), vectors


@pytest.mark.parametrize("k", [1, 5, 20, 61])
def test_a_list_does_not_depend_on_how_users_and_items_were_grouped(k: int) -> None:
    queries, vectors = twins()
    together = top_k(queries, vectors, k)
    for block in (1, 61 * 5, 61 * 8):
        with patch.object(topk, "BLOCK_SCORES", block):
            in_blocks = top_k(queries, vectors, k)
        assert np.array_equal(in_blocks.items, together.items)
        assert np.array_equal(in_blocks.scores, together.scores)
    for row in range(len(queries)):
        alone = top_k(queries[[row]], vectors, k, candidates=np.arange(61, dtype=np.int32))
        assert np.array_equal(alone.items[0], together.items[row])
        assert np.array_equal(alone.scores[0], together.scores[row])


@pytest.mark.parametrize("k", [3, 20])
def test_equal_vectors_score_equal_and_stand_by_row(k: int) -> None:
    queries, vectors = twins()
    found = top_k(queries, vectors, k)
    for items, scores in zip(found.items, found.scores, strict=True):
        same = items % 4 == 0
        assert len(set(scores[same].tolist())) <= 1
        n_same = int(same.sum())
        assert items[same].tolist() == [4 * place for place in range(n_same)]  # the lowest rows of all equals
    assert 0 < (found.items % 4 == 0).sum() < found.items.size


def test_scores_are_inner_products() -> None:
    queries, vectors = twins()
    found = top_k(queries, vectors, 7)
    exact = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    np.testing.assert_allclose(found.scores, np.take_along_axis(exact, found.items.astype(int), axis=1), atol=1e-4)
    assert found.scores.dtype == np.float32
    assert found.items.dtype == np.int32


def test_left_out_pairs_outside_the_candidates_do_no_harm() -> None:
    left_out = csr_matrix(np.array([[1, 0, 1, 0, 1]], np.float32))
    vectors = np.array([[5], [4], [3], [2], [1]], np.float32)
    found = top_k(np.ones((1, 1), np.float32), vectors, 3, (left_out,), np.array([3, 2], np.int32))
    assert found.items.tolist() == [[3, NO_ITEM, NO_ITEM]]
    nothing = top_k(np.ones((1, 1), np.float32), vectors, 2, (left_out,), np.zeros(0, np.int32))
    assert nothing.items.tolist() == [[NO_ITEM, NO_ITEM]]
    assert np.isneginf(nothing.scores).all()


@pytest.mark.parametrize("crowd", [1, 90, 10**6])
@pytest.mark.parametrize("spread", [2, 400])
def test_long_rows_are_searched_by_groups_and_lose_nothing(crowd: int, spread: int) -> None:
    """Few different values: many equal the k-th; many: what is best may share a group of ``GROUP``."""
    rng = np.random.default_rng(spread)
    n_items, k = 16 * 2 * 5 + 7, 5
    queries = rng.integers(-3, 4, (9, 2)).astype(np.float32)
    queries[4] = 0  # all scores equal
    vectors = rng.integers(-spread, spread, (n_items, 2)).astype(np.float32)
    vectors[: 5 * (n_items // 16) : n_items // 16] = 1000  # one group holds the five best of some queries
    vectors[-3:] = -1000  # behind the last whole group, best of others
    heard = (rng.random((9, n_items)) < 0.2).astype(np.float32)
    heard[7, 3:] = 1
    with patch.object(topk, "CROWD", crowd), patch.object(topk, "BLOCK_SCORES", 4 * n_items):
        found = top_k(queries, vectors, k, (csr_matrix(heard),))
    expected = by_full_sort(queries @ vectors.T, k, heard > 0, None)
    assert found.items.tolist() == expected.items.tolist()
    assert found.scores.tolist() == expected.scores.tolist()


def test_a_score_of_zero_is_one_score_whatever_its_sign() -> None:
    rows, scores = np.zeros(4, np.int64), np.array([0.0, -0.0, -1e-9, 1e-9], np.float32)
    items, found_scores = topk.ranked(rows, np.array([8, 5, 1, 9], np.int32), scores, n=2, k=5)
    assert items.tolist() == [[9, 5, 8, 1, NO_ITEM], [NO_ITEM] * 5]
    assert found_scores.tolist() == [[scores[3], 0, 0, scores[2], -np.inf], [-np.inf] * 5]
    vectors = np.array([[0.0], [-0.0], [0.0], [1.0], [-1.0]], np.float32)
    found = top_k(np.array([[1.0], [-1.0]], np.float32), vectors, 5)
    assert found.items.tolist() == [[3, 0, 1, 2, 4], [4, 0, 1, 2, 3]]
    assert found.scores.tolist() == [[1, 0, 0, 0, -1], [1, 0, 0, 0, -1]]
