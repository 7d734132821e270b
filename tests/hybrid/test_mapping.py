"""The map from features to factors: against kernel ridge in numpy, leave-one-out against fits without the track."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys.hybrid import kernel as kernels
from recsys.hybrid import mapping
from recsys.hybrid.kernel import Features
from recsys.hybrid.mapping import FactorMap, MapSettings, fit_map
from recsys.types import Float32

N = 40


def made_features(n: int = N, seed: int = 0, artists: int = 4) -> Features:
    """Tracks of 6 labels and 2 dimensions of sound; artists 0, 1, … and unknown in turn, or none known."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 6)) < 0.4) * rng.uniform(0.5, 3, (n, 6))
    artist = np.arange(n) % (artists + 1) - 1
    return Features(csr_matrix(labels.astype(np.float32)), rng.normal(size=(n, 2)).astype(np.float32), artist)


def made_factors(n: int = N, seed: int = 1) -> dict[str, Float32]:
    rng = np.random.default_rng(seed)
    return {
        "als": rng.normal(2, 1, (n, 3)).astype(np.float32),
        "mapped": rng.normal(-1, 3, (n, 2)).astype(np.float32),
    }


def made_weights(n: int = N, unplayed: int = 7) -> Float32:
    """Weights in (0, 1), 0 for every so-many-th track."""
    weight = np.random.default_rng(2).uniform(0.2, 1, n).astype(np.float32)
    weight[::unplayed] = 0
    return weight


def joint(parts: dict[str, Float32]) -> Float32:
    return np.hstack([parts["als"], parts["mapped"]])


L2 = 0.5
ONE_L2 = MapSettings(ridge_l2=(L2,))


def fitted(settings: MapSettings = ONE_L2, artists: int = 0) -> tuple[FactorMap, Float32]:
    found, predicted = fit_map(
        made_features(artists=artists), made_factors(), made_weights(), artists, settings, seed=0
    )
    return found, joint(predicted)


