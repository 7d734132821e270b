"""A track on its way into the live store: what its uploader says, joined with what its file says.

    NewTrack, tags inside the file, content hash, length  ->  upload_of  ->  Upload, as the log keeps it

No audio is touched here, so the server's workers can use it without torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from recsys.catalogue.tracks import FIRST_YEAR, last_year
from recsys.eventlog.events import Upload


@dataclass(frozen=True, slots=True)
class NewTrack:
    """What the uploader says of a track; None is unknown, and then the tags inside the file are believed."""

    track_id: str | None = None
    title: str | None = None
    artist: str | None = None
    album: str | None = None
    genre: str | None = None  # several with ;
    year: int | None = None
    lyrics: str | None = None


def ignored_words(about: NewTrack, track_id: str) -> tuple[str, ...]:
    """Say what was told of a track whose audio was here already, as ``track_id``: nothing of it is used."""
    names = ("track_id", "title", "artist", "album", "genre", "year", "lyrics")
    given = [name for name in names if getattr(about, name) not in (None, "")]
    if about.track_id == track_id:
        given.remove("track_id")
    if not given:
        return ()
    told = ", ".join(given).replace("track_id", f"track_id {about.track_id!r}")
    return (f"this audio was here already, as {track_id!r}: what was said of it ({told}) was ignored",)


def upload_of(
    about: NewTrack,
    inside: Mapping[str, str],
    content_hash: str,
    duration_s: float | None,
    suffix: str = "",
    name: str | None = None,
) -> Upload:
    """Join what is known of an upload.

    Args:
        about: what its uploader says, which goes first.
        inside: what the tags inside the file say.
        content_hash: of its bytes.
        duration_s: of the whole recording.
        suffix: with its dot, of the file that keeps the audio.
        name: the title where nobody says one.

    Returns:
        The upload, its id empty where none was given.
    """
    genre = about.genre if about.genre is not None else inside.get("genre")
    tagged = int(inside.get("year", 0))
    year = tagged if about.year is None and FIRST_YEAR <= tagged <= last_year() else about.year
    return Upload(
        track_id=about.track_id or "",  # made from the content where none is given, once it is known which are taken
        content_hash=content_hash,
        file=f"{content_hash}{suffix}",
        title=about.title or inside.get("title") or name,
        artist=about.artist or inside.get("artist"),
        album=about.album or inside.get("album"),
        genres=[name.strip() for name in (genre or "").split(";") if name.strip()],
        year=year,
        lyrics=about.lyrics or inside.get("lyrics"),
        duration_s=duration_s,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
