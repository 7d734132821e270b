"""Metrics against values worked by hand."""

from math import log2, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.metrics import average_precision_score, ndcg_score

from eval.metrics import accuracy
from eval.metrics.accuracy import (
    FORMULAS,
    USER_METRICS,
    bootstrap_ci,
    find_hits,
    hit_rate_at_k,
    map_at_k,
    mean_over_users,
    mrr_at_k,
    ndcg_at_k,
    recall_at_k,
)
from recsys.errors import DataError

N_ITEMS = 7
RANKED = np.array(
    [
        [3, 0, 5, 6],  # hits at 1 and 3 of three held out
        [1, 2, 4, -1],  # no hit of two; the last place is empty
        [6, 5, 4, 3],  # nothing held out
        [0, 1, 2, 6],  # a hit at 4 of one
    ],
    dtype=np.int32,
)
HELD_OUT = {0: [3, 5, 1], 1: [0, 6], 3: [6]}


def held_out_matrix(held_out: dict[int, list[int]], n_users: int, n_items: int) -> csr_matrix:
    pairs = [(user, item) for user, items in held_out.items() for item in items]
    rows, columns = zip(*pairs, strict=True) if pairs else ((), ())
    return csr_matrix((np.ones(len(pairs), dtype=bool), (rows, columns)), shape=(n_users, n_items))


HITS = find_hits(RANKED, held_out_matrix(HELD_OUT, 4, N_ITEMS))


def test_hits_are_found_row_by_row() -> None:
    expected = np.zeros((4, 4), dtype=bool)
    expected[0, [0, 2]] = expected[3, 3] = True
    assert (HITS.found == expected).all()
    assert HITS.n_held_out.tolist() == [3, 2, 0, 1]


@pytest.mark.parametrize(
    ("metric", "k", "expected"),
    [
        (recall_at_k, 1, [1 / 1, 0, nan, 0]),
        (recall_at_k, 2, [1 / 2, 0, nan, 0]),
        (recall_at_k, 4, [2 / 3, 0, nan, 1]),
        (hit_rate_at_k, 2, [1, 0, nan, 0]),
        (hit_rate_at_k, 4, [1, 0, nan, 1]),
        (mrr_at_k, 3, [1, 0, nan, 0]),
        (mrr_at_k, 4, [1, 0, nan, 1 / 4]),
        (map_at_k, 2, [(1 / 1) / 2, 0, nan, 0]),
        (map_at_k, 4, [(1 / 1 + 2 / 3) / 3, 0, nan, (1 / 4) / 1]),
        (ndcg_at_k, 2, [1 / (1 + 1 / log2(3)), 0, nan, 0]),
        (ndcg_at_k, 4, [(1 + 1 / 2) / (1 + 1 / log2(3) + 1 / 2), 0, nan, 1 / log2(5)]),
    ],
)
def test_metrics_are_as_worked_by_hand(metric, k: int, expected: list[float]) -> None:  # type: ignore[no-untyped-def]
    np.testing.assert_allclose(metric(HITS, k), expected, rtol=1e-12)


def test_ndcg_is_that_of_scikit_learn() -> None:
    """Both are defined alike where each item has a score of its own and the list is full."""
    rng = np.random.default_rng(11)
    scores = rng.random((40, 15))
    wanted = rng.random((40, 15)) < 0.3
    wanted[:, 0] = True
    ranked = np.argsort(-scores, axis=1).astype(np.int32)
    hits = find_hits(ranked, csr_matrix(wanted))
    for k in (1, 4, 15):
        for user in range(40):
            expected = ndcg_score(wanted[[user]], scores[[user]], k=k)
            assert ndcg_at_k(hits, k)[user] == pytest.approx(expected, rel=1e-12)


def test_map_of_the_whole_catalogue_is_average_precision() -> None:
    rng = np.random.default_rng(12)
    scores, wanted = rng.random((30, 9)), rng.random((30, 9)) < 0.4
    wanted[:, 2] = True
    hits = find_hits(np.argsort(-scores, axis=1).astype(np.int32), csr_matrix(wanted))
    expected = [average_precision_score(wanted[user], scores[user]) for user in range(30)]
    np.testing.assert_allclose(map_at_k(hits, 9), expected, rtol=1e-12)


def test_an_empty_place_is_no_hit_of_the_user_above() -> None:
    held_out = held_out_matrix({0: [N_ITEMS - 1], 1: [2]}, 2, N_ITEMS)
    hits = find_hits(np.array([[0, 1], [-1, -1]], dtype=np.int32), held_out)
    assert not hits.found.any()


def test_blocks_of_users_do_not_change_the_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "_BLOCK_USERS", 3)
    again = find_hits(RANKED, held_out_matrix(HELD_OUT, 4, N_ITEMS))
    assert (again.found == HITS.found).all()


