"""Who would like a track most: one item vector against every user's own standard.

    item vector (d,), user queries (n_users, d), score_at_20 (n_users,)  ->  audience  ->  users and margins
    new item vectors (m, d), the last score of every list          ->  reach     ->  users whose lists they come into

Scores of two users cannot be compared as they are: the user whose usual favourites score high would always come
first. So each is compared with the score at place 20 of that user's own list, its edge.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.ranking.model import Model
from recsys.types import Float32, Int32

BLOCK = 65_536  # users at a time
SPARE = 200  # looked at besides those asked for, as some may have been deleted or have heard the track since


def audience(model: Model, vector: Float32, item: int, score_at_20: Float32, k: int) -> tuple[Int32, Float32]:
    """Rank users by how far a track's score lies above that of their own place 20.

    Args:
        model: of the users.
        vector: (d,) of the track.
        item: its row; users who played or disliked it are left out, and so are users without plays.
        score_at_20: (n_users,) of each list, -inf where a list is shorter.
        k: how many users.

    Returns:
        User rows and their margins, best first.
    """
    margins = np.full(len(model.users), -np.inf, dtype=np.float32)
    has_plays = model.has_plays
    for start in range(0, len(margins), BLOCK):
        rows = slice(start, start + BLOCK)
        users = np.asarray(model.user_vectors[rows], dtype=np.float32)
        margins[rows] = model.blend.queries(users, has_plays[rows]) @ vector - score_at_20[rows]
    out = ~has_plays | ~np.isfinite(score_at_20)
    for pairs in (model.counts, model.barred):
        out[_users_of(pairs, item)] = True
    margins[out] = -np.inf
    best = np.argsort(-margins, kind="stable")[:k]
    best = best[np.isfinite(margins[best])]
    return best.astype(np.int32), margins[best]


@dataclass(frozen=True, slots=True, eq=False)
class Reached:
    """The best users for one new track so far: their ``rows``, ``margins`` and ``scores`` (n,), best first."""

    rows: Int32
    margins: Float32
    scores: Float32

    @classmethod
    def nobody(cls) -> "Reached":
        """Nobody yet."""
        return cls(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.float32))

    def merged(self, rows: Int32, margins: Float32, scores: Float32, n: int) -> "Reached":
        """Take in further users; those with a margin of -inf are none. Ties go to who was there first."""
        good = margins > -np.inf
        if good.sum() > n:  # sort no more than may be among the best
            good &= margins >= np.partition(margins, len(margins) - n)[len(margins) - n]
        rows, margins, scores = (
            np.concatenate([mine, theirs[good]])
            for mine, theirs in ((self.rows, rows), (self.margins, margins), (self.scores, scores))
        )
        order = np.argsort(-margins, kind="stable")[:n]
        return Reached(rows[order], margins[order], scores[order])


def reach(
    model: Model, vectors: Float32, score_at_20: Float32, score_at_last: Float32, left_out: NDArray[np.bool_], n: int
) -> list[Reached]:
    """Find the users whose lists new tracks come into.

    Args:
        model: of the users.
        vectors: (m, d) of the tracks, a few at a time: a block of users is scored for all of them at once.
        score_at_20: (n_users,) score at place 20 of each list; a shorter list has -inf, and any track is welcome.
        score_at_last: (n_users,) score at the last place of each list that is full, -inf for the others; to be
        surpassed. left_out: (n_users,) who is not asked; users without plays never are. n: how many users a track, at
        most.

    Returns:
        For each track its users, those with the largest margins over their own score at place 20.
    """
    found = [Reached.nobody()] * len(vectors)
    out = ~model.has_plays | left_out
    weighted = vectors * model.blend.weights()  # instead of the users' vectors, of which there are many more
    for start in range(0, len(out), BLOCK):
        block = slice(start, start + BLOCK)
        scores = np.asarray(model.user_vectors[block] @ weighted.T, dtype=np.float32)
        rows = np.arange(start, start + len(scores), dtype=np.int32)
        margins = np.where(scores > score_at_last[block, None], scores - score_at_20[block, None], np.float32(-np.inf))
        margins[out[block]] = -np.inf
        found = [best.merged(rows, margins[:, at], scores[:, at], n) for at, best in enumerate(found)]
    return found


def _users_of(pairs: csr_matrix, item: int) -> Int32:
    """Rows that store a column, without turning the whole matrix."""
    places = np.flatnonzero(pairs.indices == item)
    return np.asarray(np.searchsorted(pairs.indptr, places, side="right") - 1, dtype=np.int32)
