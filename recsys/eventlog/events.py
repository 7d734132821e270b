"""What may happen after a generation was built, each as one entry of the live log.

    Upload | Listened | TrackDeleted | UserDeleted  ->  encoded  ->  JSON of the log  ->  decoded  ->  the same

Entries are sealed with a format number and a checksum; those of before are JSON alone, and those written before there
were other kinds are uploads and name no kind. An entry of a deleted user is overwritten by one that only says that
something was there, so that numbers stay.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from recsys.errors import ArtefactError, DamagedError, DataError
from recsys.store.sealed import sealed, unsealed

FORMAT = 2  # of an entry
Clock: TypeAlias = Callable[[], float]  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Upload:
    """One uploaded track: ``file`` is its audio's name in ``uploads/``, ``at`` an ISO 8601 time."""

    track_id: str
    content_hash: str
    file: str
    title: str | None
    artist: str | None
    album: str | None
    genres: list[str]
    year: int | None
    lyrics: str | None
    duration_s: float | None
    at: str

    @classmethod
    def lost(cls, seq: int) -> "Upload":
        """Stand for one whose entry is damaged: it has a place, as every upload has one for good, and is not shown."""
        return cls(f"(damaged entry {seq})", "", "", None, None, None, [], None, None, None, "")

    @property
    def is_lost(self) -> bool:
        """Whether this stands for a damaged entry."""
        return not self.file


@dataclass(frozen=True, slots=True)
class Listened:
    """A user heard a track, or said that they dislike it; ``at`` is an ISO 8601 time, by default that of arrival.

    ``event_id`` names the event, so that the same one counts once; events without a name all count.
    """

    user_id: str
    track_id: str
    at: str = ""
    plays: float = 1.0
    disliked: bool = False
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class TrackDeleted:
    """A track is to be in no list any more."""

    track_id: str
    at: str


@dataclass(frozen=True, slots=True)
class UserDeleted:
    """What was known of a user is to be forgotten; what they hear afterwards counts again."""

    user_id: str
    at: str


@dataclass(frozen=True, slots=True)
class Removed:
    """What is left of an event of a user who was deleted."""


Event = Upload | Listened | TrackDeleted | UserDeleted | Removed
KINDS: dict[str, type[Any]] = {
    "upload": Upload,
    "listen": Listened,
    "delete_track": TrackDeleted,
    "delete_user": UserDeleted,
    "removed": Removed,
}
_NAMES = {kind: name for name, kind in KINDS.items()}


class KnownAudioError(DataError):
    """This audio is the track ``track_id`` already."""

    def __init__(self, track_id: str) -> None:
        super().__init__(f"this audio is the track {track_id!r} already")
        self.track_id = track_id


class GenerationMovedError(ArtefactError):
    """Another generation became current meanwhile; embed again with its models and try again."""


def encoded(event: Event) -> bytes:
    """Write an event as the log holds it."""
    return sealed(FORMAT, json.dumps({"kind": _NAMES[type(event)], **asdict(event)}).encode())


def decoded(line: bytes) -> Event:
    """Read an entry of the log.

    Raises:
        DamagedError: it is not as it was written, as far as an entry of format 1 says.
        NewerError: it is of a later format.
    """
    if not line.startswith(b"{"):
        line = unsealed(line, FORMAT, "an entry of the live log")
    try:
        fields = json.loads(line)
        event: Event = KINDS[fields.pop("kind", "upload")](**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"the live store has an entry that cannot be read ({error}); restore live.lmdb") from error
    return event
