"""Probes, likeness and intervals against values worked by hand."""

from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from eval.representation.figures import (
    FIGURES,
    FORMULAS,
    TAG_FIGURES,
    FoldValues,
    draw_artists,
    pooled_means,
    precision_and_auc,
    summarise,
)
from eval.representation.folds import Labels
from eval.representation.judge import unit_vectors
from eval.representation.likeness import found_again, same_artist, same_genre
from eval.representation.probes import GENRE_PROBES, artist_hits, genre_hits, tag_scores
from eval.results import FIGURES_SCHEMA
from recsys.errors import DataError
from recsys.types import Float32


def at(*degrees: float) -> Float32:
    """Unit vectors at angles: what is near is plain to see."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def test_same_genre_counts_other_artists_alone() -> None:
    vectors = at(0, 1, 10, 21, 30, 80)
    groups, genres = ints(0, 0, 1, 2, 3, 4), ints(0, 0, 0, 1, 0, -1)
    everything = np.arange(6, dtype=np.int32)
    found = same_genre(vectors, everything, everything, genres, groups, k=2)
    # near 0 and 1 are 2 (same) and 3 (other); near 2 are 1 and 0; near 3 are 4 and 2; near 4 are 3 (other) and 2 (same)
    assert found.tolist()[:5] == [0.5, 0.5, 1.0, 0.0, 0.5]
    assert np.isnan(found[5]), "it has no genre"
    # within 0, 1 and 3 alone: 0 has one candidate of another artist
    assert same_genre(vectors, ints(0, 1, 3), ints(0, 1, 3), genres, groups, k=2).tolist() == [0.0, 0.0, 0.0]
    assert np.isnan(same_genre(vectors, ints(0), ints(0, 1), genres, groups, k=2)).all(), "nobody else is there"


def test_same_artist_needs_another_track_of_the_artist() -> None:
    vectors = at(0, 5, 8, 40, 90)
    groups, has_artist = ints(0, 1, 0, 1, 2), np.array([True, True, True, True, False])
    everything = np.arange(5, dtype=np.int32)
    np.testing.assert_array_equal(same_artist(vectors, everything, everything, groups, has_artist), [0, 0, 0, 0, nan])
    # among 0, 2 and 3 alone, 0 and 2 are each other's nearest, and 3 has nobody
    some = ints(0, 2, 3)
    np.testing.assert_array_equal(same_artist(vectors, some, some, groups, has_artist), [1, 1, nan])
    nobody = np.zeros(5, dtype=bool)
    assert np.isnan(same_artist(vectors, everything, everything, groups, nobody)).all()


def test_found_again_is_recall_at_one() -> None:
    assert found_again(at(2, 44, 70), ints(0, 2, 3), at(0, 40, 50, 90)).tolist() == [1, 0, 0]


def test_genre_probes_learn_from_training_alone() -> None:
    rng = np.random.default_rng(0)
    train_genres = np.repeat(ints(0, 1, 2), 20)
    train = unit_vectors(np.eye(3, 5, dtype=np.float32)[train_genres] + rng.normal(0, 0.1, (60, 5)).astype(np.float32))
    held_out = np.eye(3, 5, dtype=np.float32)
    hits = genre_hits(train, train_genres, held_out, ints(0, 1, 1))
    assert {name: found.tolist() for name, found in hits.items()} == {name: [1, 1, 0] for name in GENRE_PROBES}
    unlabelled = np.where(train_genres == 2, -1, train_genres)
    hits = genre_hits(train, unlabelled, held_out, ints(0, -1, 2))
    for found in hits.values():  # a genre that training lacks is never told
        np.testing.assert_array_equal(found, [1, nan, 0])
    one = genre_hits(train, np.where(train_genres > 0, -1, 0), held_out, ints(0, 0, 0))
    assert all(np.isnan(found).all() for found in one.values())


def test_artists_are_told_from_their_other_tracks() -> None:
    vectors = at(0, 10, 50, 60, 55, 24)
    artists = ints(3, 3, 7, 7, 9, 7)
    hits = artist_hits(vectors, artists)  # 9 has one track, so it neither counts nor misleads
    np.testing.assert_array_equal(hits["nearest"], [1, 1, 1, 1, nan, 0])
    # 24 lies 19 from the mean of 0 and 10, and 31 from that of 50 and 60
    np.testing.assert_array_equal(hits["centroid"], [1, 1, 1, 1, nan, 0])
    # 29: nearer to 10 than to 50, but its own artist has a third track at 30
    np.testing.assert_array_equal(artist_hits(at(0, 12, 36, 26, 31), ints(0, 0, 1, 1, 1))["nearest"], [1, 1, 1, 1, 1])
    for lonely in (ints(1, 1, 1), ints(0, 1, 2), ints(-1, -1, -1)):
        assert np.isnan(artist_hits(at(0, 1, 2), lonely)["nearest"]).all()


def test_a_track_is_no_part_of_its_own_centroid() -> None:
    # to 50, artist 1's mean (90) is nearer than 0, the rest of artist 0; with itself the mean would be 25, and nearer
    hits = artist_hits(at(0, 50, 85, 95), ints(0, 0, 1, 1))
    assert hits["centroid"].tolist() == [1, 0, 1, 1]


def test_tags_are_scored_where_training_has_both_kinds() -> None:
    rng = np.random.default_rng(0)
    train = rng.normal(size=(40, 3)).astype(np.float32)
    tags = np.stack([train[:, 0] > 0, np.zeros(40, bool), np.ones(40, bool)], axis=1)
    scores = tag_scores(train, tags, np.eye(3, dtype=np.float32))
    assert scores[0, 0] > max(scores[1, 0], scores[2, 0])
    assert np.isnan(scores[:, 1:]).all()
    assert tag_scores(train, np.zeros((40, 0), bool), train[:2]).shape == (2, 0)


def test_precision_and_auc_by_hand() -> None:
    scores, tagged = np.array([4, 3, 2, 1], np.float32), np.array([True, False, True, False])
    average, auc = precision_and_auc(scores, tagged, np.array([[1.0, 1, 1, 1], [0, 1, 1, 0], [1, 0, 1, 0]]))
    np.testing.assert_allclose(average, [(1 + 2 / 3) / 2, 1 / 2, nan])
    np.testing.assert_allclose(auc, [3 / 4, 0, nan])


@hypothesis_settings(max_examples=25)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 30))
def test_precision_and_auc_agree_with_scikit_learn(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    scores, weights = rng.integers(0, 6, n).astype(np.float32), rng.integers(0, 3, (2, n)).astype(np.float64)
    tagged = rng.random(n) < 0.5
    tagged[:2] = True, False
    weights[:, :2] = 1
    average, auc = precision_and_auc(scores, tagged, weights)
    for row, weight in enumerate(weights):
        known = weight > 0
        given = {"sample_weight": weight[known]}
        assert average[row] == pytest.approx(average_precision_score(tagged[known], scores[known], **given))
        assert auc[row] == pytest.approx(roc_auc_score(tagged[known], scores[known], **given))


def test_artists_are_drawn_with_all_of_their_tracks() -> None:
    groups = ints(0, 0, 1, 2, 2, 2)
    weights = draw_artists(groups, 500, seed=1)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 1])
    np.testing.assert_array_equal(weights[:, 3], weights[:, 5])
    np.testing.assert_array_equal(weights[:, 0] + weights[:, 2] + weights[:, 3], 3)
    assert pooled_means(np.array([1.0, 0, 0.5]), np.array([[1.0, 1, 0], [0, 0, 2], [0, 0, 0]])).tolist()[:2] == [
        0.5,
        0.5,
    ]
    assert np.isnan(pooled_means(np.array([1.0]), np.array([[0.0]]))).all()


def labels(groups: np.ndarray, tags: np.ndarray | None = None) -> Labels:
    n = len(groups)
    tagged = np.zeros((n, 0), bool) if tags is None else tags
    names = tuple(f"tag {n}" for n in range(tagged.shape[1]))
    return Labels(np.full(n, -1, np.int32), (), groups, np.ones(n, bool), tagged, names)


def values(rows: np.ndarray, column: list[float], scores: np.ndarray | None = None) -> FoldValues:
    table = np.full((len(rows), len(FIGURES)), nan)
    table[:, 0] = column
    return FoldValues(rows, table, np.zeros((len(rows), 0), np.float32) if scores is None else scores, {})


def test_values_are_pooled_over_folds_and_intervals_are_over_artists() -> None:
    groups = np.repeat(np.arange(10, dtype=np.int32), 20)  # ten artists, alike within: as good as ten values
    hits = (groups % 2).astype(float)
    rows = np.arange(200, dtype=np.int32)
    folds = [values(rows[:80], hits[:80].tolist()), values(rows[80:], hits[80:].tolist())]
    figures = summarise({"net": folds}, labels(groups), 1000, 0)
    assert figures.schema == FIGURES_SCHEMA
    (row,) = figures.to_dicts()
    assert (row["model"], row["split"], row["segment"], row["metric"]) == (
        *("net", "representation"),
        *("logistic", "genre_accuracy"),
    )
    assert (row["value"], row["n_users"], row["k"]) == (0.5, 200, None)
    assert 0.1 <= row["ci_low"] <= 0.3, "the interval over tracks would be 0.43 to 0.57"
    assert 0.7 <= row["ci_high"] <= 0.9


def test_tracks_that_were_not_judged_do_not_count() -> None:
    folds = [values(ints(0, 1), [1, nan]), values(ints(2), [0])]
    (row,) = summarise({"net": folds}, labels(ints(0, 1, 2)), 100, 0).to_dicts()
    assert (row["value"], row["n_users"]) == (0.5, 2)


def test_tags_are_averaged_over_tags_and_folds() -> None:
    tags = np.array([[1, 0], [0, 0], [1, 0], [0, 0]], bool)  # nobody has the second tag: left out
    scores = np.array([[2, 0], [1, 0]], np.float32)
    folds = [values(ints(0, 1), [nan, nan], scores), values(ints(2, 3), [nan, nan], -scores)]
    figures = summarise({"net": folds}, labels(ints(0, 1, 2, 3), tags), 200, 0)
    assert [(row["metric"], row["value"]) for row in figures.to_dicts()] == [
        ("average_precision", (1 + 0.5) / 2),
        ("roc_auc", 0.5),
    ]


def test_every_figure_has_a_formula_and_a_place() -> None:
    assert {figure.metric for figure in (*FIGURES, *TAG_FIGURES)} == set(FORMULAS)
    assert len(set(FIGURES)) == len(FIGURES)
    with pytest.raises(DataError, match=r"expected \(1, 17\)"):
        FoldValues(ints(0), np.zeros((1, 3)), np.zeros((1, 0), np.float32), {})


def test_vectors_that_are_no_numbers_are_refused() -> None:
    np.testing.assert_allclose(unit_vectors(np.array([[3, 4], [0, 0]], np.float32)), [[0.6, 0.8], [0, 0]])
    with pytest.raises(DataError, match="not finite"):
        unit_vectors(np.array([[nan, 1]], np.float32))
