"""Cosines of all tracks of a space with a few new ones: quickly but for rounding, then exactly for who may matter.

unit vectors of new tracks  ->  scored, block by block  ->  who is near a bar, or among the Best  ->  exact_of
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.live.thresholds import BLOCK, Bars
from recsys.ranking.catalogue_view import CatalogueView
from recsys.types import Float32, Int32, Space
from recsys.util.topk import exact

ROUNDING = np.float32(1e-5)  # of a cosine by a matrix product, which only finds whom to look at


def scored(catalogue: CatalogueView, bars: Bars, space: Space, unit: Float32) -> Iterator[tuple[Int32, Float32]]:
    """Rows (n,) of the tracks of a space and their cosines (n, m) with unit vectors (m, d), but for rounding.

    Those of the generation's tracks are products with the vectors as they lie on disk, scaled afterwards: to make unit
    vectors of all of them takes ten times as long. One that is in no list has -inf.
    """
    model = catalogue.model
    known, blend = model.spaces.get(space), model.blend
    known_rows = np.zeros(0, dtype=np.int32) if known is None else known.rows
    if space == "hybrid" or known is not None:
        columns, played, new = blend.likeness_factors()
        vectors = model.item_vectors if space == "hybrid" or known is None else known.vectors
        scales, weights, weights_new = bars.scales(space), unit.T, unit.T
        if space == "hybrid":
            weights, weights_new = (_spread(unit, columns, factors, vectors.shape[1]) for factors in (played, new))
        for start in range(0, len(vectors), BLOCK):
            block, here = np.asarray(vectors[start : start + BLOCK]), slice(start, start + BLOCK)
            rows = np.arange(start, start + len(block), dtype=np.int32) if space == "hybrid" else known_rows[here]
            about = block @ weights
            if space == "hybrid" and (is_new := blend.unplayed(block)).any():
                about[is_new] = block[is_new] @ weights_new
            about *= scales[here, None]
            about[(scales[here] == 0) | ~catalogue.is_shown(rows)] = -np.inf
            yield rows, about
    rows, vectors = catalogue.uploads_in(space)
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK], vectors[start : start + BLOCK] @ unit.T


def _spread(unit: Float32, columns: NDArray[np.intp], factors: Float32, dim: int) -> Float32:
    """Weights (dim, m) by which joint vectors give products with unit vectors (m, d') of likeness."""
    weights = np.zeros((dim, len(unit)), dtype=np.float32)
    weights[columns] = (unit * factors).T
    return weights


class Best:
    """Rows that may be among the ``depth`` best, of cosines that are right but for rounding."""

    def __init__(self, depth: int) -> None:
        self.rows: Int32 = np.zeros(0, dtype=np.int32)
        self._scores: Float32 = np.zeros(0, dtype=np.float32)
        self._depth, self._floor = depth, np.float32(-np.inf)

    def take(self, rows: Int32, scores: Float32) -> None:
        """Look at further ones."""
        good = (scores >= self._floor - 2 * ROUNDING) & (scores > -np.inf)
        self.rows = np.concatenate([self.rows, rows[good]])
        self._scores = np.concatenate([self._scores, scores[good]])
        if len(self.rows) > self._depth:
            last = len(self.rows) - self._depth
            self._floor = np.partition(self._scores, last)[last]
            kept = self._scores >= self._floor - 2 * ROUNDING
            self.rows, self._scores = self.rows[kept], self._scores[kept]


def exact_of(
    catalogue: CatalogueView, space: Space, rows: Int32, unit: Float32, at: NDArray[np.intp], by: NDArray[np.intp]
) -> Float32:
    """Cosines of pairs of a row and a unit vector, added up as those of all stored lists are: (n_pairs,)."""
    few, places = np.unique(at, return_inverse=True)
    if not len(few):
        return np.zeros(0, dtype=np.float32)
    return exact(unit, catalogue.unit_vectors(rows[few], space), by, places)
