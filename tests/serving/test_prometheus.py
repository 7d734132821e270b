"""Figures as Prometheus reads them, summed over workers, and the port that gives them."""

import math
import os
import socket
import threading
import time
from contextlib import closing
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from helpers.prometheus import samples
from recsys.errors import ArtefactError
from recsys.serving.access import ROLES
from recsys.serving.call_context import PATHS
from recsys.serving.metrics import BOUNDS_S, Board, moment
from recsys.serving.prometheus import CONTENT_TYPE, MAX_CALLERS, Scrapes, exposition
from recsys.serving.sockets import hold_port, parse_address

METHODS = tuple(ROLES)
PLAIN, LIVE = PATHS.index("plain"), PATHS.index("live")


def in_a_process(work) -> None:
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_counts_are_summed_over_processes_and_outlive_them():
    board = Board(2, METHODS)
    board.meter(0).ended("Recommend", PLAIN, 0, 0.0002)
    in_a_process(lambda: [board.meter(1).ended("Recommend", PLAIN, 0, 0.3) for _ in range(3)])
    in_a_process(lambda: board.meter(1).ended("Recommend", LIVE, 5, 0.0002))
    in_a_process(lambda: board.meter(1).refused("DeleteUser", 16))
    found = samples(exposition(board))
    assert found["recsys_calls_total", "Recommend", "OK"] == 4
    assert found["recsys_calls_total", "Recommend", "NOT_FOUND"] == 1
    assert found["recsys_calls_total", "DeleteUser", "UNAUTHENTICATED"] == 1
    assert found["recsys_call_seconds_count", "Recommend", "plain"] == 4
    assert found["recsys_call_seconds_count", "Recommend", "live"] == 1
    assert found["recsys_call_seconds_sum", "Recommend", "plain"] == pytest.approx(0.9002)
    assert ("recsys_call_seconds_count", "DeleteUser", "computed") not in found, "it was never let in"


def test_buckets_hold_what_is_at_most_their_bound():
    board = Board(1, METHODS)
    for seconds in (0.0, 0.0001, 0.00011, 60.0, 61.0):
        board.meter(0).ended("GetTrack", PLAIN, 0, seconds)
    found = samples(exposition(board))
    bounds = [*map(str, BOUNDS_S), "+Inf"]
    buckets = [found["recsys_call_seconds_bucket", "GetTrack", "plain", bound] for bound in bounds]
    assert buckets == [2, *[3] * (len(BOUNDS_S) - 2), 4, 5]


def test_neighbouring_series_do_not_touch():
    board = Board(2, METHODS)
    for place, method in enumerate(METHODS):
        for number in range(len(PATHS)):
            for _ in range(1 + place + number):
                board.meter(1).ended(method, number, 16, 1000.0)
    found = samples(exposition(board))
    for place, method in enumerate(METHODS):
        assert found["recsys_calls_total", method, "UNAUTHENTICATED"] == 4 * (1 + place) + 6
        for number, path in enumerate(PATHS):
            assert found["recsys_call_seconds_count", method, path] == 1 + place + number
    assert found["recsys_workers",] == 0


def test_uploads_that_failed():
    board = Board(1, METHODS)
    assert samples(exposition(board))["recsys_upload_failures_total",] == 0
    for status in (0, 0, 3, 8):
        board.meter(0).ended("UploadTrack", PLAIN, status, 1.0)
    board.meter(0).ended("GetTrack", PLAIN, 3, 1.0)
    assert samples(exposition(board))["recsys_upload_failures_total",] == 2


def test_what_workers_say_about_themselves_goes_with_them():
    import asyncio

    board, backlog = Board(2, METHODS), [3.0]

    def unreadable() -> float:
        raise ArtefactError("the live store cannot be read")

    async def told(worker: int, ask) -> None:
        meter = board.meter(worker)
        asked = threading.Event()
        meter.watch(built_at=lambda: time.time() - 100 * (worker + 1), backlog=ask, behind=lambda: worker == 1)
        meter.watch(lists_behind=lambda: 7 * worker, failed_lookups=lambda: (asked.set(), 2 + worker)[1])
        task = asyncio.create_task(meter.tell())
        await asyncio.to_thread(asked.wait, 20)
        await asyncio.sleep(0.05)
        task.cancel()

    asyncio.run(told(0, lambda: backlog[0]))
    asyncio.run(told(1, lambda: 5.0))
    found = samples(exposition(board))
    assert found["recsys_workers",] == 2
    assert found["recsys_generation_age_seconds",] == pytest.approx(200, abs=5)
    assert found["recsys_live_backlog_entries",] == 5
    assert found["recsys_workers_behind",] == 1
    assert found["recsys_lists_behind",] == 7
    assert found["recsys_failed_lookups_total",] == 5
    board.forget(1)
    found = samples(exposition(board))
    assert found["recsys_workers",] == 1
    assert found["recsys_generation_age_seconds",] == pytest.approx(100, abs=5)
    assert found["recsys_live_backlog_entries",] == 3
    assert found["recsys_workers_behind",] == 0
    asyncio.run(told(0, unreadable))
    assert ("recsys_live_backlog_entries",) not in samples(exposition(board))


def test_moments():
    assert moment("1970-01-01T00:01:00+00:00") == 60
    assert math.isnan(moment(""))


# ---- the port ------------------------------------------------------------------------------------------------


@pytest.fixture
def scrapes():
    with closing(Scrapes(hold_port("127.0.0.1:0"), lambda: b"figures\n", CONTENT_TYPE)) as scrapes:
        yield scrapes


def asked(scrapes: Scrapes, path: str = "/metrics", method: str = "GET"):
    """An answer, with the parent's loop played by a thread."""
    import threading
    from multiprocessing import connection

    done = threading.Event()

    def loop() -> None:
        while not done.is_set():
            scrapes.answer(connection.wait(scrapes.sockets, timeout=0.05))

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        with urlopen(Request(f"http://{scrapes.where}{path}", method=method), timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    finally:
        done.set()
        thread.join()


def test_figures_are_given(scrapes):
    assert asked(scrapes) == (200, CONTENT_TYPE, b"figures\n")
    assert asked(scrapes, method="HEAD") == (200, CONTENT_TYPE, b"")


@pytest.mark.parametrize(("path", "method"), [("/secrets", "GET"), ("/metrics", "POST")])
def test_nothing_else_is_given(scrapes, path, method):
    with pytest.raises(HTTPError) as caught:
        asked(scrapes, path, method)
    assert caught.value.code == 404
    caught.value.close()


def test_callers_that_say_nothing_hold_up_nobody_and_are_let_go(scrapes):
    silent = [socket.create_connection(parse_address(scrapes.where)) for _ in range(MAX_CALLERS + 5)]
    start = time.monotonic()
    assert asked(scrapes)[2] == b"figures\n"
    assert time.monotonic() - start < 2
    assert len(scrapes.sockets) <= MAX_CALLERS + 1
    for caller in silent:
        caller.close()
    assert asked(scrapes)[2] == b"figures\n"


def test_bytes_that_are_no_request(scrapes):
    with socket.create_connection(parse_address(scrapes.where)) as caller:
        caller.sendall(b"\x16\x03\x01\x00\xff" * 100)
        assert asked(scrapes)[2] == b"figures\n"
        assert caller.recv(100).startswith(b"HTTP/1.1 404")
