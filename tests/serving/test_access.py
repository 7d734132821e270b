"""What the doors of a server do, asked over the wire: who is let in, how often, how many at once."""

import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from threading import Event

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from helpers.command import run
from helpers.guarded_server import CALL_S, SERVICE, at_once, bearer, call, connected, doored, eventually, refused
from recsys.serving.access import (
    FAULT,
    MAX_CALLS,
    NO_TOKEN,
    NO_TOKENS_FILE,
    ROLES,
    TOO_MANY,
    UNKNOWN_TOKEN,
    UPLOAD,
    AccessControl,
)
from recsys.serving.call_context import PATHS
from recsys.serving.context import ServerContext
from recsys.serving.logs import CallLog, to_stderr
from recsys.serving.metrics import Board
from recsys.serving.rate_limits import Rates, UploadSlots
from recsys.serving.settings import ServeSettings
from recsys.serving.tokens import Keyring, Role, add_token, remove_token
from recsys.v1 import recommender_pb2 as pb

READS = {"Recommend", "SimilarTracks", "RecommendFromTracks", "GetTrack", "GetStatus", "AudienceOf"}
ADMINS = {"DeleteTrack", "DeleteUser"}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("doors") / "tokens"


@pytest.fixture(scope="module")
def tokens(file: Path) -> dict[Role, str]:
    return {role: add_token(file, role, role.word)[0] for role in Role}


@pytest.fixture(scope="module")
def channel(file, tokens):
    with doored(AccessControl(Keyring(file))) as address, connected(address) as channel:
        yield channel


def test_every_method_of_the_proto_has_a_role():
    service = pb.DESCRIPTOR.services_by_name["Recommender"]
    assert set(ROLES) == {method.name for method in service.methods}
    assert {name for name, role in ROLES.items() if role is Role.READ} == READS
    assert {name for name, role in ROLES.items() if role is Role.ADMIN} == ADMINS


def test_a_method_without_a_role_has_no_door():
    with pytest.raises(KeyError):
        AccessControl().guarded({"Nothing": grpc.unary_unary_rpc_method_handler(print)})


@pytest.mark.parametrize("method", ROLES)
def test_no_token(channel, method):
    assert refused(channel, method) == (grpc.StatusCode.UNAUTHENTICATED, NO_TOKEN)


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic dTpw", "recsys_x"])
def test_what_is_no_bearer_token(channel, value):
    metadata = (("authorization", value),)
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{SERVICE}/Recommend")(b"x", timeout=CALL_S, metadata=metadata)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("method", ROLES)
def test_unknown_token(channel, method):
    found = refused(channel, method, token="recsys_0123456789")
    assert found == (grpc.StatusCode.UNAUTHENTICATED, UNKNOWN_TOKEN)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("method", ROLES)
def test_each_role_may_do_what_is_its_own_and_below(channel, tokens, method, role):
    needed = Role.READ if method in READS else Role.ADMIN if method in ADMINS else Role.WRITE
    if role >= needed:
        assert b"x" in call(channel, method, token=tokens[role])
    else:
        code, sentence = refused(channel, method, token=tokens[role])
        assert code == grpc.StatusCode.PERMISSION_DENIED
        assert sentence == f"{method} needs a token of the role {needed.word}, and this one's is {role.word}"


def test_bearer_is_written_in_any_case(channel, tokens):
    metadata = (("authorization", f"bearer {tokens[Role.READ]}"),)
    assert channel.unary_unary(f"/{SERVICE}/Recommend")(b"x", timeout=CALL_S, metadata=metadata) == b"got x"


def services(channel, token):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    [answer] = stub.ServerReflectionInfo(asked, timeout=CALL_S, metadata=bearer(token))
    return [service.name for service in answer.list_services_response.service]


def test_reflection_is_for_those_who_may_read(channel, tokens):
    assert services(channel, tokens[Role.READ]) == [SERVICE]
    with pytest.raises(grpc.RpcError) as caught:
        services(channel, None)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAUTHENTICATED, NO_TOKEN)


@pytest.mark.slow
def test_tokens_that_change_under_a_running_server(tmp_path):
    file = tmp_path / "tokens"
    first, _ = add_token(file, Role.READ, "first")
    with doored(AccessControl(Keyring(file))) as address, connected(address) as channel:
        assert call(channel, "Recommend", token=first) == b"got x"
        remove_token(file, "first")
        second, _ = add_token(file, Role.ADMIN, "second")
        time.sleep(0.6)
        assert refused(channel, "Recommend", token=first) == (grpc.StatusCode.UNAUTHENTICATED, UNKNOWN_TOKEN)
        assert call(channel, "DeleteUser", token=second) == b"got x"
        file.write_text("damaged")
        time.sleep(0.6)
        assert refused(channel, "Recommend", token=second) == (grpc.StatusCode.UNAVAILABLE, NO_TOKENS_FILE)


