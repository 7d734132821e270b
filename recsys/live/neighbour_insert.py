"""New tracks into the stored lists of neighbours that they touch, and lists of their own for them.

    ReadTxn, Snapshot  ->  planned  ->  Plan: which lists change, by what and with which score; nothing is written
    WriteTxn, Plan      ->  write, some of it at a time  ->  near: generation, letter of space, track -> Record

Who asks for a track's neighbours finds its list here, or else that of the generation, which then is right. A list is
the ``depth`` best of all tracks of the space, deleted ones among them, which readers leave out; one that is
not full holds them all. So tracks are only ever put in, in any order and twice without harm, and two processes that do
the same at once end with the same lists. One that is damaged is shown to nobody, and made anew when a new track is to
come into it. ``near/`` and the generation in ``state`` is the number of the log up to which uploads are in all lists.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from recsys.errors import ArtefactError, DamagedError
from recsys.eventlog.snapshot import Snapshot
from recsys.eventlog.store import LiveStore
from recsys.eventlog.transactions import ReadTxn, WriteTxn, near_mark, seq_key
from recsys.live.cosines import ROUNDING, Best, exact_of, scored
from recsys.live.stored_lists import StoredLists
from recsys.ranking.catalogue_view import CatalogueView
from recsys.store.damage import met
from recsys.store.keys import key_of
from recsys.store.lmdb_lookup import space_key
from recsys.store.record import Record, head_of, is_whole, pack, track_bytes
from recsys.types import VECTOR_SPACES, Float32, Int32, Space

TOGETHER = 16  # uploads that one pass over a space is made for
AT_ONCE = 256  # lists in one transaction: some ten milliseconds, which others who write wait for


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """``items`` (n,), rows of new tracks, and their ``scores`` for the list of a row; ``is_own`` of a new track."""

    space: Space
    row: int
    items: Int32
    scores: Float32
    is_own: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What brings all lists to the uploads up to a number of the log."""

    up_to: int
    changes: list[Change] = field(default_factory=list)


def near_key(generation: str, space: Space, track_id: str) -> bytes:
    """The key of a list of neighbours."""
    return f"{generation}/".encode() + space_key(space) + key_of(track_id)


def merged_up_to(reading: ReadTxn, generation: str, applied_seq: int) -> int:
    """Number of the log up to which uploads are in the lists of a generation that took in ``applied_seq``."""
    return max(reading.near_up_to(generation) or 0, applied_seq)


def is_behind(reading: ReadTxn, generation: str, applied_seq: int) -> bool:
    """Whether the lists of a generation lack an upload."""
    return reading.last_upload() > merged_up_to(reading, generation, applied_seq)


def begin_at(writing: WriteTxn, generation: str, seq: int) -> None:
    """Have uploads from a number on put in once more, as they have vectors under a generation only now."""
    if (writing.near_up_to(generation) or 0) >= seq:
        writing.put("state", near_mark(generation), seq_key(seq - 1))


def planned(reading: ReadTxn, stored: StoredLists, snapshot: Snapshot, at_most: int = TOGETHER) -> Plan | None:
    """Say what brings the lists to the next uploads that they lack; None where they lack none.

    This takes a pass over each space, and should hold nobody up: nothing is written.

    Args:
        reading: the store.
        stored: lists of the generation.
        snapshot: of the generation, as new as ``reading`` or newer.
        at_most: uploads.
    """
    start, places, up_to = merged_up_to(reading, stored.generation, stored.applied_seq), list[int](), 0
    for seq, upload in islice(reading.uploads(start), at_most):
        places.append(snapshot.uploads.place_of(upload.track_id))
        up_to = seq
    return Plan(up_to, changes_by(reading, stored, snapshot, places)) if places else None


def write(
    writing: WriteTxn, stored: StoredLists, snapshot: Snapshot, plan: Plan, start: int = 0, n: int = AT_ONCE
) -> int:
    """Do a part of a plan: put tracks into at most ``n`` lists as they are by now, from the ``start``-th on.

    Returns:
        Where to go on; the plan is done when this is the number of its changes.
    """
    if merged_up_to(writing, stored.generation, stored.applied_seq) >= plan.up_to:  # another process was quicker
        return len(plan.changes)
    for change in plan.changes[start : start + n]:
        _put(writing, stored, snapshot.catalogue, change)
    done = min(start + n, len(plan.changes))
    if done == len(plan.changes):
        writing.put("state", near_mark(stored.generation), seq_key(plan.up_to))
    return done


