"""ID3 tags, of versions 1 to 2.4, read a frame at a time: nothing is inflated or kept beyond a limit.

    an open file, where a tag begins  ->  read_id3v2  ->  texts by the frames' names, where the tag ends
    an open file, where it ends       ->  read_id3v1  ->  the same, or None where there is no such tag

A damaged byte costs a character, a damaged frame costs that frame: reading goes on with the next one that looks whole.
Pictures and all else that the tracks table has no column for are passed over unread.
"""

import io
import re
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from recsys.catalogue.tags.fields import WANTED, TagTexts, put
from recsys.catalogue.tags.genres import known_parts, numbered

V1_BYTES = 128
_MAX_FRAMES = 10_000
_MAX_FRAME_BYTES = 2**20  # of a frame that is read, as stored and inflated; 200,000 characters take 0.8 MB at most
_MAX_TEXT_BYTES = 2**23  # of all frames that are read, inflated
_MAX_TAG_BYTES = 2**25  # of a tag that must be put right as a whole before it is read
_MAX_SEARCH_BYTES = 2**16  # in which the next whole frame is looked for behind a damaged one
_NEW_NAMES = {
    b"TT2": "tit2", b"TP1": "tpe1", b"TP2": "tpe2", b"TAL": "talb", b"TCO": "tcon", b"TYE": "tyer", b"TOR": "tory",
    b"ULT": "uslt", b"TXX": "txxx",
}  # fmt: skip
_NAME = {3: re.compile(rb"[A-Z][A-Z0-9]{2}"), 4: re.compile(rb"[A-Z][A-Z0-9]{3}")}
_ENCODINGS = ("cp1252", "utf-16", "utf-16-be", "utf-8")  # the first is called Latin-1, and written so by few


@dataclass(frozen=True, slots=True)
class _Tag:
    """A tag's frames: ``file`` from ``at`` to ``end``; in 2.2, names have three letters."""

    file: BinaryIO
    at: int
    end: int
    version: int
    unsynchronised: bool  # in 2.4 each frame, earlier the whole, which then was put right already

    @property
    def name_bytes(self) -> int:
        return 3 if self.version == 2 else 4

    @property
    def header_bytes(self) -> int:
        return 6 if self.version == 2 else 10

    def read(self, at: int, n_bytes: int) -> bytes:
        self.file.seek(at)
        return self.file.read(max(0, min(n_bytes, self.end - at)))


def read_id3v2(file: BinaryIO, start: int, size: int, notes: list[str]) -> tuple[TagTexts, int]:
    """Read the tag that begins with ``ID3`` at ``start`` in a file of ``size`` bytes; also say where it ends."""
    file.seek(start)
    head = file.read(10)
    version, flags = head[3], head[5]
    declared = start + 10 + _whole(head[6:10])
    end = min(declared, size)
    after = declared + (10 if version == 4 and flags & 0x10 else 0)  # a footer repeats the header
    found: TagTexts = {}
    if version not in {2, 3, 4}:
        notes.append(f"an ID3 tag of the unknown version 2.{version}")
        return found, after
    tag = _Tag(file, start + 10, end, version, bool(flags & 0x80))
    if tag.unsynchronised and version < 4:
        data = tag.read(tag.at, _MAX_TAG_BYTES).replace(b"\xff\x00", b"\xff")
        tag = _Tag(io.BytesIO(data), 0, len(data), version, False)
    at = tag.at
    if version > 2 and flags & 0x40:  # an extended header
        declares = tag.read(at, 4)
        at += _syncsafe(declares) if version == 4 else 4 + int.from_bytes(declares, "big")
    _read_frames(tag, at, found, notes)
    return found, after


def read_id3v1(file: BinaryIO, end: int) -> TagTexts | None:
    """Read the 128 bytes before ``end`` if they are a tag."""
    if end < V1_BYTES:
        return None
    file.seek(end - V1_BYTES)
    tag = file.read(V1_BYTES)
    if tag[:3] != b"TAG":
        return None
    found: TagTexts = {}
    for name, first, last in (("title", 3, 33), ("artist", 33, 63), ("album", 63, 93), ("year", 93, 97)):
        put(found, name, [tag[first:last].split(b"\0")[0].decode("cp1252", "replace")])
    put(found, "genre", numbered(str(tag[127])))
    return found


def _read_frames(tag: _Tag, at: int, found: TagTexts, notes: list[str]) -> None:
    n_read = 0
    for _ in range(_MAX_FRAMES):
        head = tag.read(at, tag.header_bytes)
        if len(head) < tag.header_bytes or not head[: tag.name_bytes].strip(b"\0"):
            return  # the end, or the padding before it
        n_bytes = _size(tag, at, head)
        if n_bytes is None:
            again = _next_frame(tag, at + 1)
            notes.append("an ID3 frame is damaged" + ("" if again else ", and what follows is no frame"))
            if again is None:
                return
            at = again
            continue
        if not _NAME[tag.name_bytes].fullmatch(head[: tag.name_bytes]):
            notes.append("the name of an ID3 frame is damaged")
        n_read += _read_frame(tag, head, at + tag.header_bytes, n_bytes, found, notes)
        if n_read > _MAX_TEXT_BYTES:
            notes.append(f"an ID3 tag has more than {_MAX_TEXT_BYTES:,} bytes of text; no more were read")
            return
        at += tag.header_bytes + n_bytes
    notes.append(f"an ID3 tag has more than {_MAX_FRAMES:,} frames; no more were read")


