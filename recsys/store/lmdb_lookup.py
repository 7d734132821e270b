"""Looking lists up in serving.lmdb: the bytes that answer, and what is known of tracks, in about two microseconds.

    users       user key                  -> Record of the user's list
    neighbours  letter of space, track key -> Record of a track's neighbours there
    tracks      track key                 -> i32 item row, JSON of the row of ``tracks``, sealed
    audio       content hash of an audio file -> id of the track that has it, sealed; generations of before lack this
    meta        what the file is; the list of somebody of whom nothing is known

Every value has a checksum that its key goes into, too (``recsys.store.record``, ``recsys.store.sealed``); those of a
file of format 1 have none. What is damaged, or is not found and must be there, is asked of the DuckDB file beside it,
which says the same; where that cannot be read either, it is an error.

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

from recsys.errors import ArtefactError, DamagedError, NewerError
from recsys.store.damage import met
from recsys.store.duckdb_tables import FILE as TABLES
from recsys.store.duckdb_tables import StoredTables
from recsys.store.keys import key_of
from recsys.store.record import Record
from recsys.store.sealed import sealed, unsealed
from recsys.types import NO_ITEM, Found, Space

FILE = "serving.lmdb"
FORMAT = 2
FORMATS = (1, FORMAT)  # that are read
AUDIO = "audio"
DATABASES = ("users", "neighbours", "tracks", "meta", AUDIO)
ROW = struct.Struct("<i")
POPULAR, META = b"popular", b"meta"


def space_key(space: Space) -> bytes:
    """The letter of a space, with which keys of its neighbours begin."""
    return space[:1].encode()


def open_lookup(file: Path) -> "Lookup":
    """Open a file, or share the one that this process has open: LMDB opens none twice.

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
            self._databases = {name: self._found(name) for name in DATABASES}
        except (lmdb.Error, ValueError) as error:
            raise ArtefactError(f"cannot open {file}: {error}; build again, or serve with --backend duckdb") from error
        self._threads = threading.local()
        self._beside: StoredTables | None = None
        self._opening = threading.Lock()
        facts = _facts(bytes(self._get("meta", META) or b"{}"), file)
        self._format = int(facts["format"])
        self.generation = str(facts.get("generation"))
        self.popular = bytes(self._get("meta", POPULAR) or b"")

    def _found(self, name: str) -> Any:
        try:
            return self._environment.open_db(name.encode(), create=False)
        except lmdb.NotFoundError:
            if name != AUDIO:
                raise
            return None

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
        """What finds Records as ``list_at``, for one thread: in a transaction of its own, with LMDB's errors."""
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
        """Track id, score and reason of the stored list of a user of this generation, best first.

        Raises:
            ArtefactError: it is damaged here, and cannot be read from the DuckDB file.
        """
        try:
            return _record(self.list_of(user_id), key_of(user_id)).found()
        except ArtefactError as error:
            return self._elsewhere(error).recommended(user_id)

    def neighbours(self, track_id: str, space: Space) -> list[tuple[str, float]]:
        """Track id and score of a track's stored neighbours, best first; none if the space lacks the track.

        Raises:
            ArtefactError: they are damaged here, and cannot be read from the DuckDB file.
        """
        try:
            record = self.neighbours_of(track_id, space)
            if record is None:
                return []
            key = space_key(space) + key_of(track_id)
            return [(found, score) for found, score, _ in Record(record, key).found()]
        except ArtefactError as error:
            return self._elsewhere(error).neighbours(track_id, space)

    def about(self, track_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What is known of tracks of this generation: the columns of ``tracks`` by track id.

        Raises:
            ArtefactError: it is damaged here, and cannot be read from the DuckDB file.
        """
        try:
            return {track_id: json.loads(self._line(track_id)[ROW.size :]) for track_id in track_ids}
        except (ArtefactError, ValueError) as error:
            damage = error if isinstance(error, ArtefactError) else DamagedError(f"{self._file} has a damaged track")
            return self._elsewhere(damage).about(track_ids)

    def row(self, track_id: str) -> int:
        """Find a track's item row, -1 where there is no such track.

        Raises:
            DamagedError: what is known of it is damaged.
        """
        key = key_of(track_id)
        line = self._get("tracks", key)
        return NO_ITEM if line is None else int(ROW.unpack_from(self._checked(line, key))[0])

    def track_of_audio(self, content_hash: str) -> str | None:
        """Find the track whose audio file has this content; of a generation of before, the DuckDB file knows.

        Raises:
            ArtefactError: it is damaged here, or not here, and cannot be read from the DuckDB file.
        """
        if self._databases[AUDIO] is None:
            return self._tables().track_of_audio(content_hash)
        key = key_of(content_hash)
        found = self._get(AUDIO, key)
        try:
            return None if found is None else unsealed(found, FORMAT, f"an audio file of {self._file}", key).decode()
        except (ArtefactError, UnicodeDecodeError) as error:
            damage = error if isinstance(error, ArtefactError) else DamagedError(f"{self._file} has a damaged track id")
            return self._elsewhere(damage).track_of_audio(content_hash)

    def close(self) -> None:
        """Do nothing: others may share this."""

    def _line(self, track_id: str) -> bytes:
        """What is known of a track that is there."""
        key = key_of(track_id)
        line = self._get("tracks", key)
        if line is None:
            raise DamagedError(f"{self._file} does not find a track that it must hold")
        return self._checked(line, key)

    def _checked(self, line: memoryview, key: bytes) -> bytes:
        if self._format == 1:
            return bytes(line)
        return unsealed(line, FORMAT, f"a track of {self._file}", key)

    def _elsewhere(self, error: ArtefactError) -> StoredTables:
        """The DuckDB file, since here something is damaged.

        Raises:
            ArtefactError: the same, where that file cannot be read either.
        """
        try:
            tables = self._tables()
        except ArtefactError:
            met(error, "the DuckDB file cannot be read either, so the call fails")
            raise error from None
        met(error, "the DuckDB file is asked instead")
        return tables

    def _tables(self) -> StoredTables:
        """Open the DuckDB file, once.

        Raises:
            ArtefactError: it cannot be.
        """
        with self._opening:
            if self._beside is None:
                self._beside = StoredTables(self._file.with_name(TABLES))
            return self._beside


def _record(found: memoryview | None, key: bytes) -> Record:
    """Read the Record of a user who must have one."""
    if found is None:
        raise DamagedError("serving.lmdb does not find a user that it must hold")
    return Record(found, key)


def facts_line(generation: str) -> bytes:
    """Write what the file is: its format and generation. A version that knows format 1 alone refuses any other."""
    facts = {"format": FORMAT, "generation": generation}
    seal = sealed(FORMAT, json.dumps(facts).encode()).hex()
    return json.dumps(facts | {"seal": seal}).encode()


_OPEN: WeakValueDictionary[Path, Lookup] = WeakValueDictionary()
_OPENING = threading.Lock()


def _facts(line: bytes, file: Path) -> dict[str, Any]:
    """Read what ``facts_line`` wrote, now or in format 1."""
    try:
        facts = dict(json.loads(line))
        number = int(facts["format"])
        if number > FORMAT:
            raise NewerError(
                f"{file} has the format {number}, expected {FORMAT} or less: a newer recsys wrote it; update this one, "
                "or build again"
            )
        is_whole = number == 1 if "seal" not in facts else facts_line(str(facts["generation"])) == line
    except (ValueError, TypeError, KeyError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{file} does not say what it is; build again, or serve with --backend duckdb") from error
    if number not in FORMATS or not is_whole:
        raise DamagedError(f"{file} says damaged things of itself; build again, or serve with --backend duckdb")
    return facts


def _check_whole(file: Path, environment: lmdb.Environment) -> None:
    """Refuse a file that ends before its last page: looking there would kill the process, with no error to catch."""
    n_bytes = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if file.stat().st_size < n_bytes:
        environment.close()
        raise ValueError(f"it has {file.stat().st_size:,} bytes, expected {n_bytes:,}")
