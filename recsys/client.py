"""A thin client: methods with Python's types over the gRPC interface, over one connection or several.

    with Client("music.example:443", token="...", ca=Path("ca.pem")) as client:
        client.recommend("user 7", 20, genres=["jazz"])

One connection reaches one worker process of a server, whatever is sent over it. A client that asks much opens several
(``connections``) and takes turns; a load balancer that knows gRPC does the same.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import grpc

from recsys.errors import ConfigError, NotFoundError, RefusedError
from recsys.types import RankedList, RankedTrack, Space
from recsys.v1 import recommender_pb2 as pb
from recsys.v1.recommender_pb2_grpc import RecommenderStub

CHUNK = 1 << 18  # bytes of an upload at a time
DEADLINE_S = 10.0
UPLOAD_S = 300.0

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Listen:
    """Somebody heard a track, or dislikes it; ``event_id`` makes a repeated call harmless."""

    user_id: str
    track_id: str
    listened_at: datetime | None = None
    plays: float = 1.0
    disliked: bool = False
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What became of an upload; ``known`` says that this audio was there before, as ``track_id``."""

    track_id: str
    known: bool
    has_sound: bool
    neighbours: tuple[tuple[str, float], ...]
    users_reached: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a batch: how many were taken in or known before, and place and reason of those refused."""

    recorded: int
    repeated: int
    refused: tuple[tuple[int, str], ...]


class Client:
    """Calls of one server; may be shared by threads. Every method raises what ``_call`` says."""

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        connections: int = 1,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Connect when the first call is made.

        Args:
            address: HOST:PORT.
            token: sent with every call.
            ca: PEM of the authority that signed the server's certificate; with it calls are encrypted.
            certificate: PEM of this client's own certificate, where the server asks for one; with ``key``.
            key: PEM of its key.
            connections: how many to open; each reaches one worker of the server.
            deadline_s: seconds that a call may take; an upload may take 300.

        Raises:
            ConfigError: ``connections`` is below 1, or a certificate comes without its key.
        """
        if connections < 1:
            raise ConfigError(f"connections is {connections}, expected 1 or more")
        if (certificate is None) != (key is None) or (certificate is not None and ca is None):
            raise ConfigError("a client's certificate needs its key, and ca beside them; give all three")
        # without this option channels to one address would share one connection
        options = [("grpc.use_local_subchannel_pool", 1)]
        if ca is None:
            self._channels = [grpc.insecure_channel(address, options) for _ in range(connections)]
        else:
            own = (None, None) if key is None or certificate is None else (key.read_bytes(), certificate.read_bytes())
            credentials = grpc.ssl_channel_credentials(ca.read_bytes(), *own)
            self._channels = [grpc.secure_channel(address, credentials, options) for _ in range(connections)]
        self._stubs = itertools.cycle([_stub(channel) for channel in self._channels])
        self._metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        self._deadline_s = deadline_s

    def __enter__(self) -> "Client":
        """Give itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            channel.close()

    # ---- lists -------------------------------------------------------------------------------------------------------

    def recommend(self, user_id: str, k: int = 20, **filters: Any) -> RankedList:
        """Rank tracks for a user; ``filters`` are further fields of RecommendRequest, such as ``genres=["jazz"]``."""
        try:
            request = pb.RecommendRequest(user_id=user_id, k=k, **filters)
        except (TypeError, ValueError) as error:
            names = [field.name for field in pb.RecommendRequest.DESCRIPTOR.fields][2:]
            raise ConfigError(f"{error}; filters are {', '.join(names)}") from error
        return _ranked(self._call("Recommend", request))

    def similar(self, track_id: str, k: int = 20, space: Space = "hybrid") -> RankedList:
        """Rank the tracks that are most like one."""
        return _ranked(self._call("SimilarTracks", pb.SimilarTracksRequest(track_id=track_id, k=k, space=space)))

    def recommend_from_tracks(self, track_ids: Sequence[str], k: int = 20) -> RankedList:
        """Rank tracks for somebody who likes these."""
        request = pb.RecommendFromTracksRequest(track_ids=track_ids, k=k)
        return _ranked(self._call("RecommendFromTracks", request))

    def audience(self, track_id: str, k: int = 20) -> list[tuple[str, float]]:
        """Name the users who would like a track most, with their margins."""
        found = self._call("AudienceOf", pb.AudienceOfRequest(track_id=track_id, k=k))
        return [(member.user_id, member.margin) for member in found.users]

    def track(self, track_id: str) -> dict[str, Any]:
        """Tell what is known of a track; what is not known is missing."""
        found = self._call("GetTrack", pb.GetTrackRequest(track_id=track_id)).track
        known = {field.name: value for field, value in found.ListFields()}
        return {name: list(value) if name == "genres" else value for name, value in known.items()}

    def status(self) -> dict[str, Any]:
        """Tell which generation is served, and how much is in it."""
        found = self._call("GetStatus", pb.GetStatusRequest())
        names = ("generation", "n_tracks", "n_users", "n_listens", "n_uploads")
        return {**{name: getattr(found, name) for name in names}, "spaces": list(found.spaces)}

    # ---- writes ------------------------------------------------------------------------------------------------------

    def upload(self, audio: Path, **about: Any) -> Uploaded:
        """Send a track's audio; ``about`` are fields of NewTrack, such as ``artist="X"``, ``genres=["jazz"]``."""
        try:
            known = pb.NewTrack(file_name=audio.name, **about)
        except (TypeError, ValueError) as error:
            names = [field.name for field in pb.NewTrack.DESCRIPTOR.fields]
            raise ConfigError(f"{error}; what can be told of a track is {', '.join(names)}") from error

        def pieces() -> Iterator[pb.UploadTrackRequest]:
            yield pb.UploadTrackRequest(about=known)
            with audio.open("rb") as stream:
                while chunk := stream.read(CHUNK):
                    yield pb.UploadTrackRequest(chunk=chunk)

        if not audio.is_file():
            raise ConfigError(f"there is no audio file {audio}")
        found = self._call("UploadTrack", pieces(), UPLOAD_S)
        neighbours = tuple((track.track_id, track.score) for track in found.neighbours)
        return Uploaded(
            found.track_id, found.known, found.has_sound, neighbours, found.users_reached, tuple(found.notes)
        )

    def record(self, listens: Sequence[Listen]) -> Recorded:
        """Send what was heard, at most 1000 events at a time."""
        request = pb.RecordListensRequest(listens=[_event(listen) for listen in listens])
        found = self._call("RecordListens", request)
        return Recorded(found.recorded, found.repeated, tuple((one.place, one.reason) for one in found.refused))

    def delete_track(self, track_id: str) -> None:
        """Take a track out of every list and every later build."""
        self._call("DeleteTrack", pb.DeleteTrackRequest(track_id=track_id))

    def delete_user(self, user_id: str) -> None:
        """Take a user, and all that was recorded of them, out of everything."""
        self._call("DeleteUser", pb.DeleteUserRequest(user_id=user_id))

    def _call(self, method: str, request: Any, deadline_s: float | None = None) -> Any:
        """Make one call.

        Raises:
            NotFoundError: the server says NOT_FOUND.
            RefusedError: it refuses for another reason; ``status`` names it.
        """
        stub = next(self._stubs)
        try:
            return getattr(stub, method)(request, timeout=deadline_s or self._deadline_s, metadata=self._metadata)
        except grpc.RpcError as error:
            status, sentence = error.code(), error.details() or "no reason was given"
            if status is grpc.StatusCode.NOT_FOUND:
                raise NotFoundError(sentence) from error
            raise RefusedError(f"{sentence} ({status.name})", status.name) from error


def _stub(channel: grpc.Channel) -> Any:
    stub: Any = RecommenderStub
    return stub(channel)


def _ranked(answer: Any) -> RankedList:
    tracks = [
        RankedTrack(line.track_id, line.score, rank, line.reason_track_id or None, {})
        for rank, line in enumerate(answer.tracks, start=1)
    ]
    return RankedList(tracks, answer.source, answer.generation, getattr(answer, "note", ""))


def _event(listen: Listen) -> pb.Listen:
    event = pb.Listen(
        user_id=listen.user_id,
        track_id=listen.track_id,
        plays=listen.plays,
        disliked=listen.disliked,
        event_id=listen.event_id,
    )
    if listen.listened_at is not None:
        event.listened_at.FromDatetime(listen.listened_at)
    return event
