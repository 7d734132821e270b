"""The blend: joint scores are weighted sums of calibrated parts, and what new tracks are multiplied by."""

import json

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from helpers.made_blend import (
    HAS_PLAYS,
    KNOWN,
    LEVEL,
    N_ITEMS,
    N_LISTENERS,
    N_USERS,
    NO_PLAYS,
    OF_NEW,
    WEIGHTS,
    joined,
    joined_with_new,
    some_parts,
)
from recsys.errors import ConfigError
from recsys.hybrid.blend import Layout, Part, calibrated, join, profile_weights
from recsys.util.topk import unit_rows


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


# ---- tracks that nobody has played -------------------------------------------------------------------------------


def test_item_vectors_of_unplayed_tracks_alone_are_multiplied() -> None:
    _, users, items = joined_with_new()
    blend, same_users, found = joined_with_new(OF_NEW)
    assert np.array_equal(users, same_users)
    assert np.array_equal(found[KNOWN], items[KNOWN])
    for part in blend.parts:
        columns = slice(part.start, part.stop)
        assert part.new == OF_NEW.get(part.name, 1.0)
        np.testing.assert_allclose(found[~KNOWN, columns], items[~KNOWN, columns] * part.new, rtol=1e-6)


def test_the_level_is_added_to_the_scores_of_unplayed_tracks_whatever_their_spread() -> None:
    plain, users, items = joined_with_new(OF_NEW, 0.0)
    blend, same_users, same_items = joined_with_new(OF_NEW)
    assert np.array_equal(users, same_users)
    assert np.array_equal(items, same_items)
    without = plain.queries(users, HAS_PLAYS) @ items.T
    found = blend.queries(users, HAS_PLAYS) @ items.T
    assert np.array_equal(found[:, KNOWN], without[:, KNOWN])
    np.testing.assert_allclose((found - without)[HAS_PLAYS][:, ~KNOWN], LEVEL, atol=1e-5)
    level = blend.parts[-1]
    assert users[:, level.start].tolist() == [1.0] * N_USERS
    assert items[:, level.start].tolist() == np.where(KNOWN, 0, 1).tolist()


def test_whatever_is_made_of_new_tracks_users_without_plays_rank_by_popularity_alone() -> None:
    blend, users, items = joined_with_new(OF_NEW, 50.0)
    popularity = next(part for part in blend.parts if part.name == "popularity")
    for part in (None, "als", "mapped"):
        scores = (blend.queries(users, HAS_PLAYS, part) @ items.T)[NO_PLAYS]
        assert np.array_equal(scores, items[:, popularity.start])


def test_the_level_says_nothing_of_likeness() -> None:
    blend, _, items = joined_with_new(OF_NEW)
    other = items.copy()
    other[~KNOWN, -1] += 9
    assert np.array_equal(blend.likeness(other), blend.likeness(items))
    assert [part.name for part in blend.parts if part.personal] == ["als", "lightfm", "content", "mapped"]


def test_what_new_tracks_need_is_kept_with_the_layout() -> None:
    blend, _, _ = joined_with_new(OF_NEW)
    assert [Layout(**fields) for fields in json.loads(json.dumps(blend.to_json()))] == list(blend.parts)


def test_what_a_track_is_like_does_not_depend_on_how_new_ones_are_ranked() -> None:
    plain, _, as_they_are = joined_with_new()
    ranked, _, multiplied = joined_with_new(OF_NEW)
    given = multiplied.copy()
    np.testing.assert_allclose(ranked.likeness(multiplied), plain.likeness(as_they_are), atol=1e-6)
    assert not np.allclose(multiplied[~KNOWN, :10], as_they_are[~KNOWN, :10])
    assert np.array_equal(multiplied, given)
