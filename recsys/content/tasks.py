"""Proxy tasks: what a network must tell from an embedding, so that the embedding comes to carry the music.

    Tracks, item factors  ->  targets_of  ->  Targets
    Targets, embeddings (b, d), rows (b,)  ->  Heads.cost  ->  one number

Genre and artist are classified, CF factors regressed (van den Oord et al. 2013), each by one linear layer.
Every cost is about 1 for a network that knows nothing, so the weights compare. A task without labels, in the
catalogue or in a batch, drops out by itself. Used by the audio network and by the fusion; which tracks are
held out is the caller's choice.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import log

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from recsys.content.settings import TaskSettings
from recsys.errors import DataError
from recsys.types import Float32, Int32, Tracks

__all__ = ["Heads", "Targets", "TaskSettings", "targets_of"]

_MIN_TRACKS = 2  # of a genre or artist, else there is nothing to have in common
_HALF_TRUST_LISTENERS = 5.0  # listeners at which a track's factors weigh half as much as they ever will


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What is known of n tracks, rows in their order.

    ``genres`` (n, G) float32 has 1 where a track is of a genre; ``artists`` (n,) int64 is a class below
    ``n_artists``, or -1; ``factors`` (n, f) float32 are scaled to a mean square of 1 and count by
    ``factor_weights`` (n,), 0 for none.
    """

    genres: Float32
    genre_names: tuple[str, ...]
    artists: NDArray[np.int64]
    n_artists: int
    factors: Float32
    factor_weights: Float32

    def __post_init__(self) -> None:
        """Check that all have a row a track."""
        n_rows = {len(self.genres), len(self.artists), len(self.factors), len(self.factor_weights)}
        if len(n_rows) != 1 or self.genres.shape[1] != len(self.genre_names):
            raise DataError(
                f"targets have {sorted(n_rows)} rows and {self.genres.shape[1]} columns for "
                f"{len(self.genre_names)} genres, expected one number of each"
            )

    def __len__(self) -> int:
        """Count the tracks."""
        return len(self.artists)

    def take(self, rows: NDArray[np.integer]) -> "Targets":
        """Pick rows; classes stay as they are."""
        return Targets(
            self.genres[rows],
            self.genre_names,
            self.artists[rows],
            self.n_artists,
            self.factors[rows],
            self.factor_weights[rows],
        )


def targets_of(
    tracks: Tracks,
    factors: Float32 | None,
    n_listeners: Int32 | None,
    settings: TaskSettings | None = None,
) -> Targets:
    """Collect the targets of a catalogue.

    Args:
        tracks: n tracks. factors: (n, f) item factors from training plays only; None where there are no
        listens. n_listeners: (n,) distinct listeners; a track with none has no factors to learn. Needed with
        ``factors``. settings: how many classes.

    Raises:
        DataError: factors or listeners do not have a row a track.
    """
    settings = settings or TaskSettings()
    genres, names = _genres(tracks.frame, settings.max_genres)
    artists, n_artists = _artists(tracks.frame, settings.max_artists)
    factors, weights = _factors(len(tracks), factors, n_listeners)
    return Targets(genres, names, artists, n_artists, factors, weights)


def _most_frequent(values: pl.Series, n_most: int) -> pl.Series:
    """List values that occur often enough, most frequent first, ties by name."""
    counts = values.drop_nulls().to_frame("value").group_by("value").len()
    counts = counts.filter((pl.col("len") >= _MIN_TRACKS) & (pl.col("value") != ""))
    return counts.sort(["len", "value"], descending=[True, False])["value"].head(n_most)


def _genres(tracks: pl.DataFrame, n_most: int) -> tuple[Float32, tuple[str, ...]]:
    pairs = tracks.select(pl.col("genres").list.unique()).with_row_index("row").explode("genres")
    names = _most_frequent(pairs["genres"], n_most)
    classes = pl.DataFrame({"genres": names}).with_row_index("class")
    known = pairs.join(classes, on="genres", how="inner")
    genres = np.zeros((len(tracks), len(names)), np.float32)
    genres[known["row"].to_numpy(), known["class"].to_numpy()] = 1
    return genres, tuple(names)


def _artists(tracks: pl.DataFrame, n_most: int) -> tuple[NDArray[np.int64], int]:
    names = _most_frequent(tracks["artist"], n_most)
    classes = pl.DataFrame({"artist": names}).with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("class"))
    joined = tracks.select("artist").join(classes, on="artist", how="left", maintain_order="left")
    return joined["class"].fill_null(-1).to_numpy().astype(np.int64), len(names)


