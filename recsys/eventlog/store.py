"""The live store: what was uploaded, heard and deleted since a generation was built, durable before it is acknowledged.

    LiveStore.open(file)  ->  reading() or writing()  ->  recsys.eventlog.transactions

A generation's meta.json records the last number of the log that it took in; later entries are laid over it. Entries
are never dropped: every later build reads them all. A process has the file open once (``recsys.eventlog.lmdb_env``),
and any number of processes may write: LMDB lets one after the other.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import lmdb

from recsys.errors import ArtefactError, FullDiskError, LogLostError
from recsys.eventlog.events import Upload
from recsys.eventlog.lmdb_env import DATABASES, Environment, acquire, is_written, release
from recsys.eventlog.transactions import ReadTxn, WriteTxn
from recsys.store.generation import FULL
from recsys.types import Float32

__all__ = ["LiveReader", "LiveStore", "Upload", "open_live"]


class LiveStore:
    """The live store of a folder, open until ``close``."""

    def __init__(self, file: Path, write: bool, environment: Environment | None) -> None:
        self._file, self._write = file, write
        self.environment = environment

    @classmethod
    def open(cls, file: Path, write: bool = True) -> "LiveStore":
        """Open it for long; after a fork, not before.

        Raises:
            ArtefactError: the file is damaged or cannot be written.
        """
        return cls(file, write, acquire(file, write))

    @classmethod
    def absent(cls, file: Path) -> "LiveStore":
        """One in which there is nothing, where none can be made."""
        return cls(file, False, None)

    @property
    def readonly(self) -> bool:
        """Whether nothing can be written."""
        return not self._write

    def close(self) -> None:
        """Let go of the file; others in this process keep it."""
        if self.environment is not None:
            release(self.environment, self._write)

    @contextmanager
    def reading(self) -> Iterator[ReadTxn]:
        """Look at one state of the store.

        Raises:
            ArtefactError: the file is damaged.
        """
        if self.environment is None:
            yield ReadTxn(None, dict.fromkeys(DATABASES))
            return
        try:
            if self.environment.is_former or None in self.environment.databases.values():
                self.environment.find_databases()
            with self.environment.held(), self.environment.lmdb.begin() as transaction:
                yield ReadTxn(transaction, self.environment.databases)
        except lmdb.Error as error:
            raise ArtefactError(f"the live store {self._file} cannot be read: {error}; restore the file") from error

    @contextmanager
    def writing(self) -> Iterator[WriteTxn]:
        """Write, alone among all processes; on disk when the block has ended, and nothing of it if the block raises.

        Raises:
            ArtefactError: the file cannot be written, a full disk among the reasons; nothing was changed.
            LogLostError: another file, or none, is in its place.
        """
        if self.environment is None or not self._write:
            raise ArtefactError(f"the live store {self._file} cannot be written; check its rights and the disk's")
        if self.environment.readonly and os.access(self._file, os.W_OK):
            self.environment.mend()  # it was opened in the middle of a failure that is over
        try:
            if None in self.environment.databases.values():
                self.environment.find_databases(create=True)
            with self.environment.lmdb.begin(write=True) as transaction:
                if not self.environment.is_in_place:
                    raise LogLostError(
                        "live.lmdb was moved away or replaced under this process; put it back, or start the process "
                        "again; until then lists are served, nothing is written"
                    )
                writing = WriteTxn(transaction, self.environment.databases)
                writing.complete()
                yield writing
        except lmdb.Error as error:
            if isinstance(error, lmdb.PanicError):
                self.environment.mend()
            if isinstance(error, lmdb.MapFullError) or any(os.strerror(number) in str(error) for number in FULL):
                raise FullDiskError(f"the live store {self._file}: the disk is full; nothing was changed") from error
            raise ArtefactError(f"the live store {self._file} failed: {error}; nothing was changed") from error

    def get(self, database: str, key: bytes) -> bytes | None:
        """Find one value.

        Raises:
            ArtefactError: the file is damaged.
        """
        with self.reading() as reading:
            return reading.get(database, key)

    def prepare(self) -> None:
        """Make what a new file lacks, so that looks at it are quick; nothing where it cannot be written.

        Raises:
            ArtefactError: the file cannot be written.
        """
        if self.environment is not None and self._write and None in self.environment.databases.values():
            with self.writing():
                pass

    # ---- in a transaction of their own ----------------------------------------------------------------------------

    def uploads(self, after: int = 0) -> list[tuple[int, Upload]]:
        """The uploads numbered above ``after``, in order."""
        with self.reading() as reading:
            return list(reading.uploads(after))

    def last_seq(self) -> int:
        """Number of the newest entry, 0 if there is none."""
        with self.reading() as reading:
            return reading.last_seq()

    def track_of_audio(self, content_hash: str) -> str | None:
        """Find the upload with this audio."""
        with self.reading() as reading:
            return reading.track_of_audio(content_hash)

    def vectors(self, generation: str, seq: int) -> dict[str, Float32]:
        """Vectors (d,) of an upload under a generation, by name; empty if it has none there."""
        with self.reading() as reading:
            return reading.vectors(generation, seq)

    def append(self, upload: Upload, generation: str, vectors: Mapping[str, Float32]) -> int:
        """Write an upload with its vectors (d,) by name, into no list yet; returns its number."""
        with self.writing() as writing:
            seq = writing.append(upload)
            writing.set_vectors(generation, seq, vectors)
            return seq

    def set_vectors(self, generation: str, seq: int, vectors: Mapping[str, Float32]) -> None:
        """Write the vectors of an upload under a further generation."""
        with self.writing() as writing:
            writing.set_vectors(generation, seq, vectors)


def open_as_allowed(file: Path) -> LiveStore:
    """Open the live store to write, or to read alone where that is all that is allowed."""
    try:
        return LiveStore.open(file)
    except ArtefactError:
        if not _is_begun(file):
            return LiveStore.absent(file)
        return LiveStore.open(file, write=False)


@contextmanager
def open_live(file: Path, write: bool = False) -> Iterator[LiveStore | None]:
    """Open the live store for one piece of work; for reading, None where nothing was ever written.

    Raises:
        ArtefactError: the file is damaged or cannot be written.
    """
    if not write and not _is_begun(file):
        yield None
        return
    store = LiveStore.open(file, write)
    try:
        yield store
    finally:
        store.close()


class LiveReader:
    """The live store of a folder as somebody reads it again and again: opened once there is one, and once only."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._store: LiveStore | None = None
        self._opening = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[ReadTxn | None]:
        """Look at one state of the store; None where nothing was ever written.

        Raises:
            ArtefactError: the file is damaged.
        """
        with self._opening:
            store = self._current()
        if store is None:
            yield None
            return
        with store.reading() as reading:
            yield reading

    def _current(self) -> LiveStore | None:
        environment = None if self._store is None else self._store.environment
        if self._store is not None and environment is not None:
            if environment.pid != os.getpid():  # after a fork: the parent's is none of ours
                self._store = None
            elif not environment.is_in_place and _is_begun(self._file):  # a store that was deleted and made again
                self._store.close()
                self._store = None
        if self._store is None and (is_written(self._file) or _is_begun(self._file)):
            self._store = LiveStore.open(self._file, write=False)
        return self._store

    def close(self) -> None:
        """Let go of the file."""
        with self._opening:
            if self._store is not None:
                self._store.close()
            self._store = None


def _is_begun(file: Path) -> bool:
    """Whether there is something in a file; an empty one was just made, or was emptied."""
    return file.exists() and file.stat().st_size > 0


def lost_log(reading: ReadTxn, applied_seq: int) -> str | None:
    """Say what to do where the log ends before the last entry that a generation took in, None where it does not.

    New entries would take numbers that the generation knows already: no list and no deletion would ever see them.
    """
    last = reading.last_seq()
    if last >= applied_seq:
        return None
    return (
        f"the live log ends at entry {last:,}, but the generation was built with {applied_seq:,} entries of it: "
        "it was lost, emptied, or is an older one. Restore live.lmdb from a backup; or, to give up what it held, start"
        " a new one above the old numbers with `recsys restart-log`; until then lists are served, nothing is written"
    )
