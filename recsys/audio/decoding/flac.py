"""How long a FLAC is that does not say so: one that was written to a pipe has 0 for its samples.

    an open file  ->  flac_header  ->  FlacHeader: what is declared, and how it would be declared otherwise
    FlacHeader    ->  counted_samples  ->  the end of its last frame, in samples, or None

Each frame says where it belongs, so the last one tells the length. Nothing is decoded.
"""

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

_HEADER_BYTES = 42  # the mark fLaC, a block's head and STREAMINFO
_TAIL_BYTES = 2**20  # the last frame is looked for in so many; the largest one of 8 channels takes half of that
_MOST_HEADER_BYTES = 16  # of a frame
_SAMPLES_MASK = (1 << 36) - 1


@dataclass(frozen=True, slots=True)
class FlacHeader:
    """STREAMINFO: the first 42 bytes, and the samples of each frame but the last, where their number is fixed."""

    content: bytes
    block: int

    @property
    def declared(self) -> int:
        """The samples of each channel; 0 where that is unknown."""
        return int.from_bytes(self.content[18:26], "big") & _SAMPLES_MASK

    def declaring(self, n_samples: int) -> bytes:
        """Write the header anew with another number of samples."""
        packed = int.from_bytes(self.content[18:26], "big") & ~_SAMPLES_MASK | n_samples & _SAMPLES_MASK
        return self.content[:18] + packed.to_bytes(8, "big") + self.content[26:]


def flac_header(file: BinaryIO, start: int) -> FlacHeader | None:
    """Read the header that stands at ``start``; None where there is none."""
    file.seek(start)
    content = file.read(_HEADER_BYTES)
    if len(content) < _HEADER_BYTES or content[:4] != b"fLaC" or content[4] & 0x7F:
        return None
    return FlacHeader(content, struct.unpack(">H", content[10:12])[0])


def counted_samples(file: BinaryIO, start: int, header: FlacHeader) -> int | None:
    """Find where the last frame ends, in samples; None where no frame is found at the end of the file."""
    size = file.seek(0, os.SEEK_END)
    base = max(start + _HEADER_BYTES, size - _TAIL_BYTES)
    file.seek(base)
    tail = file.read(_TAIL_BYTES)
    at = len(tail)
    while (at := max(tail.rfind(b"\xff\xf8", 0, at), tail.rfind(b"\xff\xf9", 0, at))) >= 0:
        end = _frame_end(tail[at : at + _MOST_HEADER_BYTES], header.block)
        if end is not None:
            return end
    return None


def _frame_end(head: bytes, block: int) -> int | None:
    """Read a frame's header: the number of the sample behind it; None where these bytes are no header."""
    if len(head) < 6 or head[2] >> 4 == 0 or head[3] & 1 or head[3] >> 4 > 10 or head[3] >> 1 & 7 == 3:
        return None
    number, at = _coded(head, 4)
    if number is None:
        return None
    code, n_samples = head[2] >> 4, 0
    if code in (6, 7):
        n_samples = int.from_bytes(head[at : at + code - 5], "big") + 1
        at += code - 5
    else:
        n_samples = 192 if code == 1 else 576 << (code - 2) if code < 6 else 256 << (code - 8)
    at += {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)  # the sample rate, where it is none of the common ones
    if head[2] & 15 == 15 or at >= len(head) or _crc8(head[:at]) != head[at]:
        return None
    return (number if head[1] & 1 else number * block) + n_samples


def _coded(head: bytes, at: int) -> tuple[int | None, int]:
    """Read a number that is written as UTF-8 writes code points, of up to 7 bytes; and where it ends."""
    first = head[at]
    if first < 0x80:
        return first, at + 1
    n_more = 0
    while first << n_more + 1 & 0x80:
        n_more += 1
    more = head[at + 1 : at + 1 + n_more]
    if not 1 <= n_more <= 6 or len(more) < n_more or any(byte >> 6 != 2 for byte in more):
        return None, at
    number = first & (0x3F >> n_more)
    for byte in more:
        number = number << 6 | byte & 0x3F
    return number, at + 1 + n_more


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc
