"""What a worker answers from: one generation, with the bytes of its stored lists, and the live store beside it.

    request bytes  ->  QUICK[method]  ->  response bytes, in a few microseconds, on the event loop
                   ->  None: it takes more than a look-up  ->  the same question to the Recommender, on a thread

Quick are the stored lists, cut at k, and filters that the 200 stored candidates of a user satisfy: no message is built,
the tracks are slices of what is stored. Everything else is computed.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Set
from typing import Any, TypeAlias

import lmdb

from recsys.errors import ArtefactError, DamagedError
from recsys.eventlog.events import Clock
from recsys.eventlog.pinned_reader import PinnedUser
from recsys.eventlog.view import LiveView
from recsys.live.service import LiveUpdater
from recsys.ranking.filters import Filters
from recsys.recommender import Recommender
from recsys.serving import call_context, convert
from recsys.store.keys import key_of
from recsys.store.lmdb_lookup import POPULAR, Lookup, space_key
from recsys.store.record import FIRST, Record, first_of, is_past
from recsys.types import ANONYMOUS_ID, NO_ITEM, VECTOR_SPACES
from recsys.v1 import recommender_pb2 as pb

NOBODY_KEY = key_of(ANONYMOUS_ID)
TOLD_S = 60.0  # between two lines of the log about look-ups that fail

_LOG = logging.getLogger(__name__)

RawResponse: TypeAlias = tuple[
    bytes, int
]  # response bytes, and the place in ``calls.PATHS`` of the way they were found
GetPinned: TypeAlias = Callable[[bytes], PinnedUser | None]


def nothing_new(_key: bytes) -> tuple[None, bool, Set[int]]:
    """Say of any user what ``LiveUpdater.get`` says where nothing was written."""
    return None, False, frozenset()


UNCHANGED: tuple[bytes, Set[int]] = (b"", frozenset())  # what ``LiveUpdater.get_near`` says where nothing was written


def nothing_stored(_key: bytes) -> None:
    """Find no list, so that it is looked for elsewhere."""
    return


class FastPath:
    """One generation and what answers from it; a swap to another one is one assignment."""

    def __init__(
        self,
        recommender: Recommender,
        lookup: Lookup | None = None,
        live: LiveUpdater | None = None,
        clock: Clock = time.time,
    ) -> None:
        """Answer from ``recommender`` and, where they are there, from stored bytes and the live store beside it."""
        self._recommender, self._clock = recommender, clock
        self._now: tuple[LiveView | None, Recommender] = None, recommender  # one value, as threads look at it
        self._next = threading.Lock()
        self._told_at = -math.inf
        self.n_failed_lookups = 0
        self._lookup, self.live = lookup, live
        self.damaged = False  # then only what is stored is answered, which has checksums of its own
        self._get_pinned: GetPinned = nothing_new if live is None else live.get
        self._list_at: Callable[[bytes], Any] = nothing_stored if lookup is None else lookup.lists()

    @property
    def recommender(self) -> Recommender:
        """The generation with the current uploads and deletions; for threads, as reading takes milliseconds."""
        self.whole()
        if self.live is None:
            return self._recommender
        view = self.live.view()
        known, recommender = self._now
        if known is not None and (known.seen >= view.seen or known.uploads is view.uploads):
            return recommender
        with self._next:  # of threads that read; the newest view stays, whichever thread comes last
            known, recommender = self._now
            if known is None or known.seen < view.seen:
                recommender = recommender.with_uploads(view.uploads)
                self._now = view, recommender
        return recommender

    def whole(self) -> "FastPath":
        """This, for what is computed or written from the generation's arrays.

        Raises:
            ArtefactError: a file of the generation is damaged.
        """
        if self.damaged:
            raise ArtefactError(f"a file of generation {self.generation} is damaged; roll back or build again")
        return self

    @property
    def generation(self) -> str:
        """Id of the generation."""
        return self._recommender.generation

    def release(self) -> None:
        """Let go of what is kept open for the next call, on the loop: there may be none for long."""
        if self.live is not None:
            self.live.release()

    def retire(self) -> None:
        """Be done with all but the calls that still hold this; on a thread."""
        if self.live is not None:
            self.live.retire()

    def close(self) -> None:
        """Let go of the files."""
        if self.live is not None:
            self.live.close()
        self._recommender.close()

    def refresh(self, user_id: str) -> None:
        """Make a user's list anew where the session that it follows is over; on a thread."""
        if self.live is not None and not self.damaged:
            self.live.refresh(user_id)

    def recommend(self, request: bytes) -> RawResponse | None:
        """Answer Recommend from stored bytes, or not at all; on one thread, the loop's.

        Nearly every call is the first part of this, which is in one piece for speed: calling a function of Python takes
        a microsecond in a server, where gRPC has emptied the processor's caches in between (0.1 µs in a loop).
        """
        plain = convert.plain(request)
        if plain is not None:
            key, k = plain
            looked = self._get_pinned(key)
            if looked is None:
                return None
            own, is_gone, gone = looked
            stored = own
            if stored is None and not is_gone:
                try:
                    stored = self._list_at(key)
                except lmdb.Error as error:
                    self._list_failed(error)
            first = None if stored is None or gone else first_of(stored, k, key)
            if first is not None:
                if own is None:
                    return first, call_context.PLAIN
                return None if is_past(first, self._clock()) else (first, call_context.LIVE)
        return None if self._lookup is None else self._by_message(request)

    def _list_failed(self, error: lmdb.Error) -> None:
        """Count a look-up that failed, and begin anew: the transaction is no more good, other pages may be whole."""
        self.n_failed_lookups += 1
        now = time.monotonic()
        if now >= self._told_at + TOLD_S:
            self._told_at = now
            _LOG.error("a stored list cannot be read (%d times by now): %s", self.n_failed_lookups, error)
        assert self._lookup is not None
        try:
            self._list_at = self._lookup.lists()
        except lmdb.Error:  # looked for elsewhere until the next call fails as well
            self._list_at = self._lookup.list_at

    def _by_message(self, request: bytes) -> RawResponse | None:
        """Answer Recommend whatever was asked for."""
        asked = pb.RecommendRequest.FromString(request)
        user_id, k = convert.given_id(asked.user_id, "user_id"), convert.list_length(asked.k)
        if convert.is_plain(asked):
            return self._first(user_id, k)
        found = self._stored(user_id)
        if found is None:
            return None
        record, _, gone = found
        filters, (max_per_artist, diversity) = convert.filters(asked), convert.variety(asked)
        # a varied list is not in the order of its scores, and the popular one is varied
        if not self._recommender.lists.plain or not record.is_personal or diversity or filters.include_heard:
            return None
        places = self._places(record, filters, max_per_artist, gone, k)
        return None if len(places) < k else (record.picked(places), call_context.FILTERED)

    def _first(self, user_id: str, k: int) -> RawResponse | None:
        """The first k tracks of a user's list that are not deleted."""
        found = self._stored(user_id)
        if found is None:
            return None
        record, way, gone = found
        if not gone:
            return None if k > record.n else (record.first(k), way)
        places = [place for place, row in enumerate(record.rows.tolist()) if row not in gone][:k]
        return None if len(places) < k else (record.picked(places), way)

    def _stored(self, user_id: str) -> tuple[Record, int, Set[int]] | None:
        """Find a user's list: the current one, the stored one, or for somebody unknown the popular one.

        Beside it the way that they were found, and the rows of deleted tracks. None where it takes a thread.

        Raises:
            DamagedError: it is damaged, or a user of this generation is not found; then the list is to be computed.
        """
        assert self._lookup is not None
        key = key_of(user_id)
        looked = self._get_pinned(key)
        if looked is None:
            return None
        own, is_gone, gone = looked
        if own is not None:
            record = Record(own)
            return None if is_past(record.head, self._clock()) else (record, call_context.LIVE, gone)
        stored = None if is_gone else self._lookup.list_at(key)
        if stored is not None:
            return Record(stored, key), call_context.PLAIN, gone
        if not is_gone and self._recommender.model.users.find([user_id])[0] != NO_ITEM:
            raise DamagedError("serving.lmdb does not find a user that it must hold")
        nobody = self._get_pinned(NOBODY_KEY)
        if nobody is None:
            return None
        popular = nobody[0]
        if popular is None:
            return Record(self._lookup.popular, POPULAR), call_context.PLAIN, gone
        return Record(popular), call_context.LIVE, gone

    def _places(
        self, record: Record, filters: Filters, max_per_artist: int | None, gone: Set[int], k: int
    ) -> list[int]:
        """Choose places of a list that pass the filters; none where uploads are among them: they are not numbers."""
        ids, excluded = filters.exclude_track_ids, gone
        if ids:
            excluded = {*self._recommender.model.items.find(ids).tolist(), *gone}
        places = filters.first(record.early_rows.tolist(), self._recommender.attributes, excluded, max_per_artist, k)
        if places is not None and len(places) < k and record.n > FIRST:  # the first do not do
            places = filters.first(record.rows.tolist(), self._recommender.attributes, excluded, max_per_artist, k)
        return places or []

    def similar_tracks(self, request: bytes) -> RawResponse | None:
        """Answer SimilarTracks from stored bytes, or not at all."""
        if self._lookup is None:
            return None
        asked = pb.SimilarTracksRequest.FromString(request)
        track_id = convert.given_id(asked.track_id, "track_id")
        k, space = convert.list_length(asked.k), convert.space(asked.space)
        looked = UNCHANGED if self.live is None else self.live.get_near(key_of(track_id), space)
        if looked is None:
            return None
        own, hidden = looked
        stored = own or self._lookup.neighbours_of(track_id, space)
        if stored is None:
            return None
        way, at = (call_context.LIVE, b"") if own else (call_context.PLAIN, space_key(space) + key_of(track_id))
        is_all = space not in VECTOR_SPACES  # that there is, so that a shorter list is the answer
        if is_all:
            k = min(k, Record(stored, at).n)
        rows = Record(stored, at).rows.tolist() if hidden else []
        if not hidden or hidden.isdisjoint(rows[:k]):
            first = first_of(stored, k, at)
        else:
            places = [place for place, row in enumerate(rows) if row not in hidden][:k]
            first = None if len(places) < k and not is_all else Record(stored, at).picked(places)
        return None if first is None else (first, way)


# Methods that stored bytes may answer.
QUICK: dict[str, Callable[[FastPath, bytes], RawResponse | None]] = {
    "Recommend": FastPath.recommend,
    "SimilarTracks": FastPath.similar_tracks,
}


class ServingState:
    """The answers of the generation that is served now; a call keeps those that it began with."""

    def __init__(self, answers: FastPath) -> None:
        """Begin with these."""
        self.answers = answers
