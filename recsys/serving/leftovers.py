"""What a server or an embedding process that was killed has left behind, cleared when the next one starts.

store/uploads/.*            copies of uploads that broke off: those that no process holds locked, or that are old
store/generations/*.partial a build that was killed, unless one is running
the temporary folder        sockets of embedding processes that nobody answers at, and their first sounds
"""

import fcntl
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from recsys.errors import ArtefactError
from recsys.store.generation import PARTIAL, UPLOAD_LIMIT_S, Store
from recsys.uploads.embed_client import SOCKET, SOCKET_FOLDER, WARM_FOLDER
from recsys.uploads.spool import COPY

OLD_S = 3600.0  # nothing takes that long to start


def clear_leftovers(store: Store) -> list[Path]:
    """Delete what is left of what was killed; returns what went. What cannot be deleted stays, and hurts nobody."""
    gone = list[Path]()
    for left in (*_uploads(store), *_generations(store), *_sockets(), *_warm()):
        with suppress(OSError):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
            gone.append(left)
    return gone


def _uploads(store: Store) -> Iterator[Path]:
    for copy in store.uploads.glob(".*"):
        with suppress(OSError):
            old = copy.stat().st_mtime < time.time() - UPLOAD_LIMIT_S
            if old or (copy.name.startswith(COPY) and not _is_held(copy)):
                yield copy


def _is_held(file: Path) -> bool:
    """Whether another process has a file locked, as one has that still writes to it."""
    with file.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _generations(store: Store) -> Iterator[Path]:
    partial = list(store.generations.glob(f"*{PARTIAL}"))
    if partial:
        with suppress(ArtefactError), store.build_lock():
            yield from partial


def _sockets() -> Iterator[Path]:
    for folder in {Path(tempfile.gettempdir()), Path("/tmp")}:
        for left in folder.glob(f"{SOCKET_FOLDER}*"):
            with suppress(OSError):
                if left.stat().st_uid == os.geteuid() and (left / SOCKET).is_socket() and _is_dead(left / SOCKET):
                    yield left


def _is_dead(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(address))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _warm() -> Iterator[Path]:
    for left in Path(tempfile.gettempdir()).glob(f"{WARM_FOLDER}*"):
        with suppress(OSError):
            about = left.stat()
            if about.st_uid == os.geteuid() and about.st_mtime < time.time() - OLD_S:
                yield left
