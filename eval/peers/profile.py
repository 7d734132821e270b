"""Content profile: a user is the mean of what they played, and tracks near it in content rank first.

    tags (TF-IDF), genres, years, artist, sound  ->  one vector a track  ->  cosine with the user's mean  ->  ByScores

The vector-space model with Rocchio's mean (Rocchio 1971; Salton & Buckley 1988); plays enter the users alone.
"""

import numpy as np
from scipy.sparse import csr_matrix, diags, hstack

from eval.baselines import Ranker
from eval.peers.material import Material, unit_rows, valued
from eval.peers.peer import Choice, Number, Params, Peer
from eval.peers.ranking import ByScores
from recsys.types import Float32, Int32


def _fit(material: Material, params: Params, seed: int) -> Ranker:
    plays = material.plays
    vectors = _vectors(material, params)
    compared = unit_rows(vectors, params["norm_power"])
    taste = valued(plays.counts, params["user_value"])
    sums = np.asarray(taste.sum(axis=1)).ravel()
    taste = csr_matrix(diags((1 / np.maximum(sums, 1e-12)).astype(np.float32)) @ taste)
    averaged = unit_rows(vectors)
    played = (plays.n_listeners > 0).astype(np.float32)
    common = (played @ averaged) / max(float(played.sum()), 1) * np.float32(params["centring"])

    def score(user_rows: Int32) -> Float32:
        profiles = (taste[user_rows] @ averaged).toarray() - common
        return np.ascontiguousarray((compared @ np.ascontiguousarray(profiles.T)).T)

    return ByScores(plays, score, seed)


def _vectors(material: Material, params: Params) -> csr_matrix:
    """Join unit blocks of tags and other columns, and of sound, each with its weight."""
    columns = material.columns(params["tag_value"], params["artist_weight"])
    frequency = np.bincount(columns.indices, minlength=columns.shape[1])
    idf = np.log1p(columns.shape[0] / np.maximum(frequency, 1)) ** params["idf_power"]
    weighted = csr_matrix(columns @ diags(idf.astype(np.float32)))
    if not params["norm_power"] < 1:
        weighted = unit_rows(weighted)
    sound = unit_rows(csr_matrix(material.sound)) * np.float32(params["sound_weight"])
    return csr_matrix(hstack([weighted, sound], format="csr", dtype=np.float32))


PROFILE = Peer(
    "content-profile",
    _fit,
    {
        "tag_value": Choice(("log", "binary", "raw")),
        "idf_power": Number(0, 1.5, 0.5),
        "artist_weight": Number(0.1, 10, 1, log=True),
        "sound_weight": Number(0.01, 2, 0.3, log=True),
        "norm_power": Number(0, 1, 1),  # 1: cosine; below, tracks of which much is known come first
        "centring": Number(0, 1, 0.5),  # how much of the mean track is taken from a user's mean
        "user_value": Choice(("log", "binary", "raw")),
    },
    ranks_cold=True,
    uses_features=True,
    needs="features",
)
