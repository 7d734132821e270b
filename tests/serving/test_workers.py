"""Processes on one port, as `recsys serve` runs them; each test starts the real thing in its own process."""

import gc
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from helpers.forked import Forked
from recsys.errors import ConfigError
from recsys.serving import workers
from recsys.serving.context import OPEN
from recsys.serving.sockets import hold_port, parse_address
from recsys.v1 import recommender_pb2 as pb
from recsys.v1.recommender_pb2_grpc import RecommenderStub

CALL_S = 5.0
START_S = 20.0
STOP_S = 10.0  # what the server promises

# Serves a stand-in for a store, whose answers name the process that gave them. `open` may be told to fail.
STAND_IN = """
import os, sys, time
from pathlib import Path
from recsys.errors import RecsysError, ArtefactError
from recsys.serving import workers
from recsys.serving.fast_path import FastPath
from recsys.types import RankedList, RankedTrack

class StandIn:
    generation = "g7"

    def recommend(self, user_id, k, **options):
        if user_id == "slow":
            time.sleep(0.6)
        if user_id == "stuck":
            time.sleep(60)
        return RankedList([RankedTrack(str(os.getpid()), 1.0, 1, None, {})], "popular", self.generation)

    def close(self):
        print(os.getpid(), "closed", file=sys.stderr, flush=True)

def open_serving(store, backend, damaged):
    exec(opening)
    return FastPath(StandIn()), ""

workers.open_serving = open_serving
workers.can_embed = lambda: False  # it would look for a store
address, n_workers, opening = sys.argv[1:]
try:
    sys.exit(workers.serve(Path("nowhere"), address, int(n_workers)))
except RecsysError as error:
    print(type(error).__name__, error, file=sys.stderr)
    sys.exit(2)
"""
REAL = """
import sys
from pathlib import Path
from recsys.serving.workers import serve
sys.exit(serve(Path(sys.argv[1]), "127.0.0.1:0", 2))
"""


@dataclass
class Running:
    process: Forked
    line: str

    @property
    def address(self) -> str:
        return re.search(r" on (\S+:\d+) ", self.line)[1]

    def stop(self, number: int = signal.SIGTERM, tell=os.kill) -> tuple[int, float, str, str]:
        """Exit status, seconds it took, and what else was written on stdout and stderr."""
        start = time.monotonic()
        tell(self.process.pid, number)
        out, errors = self.process.communicate(timeout=2 * STOP_S)
        return self.process.returncode, time.monotonic() - start, out, errors


def start(script: str, *arguments: str) -> Forked:
    return Forked(script, *arguments, strict=True)


@contextmanager
def serving(script: str, *arguments: str):
    process = start(script, *arguments)
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield Running(process, line)
    finally:
        process.kill()
        process.communicate()


def stand_in(address: str = "127.0.0.1:0", workers: int = 1, opening: str = ""):
    return serving(STAND_IN, address, str(workers), opening)


def fails(*arguments: str) -> str:
    """The one line of a server that does not come up."""
    process = start(STAND_IN, *arguments)
    out, errors = process.communicate(timeout=START_S)
    assert (process.returncode, out) == (2, "")
    assert "Traceback" not in errors
    return errors


def refused_start(address: str, n_workers: int = 1) -> str:
    """The sentence with which a server does not start, said before any process is."""
    with pytest.raises(ConfigError) as caught:
        workers.serve(Path("nowhere"), address, n_workers)
    return str(caught.value)


def answering_process(address: str) -> int:
    """The id of the worker that a new connection reaches."""
    # Without a subchannel pool of its own, a channel would take up the connection of the one before it.
    with closing(grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])) as channel:
        # A killed worker's socket lives as long as its last thread: a connection made there is tried again.
        call = RecommenderStub(channel).Recommend
        answer = call(pb.RecommendRequest(user_id="u1"), timeout=CALL_S, wait_for_ready=True)
        return int(answer.tracks[0].track_id)


def eventually(happened: Callable[[], bool], within_s: float = START_S) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if happened():
            return True
        time.sleep(0.05)
    return False


def reached(address: str, tries: int = 30) -> set[int]:
    return {answering_process(address) for _ in range(tries)}


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def refuses_connections(address: str) -> bool:
    host, port = parse_address(address)
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return True
    return False


@pytest.fixture(scope="module")
def two_workers():
    with stand_in(workers=2) as server:
        yield server


def test_one_line_says_where_and_health_serves_by_then(two_workers):
    assert re.fullmatch(r"serving generation g7 on 127\.0\.0\.1:[1-9]\d* \(2 workers\)\n", two_workers.line)
    with closing(grpc.insecure_channel(two_workers.address)) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=CALL_S)
    assert health.status == health_pb2.HealthCheckResponse.SERVING


def test_two_workers_both_answer_on_one_port(two_workers):
    assert len(reached(two_workers.address)) == 2


def test_a_second_server_on_the_same_port_is_refused(two_workers):
    assert "Address already in use" in refused_start(two_workers.address)


