"""The blend and folding in: joint scores are weighted sums of calibrated parts, for users old and new."""

import json

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys.cf.als import confidence, solve_rows
from recsys.errors import ConfigError
from recsys.hybrid.blend import Blend, Layout, Part, calibrated, join, profile_weights, unit_rows
from recsys.hybrid.foldin import fold_in
from recsys.types import Float32

N_USERS, N_ITEMS, SCALE = 7, 13, 2.5
NO_PLAYS = 4  # this user has none
WEIGHTS = {"als": 2.0, "lightfm": 0.5, "content": 1.5, "popularity": 0.25}
N_LISTENERS = np.array([3, 1, 0, 2, 5, 1, 1, 0, 2, 4, 1, 2, 1], np.int32)
KNOWN = N_LISTENERS > 0


def some_counts() -> csr_matrix:
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 9, (N_USERS, N_ITEMS)) * (rng.random((N_USERS, N_ITEMS)) < 0.4)
    counts[NO_PLAYS] = 0
    return csr_matrix(counts.astype(np.float32))


def some_parts() -> list[Part]:
    """Parts as the fit makes them: users solved on ``some_counts`` against random items."""
    rng = np.random.default_rng(0)
    counts = some_counts()
    items = rng.normal(0, 3, (N_ITEMS, 3)).astype(np.float32)
    gram = (0.4 * items.T @ items).astype(np.float32)
    users = solve_rows(confidence(counts, SCALE), items, gram, 0.9)
    lightfm_users = np.hstack([rng.normal(size=(N_USERS, 2)), np.ones((N_USERS, 1))]).astype(np.float32)
    lightfm_users[NO_PLAYS] = 0
    lightfm_items = rng.normal(0, 0.2, (N_ITEMS, 3)).astype(np.float32)
    content = unit_rows(rng.normal(size=(N_ITEMS, 4)).astype(np.float32))
    return [
        Part("als", users, items, "solve", gram, 0.9),
        Part("lightfm", lightfm_users, lightfm_items, "solve", np.eye(2, dtype=np.float32), 0.1, bias=True),
        Part("content", np.asarray(profile_weights(counts) @ content, np.float32), content, "mean"),
        Part(
            "popularity",
            np.ones((N_USERS, 1), np.float32),
            np.log1p(N_LISTENERS)[:, None].astype(np.float32),
            "constant",
        ),
    ]


def joined(weights: dict[str, float] = WEIGHTS) -> tuple[Blend, Float32, Float32]:
    return join(some_parts(), weights, N_LISTENERS)


HAS_PLAYS = np.arange(N_USERS) != NO_PLAYS


def test_the_joint_score_is_the_weighted_sum_of_calibrated_parts() -> None:
    blend, users, items = joined()
    expected = np.zeros((N_USERS, N_ITEMS))
    for part in some_parts():
        scores = part.user_vectors.astype(np.float64) @ part.item_vectors.T
        spread = scores[:, KNOWN].std(axis=1)
        expected[HAS_PLAYS] += WEIGHTS[part.name] * (scores / np.maximum(spread, 1e-12)[:, None])[HAS_PLAYS]
    found = blend.queries(users, HAS_PLAYS) @ items.T
    np.testing.assert_allclose(found[HAS_PLAYS], expected[HAS_PLAYS], rtol=1e-4, atol=1e-4)


def test_a_part_can_rank_alone() -> None:
    blend, users, items = joined()
    for part, layout in zip(some_parts(), blend.parts, strict=True):
        scores = (part.user_vectors @ part.item_vectors.T)[HAS_PLAYS]
        found = (blend.queries(users, HAS_PLAYS, layout.name) @ items.T)[HAS_PLAYS]
        np.testing.assert_allclose(found, scores / scores[:, KNOWN].std(axis=1, keepdims=True), rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match=r"no part 'bpr'.*als"):
        blend.queries(users, HAS_PLAYS, "bpr")


def test_item_parts_have_rows_of_mean_square_length_one_over_the_played_tracks() -> None:
    blend, _, items = joined()
    assert blend.dim == items.shape[1] == 3 + 3 + 4 + 1
    for part in blend.parts:
        assert (items[KNOWN, part.start : part.stop] ** 2).sum(axis=1).mean() == pytest.approx(1, rel=1e-5)
    assert [(part.start, part.stop) for part in blend.parts] == [(0, 3), (3, 6), (6, 10), (10, 11)]


