"""What was learned, as plain arrays: all that ranking needs, in memory after a fit or mapped from a generation.

Model  ->  save  ->  <generation>/arrays/*.npy  ->  load (memory-mapped)  ->  Model
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.catalogue.ids import IdMap
from recsys.errors import ArtefactError
from recsys.hybrid.blend import Blend, Layout
from recsys.ranking.order import Order
from recsys.types import VECTOR_SPACES, Float32, Int32, Space
from recsys.util.npy import mapped, read


@dataclass(frozen=True, slots=True, eq=False)
class SpaceVectors:
    """The vectors of one space: ``rows`` (n,) item rows in rising order, ``vectors`` (n, d)."""

    rows: Int32
    vectors: Float32

    def place(self, item: int) -> int | None:
        """Find where an item row stands, or None."""
        place = int(np.searchsorted(self.rows, item))
        return place if place < len(self.rows) and int(self.rows[place]) == item else None


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Ids, joint vectors, what was heard, and the other spaces.

    ``user_vectors`` (n_users, d) calibrated, not weighted; ``item_vectors`` (n_items, d); ``counts`` and ``barred`` csr
    (n_users, n_items); ``spaces`` holds 'sound', 'content' and 'taste' where they exist ('hybrid' is ``item_vectors``).
    ``order`` is what the order of plays tells, None where it tells nothing.
    """

    users: IdMap
    items: IdMap
    blend: Blend
    user_vectors: Float32
    item_vectors: Float32
    counts: csr_matrix
    barred: csr_matrix
    spaces: Mapping[Space, SpaceVectors]
    order: Order | None = None
    _unknown: list[Int32] = field(default_factory=list, init=False, repr=False)  # once it was asked for

    @property
    def unknown(self) -> Int32:
        """Item rows of which nothing is known: nobody played them, and no space but 'hybrid' has a vector of them.

        Their item vectors are what is left where nothing is: a mean, which says nothing of the track.
        """
        if not self._unknown:
            known = np.zeros(len(self.items), dtype=bool)
            for space in self.spaces.values():
                known[space.rows] = True
            if "taste" not in self.spaces:
                known[self.counts.indices] = True
            # where no space was kept there is nothing to tell tracks by, and where nothing is known of any, no use
            tells = bool(self.spaces) and bool(known.any())
            self._unknown.append(np.flatnonzero(~known if tells else np.zeros(0, bool)).astype(np.int32))
        return self._unknown[0]

    def has_space(self, space: Space) -> bool:
        """Whether tracks have neighbours in a space, which takes vectors, or, of "next", a known order of plays."""
        if space not in VECTOR_SPACES:
            return self.order is not None
        return space == "hybrid" or space in self.spaces

    @property
    def has_plays(self) -> NDArray[np.bool_]:
        """Which users have plays, (n_users,)."""
        return np.asarray(np.diff(self.counts.indptr) > 0)

    def heard(self, user: int) -> Int32:
        """Item rows that a user has played."""
        return np.asarray(self.counts.indices[self.counts.indptr[user] : self.counts.indptr[user + 1]], np.int32)

    def barred_items(self, user: int) -> Int32:
        """Item rows that a user has disliked."""
        return np.asarray(self.barred.indices[self.barred.indptr[user] : self.barred.indptr[user + 1]], np.int32)

    def save(self, folder: Path) -> None:
        """Write the arrays into a new folder."""
        folder.mkdir(parents=True)
        self.users.save(folder, "user_ids")
        self.items.save(folder, "track_ids")
        np.save(folder / "user_vectors.npy", self.user_vectors)
        np.save(folder / "item_vectors.npy", self.item_vectors)
        for name, matrix in (("counts", self.counts), ("barred", self.barred)):
            np.save(folder / f"{name}_data.npy", matrix.data)
            np.save(folder / f"{name}_indices.npy", matrix.indices)
            np.save(folder / f"{name}_indptr.npy", matrix.indptr)
        for space, known in self.spaces.items():
            np.save(folder / f"{space}_rows.npy", known.rows)
            np.save(folder / f"{space}_vectors.npy", known.vectors)
        for part, covariance, gram in zip(self.blend.parts, self.blend.covariances, self.blend.grams, strict=True):
            np.save(folder / f"blend_{part.name}_covariance.npy", covariance)
            if gram is not None:
                np.save(folder / f"blend_{part.name}_gram.npy", gram)
        if self.order is not None:
            self.order.save(folder)
        facts = {
            "parts": self.blend.to_json(),
            "with_gram": [
                p.name for p, gram in zip(self.blend.parts, self.blend.grams, strict=True) if gram is not None
            ],
            "spaces": list(self.spaces),
        }
        (folder / "blend.json").write_text(json.dumps(facts, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Model":
        """Map the arrays of a folder into memory; pages are read when they are needed and shared by processes.

        Raises:
            ArtefactError: a file is missing or damaged.
        """
        try:
            return cls._load(folder)
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise ArtefactError(f"cannot read the arrays in {folder}: {error}; roll back or build again") from error

    @classmethod
    def _load(cls, folder: Path) -> "Model":
        facts = json.loads((folder / "blend.json").read_text())
        parts = tuple(Layout(**fields) for fields in facts["parts"])
        covariances = tuple(read(folder / f"blend_{p.name}_covariance.npy") for p in parts)
        with_gram = facts["with_gram"]
        grams = tuple(read(folder / f"blend_{p.name}_gram.npy") if p.name in with_gram else None for p in parts)
        users, items = IdMap.load(folder, "user_ids"), IdMap.load(folder, "track_ids")
        shape = (len(users), len(items))
        spaces: dict[Space, SpaceVectors] = {
            space: SpaceVectors(mapped(folder / f"{space}_rows.npy"), mapped(folder / f"{space}_vectors.npy"))
            for space in facts["spaces"]
        }
        return cls(
            users,
            items,
            Blend(parts, covariances, grams),
            mapped(folder / "user_vectors.npy"),
            mapped(folder / "item_vectors.npy"),
            _map_csr(folder, "counts", shape),
            _map_csr(folder, "barred", shape),
            spaces,
            Order.load(folder),
        )


def _map_csr(folder: Path, name: str, shape: tuple[int, int]) -> csr_matrix:
    """Join mapped arrays without copying or checking them all, which would read the whole file."""
    matrix = csr_matrix(shape, dtype=np.float32)
    matrix.data, matrix.indices = mapped(folder / f"{name}_data.npy"), mapped(folder / f"{name}_indices.npy")
    matrix.indptr = mapped(folder / f"{name}_indptr.npy")
    if len(matrix.indptr) != shape[0] + 1 or int(matrix.indptr[-1]) != len(matrix.indices):
        raise ValueError(f"{name} has {len(matrix.indptr) - 1} rows, expected {shape[0]}")
    return matrix
