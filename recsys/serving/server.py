"""One gRPC server over one open store: ``create_server(current, address)`` gives a server to start.

    request -> stored bytes (recsys.serving.fast_path), on the loop                    -> response or status
            -> or arguments (recsys.serving.convert) -> Recommender, on a thread -> message -> bytes

The event loop moves bytes and cuts them; what is computed takes milliseconds, so that runs on threads: reads on some,
writes, which may wait for other processes that write, on others, so that no read stands behind a write. Errors raised
on purpose become statuses with their own sentence; anything else is logged in full here and told to the client as
INTERNAL without details. Processes, ports and signals are not here but in ``recsys.serving.workers``.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION

from recsys.errors import (
    ArtefactError,
    ConfigError,
    DataError,
    FullDiskError,
    LimitError,
    LogLostError,
    NoSpaceError,
    NotFoundError,
    RecsysError,
    TakenError,
)
from recsys.live.service import LiveUpdater
from recsys.recommender import Recommender
from recsys.serving import convert
from recsys.serving.access import AccessControl
from recsys.serving.fast_path import QUICK, FastPath, RawResponse, ServingState
from recsys.serving.metrics import Meter
from recsys.serving.upload_handler import TrackUploads, upload_handler
from recsys.v1 import recommender_pb2 as pb

SERVICE: str = pb.DESCRIPTOR.services_by_name["Recommender"].full_name

# The first class that an error is an instance of decides: NoSpaceError is also a NotFoundError, TakenError a DataError.
STATUSES: dict[type[BaseException], grpc.StatusCode] = {
    NoSpaceError: grpc.StatusCode.FAILED_PRECONDITION,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    TakenError: grpc.StatusCode.ALREADY_EXISTS,
    LimitError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    LogLostError: grpc.StatusCode.FAILED_PRECONDITION,  # an ArtefactError whose sentence says what to do
    ConfigError: grpc.StatusCode.INVALID_ARGUMENT,
    DataError: grpc.StatusCode.INVALID_ARGUMENT,
}

N_THREADS = 8  # of either kind, in a worker
FULL_DISK = "the disk of the store is full: nothing can be written right now; try again later"
MAX_SENTENCE = 500  # characters of a status message, which travels in headers of at most 8 KiB, escaped

_LOG = logging.getLogger(__name__)


def recommend(recommender: Recommender, request: pb.RecommendRequest) -> pb.RecommendResponse:
    """Answer Recommend."""
    user_id, k = convert.given_id(request.user_id, "user_id"), convert.list_length(request.k)
    max_per_artist, diversity = convert.variety(request)
    answer = recommender.recommend(
        user_id,
        k,
        max_per_artist=max_per_artist,
        diversity=diversity,
        filters=convert.filters(request),
        describe=False,
    )
    return convert.ranked_list(pb.RecommendResponse, answer)


def similar_tracks(recommender: Recommender, request: pb.SimilarTracksRequest) -> pb.SimilarTracksResponse:
    """Answer SimilarTracks."""
    track_id = convert.given_id(request.track_id, "track_id")
    k, space = convert.list_length(request.k), convert.space(request.space)
    answer = recommender.similar(track_id, k, space, describe=False)
    return convert.ranked_list(pb.SimilarTracksResponse, answer)


def recommend_from_tracks(
    recommender: Recommender, request: pb.RecommendFromTracksRequest
) -> pb.RecommendFromTracksResponse:
    """Answer RecommendFromTracks."""
    track_ids = convert.given_track_ids(request.track_ids)
    answer = recommender.recommend_from_tracks(
        track_ids, convert.list_length(request.k), ordered=request.ordered, describe=False
    )
    return convert.ranked_list(pb.RecommendFromTracksResponse, answer)


def get_track(recommender: Recommender, request: pb.GetTrackRequest) -> pb.GetTrackResponse:
    """Answer GetTrack."""
    track_id = convert.given_id(request.track_id, "track_id")
    return pb.GetTrackResponse(track=convert.track(recommender.track(track_id)))


def get_status(recommender: Recommender, _request: pb.GetStatusRequest) -> pb.GetStatusResponse:
    """Answer GetStatus."""
    return convert.status(recommender.status())


def audience_of(recommender: Recommender, request: pb.AudienceOfRequest) -> pb.AudienceOfResponse:
    """Answer AudienceOf."""
    track_id, k = convert.given_id(request.track_id, "track_id"), convert.list_length(request.k)
    return convert.audience(recommender.audience(track_id, k), recommender.generation)


# Every method that reads: how it is answered, and what it is asked with.
METHODS: dict[str, tuple[Callable[[Recommender, Any], Any], type[Any]]] = {
    "Recommend": (recommend, pb.RecommendRequest),
    "SimilarTracks": (similar_tracks, pb.SimilarTracksRequest),
    "RecommendFromTracks": (recommend_from_tracks, pb.RecommendFromTracksRequest),
    "GetTrack": (get_track, pb.GetTrackRequest),
    "GetStatus": (get_status, pb.GetStatusRequest),
    "AudienceOf": (audience_of, pb.AudienceOfRequest),
}


def record_listens(live: LiveUpdater, request: pb.RecordListensRequest) -> pb.RecordListensResponse:
    """Answer RecordListens; what it says was recorded is on disk."""
    return convert.recorded(live.record(convert.listened(request)))


def delete_track(live: LiveUpdater, request: pb.DeleteTrackRequest) -> pb.DeleteTrackResponse:
    """Answer DeleteTrack."""
    live.delete_track(convert.given_id(request.track_id, "track_id"))
    return pb.DeleteTrackResponse()


def delete_user(live: LiveUpdater, request: pb.DeleteUserRequest) -> pb.DeleteUserResponse:
    """Answer DeleteUser."""
    live.delete_user(convert.given_id(request.user_id, "user_id"))
    return pb.DeleteUserResponse()


# Every method that writes a message's worth; uploads are in recsys.serving.upload_handler.
WRITES: dict[str, tuple[Callable[[LiveUpdater, Any], Any], type[Any]]] = {
    "RecordListens": (record_listens, pb.RecordListensRequest),
    "DeleteTrack": (delete_track, pb.DeleteTrackRequest),
    "DeleteUser": (delete_user, pb.DeleteUserRequest),
}


def _parsed(kind: type[Any], request: bytes) -> Any:
    """Read a request. Only here protobuf's error is the client's fault; elsewhere what is read was stored.

    Raises:
        DataError: the bytes are no such request.
    """
    try:
        return kind.FromString(request)
    except DecodeError as error:
        raise DataError(f"the bytes are no such request: {error}") from error


def _working(name: str) -> Callable[[FastPath, bytes], bytes]:
    """What answers a method on a thread."""
    if name in WRITES:
        write, written_type = WRITES[name]

        def work(answers: FastPath, request: bytes) -> bytes:
            asked, live = _parsed(written_type, request), answers.whole().live
            if live is None:
                raise ArtefactError("this server was started without a live store")
            response: bytes = write(live, asked).SerializeToString()
            return response

        return work
    read, read_type = METHODS[name]

    def look(answers: FastPath, request: bytes) -> bytes:
        asked = _parsed(read_type, request)
        if name == "Recommend":
            answers.refresh(asked.user_id)
        response: bytes = read(answers.recommender, asked).SerializeToString()
        return response

    return look


def _at_once(current: ServingState, name: str) -> Callable[[bytes], RawResponse | None]:
    """Make what access control asks before anything is begun: what is stored is answered here on the loop."""

    quick = QUICK[name]

    def look(request: bytes) -> RawResponse | None:
        try:
            return quick(current.answers, request)
        except (RecsysError, DecodeError):
            return None  # the thread will meet the same, and has words for it

    return look


def _threads(kind: str) -> ThreadPoolExecutor:
    """Threads for reads or for writes; their number bounds how many wait, not how many are let in."""
    return ThreadPoolExecutor(N_THREADS, kind)


def _handler(current: ServingState, name: str, threads: Executor) -> grpc.RpcMethodHandler:
    """Make what gRPC calls for one method that takes longer, on a thread: bytes in and out, an error as a status."""
    work = _working(name)

    async def handle(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        # Cancelled when the client leaves or its deadline passes; a look-up still queued is then dropped.
        context_of_call = copy_context()
        working = asyncio.get_running_loop().run_in_executor(
            threads, context_of_call.run, work, current.answers, request
        )
        outcome: bytes | BaseException = (await asyncio.gather(working, return_exceptions=True))[0]
        if isinstance(outcome, BaseException):
            await context.abort(*_refusal(outcome, name))
            raise outcome  # not reached: abort raises
        return outcome

    return grpc.unary_unary_rpc_method_handler(handle)


def _refusal(error: BaseException, call: str) -> tuple[grpc.StatusCode, str]:
    """Choose status and sentence for an error; what the client must not see goes to the log instead."""
    for kind, status in STATUSES.items():
        if isinstance(error, kind):
            return status, str(error)[:MAX_SENTENCE]
    if isinstance(error, FullDiskError):
        _LOG.error("%s failed: %s", call, error)
        return grpc.StatusCode.UNAVAILABLE, FULL_DISK
    _LOG.error("%s failed", call, exc_info=error)
    if isinstance(error, ArtefactError):  # its sentence names files of this machine
        doing = "written" if call in WRITES else "read"
        return grpc.StatusCode.UNAVAILABLE, f"the store cannot be {doing} right now; try again later"
    return grpc.StatusCode.INTERNAL, "the server failed to answer this call; its log has the details"


async def create_server(
    current: ServingState,
    address: str,
    *,
    health: health_aio.HealthServicer | None = None,
    shared_port: bool = False,
    access: AccessControl | None = None,
    meter: Meter | None = None,
    uploads: TrackUploads | None = None,
) -> tuple[grpc.aio.Server, int]:
    """Make a server that is bound to ``address`` and answers once started; call it on the loop that runs it.

    Args:
        current: the answers of an open store; the caller closes them after the server has stopped.
        address: HOST:PORT, ``[::1]:0`` for IPv6; port 0 takes a free one.
        health: the health service to offer, SERVING from the start; a caller that keeps it can say
            NOT_SERVING before it stops the server. Without it the server has its own.
        shared_port: let other processes of this user listen on the same port.
        access: who may call what, and over what; without it all may, in the clear.
        meter: counts the calls.
        uploads: takes new tracks in; without them UploadTrack is UNIMPLEMENTED.

    Returns:
        The server, not started, and the port that it is bound to.

    Raises:
        ConfigError: the address cannot be bound.
    """
    access = access or AccessControl()
    server = grpc.aio.server(options=[("grpc.so_reuseport", int(shared_port)), *access.options])
    reads, writes = _threads("read"), _threads("write")
    handlers = {name: _handler(current, name, reads if name in METHODS else writes) for name in (*METHODS, *WRITES)}
    handlers["UploadTrack"] = upload_handler(uploads, _refusal)
    handlers = access.guarded(handlers, meter, {name: _at_once(current, name) for name in QUICK})
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    health = health or health_aio.HealthServicer()
    await health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    access.add_health(server, health)
    access.add_reflection(server, [SERVICE, HEALTH, REFLECTION])
    try:
        port = access.listen(server, address)  # this listens: from here on connections are accepted
    except RuntimeError as error:
        raise ConfigError(f"cannot listen on {address}; expected HOST:PORT with a free port") from error
    return server, port
