"""A fitted recommender and a split in, figures out.

    Fitted, Split  ->  judge  ->  Judged (a value a user)  ->  summarise  ->  figures with intervals

Every model ranks the same whole set of candidates for the same users: random, popularity, each part of the
recommender alone (``hybrid/<part>``) and their blend (``hybrid``). Cold tracks are ranked among themselves
(split ``cold-track``) and among all tracks (``cold-track-among-all``). Nothing is fitted here (``eval.run``).
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from eval.baselines import Fitted, Part, Popularity, Random, Ranker
from eval.metrics import USER_METRICS, bootstrap_ci, coverage_at_k, find_hits, mean_over_users
from eval.results import FIGURES_SCHEMA
from eval.splits import Split
from recsys.errors import DataError
from recsys.progress import Bar, Progress
from recsys.types import Int32, Plays

_BLOCK_USERS = 4096  # lists at once: a step of the progress bar


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One model's lists on one split.

    ``values`` (n_users, n_metrics * n_ks) has the metrics in the order of ``USER_METRICS``, the ks inside
    each; ``coverage`` (n_ks,); ``seconds`` is the wall time of ranking.
    """

    split: str
    model: str
    user_ids: list[str]
    values: NDArray[np.float32]
    coverage: list[float]
    seconds: float


def judge(fitted: Fitted, split: Split, ks: Sequence[int], max_users: int, progress: Progress) -> list[Judged]:
    """Rank with every model and compare with what is held out.

    Where more than ``max_users`` users have held-out pairs, so many are drawn by the split's seed.

    Raises:
        DataError: a held-out user or track is unknown to the fit, or a model returns lists that are no lists.
    """
    plays = fitted.plays
    user_rows, held_out = held_out_of(split, plays)
    if len(user_rows) > max_users:
        drawn = np.random.default_rng(split.seed).choice(len(user_rows), max_users, replace=False)
        drawn.sort()
        user_rows, held_out = user_rows[drawn], held_out[drawn]
    user_ids = [plays.user_ids[row] for row in user_rows]
    models = _models(fitted, plays, split.seed)
    rankings = _rankings(split, plays)
    judged = []
    with progress.bar(f"judging {split.protocol}", len(models) * len(rankings) * len(user_rows), "lists") as bar:
        for name, candidates in rankings:
            n_candidates = len(plays.track_ids) if candidates is None else len(candidates)
            for model, ranker in models:
                started = time.perf_counter()
                ranked = _rank(ranker, user_rows, max(ks), candidates, bar)
                seconds = time.perf_counter() - started
                hits = find_hits(ranked, held_out)
                values = [metric(hits, k) for metric in USER_METRICS.values() for k in ks]
                coverage = [coverage_at_k(ranked, k, n_candidates) for k in ks]
                table = np.stack(values, axis=1).astype(np.float32)
                judged.append(Judged(name, model, user_ids, table, coverage, seconds))
    return judged


def held_out_of(split: Split, plays: Plays) -> tuple[Int32, csr_matrix]:
    """Bring the held-out pairs into the rows of the training plays.

    Returns:
        The rows of users with held-out pairs (n,), ascending, and their pairs (n, n_items).

    Raises:
        DataError: a held-out user or track is missing from the training plays.
    """
    users = pl.DataFrame({"user_id": plays.user_ids}).with_row_index("user")
    items = pl.DataFrame({"track_id": plays.track_ids}).with_row_index("item")
    pairs = split.held_out.frame.select("user_id", "track_id").unique()
    rows = pairs.join(users, on="user_id").join(items, on="track_id")
    if len(rows) < len(pairs):
        raise DataError(
            f"{len(pairs) - len(rows)} of {len(pairs)} held-out pairs have a user or track that the fit does "
            "not know, expected none; give the catalogue that the listens were read with"
        )
    user_rows, index = np.unique(rows["user"].to_numpy(), return_inverse=True)
    pairs_of = (index, rows["item"].to_numpy().astype(np.int64))
    shape = (len(user_rows), len(plays.track_ids))
    return user_rows.astype(np.int32), csr_matrix((np.ones(len(rows), dtype=np.bool_), pairs_of), shape=shape)


