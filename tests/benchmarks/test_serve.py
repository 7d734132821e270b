"""The benchmark of serving runs, on next to nothing; what it finds is no test's affair. Its load is tested here."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest

from benchmarks import serve
from benchmarks.load import Load, Loaded
from benchmarks.served_store import StoreSizes, made_store, user_id
from recsys.recommender import Recommender
from recsys.util.progress import Silent

TINY = serve.Sizes(StoreSizes(240, 300, 20), StoreSizes(210, 250, 5), seconds=0.1, rounds=1, n_swaps=1, n_uploads=2)


@pytest.mark.slow
def test_every_measurement_gives_its_lines(tmp_path: Path) -> None:
    made_store(tmp_path / "store", TINY.store, 0, Silent())
    rows = serve.measure_answers(tmp_path / "store", TINY, Silent())
    rows += [serve.measure_memory(tmp_path / "store", TINY), serve.measure_live(tmp_path / "store", TINY, Silent())]
    rows += serve.measure_swaps(tmp_path / "swapped", TINY, Silent())
    assert [row.target for row in rows] == [
        ">= 0.90", "<= 1.2", ">= 4", ">= 0.5", "<= 2 s", "0", "<= 150 MB", ">= 0.7", "0", "<= 2"
    ]  # fmt: skip
    assert all(row.met is not None for row in rows)
    failed = [row for row in rows if "failed" in row.what]
    assert [row.met for row in failed] == [True, True]


def test_the_store_that_is_made_up_is_one_that_opens(tmp_path: Path) -> None:
    made_store(tmp_path, StoreSizes(5, 300, 4), 0, Silent())
    recommender = Recommender.open(tmp_path)
    found = recommender.recommend(user_id(3), 200)
    assert (found.source, len({track.track_id for track in found.tracks})) == ("personal", 200)
    assert len(recommender.similar("track0000001", 50).tracks) == 50


# ---- load --------------------------------------------------------------------------------------------------------


@contextmanager
def echoing(options: Sequence[tuple[str, int]] = ()) -> Iterator[int]:
    """A server that answers what it is asked, and refuses every message that begins with "no"."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def echo(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await asyncio.sleep(0.005 if request == b"slow" else 0)
        if request.startswith(b"no"):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
        return request

    async def start() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(options=options)
        handler = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", handler),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_load_counts_answers_and_refusals() -> None:
    with echoing() as port, closing(Load("127.0.0.1", port)) as load:
        found = load.peak("/t.T/Echo", lambda n: b"no" if n % 4 == 0 else b"yes" * 400, 0.2, at_once=8)
        assert found.n > 20
        assert found.n_failed == pytest.approx(found.n / 4, abs=2)
        unknown = load.peak("/t.T/Other", lambda _: b"", 0.05, at_once=2)
        assert unknown.n == unknown.n_failed > 0


def test_no_more_calls_run_than_a_server_allows() -> None:
    with echoing([("grpc.max_concurrent_streams", 3)]) as port, closing(Load("127.0.0.1", port)) as load:
        found = load.peak("/t.T/Echo", lambda _: b"slow", 0.2, at_once=40)
        assert (found.n > 20, found.n_failed) == (True, 0)
        found = load.steady("/t.T/Echo", lambda _: b"slow", 0.1, rate=2000)
        assert (found.n, found.n_failed) == (200, 0)
        assert max(found.latencies) > 0.1, "what waits for a place is late"


def test_steady_load_is_as_much_as_was_asked_for() -> None:
    with echoing() as port, closing(Load("127.0.0.1", port)) as load:
        found = load.steady("/t.T/Echo", lambda n: b"%d" % n, 0.5, rate=100)
    assert (found.n, found.n_failed) == (50, 0)
    assert found.seconds >= 0.49


def test_a_latency_is_that_which_a_share_keeps_to() -> None:
    loaded = Loaded(4, 0, 2.0, [0.3, 0.1, 0.4, 0.2])
    assert (loaded.latency(0.5), loaded.latency(0.99), loaded.rate) == (0.3, 0.4, 2.0)
