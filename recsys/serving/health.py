"""The services of gRPC's own that others' tools ask, within limits: health and reflection.

Health is open to all, so it has places of its own: strangers who begin calls and end none of them keep nobody from
being read whose token is known. Calls that last, as Watch and reflection do, are counted.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION
from grpc_reflection.v1alpha.reflection import aio as reflection_aio

from recsys.serving.pending_calls import NO_MESSAGE, Refusal, Unfinished

MOST_ASKED = 1 << 12  # bytes of a question: the name of a service, of a file or a symbol
MOST_WATCHES = 100  # calls of Watch at once in a worker
TOO_MANY_WATCHES = f"{MOST_WATCHES} calls of Watch are running, which is the most; call Check"
NO_QUESTION = "the bytes are no such request"

Context: TypeAlias = grpc.aio.ServicerContext


def health_handlers(health: health_aio.HealthServicer, max_message: int) -> grpc.GenericRpcHandler:
    """Make what gRPC calls for Check and Watch."""
    unfinished = Unfinished(max_message, _refuse, 0)
    n_watches = 0

    async def asked(context: Context) -> Any:
        message = await unfinished.piece(context, MOST_ASKED)
        if message is grpc.aio.EOF:
            await context.abort(*NO_MESSAGE)
        try:
            return health_pb2.HealthCheckRequest.FromString(message)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, NO_QUESTION)

    async def check(_pieces: Any, context: Context) -> Any:
        return await health.Check(await asked(context), context)

    async def watch(_pieces: Any, context: Context) -> None:
        nonlocal n_watches
        question = await asked(context)
        if n_watches >= MOST_WATCHES:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_MANY_WATCHES)
        n_watches += 1
        try:
            await health.Watch(question, context)
        finally:
            n_watches -= 1

    written = health_pb2.HealthCheckResponse.SerializeToString
    handlers = {
        "Check": grpc.stream_unary_rpc_method_handler(check, None, written),
        "Watch": grpc.stream_stream_rpc_method_handler(watch, None, written),
    }
    return grpc.method_handlers_generic_handler(HEALTH, handlers)


def reflection_handlers(
    services: list[str], unfinished: Unfinished, admit: Callable[[Context], Any]
) -> grpc.GenericRpcHandler:
    """Make what gRPC calls for reflection.

    Args:
        services: what may be asked about.
        unfinished: the questions of a call are read as messages of others are, each in its turn and its time.
        admit: an asynchronous context manager that lets a call in or refuses it, and counts it as long as it lasts;
            what it gives is told to ``unfinished``.
    """
    servicer = reflection_aio.ReflectionServicer(services)

    async def questions(context: Context, call: Any) -> AsyncIterator[Any]:
        while (piece := await unfinished.piece(context, MOST_ASKED, call)) is not grpc.aio.EOF:
            try:
                yield reflection_pb2.ServerReflectionRequest.FromString(piece)
            except DecodeError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, NO_QUESTION)

    async def inform(_pieces: Any, context: Context) -> AsyncIterator[Any]:
        async with admit(context) as call:
            async for answer in servicer.ServerReflectionInfo(questions(context, call), context):
                yield answer

    written = reflection_pb2.ServerReflectionResponse.SerializeToString
    handler = grpc.stream_stream_rpc_method_handler(inform, None, written)
    return grpc.method_handlers_generic_handler(REFLECTION, {"ServerReflectionInfo": handler})


async def _refuse(why: Refusal, context: Context) -> None:
    await context.abort(*why)
