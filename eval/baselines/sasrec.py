"""SASRec: self-attention over the last plays, learned to tell the next one from others.

    Timeline  ->  windows of 50 plays  ->  item and place embeddings, attention blocks  ->  state after each play
    state x item embeddings            ->  scores; cross-entropy of the next play that is new to the window

Kang & McAuley, ICDM 2018, with cross-entropy over the true next play and many sampled ones in place of one negative:
with that alone it is as good as later models (Klenitskiy & Vasilev, RecSys 2023; Petrov & Macdonald, RecSys 2023).
Sampled ones are drawn uniformly, the same for a whole batch. With ``artists`` an item's embedding is its own plus its
artist's, so that a track without plays has one too (``sasrec-artists``); without, such tracks come last.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eval.baselines.artists import artist_or_self
from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.features import BaselineData
from eval.baselines.following import trained_moments
from eval.baselines.simple import Ranker
from eval.baselines.timeline import Timeline
from eval.splitting.moments import Moments
from recsys.errors import DataError
from recsys.types import HISTORY, Candidates, Float32, Histories, Int32, Plays
from recsys.util.topk import top_k

if TYPE_CHECKING:
    from torch import Tensor

_BATCH = 64  # windows, or histories
_PAD = -1


@dataclass(frozen=True, slots=True, eq=False)
class ByStates:
    """Ranks by inner product of the state after the last plays and item vectors (n_items, f).

    ``state`` gives (f,) of the items of one history, oldest first. People without a history have the mean state of
    training's last ones, ``usual``. ``last`` are items that come after all others.
    """

    plays: Plays
    histories: Histories
    model: Any
    items: Float32
    usual: Float32
    last: Int32

    def rank(self, user_rows: Int32, k: int, candidates: Int32 | None = None) -> Candidates:
        """Rank as of each user's last training play."""
        moments = trained_moments(self.plays, self.histories, user_rows)
        closed = (moments.counts, self.plays.barred[user_rows])
        return top_k(self._queries(moments), self.items, k, closed, candidates, self.last)

    def rank_at(self, moments: Moments, k: int, candidates: Int32 | None = None) -> Candidates:
        """Rank as of each moment."""
        return top_k(self._queries(moments), self.items, k, (moments.counts,), candidates, self.last)

    def _queries(self, moments: Moments) -> Float32:
        """States after the last plays (n, f)."""
        found = np.tile(self.usual, (len(moments), 1))
        some = np.flatnonzero(np.diff(moments.histories.starts))
        found[some] = _states(self.model, [moments.histories.of(row)[0] for row in some.tolist()])
        return found


def _states(model: Any, histories: list[Int32]) -> Float32:
    """The state after the last play of each history of one play or more: (n, f).

    All products have one shape, so that a state does not depend on how many are asked for.
    """
    import torch

    found = np.zeros((len(histories), model.own.embedding_dim), dtype=np.float32)
    for start in range(0, len(histories), _BATCH):
        some = histories[start : start + _BATCH]
        items = np.zeros((_BATCH, HISTORY), dtype=np.int64)
        for row, history in enumerate(some):
            items[row, : len(history)] = history
        with torch.inference_mode():
            states = model(torch.from_numpy(items)).numpy()
        found[start : start + len(some)] = states[np.arange(len(some)), [len(history) - 1 for history in some]]
    return found


