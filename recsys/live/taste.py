"""What a touched user has heard under one generation, and what that makes of them.

    plays of the generation, listens of the log since  ->  Heard  ->  fold-in  ->  Taste: query and standards

Both are kept beside the user's list, so that a further listen reads only itself and not all that came before.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.live.events import Listened
from recsys.overlay import Touched
from recsys.store.keys import key_of
from recsys.store.transactions import Reading, user_key
from recsys.types import NO_ITEM, NOBODY_ID, Float32, Int32

_UP_TO = struct.Struct("<Q")
_STANDARDS = struct.Struct("<iff")
BARRED = -1.0  # plays of a track that the user dislikes


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """Item ``items`` (n,), rising, with their ``plays``, of everything up to number ``up_to`` of the log."""

    items: Int32
    plays: Float32
    up_to: int

    @classmethod
    def read(cls, value: bytes) -> "Heard":
        """Read what ``packed`` wrote."""
        n = (len(value) - _UP_TO.size) // 8
        items = np.frombuffer(value, "<i4", n, _UP_TO.size)
        return cls(items, np.frombuffer(value, "<f4", n, _UP_TO.size + 4 * n), _UP_TO.unpack_from(value)[0])

    def packed(self) -> bytes:
        """Write it."""
        return b"".join(
            [_UP_TO.pack(self.up_to), self.items.astype("<i4").tobytes(), self.plays.astype("<f4").tobytes()]
        )

    def with_listens(self, listens: Sequence[Listened], rows: Int32, up_to: int) -> "Heard":
        """Add listens of tracks at ``rows``, -1 for those that the generation does not know; a dislike is for good."""
        known = rows != NO_ITEM
        plays = np.array([BARRED if one.disliked else one.plays for one in listens], dtype=np.float32)[known]
        items, places = np.unique(np.concatenate([self.items, rows[known]]), return_inverse=True)
        joined = np.concatenate([self.plays, plays])
        sums = np.bincount(places, np.maximum(joined, 0), len(items)).astype(np.float32)
        sums[places[joined == BARRED]] = BARRED
        return Heard(items.astype(np.int32), sums, up_to)

    def __contains__(self, item: int) -> bool:
        """Whether an item was heard or barred."""
        place = int(np.searchsorted(self.items, item))
        return place < len(self.items) and int(self.items[place]) == item

    @property
    def played(self) -> NDArray[np.bool_]:
        """Which of the items were played and are not disliked."""
        return np.asarray(self.plays > 0)


@dataclass(frozen=True, slots=True, eq=False)
class Taste:
    """``row`` of the user or -1, the scores at place 20 and at the last of a full list, and the query (d,)."""

    row: int
    edge: float
    last: float
    query: Float32

    def packed(self) -> bytes:
        """Write it; all of a generation are of one size."""
        return _STANDARDS.pack(self.row, self.edge, self.last) + np.asarray(self.query, "<f4").tobytes()


def known_up_to(reading: Reading, generation: str, key: bytes, applied: int) -> int:
    """Up to which number of the log the list of a user's key takes in what the user heard.

    ``applied`` is the number up to which all lists do; that of a few users may be ahead of the others.
    """
    kept = reading.get("heard", f"{generation}/".encode() + key)
    return applied if kept is None else max(applied, Heard.read(kept).up_to)


def touched_of(reading: Reading, generation: str, taken_in: int, user_id: str) -> Touched:
    """Put together what is known of a user since a generation that took in ``taken_in`` entries."""
    key = user_key(generation, user_id)
    record, is_gone = reading.get("lists", key), reading.user_gone(user_id) > taken_in
    popular, fresh = reading.list_of(generation, NOBODY_ID), _fresh(reading, generation, taken_in, user_id)
    kept, taste = reading.get("heard", key), reading.get("tastes", key)
    if kept is None:
        return Touched(record, is_gone, popular=popular, fresh=fresh)
    heard = Heard.read(kept)
    query = None if taste is None else np.frombuffer(taste, "<f4", offset=_STANDARDS.size)
    played, barred = heard.items[heard.played], heard.items[heard.plays == BARRED]
    return Touched(record, is_gone, query, played, barred, popular, fresh)


def _fresh(reading: Reading, generation: str, taken_in: int, user_id: str) -> dict[str, bool]:
    """Tracks that a user heard or barred and that the list does not take in yet, with whether they were barred."""
    applied = reading.applied(generation)
    up_to = known_up_to(reading, generation, key_of(user_id), taken_in if applied is None else applied)
    if up_to >= reading.last_number():
        return {}
    fresh: dict[str, bool] = {}
    for _, listen in reading.listens_of(user_id, up_to):
        fresh[listen.track_id] = fresh.get(listen.track_id, False) or listen.disliked
    return fresh


@dataclass(frozen=True, slots=True, eq=False)
class Tastes:
    """Many of them, field by field: ``rows``, ``edges``, ``lasts`` (n,), ``queries`` (n, d)."""

    rows: Int32
    edges: Float32
    lasts: Float32
    queries: Float32

    @classmethod
    def read(cls, values: Sequence[bytes], dim: int) -> "Tastes":
        """Read what ``Taste.packed`` wrote."""
        kind = np.dtype([("row", "<i4"), ("edge", "<f4"), ("last", "<f4"), ("query", "<f4", (dim,))])
        table = np.frombuffer(b"".join(values), dtype=kind)
        return cls(table["row"], table["edge"], table["last"], table["query"].reshape(len(table), dim))
