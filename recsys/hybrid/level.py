"""Where tracks that nobody has played stand among the others: neither flooding the lists nor never in them.

    best played tracks, best new tracks of users, which of them are wanted  ->  level_of_new  ->  Standing
    Standing, joint vectors of another fit  ->  level_at_share  ->  the level there

A new track's score is stretched and raised: stretch * score + level. Both are chosen on held-out plays: of all the
stretches, each with the highest level at which the recall of played tracks falls by no more than a given share, the one
that finds most new tracks. A level is in the units of scores, which differ from fit to fit; what carries over is the
share of the places at the top that new tracks get.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.types import Float32

K = 20
STRETCHES = (0.5, 0.7, 1.0)  # more make the level lean on the scale of scores, which differs from fit to fit
# of the places at the top: as few as one list in a hundred has one, to all of them
SHARES = (0.0, *np.geomspace(0.01 / K, 1, 59).tolist())
BELOW = 1e-3  # the closest that a new track comes to the edge where none is shown


@dataclass(frozen=True, slots=True)
class Standing:
    """How new tracks stand: what their scores are multiplied by and raised by, and what comes of it.

    ``share``: of the 20 places of the lists, those that ``n_new`` new tracks have.
    """

    stretch: float
    level: float
    share: float
    n_new: int


@dataclass(frozen=True, slots=True, eq=False)
class Rivals:
    """The best of some items for n users: ``scores`` and ``hits`` (n, depth), -inf where a list ends, and how many of
    them are ``wanted`` (n,) in all.
    """

    scores: Float32
    hits: NDArray[np.bool_]
    wanted: NDArray[np.integer]


def level_of_new(old: Rivals, new: Rivals, crowd: Rivals, base: Float32, cost: float, n_new: int) -> Standing | None:
    """Choose the stretch and the level of new tracks.

    Args:
        old: at least 20 played tracks a user.
        new: at least 20 new tracks a user, held-out pairs among them, with the scores that are to be stretched.
        crowd: as ``new``, of as many new tracks as the catalogue has; they decide what played ones lose.
        base: (n,) what a new track's score has besides.
        cost: the share of the recall@20 of played tracks that may be lost.
        n_new: how many tracks the crowd was taken from.

    Returns:
        How new tracks stand, None where there is nothing to compare.
    """
    usable = np.isfinite(old.scores[:, K - 1]) & np.isfinite(crowd.scores[:, 0])
    if not usable.any():
        return None
    whole = _recalls(old, crowd, np.full_like(crowd.scores, -np.inf))[0]
    most, best = -1.0, None
    for stretch in STRETCHES:
        theirs = crowd.scores * np.float32(stretch) + base[:, None]
        levels = [level_at_share(old.scores[usable], theirs[usable], share) for share in SHARES]
        affordable = [
            place for place, level in enumerate(levels) if _paid(whole, old, crowd, theirs + np.float32(level), cost)
        ]
        place = max(affordable, default=0)
        level = levels[place]
        found = _recalls(old, new, new.scores * np.float32(stretch) + base[:, None] + np.float32(level))[1].mean()
        if found > most:
            most, best = float(found), Standing(stretch, level, SHARES[place], n_new)
    return best


def level_at_share(old: Float32, new: Float32, share: float) -> float:
    """Find the level at which new tracks get a share of the places at the top.

    The j-th best new track of a user is among the 20 best as soon as it passes the (21 - j)-th played one, so the
    levels at which places are lost are all known, and the one looked for is a quantile of them.

    Args:
        old: (n, at least 20) scores of the best played tracks of users, falling.
        new: (n, m) of the best new ones, falling; -inf where a list ends.
        share: of the n * 20 places, 0 to 1.

    Returns:
        The level, to be added to the scores of all new tracks.
    """
    depth = min(K, new.shape[1])
    gaps = (old[:, K - depth : K][:, ::-1] - new[:, :depth]).astype(np.float64)
    passed = np.sort(gaps[np.isfinite(new[:, :depth])])
    n_shown = min(round(share * K * len(old)), len(passed))
    if n_shown == 0:
        return float(passed[0]) - BELOW
    if n_shown == len(passed):
        return float(passed[-1]) + BELOW
    return float(passed[n_shown - 1] + passed[n_shown]) / 2


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
