"""New tracks into the lists of those who would like them most, at their place by score.

    Snapshot, numbers of uploads  ->  inserts_of, while others write  ->  TrackInsert  ->  write, some readers at a time

To write the same twice changes nothing. Users of the generation are scored in blocks; those who listened since have
their own, newer queries. Nobody but the users who are reached is looked at one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from recsys.errors import DamagedError
from recsys.eventlog.snapshot import Snapshot
from recsys.eventlog.transactions import USER, ReadTxn, WriteTxn, user_key
from recsys.eventlog.user_state import LastPlays, UserStates, is_readable, known, query_of
from recsys.live.list_edit import inserted, score_at
from recsys.live.stored_lists import StoredLists
from recsys.ranking.audience import Reached, reach
from recsys.ranking.catalogue_view import CatalogueView
from recsys.ranking.next_lists import Listener
from recsys.store.damage import met
from recsys.store.record import Record, good_until, is_whole, track_bytes
from recsys.types import DEFAULT_K, NO_ITEM, Float32, Int32

TOGETHER = 16  # tracks scored in one pass over the users
BLOCK = 65_536  # touched users at a time


@dataclass(frozen=True, slots=True)
class Reader:
    """A user whom a track reaches: ``key`` of the list, ``row`` and id of one who is touched by no listen yet.

    ``reason`` is the row of the heard track that speaks for it, -1 where there is none.
    """

    key: bytes
    row: int
    user_id: str | None
    score: float
    reason: int = NO_ITEM


@dataclass(frozen=True, slots=True, eq=False)
class TrackInsert:
    """An upload, by its number and row, and the readers that it is to reach, best first."""

    seq: int
    row: int
    catalogue: CatalogueView
    readers: Sequence[Reader]

    def write(self, writing: WriteTxn, stored: StoredLists, readers: Sequence[Reader]) -> int:
        """Put the track into the lists of some of its readers, as those are now; returns how many have it then."""
        track_id, vector = self.catalogue.id(self.row), self.catalogue.vectors_of([self.row])[0]
        plain, n_reached = stored.lists.usual(personal=True).plain, 0
        for reader in readers:
            current = self._current(writing, stored, reader)
            score = None if current is None else self._score(writing, stored, reader, vector, current)
            if current is None or score is None:
                continue
            reason = None if reader.reason == NO_ITEM else self.catalogue.id(reader.reason)
            changed = inserted(current, track_bytes((track_id, score, reason)), self.row, score, plain)
            if changed is not None:
                writing.put("lists", reader.key, changed)
            n_reached += changed is not None or (is_whole(current) and self.row in Record(current).rows)
        return n_reached

    def _current(self, writing: WriteTxn, stored: StoredLists, reader: Reader) -> bytes | None:
        """The list of a reader as it is now; None where there is none any more, or the track was heard or barred."""
        kept = writing.get("heard", reader.key)
        heard = None if kept is None else known(kept)
        if kept is not None and (heard is None or self.row in heard):  # what is damaged may say so
            return None
        current = writing.get("lists", reader.key)
        if current is not None or reader.user_id is None or writing.user_gone(reader.user_id) > stored.applied_seq:
            return current
        return stored.record_of(reader.user_id)

    def _score(
        self, writing: WriteTxn, stored: StoredLists, reader: Reader, vector: Float32, current: bytes
    ) -> float | None:
        """The score in a reader's list as it is now; None where it comes behind the last place of a full one by taste.

        A list that follows the last plays is in the order of other scores than those of the taste.
        """
        taste = writing.get("tastes", reader.key)
        if taste is None:
            return _placed(reader, stored, current)
        try:
            query_of(taste)
        except DamagedError as error:
            met(error, "it is made anew when the user listens")
            return None
        now = UserStates.read([taste], len(vector))
        score = float(np.asarray(now.queries @ vector[:, None], dtype=np.float32)[0, 0])
        if score <= now.score_at_last[0]:
            return None
        ranking, kept = stored.next_ranking(self.catalogue), writing.get("heard", reader.key)
        heard = None if kept is None else known(kept)
        recent = LastPlays.none() if heard is None else heard.recent(self.catalogue.hidden)
        if ranking is None or not len(recent) or not is_whole(current):
            return score
        in_session = good_until(Record(current).head) is not None
        listener = Listener(now.queries[0], recent.items, in_session)
        return float(ranking.best(listener, ranking.query(listener), np.array([self.row], np.int32))[1][0])


def _placed(reader: Reader, stored: StoredLists, current: bytes) -> float:
    """The score in the stored list of somebody untouched, for the score by all plays.

    A list that follows the last plays has other scores, which take some milliseconds for each of a thousand readers. So
    the score is carried over by what both lists have at places 20 and last: as far above the one as it was, measured by
    how far apart they are. The user's next listen, or the next build, places the track for good.
    """
    if not stored.follows(reader.row) or not is_whole(current):
        return reader.score
    record = Record(current)
    if record.n <= DEFAULT_K:
        return reader.score
    edge, last = score_at(record, DEFAULT_K - 1), score_at(record, record.n - 1)
    by_all, its_last = float(stored.score_at_20[reader.row]), float(stored.score_at_last[reader.row])
    if not np.isfinite(by_all):
        return reader.score
    spread = by_all - its_last
    times = max(edge - last, 0.0) / spread if np.isfinite(spread) and spread > 0 else 1.0  # of a small catalogue
    return edge + (reader.score - by_all) * times


def inserts_of(
    reading: ReadTxn, stored: StoredLists, snapshot: Snapshot, seqs: Sequence[int], most: int
) -> list[TrackInsert]:
    """Find whom uploads reach.

    Args:
        reading: a state of the log.
        stored: lists of the generation.
        snapshot: knows at least what the reading does.
        seqs: of the uploads; hidden ones reach nobody.
        most: users that a track reaches, at most.

    Returns:
        One for each, in their order.
    """
    catalogue, found = snapshot.catalogue, []
    uploads = [next(reading.uploads(seq - 1))[1] for seq in seqs]
    places = [snapshot.uploads.place_of(upload.track_id) for upload in uploads]
    for start in range(0, len(places), TOGETHER):
        together = places[start : start + TOGETHER]
        reached = _reached(reading, stored, snapshot.uploads.item_vectors[together], most)
        for seq, place, readers in zip(seqs[start:], together, reached, strict=False):
            row = catalogue.n_built + place
            # a track of which nothing is known would be placed by chance
            is_left_out = place == NO_ITEM or place in snapshot.uploads.hidden or snapshot.uploads.is_unknown(place)
            shown = [] if is_left_out else readers
            reasons = _reasons(reading, stored, catalogue, row, shown)
            explained = [replace(reader, reason=reason) for reader, reason in zip(shown, reasons, strict=True)]
            found.append(TrackInsert(seq, row, catalogue, explained))
    return found


def _reached(reading: ReadTxn, stored: StoredLists, vectors: Float32, most: int) -> list[list[Reader]]:
    """Find the readers of each track, those with the largest margins first."""
    model = stored.model
    left_out = np.zeros(len(model.users), dtype=bool)
    left_out[_known(model.users.find(reading.gone(USER, stored.applied_seq)))] = True
    prefix = user_key(stored.generation, None)
    pairs, keys = reading.pairs("tastes", prefix=prefix), list[bytes]()
    touched = [Reached.nobody()] * len(vectors)
    while block := list(islice(pairs, BLOCK)):
        block = [(key, value) for key, value in block if is_readable(value, vectors.shape[1])]
        tastes = UserStates.read([value for _, value in block], vectors.shape[1])
        left_out[_known(tastes.rows[tastes.rows < len(left_out)])] = True
        with np.errstate(all="ignore"):  # of damaged ones, which are found out when they are to be written
            scores = np.asarray(tastes.queries @ vectors.T, dtype=np.float32)
        margins = np.where(
            scores > tastes.score_at_last[:, None], scores - tastes.score_at_20[:, None], -np.inf
        ).astype(np.float32)
        numbers = np.arange(len(keys), len(keys) + len(block), dtype=np.int32)
        touched = [best.merged(numbers, margins[:, at], scores[:, at], most) for at, best in enumerate(touched)]
        keys += [key for key, _ in block]
    users = reach(model, vectors, stored.score_at_20, stored.score_at_last, left_out, most)
    return [_joined(stored, keys, *both, most) for both in zip(users, touched, strict=True)]


def _joined(stored: StoredLists, keys: list[bytes], users: Reached, touched: Reached, most: int) -> list[Reader]:
    """The best of both kinds of users; of equal ones those of the generation."""
    order = np.argsort(-np.concatenate([users.margins, touched.margins]), kind="stable")[:most].tolist()
    ids = stored.model.users.ids(users.rows)
    readers = [
        Reader(user_key(stored.generation, user_id), row, user_id, score)
        for user_id, row, score in zip(ids, users.rows.tolist(), users.scores.tolist(), strict=True)
    ]
    readers += [
        Reader(keys[number], NO_ITEM, None, score)
        for number, score in zip(touched.rows.tolist(), touched.scores.tolist(), strict=True)
    ]
    return [readers[at] for at in order]


def _reasons(
    reading: ReadTxn, stored: StoredLists, catalogue: CatalogueView, row: int, readers: list[Reader]
) -> list[int]:
    """For each reader the row of the heard track that is most like the new one, -1 where there is none."""
    heard = [_heard(reading, stored, reader) for reader in readers]
    items, places = np.unique(np.concatenate([*heard, np.zeros(0, np.int32)]), return_inverse=True)
    blend = stored.model.blend
    alike = blend.likeness(catalogue.vectors_of(items)) @ blend.likeness(catalogue.vectors_of([row]))[0]
    alike[np.isin(items, catalogue.hidden)] = -np.inf
    found, start = [], 0
    for rows in heard:
        own = alike[places[start : start + len(rows)]]
        start += len(rows)
        best = int(np.argmax(own)) if len(own) else NO_ITEM
        found.append(int(rows[best]) if best != NO_ITEM and np.isfinite(own[best]) else NO_ITEM)
    return found


def _heard(reading: ReadTxn, stored: StoredLists, reader: Reader) -> Int32:
    if reader.user_id is not None:
        return stored.model.heard(reader.row)
    kept = reading.get("heard", reader.key)
    if kept is None:
        return np.zeros(0, dtype=np.int32)
    heard = known(kept)
    if heard is None:
        return np.zeros(0, dtype=np.int32)
    return np.asarray(heard.items[heard.played], dtype=np.int32)


def _known(rows: Int32) -> Int32:
    return np.asarray(rows[rows != NO_ITEM], dtype=np.int32)
