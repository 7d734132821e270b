"""APEv2 tags at a file's end or beginning: of WavPack, Monkey's Audio and Musepack, and of mp3.

    an open file, where other tags end  ->  read_ape  ->  texts by the items' names, or None where there is no such tag

Values are UTF-8, several parted by zeros. What the tracks table has no column for, pictures say, is passed over unread.
"""

from typing import BinaryIO

from recsys.catalogue.tags.fields import MAX_LYRICS_CHARS, WANTED, TagTexts, put

_FRAME_BYTES = 32  # of the header and of the footer
_MARK = b"APETAGEX"
_MAX_ITEMS = 1_000
_MAX_KEY_BYTES = 256
_MAX_VALUE_BYTES = 4 * MAX_LYRICS_CHARS
_LYRICS3 = b"LYRICS200"  # a tag of another kind, that stands between this and ID3v1
_LYRICS3_BYTES = 15  # of that mark and the six digits of its length


def read_ape(file: BinaryIO, start: int, end: int, notes: list[str]) -> TagTexts | None:
    """Read the tag that ends at ``end``, or else the one that begins at ``start``."""
    end = _before_lyrics3(file, end)
    file.seek(max(start, end - _FRAME_BYTES))
    footer = file.read(_FRAME_BYTES)
    if len(footer) == _FRAME_BYTES and footer.startswith(_MARK):
        first = end - int.from_bytes(footer[12:16], "little")
        return _read_items(file, max(start, first), end - _FRAME_BYTES, footer, notes)
    file.seek(start)
    header = file.read(_FRAME_BYTES)
    if len(header) == _FRAME_BYTES and header.startswith(_MARK):
        first = start + _FRAME_BYTES
        return _read_items(file, first, min(end, first + int.from_bytes(header[12:16], "little")), header, notes)
    return None


def _before_lyrics3(file: BinaryIO, end: int) -> int:
    if end < _LYRICS3_BYTES:
        return end
    file.seek(end - _LYRICS3_BYTES)
    tail = file.read(_LYRICS3_BYTES)
    if tail[6:] != _LYRICS3 or not tail[:6].isdigit():
        return end
    return max(0, end - _LYRICS3_BYTES - int(tail[:6]))


def _read_items(file: BinaryIO, at: int, end: int, frame: bytes, notes: list[str]) -> TagTexts:
    found: TagTexts = {}
    for _ in range(min(_MAX_ITEMS, int.from_bytes(frame[16:20], "little"))):
        file.seek(at)
        head = file.read(min(8 + _MAX_KEY_BYTES, max(0, end - at)))
        key_bytes = head[8:].find(b"\0")
        n_bytes = int.from_bytes(head[:4], "little")
        value = at + 8 + key_bytes + 1
        if not head:
            break  # some programs count wrong
        if key_bytes < 0 or value + n_bytes > end:
            notes.append("an APE item is damaged, and those behind it were not read")
            break
        name = head[8 : 8 + key_bytes].decode("ascii", "replace").lower()
        is_text = not head[4] & 0x06  # not bytes, nor a link
        if name in WANTED and is_text:
            file.seek(value)
            put(found, name, [file.read(min(n_bytes, _MAX_VALUE_BYTES)).decode("utf-8", "replace")])
        at = value + n_bytes
    return found