def summarise(judged: Sequence[Judged], ks: Sequence[int], n_resamples: int, seed: int) -> pl.DataFrame:
    """Average each model's values over users and splits.

    Args:
        judged: all models on all splits; those of one name and model are splits of the same kind.
        ks: list lengths, as they were judged.
        n_resamples: of the bootstrap over users; a user is drawn with all of their splits.
        seed: of the bootstrap, the same for every model, so that their intervals are paired.

    Returns:
        A row a figure in ``FIGURES_SCHEMA``, in the order of first appearance.
    """
    groups: dict[tuple[str, str], list[Judged]] = {}
    for one in judged:
        groups.setdefault((one.split, one.model), []).append(one)
    rows: list[tuple[object, ...]] = []
    names = [(metric, k) for metric in USER_METRICS for k in ks]
    for (split, model), folds in groups.items():
        values = _aligned(folds)
        figures = zip(names, mean_over_users(values), *bootstrap_ci(values, n_resamples, seed=seed), strict=True)
        for (metric, k), value, low, high in figures:
            rows.append((model, split, "all", metric, k, float(value), float(low), float(high), len(values)))
        for k, coverage in zip(ks, np.mean([fold.coverage for fold in folds], axis=0), strict=True):
            rows.append((model, split, "all", "coverage", k, float(coverage), None, None, len(values)))
    return pl.DataFrame(rows, schema=FIGURES_SCHEMA, orient="row")


def _aligned(folds: Sequence[Judged]) -> NDArray[np.float32]:
    """Lay splits beside each other by user, (n_users, n_splits, n_figures), NaN where not judged."""
    sizes = [len(fold.user_ids) for fold in folds]
    users, rows = np.unique(np.concatenate([fold.user_ids for fold in folds]), return_inverse=True)
    values = np.full((len(users), len(folds), folds[0].values.shape[1]), np.nan, dtype=np.float32)
    for i, (fold, of_fold) in enumerate(zip(folds, np.split(rows, np.cumsum(sizes)[:-1]), strict=True)):
        values[of_fold, i] = fold.values
    return values


def _models(fitted: Fitted, plays: Plays, seed: int) -> list[tuple[str, Ranker]]:
    """List what is judged, in the order of the table."""
    return [
        ("random", Random(plays, seed)),
        ("popularity", Popularity(plays, seed)),
        *((f"hybrid/{part}", Part(fitted, plays.user_ids, part)) for part in fitted.parts),
        ("hybrid", Part(fitted, plays.user_ids, None)),
    ]


def _rankings(split: Split, plays: Plays) -> list[tuple[str, Int32 | None]]:
    """Name each set of candidates that a split is judged among; None is the whole catalogue."""
    if split.cold_track_ids is None:
        return [(split.protocol, None)]
    items = pl.DataFrame({"track_id": plays.track_ids}).with_row_index("item")
    cold = items.join(pl.DataFrame({"track_id": split.cold_track_ids}), on="track_id", how="semi")["item"].sort()
    return [(split.protocol, cold.to_numpy().astype(np.int32)), (f"{split.protocol}-among-all", None)]


def _rank(ranker: Ranker, user_rows: Int32, k: int, candidates: Int32 | None, bar: Bar) -> Int32:
    return np.concatenate(list(_ranked_blocks(ranker, user_rows, k, candidates, bar)))


def _ranked_blocks(ranker: Ranker, user_rows: Int32, k: int, candidates: Int32 | None, bar: Bar) -> Iterator[Int32]:
    for start in range(0, len(user_rows), _BLOCK_USERS):
        block = user_rows[start : start + _BLOCK_USERS]
        items = ranker.rank(block, k, candidates).items
        if items.shape != (len(block), k):
            raise DataError(f"a model ranked {items.shape}, expected {(len(block), k)}; pad its lists with -1")
        bar.advance(len(block))
        yield items
