"""Nobody who reads waits for somebody who writes, and what is acknowledged is shown before lists follow."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import grpc
import lmdb
import pytest

from helpers.live_store import heard, new_track
from helpers.places import ROOT
from helpers.serve_process import Serve, serve, stub_of
from helpers.stores import copied
from recsys.errors import ArtefactError, ConfigError
from recsys.eventlog.events import Listened, UserDeleted
from recsys.live import neighbour_insert, updater
from recsys.live.updater import USERS_AT_ONCE
from recsys.recommender import Recommender
from recsys.serving import workers
from recsys.serving.fast_path import FastPath
from recsys.serving.reload import open_answers
from recsys.serving.server import METHODS
from recsys.store.generation import Store
from recsys.v1 import recommender_pb2 as pb

HOLD_S = 30.0  # longer than any call may take here; the holder is ended before

HOLDER = """
import sys, lmdb
with lmdb.open(sys.argv[1], subdir=False, max_dbs=64, map_size=1 << 38).begin(write=True):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    return copied(tiny_store, tmp_path)


@pytest.fixture
def answers(store: Path) -> Iterator[FastPath]:
    with closing(open_answers(store)) as answers:
        answers.live.settle()
        yield answers


@pytest.fixture(scope="module")
def a_server(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Serve]]:
    """A store and a server of it, for tests that leave no more behind than some listens."""
    store = copied(tiny_store, tmp_path_factory.mktemp("served"))
    with serve(store, workers=1) as server:
        yield store, server


