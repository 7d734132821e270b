"""A touched user's list: folded in again from all that they heard, chosen from a few hundred candidates.

    generation's plays, log  ->  UserHistory  ->  user vector  ->  candidates scored  ->  200 best with reasons  ->
    UpdatedUser

It is computed in a read transaction, while others write, and written in a short one if its user's state is still that.

Candidates are the list as it is, the neighbours of what was just heard, and the uploads; in a small catalogue they are
all tracks. Where the order of plays tells something, what lies near the last plays joins them, and all are ranked by
what comes next (``recsys.ranking.next_lists``); a list that counts on the session that goes on says until when it does.
Plain numpy, as everything that a server does.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsys.eventlog.events import Listened
from recsys.eventlog.snapshot import Snapshot
from recsys.eventlog.transactions import ReadTxn, WriteTxn, user_key
from recsys.eventlog.user_state import BARRED, UserHistory, UserState, known
from recsys.hybrid.foldin import fold_in
from recsys.hybrid.following import latest
from recsys.live.list_edit import without
from recsys.live.stored_lists import StoredLists
from recsys.ranking.catalogue_view import CatalogueView
from recsys.ranking.diversity import Source, choose
from recsys.ranking.filters import artists_of
from recsys.ranking.next_lists import Listener, NextRanking
from recsys.ranking.ranker import most_alike
from recsys.store.record import Record, head_of, is_whole, pack, track_bytes
from recsys.types import DEFAULT_K, MAX_K, NO_ITEM, Float32, Int32
from recsys.util.topk import behind_all, exact, ranked

EXACT_BELOW = 20_000  # tracks; all of fewer are candidates, which costs a few milliseconds
JUST_HEARD = 50  # tracks, the latest ones, whose neighbours are candidates


@dataclass(frozen=True, slots=True, eq=False)
class UpdatedUser:
    """What follows for one user from a state of the log: values by database, None for those that are taken away.

    ``state`` is what the user's list, heard tracks and last deletion were when it was computed.
    """

    user_id: str
    key: bytes
    values: Mapping[str, bytes | None]
    state: tuple[bytes | None, bytes | None, int]

    def write(self, writing: WriteTxn) -> bool:
        """Write it; False, with nothing written, where the user's state is another one by now."""
        if _state(writing, self.key, self.user_id) != self.state:
            return False
        for database, value in self.values.items():
            if value is None:
                writing.delete(database, self.key)
            else:
                writing.put(database, self.key, value)
        return True


def _state(reading: ReadTxn, key: bytes, user_id: str) -> tuple[bytes | None, bytes | None, int]:
    return reading.get("lists", key), reading.get("heard", key), reading.user_gone(user_id)