def exact_ridge(likeness: np.ndarray, y: np.ndarray, weight: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Coefficients of argmin sum_i w_i |y_i - mean - f(x_i)|^2 + l2 |f|^2 over tracks of weight > 0, in float64."""
    return np.linalg.solve(likeness + L2 * np.diag(1 / weight), y - mean)


def in_float64(found: FactorMap) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Likeness among the played tracks, which all are landmarks; likeness of all to them; targets and weights."""
    weight = made_weights()
    played = np.flatnonzero(weight)
    to_played = found.kernel(made_features(artists=0)).astype(np.float64)
    assert to_played.shape[1] == len(played)
    return to_played[played], to_played, joint(made_factors())[played].astype(np.float64), weight[played]


def test_with_all_tracks_as_landmarks_it_is_the_exact_kernel_ridge() -> None:
    found, predicted = fitted()
    among, to_played, y, weight = in_float64(found)
    mean = weight @ y / weight.sum()
    expected = to_played @ exact_ridge(among, y, weight, mean) + mean
    np.testing.assert_allclose(joint(found(made_features(artists=0))), expected, atol=2e-3)
    np.testing.assert_allclose(predicted[::7], expected[::7], atol=2e-3)  # what nobody has played is no less predicted
    other = made_features(9, seed=5, artists=0)
    expected = found.kernel(other).astype(np.float64) @ exact_ridge(among, y, weight, mean) + mean
    np.testing.assert_allclose(joint(found(other)), expected, atol=2e-3)


def test_a_played_track_is_predicted_as_by_a_fit_without_it() -> None:
    """Held fixed are the mean, the kernel's scales, the landmarks and l2: these know of the track that is left out."""
    found, predicted = fitted()
    among, _, y, weight = in_float64(found)
    mean = weight @ y / weight.sum()
    for place, track in enumerate(np.flatnonzero(made_weights())):
        others = np.arange(len(y)) != place
        rest = exact_ridge(among[np.ix_(others, others)], y[others], weight[others], mean)
        np.testing.assert_allclose(predicted[track], among[place, others] @ rest + mean, atol=1e-3)


def test_with_few_landmarks_too_a_played_track_is_left_out_of_its_prediction() -> None:
    """Held fixed, besides: the five landmarks, though the track may be one, and what the jitter adds to the penalty."""
    found, predicted = fitted(MapSettings(ridge_l2=(L2,), n_landmarks=5))
    weight, y = made_weights().astype(np.float64), joint(made_factors()).astype(np.float64)
    likeness = found.kernel(made_features(artists=0)).astype(np.float64)
    among = found.kernel(found.kernel.landmarks).astype(np.float64)
    assert among.shape == (5, 5)
    mean = weight @ y / weight.sum()
    for track in (1, 2, 12, 39):
        w = np.where(np.arange(N) == track, 0, weight)
        left = likeness.T @ (w[:, None] * likeness) + L2 * (among + 1e-5 * np.trace(among) / 5 * np.eye(5))
        coefficients = np.linalg.solve(left, likeness.T @ (w[:, None] * (y - mean)))
        np.testing.assert_allclose(predicted[track], likeness[track] @ coefficients + mean, atol=1e-3)


def test_a_tracks_own_factors_do_not_move_its_prediction_but_those_of_others() -> None:
    """But for the mean, which is moved by a track of weight w by w / sum w."""
    factors, weight = made_factors(), made_weights()
    moved = {name: vectors.copy() for name, vectors in factors.items()}
    moved["als"][3] += 10
    of = made_features(artists=0)
    before, after = (fit_map(of, given, weight, 0, ONE_L2, seed=0)[1]["als"] for given in (factors, moved))
    change = np.abs(after - before).max(axis=1)
    assert change[3] < 10 * weight[3] / weight.sum() + 1e-3
    assert np.delete(change, 3).max() > 0.5


def test_what_nobody_has_played_teaches_nothing() -> None:
    factors, weight = made_factors(), made_weights()
    wild = {name: np.where(weight[:, None] > 0, vectors, 1e6).astype(np.float32) for name, vectors in factors.items()}
    of = made_features()
    (one, predicted), (other, same) = (fit_map(of, given, weight, 4, ONE_L2, seed=0) for given in (factors, wild))
    assert np.array_equal(one.coefficients, other.coefficients)
    assert np.array_equal(one.artist_sums, other.artist_sums)
    np.testing.assert_array_equal(joint(predicted), joint(same))


def test_tracks_count_by_their_weight() -> None:
    of, truth = made_features(80, artists=0), np.ones((80, 1), np.float32)
    told = truth.copy()
    told[::2] += 3
    light = np.where(np.arange(80) % 2, 1, 0.05).astype(np.float32)
    few, even = (
        fit_map(of, {"als": told}, weight, 0, MapSettings(), seed=0)[0](of)["als"]
        for weight in (light, np.ones(80, np.float32))
    )
    assert np.abs(few - truth).mean() < 0.5
    assert np.abs(even - truth).mean() > 1.2


# ---- l2 ----------------------------------------------------------------------------------------------------------


def linear(features: Features) -> Float32:
    return np.asarray(features.labels @ np.linspace(-1, 1, 12).reshape(6, 2), dtype=np.float32)


@pytest.mark.parametrize(("noisy", "best"), [(False, 0.01), (True, 100.0)])
def test_l2_is_that_of_the_least_error_in_leaving_one_out(noisy: bool, best: float) -> None:
    of = made_features(60, artists=0)
    noise = np.random.default_rng(3).normal(size=(60, 2)).astype(np.float32)
    y, weight = {"als": noise if noisy else linear(of)}, np.ones(60, np.float32)
    chosen, expected = (
        fit_map(of, y, weight, 0, MapSettings(ridge_l2=tried), seed=0)[0] for tried in ((0.01, 1.0, 100.0), (best,))
    )
    assert np.array_equal(chosen.coefficients, expected.coefficients)


def test_no_model_decides_on_l2_by_the_size_of_its_factors() -> None:
    of = made_features(60, artists=0)
    noise = np.random.default_rng(3).normal(size=(60, 1)).astype(np.float32)
    weight, tried = np.ones(60, np.float32), MapSettings(ridge_l2=(0.01, 100.0))
    for size in (1e-3, 1e3):  # two columns that l2 = 0.01 predicts well against one of noise
        y = {"als": linear(of) * 3, "mapped": noise * np.float32(size)}
        one, other = (fit_map(of, y, weight, 0, s, seed=0)[0] for s in (tried, MapSettings(ridge_l2=(0.01,))))
        assert np.array_equal(one.coefficients, other.coefficients)


# ---- artists -----------------------------------------------------------------------------------------------------


def test_an_artists_offset_is_learned_and_shrunken() -> None:
    of = made_features(400, artists=3)
    offsets = np.array([[1.0], [-2.0], [0.5]])
    known = of.artist >= 0
    y = np.where(known[:, None], offsets[of.artist], 0).astype(np.float32)
    weight = np.full(400, 0.5, np.float32)

    def reached(shrinkage: float) -> np.ndarray:
        settings = MapSettings(ridge_l2=(1e4,), artist_shrinkage=shrinkage)  # the ridge itself says next to nothing
        found = fit_map(of, {"als": y}, weight, 3, settings, seed=0)[0]
        new = Features(of.labels[:4], of.sound[:4], np.array([0, 1, 2, -1]))
        return found(new)["als"][:, 0] - y.mean()

    whole, half = reached(1e-3), reached(50.0)  # 100 tracks of weight 1/2 each
    np.testing.assert_allclose(whole[:3], offsets[:, 0] - y.mean(), atol=0.05)
    np.testing.assert_allclose(half[:3], (offsets[:, 0] - y.mean()) / 2, atol=0.05)
    assert abs(whole[3]) < 0.05


def test_a_played_track_takes_the_offset_of_its_artists_other_tracks() -> None:
    of, factors, weight = made_features(23, artists=3), made_factors(23), made_weights(23, unplayed=5)
    of.artist[6] = 3  # the only track of its artist
    settings = MapSettings(ridge_l2=(L2,), artist_shrinkage=0.7)
    found, with_artists = fit_map(of, factors, weight, 4, settings, seed=0)
    nameless = Features(of.labels, of.sound, np.full(23, -1))
    plain = joint(fit_map(nameless, factors, weight, 0, settings, seed=0)[1])
    residuals = weight[:, None] * (joint(factors) - plain)
    for track, artist in enumerate(of.artist):
        others = (of.artist == artist) & (np.arange(23) != track)
        offset = residuals[others].sum(axis=0) / (weight[others].sum() + 0.7) if artist >= 0 else 0
        np.testing.assert_allclose(joint(with_artists)[track], plain[track] + offset, atol=1e-4)
    np.testing.assert_allclose(found.artist_weights[3], weight[6])
    np.testing.assert_allclose(found.artist_sums[3], residuals[6], atol=1e-5)


# ---- the smallest, the largest -----------------------------------------------------------------------------------


def test_predictions_are_cut_by_part() -> None:
    found, predicted = fit_map(made_features(), made_factors(), made_weights(), 4, ONE_L2, seed=0)
    assert found.widths == {"als": 3, "mapped": 2}
    assert [(name, vectors.shape) for name, vectors in predicted.items()] == [("als", (N, 3)), ("mapped", (N, 2))]
    cut = found.parted(np.arange(10, dtype=np.float32).reshape(2, 5))
    assert {name: columns.tolist() for name, columns in cut.items()} == {
        "als": [[0, 1, 2], [5, 6, 7]],
        "mapped": [[3, 4], [8, 9]],
    }


def test_blocks_give_the_same_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = MapSettings(ridge_l2=(0.5, 5.0))
    whole, predicted = fitted(tried, artists=4)
    for module in (kernels, mapping):
        monkeypatch.setattr(module, "BLOCK", 7)
    found, same = fitted(tried, artists=4)
    np.testing.assert_allclose(same, predicted, atol=1e-3)
    np.testing.assert_allclose(joint(found(made_features())), joint(whole(made_features())), atol=1e-3)


def test_landmarks_are_kinds_of_tracks_and_no_more_than_asked_for() -> None:
    twice = made_features(20).take(np.arange(40) % 20)
    factors, weight = made_factors(40), np.ones(40, np.float32)
    assert len(fit_map(twice, factors, weight, 4, MapSettings(), seed=0)[0].kernel.landmarks) == 20
    few = MapSettings(n_landmarks=6)
    one, again, other = (fit_map(twice, factors, weight, 4, few, seed=seed)[0] for seed in (0, 0, 1))
    assert len(one.kernel.landmarks) == 6
    assert np.array_equal(one.coefficients, again.coefficients)
    assert not np.array_equal(one.kernel.landmarks.sound, other.kernel.landmarks.sound)
    assert one.coefficients.shape == (6, 5)


def test_of_too_many_tracks_some_are_fitted_on_and_the_others_still_give_offsets() -> None:
    of, factors, weight = made_features(), made_factors(), made_weights()
    few = MapSettings(max_tracks=12, ridge_l2=(L2,))
    found, predicted = fit_map(of, factors, weight, 4, few, seed=0)
    assert len(found.kernel.landmarks) == 12
    played = weight > 0
    expected = np.bincount(of.artist[played & (of.artist >= 0)], weight[played & (of.artist >= 0)])
    np.testing.assert_allclose(found.artist_weights, expected, rtol=1e-5)
    assert np.isfinite(joint(predicted)).all()


def test_the_much_heard_are_rather_drawn() -> None:
    weight = np.where(np.arange(200) < 20, 1, 1e-3).astype(np.float32)
    drawn = mapping._drawn(np.arange(200), 20, weight, np.random.default_rng(0))
    assert len(np.unique(drawn)) == 20
    assert (np.diff(drawn) > 0).all()
    assert (drawn < 20).sum() > 12
    assert mapping._drawn(np.array([3, 9]), 2, weight, np.random.default_rng(0)).tolist() == [3, 9]


def test_a_catalogue_without_features_or_artists_still_has_a_mean() -> None:
    of = Features(csr_matrix((N, 0), dtype=np.float32), np.zeros((N, 0), np.float32), np.full(N, -1))
    weight, factors = np.ones(N, np.float32), made_factors()
    found, predicted = fit_map(of, factors, weight, 0, MapSettings(), seed=0)
    mean = joint(factors).mean(axis=0)
    np.testing.assert_allclose(joint(found(of)), np.tile(mean, (N, 1)), atol=1e-3)
    assert np.abs(joint(predicted) - mean).max() < 0.5  # a little away from the track's own factors


def test_one_played_track_is_enough() -> None:
    factors, weight = made_factors(), np.zeros(N, np.float32)
    weight[4] = 0.8
    found, predicted = fit_map(made_features(), factors, weight, 4, MapSettings(), seed=0)
    np.testing.assert_allclose(joint(predicted)[5:], np.tile(joint(factors)[4], (N - 5, 1)), atol=1e-4)
    assert np.isfinite(joint(found(made_features(3, seed=9)))).all()