def test_unplayed_tracks_take_no_part_in_the_calibration() -> None:
    _, users, items = joined()
    loud = some_parts()
    for part in loud:
        part.item_vectors[~KNOWN] = 1e4
    _, same_users, same_items = join(loud, WEIGHTS, N_LISTENERS)
    np.testing.assert_allclose(same_users, users, rtol=1e-5)
    np.testing.assert_allclose(same_items[KNOWN], items[KNOWN], rtol=1e-5)


def test_users_without_plays_rank_by_popularity() -> None:
    blend, users, items = joined()
    users = users + np.float32(0.1)  # whatever stands in the row of a user without plays
    given = users.copy()
    for part in (None, "als", "content", "popularity"):
        queries = blend.queries(users, HAS_PLAYS, part)
        order = np.argsort(-(queries @ items.T)[NO_PLAYS], kind="stable")
        assert N_LISTENERS[order].tolist() == sorted(N_LISTENERS.tolist(), reverse=True)
    assert np.array_equal(users, given)
    nobody = join(some_parts()[:1], WEIGHTS, N_LISTENERS)
    assert not nobody[0].queries(nobody[1], HAS_PLAYS)[NO_PLAYS].any()  # no popularity to rank by


def test_likeness_weighs_the_parts_as_the_ranking_does() -> None:
    blend, _, items = joined()
    likeness = blend.likeness(items)
    np.testing.assert_allclose(np.linalg.norm(likeness, axis=1), 1, atol=1e-5)
    one, other = items[3].astype(np.float64), items[8].astype(np.float64)
    columns = {"als": slice(0, 3), "lightfm": slice(3, 5), "content": slice(6, 10)}  # without the bias in column 5

    def inner(a: np.ndarray, b: np.ndarray) -> float:
        return float(sum(WEIGHTS[name] * a[part] @ b[part] for name, part in columns.items()))

    expected = inner(one, other) / np.sqrt(inner(one, one) * inner(other, other))
    assert float(likeness[3] @ likeness[8]) == pytest.approx(expected, abs=1e-5)


def test_likeness_ignores_popularity_biases_and_parts_without_weight() -> None:
    blend, _, items = joined({**WEIGHTS, "content": 0.0})
    other = items.copy()
    other[:, [5, 10]] += 7
    other[:, 6:10] = 3
    assert np.array_equal(blend.likeness(other), blend.likeness(items))
    other[:, 4] += 1
    assert not np.allclose(blend.likeness(other), blend.likeness(items))


@pytest.mark.parametrize("personal", [0.0, 1.0])
def test_tracks_are_alike_by_all_parts_where_popularity_alone_ranks(personal: float) -> None:
    weights = {"als": personal, "lightfm": personal, "content": personal, "popularity": 1.0}
    blend, _, items = joined(weights)
    assert np.array_equal(blend.likeness(items), joined(dict.fromkeys(weights, 1.0))[0].likeness(items))


def test_weights_can_be_replaced() -> None:
    blend, users, items = joined(dict.fromkeys(WEIGHTS, 1.0))
    other, same_users, same_items = joined()
    replaced = blend.with_weights(WEIGHTS)
    assert replaced.weights().tolist() == other.weights().tolist()
    assert replaced.weights().tolist() == [2] * 3 + [0.5] * 3 + [1.5] * 4 + [0.25]
    assert np.array_equal(users, same_users)
    assert np.array_equal(items, same_items)
    assert [Layout(**fields) for fields in json.loads(json.dumps(replaced.to_json()))] == list(replaced.parts)


def test_a_part_that_knows_nothing_scores_zero() -> None:
    nothing = Part("als", np.zeros((N_USERS, 2), np.float32), np.zeros((N_ITEMS, 2), np.float32), "mean")
    same = Part("content", np.ones((N_USERS, 1), np.float32), np.ones((N_ITEMS, 1), np.float32), "mean")
    blend, users, items = join([nothing, same], WEIGHTS, np.zeros(N_ITEMS, np.int32))
    assert not (blend.queries(users, HAS_PLAYS) @ items.T).any()
    assert np.isfinite(items).all()


def test_calibration_is_the_spread_of_scores() -> None:
    covariance = np.array([[4, 0], [0, 0]], np.float32)
    found = calibrated(np.array([[3, 5], [0, 2], [0, 0]], np.float32), covariance)
    np.testing.assert_allclose(found, [[0.5, 5 / 6], [0, 0], [0, 0]], rtol=1e-6)
    small = calibrated(np.array([[3e-4, 5e-4]], np.float32), covariance)
    np.testing.assert_allclose(small, found[:1], rtol=1e-5)


