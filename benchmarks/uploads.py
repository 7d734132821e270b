"""What uploads cost those who read: one more of them beside many, and look-ups once there is one.

    python -m benchmarks.uploads  ->  a table with ratios of one run: 40,000 uploads to 1,000, after an upload to before

The store is made up. Uploads come straight into the log, as their audio has no part in it; a worker then takes in one
more, as it does after every write. Look-ups are those of the event loop, without a network.
"""

import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from benchmarks.served_store import StoreSizes, made_store, user_id
from benchmarks.table import Row, table
from recsys.errors import DataError
from recsys.eventlog.events import Upload
from recsys.eventlog.snapshot import Snapshot
from recsys.eventlog.store import LiveStore
from recsys.recommender import Recommender
from recsys.serving.reload import open_answers
from recsys.store.generation import Store
from recsys.types import Float32
from recsys.util.progress import Bars, Progress
from recsys.v1 import recommender_pb2 as pb

AT_MOST, AT_LEAST = 2.0, 0.95
CALLS = 2000  # look-ups a round
ROUNDS = 21

Look = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class UploadSizes:
    """How much there is; ``few`` and ``many`` are uploads."""

    store: StoreSizes
    few: int = 1000
    many: int = 40_000
    tries: int = 25


FULL = UploadSizes(StoreSizes(2000, 5000, 5000))
QUICK = UploadSizes(StoreSizes(200, 300, 300), 20, 200, 3)


def measure_one_more(folder: Path, sizes: UploadSizes, progress: Progress) -> list[Row]:
    """Measure what a worker does to take in one more upload, beside few and beside many."""
    with closing(Recommender.open(folder)) as recommender, closing(LiveStore.open(Store(folder).live)) as live:
        model, generation, current = recommender.model, recommender.generation, recommender
        rng, number, found = np.random.default_rng(0), 0, list[float]()
        snapshot = Snapshot.at(model, generation, folder, 0)
        for n in (sizes.few, sizes.many):
            vectors = rng.normal(size=(n - number, model.item_vectors.shape[1])).astype(np.float32)
            with progress.bar(f"uploads: {n:,}", len(vectors), "uploads") as bar, live.writing() as writing:
                for vector in vectors:
                    number = writing.append(_upload(number))
                    writing.set_vectors(generation, number, {"hybrid": vector})
                    bar.advance()
            with live.reading() as reading:
                snapshot = snapshot.extended(reading)
            times = list[float]()
            for _ in range(sizes.tries):
                number = live.append(_upload(number), generation, {"hybrid": vectors[0]})
                with live.reading() as reading:
                    start = perf_counter()
                    snapshot = snapshot.extended(reading)
                    current = current.with_uploads(snapshot.uploads)
                    times.append(perf_counter() - start)
            if current.status()["n_uploads"] != number:
                raise DataError(f"{current.status()['n_uploads']} of {number} uploads are shown")
            found.append(median(times))
    few, many = found
    what = f"one more upload beside {sizes.many:,}, times that beside {sizes.few:,}"
    row = Row(what, f"{many / few:.2f}", f"<= {AT_MOST:g}", many / few <= AT_MOST)
    return [row, Row("  p50 of each", f"{1000 * few:.3f} ms, {1000 * many:.3f} ms")]


def measure_reads(folders: tuple[Path, Path], sizes: UploadSizes) -> list[Row]:
    """Measure look-ups in two stores that are the same, in turns; the second one gets an upload first."""
    similar = [pb.SimilarTracksRequest(track_id=f"track{n:07d}", k=20).SerializeToString()
               for n in range(sizes.store.n_with_neighbours)]  # fmt: skip
    plain = [pb.RecommendRequest(user_id=user_id(n), k=20).SerializeToString() for n in range(sizes.store.n_users)]
    with closing(open_answers(folders[0])) as before, closing(open_answers(folders[1])) as after:
        if after.live is None:
            raise DataError("there is no live store")
        vector: Float32 = np.array(after.recommender.model.item_vectors[7])
        after.live.add(_upload(0), {"hybrid": vector})
        rows = _in_turns("SimilarTracks", before.similar_tracks, after.similar_tracks, similar)
        return rows + _in_turns("Recommend", before.recommend, after.recommend, plain)


def _in_turns(title: str, before: Look, after: Look, calls: list[bytes]) -> list[Row]:
    rates = [(_rate(before, calls), _rate(after, calls)) for _ in range(ROUNDS)]
    ratio = median(late / early for early, late in rates)
    each = ", ".join(f"{1e6 / median(rate[at] for rate in rates):.1f} us" for at in (0, 1))
    row = Row(f"{title} after an upload, to before", f"{ratio:.2f}", f">= {AT_LEAST:g}", ratio >= AT_LEAST)
    return [row, Row("  a look-up", each)]


def _rate(look: Look, calls: list[bytes]) -> float:
    """Look-ups a second; each must be answered from stored bytes."""
    start = perf_counter()
    for n in range(CALLS):
        if look(calls[n % len(calls)]) is None:
            raise DataError("a look-up was left to a thread, expected stored bytes")
    return CALLS / (perf_counter() - start)


def _upload(number: int) -> Upload:
    name = f"upload{number:07d}"
    return Upload(name, f"hash of {name}", f"{name}.mp3", name, "New", None, [], 2026, None, 180.0, "2026-01-01")


def measure(folder: Path, sizes: UploadSizes, progress: Progress) -> list[Row]:
    """Make up two stores and measure."""
    made_store(folder / "read", sizes.store, 0, progress)
    made_store(folder / "grown", sizes.store, 0, progress)
    shutil.copytree(folder / "read", folder / "written")
    reads = measure_reads((folder / "read", folder / "written"), sizes)
    return [*measure_one_more(folder / "grown", sizes, progress), *reads]


def main(quick: Annotated[bool, typer.Option(help="Small sizes, which only show that it runs.")] = False) -> None:
    """Measure and print the table."""
    sizes = QUICK if quick else FULL
    with TemporaryDirectory() as folder:
        rows = measure(Path(folder), sizes, Bars())
    title = f"{sizes.store.n_tracks:,} tracks, made up; medians of one run"
    Console(width=None if sys.stdout.isatty() else 130).print(table(rows, title))


if __name__ == "__main__":
    typer.run(main)
