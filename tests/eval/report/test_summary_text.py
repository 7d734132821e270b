"""What a summary claims in words, and what it leaves unsaid."""

from typing import Any

import pytest

from eval.report import summary_text
from eval.report.figures import Point, Points
from eval.report.summary_text import claim, summary
from helpers.made_evaluation import paired, small


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (paired(0.1, 0.05, 0.15, 0.001), "beats"),
        (paired(-0.1, -0.15, -0.05, 0.001), "falls behind"),
        (paired(0.1, -0.01, 0.2, 0.001), "cannot be told apart from"),
        (paired(0.1, 0.05, 0.15, 0.06), "cannot be told apart from"),
        ({"difference": 0.1, "ci_low": 0.05, "ci_high": 0.15}, "cannot be told apart from"),
    ],
)
def test_words_claim_what_the_test_allows(test: dict[str, Any], words: str) -> None:
    assert claim(test) == words
    if "p_holm" in test:
        [told] = summary(Points.of(small().figures), {"tests": [test]})
        assert (
            f"The hybrid, at 0.400, {words} the best baseline, <code>als</code> at 0.300: {test['difference']:+.3f}"
            in told
        )
        assert "1.33 times as much" in told
        assert "after Holm" in told


def test_the_best_without_features_is_told_beside_the_best() -> None:
    best = paired(0.1, 0.05, 0.15, 0.001) | {"is_best_baseline": True}
    on_plays = paired(0.35, 0.3, 0.4, 0.2) | {"model": "random", "is_best_without_features": True}
    [told] = summary(Points.of(small().figures), {"tests": [best, on_plays]})
    words = "cannot be told apart from the best baseline without features of tracks, <code>random</code> at 0.110"
    assert "beats the best baseline, <code>als</code>" in told
    assert f"The hybrid, at 0.400, {words}: +0.350 (+0.300 to +0.400)" in told
    [same] = summary(Points.of(small().figures), {"tests": [best | {"is_best_without_features": True}]})
    assert "That baseline reads no features of tracks." in same
    assert "without features" not in same
    [older] = summary(Points.of(small().figures), {"tests": [best]})
    assert "features" not in older


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (0.4, 0.3, "1.33 times as much"),
        (0.4, 0.04, "10.00 times as much"),
        (0.4, 0.039, ""),
        (0.4, 0.0, ""),
        (0.0, 0.3, ""),
    ],
)
def test_a_ratio_is_told_unless_it_is_out_of_all_proportion(ours: float, theirs: float, told: str) -> None:
    points = (Point(value, value, value, 9) for value in (ours, theirs))
    said = summary_text._ratio(*points, {})
    assert said == (f", {told}" if told else "")


def test_words_without_a_test_claim_nothing() -> None:
    [told] = summary(Points.of(small().figures), {})
    assert "the best is <code>hybrid</code> at 0.400 (0.300–0.500)" in told
    assert "this run has no paired test" in told
    assert "beats" not in told
