"""The live store's LMDB file as a process has it open: once, however many parts of the program use it.

    file  ->  acquire  ->  Environment, shared and counted  ->  release

LMDB refuses a second open of a file in one process, since closing either would drop the locks of both. So code that
wants the file, for a moment or for as long as the server runs, takes the one that is open. After a fork the child
opens its own. Who only reads opens it for reading: to find the databases of a file that is open for writing takes the
one lock that all writers of all processes have (LMDB's Python binding lets no read transaction do it), and no reader
may come to stand before that. Where a writer follows in the same process, it is opened anew for that, between reads.
"""

import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from recsys.errors import ArtefactError
from recsys.eventlog.file_format import find_database, is_moved_on

MAP_SIZE = 1 << 38  # 256 GiB of address space, so that no process has to map a grown file anew
MAX_READERS = 1024  # threads of all processes together
MOST_DATABASES = 64
MOST_S = 5.0  # that a file's readers in this process are waited for before it is opened anew
FIRST = 18  # place, in numbers of 8 bytes, of a meta page's commit (LMDB 0.9, mdb.c: MDB_page's head, then MDB_meta)
DATABASES = (
    *("log", "vectors", "hashes", "events", "of_user", "of_track", "uploads"),
    *("gone", "lists", "tastes", "heard", "state", "deletions", "near"),
)  # fmt: skip


class Environment:
    """One open file and its databases; None for those that an older version did not make."""

    def __init__(self, file: Path, write: bool) -> None:
        self.file, self.pid, self.n_users = file, os.getpid(), 0
        self.n_writers = 0  # of the users
        self.databases: dict[str, Any] = dict.fromkeys(DATABASES)
        self.readonly = True
        self.is_former = False  # read alone, and of format 1: another process may move it on
        self._gate, self._n_reading = threading.Condition(), 0
        self.lmdb = self._open(write)
        self.inode = file.stat().st_ino
        self.commits, self.second = _commits(file, self.lmdb)

    def _open(self, write: bool) -> Any:
        try:
            opened = self._opened(write)
            try:
                _check_whole(self.file, opened)
                opened.reader_check()
                self._find(opened, create=write)
            except BaseException:
                opened.close()
                raise
        except (lmdb.Error, OSError) as error:
            # a file that was not there before stays: another process may have it open by now
            raise ArtefactError(f"cannot open the live store {self.file}: {error}") from error
        return opened

    def _opened(self, write: bool) -> Any:
        options: dict[str, Any] = {
            "subdir": False,
            "max_dbs": MOST_DATABASES,
            "map_size": MAP_SIZE,
            "max_readers": MAX_READERS,
        }
        self.readonly = not write
        if write:
            return lmdb.open(str(self.file), **options)
        try:
            return lmdb.open(str(self.file), readonly=True, **options)
        except (lmdb.ReadonlyError, lmdb.DiskError, OSError):  # no lock file can be made: nobody writes here either
            return lmdb.open(str(self.file), readonly=True, lock=False, **options)

    def find_databases(self, create: bool = False) -> None:
        """Look for databases that another process may have made since, or make them."""
        self._find(self.lmdb, create)

    def _find(self, opened: Any, create: bool) -> None:
        if self.readonly:
            if self.is_former and is_moved_on(opened):
                self.databases["state"] = None
            self.is_former = not is_moved_on(opened)
        missing = [name for name, database in self.databases.items() if database is None]
        if self.readonly:
            self.databases |= {name: find_database(opened, name, None, create=False) for name in missing}
            return
        with opened.begin(write=True) as transaction:
            found = {name: find_database(opened, name, transaction, create) for name in missing}
        self.databases |= found  # once they are committed

    @contextmanager
    def held(self) -> Iterator[None]:
        """Read from the file as it is open now; it is opened anew before that or after it."""
        with self._gate:
            self._n_reading += 1
        try:
            yield
        finally:
            with self._gate:
                self._n_reading -= 1
                self._gate.notify_all()

    @property
    def is_in_place(self) -> bool:
        """Whether the file is still the one that was opened: one that was moved away takes writes nobody would see."""
        return _is_at(self, self.file)

    def mend(self) -> None:
        """Open the file anew after a failure that LMDB does not come back from; to read alone, where that is left."""
        with _GUARD:
            try:
                self.reopen(write=True)
            except ArtefactError:
                self.reopen(write=False)

    def reopen(self, write: bool) -> None:
        """Open the file anew, once those who read it at this moment have ended; others may not take long.

        Raises:
            ArtefactError: it is damaged or cannot be written.
        """
        with self._gate:
            self._gate.wait_for(lambda: self._n_reading == 0, MOST_S)
            self.lmdb.close()
            self.databases = dict.fromkeys(DATABASES)
            self.lmdb = self._open(write)
            self.commits, self.second = _commits(self.file, self.lmdb)


