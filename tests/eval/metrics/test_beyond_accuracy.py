"""List metrics against values worked by hand, and against their definitions in plain Python."""

from itertools import combinations
from math import log2, nan

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from eval.metrics import beyond_accuracy
from eval.metrics.beyond_accuracy import (
    CATALOGUE_METRICS,
    FORMULAS,
    LIST_METRICS,
    ItemFacts,
    coverage,
    diversity,
    gini,
    mean_percentile,
    n_artists,
    novelty,
    traits_of,
)
from recsys.types import Plays

# items a to f; three users train, a fourth only dislikes
HEARD = np.array([[1, 1, 1, 0, 0, 0], [5, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=np.float32)
TRACKS = list("abcdef")
ARTISTS = pl.DataFrame([("a", "x"), ("b", "x"), ("c", "y"), ("f", "y")], schema=["track_id", "artist"], orient="row")
SOUND = (
    np.array([0, 1, 2, 4], dtype=np.int32),
    np.array([[2, 0], [0, 3], [1, 1], [0, 0]], dtype=np.float32),  # the last has no direction
)
RANKED = np.array([[0, 1, 2, 3], [2, 5, 4, -1], [3, -1, -1, -1], [-1, -1, -1, -1]], dtype=np.int32)


def made(artists: pl.DataFrame | None = ARTISTS) -> ItemFacts:
    plays = Plays(csr_matrix(HEARD), csr_matrix(HEARD.shape, dtype=bool), list("klmn"), TRACKS)
    return traits_of(plays, artists, SOUND)


def test_popularity_is_a_percentile_of_listeners() -> None:
    # listeners 3, 2, 1, 0, 0, 0: of six tracks three are less popular than c, and c itself counts half
    assert made().percentile.tolist() == pytest.approx([5.5 / 6, 4.5 / 6, 3.5 / 6, 1.5 / 6, 1.5 / 6, 1.5 / 6])
    expected = [(5.5 + 4.5 + 3.5 + 1.5) / 24, (3.5 + 1.5 + 1.5) / 18, 1.5 / 6, nan]
    np.testing.assert_allclose(mean_percentile(RANKED, made()), expected)


def test_novelty_is_in_bits_and_finite_for_unheard_tracks() -> None:
    bits = [-log2(4 / 4), -log2(3 / 4), -log2(2 / 4), -log2(1 / 4), -log2(1 / 4), -log2(1 / 4)]
    expected = [sum(bits[:4]) / 4, (bits[2] + bits[5] + bits[4]) / 3, bits[3], nan]
    np.testing.assert_allclose(novelty(RANKED, made()), expected)


def test_artists_are_counted_once_and_unknown_ones_each() -> None:
    # a, b by x; c by y; d by nobody known | c and f by y; e by nobody known
    np.testing.assert_array_equal(n_artists(RANKED, made()), [3, 2, 1, nan])
    np.testing.assert_array_equal(n_artists(np.array([[3, 4]], dtype=np.int32), made()), [2])
    assert np.isnan(n_artists(RANKED, made(None))).all()


def test_diversity_is_of_the_tracks_that_have_sound() -> None:
    root = 1 / np.sqrt(2)
    expected = [((1 - 0) + (1 - root) + (1 - root)) / 3, nan, nan, nan]
    np.testing.assert_allclose(diversity(RANKED, made()), expected, rtol=1e-6)
    silent = traits_of(
        Plays(csr_matrix(HEARD), csr_matrix(HEARD.shape, dtype=bool), list("klmn"), TRACKS),
        None,
        (np.zeros(0, np.int32), np.zeros((0, 1), np.float32)),
    )
    assert np.isnan(diversity(RANKED, silent)).all()


def test_blocks_do_not_change_diversity(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = diversity(RANKED, made())
    monkeypatch.setattr(beyond_accuracy, "_BLOCK_PLACES", 4)
    np.testing.assert_array_equal(diversity(RANKED, made()), whole)


def test_coverage_counts_distinct_items() -> None:
    assert coverage(RANKED[:, :1], 6) == 3 / 6  # a, c, d
    assert coverage(RANKED[1:2], 5) == 3 / 5  # the empty place is no item


def test_gini_is_nought_where_all_are_shown_alike_and_near_one_where_one_is() -> None:
    assert gini(np.arange(6, dtype=np.int32).reshape(2, 3), 6) == pytest.approx(0)
    assert gini(np.zeros((9, 1), dtype=np.int32), 6) == pytest.approx(5 / 6)
    # exposures 0, 1, 3: all pairs differ by 1, 3, 2; half the mean difference over the mean is (2 * 6 / 9) / (2 * 4/3)
    assert gini(np.array([[0], [1], [1], [1]], dtype=np.int32), 3) == pytest.approx((2 * 6 / 9) / (2 * 4 / 3))
    assert np.isnan(gini(RANKED[3:], 6))


@st.composite
def any_lists(draw: st.DrawFn) -> np.ndarray:
    k = draw(st.integers(1, 5))
    one = st.permutations(range(6)).flatmap(lambda items: st.integers(0, k).map(lambda n: items[:n] + [-1] * (k - n)))
    return np.array(draw(st.lists(one, min_size=1, max_size=4)), dtype=np.int32)


@given(any_lists())
@hypothesis_settings(max_examples=60, deadline=None)
def test_list_metrics_agree_with_their_definitions(ranked: np.ndarray) -> None:
    attributes = made()
    vectors = {0: np.array([1, 0]), 1: np.array([0, 1]), 2: np.array([1, 1]) / np.sqrt(2)}
    artist = dict(zip(ARTISTS["track_id"], ARTISTS["artist"], strict=True))
    for row, items in enumerate(ranked.tolist()):
        shown = [item for item in items if item >= 0]
        pairs = [1 - vectors[i] @ vectors[j] for i, j in combinations([i for i in shown if i in vectors], 2)]
        expected = {
            "diversity": np.mean(pairs) if pairs else nan,
            "artists": len({artist.get(TRACKS[item], item) for item in shown}) if shown else nan,
            "novelty": np.mean(attributes.novelty[shown]) if shown else nan,
            "popularity_percentile": np.mean(attributes.percentile[shown]) if shown else nan,
        }
        for name, metric in LIST_METRICS.items():
            np.testing.assert_allclose(
                metric(ranked, attributes)[row], expected[name], rtol=1e-5, atol=1e-6, err_msg=name
            )
    exposure = np.bincount(ranked[ranked >= 0], minlength=6)
    if exposure.any():
        differences = np.abs(exposure[:, None] - exposure[None]).mean()
        assert gini(ranked, 6) == pytest.approx(differences / (2 * exposure.mean()))


def test_every_metric_has_its_formula() -> None:
    assert set(FORMULAS) == {*LIST_METRICS, *CATALOGUE_METRICS}
