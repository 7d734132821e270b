"""The encoder's small steps; that it agrees with the fit is held in test_fit."""

import numpy as np
from scipy.sparse import csr_matrix

from recsys.hybrid.encoder import Scaler, popularity


def test_the_scaler_standardises_columns_and_only_centres_a_constant_one() -> None:
    vectors = np.array([[1, 5, 0], [3, 5, 10], [5, 5, -10]], np.float32)
    found = Scaler.of(vectors)(vectors)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(axis=0), [1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(Scaler.of(vectors)(np.array([[3, 6, 0]], np.float32)), [[0, 1, 0]], atol=1e-6)


def test_popularity_rises_with_listeners_and_a_new_track_stands_in_the_middle() -> None:
    n_listeners = [0, 1, 12, 20, 60]
    counts = np.zeros((60, 5), np.float32)
    for item, n in enumerate(n_listeners):
        counts[:n, item] = 1
    column, unplayed = popularity(csr_matrix(counts), 5.0)
    assert column.shape == (5, 1)
    assert (np.diff(column[2:, 0]) > 0).all()
    assert column[0, 0] == np.float32(unplayed)
    assert column[1:3].min() < unplayed < column[-1, 0]
    heavy = counts.copy()
    heavy[0, 1] = 1000
    assert column[1, 0] < popularity(csr_matrix(heavy), 5.0)[0][1, 0] < column[-1, 0]  # one fan is no crowd


def test_popularity_of_a_catalogue_without_plays_is_finite() -> None:
    column, unplayed = popularity(csr_matrix((3, 4), dtype=np.float32), 5.0)
    assert column.tolist() == [[0]] * 4
    assert unplayed == 0
