"""Factorisations of plays alone: ALS and BPR, both of ``implicit``.

    Plays  ->  user factors, item factors  ->  ByVectors

ALS: Hu, Koren & Volinsky, ICDM 2008, with c = 1 + scale * log(1 + plays), the scale being such that played pairs have
a given mean confidence. BPR: Rendle et al., UAI 2009.
"""

import numpy as np

from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.features import BaselineData
from eval.baselines.rankers import unplayed_last
from eval.baselines.simple import Ranker


def _fit_als(material: BaselineData, params: Params, seed: int) -> Ranker:
    factors = material.als(params["n_factors"], params["l2"], params["mean_confidence"], seed)
    return unplayed_last(material.plays, factors.user_factors, factors.item_factors)


def _fit_bpr(material: BaselineData, params: Params, seed: int) -> Ranker:
    """Fit on one thread: on more, their updates race and no two runs agree."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking
    from threadpoolctl import threadpool_limits

    plays = material.plays
    model = BayesianPersonalizedRanking(
        factors=params["n_factors"],
        learning_rate=params["learning_rate"],
        regularization=params["l2"],
        iterations=params["epochs"],
        num_threads=1,
        random_state=seed,
    )
    with threadpool_limits(1, "blas"):
        model.fit(plays.counts, show_progress=False)
    users = np.where(np.diff(plays.counts.indptr)[:, None] > 0, model.user_factors, 0).astype(np.float32)
    return unplayed_last(plays, users, np.asarray(model.item_factors, dtype=np.float32))


ALS = Baseline(
    "als",
    _fit_als,
    {
        "n_factors": Choice((64, 32, 48, 96, 128)),
        "l2": Number(0.5, 100, 10, log=True),
        "mean_confidence": Number(2, 100, 8, log=True),
    },
)
BPR = Baseline(
    "bpr",
    _fit_bpr,
    {
        "n_factors": Choice((64, 32, 128)),
        "learning_rate": Number(0.003, 0.1, 0.01, log=True),
        "l2": Number(1e-3, 0.1, 0.01, log=True),
        "epochs": Number(50, 400, 200, log=True, whole=True),
    },
)
