"""The content prior: the item step against its formula written out, its limits, and what the prediction learns."""

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from made import made_plays
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from recsys.cf.als import ALSSettings, confidence
from recsys.hybrid.prior import (
    Features,
    Prediction,
    PriorSettings,
    exposed_gram,
    exposure_weight,
    fit_prediction,
    prior_item_step,
)
from recsys.types import Float32, Int32, Plays

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
    assert np.array_equal(found[~many], every[~many])
    assert not np.isclose(every[many], als[many]).any(axis=1).all()
    assert np.array_equal(prior_item_step(plays, users, prior, ALS, limited), every), "without them all are solved"


def test_exposure_and_the_gram_it_weighs() -> None:
    n_listeners = np.array([0, 5, 15], np.int32)
    assert exposure_weight(n_listeners, 5.0).tolist() == [0, 0.5, 0.75]
    items = np.array([[9, 9], [1, 2], [3, -1]], np.float32)
    expected = 0.5 * np.outer([1, 2], [1, 2]) + 0.75 * np.outer([3, -1], [3, -1])
    np.testing.assert_allclose(exposed_gram(items, n_listeners, PRIOR), expected, rtol=1e-6)


# ---- the prediction ----------------------------------------------------------------------------------------------


def made_features(n: int, seed: int = 0) -> Features:
    """Features of n tracks: 2 dense, 4 sparse columns; artists 0, 1, 2 and unknown in turn."""
    rng = np.random.default_rng(seed)
    sparse = csr_matrix((rng.random((n, 4)) < 0.4).astype(np.float32))
    return Features(rng.normal(size=(n, 2)).astype(np.float32), sparse, np.arange(n) % 4 - 1)


def planted(features: Features, offsets: np.ndarray | None = None) -> Float32:
    """Item factors (n, 3) that are linear in the features, about a mean; plus an artist's own offset."""
    rng = np.random.default_rng(9)
    dense, sparse = rng.normal(size=(2, 3)), rng.normal(size=(4, 3))
    linear = features.dense @ dense + features.sparse @ sparse + np.array([2.0, -1.0, 0.5])
    known = features.artist >= 0
    own = 0 if offsets is None else np.where(known[:, None], offsets[np.maximum(features.artist, 0)], 0)
    return np.asarray(linear + own, dtype=np.float32)


def listened(n: int, value: int = 30) -> Int32:
    return np.full(n, value, np.int32)


EXACT = PriorSettings(ridge_l2=(1e-3,), exposure=5.0)


def test_a_linear_truth_is_learned_from_the_tracks_that_have_plays() -> None:
    features = made_features(60)
    truth, n_listeners = planted(features), listened(60)
    n_listeners[::7] = 0
    told = truth.copy()
    told[::7] = 1e6  # nobody has played these: whatever stands here is no teacher
    predict = fit_prediction(features, told, n_listeners, 3, EXACT, seed=0)
    np.testing.assert_allclose(predict(features), truth, atol=0.02)
    others = made_features(11, seed=4)
    np.testing.assert_allclose(predict(others), planted(others), atol=0.02)


def test_tracks_count_by_their_listeners() -> None:
    features = made_features(80)
    features.artist[:] = -1
    truth = planted(features)
    told, n_listeners = truth.copy(), listened(80, 1000)
    told[::2] += 3.0
    n_listeners[::2] = 1
    few = fit_prediction(features, told, n_listeners, 3, EXACT, seed=0)
    even = fit_prediction(features, told, listened(80), 3, EXACT, seed=0)
    assert np.abs(few(features) - truth).mean() < 0.6  # 40 tracks of weight 1/6 against 40 of weight 1
    assert np.abs(even(features) - truth).mean() > 1.2


def test_the_ridge_is_chosen_on_held_out_tracks() -> None:
    rng = np.random.default_rng(2)
    features = Features(rng.normal(size=(60, 20)).astype(np.float32), made_features(60).sparse, np.full(60, -1))
    clean, noise = planted(made_features(60)), rng.normal(size=(60, 3)).astype(np.float32)
    clean = np.asarray(features.dense[:, :3] * 2, np.float32)
    for factors, best in ((clean, 1e-3), (noise, 1e4)):
        chosen, expected = (
            fit_prediction(features, factors, listened(60), 0, PriorSettings(ridge_l2=tried), seed=0)
            for tried in ((1e-3, 1e4), (best,))
        )
        assert np.array_equal(chosen.weights, expected.weights)


def test_an_artists_offset_is_learned_and_shrunk() -> None:
    features = made_features(400)
    truth = planted(features, np.array([[1.0, 0, 0], [0, -2.0, 0], [0, 0, 0.5]]))
    known = features.artist >= 0

    def error(shrinkage: float) -> float:
        settings = PriorSettings(ridge_l2=(1e-3,), exposure=5.0, artist_shrinkage=shrinkage)
        predict = fit_prediction(features, truth, listened(400), 3, settings, seed=0)
        return float(np.abs(predict(features) - truth)[known].mean())

    n_tracks, w = 100, 30 / 35
    assert error(1.0) < 0.2 * error(1e6)
    assert error(w * n_tracks) == pytest.approx(error(1e6) / 2, rel=0.1)  # as many tracks fewer: half of the offset


def test_leave_one_out_takes_the_offset_from_the_artists_other_tracks() -> None:
    features = made_features(23)
    features.artist[5] = 3  # the only track of its artist
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(23, 3)).astype(np.float32)
    n_listeners = rng.integers(1, 40, 23).astype(np.int32)
    settings = PriorSettings(ridge_l2=(1.0,), artist_shrinkage=0.7)
    predict = fit_prediction(features, factors, n_listeners, 4, settings, seed=0)
    w = exposure_weight(n_listeners, settings.exposure)
    no_artists = Prediction(predict.weights, np.zeros((0, 3), np.float32), np.zeros(0, np.float32), 0.7)
    linear = no_artists(features)
    found = predict.leave_one_out(features, factors, w)
    for track, artist in enumerate(features.artist):
        others = (features.artist == artist) & (np.arange(23) != track)
        offset = (w[others, None] * (factors - linear)[others]).sum(axis=0) / (w[others].sum() + 0.7)
        expected = linear[track] + (offset if artist >= 0 else 0)
        np.testing.assert_allclose(found[track], expected, atol=1e-4)
    np.testing.assert_allclose(found[5], linear[5], atol=1e-5)


def test_a_catalogue_without_artists_or_features_still_has_a_mean() -> None:
    n = 40
    features = Features(np.zeros((n, 0), np.float32), csr_matrix((n, 0), dtype=np.float32), np.full(n, -1))
    factors = np.random.default_rng(0).normal(3, 1, (n, 2)).astype(np.float32)
    predict = fit_prediction(features, factors, listened(n), 0, PriorSettings(), seed=0)
    np.testing.assert_allclose(predict(features), np.tile(factors.mean(axis=0), (n, 1)), atol=1e-4)
    np.testing.assert_allclose(
        predict.leave_one_out(features, factors, np.ones(n, np.float32)), predict(features), atol=1e-6
    )


def test_one_played_track_is_enough() -> None:
    features = made_features(5)
    n_listeners = np.array([0, 0, 4, 0, 0], np.int32)
    factors = np.zeros((5, 3), np.float32)
    factors[2] = 1
    assert np.isfinite(fit_prediction(features, factors, n_listeners, 3, PriorSettings(), seed=0)(features)).all()
