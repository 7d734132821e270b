"""Audio vectors that survive an interrupted build: an LMDB file under the store.

    (model version, content hash)   ->  CachedSound: vector, duration, format, problems
    (path, size, time of change)    ->  content hash, so that a later build does not read unchanged files

A batch is one transaction: a kill loses at most the batch in flight. A new model has a new version and so
finds nothing; entries are never wrong, only unused. Failures are not kept: a slow disk or a busy machine may
have been the reason, and trying again is cheap beside the rest. Each entry says by which version of the decoder it was
heard (an entry that does not was heard by the first); who asks decides whether that one heard it right.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb
import numpy as np

from recsys.audio.decoding.decode import DECODER, AudioProblem
from recsys.errors import ArtefactError
from recsys.types import Float32

_FIRST_MAP_BYTES = 2**26  # doubled whenever it is full; a sparse file, so this takes no room
_VECTORS = b"vector:"  # what the keys of vectors begin with
_FILE_MARK = struct.Struct("<qq16s")  # size in bytes, time of change in ns, content hash


@dataclass(frozen=True, slots=True, eq=False)
class CachedSound:
    """What embedding one recording gave: ``vector`` (d,), what was found on the way, and the decoder's version."""

    vector: Float32
    duration_s: float
    format: str
    problems: tuple[AudioProblem, ...]
    decoder: int = DECODER


@dataclass(frozen=True, slots=True)
class FileMark:
    """A file as it was when it was looked at, before its bytes were read."""

    path: Path
    size: int
    changed_ns: int

    @staticmethod
    def of(path: Path) -> "FileMark | None":
        """Look at a file; None where there is none."""
        try:
            status = path.stat()
        except (OSError, ValueError):
            return None
        return FileMark(path, status.st_size, status.st_mtime_ns)


class VectorCache:
    """Vectors by model and content; a context manager, one writer at a time.

    Args:
        path: the file, made when missing; its folder must exist. LMDB puts a lock file beside it.

    Raises:
        ArtefactError: the file is there but is no whole LMDB file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._env = lmdb.open(str(path), subdir=False, map_size=_FIRST_MAP_BYTES, max_readers=16)
        except lmdb.DiskError as error:
            raise ArtefactError(f"{path}: the audio cache cannot be written ({error})") from error
        except lmdb.Error as error:
            raise self._damaged(str(error)) from error
        # reading a page that was cut off is a bus error, which nothing can catch
        needed = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        if path.stat().st_size < needed:
            self._env.close()
            raise self._damaged(f"{path.stat().st_size:,} of {needed:,} bytes are there")

    def __enter__(self) -> Self:
        """Return the open cache."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._env.close()

    def n_entries(self) -> int:
        """Count what is kept."""
        return int(self._env.stat()["entries"])

    def hash_of(self, mark: FileMark) -> str | None:
        """Find the content hash of a file that has not changed since it was last read."""
        kept = self._get(_file_key(mark))
        if kept is None or len(kept) != _FILE_MARK.size:
            return None
        size, changed_ns, digest = _FILE_MARK.unpack(kept)
        return digest.hex() if (size, changed_ns) == (mark.size, mark.changed_ns) else None

    def get(self, version: str, content_hash: str) -> CachedSound | None:
        """Find what a model made of a recording.

        Raises:
            ArtefactError: the entry is damaged.
        """
        kept = self._get(_vector_key(version, content_hash))
        if kept is None:
            return None
        try:
            return _unpacked(kept)
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"the entry of {content_hash} cannot be read") from error

    def entries(self) -> Iterator[tuple[str, str, CachedSound | None]]:
        """List all vectors: version, content hash, and what is kept, or None where that is damaged.

        Raises:
            ArtefactError: the file is damaged.
        """
        try:
            with self._env.begin() as transaction, transaction.cursor() as cursor:
                found = cursor.set_range(_VECTORS)
                while found and bytes(cursor.key()).startswith(_VECTORS):
                    _, version, content_hash = bytes(cursor.key()).decode("utf-8", "replace").split(":", 2)
                    try:
                        yield version, content_hash, _unpacked(bytes(cursor.value()))
                    except (ValueError, KeyError, TypeError):
                        yield version, content_hash, None
                    found = cursor.next()
        except lmdb.Error as error:
            raise self._damaged(str(error)) from error

    def dim_of(self, version: str) -> int | None:
        """Find the width of a version's vectors; None where none is kept."""
        try:
            with self._env.begin() as transaction, transaction.cursor() as cursor:
                of_version = _vector_key(version, "")
                if not cursor.set_range(of_version) or not bytes(cursor.key()).startswith(of_version):
                    return None
                return len(_unpacked(bytes(cursor.value())).vector)
        except (ValueError, KeyError, TypeError):
            return None
        except lmdb.Error as error:
            raise self._damaged(str(error)) from error

    def put(
        self, version: str, sounds: Iterable[tuple[str, CachedSound]], files: Iterable[tuple[FileMark, str]]
    ) -> None:
        """Keep a batch: recordings by content hash, files with theirs. It is on disk when this returns."""
        rows = [(_vector_key(version, digest), _packed(sound)) for digest, sound in sounds]
        for mark, digest in files:
            packed = _FILE_MARK.pack(mark.size, mark.changed_ns, bytes.fromhex(digest))
            rows.append((_file_key(mark), packed))

        def write() -> None:
            with self._env.begin(write=True) as transaction:
                for key, value in rows:
                    transaction.put(key, value)

        try:
            self._grow_while_full(write)
        except lmdb.Error as error:
            raise ArtefactError(f"{self._path}: the audio cache cannot be written ({error})") from error

    def _grow_while_full(self, write: Callable[[], None]) -> None:
        while True:
            try:
                return write()
            except lmdb.MapFullError:
                self._env.set_mapsize(2 * self._env.info()["map_size"])

    def _get(self, key: bytes) -> bytes | None:
        try:
            with self._env.begin() as transaction:
                value: Any = transaction.get(key)
        except lmdb.Error as error:
            raise self._damaged(str(error)) from error
        return None if value is None else bytes(value)

    def _damaged(self, what: str) -> ArtefactError:
        return ArtefactError(f"{self._path}: the audio cache is damaged ({what}); delete it, it is made again")


def _packed(sound: CachedSound) -> bytes:
    about = {"duration_s": sound.duration_s, "format": sound.format, "problems": sound.problems}
    about["decoder"] = sound.decoder
    return json.dumps(about).encode() + b"\n" + np.asarray(sound.vector, "<f4").tobytes()


def _unpacked(kept: bytes) -> CachedSound:
    head, _, vector = kept.partition(b"\n")
    about = json.loads(head)
    problems = tuple(AudioProblem(*problem) for problem in about["problems"])
    decoder = int(about.get("decoder", 1))
    return CachedSound(np.frombuffer(vector, "<f4"), about["duration_s"], about["format"], problems, decoder)


def _vector_key(version: str, content_hash: str) -> bytes:
    return _VECTORS + f"{version}:{content_hash}".encode()


def _file_key(mark: FileMark) -> bytes:
    path = str(mark.path.absolute()).encode("utf-8", "surrogateescape")
    return b"file:" + hashlib.blake2b(path, digest_size=16).digest()  # LMDB keys end at 511 bytes, paths do not
