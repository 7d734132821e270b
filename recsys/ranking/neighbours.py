"""Tracks that are alike: nearest neighbours by cosine in one space.

    rows (n,), vectors (n, d)  ->  find_neighbours  ->  Neighbours (n, k)

Exact below ``exact_below`` tracks. Above it, as an inverted file does (Jégou et al., PAMI 2011): k-means, by faiss,
puts the tracks into about 2 sqrt(n) cells, and a track is compared with those of the ``n_probe`` cells nearest to its
own. Every track asks, so a whole cell asks at once: its scores are one matrix product, several times as fast as a
search track by track.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix

from recsys.types import NO_ITEM, Float32, Int32, Neighbours, Space
from recsys.util.progress import Progress
from recsys.util.settings import Settings
from recsys.util.threads import in_numpy_threads
from recsys.util.topk import blocks_of, top_k, unit_rows

BLOCK = 4096  # tracks at a time, so that a bar can move
CELLS = 2.0  # times sqrt(n)
TRAINING_ROUNDS = 5  # of k-means, on so many tracks a cell; more of either found no more
TRAINING_TRACKS = 32

NeighbourBlock = tuple[
    Int32, Int32, Float32
]  # places of some tracks (m,), places of their neighbours (m, k), scores (m, k)


class NeighbourSettings(Settings):
    """``[neighbours]`` in the run's TOML file."""

    depth: int = Field(default=50, ge=1)
    exact_below: int = Field(default=50_000, ge=0)
    n_probe: int = Field(default=48, ge=1)


def find_neighbours(
    rows: Int32,
    vectors: Float32,
    space: Space,
    settings: NeighbourSettings,
    progress: Progress,
    *,
    are_unit: bool = False,
) -> Neighbours:
    """Find the ``depth`` nearest other tracks of each track.

    Args:
        rows: item rows of the tracks that have a vector in this space, rising.
        vectors: (n, d), any length; all-zero ones have no neighbours and are nobody's.
        space: its name.
        settings: depth and cells.
        progress: shows tracks done.
        are_unit: the vectors are of unit length, and are not scaled again, which would change their last bits.

    Returns:
        Neighbours over the rows with a vector that is not zero; empty places are item -1 with score -inf.
    """
    known = np.flatnonzero(np.abs(vectors).sum(axis=1))
    unit, own = vectors[known] if are_unit else unit_rows(vectors[known]), rows[known]
    n = len(unit)
    items = np.full((n, settings.depth), NO_ITEM, dtype=np.int32)
    scores = np.full((n, settings.depth), -np.inf, dtype=np.float32)
    if n > 1:
        search = _exact if n < settings.exact_below else _by_cells
        with progress.bar(f"neighbours: {space}", n, "tracks") as bar:
            for places, found, found_scores in search(unit, settings):
                items[places] = np.where(found == NO_ITEM, NO_ITEM, own[found])
                scores[places] = found_scores
                bar.advance(len(places))
    return Neighbours(own, items, scores, space)


def _exact(unit: Float32, settings: NeighbourSettings) -> Iterator[NeighbourBlock]:
    """Compare every track with every other."""
    for start in range(0, len(unit), BLOCK):
        places = np.arange(start, min(start + BLOCK, len(unit)), dtype=np.int32)
        found = top_k(unit[places], unit, settings.depth, (_one_each(places, len(unit)),))
        yield places, found.items, found.scores


def _by_cells(unit: Float32, settings: NeighbourSettings) -> Iterator[NeighbourBlock]:
    """Compare the tracks of each cell with those of the cells nearest to it."""
    cells, centres = _cells(unit, max(1, int(CELLS * np.sqrt(len(unit)))))
    n_probe = min(settings.n_probe, len(cells))
    near = np.argpartition(-(centres @ centres.T), n_probe - 1, axis=1)[:, :n_probe]
    # its own cell is looked into whatever rounding says
    pools = [[cells[own], *(cells[other] for other in others if other != own)] for own, others in enumerate(near)]
    search = partial(_of_a_cell, unit, settings.depth)
    yield from in_numpy_threads(search, [pool for pool in pools if len(pool[0])])


def _of_a_cell(unit: Float32, depth: int, pool: Sequence[Int32]) -> NeighbourBlock:
    """Compare the tracks of the first of some cells with those of all."""
    places, others = pool[0], np.sort(np.concatenate(pool))
    vectors, selves = unit[others], np.searchsorted(others, places)
    items = np.empty((len(places), depth), dtype=np.int32)
    scores = np.empty((len(places), depth), dtype=np.float32)
    for block in blocks_of(len(places), len(others)):
        found = top_k(unit[places[block]], vectors, depth, (_one_each(selves[block], len(others)),))
        items[block] = np.where(found.items == NO_ITEM, NO_ITEM, others[found.items])
        scores[block] = found.scores
    return places, items, scores


def _cells(unit: Float32, n_cells: int) -> tuple[list[Int32], Float32]:
    """Put tracks into cells: the places of each cell's tracks, rising, and the cells' centres (n_cells, d)."""
    import faiss

    means: Any = faiss.Kmeans(
        unit.shape[1], n_cells, niter=TRAINING_ROUNDS, spherical=True, seed=1,
        min_points_per_centroid=1, max_points_per_centroid=TRAINING_TRACKS,
    )  # fmt: skip
    means.train(unit)
    cell_of = means.index.search(unit, 1)[1][:, 0]
    order = np.argsort(cell_of, kind="stable").astype(np.int32)
    bounds = np.searchsorted(cell_of[order], np.arange(n_cells + 1))
    return [order[start:stop] for start, stop in pairwise(bounds)], means.centroids


def _one_each(columns: NDArray[np.integer[Any]], n: int) -> csr_matrix:
    """One stored pair a row: (len(columns), n)."""
    return csr_matrix((np.ones(len(columns), bool), columns, np.arange(len(columns) + 1)), shape=(len(columns), n))
