"""A model and a panel in, the model as a ranker of the panel's rows out: how each kind of model is asked.

    Ranker, Panel  ->  peer_on  ->  Ranker of the panel's rows, or None where the model cannot rank for them
    Fitted, Panel  ->  served_on, ours_on, by_all_plays  ->  the same of the recommender, its parts, without order

Where the panel has moments, models that follow the listener are asked at these; others rank by all plays until then.
"""

from functools import partial

from eval.baselines.simple import At, Fitted, Folded, Folding, Following, FollowingFitted, Part, Ranker
from eval.metrics.panels import Panel
from eval.splitting.moments import Moments
from recsys.types import Candidates, Int32


def peer_on(ranker: Ranker, panel: Panel) -> Ranker | None:
    """A baseline on a panel."""
    if panel.moments is not None and isinstance(ranker, Following):
        return At(panel.moments, ranker.rank_at)
    if not panel.is_folded:
        return ranker
    return Folded(panel.heard, ranker.rank_folded) if isinstance(ranker, Folding) else None


def served_on(fitted: Fitted, panel: Panel) -> Ranker:
    """The recommender as it serves: at the panel's moments, where it has such, what comes next after the last plays."""
    if panel.moments is None or not isinstance(fitted, FollowingFitted):
        return ours_on(fitted, None, panel)
    return At(panel.moments, partial(_at, fitted))


def ours_on(fitted: Fitted, part: str | None, panel: Panel) -> Ranker:
    """One part of the recommender, or with None the blend; without moments."""
    if panel.is_folded:
        return Folded(panel.heard, partial(fitted.rank_folded, part=part))
    return Part(fitted, panel.heard.user_ids, part)


def by_all_plays(fitted: Fitted, panel: Panel) -> Ranker | None:
    """The recommender without regard to order; None where it does not follow or nobody asks at a time."""
    if panel.moments is None or not isinstance(fitted, FollowingFitted):
        return None
    return Folded(panel.moments, fitted.rank_folded)


def _at(fitted: FollowingFitted, moments: Moments, k: int, candidates: Int32 | None) -> Candidates:
    return fitted.rank_at(moments.counts, moments.histories, moments.now, k, candidates)