def _commits(file: Path, opened: Any) -> tuple["memoryview[int] | None", int]:
    """Map the two pages that commits are numbered in, in turn; where they stand in them: ``FIRST``, and what is given.

    None where they are not found there: LMDB may lay its files out in another way one day.
    """
    size = opened.stat()["psize"]
    second = size // 8 + FIRST
    before = opened.info()["last_txnid"]
    with file.open("rb") as pages:
        found = memoryview(mmap.mmap(pages.fileno(), 2 * size, access=mmap.ACCESS_READ)).cast("Q")
    is_there = before <= max(found[FIRST], found[second]) <= opened.info()["last_txnid"]
    return (found if is_there else None), second


def _check_whole(file: Path, opened: Any) -> None:
    """Refuse a file that was cut off: looking at a page that is not there kills the process."""
    needed = (opened.info()["last_pgno"] + 1) * opened.stat()["psize"]
    n_bytes = file.stat().st_size
    if n_bytes < needed:
        raise OSError(f"it was cut off: {n_bytes:,} of {needed:,} bytes are there")


_GUARD = threading.Lock()
_OPEN: dict[Path, Environment] = {}


def acquire(file: Path, write: bool) -> Environment:
    """The process's open environment of a file, opened now if it is not; to be given back to ``release``.

    Raises:
        ArtefactError: the file is damaged, or is to be written and cannot be.
    """
    name = file.resolve()
    with _GUARD:
        known = _OPEN.get(name)
        if known is not None and known.pid != os.getpid():
            known.lmdb.close()  # the parent's, of which LMDB has a copy here; the parent's own stays as it is
            known = None
        # one that is written here is read on where its file was moved away or replaced: it knows what was deleted
        if known is None or not (known.n_writers or known.is_in_place):
            known = _OPEN[name] = Environment(name, write)
        if write and known.readonly:
            _reopened(known)
        known.n_users += 1
        known.n_writers += write
    return known


def _reopened(known: Environment) -> None:
    """Open a file for writing that this process has open for reading; to read on where that cannot be."""
    try:
        known.reopen(write=True)
    except ArtefactError:
        known.reopen(write=False)
        if not known.n_users:
            known.lmdb.close()
            _OPEN.pop(known.file, None)
        raise


def is_written(file: Path) -> bool:
    """Whether this process has a file open to write, though it may be gone from its place."""
    known = _OPEN.get(file.resolve())
    return known is not None and known.n_writers > 0 and known.pid == os.getpid()


def release(environment: Environment, write: bool) -> None:
    """Let go of an environment; the last user closes it."""
    with _GUARD:
        environment.n_users -= 1
        environment.n_writers -= write
        if environment.n_users == 0 and environment.pid == os.getpid():
            environment.lmdb.close()
            if _OPEN.get(environment.file) is environment:
                del _OPEN[environment.file]


def _is_at(environment: Environment, file: Path) -> bool:
    """Whether the file is still the one that was opened; a store may be deleted and made again."""
    try:
        return file.stat().st_ino == environment.inode
    except OSError:
        return False
