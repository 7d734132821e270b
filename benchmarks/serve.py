"""Answers beside empty calls: `make bench-serve`, or `python -m benchmarks.serve`.

    a store that is made up  ->  one server process, load from another  ->  one table: found, target, met

Every rate is a ratio to an empty method of the same server in the same run; the two take turns. The store's lists are
random (benchmarks.served_store), so nothing is said here of their worth. It is no test: a missed target is a line.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from benchmarks.load import Load, Loaded
from benchmarks.served_store import FACTORS, StoreSizes, made_store, user_id
from benchmarks.serving_child import EMPTY_SERVICE
from benchmarks.table import Row, table
from recsys.client import Client
from recsys.eventlog.events import Listened, Upload
from recsys.serving.reload import open_answers
from recsys.serving.server import SERVICE
from recsys.store.generation import Store
from recsys.util.progress import Bars, Progress
from recsys.v1 import recommender_pb2 as pb

EMPTY, RECOMMEND = f"/{EMPTY_SERVICE}/Call", f"/{SERVICE}/Recommend"
MOST_SECONDS = 60  # until a swap that has not happened is a fault
Requests = Callable[[int], bytes]
Cases = dict[str, tuple[str, Requests]]  # method and messages


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured; the targets are meant for these sizes."""

    store: StoreSizes = field(default_factory=StoreSizes)
    swapped: StoreSizes = field(default_factory=lambda: StoreSizes(50_000, 50_000, 1000))
    seconds: float = 2.0  # of one steady load
    rounds: int = 12
    turn_s: float = 0.25  # of one load at peak: the shorter the turns, the more alike is the machine in two of them
    turns: int = 60  # the ratios of single turns differ by a tenth
    n_swaps: int = 20
    n_uploads: int = 1000


QUICK = Sizes(
    StoreSizes(500, 700, 50), StoreSizes(300, 300, 20), seconds=0.3, rounds=1, turns=1, n_swaps=2, n_uploads=5
)


@contextmanager
def served(store: Path, backend: str = "lmdb") -> Iterator[tuple[int, float, subprocess.Popen[str]]]:
    """Run a server; returns its port, how long it took to start beyond imports, and its process."""
    command = [sys.executable, "-m", "benchmarks.serving_child", str(store), backend]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            port, seconds = process.stdout.readline().split()
            yield int(port), float(seconds), process
        finally:
            process.stdin.close()


def requests_of(n_users: int, seed: int, asked: pb.RecommendRequest | None = None) -> Requests:
    """Messages of random users, made beforehand, with what else is asked for."""
    users = np.random.default_rng(seed).integers(0, n_users, 50_000)
    more = b"" if asked is None else asked.SerializeToString()
    messages = [pb.RecommendRequest(user_id=user_id(int(n)), k=20).SerializeToString() + more for n in users]
    return lambda n: messages[n % len(messages)]


def satisfied(store: Path, requests: Requests) -> Requests:
    """Keep the first messages that stored lists answer: the others, of which random lists make many, score them all."""
    current = open_answers(store)
    quick = current.recommend
    kept = [message for message in map(requests, range(20_000)) if quick(message) is not None]
    current.close()
    return lambda n: kept[n % len(kept)]


def nothing(_n: int) -> bytes:
    """The empty message."""
    return b""


def peaks(
    port: int, cases: dict[str, tuple[str, Requests]], sizes: Sizes, progress: Progress
) -> dict[str, list[Loaded]]:
    """Load each case in turn, again and again."""
    found: dict[str, list[Loaded]] = {name: [] for name in cases}
    with progress.bar("peak load", sizes.turns * len(cases), "loads") as bar:
        for _ in range(sizes.turns):
            for name, (method, request) in cases.items():
                load = Load("127.0.0.1", port)
                found[name].append(load.peak(method, request, sizes.turn_s))
                load.close()
                bar.advance(note=f"{name}: {found[name][-1].rate:,.0f}/s")
    return found


def ratio(found: dict[str, list[Loaded]], name: str, to: str) -> float:
    """Median over turns of the ratio of two rates."""
    return median(a.rate / b.rate for a, b in zip(found[name], found[to], strict=True))