def test_rounding_is_no_spread() -> None:
    even = np.full((N_ITEMS, 1), 1.3, np.float32)
    even[3] = np.nextafter(even[3], np.float32(2))
    popularity = Part("popularity", np.ones((N_USERS, 1), np.float32), even, "constant")
    assert not join([popularity], WEIGHTS, N_LISTENERS)[1].any()


def test_one_played_track_has_no_spread_and_all_tracks_count() -> None:
    alone = np.zeros(N_ITEMS, np.int32)
    alone[6] = 3
    for part in some_parts()[:3]:
        _, users, items = join([part], WEIGHTS, alone)
        np.testing.assert_allclose((users[HAS_PLAYS] @ items.T).std(axis=1), 1, rtol=1e-4)


def test_profiles_weigh_tracks_by_the_logarithm_of_plays() -> None:
    counts = csr_matrix(np.array([[1, 0, 7], [0, 0, 0], [0, 5, 0]], np.float32))
    np.testing.assert_allclose(profile_weights(counts).toarray(), [[0.25, 0, 0.75], [0, 0, 0], [0, 1, 0]], rtol=1e-6)
    assert counts.toarray().tolist() == [[1, 0, 7], [0, 0, 0], [0, 5, 0]]


def test_unit_rows_leave_zeros() -> None:
    np.testing.assert_allclose(unit_rows(np.array([[3, 4], [0, 0]], np.float32)), [[0.6, 0.8], [0, 0]], rtol=1e-6)


# ---- folding in --------------------------------------------------------------------------------------------------


def folded(user: int) -> Float32:
    blend, _, items = joined()
    counts = some_counts()[[user]]
    return fold_in(counts.indices, counts.data, items, blend, SCALE)


@pytest.mark.parametrize("user", np.flatnonzero(HAS_PLAYS))
@pytest.mark.parametrize("part", ["als", "content", "popularity"])
def test_a_user_of_the_training_data_folds_in_as_trained(user: int, part: str) -> None:
    blend, users, _ = joined()
    layout = next(p for p in blend.parts if p.name == part)
    columns = slice(layout.start, layout.stop)
    np.testing.assert_allclose(folded(user)[columns], users[user, columns], atol=1e-4)


def test_with_an_item_bias_the_length_of_the_vector_is_that_of_the_trained_users() -> None:
    _, users, items = joined()
    part = some_parts()[1]
    lengths = np.linalg.norm(part.user_vectors[HAS_PLAYS, :2], axis=1)
    raw = folded(2)[3:6] / folded(2)[5]  # back to a bias of 1
    assert np.linalg.norm(raw[:2]) == pytest.approx(lengths.mean(), rel=1e-4)
    counts = some_counts()[[2]]
    played, c = part.item_vectors[counts.indices, :2], 1 + SCALE * np.log1p(counts.data)
    solved = np.linalg.solve(played.T @ np.diag(c - 1) @ played + 1.1 * np.eye(2), played.T @ c)
    np.testing.assert_allclose(raw[:2] / np.linalg.norm(raw[:2]), solved / np.linalg.norm(solved), atol=1e-4)
    scores = (items[:, 3:6] @ folded(2)[3:6])[KNOWN]
    assert scores.std() == pytest.approx(1, rel=1e-4)
    assert users[HAS_PLAYS, 5].min() > 0


def test_more_plays_pull_harder_and_the_order_of_tracks_does_not_matter() -> None:
    blend, _, items = joined()
    tracks = np.array([1, 6, 11], np.int32)
    even = fold_in(tracks, np.array([1, 1, 1], np.float32), items, blend, SCALE)
    often = fold_in(tracks, np.array([1, 60, 1], np.float32), items, blend, SCALE)
    turned = fold_in(tracks[::-1].copy(), np.array([1, 60, 1], np.float32), items, blend, SCALE)
    np.testing.assert_allclose(turned, often, atol=1e-5)

    def rank(vector: Float32) -> int:
        return int((items @ vector > items[6] @ vector).sum())

    assert rank(often) <= rank(even)
    assert not np.allclose(often, even, atol=0.01)


def test_a_track_of_which_nothing_is_known_folds_in_to_popularity_alone() -> None:
    blend, _, items = joined()
    items[2] = 0
    vector = fold_in(np.array([2], np.int32), np.ones(1, np.float32), items, blend, SCALE)
    assert np.isfinite(vector).all()
    assert not vector[:3].any()
    assert vector[10] > 0
