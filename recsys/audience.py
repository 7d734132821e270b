"""Who would like a track most: one item vector against every user's own standard.

    item vector (d,), user queries (n_users, d), edges (n_users,)  ->  audience  ->  users and margins

Scores of two users cannot be compared as they are: the user whose usual favourites score high would always come
first. So each is compared with the score at place 20 of that user's own list, its edge.
"""

import numpy as np
from scipy.sparse import csr_matrix

from recsys.model import Model
from recsys.types import Float32, Int32

BLOCK = 65_536  # users at a time


def audience(model: Model, vector: Float32, item: int, edges: Float32, k: int) -> tuple[Int32, Float32]:
    """Rank users by how far a track's score lies above their edge.

    Args:
        model: of the users.
        vector: (d,) of the track.
        item: its row; users who played or disliked it are left out, and so are users without plays.
        edges: (n_users,), -inf where a list is shorter.
        k: how many users.

    Returns:
        User rows and their margins, best first.
    """
    margins = np.full(len(model.users), -np.inf, dtype=np.float32)
    for start in range(0, len(margins), BLOCK):
        rows = slice(start, start + BLOCK)
        users = np.asarray(model.user_vectors[rows], dtype=np.float32)
        margins[rows] = model.blend.queries(users, model.has_plays[rows]) @ vector - edges[rows]
    out = ~model.has_plays | ~np.isfinite(edges)
    for pairs in (model.counts, model.barred):
        out[_users_of(pairs, item)] = True
    margins[out] = -np.inf
    best = np.argsort(-margins, kind="stable")[:k]
    best = best[np.isfinite(margins[best])]
    return best.astype(np.int32), margins[best]


def _users_of(pairs: csr_matrix, item: int) -> Int32:
    """Rows that store a column, without turning the whole matrix."""
    places = np.flatnonzero(pairs.indices == item)
    return np.asarray(np.searchsorted(pairs.indptr, places, side="right") - 1, dtype=np.int32)
