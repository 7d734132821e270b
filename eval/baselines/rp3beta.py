"""RP3beta: a walk of three steps from a user over items and their listeners, which popular ends get less of.

    Plays  ->  W = P_iu^a P_ui^a / listeners^beta, the K best of each item  ->  score = plays x W  ->  ByScores

Paudel, Christoffel, Newell & Bernstein, "Updatable, Accurate, Diverse, and Scalable Recommendations for Interactive
Applications", TiiS 2017, as in Ferrari Dacrema, Cremonesi & Jannach, RecSys 2019: each transition to the power of a.
"""

import numpy as np
from scipy.sparse import csr_matrix, diags, vstack

from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.features import BaselineData, valued
from eval.baselines.lightfm import most_weighty, sums_to_one
from eval.baselines.rankers import ByScores
from eval.baselines.simple import Ranker
from recsys.types import Float32, Int32

_BLOCK_ITEMS = 2048  # whose walks are held at a time


def _fit(material: BaselineData, params: Params, seed: int) -> Ranker:
    plays = material.plays
    walks = _walks(valued(plays.counts, params["value"]), params)
    taste = valued(plays.counts, params["user_value"])

    def score(user_rows: Int32) -> Float32:
        return np.asarray((taste[user_rows] @ walks).toarray(), dtype=np.float32)

    return ByScores(plays, score, seed)


def _walks(taste: csr_matrix, params: Params) -> csr_matrix:
    """Find where walks from each item end (n_items, n_items), K places a row and none of them the item itself."""
    to_items = _powered(sums_to_one(taste), params["power"])
    to_users = _powered(sums_to_one(csr_matrix(taste.T)), params["power"])
    listeners = np.bincount(taste.indices, minlength=taste.shape[1])
    damped = to_items @ diags(np.maximum(listeners, 1).astype(np.float32) ** np.float32(-params["beta"]))
    blocks = []
    for start in range(0, taste.shape[1], _BLOCK_ITEMS):
        ends = csr_matrix(to_users[start : start + _BLOCK_ITEMS] @ damped)
        at_home = np.repeat(np.arange(ends.shape[0]) + start, np.diff(ends.indptr)) == ends.indices
        ends.data[at_home] = 0
        ends.eliminate_zeros()
        blocks.append(most_weighty(ends, params["K"]))
    walks = csr_matrix(vstack(blocks, format="csr", dtype=np.float32))
    return sums_to_one(walks) if params["scaled_to"] == "sum" else walks


def _powered(transitions: csr_matrix, power: float) -> csr_matrix:
    return csr_matrix((transitions.data**power, transitions.indices, transitions.indptr), shape=transitions.shape)


RP3BETA = Baseline(
    "rp3beta",
    _fit,
    {
        "K": Number(10, 1000, 200, log=True, whole=True),
        "power": Number(0.3, 2, 0.8),
        "beta": Number(0, 1, 0.3),
        "value": Choice(("log", "binary")),  # of a play in the walk
        "user_value": Choice(("binary", "log")),  # of a play in the score
        "scaled_to": Choice(("nothing", "sum")),  # an item's row: as it is, sum 1
    },
)
