"""From what tags of several kinds say to one text a field, none of them long.

    names and texts, of each kind of tag  ->  merged  ->  {"title": ..., "genre": "Rock;Jazz", ...}

Only the fields that the tracks table has columns for. Nothing but the standard library is imported: this runs in a
process that reads what strangers made, and ``checked`` on what such a process says, in its parent.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from recsys.catalogue.tags.genres import parted
from recsys.catalogue.years import year_in

TagTexts = dict[str, list[str]]  # texts by a tag's name in lower case

MAX_CHARS = 1_000  # of a field
MAX_LYRICS_CHARS = 200_000  # the longest songs have a tenth of it
MAX_GENRES = 100
MAX_NOTES = 10  # on one file
_MAX_VALUES = 1_000  # of one name
# a field's names in ID3, MP4, Vorbis comments and APEv2, Matroska, ASF; a later group speaks where earlier are blank
_NAMES = {
    "title": (("tit2", "©nam", "title"),),
    "artist": (("tpe1", "©art", "artist", "author"), ("artists",), ("tpe2", "aart", "albumartist", "album artist",
        "album_artist", "wm/albumartist")),
    "album": (("talb", "©alb", "album", "wm/albumtitle"),),
    "genre": (("tcon", "©gen", "genre", "wm/genre"),),
    "year": (("tdrc", "tyer", "©day", "date", "year", "wm/year", "date_recorded", "date_released"),
        ("tdor", "tory", "originaldate", "originalyear", "wm/originalreleaseyear")),
    "lyrics": (("uslt", "©lyr", "lyrics", "unsyncedlyrics", "unsynced lyrics", "wm/lyrics"),),
}  # fmt: skip
WANTED = frozenset(name for groups in _NAMES.values() for group in groups for name in group)
FIELDS = tuple(_NAMES)
_JOINED_BY = {"genre": ";", "lyrics": "\n"}
# line and paragraph separators too; the marks at the ends are what some programs leave there
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_CONTROLS_OF_LYRICS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]+")
_ENDS = "\ufeff\ufffe\u200b"


@dataclass(frozen=True, slots=True)
class Inside:
    """What a file says of itself, by field, and one clause on each thing that was wrong with its tags."""

    tags: Mapping[str, str]
    notes: tuple[str, ...] = ()


def put(found: TagTexts, name: str, texts: Iterable[str]) -> None:
    """Add texts to what was found; a text that holds several, between zeros, is parted. Blank ones are left out."""
    held = found.setdefault(name.lower(), [])
    for text in texts:
        for value in text.split("\0", _MAX_VALUES):
            if value.strip().strip(_ENDS) and len(held) < _MAX_VALUES:
                held.append(value)


def merged(kinds: Sequence[TagTexts], notes: list[str]) -> dict[str, str]:
    """Join what several kinds of tags say: of each field, what the first kind that is not blank there says.

    Args:
        kinds: the kind that is believed most goes first.
        notes: takes what was cut.
    """
    tags: dict[str, str] = {}
    for field in FIELDS:
        said = [list(_cleaned(texts, field)) for texts in _candidates(kinds, field)]
        if texts := _dated(said) if field == "year" else next(filter(None, said), []):
            tags[field] = _cut(texts, field, notes)
    return tags


def checked(tags: Mapping[str, object]) -> dict[str, str]:
    """Take no more than fields of texts as long as they may be from a process that may have been taken over."""
    found = ((field, tags.get(field)) for field in FIELDS)
    texts = {field: text for field, text in found if isinstance(text, str)}
    clean = {field: _without_controls(text[: _most(field)], field).strip() for field, text in texts.items()}
    return {field: text for field, text in clean.items() if text}


def with_sure_year(tags: Mapping[str, str]) -> dict[str, str]:
    """Leave out a ``year`` that is not a year in four digits."""
    return {name: text for name, text in tags.items() if name != "year" or re.fullmatch("[0-9]{4}", text)}


def _candidates(kinds: Sequence[TagTexts], field: str) -> Iterable[list[str]]:
    """The texts of one field, of each group of names and each kind: those believed most go first."""
    for group in _NAMES[field]:
        for kind in kinds:
            for name in group:
                if texts := kind.get(name):
                    yield texts


def _cleaned(texts: Iterable[str], field: str) -> Iterable[str]:
    most = _most(field) + 1  # one more tells that there was more
    names = (name for text in texts for name in parted(text[:most])) if field == "genre" else texts
    seen = set()
    for name in names:
        clean = _without_controls(name[:most], field).strip().strip(_ENDS).strip()
        if clean and clean.casefold() not in seen:
            seen.add(clean.casefold())
            yield clean


def _without_controls(text: str, field: str) -> str:
    text = text.encode("utf-8", "replace").decode()
    if field == "lyrics":
        return _CONTROLS_OF_LYRICS.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))
    # composed, as an artist is one artist however accents are stored; of short texts only, for it can be slow
    return unicodedata.normalize("NFC", _CONTROLS.sub(" ", text))


def _dated(said: Sequence[Sequence[str]]) -> list[str]:
    """The first year that is sure; else the first text, for the build to report, unless it is only zeros."""
    texts = [text for texts in said for text in texts]
    for text in texts:
        if (year := year_in(text)) is not None:
            return [f"{year:04}"]
    return [text for text in texts if text.strip("0-.: ")][:1]


def _cut(texts: list[str], field: str, notes: list[str]) -> str:
    """Join texts, as many whole ones as fit; a single one that is too long is cut."""
    most, joint = _most(field), _JOINED_BY.get(field, "; ")
    kept = texts[:MAX_GENRES] if field == "genre" else texts
    whole = joint.join(kept)
    if len(kept) == len(texts) and len(whole) <= most:
        return whole
    too_many = len(kept) < len(texts)
    notes.append(f"{field}: more than {f'{MAX_GENRES} names' if too_many else f'{most:,} characters'}, cut there")
    if len(whole) <= most:
        return whole
    return whole[:most].strip() if field != "genre" else whole[: most + 1].rpartition(";")[0] or whole[:most]


def _most(field: str) -> int:
    return MAX_LYRICS_CHARS if field == "lyrics" else MAX_CHARS