@pytest.mark.parametrize(
    ("number", "tell"),
    [(signal.SIGTERM, os.kill), (signal.SIGTERM, os.killpg), (signal.SIGINT, os.killpg)],
    ids=["told", "service manager", "Ctrl-C"],  # the last two reach workers too
)
def test_a_signal_ends_all_within_10_s_with_status_0(number, tell):
    with stand_in(workers=2) as server:
        processes = reached(server.address)
        status, seconds, _, errors = server.stop(number, tell)
        assert status == 0
        assert seconds < STOP_S
        assert not any(is_alive(process) for process in processes)
        assert errors.count("closed") == 2
        assert "Traceback" not in errors


@pytest.mark.slow
def test_a_signal_lets_calls_in_flight_end():
    with stand_in() as server, closing(grpc.insecure_channel(server.address)) as channel:
        call = RecommenderStub(channel).Recommend.future(pb.RecommendRequest(user_id="slow"), timeout=CALL_S)
        time.sleep(0.3)
        assert server.stop()[0] == 0
        assert call.result().source == "popular"


@pytest.mark.slow
def test_a_call_that_never_ends_does_not_hold_up_the_stop():
    with stand_in() as server, closing(grpc.insecure_channel(server.address)) as channel:
        call = RecommenderStub(channel).Recommend.future(pb.RecommendRequest(user_id="stuck"), timeout=60)
        time.sleep(0.3)
        status, seconds, _, errors = server.stop()
        assert status == 0
        assert seconds < STOP_S
        assert "did not end in time; killed" in errors
        assert call.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.slow
def test_a_health_watcher_is_told_and_does_not_hold_up_the_stop():
    with (
        stand_in(opening="workers.DRAIN_S = 0.5") as server,
        closing(grpc.insecure_channel(server.address)) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        status, seconds, _, _ = server.stop()
        assert status == 0
        assert seconds < STOP_S


@pytest.mark.slow
def test_a_killed_worker_is_replaced():
    with stand_in(workers=2) as server:
        before = reached(server.address)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        assert eventually(lambda: not is_alive(victim))
        assert eventually(lambda: len(reached(server.address) - {victim}) == 2)
        status, _, out, errors = server.stop()
        assert (status, out) == (0, "")  # the line was the only one
        assert f"worker {victim} was killed by signal 9 (Killed); starting another" in errors


def test_workers_end_when_their_parent_is_killed():
    with stand_in(workers=2) as server:
        processes = reached(server.address)
        server.process.kill()
        assert eventually(lambda: not any(is_alive(process) for process in processes), STOP_S)
        assert refuses_connections(server.address)


def test_the_port_is_closed_until_the_store_is_open(tmp_path):
    gate = tmp_path / "gate"
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    opened = f"print('opening', flush=True)\nwhile not Path({str(gate)!r}).exists(): time.sleep(0.05)"
    process = start(STAND_IN, address, "1", opened)
    try:
        assert process.stdout.readline() == "opening\n"
        assert refuses_connections(address)
        gate.touch()
        assert address in process.stdout.readline()
        assert not refuses_connections(address)
    finally:
        process.kill()
        process.communicate()


def test_a_signal_while_the_store_opens_ends_it_too():
    process = start(STAND_IN, "127.0.0.1:0", "1", "print('opening', flush=True); time.sleep(0.3)")
    assert process.stdout.readline() == "opening\n"
    process.terminate()
    out, errors = process.communicate(timeout=STOP_S)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in errors


def test_a_store_that_cannot_be_opened_is_one_line():
    errors = fails("127.0.0.1:0", "2", "raise ArtefactError('there is no store in nowhere')")
    assert errors == "ArtefactError there is no store in nowhere\n"


def test_a_worker_that_dies_again_and_again_ends_the_server():
    errors = fails("127.0.0.1:0", "1", "os._exit(3)").splitlines()
    assert len(errors) == 5
    assert all(re.fullmatch(r"worker \d+ ended with exit status 3; starting another", line) for line in errors[:4])
    assert errors[4].startswith("ArtefactError a worker died 5 times in a row within 1 s of serving")


def test_a_worker_that_dies_while_starting_gets_another_chance(tmp_path):
    """Three times here, each time of something else; the fourth one serves."""
    died = tmp_path / "died"
    ways = ("os._exit(3)", "os.kill(os.getpid(), 15)", "os.kill(os.getpid(), 7)")
    opening = (
        f"died = Path({str(died)!r}); n = len(died.read_text()) if died.exists() else 0\n"
        f"died.write_text('x' * (n + 1))\n"
        f"if n < 3: exec({ways!r}[n])"
    )
    with stand_in(opening=opening) as server:
        assert len(reached(server.address, 3)) == 1
        told = [line for line in server.stop()[3].splitlines() if line.endswith("; starting another")]
    assert len(told) == 3
    assert "ended with exit status 3; " in told[0]
    assert "killed by signal 15 (Terminated); " in told[1]
    assert "signal 7 (Bus error): most likely a file of the store was shortened under the server" in told[2]


def test_a_signal_to_one_worker_does_not_end_the_server():
    with stand_in() as server:
        [first] = reached(server.address, 1)
        os.kill(first, signal.SIGINT)  # not for a worker to decide
        time.sleep(0.2)
        assert reached(server.address, 1) == {first}
        os.kill(first, signal.SIGTERM)  # drains, and another takes its place
        assert eventually(lambda: not is_alive(first))
        assert reached(server.address, 1) != {first}
        assert server.stop()[0] == 0


@pytest.mark.parametrize("listens", [True, False])
def test_a_port_in_use_is_one_line(listens):
    with closing(socket.socket()) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        if listens:
            taken.listen()
        told = refused_start(f"127.0.0.1:{taken.getsockname()[1]}")
    assert re.fullmatch(r"cannot listen on \S+: .*Address already in use; .*", told)


def test_a_port_is_free_again_at_once():
    with stand_in() as server, closing(grpc.insecure_channel(server.address)) as channel:
        RecommenderStub(channel).Recommend(pb.RecommendRequest(user_id="u1"), timeout=CALL_S)
        server.stop()  # the server closes the connection, so it is the one to remember it for a minute
    with stand_in(server.address):
        assert answering_process(server.address)


def test_a_port_is_held_for_one_server_before_its_workers_listen():
    with closing(hold_port("127.0.0.1:0")) as holder:
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        assert refuses_connections(address)
        with pytest.raises(ConfigError, match="Address already in use"):
            hold_port(address)


def test_ipv6():
    with stand_in("[::1]:0", workers=2) as server:
        assert server.address.startswith("[::1]:")
        assert len(reached(server.address)) == 2


def test_all_interfaces_need_tokens():
    assert refused_start("0.0.0.0:0", 2).startswith("0.0.0.0 is not loopback")


def test_a_name_is_resolved_to_one_address():
    with closing(hold_port("localhost:0")) as holder:
        host, port = holder.getsockname()[:2]
        assert host in {"127.0.0.1", "::1"}
        assert port > 0


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:50051", ("127.0.0.1", 50051)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses(address, expected):
    assert parse_address(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        "",
        "50051",
        ":50051",
        "localhost",
        "localhost:",
        "::1:50051",
        "[::1]",
        "[]:1",
        "h:65536",
        "h:-1",
        "h:x",
        "h:¹",
    ],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ConfigError, match=r"expected HOST:PORT such as 127\.0\.0\.1:50051"):
        parse_address(address)


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "x" * 100])
def test_an_unknown_host_is_refused(host):
    with pytest.raises(ConfigError, match="was not found"):
        hold_port(f"{host}:0")


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(ConfigError, match="cannot listen on 192"):
        hold_port("192.0.2.1:0")