class UserUpdate:
    """Makes lists of users under one generation with the uploads of one snapshot, as of ``now``, seconds since 1970."""

    def __init__(self, stored: StoredLists, snapshot: Snapshot, now: float) -> None:
        self._stored, self._snapshot, self._model = stored, snapshot, stored.model
        self._catalogue, self._now = snapshot.catalogue, now

    def __call__(self, reading: ReadTxn, user_id: str) -> UpdatedUser:
        """Make the list, the taste and what was heard of a user; none of them where nothing is known any more.

        The snapshot knows at least what the reading does.
        """
        key = user_key(self._stored.generation, user_id)
        return UpdatedUser(user_id, key, self._values(reading, user_id), _state(reading, key, user_id))

    def _values(self, reading: ReadTxn, user_id: str) -> dict[str, bytes | None]:
        user = _row_of(reading, self._stored, user_id)
        heard, fresh = self._heard(reading, user_id, user)
        current = self._current(reading, user_id, user)
        shown = ~np.isin(heard.items, self._catalogue.hidden)
        played = heard.items[heard.played & shown]
        if not len(heard.items):
            return {"lists": None, "tastes": None, "heard": None}
        if not len(played):  # nothing but dislikes: what they are not shown is all that is known
            source = current if not Record(current).is_personal else self._stored.popular_now(reading)
            rest = without(source, np.union1d(heard.items, self._catalogue.hidden).astype(np.int32))
            return {"lists": source if rest is None else rest, "tastes": None, "heard": heard.packed()}
        plays = heard.plays[heard.played & shown]
        vectors = self._catalogue.vectors_of(played)
        query = self._stored.query(fold_in(np.arange(len(played), dtype=np.int32), plays, vectors, self._model.blend))
        recent = heard.recent(self._catalogue.hidden)
        lately = np.concatenate([fresh, recent.items[::-1]])
        candidates = np.setdiff1d(self._candidates(current, lately), np.union1d(heard.items, self._catalogue.hidden))
        items, scores = best_of(self._catalogue, query, candidates.astype(np.int32))
        edge = float(scores[DEFAULT_K - 1]) if len(scores) >= DEFAULT_K else -np.inf
        last = float(scores[MAX_K - 1]) if len(scores) >= MAX_K else -np.inf
        taste = UserState(user, edge, last, query)
        good_until, ranking = None, self._stored.next_ranking(self._catalogue)
        if ranking is not None and len(recent):
            ends = ranking.session_ends(recent.seconds)
            good_until = ends if self._now < ends else None
            listener = Listener(query, recent.items, in_session=good_until is not None)
            items, scores = self._next(ranking, listener, candidates.astype(np.int32), heard.items)
            played = np.unique(latest(recent.items)).astype(np.int32)
            vectors = self._catalogue.vectors_of(played)
        items, scores = varied(self._stored, self._snapshot, (items, scores), personal=True)
        record = self._record(items, scores, played, vectors, good_until)
        return {"lists": record, "tastes": taste.packed(), "heard": heard.packed()}

    def _next(self, ranking: NextRanking, listener: Listener, candidates: Int32, heard: Int32) -> tuple[Int32, Float32]:
        """Rank candidates and what lies near the last plays, none of it heard, by what comes next."""
        query, near = ranking.query(listener), ranking.near(listener)
        near = np.setdiff1d(near, np.union1d(heard, self._catalogue.hidden)).astype(np.int32)
        by_query, _ = best_of(self._catalogue, query, candidates)
        depth = MAX_K if self._stored.lists.usual(personal=True).plain else len(by_query)
        return ranking.best(listener, query, ranking.pool(by_query, near, depth))

    def _heard(self, reading: ReadTxn, user_id: str, user: int) -> tuple[UserHistory, Int32]:
        """All that a user heard, and the rows of what is new of it, the latest first."""
        kept = reading.get("heard", user_key(self._stored.generation, user_id))
        heard = None if kept is None else known(kept)
        if heard is None or heard.last is None:  # damaged, or of an earlier format: generation and log know more
            heard = self._built(reading, user_id, user)
        listens, rows, up_to = self._listens(reading, user_id, heard.up_to)
        if not listens:
            return heard, np.zeros(0, dtype=np.int32)
        liked = rows[[not listen.disliked for listen in listens]][::-1]
        if heard.loses_plays(listens, rows):
            heard = self._built(reading, user_id, user)
            listens, rows, up_to = self._listens(reading, user_id, heard.up_to)
        return heard.with_listens(listens, rows, up_to), liked[liked != NO_ITEM]

    def _built(self, reading: ReadTxn, user_id: str, user: int) -> UserHistory:
        """What the generation knows that a user heard."""
        return heard_of(self._stored, user, max(self._stored.applied_seq, reading.user_gone(user_id)))

    def _listens(self, reading: ReadTxn, user_id: str, after: int) -> tuple[list[Listened], Int32, int]:
        """What a user heard after a number of the log, the rows of the tracks, and the number of the last entry."""
        entries = reading.listens_of(user_id, after)
        listens = [listen for _, listen in entries]
        rows = self._snapshot.rows_of([listen.track_id for listen in listens])
        return listens, rows, entries[-1][0] if entries else after

    def _current(self, reading: ReadTxn, user_id: str, user: int) -> bytes:
        """The list as it is: the touched one, the stored one, or the popular one."""
        current = reading.list_of(self._stored.generation, user_id)
        if current is not None and not is_whole(current):
            current = None  # it is written anew now
        if current is None and user != NO_ITEM:
            current = self._stored.record_of(user_id)
        return self._stored.popular_now(reading) if current is None else current

    def _candidates(self, current: bytes, fresh: Int32) -> Int32:
        n_items = len(self._model.items)
        if n_items < EXACT_BELOW:
            return np.arange(len(self._catalogue), dtype=np.int32)
        _, firsts = np.unique(fresh, return_index=True)
        latest = fresh[np.sort(firsts)][:JUST_HEARD]
        near = self._stored.neighbours(latest)
        return np.unique(np.concatenate([Record(current).rows, near, self._catalogue.upload_rows()]))

    def _record(self, items: Int32, scores: Float32, played: Int32, vectors: Float32, good_until: int | None) -> bytes:
        places = most_alike(self._model.blend, self._catalogue.vectors_of(items), vectors)
        ids, names = self._catalogue.ids(items), self._catalogue.ids(played)
        reasons = [names[place] for place in places.tolist()]
        lines = zip(ids, scores.tolist(), reasons, strict=True)
        head = head_of(self._stored.generation, "personal", good_until)
        return pack(head, [track_bytes(line) for line in lines], items)


