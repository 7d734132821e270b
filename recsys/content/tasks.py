"""Proxy tasks: what a network must tell from an embedding, so that the embedding comes to carry the music.

    Targets, embeddings (b, d), rows (b,)  ->  Heads.cost  ->  one number

Genre and artist are classified, tags told apart one by one, CF factors (van den Oord et al. 2013), year and popularity
regressed, each by one linear layer. The year is one number and no bucket: 1989 is then as near to 1990 as it is, and a
network that knows nothing costs 1 without a choice of buckets. Every cost is about 1 for a network that knows
nothing, so the weights compare. A task without labels, in the catalogue or in a batch, drops out by itself. Used by
the audio network and by the fusion; which tracks are held out is the caller's choice.
"""

from collections.abc import Callable, Iterable
from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.content.settings import TaskSettings
from recsys.content.targets import Targets, targets_of

__all__ = ["Heads", "Targets", "TaskSettings", "targets_of"]

_LABELS = ("genres", "tags", "artists", "factors", "factor_weights", "years", "popularity")


class Heads(nn.Module):
    """One linear layer a task, over embeddings of width ``d``, and the labels they are held against.

    ``active`` names the tasks that have labels and a weight.
    """

    genres: Tensor
    tags: Tensor
    artists: Tensor
    factors: Tensor
    factor_weights: Tensor
    years: Tensor
    popularity: Tensor

    def __init__(self, d: int, targets: Targets, settings: TaskSettings) -> None:
        super().__init__()
        for name in _LABELS:
            self.register_buffer(name, torch.from_numpy(getattr(targets, name)), persistent=False)
        n_outputs = {
            "genre": len(targets.genre_names),
            "tags": len(targets.tag_names),
            "artist": targets.n_artists,
            "factors": targets.factors.shape[1],
            "year": 1,
            "popularity": 1,
        }
        n_needed = {"genre": 2, "artist": 2}  # of one class there is nothing to tell
        self._weights = {name: float(getattr(settings, name)) for name in n_outputs}
        self.active: list[str] = []
        every = torch.arange(len(targets))
        for name, n in n_outputs.items():
            if self._weights[name] > 0 and n >= n_needed.get(name, 1) and bool(self._has_label(name, every).any()):
                self.active.append(name)
        self.layers = nn.ModuleDict({name: nn.Linear(d, n_outputs[name]) for name in self.active})
        if "tags" in self.active:
            self._start_at_tag_rates()

    def _start_at_tag_rates(self) -> None:
        """Set the tags' start to what knowing nothing is, each tag's rate, and keep what that costs: its entropy."""
        rates = self.tags[self._has_label("tags", torch.arange(len(self.tags)))].float().mean(dim=0)
        rates = rates.clamp(1e-4, 1 - 1e-4)
        entropy = -(rates * rates.log() + (1 - rates) * (1 - rates).log()).mean()
        self._tag_entropy = max(float(entropy), 1e-3)  # where every track has every tag, there is nothing to tell
        layer = self.layers["tags"]
        layer.load_state_dict({"weight": layer.state_dict()["weight"], "bias": torch.logit(rates)})

    def _has_label(self, task: str, rows: Tensor) -> Tensor:
        """Say which rows (b,) have a label of a task, (b,) bool."""
        known: dict[str, Callable[[], Tensor]] = {
            "genre": lambda: self.genres[rows].any(dim=1),
            "tags": lambda: self.tags[rows].any(dim=1),
            "artist": lambda: self.artists[rows] >= 0,
            "factors": lambda: self.factor_weights[rows] > 0,
            "year": lambda: ~self.years[rows].isnan(),
            "popularity": lambda: ~self.popularity[rows].isnan(),
        }
        return known[task]()

    def labelled(self, rows: Tensor) -> list[str]:
        """Name the active tasks that have a label among some rows (b,) int64."""
        return [task for task in self.active if bool(self._has_label(task, rows).any())]

    def costs(self, embeddings: Tensor, rows: Tensor, tasks: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Give each task's own cost, without its weight; a task without a label among the rows is left out.

        Args:
            embeddings: (b, d).
            rows: (b,) int64, the track of each embedding.
            tasks: names to count; None for all that are active.
        """
        found = {}
        for task in self.active if tasks is None else tasks:
            known = self._has_label(task, rows)
            if bool(known.any()):
                found[task] = self._cost(task, self.layers[task](embeddings[known]), rows[known])
        return found

    def cost(self, embeddings: Tensor, rows: Tensor, tasks: Iterable[str] | None = None) -> Tensor:
        """Add up the weighted costs of the tasks, arguments as in ``costs``; 0 where no row has a label."""
        total = embeddings.sum() * 0.0  # so that a batch without any label still has a gradient, of 0
        for task, cost in self.costs(embeddings, rows, tasks).items():
            total = total + self._weights[task] * cost
        return total

    def _cost(self, task: str, answers: Tensor, rows: Tensor) -> Tensor:
        """Mean over rows that all have a label."""
        if task == "genre":  # cross-entropy against equal shares of a track's genres, over log G
            shares = functional.normalize(self.genres[rows], p=1, dim=1)
            return functional.cross_entropy(answers, shares) / log(answers.shape[1])
        if task == "artist":
            return functional.cross_entropy(answers, self.artists[rows]) / log(answers.shape[1])
        if task == "tags":
            return functional.binary_cross_entropy_with_logits(answers, self.tags[rows].float()) / self._tag_entropy
        if task == "factors":
            weights = self.factor_weights[rows]
            errors = (answers - self.factors[rows]).square().mean(dim=1)
            return (weights * errors).sum() / weights.sum()
        labels = self.years if task == "year" else self.popularity
        return functional.mse_loss(answers[:, 0], labels[rows])
