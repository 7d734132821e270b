"""A fitted recommender and a split in, a value a user, model and figure out.

    Fitted, Split  ->  panels, models  ->  lists  ->  Judged (a value a user and figure)

Every model ranks the same whole set of candidates for the same users: random, popularity, the baselines, each part of
the recommender alone (``hybrid/<part>``) and their blend (``hybrid``). Nothing is fitted here (``eval.run``), and
nothing is averaged (``eval.aggregate``).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from eval.baselines.asked import by_all_plays, ours_on, peer_on, served_on
from eval.baselines.simple import Fitted, Popularity, Random, Ranker
from eval.metrics.accuracy import USER_METRICS, find_hits
from eval.metrics.beyond_accuracy import CATALOGUE_METRICS, LIST_METRICS, ItemFacts, traits_of
from eval.metrics.panels import Panel, panels_of
from eval.metrics.segments import segments_of
from eval.splitting.split import Split
from recsys.errors import DataError
from recsys.types import Int32, Plays
from recsys.util.progress import Bar, Progress

HYBRID = "hybrid"
ALL_PLAYS = f"{HYBRID}/all-plays"  # without regard to order, where the hybrid follows the last plays
WITHOUT = f"{HYBRID}-without-"  # begins the name of a model that was fitted without a modality
WHOLE = "all"  # the segment of all held-out pairs
SEGMENT_METRICS = ("recall", "ndcg")
_BLOCK_USERS = 4096  # lists at once: a step of the progress bar

Column = tuple[str, str, int]  # segment, metric, k
MakeRanker = Callable[[Panel], Ranker | None]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One model's lists on one panel of one split.

    ``values`` (n_users, n_columns) float32, NaN where a user has none; ``whole`` has the figures that are of all lists
    together, by k in the order of the ks; ``seconds`` is the wall time of ranking. ``weights`` (n_users, n_columns)
    count the lists that each value is the mean of, as a user may have several; None where each has one.
    """

    split: str
    model: str
    user_ids: list[str]
    columns: list[Column]
    values: NDArray[np.float32]
    whole: dict[str, list[float]]
    seconds: float
    weights: NDArray[np.float32] | None = None


def judge(
    fitted: Fitted,
    split: Split,
    ks: Sequence[int],
    max_users: int,
    progress: Progress,
    models: Iterable[tuple[str, Ranker]] = (),
) -> list[Judged]:
    """Rank with every model and compare with what is held out.

    Args:
        fitted: on the split's training listens.
        split: what is held out.
        ks: lengths of lists, rising.
        max_users: of a panel with more users so many are drawn by the split's seed.
        progress: a bar a model.
        models: more models by name, over the rows of ``fitted.plays``, taken one at a time so that only one need be
            in memory; on panels of cold users those judged are ``Folding``.

    Raises:
        DataError: a held-out user or track is unknown to the fit, or a model returns lists that are no lists.
    """
    traits = traits_of(fitted.plays, split.artists, fitted.sound)
    all_models = _all_models(fitted, split.seed, models)
    return _judged_models(fitted.plays, split, traits, all_models, ks, max_users, progress)


def judge_hybrid(
    fitted: Fitted, split: Split, ks: Sequence[int], max_users: int, progress: Progress, model: str
) -> list[Judged]:
    """Rank with the blend of another fit on the same split, under a name of its own, for the same users.

    Diversity is left out: distances between sound vectors of two fits do not compare.
    """
    no_sound = np.zeros(0, dtype=np.int32), np.zeros((0, 1), dtype=np.float32)
    traits = traits_of(fitted.plays, split.artists, no_sound)
    models = [(model, partial(served_on, fitted))]
    return _judged_models(fitted.plays, split, traits, models, ks, max_users, progress)


def _judged_models(
    plays: Plays,
    split: Split,
    traits: ItemFacts,
    models: Iterable[tuple[str, MakeRanker]],
    ks: Sequence[int],
    max_users: int,
    progress: Progress,
) -> list[Judged]:
    panels = panels_of(split, plays, max_users)
    segments = [segments_of(panel, traits) for panel in panels]
    judged = []
    for model, make in models:
        rankers = [(panel, parts, make(panel)) for panel, parts in zip(panels, segments, strict=True)]
        able = [(panel, parts, ranker) for panel, parts, ranker in rankers if ranker is not None]
        if not able:
            continue
        n_lists = sum(len(panel.user_rows) for panel, _, _ in able)
        with progress.bar(f"judging {split.protocol}: {model}", n_lists, "lists") as bar:
            for panel, parts, ranker in able:
                judged += _judged(model, ranker, panel, parts, traits, ks, bar)
    return judged


