"""What an audio file says of itself: the tags inside it, read with mutagen; no sound is decoded.

    a path, or an open file  ->  file_tags  ->  {"title": ..., "artist": ..., ...}

Only the fields that the tracks table has columns for. Nothing but mutagen is imported, so that a decoding process can
read the tags of a file that may have been made to harm.
"""

import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

import mutagen

# one field's names in ID3, MP4, Vorbis comments and APEv2, ASF; all compared in lower case
_NAMES = {
    "title": ("tit2", "©nam", "title"),
    "artist": ("tpe1", "©art", "artist", "author", "tpe2", "aart", "albumartist", "wm/albumartist"),
    "album": ("talb", "©alb", "album", "wm/albumtitle"),
    "genre": ("tcon", "©gen", "genre", "wm/genre"),
    "year": ("tdrc", "tyer", "tdor", "©day", "date", "year", "originaldate", "wm/year"),
    "lyrics": ("uslt", "©lyr", "lyrics", "unsyncedlyrics", "unsynced lyrics", "wm/lyrics"),
}
_FIELDS = frozenset(name for names in _NAMES.values() for name in names)
_JOINED_BY = {"genre": ";", "lyrics": "\n"}
# what mutagen lets through on damaged files, besides its own error
DAMAGE = (mutagen.MutagenError, OSError, ValueError, LookupError, TypeError, EOFError, struct.error)


def file_tags(audio: Path | BinaryIO) -> dict[str, str]:
    """Give what one file's tags say, by column of ``SCAN_SCHEMA``; empty where they cannot be read.

    ``year`` has four digits, or is left out.
    """
    try:
        tags = read_tags(audio)
    except DAMAGE:
        return {}
    if not re.fullmatch(r"[0-9]{4}", tags.get("year", "")):
        tags.pop("year", None)
    return tags


def read_tags(file: Path | BinaryIO) -> dict[str, str]:
    """Read the tags that the table has columns for; of a date only the year, of any other text all of it."""
    audio = mutagen.File(file)
    if audio is None:
        raise mutagen.MutagenError("no known kind of audio")
    found: dict[str, list[str]] = {}
    for key, value in (audio.tags or {}).items():
        name = key.lower().removeprefix("txxx:").split(":")[0]
        if name in _FIELDS and (texts := _texts(value)):
            found.setdefault(name, texts)
    tags: dict[str, str] = {}
    for field, names in _NAMES.items():
        if texts := next((found[name] for name in names if name in found), []):
            tags[field] = _JOINED_BY.get(field, "; ").join(texts)
    if "year" in tags:
        tags["year"] = re.sub(r"^([0-9]{4})-.*", r"\1", tags["year"])
    return tags


def _texts(value: Any) -> list[str]:
    """Make texts of one tag: an ID3 frame, or a list of values or one value of the other kinds."""
    held = getattr(value, "text", None) or value  # numbered ID3 genres have become names on loading
    items = held if isinstance(held, list) else str(held).split("\0")
    texts = (str(item).encode("utf-8", "replace").decode().replace("\0", " ").strip() for item in items)
    return [text for text in texts if text]
