"""New tracks into the lists of those who would like them most, at their place by score.

    Snapshot, places of new uploads  ->  insert_uploads  ->  lists of the users they reach

Users of the generation are scored in blocks; those who listened since have their own, newer queries. Nobody but the
users who are reached is looked at one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from recsys.audience import Reached, reach
from recsys.live.snapshot import Snapshot
from recsys.live.splice import inserted
from recsys.live.stored import Stored
from recsys.live.taste import Tastes, known
from recsys.overlay import Catalogue
from recsys.store.record import track_bytes
from recsys.store.transactions import USER, Reading, Writing, user_key
from recsys.types import NO_ITEM, Float32, Int32

TOGETHER = 16  # tracks scored in one pass over the users
BLOCK = 65_536  # touched users at a time


@dataclass(frozen=True, slots=True)
class Reader:
    """A user whom a track reaches: ``key`` of the list, ``row`` and id of one who is touched by no listen yet."""

    key: bytes
    row: int
    user_id: str | None
    score: float


def insert_uploads(writing: Writing, stored: Stored, snapshot: Snapshot, places: Sequence[int], most: int) -> list[int]:
    """Put uploads into lists.

    Args:
        writing: the transaction.
        stored: lists of the generation.
        snapshot: with the uploads.
        places: of those that are to be put in; hidden ones reach nobody.
        most: users that a track reaches, at most.

    Returns:
        For each place how many lists the track came into.
    """
    catalogue = snapshot.catalogue
    reached = dict.fromkeys(places, 0)
    shown = [place for place in places if place not in snapshot.uploads.hidden]
    for start in range(0, len(shown), TOGETHER):
        together = shown[start : start + TOGETHER]
        found = _reached(writing, stored, snapshot.uploads.item_vectors[together], most)
        for place, readers in zip(together, found, strict=True):
            reached[place] = _insert(writing, stored, catalogue, catalogue.n_built + place, readers)
    return [reached[place] for place in places]


def _reached(reading: Reading, stored: Stored, vectors: Float32, most: int) -> list[list[Reader]]:
    """Find the readers of each track, those with the largest margins first."""
    model = stored.model
    left_out = np.zeros(len(model.users), dtype=bool)
    gone = [user for user in reading.gone(USER) if reading.user_gone(user) > stored.taken_in]
    left_out[_known(model.users.find(gone))] = True
    prefix = user_key(stored.generation, None)
    pairs, keys = reading.pairs("tastes", prefix=prefix), list[bytes]()
    touched = [Reached.nobody()] * len(vectors)
    while block := list(islice(pairs, BLOCK)):
        tastes = Tastes.read([value for _, value in block], vectors.shape[1])
        left_out[_known(tastes.rows)] = True
        scores = np.asarray(tastes.queries @ vectors.T, dtype=np.float32)
        margins = np.where(scores > tastes.lasts[:, None], scores - tastes.edges[:, None], -np.inf).astype(np.float32)
        numbers = np.arange(len(keys), len(keys) + len(block), dtype=np.int32)
        touched = [best.merged(numbers, margins[:, at], scores[:, at], most) for at, best in enumerate(touched)]
        keys += [key for key, _ in block]
    users = reach(model, vectors, stored.edges, stored.lasts, left_out, most)
    return [_joined(stored, keys, *both, most) for both in zip(users, touched, strict=True)]


def _joined(stored: Stored, keys: list[bytes], users: Reached, touched: Reached, most: int) -> list[Reader]:
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


def _insert(writing: Writing, stored: Stored, catalogue: Catalogue, row: int, readers: list[Reader]) -> int:
    plain, track_id, n_reached = stored.lists.usual(personal=True).plain, catalogue.id(row), 0
    for reader, reason in zip(readers, _reasons(writing, stored, catalogue, row, readers), strict=True):
        current = writing.get("lists", reader.key)
        if current is None and reader.user_id is not None:
            current = stored.record_of(reader.user_id)
        if current is None:
            continue
        track = track_bytes((track_id, reader.score, None if reason == NO_ITEM else catalogue.id(reason)))
        changed = inserted(current, track, row, reader.score, plain)
        if changed is not None:
            writing.put("lists", reader.key, changed)
            n_reached += 1
    return n_reached


def _reasons(reading: Reading, stored: Stored, catalogue: Catalogue, row: int, readers: list[Reader]) -> list[int]:
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


def _heard(reading: Reading, stored: Stored, reader: Reader) -> Int32:
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
