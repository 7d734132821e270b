"""How much each part counts, and where new tracks stand, learned on plays that the parts have not seen.

    HeldOut, parts fitted on what it kept  ->  learn_weights  ->  Learned: weights, and factors of new tracks' vectors
    Learned, the parts fitted on all plays and joined  ->  settle  ->  Blend in which new tracks stand as they did there

Three searches on the same fit: weights among played tracks, weights among new ones alone, both by NDCG@20 in steps of
powers of two; then the level at which new tracks stand among the others, the highest at which the recall of played ones
falls by no more than a given share. It is the users' own tracks that are held out, so a popular track is worth what
it is worth to them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.hybrid.blend import NEW, POPULARITY, Blend, BlendSettings
from recsys.hybrid.level import Rivals, Standing, level_at_share, level_of_new
from recsys.hybrid.validation import MIN_PAIRS, MIN_TRACKS, HeldOut
from recsys.types import NO_ITEM, Float32, Plays
from recsys.util.progress import Progress
from recsys.util.topk import top_k

STEPS = (0.0, 0.25, 0.5, 2.0, 4.0)  # times the weight that a part has
DEPTH = 200  # candidates that each part names
SMALL = 1e-3  # of a vector
OF_NEW = 3  # times as many users where new tracks are concerned, of which each wants few
LEAST = 1 / 32  # of the greatest weight: what a part gets that only new tracks need
SETTLED_ON = 3000  # users by whose lists the level of new tracks is found again
MIN_NEW = 30  # of fewer new tracks the places that they have tell nothing
K = 20


@dataclass(frozen=True, slots=True)
class Learned:
    """What held-out plays told.

    ``weights`` by part name, >= 0 but for that of ``new``, the level of unplayed tracks; ``new``: by part name, what
    item vectors of these are multiplied by, 1 by default; ``standing``: the place that they have among the others.
    """

    weights: dict[str, float]
    new: dict[str, float]
    standing: Standing | None = None


def learn_weights(
    blend: Blend,
    user_vectors: Float32,
    item_vectors: Float32,
    held_out: HeldOut,
    settings: BlendSettings,
    progress: Progress,
) -> Learned:
    """Find the weights that rank the held-out pairs best; weights that the settings give stay as given.

    Args:
        blend: the joined parts, fitted on ``held_out.kept`` alone.
        user_vectors: (n_users, d).
        item_vectors: (n_items, d), those of new tracks as they are.
        held_out: pairs to predict.
        settings: of the blend.
        progress: shows the search.

    Returns:
        Weights, 1 where nothing was held out to learn them from, and the factors of new tracks.
    """
    given = settings.given()
    fixed = {p.name: given.get(p.name) for p in blend.parts}
    weights = {name: 1.0 if value is None else value for name, value in fixed.items()}
    free = [name for name, value in fixed.items() if value is None]
    unplayed = held_out.kept.n_listeners == 0
    of_new = held_out.of_new
    pool = _Pool(blend, user_vectors, item_vectors, held_out)
    old = pool.task(~of_new, np.flatnonzero(~unplayed), settings.validation_users)
    if old is not None:
        weights = _search(old, [p.name for p in blend.parts], weights, free, "blend: weights", progress)
    task = pool.task(of_new, held_out.new, OF_NEW * settings.validation_users)
    if old is None or task is None or task.n_wanted.sum() < MIN_PAIRS:
        return Learned(weights, {})
    personal = [p.name for p in blend.parts if p.personal and weights[p.name] + (fixed[p.name] is None) > 0]
    if not personal:
        return Learned(weights, {})
    start = {p.name: float(p.name in personal) for p in blend.parts}
    of_new_tracks = _search(
        task, list(start), start, [n for n in personal if fixed[n] is None], "blend: new tracks", progress
    )
    return _among_all(pool, weights, of_new_tracks, unplayed, settings)


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """For each of some ``users``: candidates' ``scores`` (n_parts, n), which are ``wanted`` (n,), how many count."""

    users: NDArray[np.int64]
    scores: list[Float32]
    wanted: list[NDArray[np.bool_]]
    n_wanted: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """What is searched in: joint vectors, and the pairs to predict."""

    blend: Blend
    user_vectors: Float32
    item_vectors: Float32
    held_out: HeldOut

    def users(self, wanted: csr_matrix, at_most: int, tracks: int = 1) -> NDArray[np.int64]:
        """Choose users who have wanted pairs and so many played tracks, if any has, evenly over the rows."""
        return evenly(self.held_out.kept.counts, np.diff(wanted.indptr) > 0, at_most, tracks)

    def task(self, of: NDArray[np.bool_], among: NDArray[np.integer[Any]], most_users: int) -> _Task | None:
        """Gather what any part would recommend ``among`` some items, for users with marked pairs; None without any."""
        plays, wanted = self.held_out.kept, self.held_out.pairs_of(of)
        users = self.users(wanted, most_users)
        if not len(users) or not len(among):
            return None
        left_out, vectors = (plays.counts[users], plays.barred[users]), self.user_vectors[users]
        has_plays, candidates = np.ones(len(users), dtype=bool), np.asarray(among, dtype=np.int32)
        lists = [
            top_k(self.blend.queries(vectors, has_plays, p.name), self.item_vectors, DEPTH, left_out, candidates).items
            for p in self.blend.parts
            if p.name != NEW
        ]
        scores, hits = [], []
        for row, user in enumerate(users):
            items = np.unique(np.concatenate([found[row] for found in lists]))
            items = items[items != NO_ITEM]
            theirs = self.item_vectors[items]
            by_part = [theirs[:, p.start : p.stop] @ vectors[row, p.start : p.stop] for p in self.blend.parts]
            scores.append(np.stack(by_part).astype(np.float32))
            hits.append(np.isin(items, wanted[user].indices))
        return _Task(users, scores, hits, np.minimum(np.diff(wanted.indptr)[users], K))


