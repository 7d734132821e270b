"""The live store: uploads since a generation was built, in LMDB, durable before they are acknowledged.

    log      number -> JSON       append-only; what was uploaded, and which file holds its audio
    vectors  generation/number/name -> float32 bytes
    hashes   content hash of the audio -> track id

A generation's meta.json records the last number that it took in; later ones are overlaid when it is opened. Entries
are never dropped: every later build reads them all. The environment is opened for one piece of work and closed, since
LMDB allows one open environment a process and file.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from recsys.errors import ArtefactError
from recsys.types import Float32

MAP_SIZE = 1 << 38  # 256 GiB of address space; the file itself grows as it is filled


@dataclass(frozen=True, slots=True)
class Upload:
    """One uploaded track: ``file`` is its audio's name in ``uploads/``, ``at`` an ISO 8601 time."""

    track_id: str
    content_hash: str
    file: str
    title: str | None
    artist: str | None
    album: str | None
    genres: list[str]
    year: int | None
    lyrics: str | None
    duration_s: float | None
    at: str


class LiveStore:
    """The open environment; made by ``open_live``."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._log = environment.open_db(b"log", create=not environment.flags()["readonly"])
        self._vectors = environment.open_db(b"vectors", create=not environment.flags()["readonly"])
        self._hashes = environment.open_db(b"hashes", create=not environment.flags()["readonly"])

    def uploads(self, after: int = 0) -> Iterator[tuple[int, Upload]]:
        """Give the uploads numbered above ``after``, in order."""
        with self._environment.begin() as transaction, transaction.cursor(self._log) as cursor:
            found = cursor.set_range(struct.pack(">Q", after + 1))
            while found:
                yield struct.unpack(">Q", cursor.key())[0], Upload(**json.loads(cursor.value()))
                found = cursor.next()

    def last_number(self) -> int:
        """Number of the newest entry, 0 if there is none."""
        with self._environment.begin() as transaction, transaction.cursor(self._log) as cursor:
            return int(struct.unpack(">Q", cursor.key())[0]) if cursor.last() else 0

    def track_of_audio(self, content_hash: str) -> str | None:
        """Find the upload with this audio."""
        with self._environment.begin() as transaction:
            found = transaction.get(content_hash.encode(), db=self._hashes)
            return None if found is None else bytes(found).decode()

    def append(self, upload: Upload, generation: str, vectors: Mapping[str, Float32]) -> int:
        """Write an upload with its vectors (d,) by name; on disk when this returns. Gives its number."""
        with self._environment.begin(write=True) as transaction:
            with transaction.cursor(self._log) as cursor:
                number = (int(struct.unpack(">Q", cursor.key())[0]) if cursor.last() else 0) + 1
            transaction.put(struct.pack(">Q", number), json.dumps(asdict(upload)).encode(), db=self._log)
            transaction.put(upload.content_hash.encode(), upload.track_id.encode(), db=self._hashes)
            self._put_vectors(transaction, generation, number, vectors)
        return number

    def set_vectors(self, generation: str, number: int, vectors: Mapping[str, Float32]) -> None:
        """Give an upload its vectors under a further generation."""
        with self._environment.begin(write=True) as transaction:
            self._put_vectors(transaction, generation, number, vectors)

    def _put_vectors(self, transaction: Any, generation: str, number: int, vectors: Mapping[str, Float32]) -> None:
        for name, vector in vectors.items():
            key = f"{generation}/{number}/{name}".encode()
            transaction.put(key, np.asarray(vector, dtype="<f4").tobytes(), db=self._vectors)

    def vectors(self, generation: str, number: int) -> dict[str, Float32]:
        """Vectors (d,) of an upload under a generation, by name; empty if it has none there."""
        prefix = f"{generation}/{number}/".encode()
        found: dict[str, Float32] = {}
        with self._environment.begin() as transaction, transaction.cursor(self._vectors) as cursor:
            here = cursor.set_range(prefix)
            while here and cursor.key().startswith(prefix):
                found[cursor.key()[len(prefix) :].decode()] = np.frombuffer(cursor.value(), dtype="<f4").copy()
                here = cursor.next()
        return found


@contextmanager
def open_live(file: Path, write: bool = False) -> Iterator[LiveStore | None]:
    """Open the live store; for reading, None where nothing was ever uploaded.

    Raises:
        ArtefactError: the file is damaged or cannot be written.
    """
    if not write and not file.exists():
        yield None
        return
    try:
        environment = lmdb.open(str(file), subdir=False, max_dbs=3, map_size=MAP_SIZE, readonly=not write)
    except lmdb.Error as error:
        raise ArtefactError(f"cannot open the live store {file}: {error}") from error
    try:
        yield LiveStore(environment)
    except lmdb.Error as error:
        raise ArtefactError(f"the live store {file} failed: {error}; nothing was changed") from error
    finally:
        environment.close()
