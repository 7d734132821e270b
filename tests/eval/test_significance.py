"""Comparisons of models: planted differences are found, chance is not, and corrections are as worked by hand."""

import numpy as np
import pytest
from scipy.stats import wilcoxon

from eval import significance
from eval.aggregate import Gathered
from eval.metrics.accuracy import bootstrap_ci
from eval.significance import compare, holm, permutation_p
from recsys.errors import DataError

N_USERS = 60


def gathered(model: str, values: np.ndarray, split: str = "warm") -> Gathered:
    """Recall at 7 of each user in each split, (n_users, n_splits)."""
    users = [f"u{n}" for n in range(len(values))]
    return Gathered(split, model, users, [("all", "recall", 7)], values[:, :, None].astype(np.float32), {})


def recalls(mean: float, seed: int, n_splits: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = np.clip(rng.normal(mean, 0.15, (N_USERS, n_splits)), 0, 1)
    values[3, 1:] = np.nan  # a user of one split
    return values


def test_holm_is_as_worked_by_hand() -> None:
    # 0.01 * 4, 0.02 * 3, max(0.06, 0.03 * 2), max(0.06, 0.04)
    assert holm(np.array([0.04, 0.01, 0.03, 0.02])).tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.9, 0.6])).tolist() == [1, 1]


def test_a_planted_difference_is_found_and_chance_is_not() -> None:
    base = recalls(0.4, 0)
    same = np.clip(base + np.random.default_rng(1).normal(0, 0.1, base.shape), 0, 1)
    models = [gathered("chance", same), gathered("worse", base - 0.08), gathered("hybrid", base)]
    found = {record["model"]: record for record in compare(models, 7, 400, 0)}
    assert set(found) == {"chance", "worse"}
    worse, chance = found["worse"], found["chance"]
    assert worse["difference"] == pytest.approx(0.08, abs=1e-6)
    assert worse["ci_low"] == pytest.approx(worse["ci_high"], abs=1e-5)  # paired: the same for every user
    assert worse["p"] == pytest.approx(1 / 10_000)
    assert worse["p_holm"] == pytest.approx(2 / 10_000)
    assert chance["p"] > 0.05
    assert chance["ci_low"] < 0 < chance["ci_high"]
    assert worse["metric"] == "recall@7"
    mean = np.nanmean(base, axis=0).mean()
    assert worse["ratio"] == pytest.approx(mean / (mean - 0.08), rel=1e-5)
    assert 1 < worse["ratio_ci_low"] < worse["ratio"] < worse["ratio_ci_high"]


def test_the_best_baseline_is_none_of_ours() -> None:
    means = {"random": 0.1, "popularity": 0.5, "ease": 0.3, "hybrid/als": 0.7, "hybrid-without-sound": 0.8}
    models = [gathered(name, recalls(mean, n)) for n, (name, mean) in enumerate(means.items())]
    models += [gathered("hybrid", recalls(0.9, 9)), gathered("hybrid", recalls(0.9, 9), "cold")]
    found = compare(models, 7, 100, 0)
    assert [record["model"] for record in found] == list(means)  # the lone hybrid of 'cold' has nothing beside it
    assert [record["model"] for record in found if record["is_best_baseline"]] == ["popularity"]
    assert [record["model"] for record in found if record["is_baseline"]] == ["random", "popularity", "ease"]


def test_the_best_of_all_and_the_best_on_plays_alone_are_corrected_together() -> None:
    base = recalls(0.5, 0)
    means = {"random": -0.4, "als": -0.1, "ease": -0.2, "ridge": -0.05, "unheard-of": -0.15}
    models = [gathered(name, base + gap) for name, gap in means.items()]
    found = compare([*models, gathered("hybrid/als", base - 0.02), gathered("hybrid", base)], 7, 100, 0)
    assert [one["model"] for one in found if one["is_best_baseline"]] == ["ridge"]
    (on_plays,) = (one for one in found if one["is_best_without_features"])
    assert on_plays["model"] == "als"
    assert on_plays["ratio"] == pytest.approx(np.nanmean(base, axis=0).mean() / (np.nanmean(base, axis=0).mean() - 0.1))
    assert all(one["p_holm"] == pytest.approx(6 * one["p"]) for one in found)  # six comparisons, all beyond doubt
    alone = compare([gathered("ridge", base - 0.1), gathered("hybrid", base)], 7, 100, 0)
    assert not alone[0]["is_best_without_features"]  # it reads features


def test_nothing_to_divide_by_gives_no_ratio() -> None:
    (record,) = compare([gathered("zero", np.zeros((9, 1))), gathered("hybrid", np.full((9, 1), 0.5))], 7, 100, 0)
    assert record["ratio"] is record["ratio_ci_low"] is record["ratio_ci_high"] is None
    assert record["difference"] == 0.5


def test_models_of_other_users_are_not_compared() -> None:
    with pytest.raises(DataError, match="different users of warm"):
        compare([gathered("few", recalls(0.2, 0)[:9]), gathered("hybrid", recalls(0.2, 0))], 7, 100, 0)


@pytest.mark.parametrize(("shift", "seed"), [(0.0, 3), (0.02, 4), (0.035, 5), (0.05, 6)])
def test_permutation_agrees_with_wilcoxon_on_symmetric_differences(shift: float, seed: int) -> None:
    differences = np.random.default_rng(seed).normal(shift, 0.1, (80, 1, 1))
    (p,) = permutation_p(differences, 4999, 0)
    expected = wilcoxon(differences.ravel()).pvalue
    assert abs(np.log10(p) - np.log10(max(expected, 1 / 5000))) < 0.5, (p, expected)


def test_p_is_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(8)
    p = permutation_p(rng.normal(0, 1, (30, 1, 400)), 499, 0)
    for level in (0.05, 0.2, 0.5):
        assert abs((p <= level).mean() - level) < 0.08


def test_splits_of_a_user_swap_together() -> None:
    """The same differences in three splits prove no more than in one."""
    one = np.random.default_rng(2).normal(0.03, 0.1, (50, 1, 1))
    once, thrice = permutation_p(one, 999, 0), permutation_p(np.repeat(one, 3, axis=1), 999, 0)
    assert once[0] == thrice[0]
    assert 0.001 < once[0] < 0.5


def test_blocks_of_signs_and_equal_models(monkeypatch: pytest.MonkeyPatch) -> None:
    assert permutation_p(np.zeros((5, 2, 1)), 99, 0).tolist() == [1]
    monkeypatch.setattr(significance, "_BLOCK_SIGNS", 7 * 40)
    p = permutation_p(np.full((40, 1, 1), 0.1), 99, 0)
    assert p.tolist() == [1 / 100]


def test_an_interval_leaves_out_draws_without_anybody() -> None:
    values = np.full((12, 1, 2), np.nan)
    values[0, 0, 0] = 0.5
    low, high = bootstrap_ci(values, n_resamples=100)
    assert (low[0], high[0]) == (0.5, 0.5)
    assert np.isnan([low[1], high[1]]).all()
