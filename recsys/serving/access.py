"""Who may call what: a method's handler in, the same handler with access control out.

    headers -> token -> role -> calls running -> rate -> message, or a place for an upload -> handler -> counted, logged

It is a plain wrapper that is made once a method: it costs 1 µs a call, 3 µs with tokens (measured). A call comes
to it with its headers, and its message is read only then, in its turn (``recsys.serving.pending_calls``): so each
method is served as one that takes a stream, which is the same on the wire. Health is open to all, since whoever watches
over the server has no token. gRPC has a limit on running calls of its own (``maximum_concurrent_rpcs``), but that one
refuses health too, comes before the token, so that strangers could take all places with calls that send nothing, and
neither counts nor logs.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeAlias

import grpc
from grpc_health.v1.health import aio as health_aio

from recsys.errors import LimitError
from recsys.serving.call_context import CALL, Call
from recsys.serving.health import health_handlers, reflection_handlers
from recsys.serving.logs import CallLog
from recsys.serving.metrics import STATUSES, Meter
from recsys.serving.pending_calls import NO_MESSAGE, TOO_LARGE, Refusal, Unfinished, ended
from recsys.serving.rate_limits import Rates, UploadSlots
from recsys.serving.tls import Certificates
from recsys.serving.tokens import Keyring, Role
from recsys.serving.transport import options

ROLES: dict[str, Role] = {
    "Recommend": Role.READ,
    "SimilarTracks": Role.READ,
    "RecommendFromTracks": Role.READ,
    "GetTrack": Role.READ,
    "GetStatus": Role.READ,
    "AudienceOf": Role.READ,
    "UploadTrack": Role.WRITE,
    "RecordListens": Role.WRITE,
    "DeleteTrack": Role.ADMIN,
    "DeleteUser": Role.ADMIN,
}
SCHEME = "bearer "  # before a token, in any case
REFLECTION_ROLE = Role.READ
UPLOAD, REFLECTION = "UploadTrack", "Reflection"
MAX_MESSAGE = 4 << 20  # bytes; gRPC's own default
SMALL = {"SimilarTracks", "GetTrack", "GetStatus", "AudienceOf", "DeleteTrack", "DeleteUser"}  # an id and little more
SMALL_MESSAGE = 1 << 16  # bytes of these
MAX_CALLS = 1000  # one that waits takes 15 to 23 KB and its request (measured), so together about 20 MB as a rule

NO_TOKEN = "this server asks for a token; send it as the metadata `authorization: Bearer TOKEN`"
UNKNOWN_TOKEN = "this token is not known here, or is no longer; ask for another"
NO_TOKENS_FILE = "the server cannot read its tokens right now; try again later"
TOO_MANY = "as many calls as may run here at once ({}) are running; try again soon, or over another connection"
FAULT = "the server failed to answer this call; its log has the details"

FastAnswer: TypeAlias = Callable[
    [Any], tuple[bytes, int] | None
]  # answer, and place in ``PATHS`` of the way it was found
Handler: TypeAlias = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]

_OK, _CANCELLED, _UNKNOWN, _DEADLINE, _INTERNAL = 0, 1, 2, 4, 13  # gRPC's numbers

_LOG = logging.getLogger(__name__)


class AccessControl:
    """What stands between a client and the handlers, in one worker; with nothing given, all may come in."""

    def __init__(
        self,
        keyring: Keyring | None = None,
        rates: Rates | None = None,
        uploads: UploadSlots | None = None,
        upload_s: float | None = None,
        log: CallLog | None = None,
        certificates: Certificates | None = None,
        max_message: int = MAX_MESSAGE,
        max_calls: int = MAX_CALLS,
    ) -> None:
        self._keyring = keyring
        self._rates = rates
        self._uploads = uploads
        self._upload_s = upload_s
        self.log = log or CallLog()
        self._certificates = certificates
        self._max_calls, self._running = max_calls, 0
        self._max_message, self._unfinished = max_message, Unfinished(max_message, self._turn_away)
        self.options = options(max_message, upload_s)

    def listen(self, server: grpc.aio.Server, address: str) -> int:
        """Open the port, over TLS if there is a certificate; returns its number."""
        if self._certificates is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, self._certificates.credentials()))

    def refusal(self, context: grpc.aio.ServicerContext, call: Call, needed: Role, now: float) -> Refusal | None:
        """Say why a call may not come in, None where it may; ``now`` in seconds of ``time.monotonic``."""
        client = 0
        if self._keyring is not None:
            secret = _bearer(context)
            if secret is None:
                return grpc.StatusCode.UNAUTHENTICATED, NO_TOKEN
            token = self._keyring.holder(secret, now)
            if token is None:
                if not self._keyring.readable:
                    return grpc.StatusCode.UNAVAILABLE, NO_TOKENS_FILE
                return grpc.StatusCode.UNAUTHENTICATED, UNKNOWN_TOKEN
            call.client, client = token.name, token.number
            if token.role < needed:
                sentence = f"{call.method} needs a token of the role {needed.word}, and this one's is {token.role.word}"
                return grpc.StatusCode.PERMISSION_DENIED, sentence
        if self._running >= self._max_calls:  # before a call is taken off what the client may do
            return grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_MANY.format(self._max_calls)
        if self._rates is not None:
            wait_s = self._rates.wait_s(client or _address(context), now)
            if wait_s:
                sentence = f"more than {self._rates.rate:g} calls a second; try again in {wait_s:.3f} s"
                return grpc.StatusCode.RESOURCE_EXHAUSTED, sentence
        return None

    def guarded(
        self,
        handlers: Mapping[str, grpc.RpcMethodHandler],
        meter: Meter | None = None,
        quick: Mapping[str, FastAnswer] | None = None,
    ) -> dict[str, grpc.RpcMethodHandler]:
        """Wrap each method's handler in access control; a method that ``ROLES`` does not name is a KeyError.

        ``quick`` has what may answer a method at once; where it gives None, the handler is called.
        """
        at_once = quick or {}
        return {name: self._guarded(name, handler, meter, at_once.get(name)) for name, handler in handlers.items()}

    def _guarded(
        self, name: str, handler: grpc.RpcMethodHandler, meter: Meter | None, quick: FastAnswer | None
    ) -> grpc.RpcMethodHandler:
        codecs = handler.request_deserializer, handler.response_serializer
        if handler.request_streaming:
            work = self._with_place(handler.stream_unary) if name == UPLOAD else handler.stream_unary
            return grpc.stream_unary_rpc_method_handler(self._wrapped(name, work, meter), *codecs)
        most = min(SMALL_MESSAGE, self._max_message) if name in SMALL else self._max_message
        return grpc.stream_unary_rpc_method_handler(
            self._wrapped(name, handler.unary_unary, meter, quick, most), *codecs
        )

    def _wrapped(
        self, name: str, work: Handler, meter: Meter | None, quick: FastAnswer | None = None, most: int = 0
    ) -> Handler:
        """Wrap a method; with ``most``, its one message is read here, and has so many bytes at most."""
        needed, refusal, piece, tell = ROLES[name], self.refusal, self._unfinished.piece, self.log.every_call

        async def handle(request: Any, context: grpc.aio.ServicerContext) -> Any:
            start = time.monotonic()
            call = Call(name)
            refused = refusal(context, call, needed, start)
            if refused is not None:
                await self._turn_away(refused, context, call, meter)
            if most:
                request = await piece(context, most, call, meter)
                if request is grpc.aio.EOF:
                    await self._turn_away(NO_MESSAGE, context, call, meter)
            self._running += 1
            try:
                found = None if quick is None else quick(request)
                if found is None:
                    CALL.set(call)
                    answer = await work(request, context)
                else:
                    answer, call.path = found
            except (grpc.aio.AbortError, asyncio.CancelledError) as error:
                self._ended(call, _status(error, context), start, meter)
                raise
            except Exception as fault:  # noqa: BLE001 - gRPC would send its words to the client
                CALL.set(call)
                self._ended(call, _INTERNAL, start, meter)
                _LOG.error("%s failed", name, exc_info=fault)
                await context.abort(grpc.StatusCode.INTERNAL, FAULT)
            finally:
                self._running -= 1
            if meter is not None:
                meter.ended(name, call.path, _OK, time.monotonic() - start)
            if tell:
                self._ended(call, _OK, start, None)
            return answer

        return handle

    def _ended(self, call: Call, status: int, start: float, meter: Meter | None) -> None:
        seconds = time.monotonic() - start
        if meter is not None:
            meter.ended(call.method, call.path, status, seconds)
        self.log.answered(call.method, STATUSES[status], seconds, token=call.client)

    async def _turn_away(
        self, refused: Refusal, context: grpc.aio.ServicerContext, call: Call, meter: Meter | None = None
    ) -> None:
        status, sentence = refused
        if meter is not None:
            meter.refused(call.method, status.value[0])
        self.log.refused(call.method, status.name, sentence, peer=context.peer(), token=call.client)
        await context.abort(status, sentence)

    def _with_place(self, work: Handler) -> Handler:
        """Take in so many uploads at once and no more, and none for ever: a client that goes silent gives way."""

        async def take(context: grpc.aio.ServicerContext) -> Any:
            try:
                async with asyncio.timeout(self._upload_s), aclosing(self._pieces(context)) as pieces:
                    return await work(pieces, context)
            except LimitError as error:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
            except TimeoutError:
                sentence = f"the upload took more than {self._upload_s:g} s, which is the most"
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, sentence)

        async def handle(_pieces: Any, context: grpc.aio.ServicerContext) -> Any:
            if self._uploads is None:
                return await take(context)
            with self._uploads.place(self._client(context)) as refusal:
                if refusal:
                    self.log.refused(UPLOAD, "RESOURCE_EXHAUSTED", refusal, peer=context.peer())
                    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, refusal)
                return await take(context)

        return handle

    def _client(self, context: grpc.aio.ServicerContext) -> int:
        """A number for who calls: whose token it is, or without tokens which machine's."""
        secret = _bearer(context) if self._keyring is not None else None
        token = None if secret is None or self._keyring is None else self._keyring.holder(secret, time.monotonic())
        return _address(context) if token is None else token.number

    async def _pieces(self, context: grpc.aio.ServicerContext) -> AsyncGenerator[bytes, None]:
        """The messages of an upload as they come."""
        while (piece := await context.read()) is not grpc.aio.EOF:
            if len(piece) > self._max_message:
                raise LimitError(TOO_LARGE.format(len(piece), self._max_message))
            yield piece
        await ended(context)

    def add_reflection(self, server: grpc.aio.Server, services: list[str]) -> None:
        """Let those who may read ask which methods there are."""
        handlers = reflection_handlers(services, self._unfinished, self._reflecting)
        server.add_generic_rpc_handlers((handlers,))

    @asynccontextmanager
    async def _reflecting(self, context: grpc.aio.ServicerContext) -> AsyncIterator[Call]:
        """Let a call of reflection in, which lasts, so it is checked once."""
        call = Call(REFLECTION)
        refused = self.refusal(context, call, REFLECTION_ROLE, time.monotonic())
        if refused is not None:
            await self._turn_away(refused, context, call, None)
        self._running += 1
        try:
            yield call
        finally:
            self._running -= 1

    def add_health(self, server: grpc.aio.Server, health: health_aio.HealthServicer) -> None:
        """Let anybody ask whether the server is well."""
        server.add_generic_rpc_handlers((health_handlers(health, self._max_message),))


def _bearer(context: grpc.aio.ServicerContext) -> str | None:
    """The token that a call came with."""
    for key, value in context.invocation_metadata():
        if key == "authorization":
            return value[len(SCHEME) :].strip() or None if value[: len(SCHEME)].lower() == SCHEME else None
    return None


def _address(context: grpc.aio.ServicerContext) -> int:
    """A number for the machine that calls; its ports come and go. The same in all workers, as they are forked."""
    return hash(context.peer().rpartition(":")[0]) & (1 << 63) - 1 | 1


def _status(error: BaseException, context: grpc.aio.ServicerContext) -> int:
    """gRPC's number for how a call ended that ended with an exception."""
    if isinstance(error, asyncio.CancelledError):
        left_s = context.time_remaining()
        return _DEADLINE if left_s is not None and left_s <= 0 else _CANCELLED
    code = context.code()
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code
    return number or _UNKNOWN
