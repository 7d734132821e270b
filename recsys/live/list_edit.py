"""A stored list with a track more, or some less, without reading the others.

Record, a track and its score  ->  inserted  ->  Record, 200 deep at most
"""

from bisect import bisect_right

import numpy as np

from recsys.errors import DamagedError
from recsys.store.damage import met
from recsys.store.record import Record, is_whole, pack, read_tracks
from recsys.types import MAX_K, Int32


def score_at(record: Record, place: int) -> float:
    """Read the score of one track."""
    return read_tracks(record.span(place, place + 1))[0][1]


def place_of(record: Record, score: float, plain: bool) -> int:
    """Say where a score stands; equal ones that were there stay before it. A varied list does not fall evenly."""
    if plain:
        return bisect_right(range(record.n), -score, key=lambda place: -score_at(record, place))
    return sum(known >= score for _, known, _ in record.found())


def inserted(buffer: bytes, track: bytes, row: int, score: float, plain: bool) -> bytes | None:
    """Put a track in at its place by score; None where it is in the list, or would come after its last place.

    A damaged list stays as it is, and is told: nobody is shown it, and it is written anew with the user's next listen.
    """
    record = _whole(buffer)
    if record is None:
        return None
    rows = record.rows
    if row in rows:
        return None
    place = place_of(record, score, plain)
    if place >= MAX_K:
        return None
    kept = min(record.n, MAX_K - 1)
    ends = record.ends[:kept].astype(np.int64)
    at = int(ends[place - 1]) if place else 0
    moved = np.concatenate([ends[:place], [at + len(track)], ends[place:] + len(track)])
    pieces = [record.span(0, place), track, record.span(place, kept)]
    return pack(record.head, pieces, np.concatenate([rows[:place], [row], rows[place:kept]]), moved)


def without(buffer: bytes, rows: Int32) -> bytes | None:
    """Take tracks out by their rows; None where none of them is there. A damaged list stays as it is."""
    record = _whole(buffer)
    if record is None:
        return None
    out = np.isin(record.rows, rows)
    if not out.any():
        return None
    places = np.flatnonzero(~out)
    return pack(record.head, record.tracks(places.tolist()), record.rows[places])


def _whole(buffer: bytes) -> Record | None:
    """Read a list of which nothing is damaged."""
    if is_whole(buffer):
        return Record(buffer)
    met(DamagedError("a list of live.lmdb does not match its checksum"), "it stays as it is until its user listens")
    return None
