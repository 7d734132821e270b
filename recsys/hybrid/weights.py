"""How much each part counts, learned on plays that the parts have not seen.

    plays  ->  hold_out  ->  plays to fit on, pairs to predict
    parts fitted on the former, the pairs  ->  learn_weights  ->  weight by part name

Coordinate search over a few powers of two, by NDCG@20 among the best candidates of every part. It is the users' own
tracks that are held out, so a popular track is worth what it is worth to them.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.hybrid.blend import Blend, BlendSettings
from recsys.progress import Progress
from recsys.rank import top_k
from recsys.types import NO_ITEM, Float32, Int32, Plays

STEPS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0)
MIN_TRACKS = 5  # users with fewer keep all
DEPTH = 200  # candidates that each part names
K = 20


def hold_out(plays: Plays, settings: BlendSettings, seed: int) -> tuple[Plays, csr_matrix]:
    """Take a share of the tracks of some users out.

    Returns:
        The plays that stay, of the same shape, and the held-out pairs as csr bool (n_users, n_items).
    """
    rng = np.random.default_rng(seed)
    counts = plays.counts
    sizes = np.diff(counts.indptr)
    eligible = np.flatnonzero(sizes >= MIN_TRACKS)
    chosen = np.zeros(len(sizes), dtype=bool)
    chosen[rng.permutation(eligible)[: settings.validation_users]] = True
    user_of = np.repeat(np.arange(len(sizes)), sizes)
    out = chosen[user_of] & (rng.random(counts.nnz) < settings.validation_share)
    indices = counts.indices

    def matrix(keep: NDArray[np.bool_], data: NDArray[np.generic]) -> csr_matrix:
        return csr_matrix((data[keep], (user_of[keep], indices[keep])), shape=counts.shape)

    kept = Plays(matrix(~out, counts.data), plays.barred, plays.user_ids, plays.track_ids)
    return kept, matrix(out, np.ones(counts.nnz, dtype=bool))


def learn_weights(
    blend: Blend,
    user_vectors: Float32,
    item_vectors: Float32,
    plays: Plays,
    held_out: csr_matrix,
    settings: BlendSettings,
    progress: Progress,
) -> dict[str, float]:
    """Find the weights that rank the held-out pairs best; weights that the settings give stay as given.

    Args:
        blend: the joined parts, fitted on ``plays`` alone.
        user_vectors: (n_users, d).
        item_vectors: (n_items, d).
        plays: what the parts were fitted on; left out of the lists.
        held_out: csr (n_users, n_items), pairs to predict.
        settings: of the blend.
        progress: shows the search.

    Returns:
        A weight >= 0 by part name; 1 for all where nothing was held out.
    """
    fixed = {p.name: getattr(settings, p.name) for p in blend.parts}
    weights = {name: 1.0 if value is None else value for name, value in fixed.items()}
    free = [name for name, value in fixed.items() if value is None]
    users = np.flatnonzero(np.diff(held_out.indptr) * np.diff(plays.counts.indptr))
    if not len(users) or not free:
        return weights
    scores, wanted = _candidates(blend, user_vectors[users], item_vectors, plays, held_out, users)
    names = [p.name for p in blend.parts]
    n_wanted = np.minimum(np.diff(held_out.indptr)[users], K)
    best = _ndcg(scores, wanted, n_wanted, names, weights)
    with progress.bar("blend: weights", 2 * len(free), "searches") as bar:
        for _ in range(2):
            for name in free:
                for step in STEPS:
                    trial = {**weights, name: step}
                    if not any(trial.values()):
                        continue  # all scores equal: the order of the table would rank, and it may tell of popularity
                    value = _ndcg(scores, wanted, n_wanted, names, trial)
                    if value > best + 1e-6:
                        best, weights = value, trial
                bar.advance(note=f"NDCG@{K} {best:.4f}")
    return weights


def _candidates(
    blend: Blend,
    user_vectors: Float32,
    item_vectors: Float32,
    plays: Plays,
    held_out: csr_matrix,
    users: NDArray[np.int64],
) -> tuple[list[Float32], list[NDArray[np.bool_]]]:
    """Gather what any part would recommend: for each user the scores (n_parts, n) and which items are wanted (n,)."""
    left_out = (plays.counts[users], plays.barred[users])
    lists: list[Int32] = []
    has_plays = np.ones(len(users), dtype=bool)
    for part in blend.parts:
        queries = blend.queries(user_vectors, has_plays, part.name)
        lists.append(top_k(queries, item_vectors, DEPTH, left_out).items)
    scores, wanted = [], []
    for row, user in enumerate(users):
        items = np.unique(np.concatenate([found[row] for found in lists]))
        items = items[items != NO_ITEM]
        vectors = item_vectors[items]
        scores.append(
            np.stack([vectors[:, p.start : p.stop] @ user_vectors[row, p.start : p.stop] for p in blend.parts]).astype(
                np.float32
            )
        )
        wanted.append(np.isin(items, held_out[user].indices))
    return scores, wanted


def _ndcg(
    scores: list[Float32],
    wanted: list[NDArray[np.bool_]],
    n_wanted: NDArray[np.int64],
    names: list[str],
    weights: dict[str, float],
) -> float:
    vector = np.array([weights[name] for name in names], dtype=np.float32)
    discount = 1 / np.log2(np.arange(K) + 2)
    total = 0.0
    for parts, hits, n in zip(scores, wanted, n_wanted, strict=True):
        joint = vector @ parts
        best = np.argsort(-joint, kind="stable")[:K]
        total += float(discount[: len(best)] @ hits[best]) / float(discount[:n].sum())
    return total / len(scores)
