"""A thin client: methods with Python's types over the gRPC interface, over one connection or several.

    with Client("music.example:443", token="...", ca=Path("ca.pem")) as client:
        client.recommend("user 7", 20, genres=["jazz"])

One connection reaches one worker process of a server, whatever is sent over it. A client that asks much opens several
(``connections``) and takes turns; a load balancer that knows gRPC does the same.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import grpc

from recsys.errors import ConfigError, NotFoundError, RefusedError
from recsys.types import RankedList, RankedTrack, Space
from recsys.util.pem import read_authority, read_pair
from recsys.v1 import recommender_pb2 as pb
from recsys.v1.recommender_pb2_grpc import RecommenderStub

CHUNK = 1 << 18  # bytes of an upload at a time
DEADLINE_S = 10.0
UPLOAD_S = 300.0

SEVERAL = ("track_ids", "exclude_track_ids", "genres", "artists")  # fields that are lists

Message = TypeVar("Message")


@dataclass(frozen=True, slots=True)
class Listen:
    """Somebody heard a track, or dislikes it; ``event_id`` makes a repeated call harmless.

    ``listened_at`` is UTC where it names no zone, and the time of arrival where there is none.
    """

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
            ConfigError: a number is out of range, a certificate comes without its key, a file cannot be read or is
                no PEM, or the token has other than visible ASCII characters.
        """
        if connections < 1:
            raise ConfigError(f"connections is {connections}, expected 1 or more")
        if not deadline_s > 0:
            raise ConfigError(f"deadline_s is {deadline_s}, expected seconds above 0")
        if token is not None and (not token or not all("!" <= character <= "~" for character in token)):
            raise ConfigError(
                "the token is empty or has a space, a line's end or the like in it; give it as it was shown"
            )
        credentials = _credentials(ca, certificate, key)
        # without this option channels to one address would share one connection
        options = [("grpc.use_local_subchannel_pool", 1)]
        if credentials is None:
            self._channels = [grpc.insecure_channel(address, options) for _ in range(connections)]
        else:
            self._channels = [grpc.secure_channel(address, credentials, options) for _ in range(connections)]
        self._stubs = itertools.cycle([_stub(channel) for channel in self._channels])
        self._metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        self._deadline_s, self._closed = deadline_s, False

    def __enter__(self) -> "Client":
        """The client itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._closed = True
        for channel in self._channels:
            channel.close()

    # ---- lists -------------------------------------------------------------------------------------------------------

    def recommend(self, user_id: str, k: int = 20, **filters: Any) -> RankedList:
        """Rank tracks for a user; ``filters`` are further fields of RecommendRequest, such as ``genres=["jazz"]``."""
        return _ranked(self._call("Recommend", _message(pb.RecommendRequest, user_id=user_id, k=k, **filters)))

    def similar(self, track_id: str, k: int = 20, space: Space = "hybrid") -> RankedList:
        """Rank the tracks that are most like one."""
        request = _message(pb.SimilarTracksRequest, track_id=track_id, k=k, space=space)
        return _ranked(self._call("SimilarTracks", request))

    def recommend_from_tracks(self, track_ids: Sequence[str], k: int = 20, ordered: bool = False) -> RankedList:
        """Rank tracks for somebody who likes these; ``ordered``: who played them in this order, the last just now."""
        request = _message(pb.RecommendFromTracksRequest, track_ids=track_ids, k=k, ordered=ordered)
        return _ranked(self._call("RecommendFromTracks", request))

    def audience(self, track_id: str, k: int = 20) -> list[tuple[str, float]]:
        """Name the users who would like a track most, with their margins."""
        found = self._call("AudienceOf", _message(pb.AudienceOfRequest, track_id=track_id, k=k))
        return [(member.user_id, member.margin) for member in found.users]

    def track(self, track_id: str) -> dict[str, Any]:
        """Tell what is known of a track; what is not known is missing."""
        found = self._call("GetTrack", _message(pb.GetTrackRequest, track_id=track_id)).track
        known = {field.name: value for field, value in found.ListFields()}
        return {name: list(value) if name == "genres" else value for name, value in known.items()}

    def status(self) -> dict[str, Any]:
        """Tell which generation is served, and how much is in it; ``created_at`` is ISO 8601, empty where unknown."""
        found = self._call("GetStatus", pb.GetStatusRequest())
        known = found.HasField("created_at")
        created_at = found.created_at.ToDatetime(UTC).isoformat(timespec="seconds") if known else ""
        names = ("n_tracks", "n_users", "n_listens", "n_uploads")
        counts = {name: getattr(found, name) for name in names}
        return {"generation": found.generation, "created_at": created_at, **counts, "spaces": list(found.spaces)}

    # ---- writes ------------------------------------------------------------------------------------------------------

    def upload(self, audio: Path, **about: Any) -> Uploaded:
        """Send a track's audio; ``about`` are fields of NewTrack, such as ``artist="X"``, ``genres=["jazz"]``."""
        known = _message(pb.NewTrack, **{"file_name": Path(audio).name, **about})
        try:  # opened before the call: what fails while gRPC asks for the next piece, it tells nobody
            with Path(audio).open("rb") as stream:
                found = self._call("UploadTrack", _pieces(known, stream), UPLOAD_S)
        except OSError as error:
            raise ConfigError(f"the audio file {audio} cannot be read: {error.strerror}") from error
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
        self._call("DeleteTrack", _message(pb.DeleteTrackRequest, track_id=track_id))

    def delete_user(self, user_id: str) -> None:
        """Take a user, and all that was recorded of them, out of everything."""
        self._call("DeleteUser", _message(pb.DeleteUserRequest, user_id=user_id))

    def _call(self, method: str, request: Any, deadline_s: float | None = None) -> Any:
        """Make one call.

        Raises:
            NotFoundError: the server says NOT_FOUND.
            RefusedError: it refuses for another reason, or is not there (UNAVAILABLE); ``status`` names it.
            ConfigError: an argument cannot be sent, or the client was closed.
        """
        if self._closed:
            raise ConfigError("this client was closed; make another one")
        stub = next(self._stubs)
        try:
            return getattr(stub, method)(request, timeout=deadline_s or self._deadline_s, metadata=self._metadata)
        except grpc.RpcError as error:
            status, sentence = error.code(), error.details() or "no reason was given"
            if status is grpc.StatusCode.NOT_FOUND:
                raise NotFoundError(sentence) from error
            raise RefusedError(f"{sentence} ({status.name})", status.name) from error


