"""Ridge from features to ALS factors: a cold track gets the factors that tracks like it have.

    ALS factors of played tracks, features  ->  weighted ridge  ->  f(features) of cold tracks  ->  ByVectors

Gantner et al., ICDM 2010 (attribute-to-factor mapping); van den Oord et al., NIPS 2013, with a linear map. A played
track keeps its own factors. Users are solved once more, with a confidence of their own.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_matrix, hstack

from eval.baselines.artists import ALS_CHOICES
from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.features import BaselineData, confidence_scale_of
from eval.baselines.rankers import ByVectors
from eval.baselines.simple import Ranker
from recsys.cf.als import confidence, solve_rows
from recsys.types import Float32

MAX_COLUMNS = 6000  # normal equations in double precision: 288 MB


def _fit(material: BaselineData, params: Params, seed: int) -> Ranker:
    plays = material.plays
    factors = material.als(params["n_factors"], params["l2"], params["mean_confidence"], seed)
    listeners = plays.n_listeners
    played = np.flatnonzero(listeners)
    columns = feature_columns(material, params, played)
    weight = listeners[played] / (listeners[played] + params["exposure"])
    weights = _solve(csr_matrix(columns[played]), factors.item_factors[played], weight, params["ridge_l2"])
    predicted = np.asarray(columns @ weights[:-1] + weights[-1], dtype=np.float32)
    items = np.where((listeners > 0)[:, None], factors.item_factors, predicted).astype(np.float32)
    seen = predicted if params["users_from"] == "predicted" else items
    pairs = confidence(plays.counts, confidence_scale_of(plays.counts, params["user_confidence"]))
    gram = seen[played].T @ seen[played]
    users = solve_rows(pairs, seen, gram, params["user_l2"])
    users[np.diff(plays.counts.indptr) == 0] = 0
    return ByVectors(plays, users, items)


def feature_columns(material: BaselineData, params: Params, played: NDArray[np.int64]) -> csr_matrix:
    """Join metadata columns that a played track shares with any other, the most frequent ``MAX_COLUMNS``, and sound."""
    columns = material.columns(params["tag_value"], params["artist_weight"])
    shared = np.bincount(columns.indices, minlength=columns.shape[1]) >= 2
    frequency = np.bincount(csr_matrix(columns[played]).indices, minlength=columns.shape[1]) * shared
    kept = np.argsort(-frequency, kind="stable")[:MAX_COLUMNS]
    kept = np.sort(kept[frequency[kept] > 0])
    sound = csr_matrix(material.sound * np.float32(params["sound_weight"]))
    return csr_matrix(hstack([columns[:, kept], sound], format="csr", dtype=np.float32))


def _solve(columns: csr_matrix, targets: Float32, weight: NDArray[np.float64], l2: float) -> Float32:
    """Solve the weighted normal equations; the intercept, last (F + 1, f), is not shrunk."""
    ones = np.ones((columns.shape[0], 1), dtype=np.float32)
    design = csr_matrix(hstack([columns, csr_matrix(ones)], format="csr"))
    weighted = csr_matrix(design.multiply(weight[:, None]))
    normal = (weighted.T @ design).toarray().astype(np.float64)
    normal[np.diag_indices(len(normal) - 1)] += l2
    normal[-1, -1] += 1e-6
    right = np.asarray(weighted.T @ targets.astype(np.float64))
    return np.asarray(cho_solve(cho_factor(normal, overwrite_a=True), right), dtype=np.float32)


RIDGE = Baseline(
    "ridge",
    _fit,
    {
        **ALS_CHOICES,
        "ridge_l2": Number(0.3, 300, 10, log=True),
        "exposure": Number(0.1, 10, 1, log=True),  # listeners at which a track counts half
        "tag_value": Choice(("log", "binary", "raw")),
        "artist_weight": Number(0.3, 3, 1, log=True),
        "sound_weight": Number(0.1, 3, 1, log=True),
        "user_confidence": Number(2, 60, 8, log=True),
        "user_l2": Number(0.3, 50, 10, log=True),
        "users_from": Choice(("factors", "predicted")),
    },
    ranks_cold=True,
    uses_features=True,
    needs="features",
)