# ---- limits --------------------------------------------------------------------------------------------------


def test_a_rate_is_each_token_s_own(tmp_path):
    file = tmp_path / "tokens"
    fast, slow = (add_token(file, Role.READ)[0] for _ in range(2))
    with doored(AccessControl(Keyring(file), Rates(3.0))) as address, connected(address) as channel:
        answers = [call(channel, "Recommend", token=fast) for _ in range(3)]
        code, sentence = refused(channel, "Recommend", token=fast)
        assert answers == [b"got x"] * 3
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert sentence.startswith("more than 3 calls a second; try again in 0.")
        assert call(channel, "Recommend", token=slow) == b"got x"
        with connected(address) as another:
            assert refused(another, "Recommend", token=fast)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
        time.sleep(0.4)
        assert call(channel, "Recommend", token=fast) == b"got x"


def test_without_tokens_a_rate_is_each_address_s(tmp_path):
    with doored(AccessControl(rates=Rates(2.0))) as address:
        for _ in range(2):
            with connected(address) as channel:  # another port of the same machine each time
                call(channel, "Recommend")
        with connected(address) as channel:
            assert refused(channel, "Recommend")[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_rate_of_none_is_no_limit():
    with doored(AccessControl()) as address, connected(address) as channel:
        assert [call(channel, "Recommend") for _ in range(300)] == [b"got x"] * 300


def held_open(channel, release: Event):
    def chunks():
        yield b"a"
        release.wait(20)

    return channel.stream_unary(f"/{SERVICE}/{UPLOAD}").future(chunks(), timeout=20)


def test_so_many_uploads_at_once_and_no_more():
    release, uploads = Event(), UploadSlots(2, n_workers=1)
    uploads.share = 2
    with doored(AccessControl(uploads=uploads)) as address, connected(address) as channel:
        going_on = [held_open(channel, release) for _ in range(2)]
        assert eventually(lambda: uploads.going_on == 2)
        code, sentence = refused(channel, UPLOAD, b"b")
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert sentence == "2 uploads are being taken in, which is the most; try again soon"
        assert call(channel, "Recommend") == b"got x", "others are not held up"
        going_on[0].cancel()  # a client that leaves gives its place back
        assert eventually(lambda: uploads.going_on == 1)
        assert call(channel, UPLOAD, b"b") == b"b"
        release.set()
        assert going_on[1].result(CALL_S) == b"a"


def begun(channel: grpc.Channel, n: int, token: str | None = None) -> list[grpc.Future]:
    """Calls that take longer than the test, and have arrived."""
    work = channel.unary_unary(f"/{SERVICE}/Recommend")
    calls_ = [work.future(b"slow", timeout=30, metadata=bearer(token)) for _ in range(n)]
    time.sleep(0.2)
    return calls_


def test_so_many_calls_at_once_and_no_more(board, caplog):
    access = AccessControl(rates=Rates(10.0), max_calls=3)
    with doored(access, board.meter(0)) as address, connected(address) as channel:
        for request in (b"x", b"missing", b"bug", b"bug at once"):  # a place is free again however a call ends
            call(channel, "Recommend") if request == b"x" else refused(channel, "Recommend", request)
        running = begun(channel, 3)
        for method in ("Recommend", "GetTrack", UPLOAD, *["GetStatus"] * 9):  # these are not held against the rate
            status, told = refused(channel, method)
            assert (status, told) == (grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_MANY.format(3))
        assert board.calls("GetTrack") == {"RESOURCE_EXHAUSTED": 1}
        assert f"GetTrack refused: {TOO_MANY.format(3)}" in caplog.text
        running[0].cancel()
        assert eventually(lambda: access._running == 2)
        assert call(channel, "GetTrack") == b"got x"
        running.append(channel.unary_unary(f"/{SERVICE}/Recommend").future(b"slow", timeout=0.1))
        assert running[-1].code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert eventually(lambda: access._running == 2)
        for one in running:
            one.cancel()
        assert eventually(lambda: access._running == 0)


def test_who_has_no_token_takes_no_place(file, tokens):
    with doored(AccessControl(Keyring(file), max_calls=1)) as address, connected(address) as channel:
        [held] = begun(channel, 1, tokens[Role.READ])
        assert refused(channel, "Recommend") == (grpc.StatusCode.UNAUTHENTICATED, NO_TOKEN)
        status, told = refused(channel, "Recommend", token=tokens[Role.READ])
        assert (status, told) == (grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_MANY.format(1))
        held.cancel()


def test_how_many_is_what_the_command_was_given(monkeypatch):
    given = list[ServeSettings]()
    monkeypatch.setattr("recsys.serving.workers.serve", lambda *arguments: given.append(arguments[-1]) or 0)
    assert run("serve", "--store", "s", "--max-calls", 7).status == run("serve", "--store", "s").status == 0
    assert [ServerContext(settings).enter(0)[0]._max_calls for settings in given] == [7, MAX_CALLS]
    assert run("serve", "--store", "s", "--max-calls", 0).status == 2


def test_200_calls_at_once_are_nothing_special():
    with doored(AccessControl()) as address, connected(address) as channel:
        work = channel.unary_unary(f"/{SERVICE}/Recommend")
        assert {one.result(CALL_S) for one in [work.future(b"x", timeout=CALL_S) for _ in range(200)]} == {b"got x"}


@pytest.mark.parametrize(("client_s", "server_s"), [(0.3, 60.0), (20.0, 0.3)])
def test_an_upload_that_goes_silent_gives_way_at_its_deadline_or_the_server_s(client_s, server_s):
    release, uploads = Event(), UploadSlots(1, n_workers=1)

    def chunks():
        yield b"a"
        release.wait(20)

    with doored(AccessControl(uploads=uploads, upload_s=server_s)) as address, connected(address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary(f"/{SERVICE}/{UPLOAD}")(chunks(), timeout=client_s)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert eventually(lambda: uploads.going_on == 0)
        assert call(channel, UPLOAD, b"b") == b"b"
        release.set()
        if server_s < client_s:
            assert caught.value.details() == "the upload took more than 0.3 s, which is the most"


@pytest.mark.parametrize("method", ["Recommend", UPLOAD])
def test_a_message_that_is_too_large_is_refused(method):
    with doored(AccessControl(max_message=10_000)) as address, connected(address) as channel:
        assert call(channel, method, b"x" * 9_900)
        code, sentence = refused(channel, method, b"x" * 10_100)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in sentence


# ---- counts and logs -----------------------------------------------------------------------------------------


@pytest.fixture
def board() -> Board:
    return Board(1, tuple(ROLES))


def test_calls_are_counted_by_method_path_and_status(board, file, tokens):
    read = tokens[Role.READ]
    with doored(AccessControl(Keyring(file)), board.meter(0)) as address, connected(address) as channel:
        for request in (b"plain", b"plain", b"live", b"x"):
            call(channel, "Recommend", request, read)
        refused(channel, "Recommend", b"missing", read)
        refused(channel, "Recommend", b"bug", read)
        refused(channel, "Recommend")
        refused(channel, UPLOAD, b"x", read)
        with pytest.raises(grpc.RpcError):
            channel.unary_unary(f"/{SERVICE}/Recommend")(b"slow", timeout=0.2, metadata=bearer(read))
        gone = channel.unary_unary(f"/{SERVICE}/Recommend").future(b"slow", timeout=20, metadata=bearer(read))
        time.sleep(0.2)
        gone.cancel()
        expected = {
            "OK": 4,
            "NOT_FOUND": 1,
            "INTERNAL": 1,
            "UNAUTHENTICATED": 1,
            "DEADLINE_EXCEEDED": 1,
            "CANCELLED": 1,
        }
        assert eventually(lambda: board.calls("Recommend") == expected), board.calls("Recommend")
    assert board.calls(UPLOAD) == {"PERMISSION_DENIED": 1}
    assert {path: sum(board.latencies("Recommend", path)[0]) for path in PATHS} == {
        "plain": 2, "live": 1, "filtered": 0, "computed": 5
    }  # fmt: skip
    assert 0.3 < board.latencies("Recommend", "computed")[1] < 5, "the two that waited for 0.2 s each"


def test_refusals_are_told_and_nothing_else(file, tokens, caplog):
    with (
        caplog.at_level(logging.DEBUG, "recsys"),
        doored(AccessControl(Keyring(file))) as address,
        connected(address) as channel,
    ):
        call(channel, "Recommend", b"u-secret", tokens[Role.READ])
        refused(channel, "Recommend", b"missing", tokens[Role.READ])
        refused(channel, "DeleteUser", b"u-secret", tokens[Role.WRITE])
        refused(channel, "Recommend", b"u-secret", "recsys_mistyped")
    [denied, unknown] = [record for record in caplog.records if record.name.startswith("recsys")]
    assert denied.getMessage().startswith("DeleteUser refused: DeleteUser needs a token of the role admin")
    assert denied.call["status"] == "PERMISSION_DENIED"
    assert denied.call["token"] == "write"
    assert unknown.call["peer"].startswith("ipv4:127.0.0.1:")
    told = json.dumps([{**vars(record), "msg": record.getMessage()} for record in (denied, unknown)], default=str)
    for secret in ("u-secret", "recsys_mistyped", *tokens.values()):
        assert secret not in told


@pytest.mark.parametrize("bug", [b"bug", b"bug at once"])
def test_a_fault_is_told_in_one_line_and_not_to_the_client(capsys, bug):
    with to_stderr(ServeSettings(log="json")), doored(AccessControl()) as address, connected(address) as channel:
        code, sentence = refused(channel, "Recommend", bug)
    assert (code, sentence) == (grpc.StatusCode.INTERNAL, FAULT)
    [line] = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["message"], told["method"], told["fault"][-1]) == ("Recommend failed", "Recommend", "KeyError")
    assert "u-secret" not in line


def test_every_call_is_told_if_asked_for(caplog):
    with (
        caplog.at_level(logging.DEBUG, "recsys"),
        doored(AccessControl(log=CallLog(every_call=True))) as address,
        connected(address) as channel,
    ):
        call(channel, "Recommend", b"u-secret")
        refused(channel, "GetTrack", b"missing")
    told = [record.call for record in caplog.records if record.name.startswith("recsys")]
    assert [call["status"] for call in told] == ["OK", "NOT_FOUND"]
    assert all(0 < call["ms"] < 5000 for call in told)
    assert "u-secret" not in repr(told)


class Context:
    """As much of a call as a door looks at."""

    def __init__(self, token: str) -> None:
        self._metadata = (("user-agent", "grpc-python"), *bearer(token))

    def invocation_metadata(self):
        return self._metadata

    def peer(self):
        return "ipv4:127.0.0.1:50000"


def test_a_door_makes_few_calls_with_all_that_it_has(tmp_path, board):
    """A call of Python takes 0.1 µs in a loop, and several times that in a server, whose caches gRPC has emptied."""
    secrets = [add_token(tmp_path / "tokens", Role.READ)[0] for _ in range(20)]
    access = AccessControl(Keyring(tmp_path / "tokens"), Rates(1e9))
    context, made = Context(secrets[-1]), list[str]()

    def seen(_frame, event: str, function) -> None:
        if event in ("call", "c_call"):
            made.append(event)

    async def work(request, context):
        return request

    async def asked(door) -> int:
        await door(b"plain", context)  # once to look at the file of tokens
        made.clear()
        sys.setprofile(seen)
        try:
            await door(b"plain", context)
        finally:
            sys.setprofile(None)
        return len(made)

    assert asyncio.run(asked(access._wrapped("Recommend", work, board.meter(0)))) <= 40
    assert asyncio.run(asked(access._wrapped("Recommend", work, board.meter(0), at_once))) <= 40
    assert board.calls("Recommend") == {"OK": 4}


@pytest.mark.parametrize("size", [10_100, 1_000_000])
def test_a_chunk_that_is_too_large_is_the_client_s_fault(board, caplog, size):
    """The longer one is refused by gRPC itself, which looks like an end of the stream at first."""

    with doored(AccessControl(max_message=10_000), board.meter(0)) as address, connected(address) as channel:
        code, sentence = refused(channel, UPLOAD, iter([b"about", b"x" * size, b"more"]))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in sentence
        assert eventually(lambda: sum(board.calls(UPLOAD).values()) == 1)
        assert set(board.calls(UPLOAD)) <= {"RESOURCE_EXHAUSTED", "CANCELLED"}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_one_writer_leaves_a_place_for_uploads_to_others(tmp_path):
    file, release, uploads = tmp_path / "tokens", Event(), UploadSlots(2, n_workers=1)
    one, other = (add_token(file, Role.WRITE)[0] for _ in range(2))

    def trickle():
        yield b"a"
        release.wait(20)

    with doored(AccessControl(Keyring(file), uploads=uploads)) as address, connected(address) as channel:
        held = channel.stream_unary(f"/{SERVICE}/{UPLOAD}").future(trickle(), timeout=20, metadata=bearer(one))
        assert eventually(lambda: uploads.going_on == 1)
        code, sentence = refused(channel, UPLOAD, b"b", one)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert sentence.startswith("1 uploads of this client are being taken in")
        assert call(channel, UPLOAD, b"b", other) == b"b"
        release.set()
        assert held.result(CALL_S) == b"a"