def best_of(catalogue: CatalogueView, query: Float32, candidates: Int32) -> tuple[Int32, Float32]:
    """Rank candidate rows (n,) for a query (d,): the rows and their scores, best first, unknown tracks last."""
    vectors = catalogue.vectors_of(candidates)
    rows, columns = np.zeros(len(candidates), dtype=np.int64), np.arange(len(candidates))
    found = ranked(rows, candidates, exact(query[None], vectors, rows, columns), 1, len(candidates))
    items, scores = found[0][0], found[1][0]
    last = catalogue.are_unknown(items)
    if not last.any():
        return items, scores
    first, rest = ~last, behind_all(scores[~last], scores[last])
    return np.concatenate([items[first], items[last]]), np.concatenate([scores[first], rest])


def varied(
    stored: StoredLists, snapshot: Snapshot, best: tuple[Int32, Float32], *, personal: bool
) -> tuple[Int32, Float32]:
    """Choose a list of 200 from ranked rows and scores, with the variety that the stored ones have."""
    items, scores = best
    variety, catalogue = stored.lists.usual(personal), snapshot.catalogue
    if variety.plain:
        return items[:MAX_K], scores[:MAX_K]
    source = Source(
        lambda depth: (items[:depth], scores[:depth]),
        lambda rows: artists_of(rows, stored.attributes, snapshot.uploads),
        lambda rows: stored.model.blend.likeness(catalogue.vectors_of(rows)),
        catalogue.are_unknown,
    )
    return choose(source, MAX_K, variety, fill=not personal)


def heard_of(stored: StoredLists, user: int, up_to: int) -> UserHistory:
    """What a generation knows that a user row heard and dislikes; nothing of row -1."""
    if user == NO_ITEM:
        return UserHistory(np.zeros(0, np.int32), np.zeros(0, np.float32), up_to)
    counts, model = stored.model.counts, stored.model
    here = slice(counts.indptr[user], counts.indptr[user + 1])
    barred = model.barred_items(user)
    items = np.concatenate([model.heard(user), barred])
    plays = np.concatenate([np.asarray(counts.data[here], np.float32), np.full(len(barred), BARRED, np.float32)])
    order = np.argsort(items, kind="stable")
    return UserHistory(items[order], plays[order], up_to, stored.last_plays(user))


def _row_of(reading: ReadTxn, stored: StoredLists, user_id: str) -> int:
    """Row of a user in a generation, -1 where it is unknown or has been deleted since."""
    gone = reading.user_gone(user_id) > stored.applied_seq
    return NO_ITEM if gone else int(stored.model.users.find([user_id])[0])
