"""Outside ids and inside rows: text ids in, dense int32 rows out, and back.

    ids, in the order of their rows  ->  IdMap.of  ->  row("x") -> 7, id(7) -> "x"

Four arrays and no dictionary, so that the map is read straight from disk and the processes of a server share
one copy in the page cache: the ids' UTF-8 bytes one after another, where each begins, and their 64-bit hashes
in ascending order with the row of each. A look-up is a binary search, then the id itself is compared, so that
a collision costs one more comparison and never a wrong row. What an id stands for is not known here.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ArtefactError, DataError, NotFoundError
from recsys.types import NO_ITEM, Int32
from recsys.util.npy import mapped, read

_PARTS: dict[str, type[np.generic]] = {
    "text": np.uint8,
    "offsets": np.int64,
    "hashes": np.uint64,
    "order": np.int32,
}


def _hash(text: bytes) -> int:
    """64 bits that are the same in every process and version; Python's own hash is salted."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _encoded(text: str) -> bytes:
    """A shell that was given bytes passes half surrogates on; no id holds them, but they must not raise."""
    return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True, eq=False)
class IdMap:
    """Ids of n things called ``what``; row r is the r-th id.

    ``text`` holds the bytes of all ids, ``offsets`` (n + 1,) where each begins, ``hashes`` (n,) ascending and
    ``order`` (n,) the row of each hash.
    """

    text: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    order: Int32
    what: str

    @classmethod
    def of(cls, ids: Sequence[str], what: str = "id") -> "IdMap":
        """Build the map of ``ids``; ``what`` is the word for one of them in errors, such as "track".

        Raises:
            DataError: an id is repeated, or there are more than int32 can count.
        """
        n = len(ids)
        if n > np.iinfo(np.int32).max:
            raise DataError(f"{n} {what} ids are more than the 2,147,483,647 that rows can count; use fewer")
        encoded = [_encoded(text) for text in ids]
        hashes = np.fromiter(map(_hash, encoded), np.uint64, n)
        offsets = np.zeros(n + 1, np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, n), out=offsets[1:])
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        text = np.frombuffer(b"".join(encoded), np.uint8)
        built = cls(text, offsets, hashes[order], order, what)
        built._check_distinct()
        return built

    @classmethod
    def load(cls, folder: Path, name: str) -> "IdMap":
        """Open a saved map; the arrays stay on disk and are read where they are looked at.

        Raises:
            ArtefactError: a file is missing or damaged.
        """
        try:
            what = str(read(folder / f"{name}.what.npy"))
            parts = {part: _load(folder / f"{name}.{part}.npy", dtype) for part, dtype in _PARTS.items()}
        except (OSError, ValueError, EOFError) as error:
            raise ArtefactError(f"id map {name!r} in {folder} cannot be read ({error}); build again") from error
        built = cls(**parts, what=what)
        if not built._is_whole():
            raise ArtefactError(f"id map {name!r} in {folder} is damaged: its parts disagree; build again")
        return built

    def save(self, folder: Path, name: str) -> None:
        """Write ``<name>.text.npy``, ``.offsets.npy``, ``.hashes.npy``, ``.order.npy`` and ``.what.npy``."""
        for part in _PARTS:
            np.save(folder / f"{name}.{part}.npy", getattr(self, part), allow_pickle=False)
        np.save(folder / f"{name}.what.npy", np.array(self.what), allow_pickle=False)

    def __len__(self) -> int:
        return len(self.order)

    def id(self, row: int) -> str:
        """The id of a row.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} is not among the {len(self)} rows of this map of {self.what} ids")
        return self._bytes(row).decode("utf-8", "surrogatepass")

    def ids(self, rows: Int32) -> list[str]:
        """The ids of many rows, in their order."""
        asked = np.asarray(rows)
        if len(out := asked[(asked < 0) | (asked >= len(self))]):
            return [self.id(int(out[0]))]  # which raises
        text, starts, stops = self.text.data, self.offsets[asked].tolist(), self.offsets[asked + 1].tolist()
        return [str(text[a:b], "utf-8", "surrogatepass") for a, b in zip(starts, stops, strict=True)]

    def all(self) -> list[str]:
        """Every id, in the order of rows."""
        text, ends = self.text.tobytes(), self.offsets.tolist()
        return [text[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(ends)]

    def row(self, id: str) -> int:
        """The row of an id.

        Raises:
            NotFoundError: the map has no such id.
        """
        return int(self.rows([id])[0])

    def rows(self, ids: Sequence[str]) -> Int32:
        """The rows of ids, (len(ids),).

        Raises:
            NotFoundError: an id is unknown; the first one is named.
        """
        found = self.find(ids)
        if len(unknown := np.flatnonzero(found == NO_ITEM)):
            raise NotFoundError(f"no {self.what} {ids[unknown[0]]!r} among the {len(self)} known; check the id")
        return found

    def find(self, ids: Sequence[str]) -> Int32:
        """The rows of ids, (len(ids),), with -1 for an unknown one."""
        encoded = [_encoded(text) for text in ids]
        hashes = np.fromiter(map(_hash, encoded), np.uint64, len(encoded))
        first = np.searchsorted(self.hashes, hashes, "left").tolist()
        last = np.searchsorted(self.hashes, hashes, "right").tolist()
        found = np.full(len(encoded), NO_ITEM, np.int32)
        for at, (text, start, end) in enumerate(zip(encoded, first, last, strict=True)):
            for row in self.order[start:end].tolist():
                if self._bytes(row) == text:
                    found[at] = row
                    break
        return found

    def _bytes(self, row: int) -> bytes:
        return self.text[self.offsets[row] : self.offsets[row + 1]].tobytes()

    def _check_distinct(self) -> None:
        """Look for repeated ids among equal hashes, of which there are next to none."""
        (same,) = np.nonzero(self.hashes[1:] == self.hashes[:-1])
        seen: set[bytes] = set()
        for place in np.unique(np.concatenate([same, same + 1])).tolist():
            text = self._bytes(int(self.order[place]))
            if text in seen:
                repeated = text.decode("utf-8", "surrogatepass")
                raise DataError(f"the {self.what} id {repeated!r} is there twice; give each id once")
            seen.add(text)

    def _is_whole(self) -> bool:
        shapes = len(self.offsets) == len(self) + 1 and len(self.hashes) == len(self)
        return shapes and bool(self.offsets[0] == 0 and self.offsets[-1] == len(self.text))


def _load(path: Path, dtype: type[np.generic]) -> NDArray[Any]:
    array = mapped(path)
    if array.dtype != dtype or array.ndim != 1:
        raise ValueError(f"{path.name} holds {array.ndim}-d {array.dtype}, expected 1-d {np.dtype(dtype)}")
    return array
