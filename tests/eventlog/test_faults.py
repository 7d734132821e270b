"""What is acknowledged is there after whatever happens; what fails leaves nothing and says why."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import lmdb
import pytest

from helpers.live_store import heard, listed, opened
from helpers.places import ROOT
from helpers.stores import copied
from recsys.errors import ArtefactError
from recsys.eventlog.events import Listened, TrackDeleted
from recsys.eventlog.lmdb_env import MAP_SIZE
from recsys.eventlog.store import LiveStore, open_live
from recsys.live import service
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.store.record import Record

# records listens one after the other, and says so after each
WRITER = """
import sys
from pathlib import Path
from recsys.eventlog.events import Listened
from recsys.live.service import LiveUpdater
from recsys.store.generation import Store
from recsys.recommender import open_store

folder, name, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
live = LiveUpdater(Store(folder), open_store(folder))
print("open", flush=True)
sys.stdin.readline()
for number in range(n):
    done = live.record([Listened(f"{name}-{number % 7}", f"t{number % 39}", event_id=f"{name}/{number}")])
    assert done.recorded == 1, done
    print(number, flush=True)
"""


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    return copied(tiny_store, tmp_path)


def writer(store: Path, name: str, n: int) -> subprocess.Popen:
    arguments = [sys.executable, "-c", WRITER, str(store), name, str(n)]
    return subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def started(*writers: subprocess.Popen) -> None:
    for one in writers:
        assert one.stdout.readline() == "open\n"
    for one in writers:
        one.stdin.write("go\n")
        one.stdin.flush()


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_nothing_acknowledged(store: Path) -> None:
    rng = random.Random(5)
    written = [writer(store, f"w{n}", 100_000) for n in range(3)]  # at once, and killed one after the other
    started(*written)
    acknowledged = []
    for n, one in enumerate(written):
        time.sleep(rng.uniform(0.2, 0.6))
        os.kill(one.pid, signal.SIGKILL)
        lines = one.communicate()[0].splitlines()
        assert lines, "it was killed too early to tell anything"
        acknowledged += [(f"w{n}", int(line)) for line in lines]
    with open_live(Store(store).live) as live, live.reading() as reading:
        numbers = [number for number, _ in reading.events()]
        assert numbers == list(range(1, len(numbers) + 1))
        known = {event.event_id for _, event in reading.events() if isinstance(event, Listened)}
        assert {f"{name}/{number}" for name, number in acknowledged} <= known
        assert len(known) - len(acknowledged) <= 3, "one each was on its way"
        assert all(reading.recorded(event_id) for event_id in known)
        generation = Store(store).current().name
    with opened(store) as live, live._live.reading() as reading:  # which derives what a kill has left
        assert reading.applied(generation) == len(numbers)
        for name, number in acknowledged:
            record = Record(reading.list_of(generation, f"{name}-{number % 7}"))
            assert f"t{number % 39}" not in [track for track, _, _ in record.found()]


@pytest.mark.slow
def test_two_processes_and_this_one_write_at_once(store: Path) -> None:
    others = [writer(store, name, 25) for name in ("a", "b")]
    started(*others)
    with opened(store) as live:
        for number in range(25):
            live.record([Listened("c-0", f"t{number}", event_id=f"c/{number}")])
        assert [len(one.communicate()[0].splitlines()) for one in others] == [25, 25]
        assert live.list_of("a-0") is not None
    with open_live(Store(store).live) as bare, bare.reading() as reading:
        names = [event.event_id for _, event in reading.events()]
        assert sorted(names) == sorted(f"{name}/{number}" for name in "abc" for number in range(25))
        for name in "abc":
            own = [one for one in names if one.startswith(name)]
            assert own == [f"{name}/{number}" for number in range(25)], "each in its own order"


def test_a_grown_file_is_read_by_who_opened_it_small(store: Path) -> None:
    live = LiveStore.open(Store(store).live)
    try:
        size = Store(store).live.stat().st_size
        grow = (
            "import sys; from pathlib import Path; from recsys.eventlog.store import open_live\n"
            "with open_live(Path(sys.argv[1]), write=True) as live, live.writing() as writing:\n"
            "    for n in range(2000): writing.put_list('g', f'u{n}', b'x' * 5000)\n"
        )
        subprocess.run([sys.executable, "-c", grow, str(Store(store).live)], cwd=ROOT, check=True)
        assert Store(store).live.stat().st_size > size + 8_000_000
        with live.reading() as reading:
            assert reading.list_of("g", "u1999") == b"x" * 5000
        with live.writing() as writing:
            writing.put_list("g", "u0", b"y")
        with live.reading() as reading:
            assert reading.list_of("g", "u0") == b"y"
    finally:
        live.close()


def test_a_full_disk_changes_nothing_and_is_told(store: Path) -> None:
    with opened(store) as live:
        live.record(heard("u0", "t2"))
        before, known = live.list_of("u0"), live.version()
        former = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (Store(store).live.stat().st_size, former[1]))
        try:
            with pytest.raises(ArtefactError, match="nothing was changed") as caught:
                live.record([listen for n in range(200) for listen in heard(f"new{n}", *(f"t{m}" for m in range(9)))])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, former)
        assert "\n" not in str(caught.value)
        n = 0
        assert (live.version(), live.list_of("u0")) == (known, before)
        assert live.list_of(f"new{n}") is None
        assert live.record(heard(f"new{n}", "t1")).recorded == 1, "and goes on when there is room"
        assert "t1" not in listed(live, f"new{n}")


def test_a_list_that_cannot_be_made_leaves_the_event_which_is_acknowledged_and_shown_nowhere(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recsys.live import updater

    with opened(store) as live:
        live.record(heard("u0", "t2"))
        before = live.list_of("u0")

        def broken(*_: object) -> None:
            raise ArtefactError("a table is gone")

        monkeypatch.setattr(updater.UserUpdate, "__call__", broken)
        assert live.record(heard("u0", "t5")).recorded == 1
        assert (live.list_of("u0"), live.behind()) == (before, 1)
        assert live.get(b"u0") is None, "bytes that lack it are not sent"
        assert "t5" not in [track.track_id for track in Recommender.open(store).recommend("u0", 30).tracks]
        monkeypatch.undo()
        live.settle()
        assert "t5" not in listed(live, "u0")
        assert live.behind() == 0


def test_a_write_that_fails_leaves_no_trace(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(store) as live:
        live.record(heard("u0", "t2"))
        before = (live.list_of("u0"), live.version(), live.backlog())

        def broken(*_: object) -> None:
            raise OSError("a table is gone")

        monkeypatch.setattr(service, "refusal", broken)
        with pytest.raises(OSError, match="gone"):
            live.record(heard("u0", "t5"))
        assert (live.list_of("u0"), live.version(), live.backlog()) == before
        monkeypatch.undo()
        assert live.record(heard("u0", "t5")).recorded == 1
        assert "t5" not in listed(live, "u0")


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_file_that_was_cut_off_is_an_error(store: Path, share: float) -> None:
    with opened(store) as live:
        live.record([listen for n in range(30) for listen in heard(f"x{n}", "t1", "t2", "t3")])
    file = Store(store).live
    os.truncate(file, int(file.stat().st_size * share))
    for write in (False, True):
        with pytest.raises(ArtefactError, match="it was cut off"), open_live(file, write):
            pass
    with pytest.raises(ArtefactError, match="cannot open the live store"), opened(store):
        pass


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"kind": "dance"}', b'{"kind": "listen"}', b"\xff"])
def test_a_damaged_entry_is_an_error(tmp_path: Path, line: bytes) -> None:
    with open_live(tmp_path / "live.lmdb", write=True) as live:
        with live.writing() as writing:
            writing.put("log", (1).to_bytes(8, "big"), line)
        with pytest.raises(ArtefactError, match=r"cannot be read|checksum"), live.reading() as reading:
            list(reading.events())


def test_a_file_of_an_older_version(tmp_path: Path) -> None:
    """Its entries name no kind, and there are three databases."""
    fields = {"track_id": "a", "content_hash": "11", "file": "11.mp3", "title": "T", "artist": None, "album": None,
              "genres": [], "year": None, "lyrics": None, "duration_s": 2.5, "at": "2026-01-02T03:04:05"}  # fmt: skip
    file = tmp_path / "live.lmdb"
    with lmdb.open(str(file), subdir=False, max_dbs=3, map_size=MAP_SIZE) as old, old.begin(write=True) as writing:
        log, hashes = (old.open_db(name, txn=writing) for name in (b"log", b"hashes"))
        vectors = old.open_db(b"vectors", txn=writing)
        for number, track in enumerate(("a", "b"), start=1):
            line = json.dumps(fields | {"track_id": track, "content_hash": track * 2})
            writing.put(number.to_bytes(8, "big"), line.encode(), db=log)
            writing.put((track * 2).encode(), track.encode(), db=hashes)
        writing.put(b"g1/2/hybrid", bytes(8), db=vectors)
    with open_live(file) as live:
        assert [upload.track_id for _, upload in live.uploads()] == ["a", "b"]
        assert (live.last_seq(), live.track_of_audio("bb")) == (2, "b")
        assert list(live.vectors("g1", 2)) == ["hybrid"]
        with live.reading() as reading:
            assert (reading.upload_seq("b"), reading.upload_seq("c"), reading.version()) == (2, 0, 0)
            assert reading.gone(b"t") == reading.numbers_of_user("a") == reading.generations() == []
    with open_live(file, write=True) as live, live.writing() as writing:
        assert writing.append(TrackDeleted("a", "2026-01-02")) == 3
    with open_live(file) as live, live.reading() as reading:
        assert [upload.track_id for _, upload in reading.uploads()] == ["a", "b"]
        assert (reading.upload_seq("b"), reading.gone(b"t")) == (2, ["a"])


def test_ids_that_begin_alike_or_are_long_keep_apart(tmp_path: Path) -> None:
    users = ["u", "u\0", "u\0\0\0\0\0\0\0\0", "u1", "u" * 500, "u" * 501, "é" * 300]
    with open_live(tmp_path / "live.lmdb", write=True) as live:
        for user in users * 2:
            with live.writing() as writing:
                writing.append(Listened(user, "t"))
        with live.reading() as reading:
            for place, user in enumerate(users):
                assert reading.numbers_of_user(user) == [place + 1, place + 1 + len(users)]
        with live.writing() as writing:
            writing.forget_user("u")
        with live.reading() as reading:
            assert reading.numbers_of_user("u") == []
            assert [len(reading.listens_of(user)) for user in users[1:]] == [2] * 6


def test_after_a_failure_that_lmdb_does_not_come_back_from_the_file_is_opened_anew(tmp_path: Path) -> None:
    def fail(live: LiveStore) -> None:
        with live.writing() as writing:
            writing.append(Listened("a", "t"))
            raise lmdb.PanicError("mdb_txn_commit: MDB_PANIC")

    with open_live(tmp_path / "live.lmdb", write=True) as live:
        with pytest.raises(ArtefactError, match="nothing was changed"):
            fail(live)
        with live.writing() as writing:
            assert writing.append(Listened("b", "t")) == 1
    with open_live(tmp_path / "live.lmdb") as live:
        assert live.last_seq() == 1


def test_a_child_after_a_fork_opens_its_own(tmp_path: Path) -> None:
    file = tmp_path / "live.lmdb"
    with open_live(file, write=True) as live:
        with live.writing() as writing:
            writing.append(Listened("a", "t"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left threads
            child = os.fork()
        if child == 0:
            status = 1
            try:
                with open_live(file, write=True) as own, own.writing() as writing:
                    writing.append(Listened("b", "t"))
                    status = int(own.environment is live.environment)
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        with live.writing() as writing:
            assert writing.append(Listened("c", "t")) == 3
