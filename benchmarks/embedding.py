"""The real way from files to vectors, timed and watched; and the same network fed by librosa.

paths, SoundModel  ->  embed  ->  Run: seconds, vectors, problems, runnable threads
paths, a network's name  ->  peak_mb  ->  MB of all processes at their peak, in a process of its own
paths, SoundModel  ->  by_librosa  ->  seconds of one clip after the other in this process
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from time import perf_counter

import numpy as np
import torch

from benchmarks.models import Name, sound_model
from recsys.audio.embed import embed_paths
from recsys.audio.model import SoundModel
from recsys.audio.settings import LogMelSettings
from recsys.catalogue.problems import Problems
from recsys.types import Float32
from recsys.util.progress import Silent

_LOOK_S = 0.02  # between two looks at the processes


@dataclass(frozen=True, slots=True)
class Run:
    """One run of ``embed_paths``: ``runnable`` is the mean number of threads that could run, of all processes."""

    seconds: float
    n_vectors: int
    n_problems: int
    runnable: float


def embed(paths: Sequence[Path], model: SoundModel) -> Run:
    """Embed files without a cache; starting and ending the decoding processes is part of the time."""
    problems, counts = Problems(), list[int]()
    with _watched(lambda: counts.append(_runnable())):
        start = perf_counter()
        sound = embed_paths(paths, model, model.settings, None, problems, Silent())
        seconds = perf_counter() - start
    return Run(seconds, len(sound.rows), len(problems), float(np.mean(counts)) if counts else float("nan"))


def peak_mb(paths: Sequence[Path], network: Name, n: int) -> float:
    """Embed ``n`` files, each as often as it takes, in a new process; MB of it and its decoders at their peaks."""
    command = [sys.executable, "-m", "benchmarks.embedding", network, str(n)]
    said = subprocess.run(command, input="\n".join(map(str, paths)), capture_output=True, text=True, check=True)
    return float(said.stdout.split()[-1])


def _measured_peak(paths: Sequence[Path], network: Name, n: int) -> float:
    model, peaks = sound_model(network), dict[int, float]()

    def look() -> None:
        for process in _processes():
            peaks[process] = max(peaks.get(process, 0.0), _peak_of(process))  # one that is ending has none

    with _watched(look):
        many = (list(paths) * (n // len(paths) + 1))[:n]
        embed_paths(many, model, model.settings, None, Problems(), Silent())
    return sum(peaks.values())


def has_librosa() -> bool:
    """Is librosa installed? It is in the extra ``bench`` only."""
    return importlib.util.find_spec("librosa") is not None


def librosa_log_mel(path: Path, settings: LogMelSettings) -> Float32:
    """Make the log-mel of a file's middle 30 s by librosa, (n_mels, n_frames), as ``recsys.audio.logmel`` does."""
    import librosa

    offset = max(0.0, (librosa.get_duration(path=path) - 30.0) / 2)
    samples, _ = librosa.load(path, sr=settings.sample_rate, mono=True, offset=offset, duration=30.0)
    power = librosa.feature.melspectrogram(
        y=samples, sr=settings.sample_rate, n_fft=settings.n_fft, hop_length=settings.hop_length,
        n_mels=settings.n_mels, pad_mode="reflect",
    )  # fmt: skip
    found: Float32 = np.log10(10_000 * power + 1).astype(np.float32)
    return found


def by_librosa(paths: Sequence[Path], model: SoundModel) -> float:
    """Time the same network fed by librosa, one clip at a time in this process, after one that does not count."""
    settings = model.settings.log_mel
    start = 0.0
    for number, path in enumerate([paths[0], *paths]):
        if number == 1:
            start = perf_counter()
        mel = torch.from_numpy(librosa_log_mel(path, settings))
        n_patches = mel.shape[1] // settings.patch_frames
        cut = mel[:, : n_patches * settings.patch_frames].view(settings.n_mels, n_patches, -1).transpose(0, 1)
        with torch.inference_mode():
            model.network(cut[None])
    return perf_counter() - start


@contextmanager
def _watched(look: Callable[[], object]) -> Iterator[None]:
    """Look at something again and again from another thread while a ``with`` block runs."""
    done = Event()

    def watch() -> None:
        while not done.wait(_LOOK_S):
            look()

    thread = Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _processes() -> list[int]:
    """List this process and its children, where Linux tells; else none."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    if not children.exists():
        return []
    started = [int(child) for task in Path("/proc/self/task").iterdir() for child in _read(task / "children").split()]
    return [os.getpid(), *started]


def _runnable() -> int:
    """Count the threads of all processes that run or could; the one that counts is left out."""
    tasks = [task for process in _processes() for task in _tasks(process)]
    return sum(_read(task / "stat").rpartition(")")[2].split()[:1] == ["R"] for task in tasks) - 1


def _tasks(process: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{process}/task").iterdir())
    except OSError:  # it has ended
        return []


def _peak_of(process: int) -> float:
    lines = [line for line in _read(Path(f"/proc/{process}/status")).splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has ended
        return ""


if __name__ == "__main__":
    name, wanted = sys.argv[1:]
    network_name: Name = "conv1d" if name == "conv1d" else "musicnn"
    print(_measured_peak([Path(line) for line in sys.stdin.read().splitlines()], network_name, int(wanted)))
