"""The content prior: the item step against its formula written out and its limits."""

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from helpers.made import made_plays
from recsys.cf.als import ALSSettings, confidence
from recsys.hybrid.prior import PriorSettings, exposed_gram, exposure_weight, prior_item_step
from recsys.types import Float32, Plays

ALS = ALSSettings(n_factors=3, l2=0.8, confidence_scale=2.0)
PRIOR = PriorSettings(strength=0.4, exposure=5.0)
N_USERS, N_ITEMS = 150, 13
LISTENERS = [0, 1, 2, 3, 7, 7, 20, 31, 32, 0, 33, 90, 140]


def step_inputs() -> tuple[Plays, Float32, Float32]:
    """Plays in which item i has ``LISTENERS[i]`` listeners, user factors (150, 3) and a prior (13, 3)."""
    rng = np.random.default_rng(5)
    counts = np.zeros((N_USERS, N_ITEMS))
    for item, n in enumerate(LISTENERS):
        counts[rng.choice(N_USERS, n, replace=False), item] = rng.integers(1, 9, n)
    users = rng.normal(size=(N_USERS, 3)).astype(np.float32)
    return made_plays(counts), users, rng.normal(size=(N_ITEMS, 3)).astype(np.float32)


def by_the_formula(plays: Plays, users: Float32, prior: Float32) -> np.ndarray:
    """argmin of w_i (sum_u c_ui (p_ui - u.v)^2 + l2 |v|^2) + lambda |v - f_i|^2, item by item in float64."""
    strength = PRIOR.strength * np.trace(users.T @ users) / 3
    solved = []
    for f, counts in zip(prior.astype(np.float64), plays.counts.toarray().T, strict=True):
        n = (counts > 0).sum()
        w = n / (n + PRIOR.exposure)
        c = 1 + 2.0 * np.log1p(counts)
        left = w * (users.T @ np.diag(c) @ users + ALS.l2 * np.eye(3)) + strength * np.eye(3)
        solved.append(np.linalg.solve(left, w * users.T @ (c * (counts > 0)) + strength * f))
    return np.array(solved)


def test_the_item_step_is_the_minimum_of_its_formula() -> None:
    plays, users, prior = step_inputs()
    expected = by_the_formula(plays, users, prior)
    found = prior_item_step(plays, users, prior, ALS, PRIOR)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_an_item_without_plays_is_the_prior_to_the_bit() -> None:
    plays, users, prior = step_inputs()
    before = prior.copy()
    found = prior_item_step(plays, users, prior, ALS, PRIOR)
    assert np.array_equal(found[[0, 9]], prior[[0, 9]])
    assert np.array_equal(prior, before)
    assert not np.array_equal(found[1], prior[1])


def test_without_strength_the_step_is_implicits_own() -> None:
    plays, users, prior = step_inputs()
    found = prior_item_step(plays, users, prior, ALS, PRIOR.model_copy(update={"strength": 1e-9}))
    with threadpool_limits(1, "blas"):  # it warns otherwise
        model = AlternatingLeastSquares(factors=3, regularization=ALS.l2, alpha=1.0)
    model.user_factors = users
    by_item = csr_matrix(confidence(plays.counts, 2.0).T.tocsr())
    played = np.flatnonzero(LISTENERS)
    np.testing.assert_allclose(found[played], model.recalculate_item(played, by_item[played]), atol=1e-4)


def test_the_more_listeners_the_less_the_prior_counts() -> None:
    plays, users, prior = step_inputs()
    pulled = prior_item_step(plays, users, prior + 1, ALS, PRIOR) - prior_item_step(plays, users, prior, ALS, PRIOR)
    moved = np.linalg.norm(pulled, axis=1)
    assert moved[0] == pytest.approx(np.sqrt(3), abs=1e-5)
    assert (np.diff(moved[[0, 1, 2, 3, 6, 8, 11, 12]]) < 0).all()


def test_items_of_many_listeners_may_keep_the_factors_of_als() -> None:
    plays, users, prior = step_inputs()
    als = np.random.default_rng(7).normal(size=prior.shape).astype(np.float32)
    every = prior_item_step(plays, users, prior, ALS, PRIOR, als)
    limited = PRIOR.model_copy(update={"at_most_listeners": 32})
    found = prior_item_step(plays, users, prior, ALS, limited, als)
    many = np.array(LISTENERS) > 32
    assert np.array_equal(found[many], als[many])
    assert np.allclose(found[~many], every[~many], atol=1e-6)  # solved among fewer, which may round otherwise
    assert not np.isclose(every[many], als[many]).any(axis=1).all()
    assert np.array_equal(prior_item_step(plays, users, prior, ALS, limited), every), "without them all are solved"


def test_exposure_and_the_gram_it_weighs() -> None:
    n_listeners = np.array([0, 5, 15], np.int32)
    assert exposure_weight(n_listeners, 5.0).tolist() == [0, 0.5, 0.75]
    items = np.array([[9, 9], [1, 2], [3, -1]], np.float32)
    expected = 0.5 * np.outer([1, 2], [1, 2]) + 0.75 * np.outer([3, -1], [3, -1])
    np.testing.assert_allclose(exposed_gram(items, n_listeners, PRIOR), expected, rtol=1e-6)
