"""Sound without a container, as frames behind each other: MPEG audio (mp3, mp2) and AAC in ADTS.

    an open file, where to look  ->  find_stream  ->  Stream: where its frames begin, what each of them is
    Stream                       ->  count        ->  Frames: how many there are, and where each 32nd begins

Only headers are read. Such a file says how long it is in a Xing, Info or VBRI header, or nowhere: then its frames are
counted. What libraries report instead is an estimate from the first frames and the size of the file, covers included.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, Literal

SEARCH_BYTES = 65_536  # a first frame is looked for this far behind the tags
MARKED_FRAMES = 32  # of so many, one is remembered
_CHAIN = 4  # frames in a row that are not chance
_LONG_CHAIN = 16  # where a tag says that no frames are there
_BLOCK_BYTES = 2**20
_MOST_BYTES = 2**32  # of a file of which frames are counted: 29 hours at 320 kbit/s
_MOST_CANDIDATES = 500_000  # places between frames that look like a header: a second of work
_HEADER_BYTES = 8
_MPEG1_KBITS = {
    1: (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448, 0),
    2: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 0),
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
}
_MPEG2_KBITS = {
    1: (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256, 0),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
    3: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
_MPEG1_RATES = (44_100, 48_000, 32_000)
_AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
_AAC_SAMPLES = 1024
_MPG123_DELAY = 529  # samples
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")  # what may stand between frames where files were joined

_SYNC = re.compile(rb"\xff(?=[\xe2-\xff])")

SizeOf = Callable[[bytes, int], int]  # the bytes of the frame at a place, 0 where none of the stream begins


@dataclass(frozen=True, slots=True)
class Stream:
    """Frames of one kind in a file: the bytes from ``start`` to ``end``, a header frame of an mp3 left out.

    ``samples`` a frame at ``sample_rate`` in Hz; both are half of what is heard where AAC has its band replicated.
    ``declared`` counts the frames by the header frame, and ``declared_end`` is where they end by it, in bytes.
    """

    kind: Literal["mpeg", "adts"]
    start: int
    end: int
    head: bytes  # the header of the first frame
    samples: int
    sample_rate: int
    layer: int = 0
    declared: int | None = None
    declared_end: int | None = None
    in_tag: bool = False  # it begins where a tag says that it goes on

    @property
    def size_of(self) -> SizeOf:
        """Measure frames of this stream."""
        return _size_of(self.head)


@dataclass(frozen=True, slots=True)
class Frames:
    """A stream's frames: ``n`` whole ones, where each 32nd begins, and the bytes between them that are none."""

    stream: Stream
    n: int
    marks: tuple[int, ...]
    n_junk: int


def find_stream(file: BinaryIO, start: int, end: int, tag_start: int | None = None) -> Stream | None:
    """Find the first frame of a stream.

    Args:
        file: open for reading and seekable; its position is not kept.
        start: where to look, in bytes: behind a tag.
        end: of what may be a part of it.
        tag_start: of the tag before ``start``, which may be wrong about its length.
    """
    file.seek(start)
    head = file.read(min(SEARCH_BYTES, end - start))
    at = _first(head, 0, _CHAIN, end - start)
    if tag_start is not None and (at is None or head[:at].strip(b"\0")):
        file.seek(tag_start + 10)
        inside = file.read(min(SEARCH_BYTES, end - tag_start - 10))
        early = _first(inside, 0, _LONG_CHAIN, end - tag_start - 10)
        if early is not None and tag_start + 10 + early < start:
            return _stream(inside, early, tag_start + 10, end, in_tag=True)
    return None if at is None else _stream(head, at, start, end)


def count(file: BinaryIO, stream: Stream) -> Frames | None:
    """Count a stream's frames by their headers; None where that would cost too much.

    A frame that is cut is not counted. Whatever stands between frames is passed over.
    """
    if stream.end - stream.start > _MOST_BYTES:
        return None
    size_of, end = stream.size_of, stream.end
    window = _Window(file, stream)
    n, n_junk, at, marks = 0, 0, stream.start, []
    while at + _HEADER_BYTES <= end:
        block, base = window.at(at)
        if len(block) < _HEADER_BYTES:  # the file is shorter than it was
            break
        place, last = at - base, min(len(block), end - base) - _HEADER_BYTES
        while place <= last and (size := size_of(block, place)) and base + place + size <= end:
            if n % MARKED_FRAMES == 0:
                marks.append(base + place)
            n += 1
            place += size
        at = base + place
        if place > last:
            continue
        found = window.next_frame(at)
        if found is None:
            return None if window.n_candidates >= _MOST_CANDIDATES else Frames(stream, n, tuple(marks), n_junk)
        n_junk += 0 if block.startswith(_TAGS, place) else found - at
        at = found
    return Frames(stream, n, tuple(marks), n_junk)


