"""What a file says of itself, read from its headers: was it cut short, does it say how long it is?

    an open file  ->  look  ->  Look: what is missing at the end, whether the length is declared, where frames lie

WAV, AIFF and MP4 declare sizes, an MP3 with a Xing, Info or VBRI header its bytes, Ogg marks its last page; frames
without a container are held against the length of the last one. A length is unknown in what was written to a pipe
or broadcast, in a chain of Ogg recordings, and in bare frames: what libraries then report is an estimate. FLAC
declares only samples: ``recsys.audio.decoding.decode`` asks the decoder for the last one. Nothing is decoded here, and
whether a file is sound beyond that is not looked at.
"""

import os
import struct
from dataclasses import dataclass, field
from typing import BinaryIO

from recsys.audio.decoding.flac import FlacHeader, flac_header
from recsys.audio.decoding.ogg import is_chain, is_closed
from recsys.audio.decoding.streams import Stream, find_stream, missing_of_last

_UNKNOWN_SIZE = (0, 0xFFFFFFFF)  # what a recorder that was writing to a pipe leaves in a size field
_MPEG_IN_WAV = (0x50, 0x55)  # format tags: layers I and II, layer III
_MOST_TAGS = 8  # ID3 tags in front, one behind the other
_HEAD_BYTES = 65_536  # in which a container's header declares its length
_JOINED_BYTES = 4096  # behind the declared end, more than tags alone are
_EBML, _EBML_INFO, _EBML_DURATION = b"\x1aE\xdf\xa3", b"\x15I\xa9f", b"D\x89"
_ASF = bytes.fromhex("3026b2758e66cf11")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_DECLARING = (
    b"TTA1",
    b"MAC ",
    b"MPCK",
    b"MP+",
    b"tBaK",
    b"DSD ",
    b"caff",
    b".snd",
    b"riff",
    b"RF64",
    b"Creative Voice",
)


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a file without decoding it."""

    size: int
    start: int = 0  # behind the tags in front
    cut: str | None = None  # one clause: what was declared, and what is there
    declares: bool = True  # the length, which is not to be counted then
    stream: Stream | None = None  # frames without a container, or in a WAV
    in_wav: bool = False
    flac: FlacHeader | None = None
    is_chain: bool = False


@dataclass(slots=True)
class _Wav:
    format_tag: int = 0
    data_start: int = 0
    data_end: int = 0  # 0 where that is not declared


@dataclass(slots=True)
class _Mp4:
    end: int = 0  # 0 where that is not declared
    names: set[bytes] = field(default_factory=set)


def missing_tail(file: BinaryIO) -> str | None:
    """Say what a file lacks at its end, or None where nothing is known to be missing.

    Args:
        file: open for reading and seekable; its position is not kept.
    """
    return look(file).cut


def declares_length(file: BinaryIO) -> bool:
    """Whether a file's headers say how long it is, in a form that is to be believed."""
    return look(file).declares


def look(file: BinaryIO) -> Look:
    """Look at a file's headers and at its end.

    Args:
        file: open for reading and seekable; its position is not kept.

    Raises:
        OSError: the file cannot be read.
    """
    size = file.seek(0, os.SEEK_END)
    start = _after_id3(file)
    file.seek(start)
    head = file.read(16)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return _look_at_wav(file, start, size)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return Look(size, start, _short_of(start + 8 + int.from_bytes(head[4:8], "big"), size))
    if head[4:8] == b"ftyp":
        boxes = _mp4(file, size)
        return Look(size, start, _short_of(boxes.end, size), declares=b"moof" not in boxes.names)
    if head[:4] == b"OggS":
        cut = None if is_closed(file, size) else "the last Ogg page is not marked as the last or is cut"
        chained = is_chain(file, start, size)
        return Look(size, start, cut, declares=not chained, is_chain=chained)
    flac = flac_header(file, start)
    if flac is not None:
        return Look(size, start, declares=flac.declared > 0, flac=flac)
    known = _declares(file, start, head)
    return _look_at_frames(file, start, size) if known is None else Look(size, start, declares=known)


