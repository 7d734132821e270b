"""LightFM: planted tastes, cold tracks by their features alone, and content as its nearest centroids."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from helpers.made import made_plays
from recsys.cf.lightfm import LightFMSettings, content_columns, fit_lightfm, nearest_columns, with_unit_rows
from recsys.errors import DataError
from recsys.types import Factors, Float32, Plays
from recsys.util.progress import Silent

SETTINGS = LightFMSettings(n_factors=6, epochs=25)
COLD, SILENT_USER = 28, 3


def taste() -> tuple[Plays, csr_matrix]:
    """14 users, 29 items of two kinds told apart by two feature columns; item 28 is cold and of the first kind."""
    rng = np.random.default_rng(0)
    kind = np.arange(29) % 2
    counts = np.zeros((14, 29))
    for user in range(14):
        own = [item for item in range(28) if kind[item] == user % 2]
        counts[user, rng.choice(own, 6, replace=False)] = rng.integers(1, 50, 6)
    counts[SILENT_USER] = 0
    features = csr_matrix((np.full(29, 2.0, np.float32), (np.arange(29), kind)), shape=(29, 3))
    return made_plays(counts), features


@pytest.fixture(scope="module")
def fitted() -> tuple[Factors, Float32]:
    return fit_lightfm(*taste(), SETTINGS, 0, Silent())


def test_planted_tastes_are_recovered_cold_track_included(fitted: tuple[Factors, Float32]) -> None:
    factors, _ = fitted
    scores = factors.user_factors @ factors.item_factors.T
    for user in set(range(14)) - {SILENT_USER}:
        own = np.arange(29) % 2 == user % 2
        assert scores[user, own].mean() > scores[user, ~own].mean() + 0.5
        assert (scores[user, COLD] > scores[user, ~own].mean()) == (user % 2 == 0)


def test_shapes_and_the_bias_column(fitted: tuple[Factors, Float32]) -> None:
    factors, embeddings = fitted
    assert factors.user_factors.shape == (14, 7)
    assert factors.item_factors.shape == (29, 7)
    assert embeddings.shape == (3, 7)
    silent = np.arange(14) == SILENT_USER
    assert not factors.user_factors[silent].any()
    assert (factors.user_factors[~silent, -1] == 1).all()
    assert factors.item_factors[:, -1].any()


def test_a_cold_track_is_the_sum_of_its_features_and_a_played_one_has_its_own_share(
    fitted: tuple[Factors, Float32],
) -> None:
    factors, embeddings = fitted
    _, features = taste()
    alone = np.asarray(with_unit_rows(features) @ embeddings)
    np.testing.assert_allclose(factors.item_factors[COLD], alone[COLD], atol=1e-6)
    assert np.abs(factors.item_factors[0] - alone[0]).max() > 1e-3


def test_the_seed_decides_every_bit(fitted: tuple[Factors, Float32]) -> None:
    again, _ = fit_lightfm(*taste(), SETTINGS, 0, Silent())
    other, _ = fit_lightfm(*taste(), SETTINGS, 1, Silent())
    assert np.array_equal(again.item_factors, fitted[0].item_factors)
    assert np.array_equal(again.user_factors, fitted[0].user_factors)
    assert not np.array_equal(other.item_factors, fitted[0].item_factors)


def test_a_pair_weighs_one_however_often_it_was_played(fitted: tuple[Factors, Float32]) -> None:
    plays, features = taste()
    before = plays.counts.toarray()
    once, _ = fit_lightfm(made_plays(before > 0), features, SETTINGS, 0, Silent())
    assert np.array_equal(once.item_factors, fitted[0].item_factors)
    fit_lightfm(plays, features, SETTINGS, 0, Silent())
    assert np.array_equal(plays.counts.toarray(), before)


def test_items_without_any_feature_and_columns_without_items_do_no_harm() -> None:
    plays, _ = taste()
    factors, embeddings = fit_lightfm(plays, csr_matrix((29, 0), dtype=np.float32), SETTINGS, 0, Silent())
    assert embeddings.shape == (0, 7)
    assert not factors.item_factors[COLD].any()
    assert np.isfinite(factors.item_factors).all()


def test_rows_are_brought_to_unit_length() -> None:
    found = with_unit_rows(csr_matrix(np.array([[3, 0, 4], [0, 0, 0], [0, 0.5, 0]], dtype=np.float32)))
    np.testing.assert_allclose(found.toarray(), [[0.6, 0, 0.8], [0, 0, 0], [0, 1, 0]], rtol=1e-6)


def test_content_is_described_by_its_nearest_centroids() -> None:
    centroids = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
    content = np.array([[0.9, 0.4], [0, 0], [-0.4, -0.9]], np.float32)
    found = nearest_columns(content, centroids, 2).toarray()
    assert found.tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0, 0], [0, 0, 0.5, 0.5]]
    far_and_near = np.array([[2, 0], [0.5, 0]], np.float32)  # a longer centroid is not a nearer one, nor a farther
    assert nearest_columns(np.array([[1.5, 0], [0.9, 0]], np.float32), far_and_near, 1).indices.tolist() == [0, 1]
    one = nearest_columns(content, centroids[:1], 3).toarray()  # fewer centroids than asked for
    assert one.tolist() == [[1], [0], [1]]
    assert nearest_columns(content, centroids[:0], 3).shape == (3, 0)


def test_centroids_tell_planted_clusters_apart_and_repeat() -> None:
    rng = np.random.default_rng(0)
    cluster = np.arange(160) % 4
    content = (10 * np.eye(4, 5)[cluster] + rng.normal(0, 0.1, (160, 5))).astype(np.float32)
    content[7] = 0
    columns, centroids = content_columns(content, n_centroids=64, nearest=1, seed=0)
    assert centroids.shape == (3, 5)  # at least 40 vectors a centroid
    assert columns.shape == (160, 3)
    assert columns[7].nnz == 0
    of_cluster = [np.unique(columns[(cluster == c) & (np.arange(160) != 7)].indices) for c in range(4)]
    assert sum(len(found) == 1 for found in of_cluster) >= 2
    again = content_columns(content, 64, 1, seed=0)[1]
    assert np.array_equal(again, centroids)


def test_no_content_gives_no_columns() -> None:
    columns, centroids = content_columns(np.zeros((6, 5), np.float32), 8, 2, seed=0)
    assert columns.shape == (6, 0)
    assert centroids.shape == (0, 5)


def test_learning_that_diverges_says_which_setting_to_lower() -> None:
    with pytest.raises(DataError, match=r"learning_rate is 1e\+30, give a lower one"):
        fit_lightfm(*taste(), LightFMSettings(n_factors=6, epochs=3, learning_rate=1e30), 0, Silent())