def measure_answers(store: Path, sizes: Sizes, progress: Progress) -> list[Row]:
    """Plain and filtered lists beside empty calls, at peak and at half of it, and beside DuckDB."""
    n_users = sizes.store.n_users
    plain = (RECOMMEND, requests_of(n_users, 0))
    asked = pb.RecommendRequest(genres=[f"genre {n}" for n in range(6)], min_year=1970, max_per_artist=2)
    filtered = (RECOMMEND, satisfied(store, requests_of(n_users, 1, asked)))
    with served(store) as (port, opened, _):
        load = Load("127.0.0.1", port)
        first = perf_counter()
        load.peak(RECOMMEND, plain[1], 0.0001, at_once=1)
        started = opened + perf_counter() - first
        cases = {"empty": (EMPTY, nothing), "plain": plain, "filtered": filtered}
        found = peaks(port, cases, sizes, progress)
        half = median(one.rate for one in found["plain"]) / 2
        late: dict[str, list[float]] = {"empty": [], "plain": []}
        for _ in range(sizes.rounds):
            for name, times in late.items():
                method, request = cases[name]
                times.append(load.steady(method, request, sizes.seconds, half).latency(0.99))
        load.close()
    with served(store, "duckdb") as (port, _, _):
        by_query = peaks(port, {"duckdb": plain, "empty": (EMPTY, nothing)}, sizes, progress)
    failed = sum(one.n_failed for loads in (*found.values(), *by_query.values()) for one in loads)
    rate, p99 = ratio(found, "plain", "empty"), median(late["plain"]) / median(late["empty"])
    to_query = rate / ratio(by_query, "duckdb", "empty")
    to_plain = ratio(found, "filtered", "plain")
    absolute = f"{median(one.rate for one in found['plain']):,.0f}/s"
    return [
        Row("Recommend, plain, to an empty call", f"{rate:.2f} ({absolute})", ">= 0.90", rate >= 0.9),
        Row("p99 at half of the peak, to an empty call", f"{p99:.2f} ({median(late['plain']) * 1e3:.1f} ms)", "<= 1.2",
            p99 <= 1.2),
        Row("plain, to a DuckDB query a request", f"{to_query:.1f}", ">= 4", to_query >= 4),
        Row("filters that the stored list satisfies, to plain", f"{to_plain:.2f}", ">= 0.5", to_plain >= 0.5),
        Row("start to first answer beyond imports", f"{started:.2f} s", "<= 2 s", started <= 2),
        Row("calls that failed", f"{failed}", "0", failed == 0),
    ]  # fmt: skip


def measure_live(store: Path, sizes: Sizes, progress: Progress) -> Row:
    """Plain lists beside empty calls once tracks were uploaded and one user in a hundred has a list of now."""
    current = open_answers(store)
    rng, live = np.random.default_rng(4), current.live
    assert live is not None
    touched: set[str] = set()
    with progress.bar("live uploads", sizes.n_uploads, "uploads") as bar:
        for n in range(sizes.n_uploads):
            vector = np.append(rng.normal(size=FACTORS), [0.5, 1.0]).astype(np.float32)
            live.add(_upload(n), {"hybrid": vector})
            bar.advance()
    wanted = sizes.store.n_users // 100
    for start in range(0, wanted, 500):  # those whom uploads reached are few: the others have heard something
        users = [user_id(int(n)) for n in rng.integers(0, sizes.store.n_users, min(500, wanted - start))]
        live.record([Listened(user, f"track{int(rng.integers(sizes.store.n_tracks)):07d}") for user in users])
        touched.update(users)
    live.settle()  # lists of more than a few users follow their batch
    current.close()
    plain = requests_of(sizes.store.n_users, 5)
    with served(store) as (port, _, _):
        found = peaks(port, {"empty": (EMPTY, nothing), "plain": (RECOMMEND, plain)}, sizes, progress)
    rate = ratio(found, "plain", "empty")
    failed = sum(one.n_failed for loads in found.values() for one in loads)
    what = f"plain after {sizes.n_uploads:,} uploads, {len(touched):,} users touched, to an empty call"
    return Row(what, f"{rate:.2f} ({failed} failed)", ">= 0.7", rate >= 0.7 and not failed)


