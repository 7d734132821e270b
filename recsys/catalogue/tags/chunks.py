"""Files of chunks: WAV, AIFF and CAF in, the texts of their own kinds of tags out, and the ID3 tags inside them.

    an open file, where it begins  ->  read_wav | read_aiff | read_caf  ->  texts by name

Sound is passed over unread. A chunk that does not fit ends the reading; no chunk of text is read beyond a limit.
"""

from collections.abc import Iterator
from typing import BinaryIO

from recsys.catalogue.tags.fields import MAX_LYRICS_CHARS, WANTED, TagTexts, put
from recsys.catalogue.tags.id3 import read_id3v2

_MAX_CHUNKS = 10_000
_MAX_TEXT_BYTES = 4 * MAX_LYRICS_CHARS
_MAX_LIST_BYTES = 2**22
_OF_INFO = {b"INAM": "title", b"IART": "artist", b"IPRD": "album", b"IGNR": "genre", b"ICRD": "date"}
_OF_AIFF = {b"NAME": "title", b"AUTH": "artist"}
_UNKNOWN_SIZE = 0xFFFFFFFF  # in RF64, whose sizes are in a chunk of their own; or of who wrote to a pipe


def read_wav(file: BinaryIO, start: int, size: int, notes: list[str]) -> tuple[TagTexts, TagTexts]:
    """Read a RIFF, RIFX or RF64 file; give what its ID3 chunk says, then what its INFO list says."""
    file.seek(start)
    order = "big" if file.read(4) == b"RIFX" else "little"
    id3: TagTexts = {}
    info: TagTexts = {}
    of_sound = _UNKNOWN_SIZE
    for name, at, n_bytes in _chunks(file, start + 12, size, order):
        if name == b"ds64":
            file.seek(at + 8)
            of_sound = int.from_bytes(file.read(8), "little")
        elif name == b"data" and n_bytes == _UNKNOWN_SIZE and of_sound != _UNKNOWN_SIZE:
            for chunk in _chunks(file, at + of_sound + of_sound % 2, size, order):
                _read_wav_chunk(file, *chunk, order, size, id3, info, notes)
            break
        else:
            _read_wav_chunk(file, name, at, n_bytes, order, size, id3, info, notes)
    return id3, info


def _read_wav_chunk(
    file: BinaryIO,
    name: bytes,
    at: int,
    n_bytes: int,
    order: str,
    size: int,
    id3: TagTexts,
    info: TagTexts,
    notes: list[str],
) -> None:
    file.seek(at)
    if name.lower() == b"id3 " and not id3:
        id3 |= _id3_at(file, at, size, notes)
    elif name == b"LIST" and file.read(4) == b"INFO":
        for key, text_at, text_bytes in _chunks(file, at + 4, min(at + n_bytes, at + _MAX_LIST_BYTES, size), order):
            if key.upper() in _OF_INFO:
                put(info, _OF_INFO[key.upper()], [_text(file, text_at, text_bytes)])


def read_aiff(file: BinaryIO, start: int, size: int, notes: list[str]) -> tuple[TagTexts, TagTexts]:
    """Read an AIFF or AIFC file; give what its ID3 chunk says, then what its own text chunks say."""
    id3: TagTexts = {}
    own: TagTexts = {}
    for name, at, n_bytes in _chunks(file, start + 12, size, "big"):
        if name == b"ID3 " and not id3:
            id3 |= _id3_at(file, at, size, notes)
        elif name in _OF_AIFF:
            put(own, _OF_AIFF[name], [_text(file, at, n_bytes)])
    return id3, own


def read_caf(file: BinaryIO, start: int, size: int) -> TagTexts:
    """Read the ``info`` chunk of a CAF file: pairs of names and texts."""
    found: TagTexts = {}
    for name, at, n_bytes in _chunks(file, start + 8, size, "big", size_bytes=8):
        if name == b"info":
            file.seek(at + 4)
            texts = file.read(min(max(0, n_bytes - 4), _MAX_LIST_BYTES)).decode("utf-8", "replace").split("\0")
            for key, text in zip(texts[::2], texts[1::2], strict=False):
                ours = {"recorded date": "date"}.get(key.lower(), key.lower())
                if ours in WANTED:
                    put(found, ours, [text])
    return found


def _chunks(file: BinaryIO, at: int, end: int, order: str, size_bytes: int = 4) -> Iterator[tuple[bytes, int, int]]:
    """The name of each chunk, where it begins behind its header, and how many bytes it declares."""
    for _ in range(_MAX_CHUNKS):
        if at + 4 + size_bytes > end:
            return
        file.seek(at)
        head = file.read(4 + size_bytes)
        if len(head) < 4 + size_bytes or not head[:4].strip(b"\0"):
            return
        n_bytes = int.from_bytes(head[4:], "big" if order == "big" else "little")
        yield head[:4], at + 4 + size_bytes, n_bytes
        at += 4 + size_bytes + n_bytes
        if size_bytes == 4:  # CAF alone does not pad
            at += n_bytes % 2


def _id3_at(file: BinaryIO, at: int, size: int, notes: list[str]) -> TagTexts:
    file.seek(at)
    return read_id3v2(file, at, size, notes)[0] if file.read(3) == b"ID3" else {}


def _text(file: BinaryIO, at: int, n_bytes: int) -> str:
    """Read a text up to its first zero, in UTF-8 if it is that: no encoding is declared."""
    file.seek(at)
    data = file.read(min(n_bytes, _MAX_TEXT_BYTES)).split(b"\0")[0]
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")
