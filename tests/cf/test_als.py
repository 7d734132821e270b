"""ALS: the exact solver against plain algebra, and planted tastes recovered."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from helpers.made import made_plays
from recsys.cf import als
from recsys.cf.als import ALSSettings, confidence, confidence_scale, fit_als, solve_rows
from recsys.errors import DataError
from recsys.types import Plays

SETTINGS = ALSSettings(n_factors=3, epochs=8, l2=0.5, confidence_scale=3.0)
SILENT_USER, SILENT_ITEM = 4, 10


def block_plays() -> Plays:
    """17 users and 31 items in 3 blocks; a user plays 7 of the block's items. User 4 and item 10 have no plays."""
    rng = np.random.default_rng(3)
    counts = np.zeros((17, 31))
    for user in range(17):
        own = [item for item in range(31) if item % 3 == user % 3 and item != SILENT_ITEM]
        counts[user, rng.choice(own, 7, replace=False)] = rng.integers(1, 6, 7)
    counts[SILENT_USER] = 0
    return made_plays(counts)


def test_confidence_is_that_of_the_formula_and_leaves_unplayed_pairs_unstored() -> None:
    counts = csr_matrix(np.array([[0, 3, 0], [1, 0, 0]], dtype=np.float32))
    found = confidence(counts, 2.0)
    assert found.nnz == 2
    np.testing.assert_allclose(found.toarray(), [[0, 1 + 2 * np.log(4), 0], [1 + 2 * np.log(2), 0, 0]], rtol=1e-6)
    assert counts.toarray().tolist() == [[0, 3, 0], [1, 0, 0]]


def test_the_scale_is_given_or_such_that_a_played_pair_has_a_set_confidence_on_the_mean() -> None:
    counts = csr_matrix(np.array([[0, 3, 0], [1, 0, 90]], dtype=np.float32))
    assert confidence_scale(counts, ALSSettings(confidence_scale=2.5)) == 2.5
    assert confidence_scale(csr_matrix((2, 3), dtype=np.float32), ALSSettings()) == 1.0
    assert confidence(counts, confidence_scale(counts, ALSSettings())).data.mean() == pytest.approx(
        1 + ALSSettings().mean_confidence
    )


def test_solved_rows_satisfy_the_normal_equations() -> None:
    rng = np.random.default_rng(0)
    fixed = rng.normal(size=(9, 4)).astype(np.float32)
    half = rng.normal(size=(4, 4))
    gram = (half @ half.T).astype(np.float32)  # of anything, not of ``fixed``
    dense = np.where(rng.random((5, 9)) < 0.4, 1 + 5 * rng.random((5, 9)), 0).astype(np.float32)
    dense[3] = 0
    found = solve_rows(csr_matrix(dense), fixed, gram, l2=0.7)
    for c, row in zip(dense.astype(np.float64), found, strict=True):
        stored = c > 0
        left = gram + fixed[stored].T @ np.diag(c[stored] - 1) @ fixed[stored] + 0.7 * np.eye(4)
        np.testing.assert_allclose(row, np.linalg.solve(left, fixed[stored].T @ c[stored]), atol=1e-4)
    assert not found[3].any()
    assert found.dtype == np.float32


def test_planted_tastes_are_recovered() -> None:
    plays = block_plays()
    factors = fit_als(plays, SETTINGS)
    assert factors.user_factors.shape == (17, 3)
    assert factors.item_factors.shape == (31, 3)
    scores = factors.user_factors @ factors.item_factors.T
    heard = plays.counts.toarray() > 0
    for user in set(range(17)) - {SILENT_USER}:
        own = (np.arange(31) % 3 == user % 3) & (np.arange(31) != SILENT_ITEM)
        assert scores[user, own & ~heard[user]].min() > scores[user, ~own].max()


@pytest.mark.parametrize("stack", [1, 300, 10**6])
def test_rows_have_pulls_of_their_own_however_they_are_stacked(stack: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(als, "STACK", stack)
    rng = np.random.default_rng(1)
    n_rows, n_fixed, f = 23, 40, 4
    fixed = rng.normal(size=(n_fixed, f)).astype(np.float32)
    gram = fixed.T @ fixed
    c = np.where(rng.random((n_rows, n_fixed)) < rng.random((n_rows, 1)), rng.uniform(0.2, 9, (n_rows, n_fixed)), 0)
    c[[5, 9]] = 0
    l2 = rng.uniform(0.5, 3, n_rows).astype(np.float32)
    towards = rng.normal(size=(n_rows, f)).astype(np.float32)
    found = solve_rows(csr_matrix(c.astype(np.float32)), fixed, gram, l2, towards)
    for row in range(n_rows):
        stored = c[row] > 0
        extra = np.where(stored, c[row] - 1, 0)  # a pair that is not stored counts once, and gram has all of them
        left = gram + fixed.T @ np.diag(extra) @ fixed + l2[row] * np.eye(f)
        expected = np.linalg.solve(left, fixed.T @ c[row] + l2[row] * towards[row])
        np.testing.assert_allclose(found[row], expected, atol=1e-4)


def test_training_ends_near_the_solution_of_its_cost() -> None:
    plays = block_plays()
    factors = fit_als(plays, SETTINGS.model_copy(update={"epochs": 60}))
    users, items = factors.user_factors, factors.item_factors
    by_item = csr_matrix(confidence(plays.counts, 3.0).T.tocsr())
    np.testing.assert_allclose(items, solve_rows(by_item, users, users.T @ users, 0.5), atol=2e-3)


def test_a_user_and_an_item_without_plays_are_zero_and_take_no_part() -> None:
    plays = block_plays()
    factors = fit_als(plays, SETTINGS)
    assert not factors.user_factors[SILENT_USER].any()
    assert not factors.item_factors[SILENT_ITEM].any()
    others = np.delete(np.arange(17), SILENT_USER)
    without = fit_als(made_plays(plays.counts.toarray()[others]), SETTINGS)
    assert np.array_equal(without.user_factors, factors.user_factors[others])
    assert np.array_equal(without.item_factors, factors.item_factors)


def test_the_seed_decides_every_bit() -> None:
    first, again, other = (fit_als(block_plays(), SETTINGS, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.user_factors, again.user_factors)
    assert np.array_equal(first.item_factors, again.item_factors)
    assert not np.array_equal(first.item_factors, other.item_factors)


def test_no_plays_are_refused() -> None:
    with pytest.raises(DataError, match="0 plays"):
        fit_als(made_plays(np.zeros((3, 5))), SETTINGS)
