"""Content profile: a user is the mean of what they played, and tracks near it in content rank first.

    tags (TF-IDF), genres, years, artist, sound  ->  one vector a track  ->  cosine with the user's mean  ->  ByScores

The vector-space model with Rocchio's mean (Rocchio 1971; Salton & Buckley 1988); plays enter the users alone.
"""

import numpy as np
from scipy.sparse import csr_matrix, diags, hstack

from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.features import BaselineData, valued
from eval.baselines.rankers import ByScores
from eval.baselines.simple import Ranker
from recsys.cf.lightfm import with_unit_rows
from recsys.types import Float32, Int32


def _fit(material: BaselineData, params: Params, seed: int) -> Ranker:
    plays = material.plays
    directions, lengths = _vectors(material, params)
    compared = csr_matrix(diags((1 + lengths) ** np.float32(params["length_power"])) @ directions)
    taste = valued(plays.counts, params["user_value"])
    sums = np.asarray(taste.sum(axis=1)).ravel()
    taste = csr_matrix(diags((1 / np.maximum(sums, 1e-12)).astype(np.float32)) @ taste)
    played = (plays.n_listeners > 0).astype(np.float32)
    common = (played @ directions) / max(float(played.sum()), 1) * np.float32(params["centring"])

    def score(user_rows: Int32) -> Float32:
        profiles = (taste[user_rows] @ directions).toarray() - common
        return np.ascontiguousarray((compared @ np.ascontiguousarray(profiles.T)).T)

    return ByScores(plays, score, seed)


def _vectors(material: BaselineData, params: Params) -> tuple[csr_matrix, Float32]:
    """Join unit blocks of metadata and of sound; returns unit vectors (n_items, d) and the length of the metadata."""
    columns = material.columns(params["tag_value"], params["artist_weight"])
    frequency = np.bincount(columns.indices, minlength=columns.shape[1])
    idf = np.log1p(columns.shape[0] / np.maximum(frequency, 1)) ** params["idf_power"]
    weighted = csr_matrix(columns @ diags(idf.astype(np.float32)))
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1), dtype=np.float32).ravel())
    sound = with_unit_rows(csr_matrix(material.sound)) * np.float32(params["sound_weight"])
    return with_unit_rows(
        csr_matrix(hstack([with_unit_rows(weighted), sound], format="csr", dtype=np.float32))
    ), lengths


PROFILE = Baseline(
    "content-profile",
    _fit,
    {
        "tag_value": Choice(("log", "binary", "raw")),
        "idf_power": Number(0, 2, 1),
        "artist_weight": Number(0.1, 10, 1, log=True),
        "sound_weight": Number(0.01, 2, 0.3, log=True),
        "length_power": Number(0, 1, 0.2),  # 0: cosine; above, tracks of which much is known come first
        "centring": Number(0, 1, 0.5),  # how much of the mean track is taken from a user's mean
        "user_value": Choice(("log", "binary", "raw")),
    },
    ranks_cold=True,
    uses_features=True,
    needs="features",
)
