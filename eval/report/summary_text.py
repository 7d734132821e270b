"""Figures in, sentences out: which model is best on a split, and whether the hybrid beats the best baseline.

The words claim no more than a test does: without one, or where its interval reaches zero or p after Holm is above 0.05,
two models cannot be told apart.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from eval.report.figures import OURS, Point, Points, best, is_baseline, tests_of
from eval.report.markup import Html, element, joined
from eval.report.tables import number

_LEVEL = 0.05
_MOST_TIMES = 10
_CLAIMS = ("beats", "cannot be told apart from", "falls behind")

SPLITS = {
    "warm": "new tracks for users whose history is known, among all tracks",
    "cold-track": "tracks that nobody has played in training, ranked among themselves",
    "cold-track-among-all": "tracks that nobody has played in training, ranked among the whole catalogue",
    "cold-user": "users who are new: their lists come from their first few tracks alone, without training",
    "live": "before each first play of a track after a cut: is it in the list among all tracks? recall is hit rate",
    "live-played": "of these, the tracks that somebody had played before the cut",
    "live-unplayed": "of these, the tracks that nobody had played before the cut",
    "live-cold-users": "the same of users without a play before the cut, from their second play on",
    "warm-last-plays-played": "the same, cut at a play and not between sessions, among played tracks",
    "warm-last-plays-unplayed": "the same, cut at a play and not between sessions, among unplayed tracks",
    "warm-last-plays-total": "the same, cut at a play and not between sessions, among all tracks",
    "warm-last-played": "each user's last plays, ranked among the tracks that somebody played in training",
    "warm-last-unplayed": "each user's last plays, ranked among the tracks that nobody played in training",
    "warm-last-total": "each user's last plays, ranked among all tracks",
    "representation": "sound vectors, judged on artists that the network has not met",
}


def summary(found: Points, about: Mapping[str, Any]) -> list[Html]:
    """Say in a sentence or two what came out on each split, in their order."""
    sentences = []
    for split in found.splits():
        k = found.main_k(split)
        points = found.get(split, "recall", k)
        top = best(points)
        if top is None:
            continue
        parts = [
            joined([element("b", split), f" (recall@{k}, {points[top].n:,} users): the best is ", code(top), " at "])
        ]
        parts.append(Html(f"{_with_interval(points[top])}. "))
        rival = best({model: point for model, point in points.items() if is_baseline(model)})
        if OURS in points and rival is not None:
            tests = tests_of(dict(about), split)
            parts.append(_against(points, rival, tests.get(rival)))
            parts += _on_plays(points, rival, tests)
        sentences.append(joined(parts))
    return sentences


def _on_plays(points: Mapping[str, Point], best_baseline: str, tests: Mapping[str, Mapping[str, Any]]) -> list[Html]:
    """Hold the hybrid against the best baseline that reads plays alone, where the run tells which one that is."""
    rival = next((model for model, test in tests.items() if test.get("is_best_without_features")), None)
    if rival is None or rival not in points:
        return []
    if rival == best_baseline:
        return [Html(" That baseline reads no features of tracks.")]
    return [Html(" "), _against(points, rival, tests[rival], "the best baseline without features of tracks")]


def _against(
    points: Mapping[str, Point], rival: str, test: Mapping[str, Any] | None, who: str = "the best baseline"
) -> Html:
    """Hold the hybrid against a baseline, the best of all or of some."""
    ours, theirs = points[OURS], points[rival]
    ratio = _ratio(ours, theirs, test or {})
    if test is None or not _is_number(test.get("difference")):
        return joined(
            [
                f"The hybrid has {number(ours.value)}, {who} ",
                code(rival),
                f" {number(theirs.value)}{ratio}; this run has no paired test of the two.",
            ]
        )
    low, high = test.get("ci_low"), test.get("ci_high")
    interval = f" ({low:+.3f} to {high:+.3f})" if _is_number(low) and _is_number(high) else ""
    p = test.get("p_holm", test.get("p"))
    corrected = " after Holm" if "p_holm" in test else ", not corrected"
    chance = f", p {probability(float(p))}{corrected}" if _is_number(p) else ""
    return joined(
        [
            f"The hybrid, at {number(ours.value)}, {claim(test)} {who}, ",
            code(rival),
            f" at {number(theirs.value)}: {test['difference']:+.3f}{interval}{ratio}{chance}.",
        ]
    )


def _ratio(ours: Point, theirs: Point, test: Mapping[str, Any]) -> str:
    """Say how many times the baseline's figure ours is, where that is not out of all proportion."""
    if not 0 < ours.value <= _MOST_TIMES * theirs.value:
        return ""
    low, high = test.get("ratio_ci_low"), test.get("ratio_ci_high")
    interval = f" ({low:.2f}–{high:.2f})" if _is_number(low) and _is_number(high) else ""
    return f", {ours.value / theirs.value:.2f} times as much{interval}"


def claim(test: Mapping[str, Any]) -> str:
    """Say what a paired test of the hybrid against a model allows to say."""
    difference, low, high = (test.get(name) for name in ("difference", "ci_low", "ci_high"))
    p = test.get("p_holm", test.get("p"))
    is_clear = _is_number(p) and float(p) <= _LEVEL
    if _is_number(low) and _is_number(high):
        is_clear = is_clear and (low > 0 or high < 0)
    if not is_clear or not _is_number(difference):
        return _CLAIMS[1]
    return _CLAIMS[0] if difference > 0 else _CLAIMS[2]


def probability(p: float) -> str:
    """Write a p-value with its sign of comparison."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def code(name: str) -> Html:
    """Set a model's name apart from the words around it."""
    return element("code", name)


def _with_interval(point: Point) -> str:
    return (
        f"{number(point.value)} ({number(point.low)}–{number(point.high)})"
        if point.has_interval
        else number(point.value)
    )


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