def _fit(material: BaselineData, params: Params, seed: int) -> Ranker:
    import torch

    plays, n_items = material.plays, len(material.plays.track_ids)
    group = artist_or_self(material) if params["artists"] else np.zeros(n_items, dtype=np.int32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _network(n_items, group, params)
        _train(model, windows(material.timeline), params, seed)
    model.eval()
    with torch.inference_mode():
        items: Float32 = model.vectors(torch.arange(n_items)).numpy().copy()
    if not np.isfinite(items).all():
        raise DataError("the vectors are not finite: learning diverged; give a lower learning rate")
    histories = plays.histories or Histories.none(len(plays.user_ids))
    known = np.flatnonzero(np.diff(histories.starts))[:200]
    states = _states(model, [histories.of(user)[0] for user in known.tolist()])
    usual = np.asarray(states.sum(axis=0) / max(len(states), 1), dtype=np.float32)
    unplayed = plays.n_listeners == 0 if not params["artists"] else np.zeros(n_items, dtype=np.bool_)
    return ByStates(plays, histories, model, items, usual, np.flatnonzero(unplayed).astype(np.int32))


def windows(timeline: Timeline) -> NDArray[np.int64]:
    """Cut each user's plays into pieces of ``HISTORY`` + 1, each but the first beginning with the end of the last.

    Returns:
        Items (n_windows, HISTORY + 1), -1 after the end; pieces of one play are left out.
    """
    starts = np.concatenate([[0], np.flatnonzero(np.diff(timeline.users)) + 1, [len(timeline)]])
    pieces = []
    for start, end in pairwise(starts.tolist()):
        for first in range(start, max(end - 1, start), HISTORY):
            piece = timeline.items[first : min(first + HISTORY + 1, end)]
            pieces.append(np.pad(piece.astype(np.int64), (0, HISTORY + 1 - len(piece)), constant_values=_PAD))
    return np.stack(pieces) if pieces else np.zeros((0, HISTORY + 1), dtype=np.int64)


def new_targets(pieces: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the places whose next item is there and was not played before in the piece: (n, HISTORY)."""
    again = (pieces[:, 1:, None] == pieces[:, None, :]) & np.tri(HISTORY, HISTORY + 1, dtype=np.bool_)[None]
    wanted: NDArray[np.bool_] = (pieces[:, 1:] != _PAD) & ~again.any(axis=2)
    return wanted


def _train(model: Any, pieces: NDArray[np.int64], params: Params, seed: int) -> None:
    import torch

    rng = np.random.default_rng(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=params["learning_rate"], betas=(0.9, 0.98))
    played = np.unique(pieces[pieces != _PAD])  # what was never played would only be pushed away
    n_sampled = min(int(params["n_sampled"]), len(played))
    model.train()
    for _ in range(int(params["epochs"])):
        order = rng.permutation(len(pieces))
        for start in range(0, len(order), _BATCH):
            piece = pieces[order[start : start + _BATCH]]
            piece = piece[:, : max(2, int((piece != _PAD).sum(axis=1).max()))]
            full = np.pad(piece, ((0, 0), (0, HISTORY + 1 - piece.shape[1])), constant_values=_PAD)
            wanted = torch.from_numpy(new_targets(full)[:, : piece.shape[1] - 1])
            if not bool(wanted.any()):
                continue
            state = model(torch.from_numpy(np.maximum(piece[:, :-1], 0)))[wanted]
            target = torch.from_numpy(piece[:, 1:])[wanted]
            sampled = torch.from_numpy(rng.choice(played, n_sampled, replace=False))
            loss = _loss(model, state, target, sampled)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()


def _loss(model: Any, state: "Tensor", target: "Tensor", sampled: "Tensor") -> "Tensor":
    """Cross-entropy of each target among itself and the sampled items; one that is sampled too counts once."""
    import torch
    from torch.nn import functional

    own: Tensor = (state * model.vectors(target)).sum(dim=1, keepdim=True)
    others = state @ model.vectors(sampled).T
    others = others.masked_fill(sampled[None] == target[:, None], float("-inf"))
    scores = torch.cat([own, others], dim=1)
    loss: Tensor = functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.int64))
    return loss


def _network(n_items: int, group: Int32, params: Params) -> Any:
    """Attention blocks over embeddings, with ``vectors(items)`` the embeddings that states are held against."""
    import torch
    from torch import nn
    from torch.nn import functional

    f = int(params["n_factors"])

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.middle = nn.LayerNorm(f), nn.LayerNorm(f)
            self.mixed, self.out = nn.Linear(f, 3 * f), nn.Linear(f, f)
            self.wide, self.narrow = nn.Linear(f, f), nn.Linear(f, f)
            self.drop = nn.Dropout(params["dropout"])

        def forward(self, x: "Tensor") -> "Tensor":
            asked, keys, values = self.mixed(self.before(x)).chunk(3, dim=-1)
            seen = functional.scaled_dot_product_attention(asked, keys, values, is_causal=True)
            x = x + self.drop(self.out(seen))
            passed: Tensor = x + self.drop(self.narrow(functional.relu(self.wide(self.middle(x)))))
            return passed

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.of_group = nn.Embedding(n_items, f), nn.Embedding(int(group.max(initial=0)) + 1, f)
            self.place = nn.Embedding(HISTORY, f)
            for table in (self.own, self.of_group, self.place):
                nn.init.normal_(table.weight, std=f**-0.5 / 2)
            if params["artists"]:  # what was never played is its artist's alone
                nn.init.zeros_(self.own.weight)
            self.group = torch.from_numpy(group.astype(np.int64))
            self.blocks = nn.ModuleList([Block() for _ in range(int(params["blocks"]))])
            self.last, self.drop = nn.LayerNorm(f), nn.Dropout(params["dropout"])

        def vectors(self, items: "Tensor") -> "Tensor":
            own: Tensor = self.own(items)
            return own + self.of_group(self.group[items]) if params["artists"] else own

        def forward(self, items: "Tensor") -> "Tensor":
            x = self.vectors(items) * f**0.5 + self.place(torch.arange(items.shape[1]))
            x = self.drop(x)
            for block in self.blocks:
                x = block(x)
            found: Tensor = self.last(x)
            return found

    return Network()


def _space(artists: int) -> "dict[str, Number | Choice]":
    return {
        "artists": Choice((artists,)),
        "n_factors": Choice((64, 32, 128)),
        "blocks": Choice((1, 2)),
        "epochs": Number(5, 40, 15, log=True, whole=True),
        "learning_rate": Number(0.0005, 0.01, 0.003, log=True),
        "dropout": Number(0.0, 0.6, 0.3),
        "n_sampled": Choice((1000, 3000)),
    }


SASREC = Baseline("sasrec", _fit, _space(0), needs="order", for_anyone=True)
SASREC_ARTISTS = Baseline(
    "sasrec-artists",
    _fit,
    _space(1),
    ranks_cold=True,
    uses_features=True,
    needs="order-and-artists",
    for_anyone=True,
)