def evenly(counts: csr_matrix, marked: NDArray[np.bool_], at_most: int, tracks: int) -> NDArray[np.int64]:
    """Choose marked users with so many played ``tracks``, or with any where none has, evenly over the rows."""
    sizes = np.diff(counts.indptr) * marked
    users = np.flatnonzero(sizes >= tracks)
    if not len(users):
        users = np.flatnonzero(sizes)
    return users[np.unique(np.linspace(0, len(users) - 1, min(len(users), at_most)).astype(np.int64))]


def _search(
    task: _Task,
    names: list[str],
    weights: dict[str, float],
    free: list[str],
    title: str,
    progress: Progress,
) -> dict[str, float]:
    """Change one weight at a time, as long as NDCG rises by more than its standard error over users."""
    best = _ndcg(task, names, weights)
    with progress.bar(title, 2 * len(free), "searches") as bar:
        for _ in range(2):
            for name in free:
                for weight in [step * (weights[name] or 1.0) for step in STEPS]:
                    trial = {**weights, name: weight}
                    if not any(trial.values()):
                        continue  # all scores equal: the order of the table would rank, and it may tell of popularity
                    value = _ndcg(task, names, trial)
                    gain = value - best
                    if gain.mean() > max(float(gain.std()) / np.sqrt(len(gain)), 1e-6):
                        best, weights = value, trial
                bar.advance(note=f"NDCG@{K} {best.mean():.4f}")
    return weights


def _ndcg(task: _Task, names: list[str], weights: dict[str, float]) -> NDArray[np.float64]:
    """NDCG@20 of each user."""
    vector = np.array([weights[name] for name in names], dtype=np.float32)
    discount = 1 / np.log2(np.arange(K) + 2)
    found = []
    for parts, hits, n in zip(task.scores, task.wanted, task.n_wanted, strict=True):
        best = np.argsort(-(vector @ parts), kind="stable")[:K]
        found.append(float(discount[: len(best)] @ hits[best]) / float(discount[:n].sum()))
    return np.array(found)


