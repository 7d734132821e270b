"""A stored list with a track more, or some less, without reading the others.

Record, a track and its score  ->  inserted  ->  Record, 200 deep at most
"""

from bisect import bisect_right

import numpy as np

from recsys.ranking import MAX_K
from recsys.store.record import Record, pack
from recsys.types import Int32
from recsys.v1 import recommender_pb2 as pb


def score_at(record: Record, place: int) -> float:
    """Read the score of one track."""
    [track] = record.tracks([place])
    return float(pb.RecommendResponse.FromString(track).tracks[0].score)


def place_of(record: Record, score: float, plain: bool) -> int:
    """Say where a score stands; equal ones that were there stay before it. A varied list does not fall evenly."""
    if plain:
        return bisect_right(range(record.n), -score, key=lambda place: -score_at(record, place))
    return sum(known >= score for _, known, _ in record.found())


def inserted(buffer: bytes, track: bytes, row: int, score: float, plain: bool) -> bytes | None:
    """Put a track in at its place by score; None where it is in the list, or would come after its last place."""
    record = Record(buffer)
    rows = record.rows
    if (rows == row).any():
        return None
    place = place_of(record, score, plain)
    if place >= MAX_K:
        return None
    tracks = record.tracks()
    tracks.insert(place, track)
    return pack(record.head, tracks[:MAX_K], np.insert(rows, place, row)[:MAX_K])


def without(buffer: bytes, rows: Int32) -> bytes | None:
    """Take tracks out by their rows; None where none of them is there."""
    record = Record(buffer)
    out = np.isin(record.rows, rows)
    if not out.any():
        return None
    places = np.flatnonzero(~out)
    return pack(record.head, record.tracks(places.tolist()), record.rows[places])
