"""Between the wire and the package's types: request fields in, arguments out; answers in, messages out.

    request -> list_length, space, given_id -> Recommender -> ranked_list, track, status -> response

The wire's own rules live here (an unset k is 20, an unset space is hybrid); whether an id is known is for the
recommender to say.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from recsys.errors import ConfigError
from recsys.eventlog.events import Listened
from recsys.live.service import Recorded
from recsys.ranking.filters import Filters
from recsys.types import DEFAULT_K, MAX_K, SPACES, RankedList, Space
from recsys.v1 import recommender_pb2 as pb

MAX_GIVEN_TRACKS = 1000  # a list of this length says all about a taste, and its look-ups stay in milliseconds
DEFAULT_SPACE: Space = "hybrid"

ListResponse = TypeVar("ListResponse", pb.RecommendResponse, pb.SimilarTracksResponse, pb.RecommendFromTracksResponse)


def list_length(k: int) -> int:
    """Read ``k`` of a request: 0 is unset and means 20.

    Raises:
        ConfigError: k is above 200.
    """
    if k > MAX_K:
        raise ConfigError(f"k is {k}, expected 1 to {MAX_K}; ask for fewer tracks")
    return k or DEFAULT_K


def space(name: str) -> Space:
    """Read ``space`` of a request: empty is unset and means hybrid.

    Raises:
        ConfigError: there is no such space.
    """
    if not name:
        return DEFAULT_SPACE
    for known in SPACES:
        if name == known:
            return known
    raise ConfigError(f"space is {name!r}, expected one of {', '.join(SPACES)}")


def given_id(value: str, field: str) -> str:
    """Read the id in ``field`` of a request.

    Raises:
        ConfigError: it is empty or unset.
    """
    if not value:
        raise ConfigError(f"{field} is empty, expected an id")
    return value


def given_track_ids(values: Sequence[str]) -> list[str]:
    """Read ``track_ids`` of a request, in their order.

    Raises:
        ConfigError: there are none, more than 1000, or an empty one among them.
    """
    if not 1 <= len(values) <= MAX_GIVEN_TRACKS:
        raise ConfigError(f"track_ids holds {len(values)} ids, expected 1 to {MAX_GIVEN_TRACKS}")
    return [given_id(value, f"track_ids[{place}]") for place, value in enumerate(values)]


def plain(request: bytes) -> tuple[bytes, int] | None:
    """Read a RecommendRequest that has nothing but a user of ASCII letters and maybe a length, without a message.

    That is nearly every call, and its bytes are few: 0A n user, then 10 k. Gives the user's id as bytes and k, or None
    where it is anything else, which is then read as a message.
    """
    if len(request) < 3 or request[0] != 0x0A:
        return None
    end = 2 + request[1]
    user, rest = request[2:end], request[end:]
    if not 0 < request[1] < 128 or len(user) != request[1] or not user.isascii():
        return None  # an empty id is none, and LMDB refuses it as a key
    if not rest:
        return user, DEFAULT_K
    if len(rest) == 2 and rest[0] == 0x10 and 0 < rest[1] < 128:
        return user, rest[1]
    return None


def listened(request: pb.RecordListensRequest) -> list[Listened]:
    """Read a batch of events; whether each is good is for the live store to say.

    Raises:
        ConfigError: there are none, or more than 1000.
    """
    if not 1 <= len(request.listens) <= MAX_GIVEN_TRACKS:
        raise ConfigError(f"listens holds {len(request.listens)} events, expected 1 to {MAX_GIVEN_TRACKS}")
    return [
        Listened(
            event.user_id,
            event.track_id,
            at=_text_of(event),
            plays=event.plays or 1.0,
            disliked=event.disliked,
            event_id=event.event_id,
        )
        for event in request.listens
    ]


def _text_of(event: pb.Listen) -> str:
    """The time of an event as ISO 8601, empty where it has none."""
    if not event.HasField("listened_at"):
        return ""
    try:
        return str(event.listened_at.ToDatetime(UTC).isoformat(timespec="milliseconds"))
    except (ValueError, OverflowError):  # seconds beyond the years that there are
        return "no time"


def recorded(found: Recorded) -> pb.RecordListensResponse:
    """Write what became of a batch."""
    refused = [pb.Refused(place=place, reason=reason) for place, reason in found.refused]
    return pb.RecordListensResponse(recorded=found.recorded, repeated=found.repeated, refused=refused)


def is_plain(request: pb.RecommendRequest) -> bool:
    """Whether nothing but a user and a length is asked for."""
    return not (
        request.exclude_track_ids
        or request.genres
        or request.artists
        or request.include_heard
        or request.only_new
        or request.HasField("min_year")
        or request.HasField("max_year")
        or request.HasField("max_per_artist")
        or request.HasField("diversity")
    )


def filters(request: pb.RecommendRequest) -> Filters:
    """Read which tracks may be in a list.

    Raises:
        ConfigError: there are more than 1000 of anything.
    """
    unwanted, genres, artists = (tuple(request.exclude_track_ids), tuple(request.genres), tuple(request.artists))
    for field, given in (("exclude_track_ids", unwanted), ("genres", genres), ("artists", artists)):
        if len(given) > MAX_GIVEN_TRACKS:
            raise ConfigError(f"{field} holds {len(given)}, expected at most {MAX_GIVEN_TRACKS}")
    return Filters(
        exclude_track_ids=unwanted,
        genres=genres,
        artists=artists,
        min_year=request.min_year if request.HasField("min_year") else None,
        max_year=request.max_year if request.HasField("max_year") else None,
        include_heard=request.include_heard,
        only_new=request.only_new,
    )


def variety(request: pb.RecommendRequest) -> tuple[int | None, float | None]:
    """Read ``max_per_artist`` and ``diversity``, None where unset.

    Raises:
        ConfigError: max_per_artist is 0, or diversity not within 0 to 1.
    """
    most = request.max_per_artist if request.HasField("max_per_artist") else None
    diversity = request.diversity if request.HasField("diversity") else None
    if most == 0:
        raise ConfigError("max_per_artist is 0, expected 1 or more; leave it out for what is usual")
    if diversity is not None and not 0 <= diversity <= 1:
        raise ConfigError(f"diversity is {diversity}, expected 0 (by score alone) to 1")
    return most, diversity


def ranked_list(kind: type[ListResponse], answer: RankedList) -> ListResponse:
    """Write a list as a response of that kind, best first; a missing reason is an empty text."""
    lines = [
        pb.RankedTrack(track_id=track.track_id, score=track.score, reason_track_id=track.reason_track_id or "")
        for track in answer.tracks
    ]
    response = kind(tracks=lines, generation=answer.generation, source=answer.source)
    if answer.note:
        response.note = answer.note
    return response


def audience(members: Sequence[tuple[str, float]], generation: str) -> pb.AudienceOfResponse:
    """Write users and their margins."""
    users = [pb.AudienceMember(user_id=user_id, margin=margin) for user_id, margin in members]
    return pb.AudienceOfResponse(users=users, generation=generation)


def track(about: Mapping[str, Any]) -> pb.Track:
    """Write what ``Recommender.track`` tells; what is None or missing stays unset."""
    return pb.Track(
        track_id=about["track_id"],
        title=about.get("title"),
        artist=about.get("artist"),
        album=about.get("album"),
        genres=about.get("genres"),
        year=about.get("year"),
        duration_s=about.get("duration_s"),
        plays=about.get("plays"),
        is_cold=about.get("is_cold"),
    )


def status(about: Mapping[str, Any]) -> pb.GetStatusResponse:
    """Write what ``Recommender.status`` tells; ``created_at`` is ISO 8601 (UTC where no zone is named).

    In-memory recommenders have none: then it stays unset.
    """
    response = pb.GetStatusResponse(
        generation=about["generation"],
        n_tracks=about["n_tracks"],
        n_users=about["n_users"],
        n_listens=about["n_listens"],
        n_uploads=about["n_uploads"],
        spaces=about["spaces"],
    )
    if about["created_at"]:
        response.created_at.FromDatetime(datetime.fromisoformat(about["created_at"]))
    return response
