"""Item-based nearest neighbours on plays: cosine, TF-IDF and BM25 weights of ``implicit``.

    Plays  ->  the K most similar items of each (csr)  ->  score = plays of the user x similarity  ->  ByScores

Sarwar et al., WWW 2001; Deshpande & Karypis, TOIS 2004. A track without plays is similar to nothing.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.features import BaselineData, valued
from eval.baselines.rankers import ByScores
from eval.baselines.simple import Ranker
from recsys.types import Float32, Int32

KNN_SPACE: dict[str, Number | Choice] = {
    "K": Number(10, 1000, 200, log=True, whole=True),
    "item_value": Choice(("log", "binary", "raw")),  # of a play in the similarity
    "user_value": Choice(("binary", "log", "raw")),  # of a play in the score
}
BM25_SPACE: dict[str, Number | Choice] = {
    **KNN_SPACE,
    "K1": Number(0.1, 100, 1.2, log=True),
    "B": Number(0, 1, 0.75),
}


def _cosine(counts: csr_matrix, params: Params) -> Any:
    from implicit.nearest_neighbours import normalize

    return normalize(counts.T).T


def _tfidf(counts: csr_matrix, params: Params) -> Any:
    from implicit.nearest_neighbours import normalize, tfidf_weight

    return normalize(tfidf_weight(counts.T)).T


def _bm25(counts: csr_matrix, params: Params) -> Any:
    from implicit.nearest_neighbours import bm25_weight

    return bm25_weight(counts.T, params["K1"], params["B"]).T


def knn_scores(similarity: str, material: BaselineData, params: Params) -> Callable[[Int32], Float32]:
    """Find the neighbours of every item; returns what scores all items for some users.

    ``similarity`` is cosine, tfidf or bm25. Every row is made by itself, so threads do not matter.
    """
    from implicit.nearest_neighbours import ItemItemRecommender

    plays = material.plays
    model = ItemItemRecommender(K=params["K"])
    counts = valued(plays.counts, params["item_value"]).astype(np.float64)
    model.fit(csr_matrix(_WEIGHTED[similarity](counts, params)), show_progress=False)
    neighbours = csr_matrix(model.similarity, dtype=np.float32)
    taste = valued(plays.counts, params["user_value"])

    def score(user_rows: Int32) -> Float32:
        return np.asarray((taste[user_rows] @ neighbours).toarray(), dtype=np.float32)

    return score


def _fitted(similarity: str) -> Callable[[BaselineData, Params, int], Ranker]:
    def fit(material: BaselineData, params: Params, seed: int) -> Ranker:
        return ByScores(material.plays, knn_scores(similarity, material, params), seed)

    return fit


_WEIGHTED = {"cosine": _cosine, "tfidf": _tfidf, "bm25": _bm25}

COSINE = Baseline("knn-cosine", _fitted("cosine"), KNN_SPACE)
TFIDF = Baseline("knn-tfidf", _fitted("tfidf"), KNN_SPACE)
BM25 = Baseline("knn-bm25", _fitted("bm25"), BM25_SPACE)
