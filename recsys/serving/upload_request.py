"""What a client says of a track that it uploads, checked: nothing of it is ever used as a path.

pb.NewTrack  ->  read_about  ->  UploadRequest: NewTrack, suffix of the file that keeps the audio, title of last resort
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from recsys.catalogue.scan import AUDIO_SUFFIXES
from recsys.catalogue.tracks import FIRST_YEAR, last_year
from recsys.errors import DataError
from recsys.live.validation import MAX_ID_BYTES
from recsys.uploads.metadata import NewTrack
from recsys.v1 import recommender_pb2 as pb

MAX_TEXT_CHARS = 1000  # of a title, an artist, an album, a genre, a file's name
MAX_GENRES = 100
MAX_LYRICS_CHARS = 200_000  # the longest songs have a tenth of it


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """What was said: ``suffix`` is one of ``AUDIO_SUFFIXES`` or empty, ``name`` the file's name without it."""

    track: NewTrack
    suffix: str
    name: str | None


def read_about(said: pb.NewTrack) -> UploadRequest:
    """Read and check what is said of a track; an empty text is an unknown one.

    Raises:
        DataError: a field is too long or out of range.
    """
    file_name = PurePosixPath(_text(said, "file_name").replace("\\", "/")).name
    suffix = PurePosixPath(file_name).suffix.lower()
    known = suffix in AUDIO_SUFFIXES
    name = file_name[: -len(suffix)] if known else file_name
    track = NewTrack(
        track_id=_id(said.track_id) or None,
        title=_text(said, "title") or None,
        artist=_text(said, "artist") or None,
        album=_text(said, "album") or None,
        genre=_genres(said) or None,
        year=_year(said) if said.HasField("year") else None,
        lyrics=_text(said, "lyrics", MAX_LYRICS_CHARS) or None,
    )
    return UploadRequest(track, suffix if known else "", name.strip() or None)


def _id(track_id: str) -> str:
    if len(track_id.encode()) > MAX_ID_BYTES:
        raise DataError(f"track_id has {len(track_id.encode()):,} bytes, expected {MAX_ID_BYTES} or fewer")
    if track_id != track_id.strip() or any(ord(character) < ord(" ") for character in track_id):
        raise DataError("track_id begins or ends with a space, or has control characters in it; leave them out")
    return track_id


def _text(said: Any, field: str, most: int = MAX_TEXT_CHARS) -> str:
    return _checked(getattr(said, field), field, most)


def _checked(text: str, field: str, most: int) -> str:
    if len(text) > most:
        raise DataError(f"{field} has {len(text):,} characters, expected {most:,} or fewer")
    return text.replace("\0", " ").strip()


def _genres(said: pb.NewTrack) -> str:
    if len(said.genres) > MAX_GENRES:
        raise DataError(f"genres holds {len(said.genres)} names, expected {MAX_GENRES} or fewer")
    return ";".join(_checked(genre, "a genre", MAX_TEXT_CHARS) for genre in said.genres)


def _year(said: pb.NewTrack) -> int:
    year = int(said.year)
    if not FIRST_YEAR <= year <= last_year():
        raise DataError(f"year is {year}, expected {FIRST_YEAR} to {last_year()}; leave it unset where it is unknown")
    return year
