"""EASE: the item-item weights that best give back each user's plays, in closed form.

    Plays  ->  P = (X'X + l2 I)^-1  ->  B = -P / diag(P), zero diagonal  ->  score = X B  ->  ByScores

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019. Time grows with the cube of the items and
memory with their square, so it runs on items of two or more listeners, the ``MAX_ITEMS`` most heard of them.
"""

import numpy as np
from scipy.linalg.lapack import spotrf, spotri

from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.features import BaselineData, valued
from eval.baselines.rankers import ByScores
from eval.baselines.simple import Ranker
from recsys.errors import DataError
from recsys.types import Float32, Int32

MAX_ITEMS = 12_000  # two matrices of 576 MB
_BLOCK_ROWS = 1024


def _fit(material: BaselineData, params: Params, seed: int) -> Ranker:
    plays = material.plays
    listeners = plays.n_listeners
    shared = np.flatnonzero(listeners >= 2)
    kept = np.sort(shared[np.argsort(-listeners[shared], kind="stable")][:MAX_ITEMS])
    taste = valued(plays.counts, params["value"])[:, kept]
    weights = _weights(taste, params["l2"])

    def score(user_rows: Int32) -> Float32:
        matrix = np.zeros((len(user_rows), len(plays.track_ids)), dtype=np.float32)
        matrix[:, kept] = taste[user_rows] @ weights
        return matrix

    return ByScores(plays, score, seed)


def _weights(taste: "np.ndarray", l2: float) -> Float32:
    """Solve for B (n, n) float32 in place of the Gram matrix: the inverse of its Cholesky factor, n^3 operations."""
    gram = np.asfortranarray((taste.T @ taste).toarray(), dtype=np.float32)
    if not len(gram):
        return gram
    gram[np.diag_indices(len(gram))] += np.float32(l2)
    factor, failed = spotrf(gram, lower=1, overwrite_a=1)
    inverse, failed_too = spotri(factor, lower=1, overwrite_c=1)
    if failed or failed_too:
        raise DataError(f"EASE found no inverse with l2 = {l2:g} in single precision; give a larger l2")
    for start in range(0, len(inverse), _BLOCK_ROWS):  # only the lower half is filled in
        end = start + _BLOCK_ROWS
        corner = inverse[start:end, start:end]
        inverse[start:end, start:end] = np.tril(corner) + np.tril(corner, -1).T
        inverse[start:end, end:] = inverse[end:, start:end].T
    weights = inverse.T  # the same matrix, row by row in memory
    weights /= -np.diag(weights).copy()
    weights[np.diag_indices(len(weights))] = 0
    return np.ascontiguousarray(weights)


EASE = Baseline("ease", _fit, {"l2": Number(10, 5000, 200, log=True), "value": Choice(("binary", "log"))})