def missing_of_last(file: BinaryIO, stream: Stream) -> int:
    """Count the bytes that the last frame lacks; 0 where it is whole or something else follows it."""
    size_of = stream.size_of
    file.seek(max(stream.start, stream.end - 8192))  # at least five frames of the largest mp3, one of the largest AAC
    tail = file.read(8192)
    for start in range(len(tail)):
        at, n_frames = start, 0
        while at + _HEADER_BYTES <= len(tail) and (size := size_of(tail, at)):
            at, n_frames = at + size, n_frames + 1
        if n_frames < 3:  # three in a row are not chance
            continue
        if at >= len(tail):
            return at - len(tail)
        left = tail[at:]
        if len(left) < _HEADER_BYTES and left[:2] == stream.head[: len(left[:2])]:  # cut inside a header
            return _HEADER_BYTES - len(left)
    return 0


class _Window:
    """A file block by block, and the search for frames between which something else stands."""

    def __init__(self, file: BinaryIO, stream: Stream) -> None:
        self._file, self._end = file, stream.end
        self._size_of = stream.size_of
        second = bytes({stream.head[1] | 1, stream.head[1] & 0xFE})
        self._sync = re.compile(b"\xff(?=[" + re.escape(second) + b"])")
        self._block, self._base = b"", 0
        self.n_candidates = 0

    def at(self, at: int) -> tuple[bytes, int]:
        """A block that holds the header at a place, and where it begins."""
        if not self._base <= at <= self._base + len(self._block) - _HEADER_BYTES:
            self._file.seek(at)
            self._block, self._base = self._file.read(_BLOCK_BYTES), at
        return self._block, self._base

    def next_frame(self, at: int) -> int | None:
        """Find where frames go on behind a place that is none."""
        at += 1
        while at + _HEADER_BYTES <= self._end:
            block, base = self.at(at)
            for match in self._sync.finditer(block, at - base, max(0, len(block) - _HEADER_BYTES + 2)):
                self.n_candidates += 1
                if self.n_candidates >= _MOST_CANDIDATES:
                    return None
                size = self._size_of(block, match.start())
                if size and self._follows(base + match.start() + size):
                    return base + match.start()
            if len(block) < _HEADER_BYTES:
                return None
            at = base + len(block) - _HEADER_BYTES + 1
        return None

    def _follows(self, at: int) -> bool:
        if at >= self._end:
            return at == self._end
        block, base = self.at(at)
        return len(block) - (at - base) >= _HEADER_BYTES and self._size_of(block, at - base) > 0


def _first(data: bytes, at: int, n_chain: int, n_left: int) -> int | None:
    """Find where ``n_chain`` frames begin, or fewer that go up to the last of ``n_left`` bytes."""
    for match in _SYNC.finditer(data, at):
        place, n_frames = match.start(), 0
        size_of = _size_of(data[place : place + _HEADER_BYTES])
        while n_frames < n_chain and place + _HEADER_BYTES <= len(data) and (size := size_of(data, place)):
            place, n_frames = place + size, n_frames + 1
        if n_frames >= n_chain or (n_frames > 1 and place >= min(n_left, len(data)) - 128):
            return match.start()
    return None


def _stream(data: bytes, at: int, base: int, end: int, in_tag: bool = False) -> Stream:
    head = data[at : at + _HEADER_BYTES]
    if not head[1] & 6:
        return Stream("adts", base + at, end, head, _AAC_SAMPLES, _AAC_RATES[head[2] >> 2 & 15], in_tag=in_tag)
    version, layer, sample_rate = _mpeg(head)
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    size = _size_of(head)(head, 0)
    frame = data[at : at + size]
    is_header, declared, n_bytes = _declared(frame) if layer == 3 else (False, None, None)
    declared_end = None if n_bytes is None else base + at + n_bytes
    start = base + at + (size if is_header else 0)
    return Stream("mpeg", start, end, head, samples, sample_rate, layer, declared, declared_end, in_tag)


