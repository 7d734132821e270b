"""Tracks that are alike: nearest neighbours by cosine in one space, found by faiss.

    rows (n,), vectors (n, d)  ->  find_neighbours  ->  Neighbours (n, k)

Exact up to ``exact_below`` tracks; above it an inverted file (Jégou et al., PAMI 2011; Johnson et al., 2017) that
looks into the ``n_probe`` nearest of about 4 sqrt(n) cells.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recsys.hybrid.blend import unit_rows
from recsys.progress import Progress
from recsys.settings import Settings
from recsys.types import NO_ITEM, Float32, Int32, Neighbours, Space

BLOCK = 4096  # queries a call, so that a bar can move


class NeighbourSettings(Settings):
    """``[neighbours]`` in the run's TOML file."""

    depth: int = Field(default=50, ge=1)
    exact_below: int = Field(default=50_000, ge=0)
    n_probe: int = Field(default=32, ge=1)


def find_neighbours(
    rows: Int32, vectors: Float32, space: Space, settings: NeighbourSettings, progress: Progress
) -> Neighbours:
    """Find the ``depth`` nearest other tracks of each track.

    Args:
        rows: item rows of the tracks that have a vector in this space.
        vectors: (n, d), any length; all-zero ones have no neighbours and are nobody's.
        space: its name.
        settings: depth and index.
        progress: shows tracks done.

    Returns:
        Neighbours over the rows with a vector that is not zero; empty places are item -1 with score -inf.
    """
    import faiss

    known = np.flatnonzero(np.abs(vectors).sum(axis=1))
    unit = np.ascontiguousarray(unit_rows(vectors[known]))
    n, d = unit.shape
    depth = min(settings.depth, max(n - 1, 0))
    items = np.full((n, settings.depth), NO_ITEM, dtype=np.int32)
    scores = np.full((n, settings.depth), -np.inf, dtype=np.float32)
    own = rows[known]
    if depth:
        index: Any = faiss.index_factory(d, _index_name(n, settings), faiss.METRIC_INNER_PRODUCT)
        index.train(unit)
        if n >= settings.exact_below:
            index.nprobe = settings.n_probe
        index.add(unit)
        with progress.bar(f"neighbours: {space}", n, "tracks") as bar:
            for start in range(0, n, BLOCK):
                block = slice(start, min(start + BLOCK, n))
                found_scores, found = index.search(unit[block], depth + 1)
                items[block, :depth], scores[block, :depth] = _without_self(
                    found, found_scores, np.arange(block.start, block.stop), own, depth
                )
                bar.advance(block.stop - block.start)
    return Neighbours(own, items, scores, space)


def _index_name(n: int, settings: NeighbourSettings) -> str:
    return "Flat" if n < settings.exact_below else f"IVF{int(4 * np.sqrt(n))},Flat"


def _without_self(
    found: NDArray[np.int64], found_scores: Float32, selves: NDArray[np.int64], own: Int32, depth: int
) -> tuple[Int32, Float32]:
    """Drop the query itself, wherever it stands (a twin may come first), order ties by row, and name item rows."""
    scores = np.where((found == selves[:, None]) | (found < 0), -np.inf, found_scores)
    named = np.where(np.isneginf(scores), NO_ITEM, own[np.maximum(found, 0)])
    order = np.lexsort((named, -scores), axis=1)[:, :depth]
    return (
        np.take_along_axis(named, order, axis=1).astype(np.int32),
        np.take_along_axis(scores, order, axis=1).astype(np.float32),
    )