def test_lists_that_are_no_lists_are_refused() -> None:
    matrix = held_out_matrix(HELD_OUT, 4, N_ITEMS)
    with pytest.raises(DataError, match=r"\(3, 4\), expected \(4, K\)"):
        find_hits(RANKED[:3], matrix)
    with pytest.raises(DataError, match="same item twice"):
        find_hits(np.where(RANKED == 2, 1, RANKED), matrix)
    with pytest.raises(DataError, match="4 long, expected k = 5"):
        recall_at_k(HITS, 5)


@st.composite
def lists_and_held_out(draw: st.DrawFn) -> tuple[np.ndarray, dict[int, list[int]], int]:
    n_users, n_items, k = draw(st.integers(1, 5)), draw(st.integers(4, 12)), draw(st.integers(1, 4))
    padded = st.permutations(range(n_items)).flatmap(
        lambda items: st.integers(0, k).map(lambda n: items[:n] + [-1] * (k - n))
    )
    ranked = np.array(draw(st.lists(padded, min_size=n_users, max_size=n_users)), dtype=np.int32)
    chosen = st.sets(st.integers(0, n_items - 1), max_size=6).map(sorted)
    held_out = {user: draw(chosen) for user in range(n_users)}
    return ranked, held_out, n_items


@pytest.mark.slow
@given(lists_and_held_out())
@hypothesis_settings(max_examples=150, deadline=None)
def test_metrics_agree_with_their_formulas_in_plain_python(
    case: tuple[np.ndarray, dict[int, list[int]], int],
) -> None:
    ranked, held_out, n_items = case
    n_users, k = ranked.shape
    hits = find_hits(ranked, held_out_matrix(held_out, n_users, n_items))
    for user in range(n_users):
        wanted = set(held_out[user])
        ranks = [rank for rank, item in enumerate(ranked[user].tolist(), start=1) if item in wanted]
        most = min(k, len(wanted))
        expected = {
            "recall": len(ranks) / most if most else nan,
            "hit_rate": float(bool(ranks)) if most else nan,
            "mrr": (1 / ranks[0] if ranks else 0) if most else nan,
            "map": sum((i + 1) / rank for i, rank in enumerate(ranks)) / most if most else nan,
            "ndcg": sum(1 / log2(r + 1) for r in ranks) / sum(1 / log2(r + 2) for r in range(most)) if most else nan,
        }
        for name, metric in USER_METRICS.items():
            value = metric(hits, k)[user]
            np.testing.assert_allclose(value, expected[name], rtol=1e-12)
            assert np.isnan(value) or 0 <= value <= 1 + 1e-12


def test_every_metric_has_its_formula() -> None:
    assert set(FORMULAS) == set(USER_METRICS)


def test_the_mean_is_over_users_then_over_splits() -> None:
    one = [[0.2], [nan], [0.4]]
    two = [[1.0], [0.5], [nan]]
    values = np.stack([one, two], axis=1)
    np.testing.assert_allclose(mean_over_users(values), [(0.3 + 0.75) / 2])
    assert np.isnan(mean_over_users(np.full((2, 1, 1), nan))).all()


def test_the_interval_is_that_of_the_normal_law_for_many_users() -> None:
    rng = np.random.default_rng(5)
    values = np.stack([rng.random(900) < 0.3, rng.random(900)], axis=1)[:, None, :].astype(np.float64)
    low, high = bootstrap_ci(values, n_resamples=2000, seed=1)
    mean, error = values[:, 0].mean(axis=0), values[:, 0].std(axis=0) / 30
    np.testing.assert_allclose((low - mean) / error, -1.96, atol=0.15)
    np.testing.assert_allclose((high - mean) / error, 1.96, atol=0.15)


def test_a_user_is_drawn_with_all_of_their_splits() -> None:
    """The same values in three splits say no more than in one."""
    values = np.random.default_rng(2).random((40, 1, 1))
    once = bootstrap_ci(values, seed=3)
    thrice = bootstrap_ci(np.repeat(values, 3, axis=1), seed=3)
    np.testing.assert_allclose(once, thrice, rtol=1e-5)


def test_the_interval_repeats_by_seed_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).random((30, 2, 3))
    whole = bootstrap_ci(values, n_resamples=200, seed=3)
    assert not np.allclose(whole, bootstrap_ci(values, n_resamples=200, seed=4), rtol=1e-4)
    monkeypatch.setattr(accuracy, "_BLOCK_DRAWS", 30 * 7)
    np.testing.assert_allclose(whole, bootstrap_ci(values, n_resamples=200, seed=3), rtol=1e-5)


def test_one_user_of_one_split_gets_an_interval_of_no_width() -> None:
    values = np.array([[[0.25], [nan]]])
    assert np.array(bootstrap_ci(values)).ravel().tolist() == [0.25, 0.25]
