"""Training an audio network by gradient, on proxy tasks or on the vectors of a teacher, from a sample of the catalogue.

    clips, Targets  ->  train_network  ->  the network at its best epoch, and its curve

An epoch sees one random stretch of each clip, augmented for a share of them; with the contrastive task it sees two,
which must be known to belong together (``recsys.content.contrast``). The costs are those of ``recsys.content.tasks``.
A network with a teacher learns nothing but the teacher's vectors, which carry the tasks already (distillation: Hinton,
Vinyals and Dean 2015). The tracks of some artists are held out to judge by, since a network that knows an artist's
voice seems to know the genre too; where the artist is the only task, tracks are held out instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from recsys.audio.augment import augmented, masked
from recsys.audio.logmel import log_mel, patches
from recsys.audio.networks.conv1d import Pooled, build_network
from recsys.audio.networks.device import device_of
from recsys.audio.settings import AudioSettings, NetworkSettings
from recsys.content.contrast import contrastive_cost
from recsys.content.settings import TaskSettings
from recsys.content.tasks import Heads, Targets
from recsys.types import Clip, Float32
from recsys.util.progress import Progress
from recsys.util.threads import torch_threads
from recsys.util.training import Checkpoint, Curve, StopSettings, run_epochs

_MIN_HELD_OUT = 4  # tracks; with fewer to judge by, the training cost itself says when to stop


def train_network(
    clips: Sequence[Clip],
    targets: Targets,
    settings: AudioSettings,
    seed: int,
    progress: Progress,
    start: Mapping[str, Tensor] | None = None,
    teacher: Float32 | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Pooled, Curve]:
    """Train a network; same inputs, settings and seed, same weights.

    One thread: the sums then do not depend on the machine's cores, and where other processes want the same
    two cores, two threads that wait for each other took twelve times as long as one (measured).

    Args:
        clips: one a track, of any length; read again and again.
        targets: a row a clip.
        settings: which network, on which patches, for which tasks, and how to train.
        seed: of the start, the held-out part and the order.
        progress: shows the costs; is told when there is nothing to learn from.
        start: weights of the patch network; random ones by default.
        teacher: (n, dim) unit vectors to be taught, a row a clip; by default the tasks are learned.
        checkpoint: where to go on from after a kill.
    """
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]), torch_threads(1):
        torch.manual_seed(seed)
        network = build_network(settings.network, settings.log_mel)
        if start is not None:
            network.patch_network.load_state_dict(dict(start))
        held_out = _held_out(targets, settings.tasks, settings.train.held_out_share, rng)
        if not _only_artists(targets, settings.tasks):
            # an artist who is held out is no class: the head would only learn never to name it
            targets = replace(targets, artists=np.where(held_out, -1, targets.artists))
        heads = Heads(network.dim, targets, settings.tasks)
        contrast = settings.train.contrast > 0
        if len(clips) < 2 or not (heads.active or contrast or teacher is not None):
            progress.log("audio: no genre, artist or plays to learn from; the network stays as it starts")
            return network.eval(), []
        run = _Training(network, heads, clips, targets, settings, teacher)
        curve = run.fit(held_out, rng, progress, checkpoint)
    return network.cpu().eval(), curve


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
        network: Pooled,
        heads: Heads,
        clips: Sequence[Clip],
        targets: Targets,
        settings: AudioSettings,
        teacher: Float32 | None = None,
    ) -> None:
        self._device = device_of(settings.device)
        self._network, self._heads = network.to(self._device), heads.to(self._device)
        self._clips, self._settings, self._train = clips, settings, settings.train
        self._teacher = None if teacher is None else torch.from_numpy(teacher).to(self._device)
        self._contrast = 0.0 if teacher is not None else settings.train.contrast  # a teacher says it all
        self._artists = targets.artists
        self._frozen = _freeze(network, settings.network)
        self._n_patches = self._train.gru_patches if settings.network.pooling == "gru" else 1
        # a random stretch is a shift already
        self._augment = self._train.augment.model_copy(update={"shift_share": 0.0})

    def fit(
        self, held_out: NDArray[np.bool_], rng: np.random.Generator, progress: Progress, checkpoint: Checkpoint | None
    ) -> Curve:
        """Train until the held-out cost has not fallen for some epochs; go back to where it was lowest."""
        training, judged = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        n_epochs = min(self._train.epochs, max(1, self._train.max_patches // len(training)))
        parts = {"network": self._network, "heads": self._heads}
        optimizer = torch.optim.AdamW(
            [p for part in parts.values() for p in part.parameters() if p.requires_grad],
            lr=self._train.learning_rate,
            weight_decay=self._train.weight_decay,
        )
        tasks = self._heads.labelled(torch.from_numpy(judged))
        can_judge = len(judged) > 0 and (bool(tasks) or self._teacher is not None)
        return run_epochs(
            parts,
            optimizer,
            lambda generator: self._epoch(generator.permutation(training), optimizer, generator),
            (lambda: self._held_out_costs(judged, tasks)) if can_judge else None,
            StopSettings(epochs=n_epochs, patience=self._train.patience),
            rng,
            progress,
            "audio: training",
            checkpoint,
        )

    def _epoch(self, rows: NDArray[np.int64], optimizer: torch.optim.Optimizer, rng: np.random.Generator) -> float:
        """See a random stretch of each clip, or two; returns the mean cost."""
        for part in self._frozen:
            part.eval()
        total, n_seen = 0.0, 0
        for start in range(0, len(rows), self._train.batch):
            batch = rows[start : start + self._train.batch]
            if len(batch) < 2:  # one alone has no variance to normalise by
                continue
            cost = self._batch_cost(batch, rng)
            optimizer.zero_grad()
            cost.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total, n_seen = total + float(cost.detach()) * len(batch), n_seen + len(batch)
        return total / max(n_seen, 1)

    def _batch_cost(self, rows: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        seen, groups = rows, rows
        if self._contrast > 0:
            by_artist = self._train.contrast_between == "artist"
            partners = self._partners(rows, rng) if by_artist else rows
            seen = np.concatenate([rows, partners])
            known = by_artist & (self._artists[seen] >= 0)
            groups = np.where(known, self._artists[seen], len(self._artists) + np.tile(rows, 2))
        inputs = torch.stack([self._random_patches(self._clips[row], rng) for row in seen])
        embeddings = self._network(inputs.to(self._device))
        cost = self._cost(embeddings, seen)
        if self._contrast > 0:
            pulled = contrastive_cost(
                normalize(embeddings, dim=1), torch.from_numpy(groups).to(self._device), self._train.temperature
            )
            cost = cost + self._contrast * pulled
        return cost

    def _partners(self, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw for each track another one of its artist, or itself where there is none."""
        partners = rows.copy()
        for place, row in enumerate(rows):
            others = np.flatnonzero(self._artists == self._artists[row])
            if self._artists[row] >= 0 and len(others) > 1:
                partners[place] = rng.choice(others[others != row])
        return partners

    def _cost(self, embeddings: Tensor, rows: NDArray[np.int64], tasks: Sequence[str] | None = None) -> Tensor:
        """Cost of the tasks, or the distance of directions to the teacher's: 0 the same, 1 at right angles."""
        if self._teacher is not None:
            cosines = (normalize(embeddings, dim=1) * self._teacher[rows]).sum(dim=1)
            return (1 - cosines).mean()
        return self._heads.cost(unit(embeddings), torch.from_numpy(rows).to(self._device), tasks)

    def _random_patches(self, clip: Clip, rng: np.random.Generator) -> Tensor:
        """Cut neighbouring patches (n_patches, n_mels, patch_frames) out of a clip, augmented by chance."""
        log_mel_settings = self._settings.log_mel
        frames = log_mel_settings.patch_frames + (self._n_patches - 1) * log_mel_settings.patch_hop_frames
        n_samples = frames * log_mel_settings.hop_length
        start = int(rng.integers(max(1, len(clip.samples) - n_samples + 1)))
        samples = clip.samples[start : start + n_samples]
        by_chance = rng.random() < self._train.augmented_share
        if by_chance:
            samples = augmented(samples, clip.sample_rate, self._augment, rng)
        spectrogram = log_mel(torch.from_numpy(samples)[None], log_mel_settings)
        if by_chance:
            spectrogram = masked(spectrogram, self._augment.masks, rng)
        cut = patches(spectrogram, log_mel_settings)[0, : self._n_patches]
        return cut.repeat(-(-self._n_patches // len(cut)), 1, 1)[: self._n_patches]

    def _held_out_costs(self, rows: NDArray[np.int64], tasks: Sequence[str]) -> dict[str, float]:
        """Judge whole clips as they are used later: the cost that decides, then each task's own."""
        settings = self._settings.log_mel
        embeddings = torch.cat(
            [
                self._network(
                    patches(log_mel(torch.from_numpy(self._clips[row].samples)[None], settings), settings).to(
                        self._device
                    )
                )
                for row in rows
            ]
        )
        costs = {"held-out cost": float(self._cost(embeddings, rows, tasks))}
        if self._teacher is None:
            by_task = self._heads.costs(unit(embeddings), torch.from_numpy(rows).to(self._device), tasks)
            costs |= {task: float(cost) for task, cost in by_task.items()}
        return costs


def _freeze(network: Pooled, settings: NetworkSettings) -> list[nn.Module]:
    """Keep parts of a pretrained musicnn as they are; returns those that must not be set to train.

    All norms keep the published statistics: a small catalogue's own are worse.
    """
    if settings.name != "musicnn" or settings.start == "random":
        return []
    if settings.tune == "last":
        for part in (network.patch_network.normalise, network.patch_network.front):
            part.requires_grad_(False)
    return [network.patch_network]


def unit(embeddings: Tensor) -> Tensor:
    """Scale rows (n, d) to a mean square of 1: directions are what similarity is measured by."""
    directions: Tensor = normalize(embeddings, dim=1)
    return directions * sqrt(embeddings.shape[1])
