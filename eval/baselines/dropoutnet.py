"""DropoutNet: a network that learns to do without the factors of a track where there are none.

    ALS item factors (dropped at random), features  ->  a small network  ->  item vectors  ->  ByVectors

Volkovs, Yu & Poutanen, NIPS 2017: the network's inner products with users are held to those of ALS. Users keep their
ALS factors here, since only tracks are cold; the squared difference of inner products over all users is then a
quadratic form in the Gram matrix of the users, which is what is minimised.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from eval.baselines.artists import ALS_CHOICES
from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.features import BaselineData
from eval.baselines.rankers import ByVectors
from eval.baselines.ridge import feature_columns
from eval.baselines.simple import Ranker
from recsys.types import Float32
from recsys.util.threads import torch_threads

_BATCH = 256  # tracks
_BLOCK_ROWS = 4096


def _fit(material: BaselineData, params: Params, seed: int) -> Ranker:
    import torch

    plays = material.plays
    factors = material.als(params["n_factors"], params["l2"], params["mean_confidence"], seed)
    listeners = plays.n_listeners
    played = np.flatnonzero(listeners)
    columns = feature_columns(material, params, played)
    known = factors.item_factors / np.float32(max(float(factors.item_factors[played].std()), 1e-9))
    gram = (factors.user_factors.T @ factors.user_factors).astype(np.float64)
    gram = gram / np.trace(gram) * len(gram) + 1e-3 * np.eye(len(gram))
    root = np.linalg.cholesky(gram).astype(np.float32)
    weight = (listeners / (listeners + params["exposure"])).astype(np.float32)
    with torch_threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = _layers(known.shape[1], columns.shape[1], params["hidden"])
        _train(layers, known, columns, root, weight, played, params, seed)
        items = _run(layers, known, columns)
    return ByVectors(plays, factors.user_factors, items)


def _layers(n_factors: int, n_columns: int, hidden: int) -> Any:
    """Make the network in parts: factors and features have a first layer each, which add up."""
    from torch import nn

    features = nn.EmbeddingBag(max(n_columns, 1), hidden, mode="sum")  # a sparse matrix product
    nn.init.normal_(features.weight, std=0.05)
    after = nn.Sequential(nn.LayerNorm(hidden), nn.Tanh(), nn.Linear(hidden, n_factors))
    return nn.ModuleDict({"factors": nn.Linear(n_factors, hidden), "features": features, "after": after})


def _outputs(layers: Any, known: Float32, columns: csr_matrix) -> Any:
    """Run the network on known factors (n, f), zeros where dropped, and feature columns (n, F)."""
    import torch

    bags = (torch.from_numpy(part.astype(np.int64)) for part in (columns.indices, columns.indptr[:-1]))
    features = layers["features"](*bags, per_sample_weights=torch.from_numpy(columns.data))
    return layers["after"](layers["factors"](torch.from_numpy(known)) + features)


def _train(
    layers: Any,
    known: Float32,
    columns: csr_matrix,
    root: Float32,
    weight: Float32,
    played: NDArray[np.int64],
    params: Params,
    seed: int,
) -> None:
    """Hold the outputs to the factors under the users' Gram matrix, a track's factors dropped with a given chance."""
    import torch

    rng = np.random.default_rng(seed)
    steps = params["epochs"] * -(-len(played) // _BATCH)
    rate = params["learning_rate"]
    optimiser = torch.optim.AdamW(layers.parameters(), rate, weight_decay=params["weight_decay"], fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, max(steps, 2))
    metric = torch.from_numpy(root)
    for _ in range(params["epochs"]):
        order = rng.permutation(played)
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            stay = (rng.random((len(rows), 1)) >= params["dropout"]).astype(np.float32)
            off = (_outputs(layers, known[rows] * stay, columns[rows]) - torch.from_numpy(known[rows])) @ metric
            loss = (torch.from_numpy(weight[rows])[:, None] * off**2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def _run(layers: Any, known: Float32, columns: csr_matrix) -> Float32:
    """The vectors of all tracks (n_items, f); a track without plays enters with factors of 0."""
    import torch

    blocks = []
    with torch.no_grad():
        for start in range(0, len(known), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            blocks.append(_outputs(layers, known[rows], columns[rows]).numpy())
    return np.concatenate(blocks).astype(np.float32)


DROPOUTNET = Baseline(
    "dropoutnet",
    _fit,
    {
        **ALS_CHOICES,
        "hidden": Choice((256, 128)),
        "dropout": Number(0.2, 0.95, 0.5),
        "epochs": Number(8, 30, 15, log=True, whole=True),
        "learning_rate": Number(1e-3, 2e-2, 5e-3, log=True),
        "weight_decay": Number(1e-3, 1, 0.05, log=True),
        "exposure": Number(0.1, 10, 1, log=True),  # listeners at which a track counts half
        "tag_value": Choice(("log", "binary")),
        "artist_weight": Number(0.3, 3, 1, log=True),
        "sound_weight": Number(0.1, 3, 1, log=True),
    },
    ranks_cold=True,
    uses_features=True,
    needs="features",
)
