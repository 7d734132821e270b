"""ELSA: EASE of low rank, items as unit vectors whose inner products give back each user's plays.

    Plays  ->  A (n_items, f), rows of length 1  ->  user = sum of what they played  ->  x A A' - x  ->  ByVectors

Vančura, Alves, Kasalický & Kordík, "Scalable Linear Shallow Autoencoder for Collaborative Filtering", RecSys 2022: the
loss is the squared distance of user vectors and their reconstructions, both at unit length. What is subtracted is what
was heard, which no list holds. Items of one listener are left out (validation recall on hetrec-lastfm with them 0.274,
without 0.287, without those of two as well 0.291).
"""

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.features import BaselineData, valued
from eval.baselines.rankers import unplayed_last
from eval.baselines.simple import Ranker
from recsys.cf.lightfm import with_unit_rows
from recsys.types import Float32
from recsys.util.threads import torch_threads


def _fit(material: BaselineData, params: Params, seed: int) -> Ranker:
    plays = material.plays
    kept = np.flatnonzero(plays.n_listeners >= params["least_listeners"])
    taste = valued(plays.counts, params["value"])
    items = np.zeros((len(plays.track_ids), params["n_factors"]), dtype=np.float32)
    learned = csr_matrix(taste[:, kept])
    items[kept] = _item_vectors(csr_matrix(learned[np.diff(learned.indptr) > 0]), params, seed)
    return unplayed_last(plays, np.asarray(taste @ items, dtype=np.float32), items)


def _item_vectors(taste: csr_matrix, params: Params, seed: int) -> Float32:
    """Learn the unit vectors (n_items, f) of the columns of ``taste``, whose rows are not empty."""
    import torch

    rng = np.random.default_rng(seed)
    unit = with_unit_rows(taste)
    start = rng.normal(size=(taste.shape[1], params["n_factors"])).astype(np.float32)
    with torch_threads(1):
        vectors = torch.from_numpy(start).requires_grad_()
        steps = params["epochs"] * -(-taste.shape[0] // params["batch"])
        optimiser = torch.optim.NAdam([vectors], params["learning_rate"])
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, max(steps, 1))
        for _ in range(params["epochs"]):
            order = rng.permutation(taste.shape[0])
            for first in range(0, len(order), params["batch"]):
                loss = _loss(torch.from_numpy(unit[order[first : first + params["batch"]]].toarray()), vectors)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        learned: Float32 = torch.nn.functional.normalize(vectors.detach(), dim=1).numpy()
    return learned


def _loss(taste: Any, vectors: Any) -> Any:
    """Measure the mean squared distance of unit users (n, n_items) and their unit reconstructions x A A' - x."""
    from torch.nn.functional import normalize

    unit = normalize(vectors, dim=1)
    back = normalize((taste @ unit) @ unit.T - taste, dim=1)
    return ((back - taste) ** 2).sum(dim=1).mean()


ELSA = Baseline(
    "elsa",
    _fit,
    {
        "n_factors": Choice((128, 64, 256)),
        "epochs": Number(5, 40, 15, log=True, whole=True),
        "learning_rate": Number(0.01, 0.3, 0.1, log=True),
        "batch": Choice((128, 256, 64)),  # users
        "least_listeners": Choice((2, 3)),  # of an item that is learned
        "value": Choice(("log", "binary")),
    },
)
