"""What embedding a catalogue's sound costs beside decoding it: `make bench-audio`, or `python -m benchmarks.audio`.

    clips  ->  decoded alone, embedded by each network, by librosa, with damaged files, by the hundred and the thousand
           ->  one table: found, target, met

Everything is a ratio of two times of one run on the same cores, each the best of a few tries that alternate. It is
no test: a missed target is a line in the table. Nothing is kept but the table.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, thread_time
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import sounds
from benchmarks.decoding import Decoders, fastest
from benchmarks.embedding import Run, by_librosa, embed, has_librosa, peak_mb
from benchmarks.models import NETWORKS, Name, described, sound_model
from benchmarks.table import Row, table
from recsys.audio.decoding.decode import decode
from recsys.audio.settings import DecodeSettings
from recsys.catalogue.scan import AUDIO_SUFFIXES
from recsys.errors import DataError, RecsysError
from recsys.util.progress import Bar, Bars, Progress
from recsys.util.threads import n_cores

_EMOTIFY = Path(__file__).parents[2] / "shared" / "data" / "emotify" / "audio"
_AT_MOST: dict[Name, float] = {"conv1d": 2.0, "musicnn as published": 12.0, "musicnn": 12.0}  # times decoding
_DAMAGED_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: tries of each, clips of each measurement (0: all there are), seconds of a recording."""

    tries: int = 3
    n_clips: int = 0
    n_musicnn: int = 150
    n_librosa: int = 30
    n_memory: tuple[int, int] = (100, 2000)
    n_composed: int = 60  # where there is no folder of clips; each is then measured several times
    recording_s: float = 180.0


QUICK = Sizes(tries=2, n_clips=100, n_musicnn=30, n_librosa=8, n_memory=(50, 400), n_composed=30, recording_s=90.0)


@dataclass(slots=True)
class _Bench:
    """What is measured with, and the lines so far."""

    clips: Sequence[Path]
    folder: Path
    sizes: Sizes
    bar: Bar
    rows: list[Row] = field(default_factory=list)

    def best(self, *measurements: Callable[[], float]) -> list[float]:
        """Take the least of a few tries of each; they alternate, so that other work on the machine meets all."""
        tries = [[measure() for measure in measurements] for _ in range(self.sizes.tries)]
        self.bar.advance()
        return [min(times) for times in zip(*tries, strict=True)]


def measure(clips: Sequence[Path], folder: Path, sizes: Sizes, progress: Progress) -> list[Row]:
    """Measure everything.

    Args:
        clips: of about 30 s.
        folder: for what is made on the way.
        sizes: how much is measured.
        progress: shows the measurements done.
    """
    with progress.bar("benchmark", 8, "measurements") as bar:
        bench = _Bench(clips[: sizes.n_clips or None], folder, sizes, bar)
        with Decoders() as decoders:
            for network in NETWORKS:
                _against_decoding(bench, decoders, network)
        for network in ("conv1d", "musicnn"):
            _against_librosa(bench, network)
        _damaged_beside_whole(bench)
        _stretch_of_a_recording(bench)
        _memory(bench)
    return bench.rows


def _against_decoding(bench: _Bench, decoders: Decoders, network: Name) -> None:
    clips = _measured(bench, network)
    model, runs = sound_model(network), list[Run]()

    def embedded() -> float:
        runs.append(embed(clips, model))
        return runs[-1].seconds

    alone, whole = bench.best(lambda: decoders.seconds(clips), embedded)
    core_ms = 1000 * n_cores() / len(clips)
    most = _AT_MOST[network]
    row = Row(f"{network}: times decoding alone", f"{whole / alone:.2f}", f"<= {most:g}", whole / alone <= most)
    each = f"{core_ms * alone:.1f} ms, {core_ms * whole:.1f} ms"
    bench.rows += [row, Row("  a clip and core: decoding, all", each)]
    runnable = min(run.runnable for run in runs)
    bench.rows.append(Row("  threads that could run, on average", f"{runnable:.1f} on {n_cores()} cores"))


def _measured(bench: _Bench, network: Name) -> Sequence[Path]:
    return bench.clips if network == "conv1d" else bench.clips[: bench.sizes.n_musicnn]


