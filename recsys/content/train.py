"""Training the fusion on proxy tasks, and encoding tracks with it.

    Modalities, Targets  ->  fit_content  ->  ContentModel  ->  encode  ->  content vectors (n, d)

Costs are those of ``recsys.content.tasks``. A tenth of the tracks is kept aside to stop early on. Where no task has
labels the network stays at its random start, a random projection that at least keeps alike tracks alike, and the run
says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from recsys.content.fusion import Fusion, FusionSettings, FusionShape, Modalities
from recsys.content.lyrics import LyricsReader
from recsys.content.metadata import Metadata, Vocabulary
from recsys.content.settings import FusionTaskSettings
from recsys.content.tasks import Heads, Targets
from recsys.types import Float32, Int32
from recsys.util.progress import Progress
from recsys.util.settings import Settings
from recsys.util.threads import torch_threads
from recsys.util.training import Curve, StopSettings, run_epochs

BATCH = 2048  # tracks encoded at a time


class ContentSettings(Settings):
    """``[hybrid.content]`` in the run's TOML file."""

    fusion: FusionSettings = FusionSettings()
    tasks: FusionTaskSettings = FusionTaskSettings()
    epochs: int = Field(default=40, ge=0)
    patience: int = Field(default=5, ge=1)  # epochs without a better validation cost before stopping
    batch: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    train_tracks: int = Field(default=200_000, ge=1)  # a random sample of a larger catalogue
    validation_share: float = Field(default=0.1, ge=0, lt=1)


@dataclass(frozen=True, slots=True, eq=False)
class ContentModel:
    """The trained fusion with what is needed to encode a further track.

    ``trained_on`` names its proxy tasks, ``curve`` has a row an epoch; both are empty for a random start.
    """

    network: Fusion
    shape: FusionShape
    vocabulary: Vocabulary
    reader: LyricsReader
    settings: FusionSettings
    trained_on: tuple[str, ...]
    curve: Curve

    def encode(self, tracks: Modalities) -> Float32:
        """(n, d) unit vectors; a track of which nothing at all is known gets zeros."""
        self.network.eval()
        vectors = np.zeros((len(tracks), self.settings.dim), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(tracks), BATCH):
                rows = np.arange(start, min(start + BATCH, len(tracks)))
                vectors[rows] = self.network(tracks.take(rows)).numpy()
        vectors[~tracks.present().any(axis=1)] = 0
        return vectors


def modalities_of(
    sound: tuple[NDArray[np.int32], Float32] | None, lyrics: Int32 | Float32, metadata: Metadata
) -> Modalities:
    """Line up what is known of n tracks.

    Args:
        sound: rows (m,) and vectors (m, d) of the tracks that have a sound vector; None where none has.
        lyrics: a row a track, as a ``LyricsReader`` gives them.
        metadata: n encoded tracks.
    """
    n = len(lyrics)
    dense = np.zeros((n, 1 if sound is None else sound[1].shape[1]), dtype=np.float32)
    has_sound = np.zeros(n, dtype=bool)
    if sound is not None:
        dense[sound[0]], has_sound[sound[0]] = sound[1], True
    return Modalities(dense, has_sound, lyrics, metadata)


def fit_content(
    tracks: Modalities,
    targets: Targets,
    vocabulary: Vocabulary,
    reader: LyricsReader,
    settings: ContentSettings,
    seed: int,
    progress: Progress,
) -> ContentModel:
    """Train the fusion on the proxy tasks that have labels; same inputs and seed, same network."""
    torch.manual_seed(seed)
    shape = FusionShape(
        tracks.sound.shape[1],
        reader.width,
        len(vocabulary.genres),
        len(vocabulary.tags),
        len(vocabulary.artists),
        vocabulary.n_year_buckets,
    )
    network = Fusion(shape, settings.fusion)
    heads = Heads(settings.fusion.dim, targets, settings.tasks)
    curve: Curve = []
    if heads.active:
        # batches this small are ten times slower where two threads wait for each other on a busy machine, no faster on
        # an idle one, and one thread gives the same bits on any number of cores
        with torch_threads(1):
            curve = _train(network, heads, tracks, settings, np.random.default_rng(seed), progress)
    else:
        progress.log("content: no genre, artist or plays to learn from; the fusion stays at its random start")
    return ContentModel(network.eval(), shape, vocabulary, reader, settings.fusion, tuple(heads.active), curve)


def _train(
    network: Fusion,
    heads: Heads,
    tracks: Modalities,
    settings: ContentSettings,
    rng: np.random.Generator,
    progress: Progress,
) -> Curve:
    known = np.flatnonzero(tracks.present().any(axis=1))
    sample = rng.permutation(known)[: settings.train_tracks]
    n_validation = max(int(len(sample) * settings.validation_share), min(len(sample), 1))
    validation, training = sample[:n_validation], sample[n_validation:]
    parameters = [*network.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)

    def epoch(rng: np.random.Generator) -> float:
        total = 0.0
        for rows in _batches(rng.permutation(training), settings.batch):
            batch = tracks.take(rows)
            present = batch.present()
            keep = present & (rng.random(present.shape) >= settings.fusion.drop_modality)
            cost = heads.cost(network(batch, keep), torch.from_numpy(rows))
            optimizer.zero_grad()
            cost.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(cost.detach()) * len(rows)
        return total / max(len(training), 1)

    def judge() -> dict[str, float]:
        return {"held-out cost": _cost(network, heads, tracks, validation, settings.batch)}

    modules = {"network": network, "heads": heads}
    stop = StopSettings(epochs=settings.epochs, patience=settings.patience)
    return run_epochs(modules, optimizer, epoch, judge, stop, rng, progress, "content: training")


def _batches(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _cost(network: Fusion, heads: Heads, tracks: Modalities, rows: NDArray[np.int64], size: int) -> float:
    total = 0.0
    for batch in _batches(rows, size):
        total += float(heads.cost(network(tracks.take(batch)), torch.from_numpy(batch))) * len(batch)
    return total / max(len(rows), 1)
