"""The embedding process, seen from outside: the server's parent starts it, its workers ask it. No torch here.

    EmbeddingProcess(store, settings)  ->  start, sentinel, revive, close: in the parent, before it forks
    Embedder(address).embed(path, about, generation)  ->  Embedded, or the reason why not: in each worker

The parent holds the listening socket, so a request that comes while a process that died is being replaced waits for
the next; only what was being embedded is lost, and refused. What runs in it is ``recsys.uploads.embed_server``.
"""

import asyncio
import importlib.util
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import IO, Any, Self

from recsys.errors import ArtefactError, DataError
from recsys.types import Float32
from recsys.uploads.metadata import Embedded, NewTrack
from recsys.uploads.settings import UploadSettings
from recsys.uploads.wire import packed, receive, received

SOCKET_FOLDER, SOCKET, WARM_FOLDER = "recsys-embedder-", "embedder", "recsys-warm-"  # in the temporary folder
INSTALL = "pip install 'recsys[build]'"
MAX_FAILED_STARTS = 5  # in a row, before no other is started
FAILED_START_S = 10.0  # a process that ended with an error (not by a signal) within this could not start
_MAX_ADDRESS_BYTES = 100  # of a Unix socket's path, with some to spare
_NEEDED = ("torch", "torchaudio", "soundfile", "soxr", "av", "safetensors", "sentencepiece")

_LOG = logging.getLogger(__name__)


def can_embed() -> bool:
    """Whether what the embedding process needs is installed: the extra ``build``."""
    return all(importlib.util.find_spec(name) is not None for name in _NEEDED)


class Embedder:
    """Asks the embedding process; one connection a request, any number at a time."""

    def __init__(self, address: Path, settings: UploadSettings) -> None:
        self._address = address
        self._limit_s = 2 * settings.answer_s  # as long as it may work, and as long to wait for others' to be done

    async def embed(self, path: Path, about: NewTrack, generation: str) -> Embedded:
        """Embed a file with the models of a generation.

        Raises:
            DataError: it cannot be used as audio.
            ArtefactError: the process is gone or took too long, or the generation's models cannot be read.
        """
        request = packed({"path": str(path.absolute()), "about": asdict(about), "generation": generation})
        try:
            async with asyncio.timeout(self._limit_s):
                stream, writer = await asyncio.open_unix_connection(self._address)
                try:
                    writer.write(request)
                    reply, vectors = await received(stream)
                finally:
                    writer.close()
        except TimeoutError as error:
            raise ArtefactError(f"the embedding process took more than {self._limit_s:g} s; try again") from error
        except (EOFError, OSError, ValueError) as error:
            raise ArtefactError("the embedding process has ended; try again") from error
        return _embedded(reply, vectors)


def _embedded(reply: dict[str, Any], vectors: dict[str, Float32]) -> Embedded:
    if "error" in reply:
        raise (DataError if reply["error"] == "data" else ArtefactError)(reply["sentence"])
    return Embedded(reply["content_hash"], reply["duration_s"], vectors, tuple(reply["notes"]), reply["inside"])


class EmbeddingProcess:
    """The process as its parent holds it; a context manager, which starts and ends it.

    ``address`` is the socket's path, in a folder that only this user may enter; it takes requests, which wait, from the
    first moment. So workers can be forked first and ``start`` called after: torch takes seconds of a core to import.
    ``sentinel`` is readable once a process that was started has ended: then call ``revive``.
    """

    def __init__(self, store: Path, settings: UploadSettings) -> None:
        self._store, self._settings = store.absolute(), settings
        folder = tempfile.mkdtemp(prefix=SOCKET_FOLDER)
        if len(os.fsencode(folder)) > _MAX_ADDRESS_BYTES:
            os.rmdir(folder)
            folder = tempfile.mkdtemp(prefix=SOCKET_FOLDER, dir="/tmp")
        self.address = Path(folder) / SOCKET
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.address))
        self._listener.listen(128)
        self._failed_starts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._end: FileIO | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.close()

    def start(self) -> None:
        """Start a process; it is warm a few seconds later."""
        ends, held = os.pipe()
        self._end = FileIO(ends)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "recsys.uploads.embed_server", str(self._listener.fileno()),
                 str(self._store), self._settings.model_dump_json()],
                pass_fds=[self._listener.fileno(), held],  # the latter is closed when it ends, however it ends
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.PIPE,  # held by the parent as long as it lives
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the parent
            )  # fmt: skip
        finally:
            os.close(held)
        self._started = time.monotonic()

    @property
    def sentinel(self) -> int | None:
        """A descriptor that is readable once the process has ended; None while there is none."""
        return None if self._end is None else self._end.fileno()

    @property
    def parents_own(self) -> tuple[socket.socket | IO[bytes] | FileIO, ...]:
        """What a forked child must close, so that all ends when the parent does."""
        held = (self._end, None if self.process is None else self.process.stdin)
        return (self._listener, *(one for one in held if one is not None))

    def wait_until_warm(self, limit_s: float = 120.0) -> None:
        """Wait until it takes requests.

        Raises:
            ArtefactError: it does not within ``limit_s``, or it ends.
        """
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(limit_s)
                connection.connect(str(self.address))
                connection.sendall(packed({}))
                receive(connection)
        except (OSError, EOFError, ValueError) as error:
            raise ArtefactError("the embedding process did not start; see above what it wrote") from error

    def revive(self) -> bool:
        """Put another process in the place of the one that has ended, with a line in the log; False when it gave up.

        Then ``sentinel`` is None, and uploads are refused until the server is started anew.
        """
        if self.process is None:
            return False
        status = self.process.wait()
        self._let_go()
        failed = status > 0 and time.monotonic() - self._started < FAILED_START_S
        self._failed_starts = self._failed_starts + 1 if failed else 0
        message = f"the embedding process {self.process.pid} ended with status {status}"
        if self._failed_starts >= MAX_FAILED_STARTS:
            _LOG.error("%s, %d times in a row; no uploads from here on", message, self._failed_starts)
            self.close()
            return False
        _LOG.warning("%s; starting another", message)
        self.start()
        return True

    def _let_go(self) -> None:
        if self._end is not None:
            self._end.close()
            self._end = None
        if self.process is not None and self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()

    def close(self) -> None:
        """End the process at once, and take the socket away."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self._let_go()
        self._listener.close()
        shutil.rmtree(self.address.parent, ignore_errors=True)