def follow(live: LiveStore, stored: StoredLists, snapshot_at: Callable[[ReadTxn], Snapshot]) -> None:
    """Bring the lists to all uploads that there are by now, in short transactions, with others' in between.

    Args:
        live: the store, open for writing.
        stored: lists of the generation.
        snapshot_at: gives a snapshot that knows at least what a reading does.

    Raises:
        ArtefactError: the store cannot be written, or a file of the generation is damaged.
    """
    with live.reading() as reading:
        last = reading.last_upload()
    while True:
        with live.reading() as reading:
            if merged_up_to(reading, stored.generation, stored.applied_seq) >= last:
                return
            snapshot = snapshot_at(reading)
            plan = planned(reading, stored, snapshot)
        if plan is None:
            return
        done = 0
        while done < max(len(plan.changes), 1):
            with live.writing() as writing:
                done = max(write(writing, stored, snapshot, plan, done), 1)


def changes_by(reading: ReadTxn, stored: StoredLists, snapshot: Snapshot, places: Sequence[int]) -> list[Change]:
    """Say which lists uploads at some places touch, and what their own lists hold; those that are hidden are in none.

    Raises:
        ArtefactError: a file of the generation is damaged.
    """
    shown = sorted(place for place in places if place >= 0 and place not in snapshot.uploads.hidden)
    wanted = np.array(shown, dtype=np.int32)
    return [change for space in VECTOR_SPACES for change in _in_space(reading, stored, snapshot, wanted, space)]


def _in_space(
    reading: ReadTxn, stored: StoredLists, snapshot: Snapshot, wanted: Int32, space: Space
) -> Iterator[Change]:
    """The changes of a space by uploads at places (m,), rising: one pass over its tracks."""
    catalogue, depth = snapshot.catalogue, stored.bars.depth
    places, vectors = catalogue.uploads.vectors_in(space)
    here = np.isin(wanted, places)
    new, unit = wanted[here] + np.int32(catalogue.n_built), vectors[np.searchsorted(places, wanted[here])]
    if not len(new):
        return

    def kept(row: int) -> bytes | None:
        return reading.get("near", near_key(stored.generation, space, catalogue.id(row)))

    def record_of(row: int) -> bytes | None:
        record = kept(row)
        return record if record is None or is_whole(record) else None

    own = [Best(depth) for _ in new]
    for rows, about in scored(catalogue, stored.bars, space, unit):
        bars = np.where(np.isin(rows, new), np.float32(np.inf), stored.bars.at(space, rows, record_of))
        for change in _touched(catalogue, space, rows, new, about, unit, bars):
            if change.row < catalogue.n_built:
                yield change
            elif (record := record_of(change.row)) is not None:  # its bar may be an old one
                good = change.scores > stored.bars.saw(space, change.row, record)
                if good.any():
                    yield Change(space, change.row, change.items[good], change.scores[good])
            elif kept(change.row) is not None:  # damaged
                yield change
        for at, row in enumerate(new.tolist()):
            others = rows != row
            own[at].take(rows[others], about[others, at])
    for at, row in enumerate(new.tolist()):
        yield _own(catalogue, space, row, own[at].rows, unit[at : at + 1], depth)


def _own(catalogue: CatalogueView, space: Space, row: int, items: Int32, unit: Float32, depth: int) -> Change:
    """The whole list of a row by its unit vector (1, d): the best of some items (n,)."""
    scores = exact_of(catalogue, space, items, unit, np.arange(len(items)), np.zeros(len(items), int))
    order = np.lexsort((items, -scores))[:depth]
    return Change(space, row, items[order], scores[order], is_own=True)


