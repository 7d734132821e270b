"""What a touched user has heard under one generation, and what that makes of them.

    plays of the generation, listens of the log since  ->  UserHistory  ->  fold-in  ->  UserState: query and standards

Both are kept beside the user's list, so that a further listen reads only itself and not all that came before. They are
sealed with a format number and a checksum (``recsys.store.sealed``); those of format 1 have neither, and histories of
formats 1 and 2 do not know the order of plays.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from recsys.catalogue.histories import LAST_SECOND
from recsys.errors import DamagedError, NewerError
from recsys.eventlog.events import Listened
from recsys.eventlog.transactions import ReadTxn, user_key
from recsys.ranking.catalogue_view import UserDelta
from recsys.store.damage import met
from recsys.store.keys import key_of
from recsys.store.record import Record, is_past, is_whole
from recsys.store.sealed import SIZE, is_sealed, sealed, unsealed
from recsys.types import ANONYMOUS_ID, HISTORY, NO_ITEM, Float32, Int32

FORMAT = 3  # of what a user heard
WITHOUT_ORDER = 2  # the format of before, which keeps no order of plays
TASTE_FORMAT = 2
_UP_TO = struct.Struct("<Q")
_UP_TO_AND_LAST = struct.Struct("<QI")
_STANDARDS = struct.Struct("<iff")
BARRED = -1.0  # plays of a track that the user dislikes


@dataclass(frozen=True, slots=True, eq=False)
class LastPlays:
    """Item rows ``items`` (n,) of a user's last plays, n <= ``HISTORY``, and their ``seconds`` since 1970.

    They stand in the order of time, the latest last, those of one second in the order in which they came.
    """

    items: Int32
    seconds: NDArray[np.uint32]

    def __len__(self) -> int:
        """Count them."""
        return len(self.items)

    def only(self, kept: NDArray[np.bool_]) -> "LastPlays":
        """Those that are marked, (n,)."""
        return LastPlays(self.items[kept], self.seconds[kept])

    def later(self, other: "LastPlays") -> "LastPlays":
        """The last of these and of others, which came after them, whatever their times are."""
        items, seconds = np.concatenate([self.items, other.items]), np.concatenate([self.seconds, other.seconds])
        order = np.argsort(seconds, kind="stable")[-HISTORY:]
        return LastPlays(items[order], seconds[order])

    @classmethod
    def none(cls) -> "LastPlays":
        """Those of somebody of whose plays no time is known."""
        return cls(np.zeros(0, np.int32), np.zeros(0, np.uint32))


@dataclass(frozen=True, slots=True, eq=False)
class UserHistory:
    """Item ``items`` (n,), rising, with their ``plays``, of everything up to number ``up_to`` of the log.

    ``last`` are the last plays in their order; None where a value of an earlier format does not know them.
    """

    items: Int32
    plays: Float32
    up_to: int
    last: LastPlays | None = field(default_factory=LastPlays.none)

    @classmethod
    def read(cls, value: bytes) -> "UserHistory":
        """Read what ``packed`` wrote.

        Raises:
            DamagedError: it is not as it was written.
            NewerError: it is of a later format.
        """
        if not is_sealed(value):
            return cls._without_order(value)
        number = value[0]
        if number == WITHOUT_ORDER:
            return cls._without_order(unsealed(value, WITHOUT_ORDER, "what a user heard"))
        value = unsealed(value, FORMAT, "what a user heard")
        if len(value) < _UP_TO_AND_LAST.size:
            raise DamagedError("what a user heard is of a length that it cannot have")
        up_to, n_last = _UP_TO_AND_LAST.unpack_from(value)
        n, over = divmod(len(value) - _UP_TO_AND_LAST.size - 8 * n_last, 8)
        if n < 0 or over:
            raise DamagedError("what a user heard is of a length that it cannot have")
        at = _UP_TO_AND_LAST.size
        items, plays = np.frombuffer(value, "<i4", n, at), np.frombuffer(value, "<f4", n, at + 4 * n)
        at += 8 * n
        last = LastPlays(np.frombuffer(value, "<i4", n_last, at), np.frombuffer(value, "<u4", n_last, at + 4 * n_last))
        return cls(items, plays, up_to, last)

    @classmethod
    def _without_order(cls, value: bytes) -> "UserHistory":
        n, over = divmod(len(value) - _UP_TO.size, 8)
        if n < 0 or over:
            raise DamagedError("what a user heard is of a length that it cannot have")
        items = np.frombuffer(value, "<i4", n, _UP_TO.size)
        return cls(items, np.frombuffer(value, "<f4", n, _UP_TO.size + 4 * n), _UP_TO.unpack_from(value)[0], None)

    def packed(self) -> bytes:
        """Write it: 12 bytes, 8 for each track and 8 for each of the last plays, and the seal."""
        last = self.last or LastPlays.none()
        numbers = [
            _UP_TO_AND_LAST.pack(self.up_to, len(last)),
            self.items.astype("<i4").tobytes(),
            self.plays.astype("<f4").tobytes(),
            last.items.astype("<i4").tobytes(),
            last.seconds.astype("<u4").tobytes(),
        ]
        return sealed(FORMAT, b"".join(numbers))

    def with_listens(self, listens: Sequence[Listened], rows: Int32, up_to: int) -> "UserHistory":
        """Add listens of tracks at ``rows``, -1 for those that the generation does not know; a dislike is for good.

        Plays of what is disliked leave the order. Where some do, the plays that they had pushed out are missing: see
        ``loses_plays``.
        """
        known = rows != NO_ITEM
        plays = np.array([BARRED if one.disliked else one.plays for one in listens], dtype=np.float32)[known]
        items, places = np.unique(np.concatenate([self.items, rows[known]]), return_inverse=True)
        joined = np.concatenate([self.plays, plays])
        sums = np.bincount(places, np.maximum(joined, 0), len(items)).astype(np.float32)
        sums[places[joined == BARRED]] = BARRED
        if self.last is None:
            return UserHistory(items.astype(np.int32), sums, up_to, None)
        seconds = np.array([second_of(one) for one in listens], np.uint32)[known]
        barred = items[sums == BARRED]
        fresh = LastPlays(rows[known].astype(np.int32), seconds)
        last = self.last.only(~np.isin(self.last.items, barred)).later(fresh.only(~np.isin(fresh.items, barred)))
        return UserHistory(items.astype(np.int32), sums, up_to, last)

    def recent(self, hidden: Int32) -> LastPlays:
        """The last plays of tracks that are not hidden; none where their order is not known."""
        return LastPlays.none() if self.last is None else self.last.only(~np.isin(self.last.items, hidden))

    def loses_plays(self, listens: Sequence[Listened], rows: Int32) -> bool:
        """Whether listens at ``rows`` bar tracks of the last plays, so that older plays come back in their places."""
        barred = rows[[one.disliked for one in listens]]
        return self.last is not None and bool(np.isin(self.last.items, barred).any())

    def __contains__(self, item: int) -> bool:
        """Whether an item was heard or barred."""
        place = int(np.searchsorted(self.items, item))
        return place < len(self.items) and int(self.items[place]) == item

    @property
    def played(self) -> NDArray[np.bool_]:
        """Which of the items were played and are not disliked."""
        return np.asarray(self.plays > 0)


def second_of(listen: Listened) -> int:
    """When a listen was heard, in seconds since 1970."""
    time = datetime.fromisoformat(listen.at)
    return min(max(int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()), 0), LAST_SECOND)


def known(value: bytes) -> UserHistory | None:
    """Read what a user heard; None, and it is told, where that is damaged: the generation and the log know it, too."""
    try:
        return UserHistory.read(value)
    except DamagedError as error:
        met(error, "it is made anew from the generation and the log")
        return None


@dataclass(frozen=True, slots=True, eq=False)
class UserState:
    """``row`` of the user or -1, the scores at place 20 and at the last of a full list, and the query (d,)."""

    row: int
    edge: float
    last: float
    query: Float32

    def packed(self) -> bytes:
        """Write it; all of a generation are of one size."""
        numbers = _STANDARDS.pack(self.row, self.edge, self.last) + np.asarray(self.query, "<f4").tobytes()
        return sealed(TASTE_FORMAT, numbers)


def known_up_to(reading: ReadTxn, generation: str, key: bytes, applied: int) -> int:
    """Up to which number of the log the list of a user's key takes in what the user heard.

    ``applied`` is the number up to which all lists do; that of a few users may be ahead of the others.
    """
    kept = reading.get("heard", f"{generation}/".encode() + key)
    heard = None if kept is None else known(kept)  # one that is damaged takes nothing in for sure
    return applied if heard is None else max(applied, heard.up_to)


def delta_of(
    reading: ReadTxn, generation: str, applied_seq: int, user_id: str, now: float, session_gap_s: int
) -> UserDelta:
    """Put together what is known of a user since a generation that took in ``applied_seq`` entries.

    A damaged list is left out and told: it can be computed, as one can whose time was over by ``now``, in seconds since
    1970. A session of listening ends with a pause of more than ``session_gap_s`` seconds.

    Raises:
        DamagedError: what they heard, or their taste, is damaged.
    """
    key = user_key(generation, user_id)
    record, is_gone = reading.get("lists", key), reading.user_gone(user_id) > applied_seq
    fresh = _fresh(reading, generation, applied_seq, user_id)
    kept, taste = reading.get("heard", key), reading.get("tastes", key)
    popular = reading.list_of(generation, ANONYMOUS_ID)
    lists = record, popular
    record, popular = (None if one is None or not is_whole(one) else one for one in lists)
    lost = (record, popular) != lists
    if lost:
        met(DamagedError("a list of live.lmdb does not match its checksum"), "it is computed until it is written anew")
    if record is not None and is_past(Record(record).head, now):
        record, lost = None, True
    if kept is None:
        return UserDelta(record, is_gone, popular=popular, fresh=fresh, lost=lost and record is None)
    heard = UserHistory.read(kept)
    query = None if taste is None else query_of(taste)
    played, barred = heard.items[heard.played], heard.items[heard.plays == BARRED]
    last = heard.last or LastPlays.none()
    in_session = len(last) > 0 and int(now) - int(last.seconds[-1]) <= session_gap_s
    lost = lost and record is None
    return UserDelta(record, is_gone, query, played, barred, popular, fresh, lost, last.items, in_session)


def _fresh(reading: ReadTxn, generation: str, applied_seq: int, user_id: str) -> dict[str, bool]:
    """Tracks that a user heard or barred and that the list does not take in yet, with whether they were barred."""
    applied = reading.applied(generation)
    up_to = known_up_to(reading, generation, key_of(user_id), applied_seq if applied is None else applied)
    if up_to >= reading.last_seq():
        return {}
    fresh: dict[str, bool] = {}
    for _, listen in reading.listens_of(user_id, up_to):
        fresh[listen.track_id] = fresh.get(listen.track_id, False) or listen.disliked
    return fresh


def query_of(taste: bytes) -> Float32:
    """Read the query (d,) of what ``UserState.packed`` wrote.

    Raises:
        DamagedError: it is not as it was written.
    """
    if is_sealed(taste):
        taste = unsealed(taste, TASTE_FORMAT, "a user's taste")
    if len(taste) < _STANDARDS.size:
        raise DamagedError("a user's taste is shorter than it must be")
    return np.frombuffer(taste, "<f4", offset=_STANDARDS.size)


def is_readable(taste: bytes, dim: int) -> bool:
    """Whether a taste has the format and the length that it must have; where not it is damaged, which is told.

    Raises:
        NewerError: it is whole, and of a later format.
    """
    size = _STANDARDS.size + 4 * dim
    if len(taste) == size or (len(taste) == size + SIZE and taste[0] == TASTE_FORMAT):
        return True
    try:
        query_of(taste)
        raise DamagedError("a user's taste is of a length that it cannot have")
    except DamagedError as error:
        met(error, "it is made anew when the user listens")
        return False


@dataclass(frozen=True, slots=True, eq=False)
class UserStates:
    """Many of them, field by field: ``rows``, ``score_at_20``, ``score_at_last`` (n,), ``queries`` (n, d)."""

    rows: Int32
    score_at_20: Float32
    score_at_last: Float32
    queries: Float32

    @classmethod
    def read(cls, values: Sequence[bytes], dim: int) -> "UserStates":
        """Read what ``UserState.packed`` wrote; the formats are looked at, the checksums, of so many, are not.

        Raises:
            DamagedError: one is of another length than those of ``dim`` are.
            NewerError: one is of a later format.
        """
        kind = np.dtype([("row", "<i4"), ("edge", "<f4"), ("last", "<f4"), ("query", "<f4", (dim,))])
        if any(is_sealed(value) and value[0] > TASTE_FORMAT for value in values):
            raise NewerError(f"a user's taste has a later format, expected {TASTE_FORMAT} or less")
        plain = [value[SIZE:] if is_sealed(value) else value for value in values]
        if any(len(value) != kind.itemsize for value in plain):
            raise DamagedError("a user's taste is of a length that it cannot have")
        table = np.frombuffer(b"".join(plain), dtype=kind)
        return cls(table["row"], table["edge"], table["last"], table["query"].reshape(len(table), dim))
