"""How neighbours and lists grow with the catalogue: part of ``benchmarks.train``.

factors of listens to many tracks, and of a tenth of these tracks  ->  neighbours, lists  ->  rows of the table
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks.children import in_a_child
from benchmarks.listens import made_listens, model_of
from benchmarks.table import Row
from recsys.cf.als import ALSSettings, fit_als
from recsys.ranking.candidates import PoolSettings, user_blocks
from recsys.ranking.model import Model
from recsys.ranking.neighbours import NeighbourSettings
from recsys.types import MAX_K, Factors, Float32, Int32, Plays
from recsys.util.progress import Bar
from recsys.util.topk import top_k, unit_rows

DEPTH = 50
PROBES = (4, 6, 8, 12, 16, 24, 32, 48)  # tried on the smaller catalogue, until its recall is that of the larger


@dataclass(frozen=True, slots=True)
class ScaleSizes:
    """How much is measured: tracks of the two catalogues, users and pairs of the larger, and samples."""

    n_few: int = 100_000
    n_many: int = 1_000_000
    n_users: int = 200_000
    n_pairs: int = 20_000_000
    epochs: int = 5
    n_sample: int = 2000  # tracks whose neighbours are compared with exact ones
    n_list_users: int = 16_384
    n_exact_users: int = 500
    n_probe: int = field(default_factory=lambda: NeighbourSettings().n_probe)
    lists: PoolSettings = field(default_factory=PoolSettings)


def measure_scale(sizes: ScaleSizes, bar: Bar) -> list[Row]:
    """Measure growth; the bar goes on by 3."""
    counts = made_listens(sizes.n_users, sizes.n_many, sizes.n_pairs, seed=1).counts
    n_users, n_many = counts.shape
    plays = Plays(counts, csr_matrix(counts.shape, dtype=bool), [""] * n_users, [""] * n_many)
    factors = fit_als(plays, ALSSettings(epochs=sizes.epochs))
    bar.advance()
    rng = np.random.default_rng(0)
    few = np.sort(rng.permutation(n_many)[: sizes.n_few])
    played = np.abs(factors.item_factors).sum(axis=1) > 0
    rows = _neighbour_rows(factors.item_factors[few[played[few]]], factors.item_factors[played], sizes, rng)
    bar.advance()
    of_few = csr_matrix(counts[:, few])
    users = np.sort(rng.permutation(np.flatnonzero(np.diff(of_few.indptr)))[: sizes.n_list_users])
    small = model_of(of_few[users], Factors(factors.user_factors[users], factors.item_factors[few]))
    large = model_of(counts[users], Factors(factors.user_factors[users], factors.item_factors))
    rows += _list_rows(small, large, sizes, rng)
    bar.advance()
    return rows


@dataclass(frozen=True, slots=True)
class _Search:
    """Neighbours of a catalogue: seconds by exact search (scaled) and by ours, recall of the sample, peak in bytes."""

    n: int
    exact_s: float
    seconds: float
    recall: float
    peak: float
    n_probe: int


def _neighbour_rows(few: Float32, many: Float32, sizes: ScaleSizes, rng: np.random.Generator) -> list[Row]:
    large = _searched(many, (sizes.n_probe,), 0.0, sizes, rng)
    small = _searched(few, PROBES, large.recall, sizes, rng)
    rows = []
    for found, targeted in ((large, True), (small, False)):
        share = found.seconds / found.exact_s
        what = f"neighbours of {found.n:,} tracks, {found.n_probe} cells: share of exact search's time"
        said = f"1/{1 / share:.0f}; {found.seconds:.1f} s, {found.exact_s:,.0f} s"
        rows.append(Row(what, said, "<= 1/20", share <= 1 / 20) if targeted else Row(what, said))
        message = Row(f"  recall@{DEPTH}", f"{found.recall:.3f}")
        rows.append(Row(message.what, message.found, ">= 0.95", found.recall >= 0.95) if targeted else message)
    growth = large.seconds / large.n / (small.seconds / small.n)
    rows.append(Row(f"  time a track, {large.n:,}: times {small.n:,}", f"{growth:.2f}", "<= 3.5", growth <= 3.5))
    of_large, of_small = large.peak / large.n, small.peak / small.n
    memory = f"{of_large / of_small:.2f}; {of_large:,.0f} bytes, {of_small:,.0f}"
    rows.append(Row("  peak memory a track, likewise", memory, "<= 1.1", of_large <= 1.1 * of_small))
    return rows


def _searched(
    vectors: Float32, probes: Sequence[int], recall: float, sizes: ScaleSizes, rng: np.random.Generator
) -> _Search:
    """Search in a child, with the first of the numbers of cells that reaches the recall."""
    sample = np.sort(rng.permutation(len(vectors))[: sizes.n_sample])
    wanted, exact_s = _exact_neighbours(vectors, sample)
    with TemporaryDirectory() as folder:
        np.save(Path(folder) / "vectors.npy", vectors)
        np.save(Path(folder) / "sample.npy", sample)
        for n_probe in probes:
            facts = in_a_child("neighbours", Path(folder), n_probe)
            reached = shared(wanted, np.load(Path(folder) / "found.npy"))
            if reached >= recall:
                break
    return _Search(len(vectors), exact_s, facts["seconds"], reached, facts["peak"], n_probe)


def _exact_neighbours(vectors: Float32, sample: NDArray[np.int64]) -> tuple[Int32, float]:
    """Search exactly by faiss for a sample; its neighbours (m, DEPTH), and the seconds that all would take."""
    import faiss

    index: Any = faiss.IndexFlatIP(vectors.shape[1])
    unit = unit_rows(vectors)
    index.add(unit)
    start = perf_counter()
    found = index.search(unit[sample], DEPTH + 1)[1]
    seconds = (perf_counter() - start) * len(vectors) / len(sample)
    order = np.argsort(found == sample[:, None], axis=1, kind="stable")[:, :DEPTH]  # itself to the end, and off
    return np.take_along_axis(found, order, axis=1).astype(np.int32), seconds


def shared(wanted: Int32, found: Int32) -> float:
    """Share of the wanted items that were found, row by row: recall, as all lists are equally long."""
    hits = [len(np.intersect1d(a[a >= 0], b)) for a, b in zip(wanted, found, strict=True)]
    return sum(hits) / max(int((wanted >= 0).sum()), 1)


def _list_rows(small: Model, large: Model, sizes: ScaleSizes, rng: np.random.Generator) -> list[Row]:
    times = [[_listed(model, sizes.lists)[1] for model in (small, large)] for _ in range(2)]
    of_small, of_large = (min(tries) for tries in zip(*times, strict=True))
    items = _listed(large, sizes.lists)[0]
    users = np.sort(rng.permutation(len(items))[: sizes.n_exact_users]).astype(np.int32)
    start = perf_counter()
    exact = top_k(_queries(large, users), large.item_vectors, MAX_K, (large.counts[users],)).items
    exact_s = (perf_counter() - start) / len(users)
    recall, n = shared(exact, items[users]), len(items)
    n_few, n_many = len(small.items), len(large.items)
    growth = of_large / of_small
    said = f"{growth:.2f}; {1000 * of_large / n:.2f} ms, {1000 * of_small / n:.2f} ms"
    return [
        Row(f"lists of {n:,} users, {n_many:,} tracks: recall@{MAX_K}", f"{recall:.3f}", ">= 0.97", recall >= 0.97),
        Row(f"  time a user, times that of {n_few:,} tracks", said, "<= 1.5", growth <= 1.5),
        Row("  share of exact scoring's time", f"1/{exact_s * n / of_large:.1f}; {1000 * exact_s:.2f} ms a user"),
    ]


def _listed(model: Model, settings: PoolSettings) -> tuple[Int32, float]:
    """Rank for all users as publishing does: items (n_users, MAX_K), and seconds."""
    items = np.empty((len(model.users), MAX_K), dtype=np.int32)
    start = perf_counter()
    for users, pool in user_blocks(model, settings):
        ranked = top_k(_queries(model, users), model.item_vectors, MAX_K, (model.counts[users],), pool)
        items[users] = ranked.items
    return items, perf_counter() - start


def _queries(model: Model, users: Int32) -> Float32:
    return model.blend.queries(model.user_vectors[users], model.has_plays[users])