def _touched(
    catalogue: CatalogueView, space: Space, rows: Int32, new: Int32, about: Float32, unit: Float32, bars: Float32
) -> Iterator[Change]:
    """The changes of the lists of rows (n,): those whose bars (n,) a new track surpasses, ``about`` (n, m) by.

    An equal score does not do, as new tracks have the higher rows.
    """
    at, by = ((about >= (bars - ROUNDING)[:, None]) & (about > -np.inf)).nonzero()
    scores = exact_of(catalogue, space, rows, unit, at, by)
    good = scores > bars[at]
    at, by, scores = at[good], by[good], scores[good]
    own, starts, counts = np.unique(at, return_index=True, return_counts=True)
    for place, start, count in zip(own.tolist(), starts.tolist(), counts.tolist(), strict=True):
        here = slice(start, start + count)
        yield Change(space, int(rows[place]), new[by[here]], scores[here])


def _put(writing: WriteTxn, stored: StoredLists, catalogue: CatalogueView, change: Change) -> None:
    track_id = catalogue.id(change.row)
    key = near_key(stored.generation, change.space, track_id)
    current = writing.get("near", key)
    is_damaged = current is not None and not is_whole(current)
    if is_damaged:
        met(DamagedError("a list of neighbours of live.lmdb does not match its checksum"), "it is made anew")
        current, change = None, _anew(stored, catalogue, change)
    if current is None and not change.is_own:
        try:
            current = stored.neighbours_of(track_id, change.space) if change.row < catalogue.n_built else None
        except ArtefactError:  # which was told; one pass over the space, as damage is rare
            change = _pass(stored, catalogue, change)
        if not change.is_own and (current is None or not Record(current).n):
            return
    if is_damaged:
        writing.delete("near", key)
    lines = [track_bytes((name, score, None)) for name, score in
             zip(catalogue.ids(change.items), change.scores.tolist(), strict=True)]  # fmt: skip
    changed = with_tracks(current, stored.generation, lines, change.items, change.scores, stored.bars.depth)
    if changed is not None:
        writing.put("near", key, changed)
        if is_damaged and change.row >= catalogue.n_built:  # whose bar may have been that of tracks deleted since
            stored.bars.saw(change.space, change.row, changed)


def _anew(stored: StoredLists, catalogue: CatalogueView, change: Change) -> Change:
    """Say what makes a list whole that is lost: of a built track all uploads, of an upload all tracks."""
    if change.is_own:
        return change
    if change.row >= catalogue.n_built:
        return _pass(stored, catalogue, change)
    rows, unit = catalogue.uploads_in(change.space)
    places = np.arange(len(rows))
    row = np.array([change.row], dtype=np.int32)
    return Change(
        change.space, change.row, rows, exact_of(catalogue, change.space, row, unit, 0 * places, places)
    )  # fmt: skip


def _pass(stored: StoredLists, catalogue: CatalogueView, change: Change) -> Change:
    """The whole list of a row by one pass over the space."""
    space, row = change.space, np.array([change.row], dtype=np.int32)
    unit, best = catalogue.unit_vectors(row, space), Best(stored.bars.depth)
    for rows, about in scored(catalogue, stored.bars, space, unit):
        others = rows != change.row
        best.take(rows[others], about[others, 0])
    return _own(catalogue, space, change.row, best.rows, unit, stored.bars.depth)


def with_tracks(
    buffer: bytes | None, generation: str, lines: Sequence[bytes], rows: Int32, scores: Float32, depth: int
) -> bytes | None:
    """Put tracks into a list, best first and of equal ones the lower row; None where that changes nothing.

    Args:
        buffer: Record of the list, None for an empty one.
        generation: whose it is.
        lines: bytes of the tracks (n,), their ``rows`` and ``scores`` (n,) beside them; some may be there already.
        rows: see above.
        scores: see above.
        depth: of a full list.
    """
    record = Record(buffer or pack(head_of(generation, "neighbours"), [], []))
    theirs = np.array([score for _, score, _ in record.found()], dtype=np.float32)
    there = set(record.rows.tolist())  # of some fifty rows, faster than numpy's
    new = np.array([at for at, row in enumerate(rows.tolist()) if row not in there], dtype=np.int64)
    items, both = np.concatenate([record.rows, rows[new]]), np.concatenate([theirs, scores[new]])
    order = np.lexsort((items, -both))[:depth]
    if buffer is not None and (order < record.n).all():
        return None
    every = [*record.tracks(), *(lines[at] for at in new.tolist())]
    return pack(record.head, [every[at] for at in order.tolist()], items[order])
