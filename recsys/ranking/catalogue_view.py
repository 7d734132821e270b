"""The catalogue that answers: the generation's items, and below them the tracks uploaded since.

    Model, UploadedTracks  ->  CatalogueView  ->  rows for ids, ids for rows, item vectors and space vectors of both

Rows of uploads go on where the generation's end, so ranking need not know which is which. What was deleted keeps its
row, so that rows of stored lists stay what they were, and is hidden.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys.errors import NotFoundError
from recsys.ranking.model import Model
from recsys.ranking.uploaded_tracks import UploadedTracks
from recsys.types import NO_ITEM, SPACES, Float32, Int32, Space
from recsys.util.topk import unit_rows

__all__ = ["NO_DELTA", "CatalogueView", "UploadedTracks", "UserDelta"]


@dataclass(frozen=True, slots=True, eq=False)
class UserDelta:
    """What happened to a user since the generation was built.

    ``record`` is the current list, None where it is the stored one; ``is_gone`` says that the generation must not use
    what it knows of them. Of somebody who listened since: ``query`` (d,), None where all was disliked, and item rows
    ``heard`` and ``barred``, uploads among them. ``popular`` is the current list of somebody of whom nothing is known.
    ``recent`` are the rows of the last plays, the latest last, and ``in_session`` says that no pause came after them.
    ``fresh`` are ids of tracks that were heard or barred so lately that the list does not take them in yet, each with
    whether it was barred. ``lost`` says that their current list is damaged, or its time is over, so that it is to be
    computed.
    """

    record: bytes | None = None
    is_gone: bool = False
    query: Float32 | None = None
    heard: Int32 | None = None
    barred: Int32 | None = None
    popular: bytes | None = None
    fresh: Mapping[str, bool] = field(default_factory=dict)
    lost: bool = False
    recent: Int32 | None = None
    in_session: bool = False

    def is_open_to(self, item: int, track_id: str) -> bool:
        """Whether they were not deleted, and have not heard or disliked a track since."""
        known = any(rows is not None and item in rows for rows in (self.heard, self.barred))
        return not (self.is_gone or known or track_id in self.fresh)


NO_DELTA = UserDelta()


class CatalogueView:
    """Items of a generation and uploads as one list of rows; made at once, however many uploads there are."""

    def __init__(self, model: Model, uploads: UploadedTracks) -> None:
        self.model = model
        self.uploads = uploads
        self.n_built = len(model.items)

    def __len__(self) -> int:
        """Count the rows, those of hidden tracks among them."""
        return self.n_built + self.uploads.n

    @property
    def n_tracks(self) -> int:
        """Count the tracks that are shown."""
        return len(self) - self.uploads.n_hidden

    @property
    def hidden(self) -> Int32:
        """Rows of tracks that are not shown, in no order."""
        return self.uploads.hidden_array

    def row(self, track_id: str) -> int:
        """Find a track's row.

        Raises:
            NotFoundError: no such track, or it was deleted.
        """
        found = self._upload_row(track_id)
        row = self.model.items.row(track_id) if found == NO_ITEM else found
        if row in self.uploads.hidden_rows:
            raise NotFoundError(f"track {track_id!r} was deleted; choose another")
        return row

    def find(self, track_id: str) -> int:
        """Find a track's row, -1 where there is no such track, or it was deleted."""
        found = self._upload_row(track_id)
        row = int(self.model.items.find([track_id])[0]) if found == NO_ITEM else found
        return NO_ITEM if row in self.uploads.hidden_rows else row

    def _upload_row(self, track_id: str) -> int:
        """Row of an upload that is shown, or -1."""
        place = self.uploads.place_of(track_id)
        return NO_ITEM if place == NO_ITEM or place in self.uploads.hidden else self.n_built + place

    @property
    def unknown(self) -> Int32:
        """Rows of tracks of which nothing is known: those that ``Model.unknown`` says, and such uploads."""
        fresh = self.uploads.unknown_places
        return (
            np.concatenate([self.model.unknown, fresh + np.int32(self.n_built)]) if len(fresh) else self.model.unknown
        )

    def are_unknown(self, rows: Int32) -> NDArray[np.bool_]:
        """Mark the rows (n,) of tracks of which nothing is known."""
        marked: NDArray[np.bool_] = np.isin(rows, self.unknown)
        return marked

    def id(self, row: int) -> str:
        """Name a row."""
        return self.model.items.id(row) if row < self.n_built else self.uploads.track_ids[row - self.n_built]

    def ids(self, rows: Int32) -> list[str]:
        """Name many rows, in their order."""
        built = rows < self.n_built
        if built.all():
            return self.model.items.ids(rows)
        names = iter(self.model.items.ids(rows[built]))
        track_ids, n_built = self.uploads.track_ids, self.n_built
        return [next(names) if row < n_built else track_ids[row - n_built] for row in rows.tolist()]

    def is_upload(self, track_id: str) -> bool:
        """Whether a track came after the generation was built."""
        return self._upload_row(track_id) != NO_ITEM

    def upload_rows(self) -> Int32:
        """Rows of the uploads that are shown."""
        rows = np.arange(self.n_built, len(self), dtype=np.int32)
        return rows[self.is_shown(rows)]

    def blocks(self, size: int) -> Iterator[tuple[int, Float32]]:
        """Joint item vectors (m, d) of all rows, block by block, each after its first row; nothing is joined."""
        for first, part in ((0, self.model.item_vectors), (self.n_built, self.uploads.item_vectors)):
            for start in range(0, len(part), size):
                yield first + start, np.asarray(part[start : start + size])

    def vectors_of(self, items: Sequence[int] | Int32) -> Float32:
        """Joint vectors (n, d) of a few items, without joining all."""
        rows = np.asarray(items, dtype=np.int32)
        built = rows < self.n_built
        vectors = np.empty((len(rows), self.model.item_vectors.shape[1]), dtype=np.float32)
        vectors[built] = self.model.item_vectors[rows[built]]
        vectors[~built] = self.uploads.item_vectors[rows[~built] - self.n_built]
        return vectors

    def spaces(self) -> list[Space]:
        """The spaces that there are."""
        return [s for s in SPACES if self.model.has_space(s) or self.uploads.has_space(s)]

    def space(self, space: Space, size: int) -> Iterator[tuple[Int32, Float32]]:
        """Rows (m,) of the tracks in a space, and their unit vectors (m, d), block by block, rows rising.

        An all-zero vector is nowhere in it.
        """
        known, items = self.model.spaces.get(space), self.model.item_vectors
        n = len(items) if space == "hybrid" else 0 if known is None else len(known.rows)
        for start in range(0, n, size):
            block = slice(start, min(start + size, n))
            if space == "hybrid":
                rows = np.arange(block.start, block.stop, dtype=np.int32)
                yield self._shown(rows, self.model.blend.likeness(np.asarray(items[block])))
            elif known is not None:
                yield self._shown(known.rows[block], unit_rows(np.asarray(known.vectors[block])))
        fresh, vectors = self.uploads_in(space)
        for start in range(0, len(fresh), size):
            yield fresh[start : start + size], vectors[start : start + size]

    def uploads_in(self, space: Space) -> tuple[Int32, Float32]:
        """Rows (m,) of the uploads that are shown in a space, and their unit vectors (m, d)."""
        places, vectors = self.uploads.vectors_in(space)
        rows = places + np.int32(self.n_built)
        shown = self.is_shown(rows)
        return (rows, vectors) if shown.all() else (rows[shown], vectors[shown])

    def unit_vector(self, item: int, space: Space) -> Float32 | None:
        """Unit vector (1, d) of one row in a space; None where it has none."""
        if item >= self.n_built:
            places, vectors = self.uploads.vectors_in(space)
            at = int(np.searchsorted(places, item - self.n_built))
            return vectors[at : at + 1] if at < len(places) and int(places[at]) == item - self.n_built else None
        if space == "hybrid":
            found = self.model.blend.likeness(self.vectors_of([item]))
        else:
            known = self.model.spaces.get(space)
            place = None if known is None else known.place(item)
            if known is None or place is None:
                return None
            found = unit_rows(np.asarray(known.vectors[place][None]))
        return found if found.any() else None

    def unit_vectors(self, items: Int32, space: Space) -> Float32:
        """Unit vectors (n, d) of rows that have one in a space."""
        built = items < self.n_built
        own, known = items[built], self.model.spaces.get(space)
        if space == "hybrid":
            vectors = self.model.blend.likeness(self.model.item_vectors[own])
        elif known is not None:
            vectors = unit_rows(known.vectors[np.searchsorted(known.rows, own)])
        if built.all():
            return vectors
        places, fresh = self.uploads.vectors_in(space)
        unit = np.empty((len(items), fresh.shape[1]), dtype=np.float32)
        unit[~built] = fresh[np.searchsorted(places, items[~built] - self.n_built)]
        if len(own):
            unit[built] = vectors
        return unit

    def _shown(self, rows: Int32, vectors: Float32) -> tuple[Int32, Float32]:
        """Leave out rows that are hidden, and those whose vector is zero."""
        shown = vectors.any(axis=1)
        shown &= self.is_shown(rows)
        return (rows, vectors) if shown.all() else (rows[shown], vectors[shown])

    def is_shown(self, rows: Int32) -> NDArray[np.bool_]:
        """Mark the rows (n,) that are not hidden."""
        if not self.uploads.n_hidden:
            return np.ones(len(rows), dtype=bool)
        return np.asarray(~np.isin(rows, self.hidden))
