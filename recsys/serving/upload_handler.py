"""UploadTrack: what is known of a track, then its bytes; at the end it stands among all others, durably.

    about, chunk, chunk, ...  ->  a hidden file in store/uploads  ->  embedding process  ->  live store  ->  response

A worker never looks into the bytes: they are written down as they come, and the embedding process makes vectors of
the file. A stream that is refused, that breaks off or that is cancelled leaves nothing behind. What is acknowledged is
on disk, file and log. Which generation answers, and its live store, may change between two uploads and in the middle
of one: then the track is embedded again with the models of the new one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError

from recsys.errors import ArtefactError, DataError, FullDiskError, LimitError, NotFoundError
from recsys.eventlog.events import GenerationMovedError, KnownAudioError
from recsys.serving.fast_path import ServingState
from recsys.serving.upload_request import UploadRequest, read_about
from recsys.store.generation import Store, disk_errors
from recsys.types import RankedTrack
from recsys.uploads.embed_client import INSTALL
from recsys.uploads.metadata import Embedded, NewTrack, TakesTracks, ignored_words, take_in
from recsys.uploads.settings import UploadSettings
from recsys.uploads.spool import Copy
from recsys.v1 import recommender_pb2 as pb

NOT_HERE = f"this server was installed without what embeds audio; install it with {INSTALL}"
NOT_NOW = "the track cannot be taken in right now; try again later"
_TRIES = 3  # with generations that come and go
_MOVE_S = 10.0  # in which a worker has noticed a new generation
_LOOK_S = 0.05

T = TypeVar("T")
Refusal = tuple[grpc.StatusCode, str]


class UploadTarget(TakesTracks, Protocol):
    """What an upload needs of the live store (``recsys.live.service``); called from threads."""

    def track_of_audio(self, content_hash: str) -> str | None:
        """Find the track with this audio, uploaded or built."""


class Asked(Protocol):
    """What makes vectors of a file: ``recsys.uploads.embed_client.Embedder``."""

    async def embed(self, path: Path, about: NewTrack, generation: str) -> Embedded:
        """Embed a file with the models of a generation."""


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """What a worker answers with now; ``similar`` gives so many neighbours, ``has_sound`` whether a track was heard."""

    generation: str
    live: UploadTarget
    similar: Callable[[str, int], Sequence[RankedTrack]]
    has_sound: Callable[[str], bool]


def serving_now(current: ServingState) -> Serving:
    """Say what a worker answers with at this moment.

    Raises:
        ArtefactError: it was started without a live store.
    """
    answers = current.answers.whole()
    if answers.live is None:
        raise ArtefactError("this server was started without a live store")

    def similar(track_id: str, k: int) -> Sequence[RankedTrack]:
        return answers.recommender.similar(track_id, k, describe=False).tracks

    def has_sound(track_id: str) -> bool:
        return answers.recommender.has_vector(track_id, "sound")

    return Serving(answers.generation, answers.live, similar, has_sound)


class TrackUploads:
    """Takes uploads in.

    Args:
        store: whose ``uploads`` folder keeps the audio.
        embedder: makes vectors of a file.
        now: gives what the worker answers with; asked anew for each step of an upload.
        settings: limits.
    """

    def __init__(self, store: Store, embedder: Asked, now: Callable[[], Serving], settings: UploadSettings) -> None:
        self._store, self._embedder, self._now, self._settings = store, embedder, now, settings

    async def take(self, pieces: AsyncIterator[bytes]) -> pb.UploadTrackResponse:
        """Take one stream of serialised ``UploadTrackRequest``.

        Raises:
            DataError: it does not begin with ``about``, a field is out of range, or the audio cannot be used.
            TakenError: the id belongs to another track.
            LimitError: it is too large or too slow; how many may come at once is for access control to say.
            ArtefactError: the embedding process is gone, or the store cannot be written.
        """
        about = read_about((await self._first(pieces)).about)
        with Copy.begun(self._store, about.suffix, self._settings.max_bytes) as copy:
            while (piece := await self._next(pieces)) is not None:
                if piece.WhichOneof("piece") != "chunk":
                    raise DataError("a message came that is no chunk; send `about` once, then only chunks")
                await copy.take(piece.chunk)
            await copy.flush()
            return await self._placed(copy, about)

    async def _first(self, pieces: AsyncIterator[bytes]) -> pb.UploadTrackRequest:
        piece = await self._next(pieces)
        if piece is None or piece.WhichOneof("piece") != "about":
            raise DataError("the first message has no `about`; send what is known of the track first, then its chunks")
        return piece

    async def _next(self, pieces: AsyncIterator[bytes]) -> pb.UploadTrackRequest | None:
        idle_s = self._settings.idle_s
        try:
            async with asyncio.timeout(idle_s):
                piece = await anext(pieces, None)
        except TimeoutError as error:
            raise LimitError(f"nothing came for {idle_s:g} s; send the whole file anew") from error
        try:
            return None if piece is None else pb.UploadTrackRequest.FromString(piece)
        except DecodeError as error:
            raise DataError(f"the bytes are no such request: {error}") from error

    async def _placed(self, copy: Copy, about: UploadRequest) -> pb.UploadTrackResponse:
        """Embed what has come and put it into the live store."""
        for _ in range(_TRIES):
            serving = self._now()
            known = await asyncio.to_thread(serving.live.track_of_audio, copy.content_hash)
            if known is not None:
                return await self._known(serving, known, about)
            embedding = self._embedder.embed(copy.path, about.track, serving.generation)
            embedded, _ = await _both(embedding, asyncio.to_thread(copy.sync))
            if embedded.content_hash != copy.content_hash:
                raise ArtefactError(f"{copy.path} is not what was written")
            try:
                added = asyncio.to_thread(_take_in, serving.live, about, embedded, copy.path)
                track_id, reached = await _to_its_end(added)
            except KnownAudioError as error:  # sent twice at once
                return await self._known(serving, error.track_id, about)
            except GenerationMovedError:
                await self._moved(serving.generation)
                continue
            response = await self._described(serving, track_id)
            response.has_sound, response.users_reached = embedded.has_sound, reached
            response.notes.extend(embedded.notes)
            return response
        raise ArtefactError(f"generations changed {_TRIES} times during one upload; try again")

    async def _moved(self, generation: str) -> None:
        """Wait until this worker has noticed that a generation is not the current one any more."""
        for _ in range(round(_MOVE_S / _LOOK_S)):
            if self._now().generation != generation:
                return
            await asyncio.sleep(_LOOK_S)
        raise ArtefactError(f"generation {generation} is not the current one, and no other is served yet; try again")

    async def _known(self, serving: Serving, track_id: str, about: UploadRequest) -> pb.UploadTrackResponse:
        """Answer for audio that was there before."""
        response = await self._described(serving, track_id)
        response.known = True
        response.notes.extend(ignored_words(about.track, track_id))
        with suppress(NotFoundError):  # it was deleted a moment ago
            response.has_sound = await asyncio.to_thread(serving.has_sound, track_id)
        return response

    async def _described(self, serving: Serving, track_id: str) -> pb.UploadTrackResponse:
        return pb.UploadTrackResponse(
            track_id=track_id,
            generation=serving.generation,
            neighbours=await asyncio.to_thread(self._neighbours, serving, track_id),
        )

    def _neighbours(self, serving: Serving, track_id: str) -> list[pb.RankedTrack]:
        try:
            found = serving.similar(track_id, self._settings.n_neighbours)
        except NotFoundError:  # nothing at all is known of it, or it was deleted: it is like nothing
            return []
        return [pb.RankedTrack(track_id=track.track_id, score=track.score) for track in found]


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Wait for work that must not be left half done: a cancelled call ends only after it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _both(embedding: Awaitable[Embedded], syncing: Awaitable[None]) -> tuple[Embedded, None]:
    """Wait for both, whichever fails."""
    embedded, synced = await asyncio.gather(embedding, syncing, return_exceptions=True)
    for outcome in (embedded, synced):
        if isinstance(outcome, BaseException):
            raise outcome
    assert isinstance(embedded, Embedded)
    return embedded, None


def _take_in(live: UploadTarget, about: UploadRequest, embedded: Embedded, audio: Path) -> tuple[str, int]:
    with disk_errors("writing the upload"):
        return take_in(live, about.track, embedded, audio, about.suffix, about.name)


def upload_handler(
    uploads: TrackUploads | None, refusal: Callable[[BaseException, str], Refusal]
) -> grpc.RpcMethodHandler:
    """Make what gRPC calls for UploadTrack; without uploads it is UNIMPLEMENTED, and says what to install.

    Args:
        uploads: takes them in; None where the extra ``build`` is not installed.
        refusal: chooses status and sentence for an error.
    """

    async def handle(requests: Any, context: grpc.aio.ServicerContext) -> bytes:
        if uploads is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, NOT_HERE)
            raise NotImplementedError  # not reached: abort raises
        async with aclosing(aiter(requests)) as pieces:  # what is refused early is not read to its end
            outcome = (await asyncio.gather(uploads.take(pieces), return_exceptions=True))[0]
        if isinstance(outcome, BaseException):
            status, sentence = refusal(outcome, "UploadTrack")
            is_ours = isinstance(outcome, ArtefactError) and not isinstance(outcome, FullDiskError)
            await context.abort(status, NOT_NOW if is_ours else sentence)
            raise outcome  # not reached: abort raises
        response: bytes = outcome.SerializeToString()
        return response

    return grpc.stream_unary_rpc_method_handler(handle)
