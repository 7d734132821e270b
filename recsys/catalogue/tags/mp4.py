"""MP4 tags: the items of ``moov.udta.meta.ilst`` in, texts by their names out.

Atoms are passed over unread but for the way to the items. Numbered genres become names.
"""

from collections.abc import Iterator
from typing import BinaryIO

from recsys.catalogue.tags.fields import MAX_LYRICS_CHARS, WANTED, TagTexts, put
from recsys.catalogue.tags.genres import numbered

_WAY = (b"moov", b"udta", b"meta", b"ilst")
_MAX_ATOMS = 10_000  # of one level
_MAX_VALUE_BYTES = 4 * MAX_LYRICS_CHARS
_FULL = 4  # bytes of version and flags, which ``meta`` has, but not where QuickTime wrote it
_FREE = b"----"  # an item that names itself
_CLASSES = {2: "utf-16-be"}  # of a value; all others that hold texts are UTF-8
_NO_TEXT = frozenset({13, 14, 27})  # pictures


def read_mp4(file: BinaryIO, start: int, size: int) -> TagTexts:
    """Read the items of a file of ``size`` bytes whose first atom is at ``start``."""
    found: TagTexts = {}
    places = [(start, size)]
    for name in _WAY:
        places = [(at, end) for place in places for kind, at, end in _atoms(file, *place) if kind == name]
        if name == b"meta":
            places = [(_after_flags(file, at), end) for at, end in places]
    for place in places:
        for kind, at, end in _atoms(file, *place):
            _read_item(file, kind, at, end, found)
    return found


def _after_flags(file: BinaryIO, at: int) -> int:
    file.seek(at + 4)
    return at if file.read(4) == b"hdlr" else at + _FULL


def _read_item(file: BinaryIO, kind: bytes, at: int, end: int, found: TagTexts) -> None:
    name = kind.decode("latin-1").lower()
    for inner, inner_at, inner_end in _atoms(file, at, end):
        file.seek(inner_at)
        n_bytes = min(inner_end - inner_at, _MAX_VALUE_BYTES)
        if inner == b"name" and kind == _FREE:
            name = file.read(n_bytes)[_FULL:].decode("utf-8", "replace").lower()
        if inner != b"data" or (name not in WANTED and kind != b"gnre"):
            continue
        data = file.read(n_bytes)
        class_, value = int.from_bytes(data[1:4], "big"), data[8:]  # behind the class, four bytes name a country
        if kind == b"gnre":
            put(found, "©gen", numbered(str(int.from_bytes(value[:2], "big") - 1)))
        elif class_ not in _NO_TEXT:
            put(found, name, [value.decode(_CLASSES.get(class_, "utf-8"), "replace")])


def _atoms(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Give each atom's name, where it begins behind its header, and where it ends."""
    for _ in range(_MAX_ATOMS):
        file.seek(at)
        head = file.read(min(16, max(0, end - at)))
        if len(head) < 8:
            return
        n_bytes, header = int.from_bytes(head[:4], "big"), 8
        if n_bytes == 1:  # a size of eight bytes follows
            n_bytes, header = int.from_bytes(head[8:16], "big"), 16
        elif n_bytes == 0:  # to the end
            n_bytes = end - at
        if n_bytes < header or at + n_bytes > end:
            return
        yield head[4:8], at + header, at + n_bytes
        at += n_bytes
