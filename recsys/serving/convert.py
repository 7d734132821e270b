"""Between the wire and the package's types: request fields in, arguments out; answers in, messages out.

    request -> list_length, space, given_id -> Recommender -> ranked_list, track, status -> response

The wire's own rules live here (an unset k is 20, an unset space is hybrid); whether an id is known is for the
recommender to say.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from recsys.errors import ConfigError
from recsys.types import SPACES, RankedList, Space
from recsys.v1 import recommender_pb2 as pb

DEFAULT_K = 20
MAX_K = 200  # lists are stored 200 deep
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


def ranked_list(kind: type[ListResponse], answer: RankedList) -> ListResponse:
    """Write a list as a response of that kind, best first; a missing reason is an empty text."""
    return kind(
        tracks=[
            pb.RankedTrack(track_id=track.track_id, score=track.score, reason_track_id=track.reason_track_id or "")
            for track in answer.tracks
        ],
        generation=answer.generation,
        source=answer.source,
    )


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
