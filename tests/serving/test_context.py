"""`recsys serve` as it is started: whether it may, and what its workers have in common."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from helpers.command import run
from helpers.forked import Forked
from helpers.guarded_server import CALL_S, call, connected, eventually, refused
from helpers.places import ROOT
from helpers.prometheus import samples
from helpers.serve_process import PLAIN
from recsys.serving.context import OPEN, open_context
from recsys.serving.settings import ServeSettings
from recsys.serving.tokens import Role, add_token, remove_token
from recsys.v1 import recommender_pb2 as pb

U1 = pb.RecommendRequest(user_id="u1", k=3).SerializeToString()


@dataclass
class Served:
    process: Forked | subprocess.Popen[str]
    address: str
    errors: list[str] = field(default_factory=list)

    def workers(self) -> set[int]:
        """The processes that answer."""
        return set(map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()))


@contextmanager
def served(store: Path, *options: object, listen: str = "127.0.0.1:0", anew: bool = False) -> Iterator[Served]:
    """A server, for the length of a block; with ``anew`` from nothing, as its imports are part of it."""
    arguments = ["serve", "--store", str(store), "--listen", listen, *map(str, options)]
    if anew:
        command = [sys.executable, "-W", "error", "-c", PLAIN, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process: Forked | subprocess.Popen[str] = subprocess.Popen(command, cwd=ROOT, **pipes)
    else:
        process = Forked(PLAIN, *arguments, strict=True)
    found = Served(process, "")
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        found.address = line.split(" on ")[1].split()[0]
        yield found
        process.send_signal(signal.SIGTERM)
        found.errors += process.communicate(timeout=15)[1].splitlines()
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


@dataclass(frozen=True)
class Files:
    tokens: Path
    secrets: dict[Role, str]
    cert: Path
    key: Path
    trust: grpc.ChannelCredentials

    @property
    def tls(self) -> tuple[object, ...]:
        return "--tls-cert", self.cert, "--tls-key", self.key


@pytest.fixture
def files(tmp_path: Path) -> Files:
    tokens, ca = tmp_path / "tokens", trustme.CA()
    secrets = {role: add_token(tokens, role, role.word)[0] for role in Role}
    made = ca.issue_cert("localhost")
    made.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    trust = grpc.ssl_channel_credentials(ca.cert_pem.bytes())
    return Files(tokens, secrets, tmp_path / "both.pem", tmp_path / "both.pem", trust)


# ---- may it start --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
@pytest.mark.parametrize("given", ["nothing", "tls"])
def test_off_loopback_it_does_not_start_without_tokens(files, tmp_path, listen, given):
    options = files.tls if given == "tls" else ()
    ran = run("serve", "--store", tmp_path / "none", "--listen", listen, *options)
    assert (ran.status, ran.out) == (2, "")
    assert "is not loopback: others can reach it, so --tokens FILE is needed" in ran.complaint


def test_off_loopback_it_does_not_start_with_tokens_in_the_clear(files, tmp_path):
    ran = run("serve", "--store", tmp_path / "none", "--listen", "0.0.0.0:0", "--tokens", files.tokens)
    assert ran.status == 2
    assert "tokens would be readable on the way" in ran.complaint


def test_off_loopback_it_starts_with_both(files, tiny_store):
    with served(tiny_store, "--workers", 2, "--tokens", files.tokens, *files.tls, listen="0.0.0.0:0") as server:
        address = server.address.replace("0.0.0.0", "127.0.0.1")
        with connected(address, files.trust) as channel:
            assert call(channel, "Recommend", U1, files.secrets[Role.READ])
            assert refused(channel, "Recommend", U1)[0] == grpc.StatusCode.UNAUTHENTICATED
            health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=CALL_S)
            assert health.status == health_pb2.HealthCheckResponse.SERVING, "health is open"
        with connected(address) as channel:
            assert refused(channel, "Recommend", U1, files.secrets[Role.READ])[0] == grpc.StatusCode.UNAVAILABLE
    assert OPEN not in server.errors


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--tokens", "none"), "there is no tokens file none"),
        (("--tls-cert", "none"), "TLS needs both"),
        (("--tls-cert", "none", "--tls-key", "none"), "none cannot be read"),
        (("--metrics", "nonsense"), "expected HOST:PORT"),
    ],
)
def test_options_that_do_not_do_are_one_line(tmp_path, options, told):
    ran = run("serve", "--store", tmp_path / "none", "--listen", "127.0.0.1:0", *options)
    assert ran.status == 2
    assert told in ran.complaint


# ---- what workers have in common -----------------------------------------------------------------------------


def figures(where: str) -> dict[tuple[str, ...], float]:
    with urlopen(where, timeout=CALL_S) as answer:
        return samples(answer.read())


def counted(where: str) -> float:
    return figures(where).get(("recsys_calls_total", "Recommend", "OK"), 0)


def test_figures_are_summed_over_two_workers_and_outlive_one(tiny_store):
    with served(tiny_store, "--workers", "2", "--metrics", "127.0.0.1:0") as server:
        assert server.process.stderr.readline() == f"{OPEN}\n"
        where = server.process.stderr.readline().removeprefix("figures for Prometheus: ").strip()
        assert eventually(lambda: figures(where)["recsys_workers",] == 2)
        before = server.workers()
        for _ in range(20):  # connections, so that both workers are very likely asked
            with connected(server.address) as channel:
                call(channel, "Recommend", U1)
                refused(channel, "GetTrack", pb.GetTrackRequest(track_id="none").SerializeToString())
        # a refusal is sent before it is counted
        assert eventually(lambda: figures(where)["recsys_calls_total", "GetTrack", "NOT_FOUND"] == 20)
        found = figures(where)
        assert found["recsys_calls_total", "Recommend", "OK"] == 20
        assert found["recsys_call_seconds_count", "GetTrack", "computed"] == 20
        assert 0 < found["recsys_generation_age_seconds",] < 86_400
        for victim in before:  # whichever of them counted
            os.kill(victim, signal.SIGKILL)
        assert eventually(lambda: figures(where)["recsys_workers",] < 2), "the dead are left out"
        assert eventually(lambda: len(server.workers() - before) == 2)
        assert eventually(lambda: figures(where)["recsys_workers",] == 2)
        assert counted(where) == 20
        with connected(server.address) as channel:
            channel.unary_unary("/recsys.v1.Recommender/Recommend")(U1, timeout=CALL_S, wait_for_ready=True)
        assert eventually(lambda: counted(where) == 21)


@pytest.mark.slow
def test_a_rate_counts_over_two_workers(files, tiny_store):
    with served(tiny_store, "--workers", "2", "--rate", "20", "--tokens", files.tokens) as server:
        stubs = []
        with connected(server.address) as warm:
            call(warm, "GetStatus", b"", files.secrets[Role.ADMIN])
        answered, start = 0, time.monotonic()
        while time.monotonic() - start < 1.5:
            with connected(server.address) as channel:
                try:
                    for _ in range(30):
                        call(channel, "Recommend", U1, files.secrets[Role.READ])
                        answered += 1
                except grpc.RpcError as error:
                    stubs.append(error.code())
        seconds = time.monotonic() - start
    assert set(stubs) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert 20 <= answered <= 20 + 20 * seconds + 2


@pytest.mark.slow
def test_tokens_change_under_two_workers(files, tiny_store):
    def outcome(token: str) -> set[str]:
        found = set()
        for _ in range(12):
            with connected(server.address) as channel:
                try:
                    call(channel, "Recommend", U1, token)
                    found.add("OK")
                except grpc.RpcError as error:
                    found.add(error.code().name)
        return found

    with served(tiny_store, "--workers", "2", "--tokens", files.tokens) as server:
        assert outcome(files.secrets[Role.READ]) == {"OK"}
        remove_token(files.tokens, "read")
        newer, _ = add_token(files.tokens, Role.READ, "newer")
        assert eventually(lambda: outcome(files.secrets[Role.READ]) == {"UNAUTHENTICATED"})
        assert outcome(newer) == {"OK"}


@pytest.mark.slow
def test_lines_are_json_and_hold_no_secret(files, tiny_store):
    secrets = files.secrets
    options = ("--log", "json", "--log-calls", "--tokens", files.tokens, *files.tls)
    with served(tiny_store, *options, anew=True) as server:
        with connected(server.address, files.trust) as channel:
            call(channel, "Recommend", pb.RecommendRequest(user_id="u-secret").SerializeToString(), secrets[Role.READ])
            about = pb.GetTrackRequest(track_id="t-secret").SerializeToString()
            refused(channel, "GetTrack", about, secrets[Role.READ])
            refused(channel, "Recommend", b"u-secret", secrets[Role.READ])
            refused(channel, "Recommend", U1, "recsys_mistyped")
        for trust in (None, grpc.ssl_channel_credentials(trustme.CA().cert_pem.bytes())):
            with connected(server.address, trust) as channel:
                refused(channel, "Recommend", U1, secrets[Role.READ])
        [worker] = server.workers()
        os.kill(worker, signal.SIGKILL)
        assert eventually(lambda: server.workers() - {worker})
        time.sleep(1.0)  # it takes a while to serve
    lines = [json.loads(line) for line in server.errors]
    assert [line["status"] for line in lines if "status" in line] == [
        "OK", "NOT_FOUND", "INVALID_ARGUMENT", "UNAUTHENTICATED"
    ]  # fmt: skip
    assert [line["message"] for line in lines if "killed by signal 9" in line["message"]]
    told = "\n".join(server.errors)
    for secret in ("u-secret", "t-secret", "recsys_mistyped", "u1", *secrets.values(), "PRIVATE KEY"):
        assert secret not in told


@pytest.mark.parametrize(("host", "told"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_figures_that_others_can_reach_are_told_of(host, told, caplog):
    with closing(socket.socket()) as port, closing(socket.socket()) as figures:
        port.bind(("127.0.0.1", 0))
        figures.bind((host, 0))
        with closing(open_context(ServeSettings(), 1, port, figures)) as context:
            context.announce()
    assert ("others can reach the figures" in caplog.text) == told
