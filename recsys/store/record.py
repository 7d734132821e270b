"""A stored answer: the bytes of a response, cut where its tracks end, so that any first part of it is a response too.

    head (generation, source), tracks  ->  pack  ->  Record  ->  first(k), picked(places)  ->  bytes to send

Fields of a protobuf message may come in any order and repeated ones just follow each other, so a head and any of the
tracks, one after another, are a whole RecommendResponse or SimilarTracksResponse (they number these fields alike), and
answering is slicing. Beside the bytes stand the rows of the tracks, for filters.

    u32 n | u32 length of the head | u32 ends of tracks (n,) after the head | i32 rows (n,) | head | tracks
"""

import struct
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.types import Found, Int32
from recsys.v1 import recommender_pb2 as pb

_START = struct.Struct("<II")
_NUMBER = struct.Struct("<I")


def head_of(generation: str, source: str) -> bytes:
    """Write what stands before the tracks."""
    head: bytes = pb.RecommendResponse(generation=generation, source=source).SerializeToString()
    return head


def track_bytes(found: Found) -> bytes:
    """Write one track as a response holds it."""
    track_id, score, reason = found
    line = pb.RankedTrack(track_id=track_id, score=score, reason_track_id=reason or "")
    track: bytes = pb.RecommendResponse(tracks=[line]).SerializeToString()
    return track


def pack(
    head: bytes, tracks: Sequence[bytes], rows: Sequence[int] | Int32, ends: NDArray[np.integer] | None = None
) -> bytes:
    """Join a head and n tracks with their rows (n,), which are those of the generation's items.

    With ``ends`` (n,) the tracks may be in fewer pieces: it says where each ends.
    """
    if ends is None:
        ends = np.cumsum([len(track) for track in tracks], dtype=np.uint32)
    numbers = [ends.astype("<u4").tobytes(), np.asarray(rows, dtype="<i4").tobytes()]
    return b"".join([_START.pack(len(rows), len(head)), *numbers, head, *tracks])


def first_of(buffer: bytes | memoryview, k: int) -> bytes | None:
    """Give the response with the first k tracks of a record, k from 1; None where it has fewer."""
    n, length_of_head = _START.unpack_from(buffer)
    if k > n:
        return None
    body = 8 + 8 * n
    end = body + length_of_head + _NUMBER.unpack_from(buffer, 4 + 4 * k)[0]
    return bytes(buffer[body:end])


PERSONAL = head_of("", "personal")  # with which heads end, as protobuf writes fields in order


class Record:
    """Reads one record from a buffer, which it does not copy: it is good as long as the buffer is."""

    __slots__ = ("_body", "_bytes", "_length_of_head", "n")

    def __init__(self, buffer: bytes | memoryview) -> None:
        """Look at the start of a record."""
        self._bytes = buffer
        self.n, self._length_of_head = _START.unpack_from(buffer)
        self._body = 8 + 8 * self.n

    def first(self, k: int) -> bytes:
        """Give the response with the first k tracks, or with all where there are fewer."""
        return (first_of(self._bytes, min(k, self.n)) or self.head) if k else self.head

    @property
    def head(self) -> bytes:
        """What stands before the tracks."""
        return bytes(self._bytes[self._body : self._body + self._length_of_head])

    @property
    def is_personal(self) -> bool:
        """Whether the list is a user's own, and not the popular one."""
        return self.head.endswith(PERSONAL)

    @property
    def rows(self) -> Int32:
        """Item rows of the tracks, (n,)."""
        return np.frombuffer(self._bytes, dtype="<i4", count=self.n, offset=8 + 4 * self.n)

    @property
    def ends(self) -> NDArray[np.uint32]:
        """Where each track ends, counted from the end of the head: (n,)."""
        return np.frombuffer(self._bytes, dtype="<u4", count=self.n, offset=8)

    def tracks(self, places: Iterable[int] | None = None) -> list[bytes]:
        """Give the bytes of the tracks at some places, all by default."""
        ends = [0, *self.ends.tolist()]
        start = self._body + self._length_of_head
        chosen = range(self.n) if places is None else places
        return [bytes(self._bytes[start + ends[place] : start + ends[place + 1]]) for place in chosen]

    def span(self, start: int, stop: int) -> bytes:
        """Give the bytes of the tracks from one place up to another, in one piece."""
        body = self._body + self._length_of_head
        first = _NUMBER.unpack_from(self._bytes, 4 + 4 * start)[0] if start else 0
        last = _NUMBER.unpack_from(self._bytes, 4 + 4 * stop)[0] if stop else 0
        return bytes(self._bytes[body + first : body + last])

    def picked(self, places: Iterable[int]) -> bytes:
        """Give the response with the tracks at these places, in this order."""
        places, start = list(places), self._body + self._length_of_head
        ends = [0, *np.frombuffer(self._bytes, dtype="<u4", count=max(places, default=-1) + 1, offset=8).tolist()]
        parts = [self._bytes[start + ends[place] : start + ends[place + 1]] for place in places]
        return b"".join([self.head, *parts])

    def found(self) -> list[Found]:
        """Read the tracks: id, score, reason."""
        response = pb.RecommendResponse.FromString(self.first(self.n))
        return [(line.track_id, line.score, line.reason_track_id or None) for line in response.tracks]
