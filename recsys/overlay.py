"""The catalogue that answers: the generation's items, and below them the tracks uploaded since.

    Model, Uploads  ->  Catalogue  ->  rows for ids, ids for rows, item vectors and space vectors of both

Rows of uploads go on where the generation's end, so ranking need not know which is which.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from recsys.hybrid.blend import unit_rows
from recsys.model import Model
from recsys.types import SPACES, Float32, Int32, Space


@dataclass(frozen=True, slots=True, eq=False)
class Uploads:
    """Tracks that came after the generation was built: ids, item vectors (m, d), vectors by space, what is known."""

    track_ids: tuple[str, ...]
    item_vectors: Float32
    spaces: Mapping[Space, Mapping[int, Float32]]
    about: Mapping[str, dict[str, Any]]

    @classmethod
    def none(cls, dim: int) -> "Uploads":
        """No uploads."""
        return cls((), np.zeros((0, dim), dtype=np.float32), {}, {})


class Catalogue:
    """Items of a generation and uploads as one list of rows."""

    def __init__(self, model: Model, uploads: Uploads) -> None:
        self._model = model
        self.uploads = uploads
        self.n_built = len(model.items)
        self._rows = {track_id: self.n_built + place for place, track_id in enumerate(uploads.track_ids)}

    def __len__(self) -> int:
        """Count the tracks."""
        return self.n_built + len(self._rows)

    def row(self, track_id: str) -> int:
        """Find a track's row.

        Raises:
            NotFoundError: no such track.
        """
        found = self._rows.get(track_id)
        return self._model.items.row(track_id) if found is None else found

    def find(self, track_id: str) -> int:
        """Find a track's row, -1 where there is no such track."""
        found = self._rows.get(track_id)
        return int(self._model.items.find([track_id])[0]) if found is None else found

    def id(self, row: int) -> str:
        """Name a row."""
        return self._model.items.id(row) if row < self.n_built else self.uploads.track_ids[row - self.n_built]

    def is_upload(self, track_id: str) -> bool:
        """Whether a track came after the generation was built."""
        return track_id in self._rows

    def upload_rows(self) -> Int32:
        """Rows of the uploads."""
        return np.arange(self.n_built, len(self), dtype=np.int32)

    @cached_property
    def vectors(self) -> Float32:
        """Joint item vectors (n, d); mapped as they are where nothing was uploaded."""
        if not self._rows:
            return self._model.item_vectors
        return np.vstack([self._model.item_vectors, self.uploads.item_vectors])

    def vectors_of(self, items: Sequence[int] | Int32) -> Float32:
        """Joint vectors (n, d) of a few items, without joining all."""
        rows = np.asarray(items, dtype=np.int32)
        built = rows < self.n_built
        vectors = np.empty((len(rows), self._model.item_vectors.shape[1]), dtype=np.float32)
        vectors[built] = self._model.item_vectors[rows[built]]
        vectors[~built] = self.uploads.item_vectors[rows[~built] - self.n_built]
        return vectors

    def spaces(self) -> list[Space]:
        """The spaces that have vectors."""
        return [s for s in SPACES if s == "hybrid" or s in self._model.spaces or self.uploads.spaces.get(s)]

    def space(self, space: Space) -> tuple[Int32, Float32]:
        """Rows (m,) of the tracks in a space, and their unit vectors (m, d); an all-zero vector is nowhere in it."""
        if space == "hybrid":
            return _known(np.arange(len(self), dtype=np.int32), self._model.blend.likeness(self.vectors))
        rows: list[Int32] = []
        vectors: list[Float32] = []
        if space in self._model.spaces:
            rows.append(self._model.spaces[space].rows)
            vectors.append(unit_rows(np.asarray(self._model.spaces[space].vectors)))
        fresh = self.uploads.spaces.get(space, {})
        for place in sorted(fresh):
            rows.append(np.array([self.n_built + place], dtype=np.int32))
            vectors.append(unit_rows(fresh[place][None]))
        return _known(np.concatenate(rows), np.vstack(vectors))


def _known(rows: Int32, vectors: Float32) -> tuple[Int32, Float32]:
    known = vectors.any(axis=1)
    return (rows, vectors) if known.all() else (rows[known], vectors[known])
