"""Values a user in, figures out: means over users and splits with their intervals, and each user's own mean.

    Judged, many  ->  gather     ->  Gathered: (n_users, n_splits, n_columns) a split's name and model
    Gathered      ->  summarise  ->  figures in FIGURES_SCHEMA
                  ->  per_user   ->  recall@k by user, split and model

The bootstrap draws users, each with all of their splits. Models are compared in ``eval.significance``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from eval.judge import HYBRID, WHOLE, Column, Judged
from eval.metrics.accuracy import bootstrap_ci, mean_over_users
from eval.results import FIGURES_SCHEMA

_USUAL_K = 20  # the length that models are compared at, where it is among the ks


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """All splits of one name and model: ``values`` (n_users, n_splits, n_columns), NaN where a user was not judged.

    ``whole`` is averaged over splits. ``weights`` like ``values`` count the lists of each; None where each is of one.
    """

    split: str
    model: str
    user_ids: list[str]
    columns: list[Column]
    values: NDArray[np.float32]
    whole: dict[str, list[float]]
    weights: NDArray[np.float32] | None = None

    def column(self, metric: str, k: int) -> NDArray[np.float32]:
        """Take one metric of all held-out pairs: (n_users, n_splits)."""
        column: NDArray[np.float32] = self.values[:, :, self.columns.index((WHOLE, metric, k))]
        return column

    def weight(self, metric: str, k: int) -> NDArray[np.float32]:
        """How many lists each value of ``column`` is the mean of: (n_users, n_splits)."""
        if self.weights is None:
            return np.ones(self.values.shape[:2], dtype=np.float32)
        column: NDArray[np.float32] = self.weights[:, :, self.columns.index((WHOLE, metric, k))]
        return column


def gather(judged: Sequence[Judged]) -> list[Gathered]:
    """Lay splits of one kind beside each other by user; names of splits, and models in each, as they first appear.

    A model that misses a split which another has is left out there, since its mean would be of other users; see
    ``incomplete``.
    """
    return [
        _gathered(folds)
        for models in _by_name(judged).values()
        for folds in models.values()
        if len(folds) == _n_folds(models)
    ]


def incomplete(judged: Sequence[Judged]) -> list[str]:
    """Say which models were judged on some splits of a name and not on others."""
    return [
        f"{model} ({len(folds)} of {_n_folds(models)} splits of {split})"
        for split, models in _by_name(judged).items()
        for model, folds in models.items()
        if len(folds) < _n_folds(models)
    ]


def _by_name(judged: Sequence[Judged]) -> dict[str, dict[str, list[Judged]]]:
    groups: dict[str, dict[str, list[Judged]]] = {}
    for one in judged:
        groups.setdefault(one.split, {}).setdefault(one.model, []).append(one)
    return groups


def _n_folds(models: dict[str, list[Judged]]) -> int:
    return max(len(folds) for folds in models.values())


def _gathered(folds: Sequence[Judged]) -> Gathered:
    sizes = [len(fold.user_ids) for fold in folds]
    users, rows = np.unique(np.concatenate([fold.user_ids for fold in folds]), return_inverse=True)
    values = np.full((len(users), len(folds), folds[0].values.shape[1]), np.nan, dtype=np.float32)
    weights = np.zeros(values.shape, dtype=np.float32)
    for i, (fold, of_fold) in enumerate(zip(folds, np.split(rows, np.cumsum(sizes)[:-1]), strict=True)):
        values[of_fold, i] = fold.values
        weights[of_fold, i] = 1 if fold.weights is None else fold.weights
    whole = {name: np.mean([fold.whole[name] for fold in folds], axis=0).tolist() for name in folds[0].whole}
    are_lists = any(fold.weights is not None for fold in folds)
    return Gathered(
        folds[0].split, folds[0].model, users.tolist(), folds[0].columns, values, whole, weights if are_lists else None
    )


def summarise(gathered: Sequence[Gathered], ks: Sequence[int], n_resamples: int, seed: int) -> pl.DataFrame:
    """Average each model's values over users and splits.

    Args:
        gathered: all models on all splits.
        ks: list lengths, as they were judged.
        n_resamples: of the bootstrap over users; a user is drawn with all of their splits.
        seed: of the bootstrap, the same for every model, so that their intervals are paired.

    Returns:
        A row a figure in ``FIGURES_SCHEMA``, without those that nobody has a value of; ``n_users`` have one.
    """
    rows: list[tuple[object, ...]] = []
    for one in gathered:
        n_users = np.isfinite(one.values).any(axis=1).sum(axis=0)
        low, high = bootstrap_ci(one.values, n_resamples, seed=seed, weights=one.weights)
        figures = zip(one.columns, n_users, mean_over_users(one.values, one.weights), low, high, strict=True)
        for (segment, metric, k), n, value, below, above in figures:
            if n:
                named = (one.model, one.split, segment, metric, k)
                rows.append((*named, float(value), float(below), float(above), int(n)))
        for metric, values in one.whole.items():
            for k, value in zip(ks, values, strict=True):
                if np.isfinite(value):
                    rows.append((one.model, one.split, WHOLE, metric, k, value, None, None, len(one.values)))
    return pl.DataFrame(rows, schema=FIGURES_SCHEMA, orient="row")


def usual_k(ks: Sequence[int]) -> int:
    """Choose the length of list at which models are compared: 20, or the longest where that was not asked for."""
    return _USUAL_K if _USUAL_K in ks else max(ks)


def outcome(judged: Sequence[Judged], name: str, k: int) -> str:
    """Say in a few words what the splits of one name came to: recall of the hybrid, and of the best other model.

    Where no list has that name, as several parts are judged, it is of the one among all tracks.
    """
    names = list(dict.fromkeys(one.split for one in judged))
    name = name if name in names else next((other for other in names if other.endswith("-total")), name)
    recalls: dict[str, list[float]] = {}
    for one in judged:
        if one.split == name:
            place = one.columns.index((WHOLE, "recall", k))
            weights = None if one.weights is None else one.weights[:, None, [place]]
            recalls.setdefault(one.model, []).append(float(mean_over_users(one.values[:, None, [place]], weights)[0]))
    means = {model: float(np.mean(values)) for model, values in recalls.items()}
    n_splits = max((len(values) for values in recalls.values()), default=0)
    found = [f"hybrid {means[HYBRID]:.3f}"] if HYBRID in means else []
    others = {model: value for model, value in means.items() if not model.startswith(HYBRID)}
    best = max(others, key=lambda model: np.nan_to_num(others[model], nan=-1.0), default=None)
    found += [] if best is None else [f"best other {best} {others[best]:.3f}"]
    return f"recall@{k}: {', '.join(found)}{'' if n_splits < 2 else f'; {n_splits} splits'}"


def per_user(gathered: Sequence[Gathered], k: int) -> pl.DataFrame:
    """Give each user's recall at k, averaged over splits: user_id, split, model, recall@k."""
    name = f"recall@{k}"
    schema = {"user_id": pl.String, "split": pl.String, "model": pl.String, name: pl.Float32}
    frames = [pl.DataFrame(schema=schema)]
    for one in gathered:
        values = one.column("recall", k)
        known = np.isfinite(values)
        mean = np.where(known, values, 0).sum(axis=1) / known.sum(axis=1)
        users = pl.DataFrame({"user_id": one.user_ids, name: mean.astype(np.float32)})
        frames.append(users.select("user_id", split=pl.lit(one.split), model=pl.lit(one.model), **{name: name}))
    return pl.concat(frames)
