"""Factors, lists and neighbours beside what others take: `make bench-train`, or `python -m benchmarks.train`.

    listens that are made up  ->  factors, lists, the prior's step, their memory, neighbours, growth
                              ->  one table: found, target, met

Every figure is a ratio of one run on the same cores; the two that are compared take turns. It is no test: a missed
target is a line in the table. Nothing is kept but the table.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from threadpoolctl import threadpool_limits

from benchmarks.children import in_a_child
from benchmarks.listens import Listening, made_listens
from benchmarks.scale import ScaleSizes, measure_scale, shared
from benchmarks.table import Row, table
from recsys.cf.als import ALSSettings, confidence, confidence_scale, fit_als
from recsys.hybrid.prior import PriorSettings, prior_item_step
from recsys.ranking.candidates import PoolSettings
from recsys.types import MAX_K, Factors, Float32
from recsys.util.progress import Bar, Bars, Progress
from recsys.util.threads import n_cores
from recsys.util.topk import top_k

FEW_PLAYS = 50  # listeners above which the prior's step is left out
SLICES = 8  # of the users, between which the two that rank take turns
BLOCK = 2048  # users ranked at a time, as publishing does


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured; the targets are meant for these sizes."""

    n_users: int = 200_000
    n_items: int = 100_000
    n_pairs: int = 10_000_000
    als: ALSSettings = field(default_factory=ALSSettings)
    tries: int = 2
    n_compared: int = 4096  # users whose lists are compared
    scale: ScaleSizes = field(default_factory=ScaleSizes)


QUICK = Sizes(
    n_users=1500, n_items=1200, n_pairs=40_000, als=ALSSettings(n_factors=16, epochs=3), n_compared=500,
    scale=ScaleSizes(n_few=800, n_many=4000, n_users=1500, n_pairs=60_000, epochs=2, n_sample=200, n_list_users=700,
                     n_exact_users=100, n_probe=32, lists=PoolSettings(exact_below=1000, pool=1000)),
)  # fmt: skip


@dataclass(slots=True)
class _Bench:
    """What is measured with, and the lines so far."""

    listening: Listening
    sizes: Sizes
    bar: Bar
    rows: list[Row] = field(default_factory=list)

    def at_most(self, what: str, ratio: float, most: float, beside: str) -> None:
        """Add a line with a ratio that may not be above a target."""
        self.rows.append(Row(what, f"{ratio:.2f}; {beside}", f"<= {most:g}", ratio <= most))


def measure(sizes: Sizes, progress: Progress) -> list[Row]:
    """Measure everything."""
    with progress.bar("benchmark", 8, "measurements") as bar:
        bench = _Bench(made_listens(sizes.n_users, sizes.n_items, sizes.n_pairs), sizes, bar)
        bar.advance()
        factors, iteration_s = _factors_and_lists(bench)
        _prior(bench, factors, iteration_s)
        _memory(bench)
        return bench.rows + measure_scale(sizes.scale, bar)


def _factors_and_lists(bench: _Bench) -> tuple[Factors, float]:
    """Against ``implicit`` alone; returns the factors and the seconds of one of its iterations."""
    plays, settings = bench.listening.plays, bench.sizes.als
    implicit_s, ours_s = list[float](), list[float]()
    for _ in range(bench.sizes.tries):
        model, seconds = _timed(_by_implicit, bench.listening, settings)
        implicit_s.append(seconds)
        factors, seconds = _timed(fit_als, plays, settings)
        ours_s.append(seconds)
    bench.bar.advance()
    lists = _lists(bench, model, factors)
    bench.bar.advance()
    fits = float(np.median(implicit_s)), float(np.median(ours_s))
    theirs, ours = fits[0] + lists[0], fits[1] + lists[1]
    bench.at_most(
        f"factors and top {MAX_K}: times implicit alone", ours / theirs, 1.15, f"{ours:.1f} s, {theirs:.1f} s"
    )
    for what, (one, other) in (("factors", fits), ("lists", lists)):
        bench.rows.append(Row(f"  {what}", f"{other / one:.2f}; {other:.1f} s, {one:.1f} s"))
    return factors, fits[0] / settings.epochs


def _by_implicit(listening: Listening, settings: ALSSettings) -> Any:
    """Fit as its documentation shows, on the same confidences."""
    from implicit.cpu.als import AlternatingLeastSquares

    counts = listening.counts
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=settings.n_factors, regularization=settings.l2, iterations=settings.epochs, random_state=0
        )
        model.fit(confidence(counts, confidence_scale(counts, settings)), show_progress=False)
    return model


