"""Where tracks that nobody has played stand among the others: neither flooding the lists nor never in them.

    best played tracks, best new tracks of users, which of them are wanted  ->  level_of_new  ->  stretch, level

A new track's score is stretched and raised: stretch * score + level. Both are chosen on held-out plays: of all the
stretches, each with the highest level at which the recall of played tracks falls by no more than a given share, the one
that finds most new tracks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.types import Float32

K = 20
STRETCHES = (0.5, 0.7, 1.0)  # more make the level lean on the scale of scores, which differs from fit to fit
N_LEVELS = 60


@dataclass(frozen=True, slots=True, eq=False)
class Rivals:
    """The best of some items for n users: ``scores`` and ``hits`` (n, depth), -inf where a list ends, and how many of
    them are ``wanted`` (n,) in all.
    """

    scores: Float32
    hits: NDArray[np.bool_]
    wanted: NDArray[np.integer]


def level_of_new(old: Rivals, new: Rivals, crowd: Rivals, base: Float32, cost: float) -> tuple[float, float]:
    """Choose the stretch and the level of new tracks.

    Args:
        old: at least 20 played tracks a user.
        new: at least 20 new tracks a user, held-out pairs among them, with the scores that are to be stretched.
        crowd: as ``new``, of as many new tracks as the catalogue has; they decide what played ones lose.
        base: (n,) what a new track's score has besides.
        cost: the share of the recall@20 of played tracks that may be lost.

    Returns:
        Stretch and level; 1 and 0 where there is nothing to compare.
    """
    edge = -np.partition(-old.scores, K - 1, axis=1)[:, K - 1]  # the score of the 20th
    usable = np.isfinite(edge) & np.isfinite(crowd.scores[:, 0])
    if not usable.any():
        return 1.0, 0.0
    whole = _recalls(old, crowd, np.full_like(crowd.scores, -np.inf))[0]
    best, chosen = -1.0, (1.0, 0.0)
    for stretch in STRETCHES:
        theirs = crowd.scores * np.float32(stretch) + base[:, None]
        level = max(
            (
                level
                for level in _levels(edge[usable], theirs[usable])
                if _paid(whole, old, crowd, theirs + level, cost)
            ),
            default=float((edge - theirs[:, 0])[usable].min()),
        )
        found = float(
            _recalls(old, new, new.scores * np.float32(stretch) + base[:, None] + np.float32(level))[1].mean()
        )
        if found > best:
            best, chosen = found, (stretch, float(level))
    return chosen


def _levels(edge: Float32, scores: Float32) -> list[float]:
    """Levels from where no list has a new track to where every list has nothing else."""
    last = np.where(np.isfinite(scores), scores, np.inf).min(axis=1)
    gaps = np.concatenate([edge - scores[:, 0], edge - last])
    return [float(level) for level in np.quantile(gaps, np.linspace(0, 1, N_LEVELS))]


def _paid(whole: NDArray[np.float64], old: Rivals, crowd: Rivals, scores: Float32, cost: float) -> bool:
    """Whether played tracks lose no more than the cost, as far as these users can tell: less a standard error."""
    lost = whole - _recalls(old, crowd, scores)[0]
    return bool(lost.mean() - lost.std() / np.sqrt(len(lost)) <= cost * whole.mean())


def _recalls(old: Rivals, new: Rivals, scores: Float32) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall@20 of wanted played tracks and of wanted new ones, in lists of both, of each user who wants some."""
    joint = np.hstack([old.scores, scores])
    best = np.argpartition(-joint, K, axis=1)[:, :K] if joint.shape[1] > K else np.arange(joint.shape[1])[None]
    hits = np.hstack([old.hits, new.hits]) & np.isfinite(joint)
    is_new = best >= old.scores.shape[1]
    found = np.take_along_axis(hits, np.broadcast_to(best, (len(hits), best.shape[1])), axis=1)
    return _of_each(found & ~is_new, old.wanted), _of_each(found & is_new, new.wanted)


def _of_each(found: NDArray[np.bool_], wanted: NDArray[np.integer]) -> NDArray[np.float64]:
    asked = wanted > 0
    if not asked.any():
        return np.zeros(1)
    return np.asarray(found.sum(axis=1)[asked] / np.minimum(wanted[asked], K), dtype=np.float64)
