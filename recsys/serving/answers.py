"""What a worker answers from: one generation, with the bytes of its stored lists, and what came since.

    request bytes  ->  Answers.quick  ->  response bytes, in a few microseconds, on the event loop
                   ->  None: it takes more than a look-up  ->  the same question to the Recommender, on a thread

Quick are the stored lists, cut at k, and filters that the 200 stored candidates of a user satisfy: no message is built,
the tracks are slices of what is stored. Everything else is computed.
"""

from collections.abc import Callable

import numpy as np

from recsys.filters import Filters, first_places
from recsys.overlay import Uploads
from recsys.recommender import Recommender
from recsys.serving import calls, convert
from recsys.store.lookup import Lookup
from recsys.store.record import Record
from recsys.types import NO_ITEM
from recsys.v1 import recommender_pb2 as pb

NO_UPLOADS = Uploads.none(1)


class Answers:
    """One generation and what answers from it; nothing changes after construction, so a swap is one assignment."""

    def __init__(self, recommender: Recommender, lookup: Lookup | None = None) -> None:
        """Answer from ``recommender`` and, where it is there, from the stored bytes of the same generation."""
        self.recommender = recommender
        self._lookup = lookup
        self._quick: dict[str, Callable[[bytes], bytes | None]] = {}
        if lookup is not None:
            self._quick = {"Recommend": self._recommend, "SimilarTracks": self._similar}

    def quick(self, method: str) -> Callable[[bytes], bytes | None] | None:
        """Give what answers a method at once, if anything does."""
        return self._quick.get(method)

    def close(self) -> None:
        """Let go of the files."""
        self.recommender.close()

    def _recommend(self, request: bytes) -> bytes | None:
        """Answer Recommend from stored bytes, or not at all."""
        asked = pb.RecommendRequest.FromString(request)
        user_id, k = convert.given_id(asked.user_id, "user_id"), convert.list_length(asked.k)
        assert self._lookup is not None
        stored = self._lookup.list_of(user_id)
        record = Record(self._lookup.popular if stored is None else stored)
        if convert.is_plain(asked):
            if record.n < k:
                return None
            calls.path("plain")
            return record.first(k)
        filters, (max_per_artist, diversity) = convert.filters(asked), convert.variety(asked)
        plain = self.recommender.lists.plain and stored is not None  # a varied list is not in the order of its scores
        if not plain or diversity or filters.include_heard:
            return None
        places = self._places(record, filters, max_per_artist, k)
        if len(places) < k:
            return None
        calls.path("filtered")
        return record.picked(places)

    def _places(self, record: Record, filters: Filters, max_per_artist: int | None, k: int) -> list[int]:
        """Choose places of a stored list that pass the filters."""
        assert self._lookup is not None
        rows, traits = record.rows, self.recommender.traits
        excluded = [self._lookup.row(track_id) for track_id in filters.exclude_track_ids]
        passing = filters.allowed(rows, traits, NO_UPLOADS, np.array(excluded, dtype=np.int32))
        artists = [] if max_per_artist is None else traits.artists[rows].tolist()
        return first_places(passing, [None if a == NO_ITEM else a for a in artists], max_per_artist, k)

    def _similar(self, request: bytes) -> bytes | None:
        """Answer SimilarTracks from stored bytes, or not at all."""
        asked = pb.SimilarTracksRequest.FromString(request)
        track_id = convert.given_id(asked.track_id, "track_id")
        k, space = convert.list_length(asked.k), convert.space(asked.space)
        assert self._lookup is not None
        stored = self._lookup.neighbours_of(track_id, space)
        if stored is None:
            return None
        record = Record(stored)
        if record.n < k:
            return None
        calls.path("plain")
        return record.first(k)


class Current:
    """The answers of the generation that is served now; a call keeps those that it began with."""

    def __init__(self, answers: Answers) -> None:
        """Begin with these."""
        self.answers = answers
