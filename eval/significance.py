"""Is the hybrid better than each other model, or is it chance? Paired over users, corrected for asking many times.

    Gathered, all models of a split  ->  compare  ->  difference, ratio, their intervals, p and p after Holm

Difference and ratio are of the means over users and splits. Intervals: bootstrap over users, the same draws for all
models (paired). p: a permutation test that swaps the two models for whole users at random, two-sided. Holm's
correction (1979) is over all models that the hybrid is compared with on one split.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.aggregate import Gathered
from eval.baselines.registry import WITHOUT_FEATURES
from eval.judge import HYBRID
from eval.metrics.accuracy import interval, mean_over_users, resampled_means
from recsys.errors import DataError

Float64 = NDArray[np.float64]

PLAYS_ALONE = WITHOUT_FEATURES | {"random", "popularity"}  # baselines that read nothing of a track but who played it
N_PERMUTATIONS = 9_999
_BLOCK_SIGNS = 4_000_000  # signs at once: 16 MB
_ROUNDING = 1e-6  # two permutations closer than this, in units of recall, are equal but for float32


def compare(gathered: Sequence[Gathered], k: int, n_resamples: int, seed: int) -> list[dict[str, Any]]:
    """Compare the hybrid with every other model on each split by recall at k, where events are judged by MRR too.

    Returns:
        A record a split and other model: model, split, metric, n_users, difference (hybrid minus model) with ci_low,
        ci_high, p, p_holm, ratio (hybrid over model) with ratio_ci_low, ratio_ci_high (None where the model's mean is
        0), ``is_baseline`` (not a part of ours), ``is_best_baseline`` (of these the one with the highest mean) and
        ``is_best_without_features`` (the same of those in ``PLAYS_ALONE``).
    """
    by_split: dict[str, list[Gathered]] = {}
    for one in gathered:
        by_split.setdefault(one.split, []).append(one)
    return [
        record
        for models in by_split.values()
        for metric in (("recall",) if models[0].weights is None else ("recall", "mrr"))
        for record in _compared(models, metric, k, n_resamples, seed)
    ]


def _compared(models: Sequence[Gathered], metric: str, k: int, n_resamples: int, seed: int) -> list[dict[str, Any]]:
    ours = next((one for one in models if one.model == HYBRID), None)
    others = [one for one in models if one.model != HYBRID]
    if ours is None or not others:
        return []
    if any(one.user_ids != ours.user_ids for one in others):
        raise DataError(f"models were judged on different users of {ours.split}, and cannot be compared in pairs")
    values = np.stack([one.column(metric, k) for one in (ours, *others)], axis=2)
    weights = np.stack([one.weight(metric, k) for one in (ours, *others)], axis=2)
    means, drawn = mean_over_users(values, weights), resampled_means(values, n_resamples, seed, weights)
    p = permutation_p(values[:, :, :1] - values[:, :, 1:], N_PERMUTATIONS, seed, weights[:, :, 1:])
    baselines = [place for place, one in enumerate(others, start=1) if not one.model.startswith(HYBRID)]
    on_plays = [place for place in baselines if others[place - 1].model in PLAYS_ALONE]
    best, best_on_plays = (max(of, key=lambda place: float(means[place]), default=None) for of in (baselines, on_plays))
    records = []
    for place, (other, p_of, p_holm) in enumerate(zip(others, p, holm(p), strict=True), start=1):
        (low,), (high,) = interval(drawn[:, :1] - drawn[:, [place]])
        record = {
            "model": other.model,
            "split": other.split,
            "metric": f"{metric}@{k}",
            "n_users": len(values),
            "difference": float(means[0] - means[place]),
            "ci_low": float(low),
            "ci_high": float(high),
            "p": float(p_of),
            "p_holm": float(p_holm),
            **_ratio(float(means[0]), float(means[place]), drawn[:, [0]], drawn[:, [place]]),
            "is_baseline": place in baselines,
            "is_best_baseline": place == best,
            "is_best_without_features": place == best_on_plays,
        }
        records.append(record)
    return records


def _ratio(ours: float, other: float, ours_drawn: Float64, other_drawn: Float64) -> dict[str, float | None]:
    """Divide, with the interval (draws are (n, 1)); None where there is nothing to divide by in one draw of forty."""
    if other <= 0 or (other_drawn > 0).mean() < 0.975:
        return {"ratio": None, "ratio_ci_low": None, "ratio_ci_high": None}
    nothing = np.full(ours_drawn.shape, np.nan)
    (low,), (high,) = interval(np.divide(ours_drawn, other_drawn, out=nothing, where=other_drawn > 0))
    return {"ratio": ours / other, "ratio_ci_low": float(low), "ratio_ci_high": float(high)}


def permutation_p(
    differences: NDArray[np.floating], n_permutations: int, seed: int, weights: NDArray[np.floating] | None = None
) -> Float64:
    """Test by random signs whether the mean over users and splits differs from 0; a user's splits share the sign.

    Args:
        differences: (n_users, n_splits, n_tests), NaN where a user was not judged in a split.
        n_permutations: besides the one that was observed; p is at least 1 / (n_permutations + 1).
        seed: of the signs, which all tests share.
        weights: how many lists each difference is the mean of; None: 1 of each.

    Returns:
        Two-sided p, (n_tests,).
    """
    n_users, _, n_tests = differences.shape
    known = np.isfinite(differences)
    counted = known * (1 if weights is None else weights)
    total = np.where(known.any(axis=0), counted.sum(axis=0), 1)
    share = np.where(known, differences, 0) * counted / total / max(known.any(axis=0)[:, 0].sum(), 1)
    of_user = share.sum(axis=1, dtype=np.float64)  # what a user adds to the mean
    observed = np.abs(of_user.sum(axis=0))
    rng = np.random.default_rng(seed)
    as_far = np.zeros(n_tests)
    block = max(1, _BLOCK_SIGNS // n_users)
    for start in range(0, n_permutations, block):
        n = min(block, n_permutations - start)
        signs = rng.integers(0, 2, size=(n, n_users), dtype=np.int8).astype(np.float32) * 2 - 1
        as_far += (np.abs(signs @ of_user.astype(np.float32)) >= observed - _ROUNDING).sum(axis=0)
    p: Float64 = (as_far + 1) / (n_permutations + 1)
    return p


def holm(p: NDArray[np.floating]) -> Float64:
    """Correct p-values (n,) for being n: Holm 1979, step-down, never below the one before and at most 1."""
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    corrected = np.empty(len(p), dtype=np.float64)
    corrected[order] = stepped
    return corrected
