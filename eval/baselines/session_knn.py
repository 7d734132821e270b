"""Sessions like the one that is going on: V-SKNN, the best of the simple methods in its authors' comparison.

    Timeline    ->  sessions (n_sessions, n_items), 1 where a session holds a track
    last plays  ->  weights that fall with rank  ->  the K most alike sessions  ->  their tracks by likeness

Ludewig & Jannach, User Modeling and User-Adapted Interaction 28, 2018: the asker's last plays are a vector whose values
fall from 1 for the very last, by a line or here also by halves; likeness is the dot product with a session, over the
root of its length; a track's score is the sum of likeness over the nearest sessions that hold it. ``idf`` weighs a
shared track by log(sessions / sessions that hold it), as the authors' later code does.
"""

import numpy as np
from scipy.sparse import csr_matrix, diags

from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.features import BaselineData
from eval.baselines.following import ByMoments, recent, to_one
from eval.baselines.next_track import session_tracks
from eval.baselines.simple import Ranker
from eval.splitting.moments import Moments
from recsys.types import Histories


def _fit(material: BaselineData, params: Params, seed: int) -> Ranker:
    held = session_tracks(material.timeline, len(material.plays.track_ids))
    sizes = np.diff(held.indptr)
    held = csr_matrix(held[np.flatnonzero(sizes > 1)])
    rarity = np.log1p(held.shape[0] / np.maximum(np.bincount(held.indices, minlength=held.shape[1]), 1))
    weight = rarity if params["idf"] else np.ones(held.shape[1])
    short = diags(1 / np.sqrt(np.maximum(np.diff(held.indptr), 1)))
    likeness_of = csr_matrix((short @ held @ diags(weight)).T, dtype=np.float32)
    theirs = csr_matrix(held @ diags(np.maximum(held.sum(axis=0).A1, 1) ** -params["damp_wanted"]), dtype=np.float32)

    def score(moments: Moments) -> csr_matrix:
        last = recent(moments, params["half_life"], params["n_last"], linear=params["decay"] == "line")
        nearest = _largest(csr_matrix(last @ likeness_of), params["K"])
        return to_one(csr_matrix(nearest @ theirs, dtype=np.float32))

    histories = material.plays.histories or Histories.none(len(material.plays.user_ids))
    return ByMoments(material.plays, histories, score, seed)


def _largest(matrix: csr_matrix, k: int) -> csr_matrix:
    """Keep the k largest stored values of each row, of equal ones those of the higher column, which are later."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((-matrix.indices, -matrix.data, rows))
    kept = order[np.arange(len(rows)) - matrix.indptr[rows] < k]
    return csr_matrix((matrix.data[kept], (rows[kept], matrix.indices[kept])), shape=matrix.shape)


SESSION_KNN = Baseline(
    "session-knn",
    _fit,
    {
        "K": Number(20, 1000, 200, log=True, whole=True),
        "decay": Choice(("halves", "line")),
        "half_life": Number(0.3, 10, 3.0, log=True),
        "n_last": Choice((20, 10, 50)),
        "idf": Choice((1, 0)),
        "damp_wanted": Number(0, 1, 0.2),
    },
    needs="order",
    for_anyone=True,
)
