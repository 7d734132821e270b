"""Training an audio network on proxy tasks, from a sample of the catalogue.

    log-mel spectrograms, Targets  ->  train_network  ->  the network at its best epoch

An epoch sees one random patch of each clip. The costs are those of ``recsys.content.tasks``. The tracks of
some artists are held out to judge by, since a network that knows an artist's voice seems to know the genre
too; where the artist is the only task, tracks are held out instead. The sample's spectrograms are the only
ones that are ever kept, in half precision.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from recsys.audio.logmel import patches
from recsys.audio.networks import build_network
from recsys.audio.settings import AudioSettings, LogMelSettings, TrainSettings
from recsys.content.settings import TaskSettings
from recsys.content.tasks import Heads, Targets
from recsys.progress import Progress
from recsys.threads import torch_threads

Spectrogram = NDArray[np.float16]  # (n_mels, n_frames)

_MIN_HELD_OUT = 4  # tracks; with fewer to judge by, the training cost itself says when to stop


def train_network(
    spectrograms: Sequence[Spectrogram],
    targets: Targets,
    settings: AudioSettings,
    seed: int,
    progress: Progress,
) -> nn.Module:
    """Train a network; same inputs, settings and seed, same weights.

    One thread: the sums then do not depend on the machine's cores, and where other processes want the same
    two cores, two threads that wait for each other took twelve times as long as one (measured).

    Args:
        spectrograms: one a track, of any length.
        targets: a row a spectrogram.
        settings: which network, on which patches, for which tasks, and how to train.
        seed: of the start, the held-out part and the order.
        progress: shows the held-out cost; is told when there is nothing to learn from.
    """
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]), torch_threads(1):
        torch.manual_seed(seed)
        network = build_network(settings.network, settings.log_mel.n_mels)
        held_out = _held_out(targets, settings.tasks, settings.train.held_out_share, rng)
        if not _only_artists(targets, settings.tasks):
            # an artist who is held out is no class: the head would only learn never to name it
            targets = replace(targets, artists=np.where(held_out, -1, targets.artists))
        heads = Heads(settings.network.dim, targets, settings.tasks)
        if not heads.active or len(spectrograms) < 2:
            progress.say("audio: no genre, artist or plays to learn from; the network stays at its random start")
            return network.eval()
        run = _Training(network, heads, spectrograms, settings.log_mel, settings.train)
        run.fit(held_out, rng, progress)
    return network.eval()


def _only_artists(targets: Targets, settings: TaskSettings) -> bool:
    return not set(Heads(1, targets, settings).active) - {"artist"}


def _held_out(targets: Targets, settings: TaskSettings, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mark the tracks to judge by: of whole artists, unless artists are all there is to learn."""
    n = len(targets)
    groups = np.arange(n) + targets.n_artists
    if not _only_artists(targets, settings):
        groups = np.where(targets.artists >= 0, targets.artists, groups)
    names, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(names))
    chosen = np.zeros(len(names), dtype=bool)
    chosen[order] = np.cumsum(sizes[order]) <= share * n
    held_out: NDArray[np.bool_] = chosen[group_of]
    return held_out if held_out.sum() >= _MIN_HELD_OUT else np.zeros(n, dtype=bool)


class _Training:
    """One network while it is trained."""

    def __init__(
        self,
        network: nn.Module,
        heads: Heads,
        spectrograms: Sequence[Spectrogram],
        log_mel: LogMelSettings,
        settings: TrainSettings,
    ) -> None:
        self._network, self._heads, self._spectrograms = network, heads, spectrograms
        self._log_mel, self._settings = log_mel, settings
        self._optimizer = torch.optim.AdamW(
            [*network.parameters(), *heads.parameters()],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )

    def fit(self, held_out: NDArray[np.bool_], rng: np.random.Generator, progress: Progress) -> None:
        """Train until the held-out cost has not fallen for some epochs; go back to where it was lowest."""
        training, judged = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        n_epochs = min(self._settings.epochs, max(1, self._settings.max_patches // len(training)))
        judging = self._judging_tasks(judged)
        best, best_weights, since_best = float("inf"), _copy(self._network), 0
        with progress.bar("audio: training", n_epochs, "epochs") as bar:
            for _ in range(n_epochs):
                now = self._epoch(rng.permutation(training), rng)
                if judging:
                    now = self._held_out_cost(judged, judging)
                bar.advance(note=f"{'held-out' if judging else 'training'} cost {now:.3f}")
                since_best += 1
                if now < best:
                    best, best_weights, since_best = now, _copy(self._network), 0
                elif since_best >= self._settings.patience:
                    break
        self._network.load_state_dict(best_weights)

    def _judging_tasks(self, rows: NDArray[np.int64]) -> list[str]:
        """Name the tasks that have a label among the held-out tracks."""
        has_label = {
            "genre": self._heads.genres[rows].any(),
            "artist": (self._heads.artists[rows] >= 0).any(),
            "factors": (self._heads.factor_weights[rows] > 0).any(),
        }
        return [task for task in self._heads.active if bool(has_label[task])]

    def _epoch(self, rows: NDArray[np.int64], rng: np.random.Generator) -> float:
        """See one random patch of each track; returns the mean cost."""
        self._network.train()
        total, n_seen = 0.0, 0
        for start in range(0, len(rows), self._settings.batch):
            batch = rows[start : start + self._settings.batch]
            if len(batch) < 2:  # one alone has no variance to normalise by
                continue
            inputs = torch.stack([self._random_patch(self._spectrograms[row], rng) for row in batch])
            cost = self._heads.cost(unit(self._network(inputs)), torch.from_numpy(batch))
            self._optimizer.zero_grad()
            cost.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            total, n_seen = total + float(cost.detach()) * len(batch), n_seen + len(batch)
        return total / max(n_seen, 1)

    def _random_patch(self, spectrogram: Spectrogram, rng: np.random.Generator) -> Tensor:
        length = self._log_mel.patch_frames
        start = int(rng.integers(max(1, spectrogram.shape[1] - length + 1)))
        one: Tensor = patches(_as_tensor(spectrogram[:, start : start + length]), self._log_mel)[0, 0]
        return one

    def _held_out_cost(self, rows: NDArray[np.int64], tasks: list[str]) -> float:
        """Judge whole clips, the mean over their patches, as they are used later."""
        self._network.eval()
        with torch.inference_mode():
            embeddings = [
                self._network(patches(_as_tensor(self._spectrograms[row]), self._log_mel)[0]).mean(dim=0)
                for row in rows
            ]
            return float(self._heads.cost(unit(torch.stack(embeddings)), torch.from_numpy(rows), tasks))


def unit(embeddings: Tensor) -> Tensor:
    """Scale rows (n, d) to a mean square of 1: directions are what similarity is measured by."""
    directions: Tensor = normalize(embeddings, dim=1)
    return directions * sqrt(embeddings.shape[1])


def _as_tensor(spectrogram: Spectrogram) -> Tensor:
    """Widen (n_mels, n_frames) to a batch of one in float32."""
    return torch.from_numpy(spectrogram.astype(np.float32))[None]


def _copy(network: nn.Module) -> dict[str, Any]:
    return {name: weights.clone() for name, weights in network.state_dict().items()}
