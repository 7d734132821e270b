"""EASE: the item-item weights that best give back each user's plays, in closed form.

    Plays  ->  P = (X'X + l2 I)^-1  ->  B = -P / diag(P), zero diagonal  ->  score = X B  ->  ByScores

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019. Time grows with the cube of the items and
memory with their square, so it runs on items of two or more listeners, the ``MAX_ITEMS`` most heard of them. Values of
plays are 1 on the mean, so that one range of l2 fits any set: 1,500 for log(1 + plays) of 5.5 on the mean is 50 here.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import spotrf, spotri
from scipy.sparse import csr_matrix

from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.features import BaselineData, valued, with_mean_one
from eval.baselines.rankers import ByScores
from eval.baselines.simple import Ranker
from recsys.errors import DataError
from recsys.types import Float32, Int32

MAX_ITEMS = 12_000  # one matrix of 576 MB, and parts of it
_BLOCK_ROWS = 1024


def _fit(material: BaselineData, params: Params, seed: int) -> Ranker:
    plays = material.plays
    kept = predictors(plays.n_listeners)
    taste = csr_matrix(with_mean_one(valued(plays.counts, params["value"]))[:, kept])
    weights = _weights(taste, params["l2"])

    def score(user_rows: Int32) -> Float32:
        matrix = np.zeros((len(user_rows), len(plays.track_ids)), dtype=np.float32)
        matrix[:, kept] = taste[user_rows] @ weights
        return matrix

    return ByScores(plays, score, seed)


def predictors(listeners: Int32) -> NDArray[np.int64]:
    """Choose the items that predict others: those of two or more listeners, the ``MAX_ITEMS`` most heard; ascending."""
    shared = np.flatnonzero(listeners >= 2)
    return np.sort(shared[np.argsort(-listeners[shared], kind="stable")][:MAX_ITEMS])


def gram_of(rows: csr_matrix) -> Float32:
    """Multiply rows (n_rows, n) with themselves: X'X (n, n) float32, a block at a time as it is often full."""
    gram = np.empty((rows.shape[1], rows.shape[1]), dtype=np.float32)
    columns = csr_matrix(rows.T)
    for start in range(0, len(gram), _BLOCK_ROWS):
        gram[start : start + _BLOCK_ROWS] = (columns[start : start + _BLOCK_ROWS] @ rows).toarray()
    return gram


def inverse_of(gram: Float32, l2: float) -> Float32:
    """Invert X'X + l2 I (n, n) in place of X'X, through its Cholesky factor: n^3 operations.

    Raises:
        DataError: l2 is too small for single precision.
    """
    if not len(gram):
        return gram
    gram[np.diag_indices(len(gram))] += np.float32(l2)
    factor, failed = spotrf(gram.T, lower=1, overwrite_a=1)  # the same matrix, column by column in memory
    inverse, failed_too = spotri(factor, lower=1, overwrite_c=1)
    if failed or failed_too:
        raise DataError(f"EASE found no inverse with l2 = {l2:g} in single precision; give a larger l2")
    for start in range(0, len(inverse), _BLOCK_ROWS):  # only the lower half is filled in
        end = start + _BLOCK_ROWS
        corner = inverse[start:end, start:end]
        inverse[start:end, start:end] = np.tril(corner) + np.tril(corner, -1).T
        inverse[start:end, end:] = inverse[end:, start:end].T
    return np.ascontiguousarray(inverse.T)


def _weights(taste: csr_matrix, l2: float) -> Float32:
    """Solve for B (n, n) float32, whose diagonal is zero."""
    weights = inverse_of(gram_of(taste), l2)
    weights /= -np.diag(weights).copy()
    weights[np.diag_indices(len(weights))] = 0
    return weights


EASE = Baseline(
    "ease",
    _fit,
    {"l2": Number(3, 5000, 100, log=True), "value": Choice(("log", "binary"))},
)
