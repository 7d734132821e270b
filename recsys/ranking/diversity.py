"""Variety in a list: at most so many tracks of an artist, and fewer tracks that are alike.

    candidates, best first  ->  cap per artist, looking deeper where that leaves too few  ->  MMR  ->  the list

Re-ranking by maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998). A track keeps its own score, so that a
list with diversity is not in the order of its scores. Where candidates come from is not known here.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recsys.types import Float32, Int32
from recsys.util.settings import Settings

POOL = 200  # candidates that MMR chooses from, whatever k: so a shorter list is the beginning of a longer one
DEEPER = 4  # times as many candidates are looked at where a cap leaves too few


class Variety(Settings):
    """``[lists.popular]``: how varied a list must be."""

    max_per_artist: int | None = Field(default=None, ge=1)  # tracks without a known artist always may
    diversity: float = Field(default=0.0, ge=0, le=1)  # 0: by score alone; 1: after the first by unlikeness alone

    @property
    def plain(self) -> bool:
        """Whether lists stay as they were ranked."""
        return self.max_per_artist is None and self.diversity == 0


class ListSettings(Variety):
    """``[lists]`` in the run's TOML file: of the stored lists, and of those that are asked for without saying.

    ``popular`` is for users without plays: nothing is known of their taste, so they are shown several. Its cap gives
    way where the catalogue has too few artists; one that was asked for does not.
    """

    popular: Variety = Variety(max_per_artist=2, diversity=0.3)

    def usual(self, personal: bool) -> Variety:
        """What lists of users with plays, or of the others, keep to."""
        return Variety(max_per_artist=self.max_per_artist, diversity=self.diversity) if personal else self.popular


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Candidates of one list, as deep as is asked for, and what is known of them.

    ``best(n)`` gives up to n item rows and their scores, best first, and fewer only where there are no more.
    ``artists`` names the artist of each row, None where not known; ``likeness`` gives unit vectors (n, d).
    ``unknown`` marks the rows of which nothing is known, (n,): ``best`` gives them last, and so they stay.
    """

    best: Callable[[int], tuple[Int32, Float32]]
    artists: Callable[[Int32], Sequence[Hashable | None]]
    likeness: Callable[[Int32], Float32]
    unknown: Callable[[Int32], NDArray[np.bool_]] = lambda items: np.zeros(len(items), dtype=bool)


def choose(source: Source, k: int, variety: Variety, *, fill: bool = False) -> tuple[Int32, Float32]:
    """Choose a list of k tracks.

    Args:
        source: of the candidates.
        k: length of the list; shorter only where the whole catalogue holds no more that are allowed.
        variety: what the list must keep to.
        fill: let tracks beyond the cap follow at the end rather than give a shorter list.

    Returns:
        Item rows and their scores, in the order of the list.
    """
    wanted = k if variety.diversity == 0 else max(k, POOL)
    depth = max(k, POOL)
    while True:
        items, scores = source.best(depth)
        kept = list(range(len(items)))
        if variety.max_per_artist is not None:
            kept = cap_per_artist(source.artists(items), variety.max_per_artist)
        if len(kept) >= wanted or len(items) < depth:
            break
        depth *= DEEPER
    order = np.array(kept[:wanted], dtype=np.int64)
    if variety.diversity == 0 and not (fill and len(order) < k):
        return items[order[:k]], scores[order[:k]]
    is_unknown = source.unknown(items)
    order, last = order[~is_unknown[order]], [order[is_unknown[order]]]
    if variety.diversity > 0:
        order = order[mmr(scores[order], source.likeness(items[order]), k, variety.diversity)]
    if fill:
        spare = np.setdiff1d(np.arange(len(items)), kept)
        last = [spare[~is_unknown[spare]], *last, spare[is_unknown[spare]]]
    order = np.concatenate([order, *last])[:k]
    return items[order], scores[order]


def cap_per_artist(artists: Sequence[Hashable | None], at_most: int, k: int | None = None) -> list[int]:
    """Say which places of a list stay, the first k of them, when an artist may appear ``at_most`` times.

    Unknown artists always may.
    """
    seen: dict[Hashable, int] = {}
    kept = []
    for place, artist in enumerate(artists):
        if artist is not None:
            seen[artist] = seen.get(artist, 0) + 1
            if seen[artist] > at_most:
                continue
        kept.append(place)
        if len(kept) == k:
            break
    return kept


def mmr(scores: Float32, likeness: Float32, k: int, diversity: float) -> Int32:
    """Order candidates by (1 - diversity) * score - diversity * cosine to the most alike that is already chosen.

    Scores have no unit, so they are brought to 0 (the worst candidate) to 1 (the best); likeness is a cosine.

    Args:
        scores: (n,), best first.
        likeness: (n, d) unit vectors.
        k: how many are chosen, one after the other.
        diversity: 0 to 1.

    Returns:
        Places of the chosen candidates (min(k, n),), in order; equal gains go to the better score.
    """
    if not len(scores):
        return np.zeros(0, dtype=np.int32)
    span = float(np.ptp(scores))
    gains = (1 - diversity) * (scores - scores.min()) / (span or 1.0)
    alike = diversity * (likeness @ likeness.T)
    chosen = [int(np.argmax(gains))]
    nearest = alike[chosen[0]].copy()
    for _ in range(min(k, len(scores)) - 1):
        nearest[chosen[-1]] = np.inf  # chosen once
        chosen.append(int(np.argmax(gains - nearest)))
        nearest = np.maximum(nearest, alike[chosen[-1]])
    return np.array(chosen, dtype=np.int32)
