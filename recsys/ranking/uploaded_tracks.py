"""Tracks that came after a generation was built: values that share what grows, each of which sees the first n of it.

    UploadedTracks, new tracks  ->  with_tracks  ->  UploadedTracks with them
    UploadedTracks, rows        ->  with_hidden  ->  UploadedTracks that show them no more

A value never changes, and making the next one costs what is new and no more: both look at the same lists and arrays,
to which things are only ever added, and a value does not look beyond its own end. Two values made at once from one may
differ, as where a transaction fails and another upload takes its number: then the later one goes on with copies.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from recsys.types import NO_ITEM, Float32, Int32, Space

OF_ONE_TRACK: tuple[Space, ...] = ("sound", "content")  # spaces that a track is in by itself, plays or no plays
ROOM = 16  # rows that an array has room for at first; then it doubles


@dataclass(frozen=True, slots=True, eq=False)
class Fresh:
    """One new track: ``about`` it by the columns of ``tracks``, ``item_vector`` (d,), unit vectors (d',) by space."""

    about: dict[str, Any]
    item_vector: Float32
    spaces: Mapping[Space, Float32]

    @property
    def track_id(self) -> str:
        """Its id."""
        return str(self.about["track_id"])

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is known of it: no sound, no text, no artist, no genre and no year."""
        return not any(space in self.spaces for space in OF_ONE_TRACK) and not any(
            self.about.get(name) for name in ("artist", "genres", "year")
        )

    def is_like(self, other: "Fresh") -> bool:
        """Whether another one says the same."""
        return (
            self.about == other.about
            and np.array_equal(self.item_vector, other.item_vector)
            and self.spaces.keys() == other.spaces.keys()
            and all(np.array_equal(vector, other.spaces[space]) for space, vector in self.spaces.items())
        )


class _Array:
    """An array that grows; views of its first rows stay what they are, as rows are written once."""

    def __init__(self, shape: tuple[int, ...], kind: DTypeLike) -> None:
        self._held: NDArray[Any] = np.zeros((ROOM, *shape), kind)

    def put(self, place: int, value: Any) -> None:
        """Write the row behind the last one."""
        if place == len(self._held):
            larger = np.zeros((2 * place, *self._held.shape[1:]), self._held.dtype)
            larger[:place] = self._held
            self._held = larger  # at once: a reader has the one or the other
        self._held[place] = value

    def first(self, n: int) -> NDArray[Any]:
        """The first n rows, which nobody may write."""
        view = self._held[:n]
        view.flags.writeable = False
        return view


@dataclass(slots=True, eq=False)
class _Space:
    """Places of the tracks that have a vector in a space, rising, and the unit vectors."""

    places: _Array
    vectors: _Array
    n: int = 0


@dataclass(slots=True, eq=False)
class _Shared:
    """What the values of one line share: tracks by place, and hidden rows in the order that they were hidden."""

    dim: int
    items: _Array
    tracks: list[Fresh] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    spaces: dict[Space, _Space] = field(default_factory=dict)
    unknown: _Array = field(default_factory=lambda: _Array((), np.int32))
    n_unknown: int = 0
    rows: _Array = field(default_factory=lambda: _Array((), np.int32))
    order: list[int] = field(default_factory=list)
    hidden_at: dict[int, int] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)  # held while adding; reading needs none

    @classmethod
    def empty(cls, dim: int) -> "_Shared":
        """Nothing yet."""
        return cls(dim, _Array((dim,), np.float32))

    def add(self, track: Fresh) -> None:
        place = len(self.tracks)
        self.items.put(place, track.item_vector)
        for space, vector in track.spaces.items():
            known = self.spaces.get(space)
            if known is None:
                known = _Space(_Array((), np.int32), _Array((len(vector),), np.float32))
            known.places.put(known.n, place)
            known.vectors.put(known.n, vector)
            known.n += 1
            self.spaces[space] = known
        if track.is_unknown:
            self.unknown.put(self.n_unknown, place)
            self.n_unknown += 1
        self.tracks.append(track)
        self.ids.append(track.track_id)
        self.places[track.track_id] = place

    def hide(self, row: int) -> None:
        self.rows.put(len(self.order), row)
        self.hidden_at[row] = len(self.order)
        self.order.append(row)

    def copied(self, n: int, n_hidden: int) -> "_Shared":
        other = _Shared.empty(self.dim)
        for track in self.tracks[:n]:
            other.add(track)
        for row in self.order[:n_hidden]:
            other.hide(row)
        return other


class Ids(Sequence[str]):
    """The first n of a list of ids that grows; equal to any sequence of the same ids."""

    __slots__ = ("_ids", "_n")

    def __init__(self, ids: list[str], n: int) -> None:
        self._ids, self._n = ids, n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return self._ids[: self._n][place]
        at = place + self._n if place < 0 else place
        if not 0 <= at < self._n:
            raise IndexError(f"place {place} is not among {self._n}")
        return self._ids[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as lists, which it is compared with


class UploadedAbout(Mapping[str, dict[str, Any]]):
    """What is known of the first n tracks, by their ids."""

    __slots__ = ("_n", "_shared")

    def __init__(self, shared: _Shared, n: int) -> None:
        self._shared, self._n = shared, n

    def __getitem__(self, track_id: str) -> dict[str, Any]:
        place = self._shared.places.get(track_id, self._n)
        if place >= self._n:
            raise KeyError(track_id)
        return self._shared.tracks[place].about

    def __iter__(self) -> Iterator[str]:
        return iter(self._shared.ids[: self._n])

    def __len__(self) -> int:
        return self._n


class Rows(Set[int]):
    """Hidden rows, the first n in the order that they were hidden, from ``start`` up to ``stop``, less ``start``."""

    __slots__ = ("_count", "_n", "_shared", "_start", "_stop")

    def __init__(self, shared: _Shared, n: int, count: int, start: int = 0, stop: int | None = None) -> None:
        self._shared, self._n, self._count, self._start, self._stop = shared, n, count, start, stop

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, int | np.integer) or number < 0:
            return False
        row = int(number) + self._start
        within = self._stop is None or row < self._stop
        return within and self._shared.hidden_at.get(row, self._n) < self._n

    def __iter__(self) -> Iterator[int]:
        start, stop = self._start, self._stop
        rows = self._shared.order[: self._n]
        return (row - start for row in rows if row >= start and (stop is None or row < stop))

    def __len__(self) -> int:
        return self._count

    @classmethod
    def _from_iterable(cls, numbers: Iterable[Any]) -> frozenset[Any]:
        return frozenset(numbers)


@dataclass(frozen=True, slots=True, eq=False)
class UploadedTracks:
    """Tracks that came after a generation of ``n_built`` tracks was built, and what is not shown any more.

    ``hidden_rows`` are all rows that are not shown. ``hidden`` are those of uploads, by their places: deleted since,
    unknown to this generation's models, or with the id of one of its tracks. ``gone`` are those of the generation's
    own tracks, deleted since. A place counts the uploads from 0; the row of an upload is ``n_built`` and its place.
    """

    n_built: int
    n: int
    n_hidden: int
    n_gone: int
    _in_space: Mapping[Space, int]
    _shared: _Shared

    @classmethod
    def none(cls, dim: int, n_built: int = 0) -> "UploadedTracks":
        """No uploads."""
        return cls(n_built, 0, 0, 0, {}, _Shared.empty(dim))

    @property
    def nothing(self) -> bool:
        """Whether the catalogue is what it was when the generation was built."""
        return not (self.n or self.n_gone)

    @property
    def n_shown(self) -> int:
        """Count the uploads that are shown."""
        return self.n - (self.n_hidden - self.n_gone)

    @property
    def track_ids(self) -> Ids:
        """Ids, by place."""
        return Ids(self._shared.ids, self.n)

    @property
    def item_vectors(self) -> Float32:
        """Joint item vectors (n, d), by place."""
        return self._shared.items.first(self.n)

    @property
    def about(self) -> UploadedAbout:
        """What is known of each, by its id."""
        return UploadedAbout(self._shared, self.n)

    @property
    def hidden_rows(self) -> Rows:
        """Rows that are not shown, of both kinds."""
        return Rows(self._shared, self.n_hidden, self.n_hidden)

    @property
    def hidden(self) -> Rows:
        """Places of uploads that are not shown."""
        return Rows(self._shared, self.n_hidden, self.n_hidden - self.n_gone, self.n_built)

    @property
    def gone(self) -> Rows:
        """Rows of the generation's tracks that are not shown."""
        return Rows(self._shared, self.n_hidden, self.n_gone, 0, self.n_built)

    @property
    def hidden_array(self) -> Int32:
        """Rows that are not shown, (n_hidden,), in the order that they were hidden."""
        return self._shared.rows.first(self.n_hidden)

    def place_of(self, track_id: str) -> int:
        """Find the place of an upload, shown or not; -1 where there is none of that id."""
        place = self._shared.places.get(track_id, NO_ITEM)
        return place if place < self.n else NO_ITEM

    @property
    def unknown_places(self) -> Int32:
        """Places of the uploads of which nothing is known, rising."""
        known = self._shared.unknown.first(self._shared.n_unknown)
        return known[: int(np.searchsorted(known, self.n))]

    def is_unknown(self, place: int) -> bool:
        """Whether nothing is known of the upload at a place."""
        return self._shared.tracks[place].is_unknown

    def has_space(self, space: Space) -> bool:
        """Whether any upload has a vector in a space."""
        return self._in_space.get(space, 0) > 0

    def vectors_in(self, space: Space) -> tuple[Int32, Float32]:
        """Places (m,) of the uploads that have a vector in a space, rising, and the unit vectors (m, d)."""
        n = self._in_space.get(space, 0)
        if not n:
            return np.zeros(0, dtype=np.int32), np.zeros((0, 1), dtype=np.float32)
        known = self._shared.spaces[space]
        return known.places.first(n), known.vectors.first(n)

    def with_tracks(self, tracks: Sequence[Fresh]) -> "UploadedTracks":
        """Add tracks behind the others; this value stays as it is."""
        shared, n = self._shared, self.n
        with shared.guard:
            there = shared.tracks[n : n + len(tracks)]  # added by another that went on from this value
            if not all(mine.is_like(theirs) for mine, theirs in zip(tracks, there, strict=False)):
                shared, there = shared.copied(n, self.n_hidden), []
            for track in tracks[len(there) :]:
                shared.add(track)
        counts = dict(self._in_space)
        for track in tracks:
            for space in track.spaces:
                counts[space] = counts.get(space, 0) + 1
        return UploadedTracks(self.n_built, n + len(tracks), self.n_hidden, self.n_gone, counts, shared)

    def with_hidden(self, rows: Sequence[int]) -> "UploadedTracks":
        """Show rows no more, of uploads or of the generation's tracks; this value stays as it is."""
        known = self.hidden_rows
        new = [row for row in dict.fromkeys(rows) if row not in known]
        if not new:
            return self
        shared, n_hidden = self._shared, self.n_hidden
        with shared.guard:
            there = shared.order[n_hidden : n_hidden + len(new)]
            if there != new[: len(there)]:
                shared, there = shared.copied(self.n, n_hidden), []
            for row in new[len(there) :]:
                shared.hide(row)
        n_gone = self.n_gone + sum(row < self.n_built for row in new)
        return UploadedTracks(self.n_built, self.n, n_hidden + len(new), n_gone, self._in_space, shared)
