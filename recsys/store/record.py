"""A stored answer: the bytes of a response, cut where its tracks end, so that any first part of it is a response too.

    head (generation, source), tracks  ->  pack  ->  Record  ->  first(k), picked(places)  ->  bytes to send

Fields of a protobuf message may come in any order and repeated ones just follow each other, so a head and any of the
tracks, one after another, are a whole RecommendResponse or SimilarTracksResponse (they number these fields alike), and
answering is slicing. Beside the bytes stand the rows of the tracks, for filters. m are the first tracks, 50 at most:

    u16 n | u8 A5 | u8 format, 2 | u32 checksum of the first part | u32 checksum of the rest | u32 end of the first part
    u32 checksum of the key | u32 length of the head | u32 ends (m,) after the head | i32 rows (m,) | head | m tracks
    the other tracks | u32 ends (n - m,) after the head | i32 rows (n - m,)

The second line is the first part, the third one the rest; the checksum of the first part goes on from the first number,
that of the rest from the former. So an answer of up to 50 tracks costs a look at 4 KB, not at 17. A reader checks
what it reads. Format 1, of older generations, has no checksums: ``recsys.store.record_v1``.
"""

import struct
from collections.abc import Iterable, Sequence
from zlib import crc32

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from recsys.errors import DamagedError, NewerError
from recsys.store import record_v1
from recsys.types import Found, Int32
from recsys.v1 import recommender_pb2 as pb

FORMAT = 2
FIRST = 50  # tracks that the first checksum is over
MOST = 0xFFFF  # tracks of a record
# A5 between format and n: a flipped bit in the one alone makes no record of format 1
_MARK = FORMAT << 8 | 0xA5
_START = struct.Struct("<IIIIII")
_PART = 16  # where the first part begins
_ENDS = _START.size
_NUMBER = struct.Struct("<I")
DAMAGED = "a stored list does not match its checksum"


def head_of(generation: str, source: str, good_until: int | None = None) -> bytes:
    """Write what stands before the tracks; of a list that is good for a time, that time (seconds since 1970) first."""
    head: bytes = pb.RecommendResponse(generation=generation, source=source).SerializeToString()
    return head if good_until is None else pb.RecommendResponse(good_until=good_until).SerializeToString() + head


def good_until(response: bytes) -> int | None:
    """Until when a record is good, by its head or a response of it, in seconds since 1970; None where for good."""
    return int(_NUMBER.unpack_from(response, 1)[0]) if response[:1] == _GOOD_UNTIL else None


def is_past(response: bytes, now: float) -> bool:
    """Whether the time until which a record is good is over, by its head or a response of it."""
    return response[:1] == _GOOD_UNTIL and int(_NUMBER.unpack_from(response, 1)[0]) <= now


def track_bytes(found: Found) -> bytes:
    """Write one track as a response holds it."""
    track_id, score, reason = found
    line = pb.RankedTrack(track_id=track_id, score=score, reason_track_id=reason or "")
    track: bytes = pb.RecommendResponse(tracks=[line]).SerializeToString()
    return track


def pack(
    head: bytes,
    tracks: Sequence[bytes],
    rows: Sequence[int] | Int32,
    ends: NDArray[np.integer] | None = None,
    key: bytes = b"",
) -> bytes:
    """Join a head and n tracks with their rows (n,), which are those of the generation's items.

    With ``ends`` (n,) the tracks may be in fewer pieces: it says where each ends. With ``key`` the record is good under
    that key alone, so that no damage to a file's tree passes one user's list for another's.

    Raises:
        ValueError: there are more than 65,535 tracks.
    """
    if len(rows) > MOST:
        raise ValueError(f"a record has {len(rows):,} tracks, expected {MOST:,} at most")
    if ends is None:
        ends = np.cumsum([len(track) for track in tracks], dtype=np.uint32)
    body, m = b"".join(tracks), min(len(rows), FIRST)
    cut = int(ends[m - 1]) if m else 0
    ends, rows = np.asarray(ends, dtype="<u4"), np.asarray(rows, dtype="<i4")
    about = struct.pack("<II", crc32(key) if key else 0, len(head))
    part = b"".join([about, ends[:m].tobytes(), rows[:m].tobytes(), head, body[:cut]])
    rest = b"".join([body[cut:], ends[m:].tobytes(), rows[m:].tobytes()])
    start = _MARK << 16 | len(rows)
    first = crc32(part, start)
    return b"".join([struct.pack("<IIII", start, first, crc32(rest, first), _PART + len(part)), part, rest])


def first_of(buffer: bytes | memoryview, k: int, key: bytes = b"") -> bytes | None:
    """The response with the first k tracks of a record, k from 1; None where it has fewer.

    ``key`` is the one under which the record was found; one that was packed for another is refused.

    Raises:
        DamagedError: what is looked at is not as it was written; of a record of format 1 much cannot be told.
    """
    try:
        start, first, _, stop, of, length_of_head = _START.unpack_from(buffer)
        if start >> 16 == _MARK and k <= FIRST:
            n = start & MOST
            if crc32(buffer[_PART:stop], start) != first or (of and key and crc32(key) != of):
                raise DamagedError(DAMAGED)
            if k > n:
                return None
            at = _ENDS + 8 * (n if n < FIRST else FIRST)
            end = at + length_of_head + _NUMBER.unpack_from(buffer, _ENDS - 4 + 4 * k)[0]
            return bytes(buffer[at:end])
    except struct.error:
        pass  # too short for a record of this format
    record = Record(buffer, key)
    return record.first(k) if k <= record.n else None


_GOOD_UNTIL = pb.RecommendResponse(good_until=1).SerializeToString()[:1]  # the tag, with which such a head begins
PERSONAL = head_of("", "personal")  # with which heads end, as protobuf writes fields in order


