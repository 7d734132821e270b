"""The uploads of a generation as of some number of the log, and what was deleted by then.

    Snapshot, Reading  ->  extended  ->  Snapshot with what is new; the old one stays as it was

A transaction that fails leaves no trace, since whoever writes keeps the new snapshot only after the commit. An upload's
place counts all uploads of the log after the generation's last number, shown or not, so that its row never changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys.live.events import Upload
from recsys.model import Model
from recsys.overlay import Catalogue, Uploads
from recsys.store.transactions import TRACK, Reading
from recsys.types import SPACES, Float32, Int32, Space

ITEM = "hybrid"  # the name that an upload's joint item vector has among its vectors


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """``seen`` is the number of the log up to which it knows everything, ``deleted`` that of the last deletion."""

    model: Model
    generation: str
    folder: Path
    catalogue: Catalogue
    seen: int
    deleted: int = 0

    @classmethod
    def at(cls, model: Model, generation: str, folder: Path, taken_in: int) -> "Snapshot":
        """What is known right after a build; ``folder`` holds the uploads' audio."""
        none = Catalogue(model, Uploads.none(model.item_vectors.shape[1]))
        return cls(model, generation, folder, none, taken_in)

    @property
    def uploads(self) -> Uploads:
        """The uploads since the generation."""
        return self.catalogue.uploads

    def extended(self, reading: Reading) -> "Snapshot":
        """Take in what the log holds by now, reading only what is new."""
        last = reading.last_number()
        if last == self.seen:
            return self
        uploads, deleted = self.uploads, reading.number("state", b"deleted")
        fresh = list(reading.uploads(self.seen))
        if fresh:
            uploads = self._with(uploads, fresh, reading)
        if deleted != self.deleted or (fresh and deleted):
            uploads = self._hidden(uploads, reading.gone(TRACK))
        catalogue = self.catalogue if uploads is self.uploads else Catalogue(self.model, uploads)
        return replace(self, catalogue=catalogue, seen=last, deleted=deleted)

    def rows_of(self, track_ids: Sequence[str]) -> Int32:
        """Rows of tracks (n,), hidden ones too; -1 where neither generation nor uploads have the id."""
        rows = self.model.items.find(track_ids)
        for at in np.flatnonzero(rows < 0).tolist():
            if track_ids[at] in self.uploads.about:
                rows[at] = len(self.model.items) + self.uploads.about[track_ids[at]]["place"]
        return rows

    def _with(self, uploads: Uploads, fresh: list[tuple[int, Upload]], reading: Reading) -> Uploads:
        spaces: dict[Space, dict[int, Float32]] = {space: dict(known) for space, known in uploads.spaces.items()}
        about, hidden, rows = dict(uploads.about), set(uploads.hidden), []
        taken = self.model.items.find([upload.track_id for _, upload in fresh]) >= 0
        for place, ((number, upload), in_table) in enumerate(
            zip(fresh, taken.tolist(), strict=True), len(uploads.track_ids)
        ):
            vectors = reading.vectors(self.generation, number)
            if in_table or ITEM not in vectors:
                hidden.add(place)
                vectors = {}
            for space in SPACES:
                if space in vectors and space != ITEM:
                    spaces.setdefault(space, {})[place] = vectors[space]
            rows.append(vectors.get(ITEM, np.zeros(self.model.item_vectors.shape[1], dtype=np.float32)))
            about[upload.track_id] = _about(upload, self.folder, place)
        track_ids = (*uploads.track_ids, *(upload.track_id for _, upload in fresh))
        joint = np.vstack([uploads.item_vectors, *rows])
        return Uploads(track_ids, joint, spaces, about, frozenset(hidden), uploads.gone)

    def _hidden(self, uploads: Uploads, gone: list[str]) -> Uploads:
        built = self.model.items.find(gone)
        places = {uploads.about[track_id]["place"] for track_id in gone if track_id in uploads.about}
        return replace(uploads, hidden=uploads.hidden | places, gone=frozenset(built[built >= 0].tolist()))


def _about(upload: Upload, folder: Path, place: int) -> dict[str, Any]:
    """What is known of an upload, by the columns of the ``tracks`` table, and its place."""
    return {
        "track_id": upload.track_id, "title": upload.title, "artist": upload.artist, "album": upload.album,
        "genres": upload.genres, "year": upload.year, "duration_s": upload.duration_s,
        "path": str(folder / upload.file), "plays": 0.0, "is_cold": True, "place": place,
    }  # fmt: skip
