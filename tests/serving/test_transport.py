"""Descriptors and connections: who says nothing keeps nobody out."""

import resource
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from helpers.guarded_server import CALL_S, SERVICE, call, connected, doored
from helpers.serve_process import ROOT, serve
from recsys.serving import transport
from recsys.serving.access import AccessControl


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [(1024, 4096, 4096), (1024, resource.RLIM_INFINITY, 65536), (1024, 10**6, 65536), (10**5, 10**6, 10**5),
     (resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY)],
)  # fmt: skip
def test_as_many_descriptors_as_there_may_be(soft, hard, raised, monkeypatch):
    limits = [soft, hard]
    monkeypatch.setattr(resource, "getrlimit", lambda _what: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _what, wanted: limits.__setitem__(slice(None), list(wanted)))
    transport.raise_descriptors()
    assert limits == [raised, hard]
    assert 0 < transport.most_connections() <= 4096


@pytest.mark.parametrize("n", [64, 256, 1024, 10_000])
def test_connections_leave_descriptors_to_others(n, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (n, n))
    assert 0 < transport.most_connections() < n


@pytest.mark.slow
def test_idle_connections_keep_nobody_out_where_descriptors_are_few(monkeypatch):
    """More of them than descriptors: those beyond are hung up on, and the others once they have said nothing."""
    monkeypatch.setattr(transport, "HANDSHAKE_S", 1.0)
    monkeypatch.setattr(transport, "most_connections", lambda: 20)
    with doored(AccessControl()) as address, ExitStack() as stack, connected(address) as first:
        assert call(first, "Recommend") == b"got x"
        host, _, port = address.rpartition(":")
        for _ in range(60):
            stack.enter_context(socket.create_connection((host, int(port))))
        assert call(first, "Recommend") == b"got x", "who is connected is answered"
        with connected(address) as channel:
            work = channel.unary_unary(f"/{SERVICE}/Recommend")
            assert work(b"x", timeout=4 * CALL_S, wait_for_ready=True) == b"got x"


@pytest.mark.slow
def test_a_server_with_256_descriptors_and_300_idle_connections(tiny_store: Path):
    few = ["prlimit", "--nofile=256:256"]
    with serve(tiny_store, workers=1, before=few) as server, ExitStack() as stack:
        host, _, port = server.address.rpartition(":")
        for _ in range(300):
            stack.enter_context(socket.create_connection((host, int(port))))
        begun = time.monotonic()
        with connected(server.address) as channel:
            channel.unary_unary(f"/{SERVICE}/GetStatus")(b"", timeout=60, wait_for_ready=True)
        assert time.monotonic() - begun < 4 * transport.HANDSHAKE_S
        [worker] = server.workers()
        assert len(list(Path(f"/proc/{worker}/fd").iterdir())) < 256


def test_the_unit_asks_for_descriptors():
    assert f"LimitNOFILE={transport.MOST_DESCRIPTORS}" in (ROOT / "packaging" / "recsys.service").read_text()
