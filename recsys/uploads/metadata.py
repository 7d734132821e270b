"""A track on its way into the live store: what its uploader says, joined with what its file says.

    NewTrack, tags inside the file, content hash, length  ->  upload_of  ->  Upload, as the log keeps it
    NewTrack, Embedded                                    ->  take_in    ->  the track's id, durably in the live store

The command line and the server take tracks in by the same steps: ``recsys.uploads.vectors.embed_upload`` listens to the
file, ``take_in`` writes it. No audio is touched here, so the server's workers can use it without torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from recsys.catalogue.tracks import FIRST_YEAR, last_year
from recsys.eventlog.events import Upload
from recsys.types import Float32


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


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """A file as it was heard: ``vectors`` (d,) by name, ``inside`` the tags in it, ``notes`` on what was odd."""

    content_hash: str
    duration_s: float
    vectors: dict[str, Float32]
    notes: tuple[str, ...]
    inside: Mapping[str, str]

    @property
    def has_sound(self) -> bool:
        """Whether it has a vector of its sound."""
        return "sound" in self.vectors


class TakesTracks(Protocol):
    """What taking a track in needs of the live store (``recsys.live.service``)."""

    def add(self, upload: Upload, vectors: dict[str, Float32], audio: Path) -> int:
        """Take in a track and move its audio to its place, durably; returns how many lists it came into."""

    def free_id(self, wanted: str) -> str:
        """An id that no track has or had: the wanted one, or that with a number."""


def take_in(
    live: TakesTracks, about: NewTrack, embedded: Embedded, audio: Path, suffix: str, name: str | None
) -> tuple[str, int]:
    """Write a track that was embedded into the live store.

    Args:
        live: of the generation that it was embedded with.
        about: what its uploader says of it.
        embedded: what was heard.
        audio: the file, durably written, which moves to its place.
        suffix: with its dot, of the file that keeps the audio.
        name: the title where neither uploader nor tags say one.

    Returns:
        The track's id, made from the content where none was given, and how many lists it came into.

    Raises:
        GenerationMovedError: another generation is current; nothing was written.
        KnownAudioError: this audio is another track.
        TakenError: the id belongs to another track.
        ArtefactError: it cannot be written.
    """
    upload = upload_of(about, embedded.inside, embedded.content_hash, embedded.duration_s, suffix, name)
    upload = replace(upload, track_id=upload.track_id or live.free_id(f"upload-{upload.content_hash[:12]}"))
    return upload.track_id, live.add(upload, embedded.vectors, audio)


def ignored_words(about: NewTrack, track_id: str) -> tuple[str, ...]:
    """Say what was told of a track whose audio was here already, as ``track_id``: nothing of it is used."""
    names = ("track_id", "title", "artist", "album", "genre", "year", "lyrics")
    given = [name for name in names if getattr(about, name) not in (None, "")]
    if about.track_id == track_id:
        given.remove("track_id")
    if not given:
        return ()
    words = ", ".join(given).replace("track_id", f"track_id {about.track_id!r}")
    return (f"this audio was here already, as {track_id!r}: what was said of it ({words}) was ignored",)


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
