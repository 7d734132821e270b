"""What a new track's score must surpass to come into a stored list of neighbours, for all tracks of a space.

    arrays/near_<space>.npy, lists of uploads  ->  Bars  ->  at(rows)  ->  a score for each row, never too high

A list that is not full takes every track in (-inf); a track that has no list gets none (inf). Bars of the generation's
tracks are an array that the build wrote. A generation of an older version lacks it: its scores are asked of DuckDB when
the first upload comes, which takes about a second for a million tracks. Lists only become better, so a bar that was
read once does for ever, if it lets more through than it could: who writes looks at the list itself.
"""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from recsys.errors import ArtefactError
from recsys.ranking.model import Model
from recsys.store.record import Record
from recsys.types import Float32, Int32, Space
from recsys.util.npy import mapped

BLOCK = 65_536  # tracks at a time
ALWAYS, NEVER = np.float32(-np.inf), np.float32(np.inf)


def bars_file(arrays: Path, space: Space) -> Path:
    """The file of the bars (n_items,) of a generation's own tracks."""
    return arrays / f"near_{space}.npy"


def bar_of(record: bytes, depth: int) -> np.float32:
    """The score at the last of ``depth`` places of a list, -inf where it is empty."""
    known = Record(record)
    return ALWAYS if known.n < depth else np.float32(Record(record).found()[depth - 1][1])


class Bars:
    """Bars of one generation and its uploads; thread-safe.

    ``last_scores`` gives, for a space, ids of the tracks that have neighbours and the score at the last place of each
    list, -inf of one that is not full; for generations that lack the arrays.
    """

    def __init__(
        self, model: Model, arrays: Path, depth: int, last_scores: Callable[[Space, int], tuple[list[str], Float32]]
    ) -> None:
        self._model, self._arrays, self.depth, self._last_scores = model, arrays, depth, last_scores
        self._built: dict[Space, Float32] = {}
        self._scales: dict[Space, Float32] = {}
        self._uploads: dict[Space, Float32] = {}  # by place, NaN where not known
        self._guard = threading.Lock()

    def at(self, space: Space, rows: Int32, record_of: Callable[[int], bytes | None]) -> Float32:
        """The bars of rows (n,); ``record_of`` gives the committed list of an upload's row.

        Raises:
            ArtefactError: a file of the generation is damaged.
        """
        n_built = len(self._model.items)
        bars = np.full(len(rows), NEVER, dtype=np.float32)
        built = rows < n_built
        if built.any():
            bars[built] = self._of_built(space)[rows[built]]
        if not built.all():
            bars[~built] = self._of_uploads(space, rows[~built], n_built, record_of)
        return bars

    def scales(self, space: Space) -> Float32:
        """One through the length of each vector that the generation has in a space, as it is compared; 0 for zeros."""
        with self._guard:
            if space not in self._scales:
                self._scales[space] = self._scaled(space)
            return self._scales[space]

    def _scaled(self, space: Space) -> Float32:
        blend, is_hybrid = self._model.blend, space == "hybrid"
        vectors = self._model.item_vectors if is_hybrid else self._model.spaces[space].vectors
        columns, played, new = blend.likeness_factors()
        lengths = np.zeros(len(vectors), dtype=np.float32)
        for start in range(0, len(vectors), BLOCK):
            block = np.asarray(vectors[start : start + BLOCK])
            if is_hybrid:
                block = block[:, columns] * np.where(blend.unplayed(block)[:, None], new, played)
            lengths[start : start + BLOCK] = np.sqrt(np.einsum("nd,nd->n", block, block))
        scales: Float32 = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        return scales

    def saw(self, space: Space, row: int, record: bytes) -> np.float32:
        """Keep the bar of a committed list of an upload's row, and give it."""
        bar = bar_of(record, self.depth)
        with self._guard:
            self._known(space, row - len(self._model.items) + 1)[row - len(self._model.items)] = bar
        return bar

    def _of_built(self, space: Space) -> Float32:
        with self._guard:
            if space not in self._built:
                self._built[space] = self._read(bars_file(self._arrays, space), space)
            return self._built[space]

    def _read(self, file: Path, space: Space) -> Float32:
        n_items = len(self._model.items)
        if not file.exists():
            bars = np.full(n_items, NEVER, dtype=np.float32)
            track_ids, scores = self._last_scores(space, self.depth)
            bars[self._model.items.rows(track_ids)] = scores
            return bars
        try:
            stored: Float32 = mapped(file)
        except (OSError, ValueError) as error:
            raise ArtefactError(f"cannot read {file}: {error}; roll back or build again") from error
        if stored.shape != (n_items,) or stored.dtype != np.float32:
            found = f"{stored.shape} {stored.dtype}"
            raise ArtefactError(f"{file} holds {found}, expected ({n_items},) float32; roll back or build again")
        return stored

    def _of_uploads(self, space: Space, rows: Int32, n_built: int, record_of: Callable[[int], bytes | None]) -> Float32:
        places = rows - n_built
        with self._guard:
            known = self._known(space, int(places.max()) + 1)
            for place in places[np.isnan(known[places])].tolist():
                record = record_of(n_built + place)
                if record is not None:
                    known[place] = bar_of(record, self.depth)
            bars: Float32 = np.where(np.isnan(known[places]), ALWAYS, known[places])
            return bars

    def _known(self, space: Space, n: int) -> Float32:
        """Bars of uploads, with room for n."""
        known = self._uploads.get(space, np.zeros(0, dtype=np.float32))
        if len(known) < n:
            room = np.full(max(n, 2 * len(known)), np.nan, dtype=np.float32)
            room[: len(known)] = known
            known = self._uploads[space] = room
        return known