def _upload(n: int) -> Upload:
    name = f"upload{n}"
    return Upload(name, f"hash{n}", f"{name}.mp3", name, f"Artist {n}", None, ["genre 1"], 2026, None, 180.0,
                  "2026-01-01T00:00:00+00:00")  # fmt: skip


def measure_memory(store: Path, sizes: Sizes) -> Row:
    """What a further worker takes: proportional share of memory of three processes less that of two."""
    some, taken = requests_of(sizes.store.n_users, 2), []

    def plain(n: int) -> bytes:  # the same pages in all: the cache of the disk is no worker's memory
        return some(n % 1000)

    with ExitStack() as servers:
        pids: list[int] = []
        for _ in range(3):
            port, _, process = servers.enter_context(served(store))
            load = Load("127.0.0.1", port)
            load.peak(RECOMMEND, plain, sizes.seconds)
            load.close()
            pids.append(process.pid)
            taken.append(sum(map(_pss, pids)))
    more = (taken[2] - taken[1]) / 1e6
    return Row("memory of a further worker (Pss)", f"{more:.0f} MB", "<= 150 MB", more <= 150)


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def measure_swaps(folder: Path, sizes: Sizes, progress: Progress) -> list[Row]:
    """Change the generation under load, again and again: one second with a swap in it, one without."""
    names = [made_store(folder, sizes.swapped, seed, progress) for seed in (1, 2)]
    request = requests_of(sizes.swapped.n_users, 3)
    calm: list[Loaded] = []
    swapped: list[Loaded] = []
    with served(folder) as (port, _, _), Client(f"127.0.0.1:{port}") as client:
        load = Load("127.0.0.1", port)
        rate = load.peak(RECOMMEND, request, sizes.seconds).rate / 2
        for swap in range(sizes.n_swaps):
            calm.append(load.steady(RECOMMEND, request, 1.0, rate))
            Store(folder).make_current(names[swap % 2])
            for _ in range(MOST_SECONDS):  # one, as a rule: servers look twice a second
                swapped.append(load.steady(RECOMMEND, request, 1.0, rate))
                if client.status()["generation"] == names[swap % 2]:
                    break
            else:
                raise RuntimeError(f"generation {names[swap % 2]} does not answer {MOST_SECONDS} s after it should")
        load.close()
    failed, n_calls = sum(one.n_failed for one in swapped), sum(len(one.latencies) for one in swapped)
    late, usual = (median(one.latency(0.99) for one in loads) for loads in (swapped, calm))
    return [
        Row(f"{sizes.n_swaps} swaps under load: calls that failed", f"{failed} of {n_calls:,}", "0", failed == 0),
        Row(
            "p99 of a second with a swap, to one without",
            f"{late / usual:.2f} ({late * 1000:.1f} ms)",
            "<= 2",
            late <= 2 * usual,
        ),
    ]


def main(
    quick: Annotated[bool, typer.Option(help="Small sizes, which only show that it runs.")] = False,
    store: Annotated[Path | None, typer.Option(help="Keep the store that is made up here, and use it again.")] = None,
) -> None:
    """Measure and print the table."""
    sizes, progress = QUICK if quick else Sizes(), Bars()
    with TemporaryDirectory() as temporary:
        folder = store or Path(temporary) / "store"
        if not Store(folder).has_current():
            made_store(folder, sizes.store, 0, progress)
        (folder / "live.lmdb").unlink(missing_ok=True)  # of an earlier run
        rows = measure_answers(folder, sizes, progress)
        rows.append(measure_memory(folder, sizes))
        rows.append(measure_live(folder, sizes, progress))
        rows += measure_swaps(Path(temporary) / "swapped", sizes, progress)
    title = f"{sizes.store.n_users:,} users x 200 of {sizes.store.n_tracks:,} tracks, made up; k = 20, one worker"
    Console().print(table(rows, title))


if __name__ == "__main__":
    typer.run(main)
