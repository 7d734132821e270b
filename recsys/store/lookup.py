"""Looking lists up in serving.lmdb: the bytes that answer, and what is known of tracks, in about two microseconds.

    users       user key                  -> Record of the user's list
    neighbours  letter of space, track key -> Record of a track's neighbours there
    tracks      track key                 -> i32 item row, JSON of the row of ``tracks``
    meta        what the file is; the list of somebody of whom nothing is known

A published file is never written again, so readers need no lock and no list of readers, and any number of processes
share its pages. It must be opened after a fork.
"""

import json
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import lmdb

from recsys.errors import ArtefactError
from recsys.store.keys import key_of
from recsys.store.record import Record
from recsys.types import NO_ITEM, Found, Space

FILE = "serving.lmdb"
FORMAT = 1
DATABASES = ("users", "neighbours", "tracks", "meta")
ROW = struct.Struct("<i")
POPULAR, META = b"popular", b"meta"


def space_key(space: Space) -> bytes:
    """Give the letter of a space, with which keys of its neighbours begin."""
    return space[:1].encode()


def open_lookup(file: Path) -> "Lookup":
    """Open a file, or share it with whoever in this process has it open: LMDB opens none twice.

    Raises:
        ArtefactError: it is missing or damaged.
    """
    with _OPENING:
        found = _OPEN.get(file)
        if found is None:
            found = _OPEN[file] = Lookup(file)
        return found


class Lookup:
    """An open serving.lmdb; it answers like the DuckDB tables (``recsys.types.Tables``) and gives records beside.

    Made by ``open_lookup``. The file is closed when the last one who holds this lets go of it.
    """

    def __init__(self, file: Path) -> None:
        """Open the file, read-only.

        Raises:
            ArtefactError: it is missing or damaged.
        """
        self._file = file
        if not file.is_file():
            raise ArtefactError(f"{file} is missing; build again, or serve with --backend duckdb")
        try:
            self._environment = lmdb.open(
                str(file), subdir=False, readonly=True, lock=False, max_dbs=len(DATABASES), readahead=False
            )
            _check_whole(file, self._environment)
            self._databases = {name: self._environment.open_db(name.encode(), create=False) for name in DATABASES}
        except (lmdb.Error, ValueError) as error:
            raise ArtefactError(f"cannot open {file}: {error}; build again, or serve with --backend duckdb") from error
        self._threads = threading.local()
        facts = _facts(bytes(self._get("meta", META) or b"{}"), file)
        if facts.get("format") != FORMAT:
            raise ArtefactError(f"{file} has the format {facts.get('format')}, expected {FORMAT}; build again")
        self.generation = str(facts.get("generation"))
        self.popular = bytes(self._get("meta", POPULAR) or b"")

    def _get(self, database: str, key: bytes) -> memoryview | None:
        """Find a value; what it points to stays, since nobody writes to the file."""
        transaction = getattr(self._threads, "transaction", None)
        try:
            if transaction is None:  # one a thread: LMDB wants none of them used by two at a time
                transaction = self._threads.transaction = self._environment.begin(buffers=True)
            found: memoryview | None = transaction.get(key, db=self._databases[database])
        except lmdb.Error as error:
            self._threads.transaction = None  # it is no more good for anything, and other pages may be whole
            raise ArtefactError(f"cannot read {self._file}: {error}; build again") from error
        return found

    # ---- bytes -------------------------------------------------------------------------------------------------------

    def list_at(self, key: bytes) -> memoryview | None:
        """Find the Record of the list of a user's key; None for somebody unknown, who is answered by ``popular``."""
        return self._get("users", key)

    def lists(self) -> Callable[[bytes], Any]:
        """Give what finds Records as ``list_at``, for one thread: in a transaction of its own, with LMDB's errors."""
        get: Callable[[bytes], Any] = self._environment.begin(db=self._databases["users"], buffers=True).get
        return get

    def list_of(self, user_id: str) -> memoryview | None:
        """Find the Record of a user's list, as ``list_at``."""
        return self._get("users", key_of(user_id))

    def neighbours_of(self, track_id: str, space: Space) -> memoryview | None:
        """Find the Record of a track's neighbours in a space."""
        return self._get("neighbours", space_key(space) + key_of(track_id))

    # ---- as tables ---------------------------------------------------------------------------------------------------

    def recommended(self, user_id: str) -> list[Found]:
        """Track id, score and reason of a user's stored list, best first."""
        record = self.list_of(user_id)
        return [] if record is None else Record(record).found()

    def neighbours(self, track_id: str, space: Space) -> list[tuple[str, float]]:
        """Track id and score of a track's stored neighbours, best first; none if the space lacks the track."""
        record = self.neighbours_of(track_id, space)
        return [] if record is None else [(found, score) for found, score, _ in Record(record).found()]

    def about(self, track_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What is known of tracks: the columns of ``tracks`` by track id."""
        known = {}
        for track_id in track_ids:
            line = self._get("tracks", key_of(track_id))
            if line is not None:
                known[track_id] = json.loads(bytes(line[ROW.size :]))
        return known

    def row(self, track_id: str) -> int:
        """Find a track's item row, -1 where there is no such track."""
        line = self._get("tracks", key_of(track_id))
        return NO_ITEM if line is None else int(ROW.unpack_from(line)[0])

    def close(self) -> None:
        """Do nothing: others may share this."""


_OPEN: WeakValueDictionary[Path, Lookup] = WeakValueDictionary()
_OPENING = threading.Lock()


def _facts(line: bytes, file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError) as error:
        raise ArtefactError(f"{file} does not say what it is; build again, or serve with --backend duckdb") from error


def _check_whole(file: Path, environment: lmdb.Environment) -> None:
    """Refuse a file that ends before its last page: looking there would kill the process, with no error to catch."""
    n_bytes = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if file.stat().st_size < n_bytes:
        environment.close()
        raise ValueError(f"it has {file.stat().st_size:,} bytes, expected {n_bytes:,}")
