"""LightFM with the WARP loss, on plays alone and with what is known of the tracks.

    Plays, features csr (n_items, F)  ->  embeddings of users and features, biases  ->  ByVectors

Kula, CBRecSys 2015; Weston et al., IJCAI 2011. A track is the sum of the embeddings of its features and of its
identity; a track without plays has its features alone. One thread, so that the same seed gives the same lists.
"""

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, diags, hstack

from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.features import BaselineData, valued
from eval.baselines.rankers import ByVectors, unplayed_last
from eval.baselines.simple import Ranker
from recsys.cf.lightfm import with_unit_rows
from recsys.errors import DataError
from recsys.types import Float32, Plays

_SPACE: dict[str, Number | Choice] = {
    "n_factors": Choice((48, 32, 96)),
    "epochs": Number(10, 60, 30, log=True, whole=True),
    "learning_rate": Number(0.01, 0.15, 0.05, log=True),
    "l2": Number(1e-7, 1e-3, 1e-6, log=True),
}


def _fit_plain(material: BaselineData, params: Params, seed: int) -> Ranker:
    users, items = _embeddings(material.plays, None, params, seed)
    return unplayed_last(material.plays, users, items)


def _fit_with_features(material: BaselineData, params: Params, seed: int) -> Ranker:
    plays = material.plays
    columns = most_weighty(material.columns(params["tag_value"]), params["max_features"])
    if params["scaled_to"] != "nothing":
        columns = with_unit_rows(columns) if params["scaled_to"] == "length" else sums_to_one(columns)
    identity = diags((plays.n_listeners > 0).astype(np.float32) * np.float32(params["identity"]))
    features = csr_matrix(hstack([columns, csr_matrix(identity)], format="csr", dtype=np.float32))
    users, items = _embeddings(plays, features, params, seed)
    return ByVectors(plays, users, items)


def _embeddings(plays: Plays, features: csr_matrix | None, params: Params, seed: int) -> tuple[Float32, Float32]:
    """Fit, and give users (n_users, f + 1) and items (n_items, f + 1), the items' bias as last factor."""
    from lightfm import LightFM

    pairs = valued(plays.counts, "binary").tocoo()
    model: Any = LightFM(
        no_components=params["n_factors"],
        loss="warp",
        learning_rate=params["learning_rate"],
        item_alpha=params["l2"],
        user_alpha=params["l2"],
        random_state=seed,
    )
    try:
        with np.errstate(all="ignore"):  # it checks its parameters at the end
            model.fit(pairs, item_features=features, epochs=params["epochs"], num_threads=1)
    except ValueError as error:  # it found parameters that are not finite
        raise DataError(f"LightFM diverged ({error}); give a lower learning rate") from error
    embeddings = np.hstack([model.item_embeddings, model.item_biases[:, None]]).astype(np.float32)
    users = np.hstack([model.user_embeddings, np.ones((len(plays.user_ids), 1))]).astype(np.float32)
    users[np.diff(plays.counts.indptr) == 0] = 0
    return users, np.asarray(embeddings if features is None else features @ embeddings, dtype=np.float32)


def most_weighty(columns: csr_matrix, at_most: int) -> csr_matrix:
    """Keep the largest values of each row, ties to the lower column; time grows with the features of a track."""
    rows = np.repeat(np.arange(columns.shape[0]), np.diff(columns.indptr))
    order = np.lexsort((columns.indices, -columns.data, rows))
    place = np.arange(columns.nnz) - columns.indptr[rows]  # lexsort keeps rows together, so places count from 0
    kept = np.sort(order[place < at_most])
    return csr_matrix((columns.data[kept], (rows[kept], columns.indices[kept])), shape=columns.shape)


def sums_to_one(columns: csr_matrix) -> csr_matrix:
    """Scale rows >= 0 to add up to 1; empty rows stay empty."""
    sums = np.asarray(columns.sum(axis=1)).ravel()
    return csr_matrix(diags(np.where(sums > 0, 1 / np.maximum(sums, 1e-12), 0).astype(np.float32)) @ columns)


LIGHTFM = Baseline("lightfm", _fit_plain, _SPACE)
LIGHTFM_FEATURES = Baseline(
    "lightfm-features",
    _fit_with_features,
    {
        **_SPACE,
        "epochs": Number(10, 40, 20, log=True, whole=True),
        "learning_rate": Number(0.005, 0.1, 0.02, log=True),
        "tag_value": Choice(("log", "binary", "raw")),
        "max_features": Choice((12, 6, 24)),  # of a track
        "identity": Choice((0.5, 0.0, 0.2, 1.0)),  # weight of a track's identity beside its features
        "scaled_to": Choice(("nothing", "length", "sum")),  # a track's features: as they are, unit length, sum 1
    },
    ranks_cold=True,
    uses_features=True,
    needs="features",
)
