"""What comes next: tracks that followed the last ones, that stood in one session with them, and their artists' tracks.

    Timeline                     ->  transitions  (n_items, n_items), damped counts of what followed what
                                 ->  together     (n_items, n_items), damped counts of sessions that hold both
    last plays x these, artists  ->  ByMoments

The last plays count by recency, 2^-(rank / half-life). Counts are damped by popularity: divided by a power of how often
the one and the other track occur. Each of the three is brought to [0, 1] in a list before they are added up. First
steps of first-order Markov chains as in Rendle et al., WWW 2010; sessions as item-to-item counts as in Hidasi et al.,
ICLR 2016, where they are the baseline.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags

from eval.baselines.artists import artist_or_self, one_hot_artists
from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.features import BaselineData
from eval.baselines.following import ByMoments, recent, to_one
from eval.baselines.simple import Ranker
from eval.baselines.timeline import Timeline
from eval.splitting.moments import Moments
from recsys.types import Histories

_MOST_IN_SESSION = 100  # distinct tracks of a session that are paired: a day of radio would make 10,000s of pairs


def transitions(timeline: Timeline, n_items: int, reach: int = 1, backward: float = 0.0) -> csr_matrix:
    """Count what followed what within a session, one step apart for 1, up to ``reach`` steps for 1 / steps each.

    ``backward`` is the worth of the same pair the other way round.
    """
    total = csr_matrix((n_items, n_items), dtype=np.float32)
    for step in range(1, reach + 1):
        before, after = timeline.follows(step)
        total = total + csr_matrix((np.full(len(before), 1 / step, np.float32), (before, after)), shape=total.shape)
    return csr_matrix(total + backward * total.T, dtype=np.float32) if backward else csr_matrix(total)


def together(timeline: Timeline, n_items: int) -> csr_matrix:
    """Count the sessions that hold two tracks, 0 on the diagonal."""
    held = session_tracks(timeline, n_items)
    sizes = np.diff(held.indptr)
    usual = held[np.flatnonzero((sizes > 1) & (sizes <= _MOST_IN_SESSION))]
    pairs = csr_matrix(usual.T @ usual)
    pairs.setdiag(0)
    pairs.eliminate_zeros()
    return pairs


def session_tracks(timeline: Timeline, n_items: int) -> csr_matrix:
    """Which tracks a session holds: (n_sessions, n_items), 1 each."""
    session = timeline.sessions()
    shape = (int(session[-1]) + 1 if len(session) else 0, n_items)
    held = csr_matrix((np.ones(len(session), np.float32), (session, timeline.items)), shape=shape)
    held.data[:] = 1
    return held


def damped(pairs: csr_matrix, occurs: NDArray[np.integer], given: float, wanted: float) -> csr_matrix:
    """Divide counts by powers of how often the track that is given (row) and the one that is wanted (column) occur."""
    often = np.maximum(occurs, 1).astype(np.float32)
    return csr_matrix(diags(often**-given) @ pairs @ diags(often**-wanted), dtype=np.float32)


class _Parts:
    """The three scores of requests, each csr (n, n_items) in [0, 1]."""

    def __init__(self, material: BaselineData, params: Params) -> None:
        self._params = params
        n_items = len(material.plays.track_ids)
        occurs = np.bincount(material.timeline.items, minlength=n_items)
        given, wanted = params.get("damp_given", 0.5), params.get("damp_wanted", 0.5)
        if params.get("transitions", 0):
            pairs = transitions(material.timeline, n_items, params.get("reach", 1), params.get("backward", 0.0))
            self._next = damped(pairs, occurs, given, wanted)
        if params.get("sessions", 0):
            self._together = damped(together(material.timeline, n_items), occurs, given, wanted)
        if params.get("artists", 0):
            self._artists = one_hot_artists(artist_or_self(material))
            listeners = material.plays.n_listeners.astype(np.float32)
            popularity = np.log1p(listeners) / max(float(np.log1p(listeners.max(initial=0))), 1e-9)
            popular = params.get("popular", 0.0)
            self._tracks_of = csr_matrix(self._artists.T @ diags(1 - popular + popular * popularity), dtype=np.float32)

    def score(self, moments: Moments) -> csr_matrix:
        params = self._params
        total = csr_matrix(moments.counts.shape, dtype=np.float32)
        last = recent(moments, params.get("half_life", 2.0), params.get("n_last", 10))
        if params.get("transitions", 0):
            total = total + np.float32(params["transitions"]) * to_one(csr_matrix(last @ self._next))
        if params.get("sessions", 0):
            total = total + np.float32(params["sessions"]) * to_one(csr_matrix(last @ self._together))
        if params.get("artists", 0):
            half_life = params.get("artist_half_life", params.get("half_life", 2.0))
            own = to_one(csr_matrix(recent(moments, half_life, params.get("n_last", 10)) @ self._artists))
            total = total + np.float32(params["artists"]) * csr_matrix(own @ self._tracks_of)
        return csr_matrix(total, dtype=np.float32)


def _fit(material: BaselineData, params: Params, seed: int) -> Ranker:
    parts = _Parts(material, params)
    histories = material.plays.histories or Histories.none(len(material.plays.user_ids))
    return ByMoments(material.plays, histories, parts.score, seed)


def _only(name: str) -> "dict[str, Number | Choice]":
    return {name: Choice((1.0,))}


_RECENCY: dict[str, Number | Choice] = {
    "half_life": Number(0.3, 10, 2.0, log=True),  # in plays
    "n_last": Choice((10, 5, 20)),
}
_DAMPING: dict[str, Number | Choice] = {"damp_given": Number(0, 1, 0.5), "damp_wanted": Number(0, 1, 0.3)}
_STEPS: dict[str, Number | Choice] = {"reach": Choice((1, 2, 3, 5)), "backward": Number(0, 1, 0.2)}

TRANSITIONS = Baseline(
    "transitions", _fit, {**_only("transitions"), **_RECENCY, **_DAMPING, **_STEPS}, needs="order", for_anyone=True
)
SESSIONS = Baseline(
    "session-co-listening", _fit, {**_only("sessions"), **_RECENCY, **_DAMPING}, needs="order", for_anyone=True
)
RECENT_ARTISTS = Baseline(
    "recent-artists",
    _fit,
    {**_only("artists"), **_RECENCY, "popular": Number(0, 1, 0.3)},
    ranks_cold=True,
    uses_features=True,
    needs="order-and-artists",
    for_anyone=True,
)
NEXT_SUM = Baseline(
    "next-sum",
    _fit,
    {
        "transitions": Number(0.1, 3, 1.0, log=True),
        "sessions": Number(0.1, 3, 1.0, log=True),
        "artists": Number(0.1, 3, 1.0, log=True),
        **_RECENCY,
        **_DAMPING,
        **_STEPS,
        "artist_half_life": Number(0.3, 10, 2.0, log=True),
        "popular": Number(0, 1, 0.3),
    },
    ranks_cold=True,
    uses_features=True,
    needs="order-and-artists",
    for_anyone=True,
)
