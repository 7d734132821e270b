"""Calls that are begun and never ended, by somebody without a token: what they cost, and who else is still answered."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from helpers.attacks import HEADERS, attacking, frame, headers, memory, push
from helpers.guarded_server import CALL_S, SERVICE, call, connected, doored, eventually, refused
from helpers.serve_process import serve
from recsys.serving import health, pending_calls, transport
from recsys.serving.access import MAX_MESSAGE, NO_TOKEN, ROLES, AccessControl
from recsys.serving.metrics import Board
from recsys.serving.pending_calls import GAVE_WAY, NO_MESSAGE, TOO_LATE, TOO_MANY, Unfinished
from recsys.serving.tokens import Keyring, Role, add_token

MOST_MB = 64
RECOMMEND, CHECK = f"/{SERVICE}/Recommend", "/grpc.health.v1.Health/Check"
LARGE = MAX_MESSAGE - 1000
ATTACKS = {"large messages": LARGE, "headers alone": 0, "small messages": 900}


# ---- one worker's calls, with a context of their own -------------------------------------------------------------


class Context:
    """A call whose message comes when the test says so."""

    def __init__(self) -> None:
        self.come = asyncio.get_running_loop().create_future()
        self.is_read = False

    async def read(self):
        self.is_read = True
        return await self.come


class RefusedError(Exception):
    pass


async def refuse(why, _context):
    raise RefusedError(*why)


async def turns(n=20):
    for _ in range(n):
        await asyncio.sleep(0)


def begun(calls: Unfinished, n: int):
    contexts = [Context() for _ in range(n)]
    return contexts, [asyncio.ensure_future(calls.piece(context, 1000)) for context in contexts]


def outcome(task):
    error = task.exception()
    return task.result() if error is None else error.args


async def ended_by(tasks):
    await asyncio.gather(*tasks, return_exceptions=True)
    return [outcome(task) for task in tasks]


def places(n_bytes: int) -> Unfinished:
    return Unfinished(MAX_MESSAGE, refuse, n_bytes * transport.longest(MAX_MESSAGE))


def test_only_so_many_are_read_at_once_and_in_their_order():
    async def story():
        calls = places(3)
        contexts, tasks = begun(calls, 6)
        await turns()
        assert [context.is_read for context in contexts] == [True] * 3 + [False] * 3
        contexts[1].come.set_result(b"1")
        await turns()
        assert [context.is_read for context in contexts] == [True] * 4 + [False] * 2
        for n, context in enumerate(contexts):
            if not context.come.done():
                context.come.set_result(b"%d" % n)
        assert await ended_by(tasks) == [b"%d" % n for n in range(6)]
        assert calls.n_places == 3
        assert not calls._reading

    asyncio.run(story())


@pytest.mark.parametrize("leaves", ["while it waits", "while it is read", "as its turn comes"])
def test_a_client_that_leaves_gives_its_place_back(leaves):
    async def story():
        calls = places(2)
        contexts, tasks = begun(calls, 3)
        await turns()
        if leaves == "as its turn comes":
            contexts[0].come.set_result(b"0")
            while contexts[0].come.done() and not tasks[0].done():
                await asyncio.sleep(0)
            tasks[2].cancel()
        else:
            tasks[2 if leaves == "while it waits" else 0].cancel()
        await turns()
        for context in contexts:
            if not context.come.done():
                context.come.set_result(b"x")
        await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(task.cancelled() for task in tasks) == 1
        assert (calls._called, len(calls._waiting), calls._reading) == (0, 0, {})

    asyncio.run(story())


def test_what_sends_nothing_gives_way_to_who_has_waited(monkeypatch):
    monkeypatch.setattr(pending_calls, "PATIENCE_S", 0.02)

    async def story():
        calls = places(2)
        held, stuck = begun(calls, 2)
        await turns()
        others, waiting = begun(calls, 5)
        for context in others:
            context.come.set_result(b"good")
        assert await ended_by(waiting) == [b"good"] * 5
        assert await ended_by(stuck) == [(grpc.StatusCode.RESOURCE_EXHAUSTED, GAVE_WAY)] * 2
        assert not any(context.come.done() and not context.come.cancelled() for context in held)
        assert (calls._called, len(calls._waiting), calls._reading) == (0, 0, {})

    asyncio.run(story())


def test_nobody_gives_way_while_nobody_waits_but_to_time(monkeypatch):
    monkeypatch.setattr(pending_calls, "PATIENCE_S", 0.0)
    monkeypatch.setattr(pending_calls, "_CALM_S", 0.01)

    async def story():
        calls = Unfinished(MAX_MESSAGE, refuse, message_s=0.3)
        _, stuck = begun(calls, 2)
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in stuck)
        assert await ended_by(stuck) == [(grpc.StatusCode.DEADLINE_EXCEEDED, TOO_LATE.format(0.3))] * 2

    asyncio.run(story())


def test_where_many_wait_those_who_send_nothing_give_way(monkeypatch):
    monkeypatch.setattr(pending_calls, "MANY_WAITING", 4)
    monkeypatch.setattr(pending_calls, "PATIENCE_S", 1000.0)

    async def story():
        calls = places(2)
        _, stuck = begun(calls, 2 + 4)
        await turns()
        good, tasks = begun(calls, 6)
        for context in good:
            context.come.set_result(b"good")
        assert await ended_by(tasks) == [b"good"] * 6
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        assert stuck[0].exception().args == (grpc.StatusCode.RESOURCE_EXHAUSTED, GAVE_WAY)
        assert (calls._called, len(calls._waiting), calls._reading) == (0, 0, {})

    asyncio.run(story())


def test_a_message_that_has_come_is_not_given_up_for_a_loop_that_was_busy(monkeypatch):
    monkeypatch.setattr(pending_calls, "PATIENCE_S", 0.0)

    async def story():
        calls = places(2)
        held, tasks = begun(calls, 2)
        await turns()
        _, waiting = begun(calls, 1)
        for _ in range(pending_calls._CHANCE - 1):
            calls._look()
        for context in held:
            context.come.set_result(b"good")  # as the loop is about to look again
        calls._look()
        assert await ended_by(tasks) == [b"good"] * 2
        waiting[0].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(story())


def test_there_is_an_end_to_waiting(monkeypatch):
    monkeypatch.setattr(pending_calls, "MOST_WAITING", 4)

    async def story():
        calls = places(2)
        _, tasks = begun(calls, 2 + 4 + 1)
        await turns()
        assert outcome(tasks[-1]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_MANY)
        assert not any(task.done() for task in tasks[:-1])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(story())


# ---- over the wire -----------------------------------------------------------------------------------------------


def test_a_message_is_not_read_before_its_token_is_known(tmp_path):
    """So a call without one costs its headers, and is refused although its message never comes."""
    token = add_token(tmp_path / "tokens", Role.READ)[0]
    board = Board(1, tuple(ROLES))
    access = AccessControl(Keyring(tmp_path / "tokens"))
    with (
        doored(access, board.meter(0)) as address,
        attacking(address, 1, 40, RECOMMEND, LARGE) as attackers,
        connected(address) as channel,
    ):
        push(attackers, 5, settled=True)
        [attacker] = attackers
        assert len(attacker.ended) == 40
        assert sum(attacker.unsent.values()) == 0, "no window was given to a call that was refused"
        assert not access._unfinished._reading
        assert refused(channel, "Recommend")[1] == NO_TOKEN
        assert call(channel, "Recommend", token=token) == b"got x"
    assert board.calls("Recommend") == {"UNAUTHENTICATED": 41, "OK": 1}


@pytest.mark.parametrize("method", ["Recommend", "RecordListens"])
def test_a_call_without_a_message_is_refused(method):
    with doored(AccessControl()) as address, connected(address) as channel:
        work = channel.stream_unary(f"/{SERVICE}/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            work(iter([]), timeout=CALL_S)
    assert (caught.value.code(), caught.value.details()) == NO_MESSAGE


def test_methods_that_need_little_take_little():
    with doored(AccessControl()) as address, connected(address) as channel:
        assert call(channel, "RecordListens", b"x" * 70_000)
        code, told = refused(channel, "DeleteUser", b"x" * 70_000)
        assert (code, told) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED, "the message is larger than max (70,000 vs. 65,536 bytes)"
        )  # fmt: skip


def answers(work, message: bytes, n: int, within_s: float = 30.0):
    """What ``n`` calls at once are answered; one that is asked to try again does, as a client would.

    A processor that stalls makes an honest message late too: how often that is says nothing of the server.
    """
    running = [work.future(message, timeout=within_s) for _ in range(n)]
    end = time.monotonic() + within_s
    while running:
        again = 0
        for one in running:
            try:
                yield one.result(within_s)
            except grpc.RpcError as error:
                if error.details() not in (GAVE_WAY, TOO_MANY) or time.monotonic() > end:
                    raise
                again += 1
        running = [work.future(message, timeout=within_s) for _ in range(again)]


@pytest.mark.slow
def test_honest_calls_pass_those_that_are_never_ended():
    board, access = Board(1, tuple(ROLES)), AccessControl()
    with (
        doored(access, board.meter(0)) as address,
        attacking(address, 4, 40, RECOMMEND, LARGE) as attackers,
        connected(address) as channel,
    ):
        push(attackers, 0.2)
        work = channel.unary_unary(f"/{SERVICE}/Recommend")
        with ThreadPoolExecutor(1) as pool:
            pushing = pool.submit(push, attackers, 30, True)
            assert set(answers(work, b"x", 200)) == {b"got x"}
            pushing.result(40)
    assert board.calls("Recommend")["OK"] == 200


@pytest.fixture
def standard_server(monkeypatch):
    """A server with health and nothing else; gives its address."""
    monkeypatch.setattr(health, "MOST_WATCHES", 3)
    monkeypatch.setattr(pending_calls, "PATIENCE_S", 0.02)

    def with_health(access, server, services):
        access.add_health(server, health.health_aio.HealthServicer())

    monkeypatch.setattr(AccessControl, "add_reflection", with_health)
    with doored(AccessControl()) as address:
        yield address


def test_health_is_answered_beside_calls_of_it_that_never_end(standard_server):
    with attacking(standard_server, 2, 40, CHECK, LARGE) as attackers, connected(standard_server) as channel:
        push(attackers, 0.2)
        stub = health_pb2_grpc.HealthStub(channel)
        with ThreadPoolExecutor(1) as pool:
            pushing = pool.submit(push, attackers, 20, True)
            statuses = {one.status for one in answers(stub.Check, health_pb2.HealthCheckRequest(), 20)}
            pushing.result(30)
        assert statuses == {health_pb2.HealthCheckResponse.SERVING}
        assert call(channel, "Recommend") == b"got x"


def test_watches_are_counted(standard_server):
    with connected(standard_server) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=20) for _ in range(3)]
        assert {next(watch).status for watch in watches} == {health_pb2.HealthCheckResponse.SERVING}
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=20))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        watches[0].cancel()

        def another_is_let_in() -> bool:
            try:
                return bool(next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=20)).status)
            except grpc.RpcError:
                return False

        assert eventually(another_is_let_in)


@pytest.mark.parametrize("question", [b"\xff", b"x" * 5000])
def test_what_is_no_question_about_health_is_refused(standard_server, question):
    with connected(standard_server) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(CHECK)(question, timeout=CALL_S)
    assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)


def test_reflection_counts_as_a_call_and_ends_at_its_door():
    access = AccessControl(max_calls=1)
    ask = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    release = threading.Event()

    def silence():
        release.wait(20)
        yield from ()

    with doored(access) as address, connected(address) as channel:
        lasting = channel.stream_stream(ask)(silence(), timeout=20)
        assert eventually(lambda: access._running == 1)
        assert refused(channel, "Recommend")[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
        lasting.cancel()
        release.set()
        assert eventually(lambda: access._running == 0)
        assert call(channel, "Recommend") == b"got x"


@pytest.mark.slow
def test_headers_of_more_calls_than_one_connection_may_have_are_refused_by_grpc():
    with doored(AccessControl()) as address, attacking(address, 1, 1, RECOMMEND) as attackers:
        push(attackers, 5, settled=True)
        [attacker] = attackers
        assert attacker.most_streams == transport.MOST_STREAMS
        assert attacker._initial == transport.FIRST_WINDOW
        attacker.out += b"".join(frame(HEADERS, 4, 3 + 2 * n, headers(RECOMMEND)) for n in range(400))
        attacker._next += 800
        push(attackers, 5, settled=True)
        assert len(attacker.ended) >= 400 - transport.MOST_STREAMS


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize(
    ("n_connections", "n_calls"),
    [
        pytest.param(1, 250, marks=pytest.mark.long),
        pytest.param(20, 150, marks=pytest.mark.slow),
        pytest.param(200, 50, marks=pytest.mark.long),
    ],
)
def test_calls_that_never_end_cost_little_and_keep_nobody_out(tiny_store, kind, n_connections, n_calls):
    """A server without tokens, so that all are read; a worker with 86 MB had 690 of 150 such calls."""
    with serve(tiny_store, workers=1) as server:
        [worker] = server.workers()
        with connected(server.address) as channel:
            work = channel.unary_unary(f"/{SERVICE}/GetStatus")
            work(b"", timeout=30)
            before = memory(worker)
            with attacking(server.address, n_connections, n_calls, RECOMMEND, ATTACKS[kind]) as attackers:
                push(attackers, 60, settled=True)
                more = [memory(worker) - before]
                with ThreadPoolExecutor(1) as pool:
                    pushing = pool.submit(push, attackers, 60, True)
                    for _ in range(5):
                        assert all(answers(work, b"", 200))
                        more.append(memory(worker) - before)
                    pushing.result(90)
                more.append(memory(worker) - before)
            assert max(more) <= MOST_MB, more