def _mpeg(head: bytes) -> tuple[int, int, int]:
    """Read version (3 MPEG-1, 2 MPEG-2, 0 MPEG-2.5), layer and sample rate in Hz; a rate of 0 is none."""
    version, layer, rate = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3), head[2] >> 2 & 3
    if version == 1 or layer == 4 or rate == 3:
        return version, layer, 0
    return version, layer, _MPEG1_RATES[rate] // {3: 1, 2: 2, 0: 4}[version]


def _size_of(head: bytes) -> SizeOf:
    """Measure frames that are like the one with this header: of its version, layer and sample rate."""
    if len(head) < _HEADER_BYTES or head[0] != 0xFF or head[1] < 0xE0:
        return lambda data, at: 0
    return _adts_size(head) if not head[1] & 6 else _mpeg_size(head)


def _mpeg_size(head: bytes) -> SizeOf:
    sizes, second = _sizes(*_mpeg(head), head[2] & 0x0C), head[1] | 1  # with a checksum or without

    def size_of(data: bytes, at: int) -> int:
        return sizes[data[at + 2]] if data[at] == 0xFF and data[at + 1] | 1 == second else 0

    return size_of


@lru_cache
def _sizes(version: int, layer: int, sample_rate: int, rate_bits: int) -> tuple[int, ...]:
    """Tabulate the bytes of frames of one kind by the third byte of their header; 0 is none, or of free format."""
    sizes = [0] * 256
    for third in range(256 if sample_rate else 0):
        kbits = (_MPEG1_KBITS if version == 3 else _MPEG2_KBITS)[layer][third >> 4]
        if not kbits or third & 0x0C != rate_bits:
            continue
        padding = third >> 1 & 1
        if layer == 1:
            sizes[third] = (12_000 * kbits // sample_rate + padding) * 4
        else:
            sizes[third] = (144_000 if layer == 2 or version == 3 else 72_000) * kbits // sample_rate + padding
    return tuple(sizes)


def _adts_size(head: bytes) -> SizeOf:
    if head[2] >> 2 & 15 >= len(_AAC_RATES) or head[1] & 0xF6 != 0xF0:
        return lambda data, at: 0
    second, third = head[1] | 1, head[2] & 0xFC

    def size_of(data: bytes, at: int) -> int:
        if data[at] != 0xFF or data[at + 1] | 1 != second or data[at + 2] & 0xFC != third or data[at + 6] & 3:
            return 0  # the last: several blocks a frame, which no encoder writes
        size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        return size if size > _HEADER_BYTES else 0

    return size_of


def _declared(frame: bytes) -> tuple[bool, int | None, int | None]:
    """Read a first frame: whether it is a Xing, Info or VBRI header, its count of frames, and of all bytes with it."""
    if frame[36:40] == b"VBRI":
        return True, None, int.from_bytes(frame[46:50], "big") or None  # its count is not read by mpg123
    for offset in (13, 21, 36):  # behind the side information, whose size is that of the version and channels
        if frame[offset : offset + 4] in (b"Xing", b"Info"):
            flags, place = frame[offset + 7], offset + 8  # bit 0: a count of frames comes first; bit 1: the bytes
            n_frames = int.from_bytes(frame[place : place + 4], "big") if flags & 1 else 0
            place += 4 if flags & 1 else 0
            n_bytes = int.from_bytes(frame[place : place + 4], "big") if flags & 2 else 0
            return True, n_frames or None, n_bytes or None
    return False, None, None


def header_frame(stream: Stream, n_frames: int) -> tuple[bytes, int]:
    """Write what mpg123 takes as the header of an mp3 stream with so many frames.

    Returns:
        Two frames, an Info header and one of silence; and how many samples of silence are heard before the stream:
        where there is such a header, mpg123 leaves out its own delay, which is thus taken from the silence.
    """
    head = bytearray(stream.head[:4])
    head[1] |= 1  # no checksum
    head[2] = head[2] & 0x0C | 0x90  # 128 kbit/s, or 80: room for what comes; no padding
    size = _mpeg_size(stream.head)(bytes(head), 0)
    is_mono, is_first_version = head[3] >> 6 == 3, head[1] >> 3 & 3 == 3
    side = (17 if is_mono else 32) if is_first_version else (9 if is_mono else 17)
    info = bytes(head) + bytes(side) + b"Info" + (1).to_bytes(4, "big") + (n_frames + 1).to_bytes(4, "big")
    return info.ljust(size, b"\0") + bytes(head).ljust(size, b"\0"), stream.samples - _MPG123_DELAY
