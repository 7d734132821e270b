"""An upload's bytes on their way to the disk: a hidden file that nobody asks for by name.

    chunks  ->  Copy: take, flush, sync  ->  a file in store/uploads, and the hash of what is in it

Whatever happens to the call, the hidden file is gone after it; what is to stay is given another name by then.
"""

import asyncio
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.errors import DataError, LimitError
from recsys.store.generation import Store, disk_errors

COPY = ".copy-"  # begins the name of a hidden file, which is locked as long as it is written
_WRITTEN_AT_ONCE = 2**20  # bytes: a thread is asked once for so many


class Copy:
    """The file that an upload is written to as it comes; hashed on the way."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path, self._max_bytes = path, max_bytes
        self._file = path.open("xb")
        fcntl.flock(self._file, fcntl.LOCK_EX)  # let go of by a kill too
        self._waiting: list[bytes] = []
        self._n_waiting = self._n_bytes = 0
        self._digest = hashlib.blake2b(digest_size=16)  # as recsys.audio.decoding.worker.content_hash

    @classmethod
    @contextmanager
    def begun(cls, store: Store, suffix: str, max_bytes: int) -> Iterator["Copy"]:
        """Open a file of a name that no client knows; it is gone when the block ends."""
        path = store.uploads / f"{COPY}{uuid.uuid4().hex}{suffix}"
        with disk_errors("writing the upload"):
            store.uploads.mkdir(exist_ok=True)
            copy = cls(path, max_bytes)
        try:
            yield copy
        finally:
            path.unlink(missing_ok=True)
            with disk_errors("writing the upload"):
                copy._file.close()

    async def take(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            LimitError: there are too many of them.
        """
        self._n_bytes += len(chunk)
        if self._n_bytes > self._max_bytes:
            raise LimitError(f"the file is larger than {self._max_bytes / 2**20:g} MB, which is the limit")
        self._waiting.append(chunk)
        self._n_waiting += len(chunk)
        if self._n_waiting >= _WRITTEN_AT_ONCE:
            await asyncio.to_thread(self._write)

    async def flush(self) -> None:
        """Write what is left.

        Raises:
            DataError: no bytes came at all.
        """
        if not self._n_bytes:
            raise DataError("no audio came; send the file's bytes as chunks behind `about`")
        await asyncio.to_thread(self._write)

    def _write(self) -> None:
        block = b"".join(self._waiting)
        self._waiting.clear()
        self._n_waiting = 0
        self._digest.update(block)
        with disk_errors("writing the upload"):
            self._file.write(block)
            self._file.flush()

    def sync(self) -> None:
        """Make it durable; on a thread."""
        with disk_errors("writing the upload"):
            os.fsync(self._file.fileno())

    @property
    def content_hash(self) -> str:
        """The hash of what was written."""
        return self._digest.hexdigest()