def _against_librosa(bench: _Bench, network: Name) -> None:
    if not has_librosa():
        bench.bar.advance()
        bench.rows.append(Row(f"{network}: times faster than by librosa", "librosa is not here: extra `bench`"))
        return
    model, few = sound_model(network), bench.clips[: bench.sizes.n_librosa]
    many = _measured(bench, network)  # many, so that starting the processes counts no more than in a catalogue
    slow, quick = bench.best(lambda: by_librosa(few, model), lambda: embed(many, model).seconds)
    ratio = slow / len(few) / (quick / len(many))
    bench.rows.append(Row(f"{network}: times faster than by librosa", f"{ratio:.1f}", ">= 3", ratio >= 3))
    bench.rows.append(Row("  a clip by librosa, one at a time", f"{1000 * slow / len(few):.0f} ms"))


def _damaged_beside_whole(bench: _Bench) -> None:
    whole, model = list(bench.clips), sound_model("conv1d")
    bad = sounds.damaged(bench.folder, whole, max(1, round(_DAMAGED_SHARE * len(whole))))
    step = len(whole) // len(bad)
    mixed = list(whole)
    for number, path in enumerate(bad):
        mixed.insert(number * (step + 1), path)
    runs = list[Run]()

    def of_mixed() -> float:
        runs.append(embed(mixed, model))
        return runs[-1].seconds

    clean_s, mixed_s = bench.best(lambda: embed(whole, model).seconds, of_mixed)
    run, ratio = runs[0], mixed_s / clean_s
    complete = (run.n_vectors, run.n_problems) == (len(whole), len(bad))
    found = f"{ratio:.2f}; {run.n_vectors} vectors, {run.n_problems} problems"
    target = f"<= 1.1; {len(whole)}, {len(bad)}"
    bench.rows.append(Row("5 % damaged files more: times the whole ones", found, target, complete and ratio <= 1.1))


def _stretch_of_a_recording(bench: _Bench) -> None:
    settings = DecodeSettings()
    for suffix in sounds.FORMATS:
        short = sounds.recording(bench.folder / f"short.{suffix}", sounds.CLIP_S)
        long = sounds.recording(bench.folder / f"long.{suffix}", bench.sizes.recording_s)
        tries = [[_cpu_s(partial(decode, path, settings)) for path in (short, long)] for _ in range(3)]
        of_short, of_long = (min(times) for times in zip(*tries, strict=True))
        found = f"{of_long / of_short:.2f}; {1000 * of_long:.0f} ms"
        if suffix != "m4a":
            found += f", fastest way {1000 * min(_cpu_s(partial(fastest, long)) for _ in range(3)):.0f}"
        what = f"30 s of {bench.sizes.recording_s:.0f} s, stereo {suffix}: times 30 s alone"
        bench.rows.append(Row(what, found, "<= 1.3", of_long <= 1.3 * of_short))
    bench.bar.advance()


def _cpu_s(function: Callable[[], object]) -> float:
    start = thread_time()
    function()
    return thread_time() - start


def _memory(bench: _Bench) -> None:
    few, many = bench.sizes.n_memory
    of_few, of_many = (peak_mb(bench.clips, "conv1d", n) for n in (few, many))
    bench.bar.advance()
    ratio = of_many / of_few if of_few else float("nan")
    found = f"{ratio:.2f}; {of_few:.0f} MB, {of_many:.0f} MB"
    bench.rows.append(Row(f"peak memory, {many:,} tracks: times {few}", found, "<= 1.1", ratio <= 1.1))


def _clips(audio: Path | None, folder: Path, sizes: Sizes, progress: Progress) -> list[Path]:
    source = audio or (_EMOTIFY if _EMOTIFY.is_dir() else None)
    if source is None:
        with progress.bar("composing clips", sizes.n_composed, "clips") as bar:
            return sounds.clips(folder, sizes.n_composed, bar) * 4
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not found:
        raise DataError(f"{source} holds no audio files; name a folder of clips of about 30 s, or leave --audio out")
    return found


def main(
    audio: Annotated[Path | None, typer.Option(help="Folder of clips of about 30 s; composed where left out.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Measure less, in two minutes.")] = False,
) -> None:
    """Measure what embedding costs beside decoding, and print a table."""
    sizes, progress = QUICK if quick else Sizes(), Bars()
    start = perf_counter()
    try:
        with TemporaryDirectory() as folder:
            clips = _clips(audio, Path(folder), sizes, progress)
            rows = measure(clips, Path(folder), sizes, progress)
    except RecsysError as error:
        typer.echo(error, err=True)
        sys.exit(2)
    title = f"{n_cores()} cores, {len(clips[: sizes.n_clips or None])} clips; musicnn: {described()}"
    Console(width=None if sys.stdout.isatty() else 130).print(table(rows, title))
    typer.echo(f"measured in {perf_counter() - start:.0f} s, each the best of {sizes.tries} tries")


if __name__ == "__main__":
    typer.run(main)