def _lists(bench: _Bench, model: Any, factors: Factors) -> tuple[float, float]:
    """Seconds of all users' lists by implicit and by us, which take turns, slice of users by slice."""
    counts, n_users = bench.listening.counts, bench.listening.counts.shape[0]
    theirs = ours = 0.0
    for part in np.array_split(np.arange(n_users), SLICES):
        with threadpool_limits(1, "blas"):
            theirs += _timed(model.recommend, part, counts[part], MAX_K)[1]
        ours += _timed(_ranked, bench, factors, part[0], part[-1] + 1)[1]
    return theirs, ours


def _ranked(bench: _Bench, factors: Factors, first: int, last: int) -> None:
    for start in range(first, last, BLOCK):
        users = slice(start, min(start + BLOCK, last))
        top_k(factors.user_factors[users], factors.item_factors, MAX_K, (bench.listening.counts[users],))


def _prior(bench: _Bench, factors: Factors, iteration_s: float) -> None:
    """The step towards what content says, which is here the mean of a track's taste, beside an iteration of ALS."""
    plays, settings = bench.listening.plays, bench.sizes.als
    prior = _mean_of_taste(bench.listening, factors.item_factors)
    steps = [PriorSettings(at_most_listeners=limit) for limit in (None, FEW_PLAYS)]
    solved, seconds = list[Float32](), list[list[float]]()
    for _ in range(bench.sizes.tries):
        arguments = plays, factors.user_factors, prior, settings
        runs = [_timed(prior_item_step, *arguments, step, factors.item_factors) for step in steps]
        solved, seconds = [items for items, _ in runs], [*seconds, [s for _, s in runs]]
    for what, times, most in zip(
        ("all tracks", f"tracks of at most {FEW_PLAYS} listeners"), zip(*seconds, strict=True), (2, 1), strict=True
    ):
        found = float(np.median(times))
        beside = f"{found:.1f} s, {iteration_s:.1f} s"
        bench.at_most(f"content prior, {what}: times an iteration of ALS", found / iteration_s, most, beside)
    lists = [_best_20(bench, factors.user_factors, items) for items in (*solved, factors.item_factors)]
    alike, without = shared(lists[0], lists[1]), shared(lists[0], lists[2])
    bench.rows.append(
        Row("  top 20 of all tracks' step that are in the limited one's", f"{alike:.3f}; {without:.3f} of none")
    )
    bench.bar.advance()


def _mean_of_taste(listening: Listening, item_factors: Float32) -> Float32:
    """For each track the mean factors of those of its taste: (n_items, f)."""
    n = np.bincount(listening.taste)
    sums = np.zeros((len(n), item_factors.shape[1]), dtype=np.float32)
    np.add.at(sums, listening.taste, item_factors)
    return np.asarray((sums / n[:, None])[listening.taste], dtype=np.float32)


def _best_20(bench: _Bench, users: Float32, items: Float32) -> Any:
    some = slice(bench.sizes.n_compared)
    return top_k(users[some], items, 20, (bench.listening.counts[some],)).items


def _memory(bench: _Bench) -> None:
    counts, n_factors = bench.listening.counts, bench.sizes.als.n_factors
    with TemporaryDirectory() as folder:
        for name in ("data", "indices", "indptr", "shape"):
            np.save(Path(folder) / f"{name}.npy", np.asarray(getattr(counts, name)))
        peaks = in_a_child("fit", Path(folder), n_factors)
    matrix = sum(part.nbytes for part in (counts.data, counts.indices, counts.indptr))
    whole = matrix + 4 * n_factors * sum(counts.shape)
    for what, name in (("factors", "fit"), ("and the prior's step", "prior"), ("and lists", "lists")):
        beside = f"{peaks[name] / 1e6:.0f} MB, {whole / 1e6:.0f} MB"
        bench.at_most(f"peak memory, {what}: times plays and factors", peaks[name] / whole, 2.5, beside)
    bench.bar.advance()


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    start = perf_counter()
    found = function(*arguments)
    return found, perf_counter() - start


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure little, in seconds; the targets do not hold.")
    ] = False,
) -> None:
    """Measure what training costs beside ``implicit`` and exact search, and print a table."""
    sizes, start = QUICK if quick else Sizes(), perf_counter()
    rows = measure(sizes, Bars())
    title = f"{n_cores()} cores, {sizes.n_users:,} users x {sizes.n_items:,} tracks x {sizes.n_pairs:,} pairs"
    Console(width=None if sys.stdout.isatty() else 150).print(table(rows, title))
    typer.echo(f"measured in {perf_counter() - start:.0f} s")


if __name__ == "__main__":
    typer.run(main)
