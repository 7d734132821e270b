"""Nobody who reads waits for somebody who writes."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import grpc
import lmdb
import pytest

from helpers.live_store import heard
from helpers.places import ROOT
from helpers.serve_process import Serve, serve, stub_of
from helpers.stores import copied
from helpers.waiting import HOLD_S, quick, write_held
from recsys.errors import ArtefactError, ConfigError
from recsys.recommender import Recommender
from recsys.serving import workers
from recsys.serving.fast_path import FastPath
from recsys.serving.reload import open_answers
from recsys.v1 import recommender_pb2 as pb


@pytest.fixture(scope="module")
def a_server(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Serve]]:
    """A store and a server of it, for tests that leave no more behind than some listens."""
    store = copied(tiny_store, tmp_path_factory.mktemp("served"))
    with serve(store, workers=1) as server:
        yield store, server


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


def test_grpc_refuses_an_empty_user_in_words(a_server: tuple[Path, Serve]) -> None:
    with grpc.insecure_channel(a_server[1].address) as channel:
        call = channel.unary_unary("/recsys.v1.Recommender/Recommend")
        for _ in range(3):
            with pytest.raises(grpc.RpcError, match="user_id is empty") as refused:
                call(bytes([0x0A, 0x00, 0x10, 0x05]), timeout=10)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
