"""CEASE: EASE whose rows are users and also tags, genres, years and artists, which know tracks without plays as well.

    Plays X, features F (n_items, n_features)  ->  P = (X'X + weight^2 FF' + l2 I)^-1  ->  score = X B  ->  ByScores

Jeunen, Van Balen & Goethals, "Closed-Form Models for Collaborative Filtering with Side-Information", RecSys 2020: as if
each feature were one more listener, of all that has it. Items of two or more listeners predict, as in EASE. All others,
those without plays among them, are predicted by these: for such an item j the ridge is P (X'X + weight^2 FF')_j, which
needs no more memory. Sound is not read.
"""

import numpy as np
from scipy.sparse import csr_matrix, vstack

from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.ease import gram_of, inverse_of, predictors
from eval.baselines.features import BaselineData, valued, with_mean_one
from eval.baselines.rankers import ByScores
from eval.baselines.simple import Ranker
from recsys.types import Float32, Int32


def _fit(material: BaselineData, params: Params, seed: int) -> Ranker:
    plays = material.plays
    kept = predictors(plays.n_listeners)
    others = np.setdiff1d(np.arange(len(plays.track_ids)), kept)
    taste = with_mean_one(valued(plays.counts, params["value"]))
    features = with_mean_one(material.columns(params["tag_value"])).T * np.float32(params["feature_weight"])
    rows = csr_matrix(vstack([taste, features], format="csr", dtype=np.float32))
    known, asked = csr_matrix(rows[:, kept]), csr_matrix(rows[:, others])
    inverse = inverse_of(gram_of(known), params["l2"])
    diagonal = np.diag(inverse).copy()

    def score(user_rows: Int32) -> Float32:
        heard = known[user_rows]  # users come first among the rows
        spread = heard @ inverse
        matrix = np.empty((len(user_rows), len(plays.track_ids)), dtype=np.float32)
        matrix[:, kept] = heard.toarray() - spread / diagonal
        matrix[:, others] = (spread @ known.T) @ asked
        return matrix

    return ByScores(plays, score, seed)


CEASE = Baseline(
    "cease",
    _fit,
    {
        "l2": Number(3, 5000, 100, log=True),
        "feature_weight": Number(0.03, 10, 1, log=True),  # of a feature's row beside a user's
        "tag_value": Choice(("log", "binary", "raw")),
        "value": Choice(("log", "binary")),
    },
    ranks_cold=True,
    uses_features=True,
    needs="features",
)
