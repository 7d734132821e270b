"""The uploads of a generation as of some number of the log, and what was deleted by then.

    Snapshot, ReadTxn  ->  extended  ->  Snapshot with what is new; the old one stays as it was

A transaction that fails leaves no trace, since a writer keeps the new snapshot only after the commit. An upload's
place counts all uploads of the log after the generation's last number, shown or not, so that its row never changes.
What is new is all that is read and all that is written: snapshots share what they have in common
(``recsys.ranking.uploaded_tracks``).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys.eventlog.events import Clock, Upload
from recsys.eventlog.store import LiveReader
from recsys.eventlog.transactions import TRACK, ReadTxn
from recsys.eventlog.user_state import delta_of
from recsys.ranking.catalogue_view import NO_DELTA, CatalogueView, UserDelta
from recsys.ranking.model import Model
from recsys.ranking.uploaded_tracks import Fresh, UploadedTracks
from recsys.store.generation import Store
from recsys.store.keys import key_of
from recsys.types import ITEM, NO_ITEM, VECTOR_SPACES, Float32, Int32, Space
from recsys.util.topk import unit_rows


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """``seen`` is the number of the log up to which it knows everything, ``deleted`` that of the last deletion."""

    model: Model
    generation: str
    folder: Path
    catalogue: CatalogueView
    seen: int
    deleted: int = 0

    @classmethod
    def at(cls, model: Model, generation: str, folder: Path, applied_seq: int) -> "Snapshot":
        """What is known right after a build; ``folder`` holds the uploads' audio."""
        none = CatalogueView(model, UploadedTracks.none(model.item_vectors.shape[1], len(model.items)))
        return cls(model, generation, folder, none, applied_seq)

    @property
    def uploads(self) -> UploadedTracks:
        """The uploads since the generation."""
        return self.catalogue.uploads

    def extended(self, reading: ReadTxn) -> "Snapshot":
        """Take in what the log holds by now, reading only what is new."""
        last, deleted = reading.last_seq(), reading.last_deletion()
        if (last, deleted) == (self.seen, self.deleted):
            return self
        fresh = list(reading.uploads(self.seen)) if last > self.seen else []
        uploads, hidden = self._with(fresh, reading) if fresh else (self.uploads, [])
        if deleted != self.deleted:
            hidden += self._gone(uploads, reading.deleted_tracks(self.deleted))
        uploads = uploads.with_hidden([row for _, row in sorted(hidden, key=lambda entry: entry[0])])
        catalogue = self.catalogue if uploads is self.uploads else CatalogueView(self.model, uploads)
        return replace(self, catalogue=catalogue, seen=last, deleted=deleted)

    def rows_of(self, track_ids: Sequence[str]) -> Int32:
        """Rows of tracks (n,), hidden ones too; -1 where neither generation nor uploads have the id."""
        rows = self.model.items.find(track_ids)
        for at in np.flatnonzero(rows < 0).tolist():
            place = self.uploads.place_of(track_ids[at])
            rows[at] = NO_ITEM if place == NO_ITEM else len(self.model.items) + place
        return rows

    def _with(self, fresh: list[tuple[int, Upload]], reading: ReadTxn) -> tuple[UploadedTracks, list[tuple[int, int]]]:
        """Add uploads; beside them the rows that are not to be shown, each with the number of the entry."""
        hidden, tracks = list[tuple[int, int]](), list[Fresh]()
        taken = self.model.items.find([upload.track_id for _, upload in fresh]) >= 0
        for place, ((seq, upload), in_table) in enumerate(zip(fresh, taken.tolist(), strict=True), self.uploads.n):
            vectors = reading.vectors(self.generation, seq)
            deleted = reading.number("gone", TRACK + key_of(upload.track_id))
            if in_table or ITEM not in vectors or 0 < deleted < seq:
                hidden.append((seq, len(self.model.items) + place))
                vectors = {}
            item = vectors.get(ITEM, np.zeros(self.model.item_vectors.shape[1], dtype=np.float32))
            tracks.append(Fresh(_about(upload, self.folder, place), item, self._unit(vectors)))
        return self.uploads.with_tracks(tracks), hidden

    def _unit(self, vectors: dict[str, Float32]) -> dict[Space, Float32]:
        """Unit vectors (d,) by space; an all-zero one is in none."""
        unit: dict[Space, Float32] = {}
        for space in VECTOR_SPACES:
            if space in vectors:
                row = vectors[space][None]
                unit[space] = (self.model.blend.likeness(row) if space == ITEM else unit_rows(row))[0]
        return {space: vector for space, vector in unit.items() if vector.any()}

    def _gone(self, uploads: UploadedTracks, deleted: list[tuple[int, str]]) -> list[tuple[int, int]]:
        """Rows of deleted tracks, of the generation and of uploads, each with the number of the deletion."""
        rows = self.model.items.find([track_id for _, track_id in deleted])
        found = [(seq, row) for (seq, _), row in zip(deleted, rows.tolist(), strict=True) if row != NO_ITEM]
        places = [(seq, uploads.place_of(track_id)) for seq, track_id in deleted]
        return found + [(seq, len(self.model.items) + place) for seq, place in places if place != NO_ITEM]


def _about(upload: Upload, folder: Path, place: int) -> dict[str, Any]:
    """What is known of an upload, by the columns of the ``tracks`` table, and its place."""
    return {
        "track_id": upload.track_id, "title": upload.title, "artist": upload.artist, "album": upload.album,
        "genres": upload.genres, "year": upload.year, "duration_s": upload.duration_s,
        "path": str(folder / upload.file), "plays": 0.0, "is_cold": True, "place": place,
    }  # fmt: skip


class SinceBuild:
    """What happened since a generation was built, as its reader sees it: in one environment for its life."""

    def __init__(self, store: Store, snapshot: Snapshot, clock: Clock = time.time) -> None:
        self._live, self._snapshot, self._clock = LiveReader(store.live), snapshot, clock

    def uploads(self) -> UploadedTracks:
        """The uploads that the generation does not know yet, and what was deleted."""
        with self._live.reading() as reading:
            return (self._snapshot if reading is None else self._snapshot.extended(reading)).uploads

    def delta(self, user_id: str) -> UserDelta:
        """What happened to one user's list, by whatever process."""
        with self._live.reading() as reading:
            if reading is None:
                return NO_DELTA
            snapshot, order = self._snapshot, self._snapshot.model.order
            gap = 0 if order is None else order.following.session_gap_s
            return delta_of(reading, snapshot.generation, snapshot.seen, user_id, self._clock(), gap)

    def close(self) -> None:
        """Let go of the file."""
        self._live.close()