@contextmanager
def write_held(store: Path) -> Iterator[None]:
    """Another process is in the middle of a write."""
    command = [sys.executable, "-c", HOLDER, str(Store(store).live)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        try:
            yield
        finally:
            holder.stdin.close()


def quick(answers: FastPath, user: str, k: int = 20) -> pb.RecommendResponse | None:
    found = answers.recommend(pb.RecommendRequest(user_id=user, k=k).SerializeToString())
    return None if found is None else pb.RecommendResponse.FromString(found[0])


def answered(answers: FastPath, user: str, k: int = 20) -> list[str]:
    """What a call gets, from bytes or on a thread."""
    found = quick(answers, user, k)
    if found is None:
        found = METHODS["Recommend"][0](answers.recommender, pb.RecommendRequest(user_id=user, k=k))
    return [track.track_id for track in found.tracks]


# ---- reads beside a write that does not end ------------------------------------------------------------------------


def test_reads_of_a_server_go_on_while_another_process_writes_and_a_write_waits(a_server: tuple[Path, Serve]) -> None:
    store, server = a_server
    with stub_of(server.address) as stub:
        listen = pb.RecordListensRequest(listens=[pb.Listen(user_id="u1", track_id="t1")])
        stub.RecordListens(listen, timeout=20)
        with write_held(store):
            waiting = stub.RecordListens.future(listen, timeout=HOLD_S)
            for user in ("u0", "u1", "u2", "nobody"):
                for asked in ({}, {"max_per_artist": 1}, {"genres": ["jazz"]}):
                    stub.Recommend(pb.RecommendRequest(user_id=user, **asked), timeout=10)
            stub.SimilarTracks(pb.SimilarTracksRequest(track_id="t1"), timeout=10)
            stub.AudienceOf(pb.AudienceOfRequest(track_id="t1"), timeout=10)
            stub.GetStatus(pb.GetStatusRequest(), timeout=10)
            assert not waiting.done(), "the write was waiting all the while"
        assert waiting.result(20).recorded == 1


def test_as_many_writes_wait_as_there_are_threads_and_reads_that_take_a_thread_go_on(
    a_server: tuple[Path, Serve],
) -> None:
    store, server = a_server
    with stub_of(server.address) as stub:
        with write_held(store):
            waiting = [
                stub.RecordListens.future(
                    pb.RecordListensRequest(listens=[pb.Listen(user_id=f"u{n}", track_id="t1")]), timeout=HOLD_S
                )
                for n in range(40)
            ]
            for _ in range(5):
                stub.Recommend(pb.RecommendRequest(user_id="u0", max_per_artist=1), timeout=10)
            assert not any(one.done() for one in waiting)
        assert [one.result(20).recorded for one in waiting] == [1] * 40


@pytest.mark.slow
def test_who_opens_a_store_without_a_server_waits_for_no_writer_and_opens_the_file_once(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_answers(store)) as answers:
        answers.live.record(heard("u0", "t2"))
    opened = list[dict]()
    opening = lmdb.open
    monkeypatch.setattr("recsys.eventlog.lmdb_env.lmdb.open", lambda *a, **o: opened.append(o) or opening(*a, **o))
    code = (
        "import sys; from recsys.recommender import Recommender\n"
        "print(len(Recommender.open(sys.argv[1]).recommend('u0').tracks))"
    )
    with write_held(store):
        found = subprocess.run([sys.executable, "-c", code, str(store)], cwd=ROOT, timeout=HOLD_S, capture_output=True)
        assert found.stdout == b"20\n", found.stderr
        with closing(Recommender.open(store)) as recommender:
            for user in ("u0", "u1", "u2"):
                assert "t2" not in [track.track_id for track in recommender.recommend(user, 5).tracks] or user != "u0"
            recommender.audience("t1")
    assert [one.get("readonly") for one in opened] == [True]


def test_a_reader_follows_a_file_that_a_writer_of_the_same_process_opens(store: Path) -> None:
    with closing(open_answers(store)) as answers:
        answers.live.record(heard("u0", "t2"))
    with closing(Recommender.open(store)) as recommender:
        assert "t2" not in [track.track_id for track in recommender.recommend("u0", 39).tracks]
        with closing(open_answers(store)) as answers:
            answers.live.record(heard("u0", "t5"))
        assert "t5" not in [track.track_id for track in recommender.recommend("u0", 39).tracks]


def test_the_event_loop_takes_no_lock(answers: FastPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever holds the locks of views, of deriving and of answers, bytes are sent."""
    answers.live.record(heard("u1", "t1"))
    with answers.live._views._next, answers.live._list_updater._updating, answers._next:
        assert quick(answers, "u1") is not None
        assert quick(answers, "u2") is not None
        assert quick(answers, "somebody") is not None


# ---- committed, not derived ----------------------------------------------------------------------------------------


@pytest.fixture
def behind(answers: FastPath, monkeypatch: pytest.MonkeyPatch) -> FastPath:
    """Lists that nobody derives, as between the commit of a large batch and its lists, or after a kill there."""
    answers.live.retire()
    monkeypatch.setattr(updater.ListUpdater, "users", lambda *_: None)
    monkeypatch.setattr(updater.ListUpdater, "uploads", lambda *_: 0)
    return answers


@pytest.mark.parametrize("user", ["u0", "somebody"])
def test_what_was_heard_or_barred_is_not_shown_before_the_list_follows(
    behind: FastPath, store: Path, user: str
) -> None:
    with closing(open_answers(store)) as other:  # another worker
        other.live.retire()
        before = answered(other, user)
        behind.live.record([*heard(user, before[0]), *heard(user, before[1])])
        behind.live.record([Listened(user, before[2], disliked=True)])
        for one in (behind, other):
            assert quick(one, user) is None, "the stored bytes would show them"
            assert answered(one, user, 17) == before[3:20]
            assert quick(one, "u1") is not None, "others are answered from bytes"
        asked = {"genres": ["ambient", "jazz", "rock", "folk", "metal"], "k": 30}
        for more in ({}, {"include_heard": True}, {"diversity": 0.5}, {"max_per_artist": 2}):
            request = pb.RecommendRequest(user_id=user, **{**asked, **more})
            found = {track.track_id for track in METHODS["Recommend"][0](other.recommender, request).tracks}
            assert before[2] not in found
            assert ("include_heard" in more) == (before[0] in found), more
        other.live.settle()
        found = quick(other, user)
        assert found is not None
        assert not set(before[:3]) & {track.track_id for track in found.tracks}


def test_who_has_just_heard_a_track_is_not_among_its_audience(behind: FastPath) -> None:
    audience = [user for user, _ in behind.recommender.audience("t3", 10)]
    behind.live.record([*heard(audience[0], "t3"), Listened(audience[1], "t3", disliked=True)])
    assert [user for user, _ in behind.recommender.audience("t3", 8)] == audience[2:]


def test_a_deleted_user_and_a_deleted_track_are_shown_by_no_worker(behind: FastPath, store: Path) -> None:
    with closing(open_answers(store)) as other:
        other.live.retire()
        nobody, own = answered(other, "nobody"), answered(other, "u0")
        assert own != nobody
        behind.live.delete_user("u0")
        for one in (behind, other):
            assert answered(one, "u0") == nobody
        victim = nobody[0]
        behind.live.delete_track(victim)
        for one in (behind, other):
            for user in ("u0", "u1", "u2", "nobody"):
                assert victim not in answered(one, user, 30)
            assert quick(one, "u1") is not None, "known by now, so that bytes answer again"


def test_an_upload_that_is_in_no_list_yet_is_deleted_before_it_comes_into_one(behind: FastPath, store: Path) -> None:
    upload, vectors = new_track(store, "new", "ambient")
    behind.live.add(upload, vectors)
    behind.live.delete_track("new")
    behind.live.settle()
    for user in ("u0", "u3", "nobody"):
        assert "new" not in answered(behind, user, 30)
    assert {behind.live.list_of(f"u{n}") for n in range(28)} == {None}


def test_what_was_heard_since_the_list_of_now_is_not_shown(answers: FastPath, monkeypatch: pytest.MonkeyPatch) -> None:
    answers.live.record(heard("u0", "t2"))
    answers.live.retire()
    before = answered(answers, "u0")
    monkeypatch.setattr(updater.ListUpdater, "users", lambda *_: None)
    answers.live.record(heard("u0", before[0]))
    assert quick(answers, "u0") is None
    assert answered(answers, "u0", 17) == before[1:18]


def test_who_listened_before_an_upload_is_reached_once(answers: FastPath, store: Path) -> None:
    answers.live.retire()
    upload, vectors = new_track(store, "new", "ambient")
    answers.live.record([listen for n in range(12) for listen in heard(f"u{n}", "t2")])
    reached = answers.live.add(upload, vectors)
    users = answers.live._stored.model.users.all()
    assert reached == sum("new" in answered(answers, user, 39) for user in users) > 0


def test_audio_that_is_told_to_be_here_is_in_the_lists_of_neighbours(
    answers: FastPath, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever took it in may have been killed between the two."""
    live = answers.live
    live.retire()
    upload, vectors = new_track(store, "new", "ambient")
    with monkeypatch.context() as patch:
        patch.setattr(neighbour_insert, "follow", lambda *_: None)
        live.add(upload, vectors)
    assert live.behind() == 1
    assert live.track_of_audio(upload.content_hash) == "new"
    assert live.behind() == 0


def test_a_large_batch_is_acknowledged_before_its_lists_which_follow_in_pieces(
    answers: FastPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [f"x{n}" for n in range(3 * USERS_AT_ONCE + 5)]
    pieces, step = list[int](), updater.ListUpdater._write
    go_on = threading.Event()

    def slow(self: updater.ListUpdater, derived: list, *release: object) -> dict[int, int]:
        go_on.wait(60)
        pieces.append(len(derived))
        return step(self, derived, *release)

    monkeypatch.setattr(updater.ListUpdater, "_write", slow)
    assert answers.live.record([listen for user in users for listen in heard(user, "t1")]).recorded == len(users)
    assert answers.live.behind() == len(users)
    assert all("t1" not in answered(answers, user, 30) for user in users[::10])
    go_on.set()
    deadline = time.monotonic() + 120
    while answers.live.behind() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert answers.live.behind() == 0
    assert max(pieces) <= USERS_AT_ONCE
    assert sum(pieces) == len(users)
    assert all(answers.live.list_of(user) is not None for user in users)


def test_a_few_users_do_not_wait_for_a_backlog_before_them(behind: FastPath, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [listen for n in range(3 * USERS_AT_ONCE) for listen in heard(f"x{n}", "t1")]
    behind.live.record(many)
    monkeypatch.undo()
    behind.live.record(heard("u0", "t2"))
    found = quick(behind, "u0")
    assert found is not None, "the list is one of now"
    assert "t2" not in [track.track_id for track in found.tracks]
    assert behind.live.behind() == len(many) + 1, "those before it wait on"
    behind.live.settle()
    assert behind.live.behind() == 0


def test_lists_made_ahead_are_those_made_in_order(answers: FastPath, store: Path, tmp_path: Path) -> None:
    """Users, uploads and deletions in any interleaving of commits and lists come to the same lists."""
    twin = open_answers(copied(store, tmp_path / "twin"))
    upload, vectors = new_track(store, "new", "jazz")
    steps = [
        lambda live: live.record(heard("u0", "t2", "t5")),
        lambda live: live.add(upload, vectors),
        lambda live: live.record([*heard("u3", "new"), *heard("u0", "t8")]),
        lambda live: live.delete_user("u3"),
        lambda live: live.record([*heard("u3", "t1"), *heard("u2", "t3")]),
        lambda live: live.delete_track("t9"),
        lambda live: live.record(heard("u0", "t1")),
    ]
    for step in steps:
        step(answers.live)
        answers.live.settle()
    twin.live.retire()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updater.ListUpdater, "users", lambda *_: None)
        patch.setattr(updater.ListUpdater, "uploads", lambda *_: 0)
        for step in steps:
            step(twin.live)
    twin.live.settle()
    for user in ("u0", "u2", "u3", "u5", "nobody"):
        assert answered(answers, user, 38) == answered(twin, user, 38), user
    twin.close()


# ---- two who derive at once ----------------------------------------------------------------------------------------


def test_a_user_deleted_while_a_list_is_computed_has_no_list(answers: FastPath, store: Path) -> None:
    with closing(open_answers(store)) as other:
        other.live.retire()
        written = updater.ListUpdater._write

        def meanwhile(self: updater.ListUpdater, *release: object) -> dict[int, int]:
            if self is answers.live._list_updater:
                other.live.delete_user("u0")
            return written(self, *release)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(updater.ListUpdater, "_write", meanwhile)
            answers.live.retire()
            answers.live.record(heard("u0", "t2"))
        answers.live.settle()
        assert answers.live.list_of("u0") is None
        assert answered(answers, "u0") == answered(answers, "nobody")


@pytest.mark.parametrize("listens_too", [True, False])
def test_a_listen_and_an_upload_while_a_list_is_computed_are_both_in_it(
    answers: FastPath, store: Path, listens_too: bool
) -> None:
    upload, vectors = new_track(store, "new", "ambient")
    with closing(open_answers(store)) as other:
        other.live.retire()
        written, done = updater.ListUpdater._write, list[bool]()

        def meanwhile(self: updater.ListUpdater, *release: object) -> dict[int, int]:
            if self is answers.live._list_updater and not done:
                done.append(True)
                other.live.add(upload, vectors)
                if listens_too:
                    other.live.record(heard("u0", "t5"))
            return written(self, *release)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(updater.ListUpdater, "_write", meanwhile)
            answers.live.retire()
            answers.live.record(heard("u0", "t2"))
        answers.live.settle()
        found = answered(answers, "u0", 36)
        assert "new" in found
        assert "t2" not in found
        assert ("t5" in found) == (not listens_too)


def test_an_upload_comes_into_no_list_of_who_has_heard_it_by_then(
    answers: FastPath, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, vectors = new_track(store, "new", "ambient")
    answers.live.retire()
    with monkeypatch.context() as patch:
        patch.setattr(updater.ListUpdater, "uploads", lambda *_: 0)
        answers.live.add(upload, vectors)
    answers.live.record(heard("u0", "new"))  # whose list is made ahead of the others
    answers.live.settle()
    assert "new" not in answered(answers, "u0", 36)
    assert any("new" in answered(answers, f"u{n}", 36) for n in range(1, 28))


def test_what_is_left_to_the_thread_that_derives_wakes_it(answers: FastPath, monkeypatch: pytest.MonkeyPatch) -> None:
    woken = list[bool]()
    monkeypatch.setattr(updater.UpdateThread, "wake", lambda _: woken.append(True))
    answers.live.record([listen for n in range(USERS_AT_ONCE) for listen in heard(f"x{n}", "t1")])
    assert woken == []
    answers.live.record([listen for n in range(USERS_AT_ONCE + 1) for listen in heard(f"x{n}", "t2")])
    assert woken == [True]


def test_who_closes_waits_for_what_is_derived(store: Path) -> None:
    answers = open_answers(store)
    update_thread = answers.live._update_thread
    assert update_thread is not None
    answers.close()
    assert not update_thread._thread.is_alive()


def test_lists_that_are_to_be_made_again_meanwhile_are_not_said_to_be_made(
    answers: FastPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, written = answers.live, updater.ListUpdater._write
    live.retire()
    live.record(heard("u0", "t2"))
    with monkeypatch.context() as patch:
        patch.setattr(updater.ListUpdater, "users", lambda *_: None)
        live.record(heard("u1", "t2"))

    def meanwhile(self: updater.ListUpdater, *release: object) -> dict[int, int]:
        with live._live.writing() as writing:  # as for uploads that get their vectors late
            writing.set_applied(live.generation, 0)
        return written(self, *release)

    with monkeypatch.context() as patch:
        patch.setattr(updater.ListUpdater, "_write", meanwhile)
        assert live._list_updater.step()
    assert live.behind() == 2
    live.settle()
    assert live.behind() == 0


@pytest.mark.parametrize("changed", ["nothing", "lists", "heard", "deletion"])
def test_a_list_is_written_where_all_that_it_follows_from_is_as_it_was(answers: FastPath, changed: str) -> None:
    live = answers.live
    live.retire()
    live.record(heard("u0", "t2"))
    with live._live.reading() as reading:
        [derived] = live._list_updater._derived(reading, ["u0"])
    with live._live.writing() as writing:
        if changed == "deletion":
            writing.append(UserDeleted("u0", "2024-05-06"))
        elif changed != "nothing":
            writing.put(changed, derived.key, b"of another process")
        assert derived.write(writing) == (changed == "nothing")


# ---- keys ----------------------------------------------------------------------------------------------------------


def test_an_empty_user_is_refused_and_costs_nobody_the_fast_path(answers: FastPath) -> None:
    with pytest.raises(ConfigError, match="user_id is empty"):
        answers.recommend(bytes([0x0A, 0x00, 0x10, 0x05]))
    assert answers.n_failed_lookups == 0
    assert quick(answers, "u1") is not None


def test_a_look_up_that_fails_is_counted_and_the_next_one_tries_again(
    answers: FastPath, caplog: pytest.LogCaptureFixture
) -> None:
    def damaged(_key: bytes) -> None:
        raise lmdb.CorruptedError("a page")

    for n in range(3):
        answers._list_at = damaged
        assert quick(answers, f"u{n}") is not None, "found another way"
        assert answers._list_at is not damaged
    assert answers.n_failed_lookups == 3
    assert len([line for line in caplog.messages if "cannot be read" in line]) == 1


def test_grpc_refuses_an_empty_user_in_words(a_server: tuple[Path, Serve]) -> None:
    with grpc.insecure_channel(a_server[1].address) as channel:
        call = channel.unary_unary("/recsys.v1.Recommender/Recommend")
        for _ in range(3):
            with pytest.raises(grpc.RpcError, match="user_id is empty") as refused:
                call(bytes([0x0A, 0x00, 0x10, 0x05]), timeout=10)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_health_is_told_while_a_write_waits(a_server: tuple[Path, Serve]) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async def ask(address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for _ in range(3):
                await health.Check(health_pb2.HealthCheckRequest(), timeout=10)

    store, server = a_server
    with stub_of(server.address) as stub, write_held(store):
        waiting = stub.RecordListens.future(
            pb.RecordListensRequest(listens=[pb.Listen(user_id="u1", track_id="t1")]), timeout=HOLD_S
        )
        asyncio.run(ask(server.address))
        assert not waiting.done()


def test_a_worker_multiplies_on_one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A thread a core in each worker made a thousand lists take minutes."""
    code = (
        "import numpy, threadpoolctl; from recsys.util.threads import one_blas_thread; one_blas_thread()\n"
        "print({one['num_threads'] for one in threadpoolctl.threadpool_info() if one['user_api'] == 'blas'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "{1}\n", done.stderr
    steps = list[str]()

    def opened(*_: object) -> None:
        steps.append("open")
        raise ArtefactError("this is all that the test wants")

    monkeypatch.setattr(workers, "one_blas_thread", lambda: steps.append("one thread"))
    monkeypatch.setattr(workers, "open_serving", opened)
    monkeypatch.setattr(workers.signal, "signal", lambda *_: None)  # this process is no worker
    ours, theirs = Pipe(duplex=False)
    findings = SimpleNamespace(is_refused=lambda _: False)
    fittings = SimpleNamespace(settings=SimpleNamespace(backend="lmdb"), findings=findings)
    with pytest.raises(SystemExit):
        workers._work(tmp_path, "127.0.0.1:0", ours, theirs, (), fittings, 0, None)
    assert steps == ["one thread", "open"]