def test_no_workers_are_refused():
    assert refused_start("127.0.0.1:0", 0) == "workers is 0, expected 1 or more"


def test_garbage_collections_of_workers_pass_over_what_was_imported(tmp_path, monkeypatch):
    n_frozen = []

    def start(*_of_the_workers):
        n_frozen.append(gc.get_freeze_count())
        raise ConfigError("enough was seen")

    monkeypatch.setattr(workers._Workers, "start", start)
    with pytest.raises(ConfigError, match="enough"):
        workers.serve(tmp_path, "127.0.0.1:0")
    assert n_frozen[0] > 10_000
    assert gc.get_freeze_count() == 0


@pytest.mark.slow
def test_a_real_store_is_served_by_two_workers(tiny_store):
    with serving(REAL, str(tiny_store)) as server:
        generation = (tiny_store / "CURRENT").read_text().strip()
        assert server.line.startswith(f"serving generation {generation} on 127.0.0.1:")
        for _ in range(10):  # connections, so that both workers are very likely asked
            with closing(grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)])) as channel:
                stub = RecommenderStub(channel)
                personal = stub.Recommend(pb.RecommendRequest(user_id="u0", k=5), timeout=CALL_S)
                popular = stub.Recommend(pb.RecommendRequest(user_id="nobody", k=5), timeout=CALL_S)
                similar = stub.SimilarTracks(pb.SimilarTracksRequest(track_id="t0", k=3), timeout=CALL_S)
                track = stub.GetTrack(pb.GetTrackRequest(track_id="t3"), timeout=CALL_S).track
                from_tracks = stub.RecommendFromTracks(
                    pb.RecommendFromTracksRequest(track_ids=["t0", "t1"], k=4), timeout=CALL_S
                )
                status = stub.GetStatus(pb.GetStatusRequest(), timeout=CALL_S)
                with pytest.raises(grpc.RpcError) as caught:
                    stub.GetTrack(pb.GetTrackRequest(track_id="no such track"), timeout=CALL_S)
            assert (len(personal.tracks), personal.source, popular.source) == (5, "personal", "popular")
            assert len(similar.tracks) == 3
            assert "t0" not in {near.track_id for near in similar.tracks}
            assert (len(from_tracks.tracks), from_tracks.source) == (4, "tracks")
            assert not {"t0", "t1"} & {found.track_id for found in from_tracks.tracks}
            assert (track.track_id, status.generation, status.n_tracks) == ("t3", generation, 40)
            assert status.created_at.seconds > 0
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        status, seconds, _, errors = server.stop()
        assert status == 0
        assert seconds < STOP_S
        assert errors == f"{OPEN}\n"
