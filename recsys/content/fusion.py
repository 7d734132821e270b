"""All that is known of a track, joined: sound, lyrics, genres, tags, artist and year -> one content vector.

    Modalities (n tracks)  ->  Fusion: a tower each -> concat -> dense  ->  (n, d), unit length

Any modality may be missing, in any combination: a learned vector stands in its place. While training, whole
modalities are dropped at random, so that a track with no lyrics or an unknown artist still gets a good vector.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from recsys.content.lyrics import LyricsSettings, LyricsTower
from recsys.content.metadata import Metadata
from recsys.types import Float32, Int32
from recsys.util.settings import Settings

MODALITIES = ("sound", "lyrics", "genres", "tags", "artist", "year")


class FusionSettings(Settings):
    """``[hybrid.content.fusion]`` in the run's TOML file."""

    dim: int = Field(default=64, ge=1)  # of the content vector
    tower: int = Field(default=32, ge=1)  # width that each modality is brought to
    hidden: int = Field(default=128, ge=1)
    drop_modality: float = Field(default=0.3, ge=0, lt=1)  # chance that a modality is left out of a training row
    lyrics: LyricsSettings = LyricsSettings()


@dataclass(frozen=True, slots=True, eq=False)
class Modalities:
    """What the towers take in, a row a track: ``sound`` (n, d) with zeros where there is none, ``has_sound`` (n,) bool,
    ``lyrics`` (n, n_tokens) tokens or (n, d) sentence vectors, zeros where there are none, and the encoded metadata.
    """

    sound: Float32
    has_sound: NDArray[np.bool_]
    lyrics: Int32 | Float32
    metadata: Metadata

    def __len__(self) -> int:
        """Count the tracks."""
        return len(self.sound)

    def take(self, rows: NDArray[np.integer[Any]]) -> "Modalities":
        """Keep some rows, in the order asked for."""
        return Modalities(self.sound[rows], self.has_sound[rows], self.lyrics[rows], self.metadata.take(rows))

    def present(self) -> NDArray[np.bool_]:
        """Say which modality each track has: (n, 6) in the order of ``MODALITIES``."""
        data = self.metadata
        return np.stack(
            [
                self.has_sound,
                (self.lyrics != 0).any(axis=1),
                np.diff(data.genres.indptr) > 0,
                np.diff(data.tags.indptr) > 0,
                data.artist >= 0,
                data.year >= 0,
            ],
            axis=1,
        )


@dataclass(frozen=True, slots=True)
class FusionShape:
    """The sizes that the data give the network: widths of the sound vector and the lyrics, and numbers of classes."""

    sound: int
    lyrics: int
    genres: int
    tags: int
    artists: int
    year_buckets: int


class Fusion(nn.Module):
    """A small tower for each modality, then concat -> dense -> content vector."""

    def __init__(self, shape: FusionShape, settings: FusionSettings) -> None:
        super().__init__()
        width = settings.tower
        self.sound = nn.Linear(shape.sound, width)
        self.lyrics = _lyrics_tower(shape.lyrics, width, settings.lyrics)
        self.genres = nn.EmbeddingBag(max(shape.genres, 1), width, mode="sum")
        self.tags = nn.EmbeddingBag(max(shape.tags, 1), width, mode="sum")
        self.artist = nn.Embedding(max(shape.artists, 1), width)
        self.year = nn.Embedding(max(shape.year_buckets, 1), width)
        self.missing = nn.Parameter(torch.zeros(len(MODALITIES), width))
        self.dense = nn.Sequential(
            nn.Linear(len(MODALITIES) * width, settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, settings.dim)
        )

    def forward(self, tracks: Modalities, present: NDArray[np.bool_] | None = None) -> Tensor:
        """Map n tracks to (n, dim) unit vectors.

        ``present`` (n, 6) says which modalities to look at; by default those that the tracks have.
        """
        data, seen = tracks.metadata, tracks.present() if present is None else present
        towers: tuple[Callable[[NDArray[np.int64]], Tensor], ...] = (
            lambda rows: self.sound(torch.from_numpy(tracks.sound[rows])),
            lambda rows: self.lyrics(torch.from_numpy(tracks.lyrics[rows])),
            lambda rows: _bag(self.genres, data.genres[rows]),
            lambda rows: _bag(self.tags, data.tags[rows]),
            lambda rows: self.artist(torch.from_numpy(data.artist[rows])),
            lambda rows: self.year(torch.from_numpy(data.year[rows])),
        )
        joined = []
        for column, tower in enumerate(towers):
            stand_in = self.missing[column].expand(len(tracks), -1)
            rows = np.flatnonzero(seen[:, column])
            joined.append(stand_in.index_copy(0, torch.from_numpy(rows), tower(rows)) if len(rows) else stand_in)
        vectors: Tensor = nn.functional.normalize(self.dense(torch.cat(joined, dim=1)), dim=1)
        return vectors


def _lyrics_tower(n: int, width: int, settings: LyricsSettings) -> nn.Module:
    """Tokens go through the GRU; sentence vectors, frozen as they are, through one layer."""
    if settings.encoder == "sentence":
        return nn.Linear(max(n, 1), width)
    tower = LyricsTower(n, settings)
    return nn.Sequential(tower, nn.Linear(tower.dim, width))


def _bag(embedding: nn.EmbeddingBag, weights: csr_matrix) -> Tensor:
    """Add up the embeddings of a row's columns by weight, rows scaled to unit length: many tags shout no louder."""
    norms = np.sqrt(np.asarray(weights.multiply(weights).sum(axis=1))).ravel()
    scaled = weights.data / np.repeat(np.maximum(norms, 1e-12), np.diff(weights.indptr))
    bags: Tensor = embedding(
        torch.from_numpy(weights.indices.astype(np.int64)),
        torch.from_numpy(weights.indptr[:-1].astype(np.int64)),
        per_sample_weights=torch.from_numpy(scaled.astype(np.float32)),
    )
    return bags
