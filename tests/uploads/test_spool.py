"""An upload's bytes on their way to the disk: what is written when, how much is too much, and what stays."""

import asyncio
import errno
import fcntl
import hashlib
import os
from pathlib import Path

import pytest

from recsys.errors import ArtefactError, DataError, FullDiskError, LimitError
from recsys.store.generation import Store
from recsys.uploads.spool import Copy

CHUNK = bytes(range(256)) * 2048  # half of what is written at once
LIMIT = 4 * len(CHUNK)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_bytes_are_written_a_megabyte_at_a_time_and_the_rest_at_the_end(store: Store) -> None:
    with Copy.begun(store, ".mp3", LIMIT) as copy:
        sizes = list[int]()
        for chunk in (CHUNK, CHUNK, b"more"):
            asyncio.run(copy.take(chunk))
            sizes.append(copy.path.stat().st_size)
        assert sizes == [0, 2 * len(CHUNK), 2 * len(CHUNK)]
        asyncio.run(copy.flush())
        copy.sync()
        assert copy.path.read_bytes() == CHUNK + CHUNK + b"more"
        assert copy.path.suffix == ".mp3"
        whole = hashlib.blake2b(CHUNK + CHUNK + b"more", digest_size=16)
        assert copy.content_hash == whole.hexdigest()


def test_as_many_bytes_as_may_come_are_taken_and_one_more_is_refused(store: Store) -> None:
    with Copy.begun(store, ".mp3", LIMIT) as copy:
        for _ in range(4):
            asyncio.run(copy.take(CHUNK))
        with pytest.raises(LimitError, match="larger than 2 MB"):
            asyncio.run(copy.take(b"1"))
        assert copy.path.stat().st_size == LIMIT


def test_no_bytes_are_no_audio(store: Store) -> None:
    with Copy.begun(store, ".mp3", LIMIT) as copy, pytest.raises(DataError, match="no audio came"):
        asyncio.run(copy.flush())


@pytest.mark.parametrize("is_kept", [True, False])
def test_it_is_gone_after_the_block_whatever_happened_unless_it_has_another_name(store: Store, is_kept: bool) -> None:
    kept = store.uploads / "song.mp3"

    def broken_off() -> None:
        with Copy.begun(store, ".mp3", LIMIT) as copy:
            asyncio.run(copy.take(b"audio"))
            asyncio.run(copy.flush())
            if is_kept:
                copy.path.rename(kept)
            raise ConnectionError("the client is gone")

    with pytest.raises(ConnectionError):
        broken_off()
    assert [file.read_bytes() for file in store.uploads.iterdir()] == ([b"audio"] if is_kept else [])


def test_it_is_locked_as_long_as_it_is_written(store: Store) -> None:
    with Copy.begun(store, ".mp3", LIMIT) as copy:
        other = copy.path.open("rb")
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(store: Store) -> None:
    store.uploads.write_text("a file in its place")
    with pytest.raises(ArtefactError, match="writing the upload failed"), Copy.begun(store, ".mp3", LIMIT):
        pass


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, FullDiskError), (errno.EIO, ArtefactError)])
def test_a_disk_that_takes_no_more_is_told_and_the_file_is_gone(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[ArtefactError]
) -> None:
    def fails(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    with Copy.begun(store, ".mp3", LIMIT) as copy:
        asyncio.run(copy.take(b"audio"))
        with pytest.raises(kind) as caught:
            copy.sync()
    assert type(caught.value) is kind
    assert list(store.uploads.iterdir()) == []
