"""Matroska and WebM tags: the title of the segment and its simple tags in, texts by their names out.

Elements are passed over unread but for those that lead to texts; one of unknown size, of a live stream, ends the way.
"""

from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

from recsys.catalogue.tags.fields import MAX_LYRICS_CHARS, WANTED, TagTexts, put

_SEGMENT, _INFO, _TITLE = 0x18538067, 0x1549A966, 0x7BA9
_TAGS, _TAG, _SIMPLE, _NAME, _STRING = 0x1254C367, 0x7373, 0x67C8, 0x45A3, 0x4487
_TARGETS, _LEVEL = 0x63C0, 0x68CA
_ALBUM_LEVEL = 50  # of a tag that is about the album, where it says so
_MAX_ELEMENTS = 50_000  # of one level: a cluster may be a second of sound
_MAX_TAGS = 100  # of a file, and texts of a tag
_MAX_TEXT_BYTES = 4 * MAX_LYRICS_CHARS


def read_matroska(file: BinaryIO, start: int, size: int) -> TagTexts:
    """Read the tags of a file of ``size`` bytes whose EBML header is at ``start``."""
    found: TagTexts = {}
    titles: list[str] = []
    for at, end in _children(file, start, size, _SEGMENT):
        for element, inner_at, inner_end in _elements(file, at, end):
            if element == _INFO:
                titles += [_text(file, *place) for place in _children(file, inner_at, inner_end, _TITLE)]
            elif element == _TAGS:
                for tag_at, tag_end in islice(_children(file, inner_at, inner_end, _TAG), _MAX_TAGS):
                    _read_tag(file, tag_at, tag_end, found)
    put(found, "title", titles)
    found["title"] = found["title"][:1]  # that of a tag goes first: the segment's is often the file's
    return found


def _read_tag(file: BinaryIO, at: int, end: int, found: TagTexts) -> None:
    level = 0
    for targets in _children(file, at, end, _TARGETS):
        for level_at, level_end in _children(file, *targets, _LEVEL):
            file.seek(level_at)
            level = int.from_bytes(file.read(min(8, level_end - level_at)), "big")
    for simple in islice(_children(file, at, end, _SIMPLE), _MAX_TAGS):
        names, texts = (list(islice(_children(file, *simple, part), 1)) for part in (_NAME, _STRING))
        if not names or not texts:
            continue
        name = _text(file, *names[0]).lower()
        if name == "title" and level == _ALBUM_LEVEL:
            name = "album"
        if name in WANTED:
            put(found, name, [_text(file, *texts[0])])


def _children(file: BinaryIO, at: int, end: int, kind: int) -> Iterator[tuple[int, int]]:
    return ((inner_at, inner_end) for element, inner_at, inner_end in _elements(file, at, end) if element == kind)


def _elements(file: BinaryIO, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Give each element's id, where it begins behind its header, and where it ends."""
    for _ in range(_MAX_ELEMENTS):
        file.seek(at)
        head = file.read(min(12, max(0, end - at)))
        id_bytes = _length(head[:1])
        size_bytes = _length(head[id_bytes : id_bytes + 1])
        if not 1 <= id_bytes <= 4 or not 1 <= size_bytes <= 8 or len(head) < id_bytes + size_bytes:
            return
        element = int.from_bytes(head[:id_bytes], "big")
        stored = int.from_bytes(head[id_bytes : id_bytes + size_bytes], "big")
        n_bytes = stored & ((1 << 7 * size_bytes) - 1)
        begin = at + id_bytes + size_bytes
        unknown = n_bytes == (1 << 7 * size_bytes) - 1
        last = end if unknown else min(begin + n_bytes, end)
        yield element, begin, last
        at = last


def _length(first: bytes) -> int:
    """Give how many bytes a number has, from its first: the place of its highest bit."""
    return 9 - first[0].bit_length() if first else 0


def _text(file: BinaryIO, at: int, end: int) -> str:
    file.seek(at)
    return file.read(min(end - at, _MAX_TEXT_BYTES)).rstrip(b"\0").decode("utf-8", "replace")
