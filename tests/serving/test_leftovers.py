"""What a kill leaves behind is cleared at the next start, and what is in use is not."""

import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.serving.leftovers import clear_leftovers
from recsys.store.generation import Store
from recsys.uploads.embed_client import SOCKET, SOCKET_FOLDER, WARM_FOLDER
from recsys.uploads.spool import Copy


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as short:  # a socket's path has 107 bytes at most
        monkeypatch.setattr(tempfile, "tempdir", short)
        store = Store(tmp_path / "store")
        store.generations.mkdir(parents=True)
        store.uploads.mkdir()
        yield store


def test_copies_that_nobody_writes_to(store: Store) -> None:
    with Copy.begun(store, ".mp3", 100) as copy:
        kept = [store.uploads / "abc.mp3", store.uploads / ".of-the-command-line"]
        left = [store.uploads / ".copy-0123.mp3", store.uploads / ".old"]
        for file in (*kept, *left):
            file.write_bytes(b"x")
        os.utime(left[1], (0, time.time() - 7200))
        assert set(left) <= set(clear_leftovers(store))
        assert all(file.exists() for file in (*kept, copy.path))
        assert not any(file.exists() for file in left)


def test_builds_that_were_killed(store: Store) -> None:
    partial = store.generations / "20260101T000000.000000Z.partial"
    partial.mkdir()
    with (store.folder / "build.lock").open("a") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        clear_leftovers(store)
        assert partial.exists(), "it is being built"
    assert partial in clear_leftovers(store)
    assert not partial.exists()


def test_sockets_that_nobody_answers_at(store: Store) -> None:
    folders = [Path(tempfile.mkdtemp(prefix=SOCKET_FOLDER)) for _ in range(3)]
    with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as alive:
        dead.bind(str(folders[0] / SOCKET))
        alive.bind(str(folders[1] / SOCKET))
        alive.listen()
        dead.close()
        gone = clear_leftovers(store)
        assert folders[0] in gone
        assert [folder.exists() for folder in folders] == [False, True, True]


def test_first_sounds(store: Store) -> None:
    old, young = (Path(tempfile.mkdtemp(prefix=WARM_FOLDER)) for _ in range(2))
    os.utime(old, (0, time.time() - 7200))
    assert old in clear_leftovers(store)
    assert young.exists()
