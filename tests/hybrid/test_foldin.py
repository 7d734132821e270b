"""Folding in: a user of the training data gets the vector that was trained, each part with its own confidence."""

import numpy as np
import pytest

from helpers.made_blend import (
    HAS_PLAYS,
    KNOWN,
    SCALE,
    joined,
    joined_with_new,
    some_counts,
    some_parts,
)
from recsys.hybrid.foldin import fold_in
from recsys.types import Float32


def folded(user: int) -> Float32:
    blend, _, items = joined()
    counts = some_counts()[[user]]
    return fold_in(counts.indices, counts.data, items, blend)


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
    even = fold_in(tracks, np.array([1, 1, 1], np.float32), items, blend)
    often = fold_in(tracks, np.array([1, 60, 1], np.float32), items, blend)
    turned = fold_in(tracks[::-1].copy(), np.array([1, 60, 1], np.float32), items, blend)
    np.testing.assert_allclose(turned, often, atol=1e-5)

    def rank(vector: Float32) -> int:
        return int((items @ vector > items[6] @ vector).sum())

    assert rank(often) <= rank(even)
    assert not np.allclose(often, even, atol=0.01)


def test_a_track_of_which_nothing_is_known_folds_in_to_popularity_alone() -> None:
    blend, _, items = joined()
    items[2] = 0
    vector = fold_in(np.array([2], np.int32), np.ones(1, np.float32), items, blend)
    assert np.isfinite(vector).all()
    assert not vector[:3].any()
    assert vector[10] > 0


@pytest.mark.parametrize("user", np.flatnonzero(HAS_PLAYS))
def test_every_part_folds_in_with_its_own_confidence(user: int) -> None:
    blend, users, items = joined_with_new()
    counts = some_counts()[[user]]
    vector = fold_in(counts.indices, counts.data, items, blend)
    for part in blend.parts:
        if part.name != "lightfm":
            columns = slice(part.start, part.stop)
            np.testing.assert_allclose(vector[columns], users[user, columns], atol=1e-4)
    assert [part.confidence_scale for part in blend.parts] == [SCALE, SCALE, 1.0, 1.0, 0.3, 1.0]
    assert vector[-1] == 1.0  # the level is that of everybody