def _size(tag: _Tag, at: int, head: bytes) -> int | None:
    """The bytes of a frame without its header; None where this is no frame.

    A name that is none does not matter where the size leads to another frame: then one byte of the name is damaged.
    """
    body, sizes = at + tag.header_bytes, _sizes(tag, head)
    for size in sizes:
        if body + size <= tag.end and _is_frame_or_end(tag, body + size):
            return size
    if not _NAME[tag.name_bytes].fullmatch(head[: tag.name_bytes]):
        return None
    size = sizes[0]  # what follows is damaged, or this size is: then it swallows frames, or does not fit
    return size if body + size <= tag.end and _next_frame(tag, body, body + size) is None else None


def _sizes(tag: _Tag, head: bytes) -> list[int]:
    """What a frame's header can declare: in 2.4 seven bits a byte, but some programs write eight."""
    stored = head[tag.name_bytes : tag.name_bytes + (3 if tag.version == 2 else 4)]
    seven_bits = [_syncsafe(stored)] if tag.version == 4 and max(stored) < 0x80 else []
    return [*seven_bits, int.from_bytes(stored, "big")]


def _is_frame_or_end(tag: _Tag, at: int) -> bool:
    head = tag.read(at, tag.header_bytes)
    if not head[: tag.name_bytes].strip(b"\0"):
        return True
    is_name = len(head) == tag.header_bytes and _NAME[tag.name_bytes].fullmatch(head[: tag.name_bytes]) is not None
    return is_name and at + tag.header_bytes + min(_sizes(tag, head)) <= tag.end


def _next_frame(tag: _Tag, at: int, end: int | None = None) -> int | None:
    """Find the next frame that we would read, and whose size is possible."""
    names = _NEW_NAMES if tag.version == 2 else [name.upper().encode() for name in _OF_FRAMES]
    data = tag.read(at, min(_MAX_SEARCH_BYTES, (tag.end if end is None else end) - at))
    for match in re.finditer(b"|".join(names), data):
        head = data[match.start() : match.start() + tag.header_bytes]
        if len(head) == tag.header_bytes and 0 < min(_sizes(tag, head)) <= tag.end - at:
            return at + match.start()
    return None


_OF_FRAMES = ("tit2", "tpe1", "tpe2", "talb", "tcon", "tyer", "tdrc", "tdor", "tory", "uslt", "txxx")


def _read_frame(tag: _Tag, head: bytes, at: int, n_bytes: int, found: TagTexts, notes: list[str]) -> int:
    """Read a frame, if the tracks table has a column for it; say how many bytes of text that took."""
    name = _NEW_NAMES.get(head[:3], "") if tag.version == 2 else head[:4].decode("latin-1").lower()
    if name not in _OF_FRAMES:
        return 0
    try:
        data = _body(tag, head, tag.read(at, min(n_bytes, _MAX_FRAME_BYTES)))
    except zlib.error:
        notes.append(f"the ID3 frame {name.upper()} is damaged")
        return 0
    if not data:
        return 0
    texts, whole = _texts(data, skip=3 if name == "uslt" else 0)
    if not whole:
        notes.append(f"the ID3 frame {name.upper()} holds what is no text, which was replaced")
    if name in {"uslt", "txxx"}:
        described, *texts = texts
        if name == "txxx":
            name = described.lower()
        if name not in WANTED or (name == "uslt" and name in found):  # in another language, say
            return len(data)
    if name == "tcon" and tag.version < 4:  # which joins values by a slash; 2.4 brought zeros
        texts = [part for text in texts for part in known_parts(text, "/")]
    put(found, name, texts)
    return len(data)


def _body(tag: _Tag, head: bytes, data: bytes) -> bytes:
    """Undo what a frame's flags say was done to it; inflate no more than is read."""
    if tag.version == 2:
        return data
    flags = head[9]
    if tag.version == 3:
        packed, locked, grouped = flags & 0x80, flags & 0x40, flags & 0x20
        before = (4 if packed else 0) + (1 if grouped else 0)
    else:
        packed, locked, grouped = flags & 0x08, flags & 0x04, flags & 0x40
        before = (1 if grouped else 0) + (4 if flags & 0x01 else 0)
        if flags & 0x02 or tag.unsynchronised:
            data = data.replace(b"\xff\x00", b"\xff")
    if locked:
        return b""
    data = data[before:]
    return zlib.decompressobj().decompress(data, _MAX_FRAME_BYTES) if packed else data


def _texts(data: bytes, skip: int) -> tuple[list[str], bool]:
    """Decode a frame's texts: its first byte names the encoding; whether all of it was text is told too."""
    code, data = data[0], data[1 + skip :]
    if code >= len(_ENCODINGS):  # damaged: what can be seen decides
        code = 1 if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else 3
    if code in {1, 2} and len(data) % 2:
        data = data[:-1]  # half a character
    encoding = _ENCODINGS[code]
    if code == 1:
        encoding = "utf-16-be" if data[:2] == b"\xfe\xff" else "utf-16-le"
    try:
        text, whole = data.decode(encoding), True
    except UnicodeDecodeError:
        text, whole = data.decode(encoding, "replace"), False
    return text.replace("\ufeff", "").replace("\ufffe", "").split("\0"), whole


def _whole(stored: bytes) -> int:
    """Read a size of seven bits a byte; a program that wrote eight is understood."""
    return _syncsafe(stored) if max(stored) < 0x80 else int.from_bytes(stored, "big")


def _syncsafe(stored: bytes) -> int:
    size = 0
    for byte in stored:
        size = size << 7 | byte & 0x7F
    return size