def _credentials(ca: Path | None, certificate: Path | None, key: Path | None) -> grpc.ChannelCredentials | None:
    """What calls are encrypted with; None where nothing is given, and they are not."""
    own = {"certificate": certificate, "key": key}
    given = [name for name, file in {**own, "ca": ca}.items() if file is not None]
    if any(own.values()) and len(given) < 3:
        raise ConfigError(
            f"only {' and '.join(given)} came, and a client's own certificate goes with its key and with the ca of "
            "the server; give certificate, key and ca"
        )
    if ca is None:
        return None
    authority = read_authority(ca)
    if certificate is None or key is None:
        return grpc.ssl_channel_credentials(authority)
    chain, secret = read_pair(certificate, key)
    return grpc.ssl_channel_credentials(authority, secret, chain)


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
    if listen.plays == 0 and not listen.disliked:  # on the wire 0 is unset, and unset is one play
        raise ConfigError(f"plays of {listen.track_id!r} is 0, expected above 0; leave the event out")
    event = _message(
        pb.Listen,
        user_id=listen.user_id,
        track_id=listen.track_id,
        plays=listen.plays,
        disliked=listen.disliked,
        event_id=listen.event_id,
    )
    if listen.listened_at is not None:
        event.listened_at.FromDatetime(listen.listened_at)
    return event


def _message(kind: type[Message], **fields: Any) -> Message:
    """Make a message of fields that a caller gave.

    Raises:
        ConfigError: there is no such field, a value does not fit, or one text stands where several belong.
    """
    for name, value in fields.items():
        if isinstance(value, str) and name in SEVERAL:  # it would be taken letter by letter
            raise ConfigError(f"{name} is the text {value!r}, expected a list of texts")
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:
        names = ", ".join(field.name for field in kind.DESCRIPTOR.fields)  # type: ignore[attr-defined]
        raise ConfigError(f"{error}; {kind.__name__} has {names}") from error


def _pieces(known: pb.NewTrack, stream: BinaryIO) -> Iterator[pb.UploadTrackRequest]:
    yield pb.UploadTrackRequest(about=known)
    try:
        while chunk := stream.read(CHUNK):
            yield pb.UploadTrackRequest(chunk=chunk)
    except ValueError:  # closed: the call has ended before the file, and gRPC's thread has not noticed yet
        return
