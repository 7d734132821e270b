"""The catalogue that answers: the generation's items, and below them the tracks uploaded since.

    Model, Uploads  ->  Catalogue  ->  rows for ids, ids for rows, item vectors and space vectors of both

Rows of uploads go on where the generation's end, so ranking need not know which is which. What was deleted keeps its
row, so that rows of stored lists stay what they were, and is hidden.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.errors import NotFoundError
from recsys.hybrid.blend import unit_rows
from recsys.model import Model
from recsys.types import NO_ITEM, SPACES, Float32, Int32, Space


@dataclass(frozen=True, slots=True, eq=False)
class Uploads:
    """Tracks that came after the generation was built: ids, item vectors (m, d), vectors by space, what is known.

    ``hidden`` are places of uploads that are not shown: deleted since, unknown to this generation's models, or with
    the id of one of its tracks. ``gone`` are rows of the generation's own tracks that were deleted since.
    """

    track_ids: tuple[str, ...]
    item_vectors: Float32
    spaces: Mapping[Space, Mapping[int, Float32]]
    about: Mapping[str, dict[str, Any]]
    hidden: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()

    @property
    def nothing(self) -> bool:
        """Whether the catalogue is what it was when the generation was built."""
        return not (self.track_ids or self.gone)

    @property
    def n_shown(self) -> int:
        """Count the uploads that are shown."""
        return len(self.track_ids) - len(self.hidden)

    @classmethod
    def none(cls, dim: int) -> "Uploads":
        """No uploads."""
        return cls((), np.zeros((0, dim), dtype=np.float32), {}, {})


@dataclass(frozen=True, slots=True, eq=False)
class Touched:
    """What happened to a user since the generation was built.

    ``record`` is the list of now, None where it is the stored one; ``is_gone`` says that the generation must not use
    what it knows of them. Of somebody who listened since: ``query`` (d,), None where all was disliked, and item rows
    ``heard`` and ``barred``, uploads among them. ``popular`` is the list of now of somebody of whom nothing is known.
    ``lost`` says that their list of now is damaged, so that it is to be computed.
    """

    record: bytes | None = None
    is_gone: bool = False
    query: Float32 | None = None
    heard: Int32 | None = None
    barred: Int32 | None = None
    popular: bytes | None = None
    lost: bool = False

    def is_open_to(self, item: int) -> bool:
        """Whether they were not deleted, and have not heard or disliked a track since."""
        return not self.is_gone and not any(rows is not None and item in rows for rows in (self.heard, self.barred))


UNTOUCHED = Touched()


class Catalogue:
    """Items of a generation and uploads as one list of rows."""

    def __init__(self, model: Model, uploads: Uploads) -> None:
        self._model = model
        self.uploads = uploads
        self.n_built = len(model.items)
        places = enumerate(uploads.track_ids)
        self._rows = {track_id: self.n_built + place for place, track_id in places if place not in uploads.hidden}
        hidden = [*uploads.gone, *(self.n_built + place for place in uploads.hidden)]
        self.hidden: Int32 = np.sort(np.array(hidden, dtype=np.int32))

    def __len__(self) -> int:
        """Count the rows, those of hidden tracks among them."""
        return self.n_built + len(self.uploads.track_ids)

    @property
    def n_tracks(self) -> int:
        """Count the tracks that are shown."""
        return len(self) - len(self.hidden)

    def row(self, track_id: str) -> int:
        """Find a track's row.

        Raises:
            NotFoundError: no such track, or it was deleted.
        """
        found = self._rows.get(track_id)
        row = self._model.items.row(track_id) if found is None else found
        if row in self.uploads.gone:
            raise NotFoundError(f"track {track_id!r} was deleted; choose another")
        return row

    def find(self, track_id: str) -> int:
        """Find a track's row, -1 where there is no such track, or it was deleted."""
        found = self._rows.get(track_id)
        row = int(self._model.items.find([track_id])[0]) if found is None else found
        return NO_ITEM if row in self.uploads.gone else row

    def id(self, row: int) -> str:
        """Name a row."""
        return self._model.items.id(row) if row < self.n_built else self.uploads.track_ids[row - self.n_built]

    def ids(self, rows: Int32) -> list[str]:
        """Name many rows, in their order."""
        built = rows < self.n_built
        if built.all():
            return self._model.items.ids(rows)
        names = iter(self._model.items.ids(rows[built]))
        track_ids, n_built = self.uploads.track_ids, self.n_built
        return [next(names) if row < n_built else track_ids[row - n_built] for row in rows.tolist()]

    def is_upload(self, track_id: str) -> bool:
        """Whether a track came after the generation was built."""
        return track_id in self._rows

    def upload_rows(self) -> Int32:
        """Rows of the uploads that are shown."""
        return np.setdiff1d(np.arange(self.n_built, len(self), dtype=np.int32), self.hidden)

    def blocks(self, size: int) -> Iterator[tuple[int, Float32]]:
        """Joint item vectors (m, d) of all rows, block by block, each after its first row; nothing is joined."""
        for first, part in ((0, self._model.item_vectors), (self.n_built, self.uploads.item_vectors)):
            for start in range(0, len(part), size):
                yield first + start, np.asarray(part[start : start + size])

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

    def space(self, space: Space, size: int) -> Iterator[tuple[Int32, Float32]]:
        """Rows (m,) of the tracks in a space, and their unit vectors (m, d), block by block, rows rising.

        An all-zero vector is nowhere in it.
        """
        if space == "hybrid":
            for first, vectors in self.blocks(size):
                rows = np.arange(first, first + len(vectors), dtype=np.int32)
                yield self._shown(rows, self._model.blend.likeness(vectors))
            return
        known = self._model.spaces.get(space)
        for start in range(0, 0 if known is None else len(known.rows), size):
            assert known is not None
            block = slice(start, start + size)
            yield self._shown(known.rows[block], unit_rows(np.asarray(known.vectors[block])))
        fresh_rows, fresh = self.uploads_in(space)
        if len(fresh_rows):
            yield fresh_rows, fresh

    def uploads_in(self, space: Space) -> tuple[Int32, Float32]:
        """Rows (m,) of the uploads that are shown in a space, and their unit vectors (m, d)."""
        if space == "hybrid":
            rows = self.upload_rows()
            return self._shown(rows, self._model.blend.likeness(self.vectors_of(rows)))
        fresh = self.uploads.spaces.get(space, {})
        if not fresh:
            return np.zeros(0, dtype=np.int32), np.zeros((0, 1), dtype=np.float32)
        places = sorted(fresh)
        rows = np.array(places, dtype=np.int32) + np.int32(self.n_built)
        return self._shown(rows, unit_rows(np.stack([fresh[place] for place in places])))

    def unit_vector(self, item: int, space: Space) -> Float32 | None:
        """Unit vector (1, d) of one row in a space; None where it has none."""
        if space == "hybrid":
            found = self._model.blend.likeness(self.vectors_of([item]))
        elif item >= self.n_built:
            fresh = self.uploads.spaces.get(space, {}).get(item - self.n_built)
            if fresh is None:
                return None
            found = unit_rows(fresh[None])
        else:
            known = self._model.spaces.get(space)
            place = None if known is None else known.place(item)
            if known is None or place is None:
                return None
            found = unit_rows(np.asarray(known.vectors[place][None]))
        return found if found.any() else None

    def _shown(self, rows: Int32, vectors: Float32) -> tuple[Int32, Float32]:
        """Leave out rows that are hidden, and those whose vector is zero."""
        shown = vectors.any(axis=1)
        if len(self.hidden):
            shown &= ~np.isin(rows, self.hidden)
        return (rows, vectors) if shown.all() else (rows[shown], vectors[shown])