class Record:
    """Reads one record from a buffer, which it does not copy: it is good as long as the buffer is.

    The first part is checked at once, the rest when it is looked at; either raises ``DamagedError``.
    """

    __slots__ = ("_at", "_bytes", "_checksum", "_ends", "_m", "_rows", "_stop", "head", "n")

    def __init__(self, buffer: bytes | memoryview, key: bytes = b"") -> None:
        """Look at the start of a record that was found under a key.

        Raises:
            DamagedError: it is not as it was written.
            NewerError: it is of a later format.
        """
        self._bytes = buffer
        self._ends: NDArray[np.uint32] | None = None
        self._rows: Int32 | None = None
        mark = int.from_bytes(buffer[2:4], "little")
        if mark != _MARK:
            if mark & 0xFF == _MARK & 0xFF and mark > _MARK:
                raise NewerError(f"a stored list has the format {mark >> 8}, expected {FORMAT} or less")
            if mark:
                raise DamagedError(DAMAGED)
            self.n, self.head, self._at, self._ends, self._rows = record_v1.read(buffer)
            self._m = self._stop = self._checksum = 0
            return
        try:
            start, first, self._checksum, self._stop, of, length_of_head = _START.unpack_from(buffer)
        except struct.error as error:
            raise DamagedError(DAMAGED) from error
        if crc32(buffer[_PART : self._stop], start) != first or (of and key and crc32(key) != of):
            raise DamagedError(DAMAGED)
        self.n = start & MOST
        self._m = min(self.n, FIRST)
        at = _ENDS + 8 * self._m
        self.head = bytes(buffer[at : at + length_of_head])
        self._at = at + length_of_head

    def _whole(self) -> tuple[NDArray[np.uint32], Int32]:
        """Ends and rows (n,) of all tracks, once the rest is checked."""
        ends, rows = self._ends, self._rows
        if ends is None or rows is None:
            rest, more = self._bytes[self._stop :], self.n - self._m
            first = _NUMBER.unpack_from(self._bytes, 4)[0]
            if crc32(rest, first) != self._checksum or len(rest) < 8 * more:
                raise DamagedError(DAMAGED)
            tail = np.frombuffer(self._bytes, "<u4", 2 * more, len(self._bytes) - 8 * more)
            early = np.frombuffer(self._bytes, "<u4", 2 * self._m, _ENDS)
            ends = self._ends = np.concatenate([early[: self._m], tail[:more]])
            rows = self._rows = np.concatenate([early[self._m :], tail[more:]]).view("<i4")
        return ends, rows

    @property
    def early_rows(self) -> Int32:
        """Item rows of the first tracks, 50 at most, for which the rest is not looked at."""
        if self._rows is not None:
            return self._rows[:FIRST]
        return np.frombuffer(self._bytes, "<i4", self._m, _ENDS + 4 * self._m)

    def first(self, k: int) -> bytes:
        """The response with the first k tracks, or with all where there are fewer."""
        return self.head + self.span(0, min(k, self.n))

    @property
    def is_personal(self) -> bool:
        """Whether the list is a user's own, and not the popular one."""
        return self.head.endswith(PERSONAL)

    @property
    def rows(self) -> Int32:
        """Item rows of the tracks, (n,)."""
        return self._whole()[1]

    @property
    def ends(self) -> NDArray[np.uint32]:
        """Where each track ends, counted from the end of the head: (n,)."""
        return self._whole()[0]

    def tracks(self, places: Iterable[int] | None = None) -> list[bytes]:
        """The bytes of the tracks at some places, all by default."""
        ends = [0, *self.ends.tolist()]
        chosen = range(self.n) if places is None else places
        return [bytes(self._bytes[self._at + ends[place] : self._at + ends[place + 1]]) for place in chosen]

    def span(self, start: int, stop: int) -> bytes:
        """The bytes of the tracks from one place up to another, in one piece."""
        return bytes(self._bytes[self._at + self._end(start) : self._at + self._end(stop)])

    def _end(self, place: int) -> int:
        """Where the track before a place ends."""
        if place == 0:
            return 0
        if place <= self._m:
            return int(_NUMBER.unpack_from(self._bytes, _ENDS - 4 + 4 * place)[0])
        return int(self._whole()[0][place - 1])

    def picked(self, places: Iterable[int]) -> bytes:
        """The response with the tracks at these places, in this order."""
        places, at = list(places), self._at
        n_ends = max(places, default=-1) + 1
        is_early = self._ends is None and n_ends <= self._m
        known = np.frombuffer(self._bytes, "<u4", n_ends, _ENDS) if is_early else self.ends[:n_ends]
        ends = [0, *known.tolist()]
        return b"".join([self.head, *(self._bytes[at + ends[place] : at + ends[place + 1]] for place in places)])

    def found(self) -> list[Found]:
        """Read the tracks: id, score, reason.

        Raises:
            DamagedError: they cannot be read.
        """
        return read_tracks(self.first(self.n))


def is_whole(buffer: bytes | memoryview, key: bytes = b"") -> bool:
    """Whether all of a record is as it was written, under this key."""
    try:
        return len(Record(buffer, key).rows) >= 0
    except DamagedError:
        return False


def read_tracks(response: bytes) -> list[Found]:
    """Read the tracks of a stored response: id, score, reason.

    Raises:
        DamagedError: it is no response: what was stored is at fault, and not who asks.
    """
    try:
        lines = pb.RecommendResponse.FromString(response).tracks
    except DecodeError as error:
        raise DamagedError("a stored list cannot be read") from error
    return [(line.track_id, line.score, line.reason_track_id or None) for line in lines]
