"""A full disk is called that, to the client and in the log, whoever met it."""

import errno
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import grpc
import lmdb
import pytest

from recsys.errors import ArtefactError, FullDiskError
from recsys.eventlog.events import Listened
from recsys.eventlog.store import LiveStore
from recsys.live.validation import MAX_ID_BYTES, refusal
from recsys.serving.server import FULL_DISK, _refusal
from recsys.store.generation import disk_errors


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, FullDiskError), (errno.EDQUOT, FullDiskError),
                                              (errno.EIO, ArtefactError)])  # fmt: skip
def test_of_a_file(number, kind):
    with pytest.raises(ArtefactError) as caught, disk_errors("writing"):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind
    assert ("the disk is full" in str(caught.value)) == (kind is FullDiskError)


@pytest.mark.parametrize("error", [lmdb.Error("mdb_txn_commit: No space left on device"), lmdb.MapFullError("full")])
def test_of_the_live_store(tmp_path: Path, error, monkeypatch):
    store = LiveStore.open(tmp_path / "live.lmdb")
    with pytest.raises(FullDiskError, match="the disk is full"), store.writing():
        raise error
    store.close()


def test_client_and_log_are_told_in_a_sentence(caplog):
    caplog.set_level(logging.INFO)
    assert _refusal(FullDiskError("/a/b: the disk is full"), "RecordListens") == (
        grpc.StatusCode.UNAVAILABLE, FULL_DISK
    )  # fmt: skip
    [record] = caplog.records
    assert "the disk is full" in record.getMessage()
    assert record.exc_info is None


@pytest.mark.parametrize("name", ["user", "track"])
def test_ids_of_listens_have_the_limit_of_others(name):
    ids = {"user": "u", "track": "t"}
    unused = SimpleNamespace(track_gone=lambda _: False)
    known = SimpleNamespace(rows_of=lambda _: [0])

    def told(n: int) -> str | None:
        given = ids | {name: "é" * (n // 2)}
        return refusal(Listened(given["user"], given["track"]), unused, known)

    assert told(MAX_ID_BYTES) is None
    assert told(MAX_ID_BYTES + 2) == f"the {name} id is longer than {MAX_ID_BYTES} bytes"
