"""Was a file cut short? Read from what its container declares, without decoding anything.

    an open file  ->  missing_tail  ->  None, or one clause that says what was declared and what is there

WAV, AIFF and MP4 declare sizes, an MP3 with a Xing, Info or VBRI header its bytes, Ogg marks its last page;
an MP3 without such a header is held against the length of its own last frame. FLAC declares only samples:
``recsys.audio.decode`` asks the decoder for the last one. Whether a file is sound beyond that is not looked
at here.
"""

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

_TAIL_BYTES = 8192  # at least five frames of the largest mp3 (1,441 bytes a frame at 320 kbit/s and 32 kHz)
_SYNC_BYTES = 65_536  # an mp3's first frame is looked for this far behind its tags; also the largest Ogg page
_UNKNOWN_SIZE = (0, 0xFFFFFFFF)  # what a recorder that was writing to a pipe leaves in a size field
_MPEG1_KBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_MPEG2_KBITS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
_MPEG1_RATES = (44_100, 48_000, 32_000)


def missing_tail(file: BinaryIO) -> str | None:
    """Say what a file lacks at its end, or None where nothing is known to be missing.

    Args:
        file: open for reading and seekable; its position is not kept.
    """
    size = file.seek(0, os.SEEK_END)
    start = _after_id3(file)
    file.seek(start)
    head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        return _short_of(_wav_end(file, start), size)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _short_of(start + 8 + int.from_bytes(head[4:8], "big"), size)
    if head[4:8] == b"ftyp":
        return _short_of(_mp4_end(file, size), size)
    if head[:4] == b"OggS":
        return None if _ogg_is_closed(file, size) else "the last Ogg page is not marked as the last or is cut"
    return _mp3_missing_tail(file, start, size)


def _short_of(declared: int, size: int) -> str | None:
    return f"{declared:,} bytes are declared, {size:,} are there" if size < declared else None


def _after_id3(file: BinaryIO) -> int:
    file.seek(0)
    head = file.read(10)
    if len(head) < 10 or head[:3] != b"ID3":
        return 0
    tag_bytes = (head[6] << 21) | (head[7] << 14) | (head[8] << 7) | head[9]
    return 10 + tag_bytes + (10 if head[5] & 0x10 else 0)  # bit 4: the tag has a footer of its own


def _wav_end(file: BinaryIO, start: int) -> int:
    """Find where the ``data`` chunk should end, in bytes; 0 where that is not declared."""
    position = start + 12
    while True:
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8:
            return 0
        name, n_bytes = struct.unpack("<4sI", chunk)
        if name == b"data":
            return 0 if n_bytes in _UNKNOWN_SIZE else position + 8 + n_bytes
        position += 8 + n_bytes + n_bytes % 2


def _mp4_end(file: BinaryIO, size: int) -> int:
    """Find where the last box should end, in bytes."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        box = file.read(16)
        n_bytes = int.from_bytes(box[:4], "big")
        if n_bytes == 1:  # the size did not fit in 32 bits and follows the name
            n_bytes = int.from_bytes(box[8:16], "big")
        if n_bytes < 8:  # 0: to the end of the file; anything else is not a box
            return 0
        position += n_bytes
    return position


def _ogg_is_closed(file: BinaryIO, size: int) -> bool:
    file.seek(max(0, size - _SYNC_BYTES - 27 - 255))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    n_bytes = 27 + page[26] + sum(page[27 : 27 + page[26]])
    return bool(page[5] & 0x04) and len(page) >= n_bytes


@dataclass(frozen=True, slots=True)
class _Mp3Frame:
    kind: tuple[int, int]  # version and rate bits: the same in every frame of a file
    n_bytes: int


def _mp3_frame(data: bytes, at: int) -> _Mp3Frame | None:
    """Read the header of a layer III frame at ``at``, or None where there is none."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE6 != 0xE2:
        return None
    version, rate = (
        (data[at + 1] >> 3) & 3,
        (data[at + 2] >> 2) & 3,
    )  # versions: 3 MPEG-1, 2 MPEG-2, 0 MPEG-2.5
    kbits = (_MPEG1_KBITS if version == 3 else _MPEG2_KBITS)[data[at + 2] >> 4]
    if version == 1 or rate == 3 or kbits == 0:
        return None
    sample_rate = _MPEG1_RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    n_bytes = (144_000 if version == 3 else 72_000) * kbits // sample_rate + ((data[at + 2] >> 1) & 1)
    return _Mp3Frame((version, rate), n_bytes)


def _mp3_missing_tail(file: BinaryIO, start: int, size: int) -> str | None:
    file.seek(start)
    head = file.read(_SYNC_BYTES)
    for at in range(len(head)):
        frame = _mp3_frame(head, at)
        follower = frame and _mp3_frame(head, at + frame.n_bytes)
        if frame and follower and follower.kind == frame.kind:
            break
    else:
        return None
    declared = _declared_mp3_bytes(head[at : at + frame.n_bytes])
    if declared is not None:
        return _short_of(start + at + declared, size)
    file.seek(max(start, size - _TAIL_BYTES))
    missing = _cut_of_last_frame(file.read(), frame.kind)
    return f"the last frame lacks {missing} bytes" if missing else None


def _declared_mp3_bytes(frame: bytes) -> int | None:
    """Read the stream's bytes, this frame's included, from a Xing, Info or VBRI header."""
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[46:50], "big")
    for offset in (13, 21, 36):  # behind the side information, whose size is that of the version and channels
        if frame[offset : offset + 4] in (b"Xing", b"Info"):
            flags = frame[offset + 7]  # bit 0: a count of frames comes first; bit 1: the bytes are there
            place = offset + 8 + (4 if flags & 1 else 0)
            return int.from_bytes(frame[place : place + 4], "big") if flags & 2 else None
    return None


def _cut_of_last_frame(tail: bytes, kind: tuple[int, int]) -> int:
    """Count the bytes that the last frame lacks; 0 where it is whole or something else follows it."""
    for start in range(len(tail)):
        at, n_frames = start, 0
        while (frame := _mp3_frame(tail, at)) and frame.kind == kind:
            at, n_frames = at + frame.n_bytes, n_frames + 1
        if n_frames < 3:  # three in a row are not chance
            continue
        if at >= len(tail):
            return at - len(tail)
        if at + 4 > len(tail) and tail[at] == 0xFF:  # cut inside a header, which takes 4 bytes
            return at + 4 - len(tail)
    return 0
