"""Work whose memory is measured: done in a process of its own, which reads arrays from a folder and prints JSON.

folder of .npy files, a task  ->  in_a_child  ->  facts: peaks in bytes above what the imports take, seconds
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from recsys.cf.als import ALSSettings, fit_als
from recsys.hybrid.prior import PriorSettings, prior_item_step
from recsys.ranking.neighbours import NeighbourSettings, find_neighbours
from recsys.types import MAX_K, Plays
from recsys.util.progress import Silent
from recsys.util.topk import top_k

USERS = 2048  # ranked at a time, as publishing does
N_BLOCKS = 4


def in_a_child(task: str, folder: Path, number: int) -> dict[str, float]:
    """Do a task on the arrays of a folder: 'fit' with ``number`` factors, 'neighbours' with so many cells probed."""
    command = [sys.executable, "-m", "benchmarks.children", task, str(folder), str(number)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    facts: dict[str, float] = json.loads(said.stdout.splitlines()[-1])
    return facts


def peak_bytes() -> int:
    """Most memory that this process ever held; not ``ru_maxrss``, which begins with the peak of the parent."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _fit(folder: Path, n_factors: int) -> dict[str, float]:
    """Factors by two iterations (more take no more memory), the prior's step, a few blocks of lists."""
    importlib.import_module("implicit.cpu.als")  # what imports take is no part of what is measured
    baseline = peak_bytes()
    shape = tuple(np.load(folder / "shape.npy").tolist())
    counts = csr_matrix(tuple(np.load(folder / f"{name}.npy") for name in ("data", "indices", "indptr")), shape=shape)
    plays = Plays(counts, csr_matrix(shape, dtype=bool), [""] * shape[0], [""] * shape[1])
    settings = ALSSettings(n_factors=n_factors, epochs=2)
    factors = fit_als(plays, settings)
    peaks = {"fit": peak_bytes() - baseline}
    prior_item_step(plays, factors.user_factors, factors.item_factors, settings, PriorSettings())
    peaks["prior"] = peak_bytes() - baseline
    for start in range(0, min(shape[0], N_BLOCKS * USERS), USERS):
        users = slice(start, start + USERS)
        top_k(factors.user_factors[users], factors.item_factors, MAX_K, (counts[users],))
    return {**peaks, "lists": peak_bytes() - baseline}


def _neighbours(folder: Path, n_probe: int) -> dict[str, float]:
    """Neighbours of all vectors of the folder; those of the rows ``sample`` are left there."""
    import faiss

    vectors = np.load(folder / "vectors.npy")
    faiss.Kmeans(2, 1).train(vectors[:64, :2].copy())  # its threads are started
    baseline = peak_bytes()
    settings = NeighbourSettings(exact_below=0, n_probe=n_probe)
    start = perf_counter()
    found = find_neighbours(np.arange(len(vectors), dtype=np.int32), vectors, "taste", settings, Silent())
    seconds = perf_counter() - start
    np.save(folder / "found.npy", found.items[np.load(folder / "sample.npy")])
    return {"seconds": seconds, "peak": peak_bytes() - baseline}


TASKS: dict[str, Any] = {"fit": _fit, "neighbours": _neighbours}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