def _short_of(declared: int, size: int) -> str | None:
    return f"{declared:,} bytes are declared, {size:,} are there" if size < declared else None


def _after_id3(file: BinaryIO) -> int:
    at = 0
    for _ in range(_MOST_TAGS):
        file.seek(at)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        tag_bytes = (head[6] << 21) | (head[7] << 14) | (head[8] << 7) | head[9]
        at += 10 + tag_bytes + (10 if head[5] & 0x10 else 0)  # bit 4: the tag has a footer of its own
    return at


def _look_at_wav(file: BinaryIO, start: int, size: int) -> Look:
    wav = _wav(file, start)
    cut = _short_of(wav.data_end, size)
    if wav.format_tag not in _MPEG_IN_WAV:
        return Look(size, start, cut)
    end = min(wav.data_end or size, size)
    stream = find_stream(file, wav.data_start, end) if wav.data_start else None
    return Look(size, start, cut, declares=False, stream=stream, in_wav=True)


def _wav(file: BinaryIO, start: int) -> _Wav:
    """Find what kind of samples a WAV holds, and where."""
    found, position = _Wav(), start + 12
    while True:
        file.seek(position)
        chunk = file.read(10)
        if len(chunk) < 8:
            return found
        name, n_bytes = struct.unpack("<4sI", chunk[:8])
        if name == b"fmt ":
            found.format_tag = int.from_bytes(chunk[8:10], "little")
        if name == b"data":
            found.data_start = position + 8
            found.data_end = 0 if n_bytes in _UNKNOWN_SIZE else position + 8 + n_bytes
            return found
        position += 8 + n_bytes + n_bytes % 2


def _mp4(file: BinaryIO, size: int) -> _Mp4:
    """Find the boxes of the highest level, and where the last should end."""
    found, position = _Mp4(), 0
    while position + 8 <= size:
        file.seek(position)
        box = file.read(16)
        found.names.add(box[4:8])
        n_bytes = int.from_bytes(box[:4], "big")
        if n_bytes == 1:  # the size did not fit in 32 bits and follows the name
            n_bytes = int.from_bytes(box[8:16], "big")
        if n_bytes < 8:  # 0: to the end of the file; anything else is not a box
            return found
        position += n_bytes
    found.end = position
    return found


def _declares(file: BinaryIO, start: int, head: bytes) -> bool | None:
    """Whether other containers declare their length; None where this is none of them."""
    if head.startswith(_DECLARING):
        return True
    if head[:4] == b"wvpk":
        return head[12:16] not in (b"\xff\xff\xff\xff", bytes(4))
    if head[:4] not in (_EBML, _ASF[:4]):
        return None
    file.seek(start)
    header = file.read(_HEAD_BYTES)
    if head[:4] == _EBML:
        info = header.find(_EBML_INFO)
        return info >= 0 and any(
            header.find(_EBML_DURATION + size, info, info + 512) >= 0 for size in (b"\x84", b"\x88")
        )
    about = header.find(_ASF_FILE)
    lasts, flags = header[about + 64 : about + 72], header[about + 88 : about + 89]
    return about >= 0 and any(lasts) and flags != b"" and not flags[0] & 1  # 1: it was broadcast


def _look_at_frames(file: BinaryIO, start: int, size: int) -> Look:
    stream = find_stream(file, start, size, tag_start=0 if start else None)
    if stream is None:
        return Look(size, start, declares=False)
    if stream.declared_end is not None and not stream.in_tag:
        cut = _short_of(stream.declared_end, size)
    else:
        missing = missing_of_last(file, stream)
        cut = f"the last frame lacks {missing} bytes" if missing else None
    declares = stream.declared is not None and not stream.in_tag and not _goes_on(file, stream)
    return Look(size, start, cut, declares, stream)


def _goes_on(file: BinaryIO, stream: Stream) -> bool:
    """Whether frames of an mp3 follow its declared end, as where files were joined."""
    if stream.declared_end is None or stream.end - stream.declared_end < _JOINED_BYTES:
        return False
    return find_stream(file, stream.declared_end, stream.end) is not None
