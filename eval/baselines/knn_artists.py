"""Nearest neighbours and own artists together: the sum of two simple scores that know different things.

    knn score / its largest  +  artist_weight * plays of the user's artists / their largest  ->  ByScores

A track without plays has its artist alone.
"""

import numpy as np

from eval.baselines.artists import own_artist_scores
from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.features import BaselineData
from eval.baselines.knn import BM25_SPACE, knn_scores
from eval.baselines.rankers import ByScores
from eval.baselines.simple import Ranker
from recsys.types import Float32, Int32


def _fit(material: BaselineData, params: Params, seed: int) -> Ranker:
    by_neighbours = knn_scores(params["similarity"], material, params)
    by_artists = own_artist_scores(material, params["artist_value"])
    weight = np.float32(params["artist_weight"])

    def score(user_rows: Int32) -> Float32:
        return _to_one(by_neighbours(user_rows)) + weight * _to_one(by_artists(user_rows))

    return ByScores(material.plays, score, seed)


def _to_one(scores: Float32) -> Float32:
    """Scale each row >= 0 so that its largest is 1; empty rows stay empty."""
    largest = scores.max(axis=1, keepdims=True, initial=0)
    return np.asarray(scores / np.where(largest > 0, largest, 1), dtype=np.float32)


KNN_ARTISTS = Baseline(
    "knn-own-artists",
    _fit,
    {
        **BM25_SPACE,
        "similarity": Choice(("tfidf", "bm25", "cosine")),
        "artist_value": Choice(("log", "raw", "binary")),
        "artist_weight": Number(0.003, 10, 0.3, log=True),  # of the artist's score beside the neighbours'
    },
    ranks_cold=True,
    uses_features=True,
    needs="artists",
)