def _among_all(
    pool: _Pool,
    weights: dict[str, float],
    of_new: dict[str, float],
    unplayed: NDArray[np.bool_],
    settings: BlendSettings,
) -> Learned:
    """Let new tracks stand among all: their own weights through factors of their vectors, and a level."""
    personal = [p.name for p in pool.blend.parts if p.personal]
    least = LEAST * max(weights.values())
    raised = {name: max(value, least if of_new.get(name, 0) else 0.0) for name, value in weights.items()}
    total, of_all = sum(of_new[name] for name in personal), sum(raised[name] for name in personal)
    shares = {name: of_new[name] / total * of_all for name in personal}
    users = pool.users(pool.held_out.pairs, OF_NEW * settings.validation_users, MIN_TRACKS)
    old = _rivals(pool, users, raised, np.flatnonzero(~unplayed), 2 * K)
    theirs = {**dict.fromkeys(raised, 0.0), **shares}
    made_new, others = pool.held_out.new, np.flatnonzero(unplayed & ~pool.held_out.of_new)
    new = _rivals(pool, users, theirs, made_new, K)
    # who pays for new tracks are the played ones, and the price is that of as many new ones as the catalogue has
    crowd = _rivals(pool, users, theirs, others, K) if len(others) >= len(made_new) else new
    popular = next((p for p in pool.blend.parts if p.name == POPULARITY), None)
    base = np.zeros(len(users), np.float32)
    if popular is not None:
        mean = float(pool.item_vectors[unplayed, popular.start].mean())
        base = pool.user_vectors[users, popular.start] * np.float32(raised[POPULARITY] * mean)
    n_crowd = max(len(others), len(made_new))
    standing = level_of_new(old, new, crowd, base, settings.cost_of_new, n_crowd)
    times, level = (1.0, 0.0) if standing is None else (standing.stretch, standing.level)
    # a part that new tracks need not is kept small, not lost: it can still rank alone
    factors = {name: max(times * shares[name] / raised[name], SMALL) for name in personal if raised[name] > 0}
    return Learned({**raised, NEW: level}, factors, standing)


def settle(
    learned: Learned,
    blend: Blend,
    user_vectors: Float32,
    item_vectors: Float32,
    plays: Plays,
    share_of_new: float | None = None,
) -> Blend:
    """Find the level for new tracks at which they stand among the played ones as they did where it was learned.

    As many new tracks get the same share of the places, fewer get fewer; of very few, or none, nothing can be told, and
    the level stays as learned. A share that is given is taken instead, however many there are.

    Args:
        learned: from held-out plays.
        blend: all parts, fitted on all plays and joined with what was learned.
        user_vectors: (n_users, d) of that blend.
        item_vectors: (n_items, d).
        plays: all of them.
        share_of_new: of the first 20 places of all users together, 0 to 1, that new tracks are to have.
    """
    standing, unplayed = learned.standing, plays.n_listeners == 0
    n_new = int(unplayed.sum())
    if share_of_new is not None and n_new and any(part.name == NEW for part in blend.parts):
        share = share_of_new
    elif share_of_new is None and standing is not None and n_new >= MIN_NEW:
        share = standing.share * min(1.0, n_new / standing.n_new)
    else:
        return blend
    users = evenly(plays.counts, np.ones(len(plays.user_ids), dtype=bool), SETTLED_ON, MIN_TRACKS)
    weights = {**learned.weights, NEW: 0.0}  # how high they would stand without a level of their own
    queries = blend.with_weights(weights).queries(user_vectors[users], np.ones(len(users), dtype=bool))
    left_out = (plays.counts[users], plays.barred[users])
    old, new = (
        top_k(queries, item_vectors, K, left_out, np.flatnonzero(marked).astype(np.int32)).scores
        for marked in (~unplayed, unplayed)
    )
    full = np.isfinite(old[:, -1]) & np.isfinite(new[:, 0])
    if not full.any():
        return blend
    return blend.with_weights({**learned.weights, NEW: level_at_share(old[full], new[full], share)})


def _rivals(
    pool: _Pool, users: NDArray[np.int64], weights: dict[str, float], among: NDArray[np.integer[Any]], depth: int
) -> Rivals:
    """The best of some items for users under some weights: scores and hits (n, depth), and how many are wanted."""
    plays = pool.held_out.kept
    queries = pool.blend.with_weights(weights).queries(pool.user_vectors[users], np.ones(len(users), dtype=bool))
    found = top_k(queries, pool.item_vectors, depth, (plays.counts[users], plays.barred[users]), among.astype(np.int32))
    marked = np.zeros(pool.item_vectors.shape[0], dtype=bool)
    marked[among] = True
    wanted = pool.held_out.pairs_of(marked)[users]
    hits = np.stack([np.isin(row, wanted[place].indices) for place, row in enumerate(found.items)])
    return Rivals(found.scores, hits, np.diff(wanted.indptr))
