"""What follows what: how often tracks came next, and were heard together, within sessions of listening.

    Ordered plays (users, items, seconds)  ->  count_next  ->  NextTracks: up to 50 tracks for each, two strengths

A session ends where a user pauses for longer than a gap. ``follows`` is the share of the plays of a track after which
the other one was played next (a first-order Markov chain); ``together`` is the cosine of two tracks that lie at most
``window`` plays apart, so that popular ones do not follow everything. Plays without a time are in no session.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import coo_matrix, csr_matrix

from recsys.catalogue.histories import Ordered
from recsys.types import Float32, Int32
from recsys.util.settings import Settings

DEPTH = 50  # tracks that are kept for each
SHARE_OF_FOLLOWS = 0.6  # of the score of the space "next"; chosen on timed-plays, docs/research/findings-order.md


class NextSettings(Settings):
    """``[next]`` in the run's TOML file: what comes next, where times are known."""

    enabled: bool = True
    stored_lists: bool = False  # those of a build follow the last plays, too; new tracks lose by it
    session_gap_s: int = Field(default=1800, gt=0)  # a longer pause ends a session
    window: int = Field(default=10, ge=1)  # plays apart within which two tracks are heard together
    max_events: int = Field(default=2000, ge=0)  # of held-out plays that the weights are learned on
    never_played: float = Field(default=3.0, ge=0)  # tracks that nobody will ever play, for each new one that is played


@dataclass(frozen=True, slots=True, eq=False)
class NextTracks:
    """Tracks that followed others: those of item i lie from ``starts[i]`` to ``starts[i + 1]``, the strongest first.

    ``items`` (n,) int32 are never i itself; ``follows`` and ``together`` (n,) float32 lie in [0, 1].
    """

    starts: NDArray[np.int64]
    items: Int32
    follows: Float32
    together: Float32

    def of(self, item: int) -> slice:
        """Where the tracks of an item lie; nowhere for a row that is none of the catalogue's."""
        if item >= len(self.starts) - 1:
            return slice(0, 0)
        return slice(int(self.starts[item]), int(self.starts[item + 1]))

    def listed(self, first: int, last: int) -> tuple[NDArray[np.int64], Int32, Float32]:
        """Rank what tends to be played next after the items from ``first`` up to ``last``.

        Returns:
            How many tracks each item has (last - first,), rows of these tracks, item after item, the best first and of
            equal ones the lower row first, and their scores in [0, 1], a mix of both strengths.
        """
        starts = self.starts[first : last + 1]
        here, lengths = slice(int(starts[0]), int(starts[-1])), np.diff(starts)
        share = np.float32(SHARE_OF_FOLLOWS)
        scores = share * self.follows[here] + (1 - share) * self.together[here]
        order = np.lexsort((self.items[here], -scores, np.repeat(np.arange(len(lengths)), lengths)))
        return lengths, self.items[here][order], scores[order]

    def best(self, item: int) -> tuple[Int32, Float32]:
        """Rank what tends to be played next after an item, as ``listed``; nothing is known of an upload."""
        n_items = len(self.starts) - 1
        _, items, scores = self.listed(min(item, n_items), min(item + 1, n_items))
        return items, scores

    @classmethod
    def none(cls, n_items: int) -> "NextTracks":
        """Those of a catalogue of which no order is known."""
        nothing = np.zeros(0, np.float32)
        return cls(np.zeros(n_items + 1, np.int64), np.zeros(0, np.int32), nothing, nothing)


def count_next(plays: Ordered, n_items: int, settings: NextSettings) -> NextTracks:
    """Count which of ``n_items`` tracks followed which within sessions, and keep the strongest of each."""
    if len(plays) < 2:
        return NextTracks.none(n_items)
    breaks = (np.diff(plays.users) != 0) | (np.diff(plays.seconds) > settings.session_gap_s)
    session = np.concatenate([[0], np.cumsum(breaks)])
    together = csr_matrix((n_items, n_items), dtype=np.float32)
    follows = together
    for lag in range(1, settings.window + 1):
        pairs = _pairs(plays.items, session, lag, n_items)
        follows = pairs if lag == 1 else follows
        together = together + pairs + pairs.T
    n_plays = np.maximum(np.bincount(plays.items, minlength=n_items), 1).astype(np.float32)
    return _strongest(_shares(follows), _cosines(csr_matrix(together), n_plays), n_items)


def _pairs(items: Int32, session: NDArray[np.int64], lag: int, n_items: int) -> csr_matrix:
    """Count pairs of different tracks that lie ``lag`` plays apart in one session: (earlier, later)."""
    first, second = items[:-lag], items[lag:]
    here = (session[:-lag] == session[lag:]) & (first != second)
    ones = np.ones(int(here.sum()), dtype=np.float32)
    return coo_matrix((ones, (first[here], second[here])), shape=(n_items, n_items)).tocsr()


def _shares(counts: csr_matrix) -> csr_matrix:
    sums = np.asarray(counts.sum(axis=1)).ravel()
    shares = counts.copy()
    shares.data /= np.repeat(sums, np.diff(counts.indptr)).astype(np.float32)
    return shares


def _cosines(counts: csr_matrix, n_plays: Float32) -> csr_matrix:
    """Divide by what two tracks would have if each play of both were with the other; at most 1."""
    cosines = counts.copy()
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    cosines.data = np.minimum(counts.data / np.sqrt(n_plays[rows] * n_plays[counts.indices]), 1).astype(np.float32)
    return cosines


def _strongest(follows: csr_matrix, together: csr_matrix, n_items: int) -> NextTracks:
    """Keep for each track those with the largest sum of both strengths, ties by row."""
    total = csr_matrix(follows + together)
    rows = np.repeat(np.arange(n_items), np.diff(total.indptr))
    order = np.lexsort((total.indices, -total.data, rows))
    place = np.arange(len(order)) - np.repeat(total.indptr[:-1], np.diff(total.indptr))
    kept = order[place < DEPTH]
    rows, items = rows[kept], total.indices[kept].astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_items))]).astype(np.int64)
    return NextTracks(starts, items, _values(follows, rows, items), _values(together, rows, items))


def _values(matrix: csr_matrix, rows: NDArray[np.int64], columns: Int32) -> Float32:
    if not len(rows):  # scipy cannot look up nothing
        return np.zeros(0, np.float32)
    return np.asarray(matrix[rows, columns], dtype=np.float32).ravel()
