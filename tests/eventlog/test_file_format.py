"""A live.lmdb says its format: those of before move on, later ones are refused, and this one by what came before."""

from pathlib import Path
from typing import Any

import lmdb
import pytest

from recsys.errors import NewerError
from recsys.eventlog.events import Listened
from recsys.eventlog.file_format import FORMAT, IN_FILE, KEY, MARK
from recsys.eventlog.lmdb_env import DATABASES
from recsys.eventlog.store import LiveStore, open_live
from recsys.eventlog.transactions import seq_key


def old_file(file: Path) -> None:
    """One as the version of format 1 makes it, with an entry and some state."""
    with lmdb.open(str(file), subdir=False, max_dbs=64, map_size=1 << 24) as opened, opened.begin(write=True) as write:
        found = {name: opened.open_db(name.encode(), txn=write) for name in DATABASES}
        write.put(seq_key(1), b'{"kind": "removed"}', db=found["log"])
        for key, number in ((b"version", 7), (b"applied/g", 1), (b"moved", 1)):
            write.put(key, seq_key(number), db=found["state"])


def raw(file: Path, work: Any) -> Any:
    with lmdb.open(str(file), subdir=False, max_dbs=64, map_size=1 << 24) as opened, opened.begin(write=True) as write:
        return work(opened, write)


def test_a_file_of_before_is_read_as_it_is_and_moved_on_by_the_first_write(tmp_path: Path) -> None:
    file = tmp_path / "live.lmdb"
    old_file(file)
    with open_live(file) as live, live.reading() as reading:
        assert (reading.version(), reading.applied("g"), reading.moved_up_to(), reading.last_seq()) == (7, 1, 1, 1)
    with open_live(file, write=True) as live:
        with live.writing() as writing:
            assert writing.append(Listened("u", "t", "2024-01-01")) == 2
        with live.reading() as reading:
            assert (reading.version(), reading.applied("g"), reading.moved_up_to()) == (8, 1, 1)
            assert reading.number("state", KEY) == FORMAT
    assert raw(file, lambda _, write: write.get(b"state")) == MARK


def test_the_version_of_before_refuses_it(tmp_path: Path) -> None:
    """It opens every database by its name of then; LMDB's error became its sentence."""
    file = tmp_path / "live.lmdb"
    LiveStore.open(file).close()

    def as_before(opened: Any, write: Any) -> None:
        for name in DATABASES:
            opened.open_db(name.encode(), txn=write, create=False)

    with pytest.raises(lmdb.IncompatibleError):
        raw(file, as_before)


@pytest.mark.parametrize("write", [False, True])
def test_a_later_format_is_refused_and_not_written(tmp_path: Path, write: bool) -> None:
    file = tmp_path / "live.lmdb"
    LiveStore.open(file).close()
    raw(file, lambda opened, w: w.put(KEY, seq_key(FORMAT + 1), db=opened.open_db(IN_FILE, txn=w)))
    before = file.read_bytes()
    with pytest.raises(NewerError, match="a newer recsys wrote it; update this one"), open_live(file, write=write):
        pass
    assert file.read_bytes() == before