def _factors(n: int, factors: Float32 | None, n_listeners: Int32 | None) -> tuple[Float32, Float32]:
    if factors is None:
        return np.zeros((n, 0), np.float32), np.zeros(n, np.float32)
    if n_listeners is None or len(factors) != n or len(n_listeners) != n:
        found = "none" if n_listeners is None else len(n_listeners)
        raise DataError(f"{n} tracks have {len(factors)} factors and {found} listener counts, expected a row a track")
    weights = (n_listeners / (n_listeners + _HALF_TRUST_LISTENERS)).astype(np.float32)
    known = factors[n_listeners > 0]
    scale = float(np.sqrt(np.mean(np.square(known, dtype=np.float64)))) if known.size else 0.0
    return (factors / (scale or 1.0)).astype(np.float32), weights if scale else np.zeros(n, np.float32)


class Heads(nn.Module):
    """One linear layer a task, over embeddings of width ``d``, and the labels they are held against."""

    genres: Tensor
    artists: Tensor
    factors: Tensor
    factor_weights: Tensor

    def __init__(self, d: int, targets: Targets, settings: TaskSettings) -> None:
        super().__init__()
        for name in ("genres", "artists", "factors", "factor_weights"):
            self.register_buffer(name, torch.from_numpy(getattr(targets, name)), persistent=False)
        self._weights = {"genre": settings.genre, "artist": settings.artist, "factors": settings.factors}
        n_outputs = {
            "genre": len(targets.genre_names),
            "artist": targets.n_artists,
            "factors": targets.factors.shape[1],
        }
        has_labels = {
            "genre": len(targets.genre_names) >= 2 and bool(targets.genres.any()),
            "artist": targets.n_artists >= 2 and bool((targets.artists >= 0).any()),
            "factors": targets.factors.shape[1] > 0 and bool((targets.factor_weights > 0).any()),
        }
        self.active: list[str] = [name for name, has in has_labels.items() if has and self._weights[name] > 0]
        self.layers = nn.ModuleDict({name: nn.Linear(d, n_outputs[name]) for name in self.active})

    def has_label(self, task: str, rows: Tensor) -> bool:
        """Whether any of some tracks has a label for a task."""
        labels = {"genre": self.genres, "artist": self.artists >= 0, "factors": self.factor_weights > 0}
        return bool(labels[task][rows].any())

    def cost(self, embeddings: Tensor, rows: Tensor, tasks: Iterable[str] | None = None) -> Tensor:
        """Add up the weighted costs of the tasks; 0 where no track of the batch has a label.

        Args:
            embeddings: (b, d).
            rows: (b,) int64, the track of each embedding.
            tasks: names to count; None for all that are active.
        """
        total = embeddings.sum() * 0.0  # so that a batch without any label still has a gradient, of 0
        for name in self.active if tasks is None else tasks:
            answers = self.layers[name](embeddings)
            cost = {"genre": self._genre_cost, "artist": self._artist_cost, "factors": self._factor_cost}[name]
            total = total + self._weights[name] * cost(answers, rows)
        return total

    def _genre_cost(self, answers: Tensor, rows: Tensor) -> Tensor:
        """Cross-entropy against equal shares of a track's genres, over log G."""
        labels = self.genres[rows]
        n_genres = labels.sum(dim=1)
        shares = labels / n_genres.clamp(min=1)[:, None]
        costs = -(shares * functional.log_softmax(answers, dim=1)).sum(dim=1)  # 0 for a track without a genre
        return costs.sum() / (n_genres > 0).sum().clamp(min=1) / log(labels.shape[1])

    def _artist_cost(self, answers: Tensor, rows: Tensor) -> Tensor:
        labels = self.artists[rows]
        costs = functional.cross_entropy(answers, labels, ignore_index=-1, reduction="sum")
        return costs / (labels >= 0).sum().clamp(min=1) / log(answers.shape[1])

    def _factor_cost(self, answers: Tensor, rows: Tensor) -> Tensor:
        weights = self.factor_weights[rows]
        errors = (answers - self.factors[rows]).square().mean(dim=1)
        return (weights * errors).sum() / weights.sum().clamp(min=1e-6)
