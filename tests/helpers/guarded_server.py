"""A server whose methods only say what they were sent, behind doors: what the doors do is then all there is to see."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import grpc
import pytest

from recsys.serving import call_context
from recsys.serving.access import ROLES, UPLOAD, AccessControl
from recsys.serving.metrics import Meter

CALL_S = 5.0
SERVICE = "recsys.v1.Recommender"


async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    match request:
        case b"slow":
            await asyncio.sleep(30)
        case b"missing":
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such thing as u-secret")
        case b"bug":
            raise KeyError("u-secret")
    return b"got " + request


AT_ONCE = {b"plain": call_context.PLAIN, b"live": call_context.LIVE}


def at_once(request: bytes) -> tuple[bytes, int] | None:
    if request == b"bug at once":
        raise KeyError("u-secret")
    return (b"got " + request, AT_ONCE[request]) if request in AT_ONCE else None


async def take_in(chunks: Any, context: grpc.aio.ServicerContext) -> bytes:
    return b"".join([chunk async for chunk in chunks])


@contextmanager
def doored(access: AccessControl, meter: Meter | None = None) -> Iterator[str]:
    """A started server, on a loop in a thread of its own; gives its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def started() -> tuple[grpc.aio.Server, int]:
        handlers = {name: grpc.unary_unary_rpc_method_handler(answer) for name in ROLES if name != UPLOAD}
        handlers[UPLOAD] = grpc.stream_unary_rpc_method_handler(take_in)
        server = grpc.aio.server(options=access.options)
        guarded = access.guarded(handlers, meter, {"Recommend": at_once})
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, guarded),))
        access.add_reflection(server, [SERVICE])
        port = access.listen(server, "127.0.0.1:0")
        await server.start()
        return server, port

    def on_loop(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(CALL_S)

    server, port = on_loop(started())
    try:
        yield f"127.0.0.1:{port}"
    finally:
        on_loop(server.stop(None))
        on_loop(loop.shutdown_default_executor())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def connected(address: str, credentials: grpc.ChannelCredentials | None = None) -> Iterator[grpc.Channel]:
    """A connection of its own, not one that an earlier channel has left."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    if credentials is None:
        channel = grpc.insecure_channel(address, options)
    else:
        channel = grpc.secure_channel(address, credentials, [*options, ("grpc.ssl_target_name_override", "localhost")])
    with closing(channel):
        yield channel


def bearer(token: str | None) -> tuple[tuple[str, str], ...]:
    return () if token is None else (("authorization", f"Bearer {token}"),)


def call(channel: grpc.Channel, method: str, request: Any = b"x", token: str | None = None) -> bytes:
    """Call a method with a token; an upload is given as a list of chunks."""
    kind = channel.stream_unary if method == UPLOAD else channel.unary_unary
    request = iter([request]) if method == UPLOAD and isinstance(request, bytes) else request
    return kind(f"/{SERVICE}/{method}")(request, timeout=CALL_S, metadata=bearer(token))


def refused(channel: grpc.Channel, method: str, request: Any = b"x", token: str | None = None) -> tuple[Any, str]:
    """Status and sentence of a call that is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, method, request, token)
    return caught.value.code(), caught.value.details()


def eventually(happened: Any, within_s: float = CALL_S) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if happened():
            return True
        time.sleep(0.02)
    return False
