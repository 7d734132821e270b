"""What writes cost those who write: a batch of many users beside one user's, and who waits for whom.

    python -m benchmarks.writes  ->  a table with ratios of one run

The store is made up. A worker's live store takes in listens as a server's does, without a network; another process
writes one event after the other meanwhile.
"""

import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from benchmarks.served_store import StoreSizes, made_store, user_id
from benchmarks.table import Row, table
from recsys.eventlog.events import Listened
from recsys.live.service import LiveUpdater
from recsys.serving.reload import open_answers
from recsys.util.progress import Bars, Progress
from recsys.util.threads import one_blas_thread

MOST_RATIO, MOST_WAIT_MS, MOST_FOLLOW = 4.0, 100.0, 2.0
BATCH = 500


@dataclass(frozen=True, slots=True)
class WriteSizes:
    """How much there is; ``many`` users are in the large batch whose lists are waited for."""

    store: StoreSizes
    tries: int = 9
    many: int = 1000


FULL = WriteSizes(StoreSizes(50_000, 50_000, 5000))
QUICK = WriteSizes(StoreSizes(1200, 600, 300), 2, 60)

# writes one event after the other until its input ends, and then says how long the longest took
OTHER = """
import sys, threading, time
from pathlib import Path
from recsys.eventlog.events import Listened
from recsys.serving.reload import open_answers
live, ended, longest = open_answers(Path(sys.argv[1])).live, threading.Event(), 0.0
live.retire()  # lists are for the other process to make
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
print("open", flush=True)
while not ended.is_set():
    start = time.perf_counter()
    with live._committing() as writing:
        writing.append(Listened("beside", "track0000001", at="2026-01-01T00:00:00+00:00"))
    longest = max(longest, time.perf_counter() - start)
print(longest, flush=True)
"""


def listens_of(users: list[str], sizes: WriteSizes, rng: np.random.Generator) -> list[Listened]:
    """A listen of a random track for each of some users."""
    tracks = rng.integers(0, sizes.store.n_tracks, len(users)).tolist()
    return [Listened(user, f"track{track:07d}") for user, track in zip(users, tracks, strict=True)]


def measure_batches(live: LiveUpdater, sizes: WriteSizes, rng: np.random.Generator, progress: Progress) -> list[Row]:
    """Acknowledge a batch of one user and one of as many users as it has events, in turn."""
    seconds: dict[str, list[float]] = {"one": [], "many": []}
    with progress.bar("batches", sizes.tries, "pairs") as bar:
        for n in range(sizes.tries):
            for name, found in seconds.items():
                users = [user_id(n)] * BATCH if name == "one" else [user_id(100 + place) for place in range(BATCH)]
                listens, start = listens_of(users, sizes, rng), time.perf_counter()
                live.record(listens)
                found.append(time.perf_counter() - start)
                live.settle()
            bar.advance()
    ratio = median(many / one for many, one in zip(seconds["many"], seconds["one"], strict=True))
    message = f"{ratio:.2f} ({median(seconds['many']) * 1e3:.0f} ms)"
    what = f"acknowledging {BATCH} listens of {BATCH} users, to as many of one user"
    return [Row(what, message, f"<= {MOST_RATIO:g}", ratio <= MOST_RATIO)]


def measure_many(folder: Path, live: LiveUpdater, sizes: WriteSizes, rng: np.random.Generator) -> list[Row]:
    """Have many users' lists follow one batch while another process writes."""
    alone = []
    for n in range(20):
        [listen] = listens_of([user_id(n)], sizes, rng)
        start = time.perf_counter()
        live.record([listen])
        alone.append(time.perf_counter() - start)
    command = [sys.executable, "-c", OTHER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        start = time.perf_counter()
        live.record(listens_of([user_id(n) for n in range(sizes.many)], sizes, rng))
        live.settle()
        seconds = time.perf_counter() - start
        other.stdin.close()
        longest = float(other.stdout.readline())
    follow = seconds / (median(alone) * sizes.many)
    return [
        Row("longest that another process's write waited meanwhile", f"{longest * 1e3:.0f} ms",
            f"<= {MOST_WAIT_MS:g} ms", longest * 1e3 <= MOST_WAIT_MS),
        Row(f"lists of {sizes.many:,} users of one batch, to as many calls of one listen",
            f"{follow:.2f} ({seconds:.1f} s)", f"<= {MOST_FOLLOW:g}", follow <= MOST_FOLLOW),
    ]  # fmt: skip


def measure(folder: Path, sizes: WriteSizes, progress: Progress) -> list[Row]:
    """Make a store and measure."""
    made_store(folder, sizes.store, 0, progress)
    one_blas_thread()  # as a worker has it
    rng = np.random.default_rng(1)
    with closing(open_answers(folder)) as answers:
        assert answers.live is not None
        rows = measure_batches(answers.live, sizes, rng, progress)
        return rows + measure_many(folder, answers.live, sizes, rng)


def main(quick: Annotated[bool, typer.Option("--quick", help="Only show that it runs.")] = False) -> None:
    """Measure what writes cost those who write."""
    with TemporaryDirectory() as folder:
        rows = measure(Path(folder), QUICK if quick else FULL, Bars())
    Console().print(table(rows, "writes"))


if __name__ == "__main__":
    typer.run(main)