def _all_models(fitted: Fitted, seed: int, models: Iterable[tuple[str, Ranker]]) -> Iterator[tuple[str, MakeRanker]]:
    """List what is judged, in the order of the table: chance and popularity, baselines, our parts, the hybrid."""
    plays = fitted.plays
    yield "random", lambda panel: Random(panel.heard, seed)
    yield "popularity", lambda panel: Popularity(panel.heard, seed, plays)
    for name, ranker in models:
        yield name, partial(peer_on, ranker)
    for part in fitted.parts:
        yield f"{HYBRID}/{part}", partial(_part, fitted, part)
    yield ALL_PLAYS, partial(by_all_plays, fitted)
    yield HYBRID, partial(served_on, fitted)


def _part(fitted: Fitted, part: str, panel: Panel) -> Ranker | None:
    """One part of the blend; None where each event has a list, as a part alone costs as much there as all together."""
    return None if panel.views else ours_on(fitted, part, panel)


def _judged(
    model: str,
    ranker: Ranker,
    panel: Panel,
    segments: dict[str, csr_matrix],
    traits: ItemFacts,
    ks: Sequence[int],
    bar: Bar,
) -> list[Judged]:
    started = time.perf_counter()
    ranked = np.concatenate(list(_ranked_blocks(ranker, panel, max(ks), bar)))
    seconds = time.perf_counter() - started
    columns: list[Column] = []
    values = []
    for segment, held_out in {WHOLE: panel.held_out, **segments}.items():
        hits = find_hits(ranked, held_out)
        for metric in USER_METRICS if segment == WHOLE else SEGMENT_METRICS:
            columns += [(segment, metric, k) for k in ks]
            values += [USER_METRICS[metric](hits, k) for k in ks]
    for metric, of_lists in LIST_METRICS.items():
        columns += [(WHOLE, metric, k) for k in ks]
        values += [of_lists(ranked[:, :k], traits) for k in ks]
    table = np.stack(values, axis=1).astype(np.float32)
    ids = np.array(panel.user_ids)
    judged = []
    for view in panel.judged:
        lists, n_lists = ranked[view.rows], len(ranked)
        whole = {
            name: [of_all(lists[:, :k], panel.n_candidates) for k in ks] for name, of_all in CATALOGUE_METRICS.items()
        }
        users, of_users, weights = by_user(ids[view.rows], table[view.rows])
        share = seconds * len(lists) / n_lists
        judged.append(Judged(view.name, model, users, columns, of_users, whole, share, weights))
    return judged


def by_user(
    ids: NDArray[np.str_], values: NDArray[np.float32]
) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32] | None]:
    """Average lists (n, n_columns) over those of each user, NaN left out.

    Returns:
        Ids of the users, their means (n_users, n_columns), and how many lists each mean is of; as they came and with
        None where every list is another user's.
    """
    users, rows = np.unique(ids, return_inverse=True)
    if len(users) == len(ids):
        return ids.tolist(), values, None
    known = np.isfinite(values)
    of = csr_matrix((np.ones(len(ids)), (rows, np.arange(len(ids)))), shape=(len(users), len(ids)))
    weights = of @ known.astype(np.float64)
    total = of @ np.where(known, values, 0).astype(np.float64)
    means = np.divide(total, weights, out=np.full(total.shape, np.nan), where=weights > 0)
    return users.tolist(), means.astype(np.float32), weights.astype(np.float32)


def _ranked_blocks(ranker: Ranker, panel: Panel, k: int, bar: Bar) -> Iterator[Int32]:
    for start in range(0, len(panel.user_rows), _BLOCK_USERS):
        block = panel.user_rows[start : start + _BLOCK_USERS]
        items = ranker.rank(block, k, panel.candidates).items
        if items.shape != (len(block), k):
            raise DataError(f"a model ranked {items.shape}, expected {(len(block), k)}; pad its lists with -1")
        bar.advance(len(block))
        yield items
