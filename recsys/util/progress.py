"""Progress of anything that takes longer than a second: what is running, and what came out of what has ended.

    with progress.stage("audio") as stage:              a part of the run; it ends as one line
        with progress.bar("embedding", 812, "clips") as bar:    how far it is: in the running line, gone when done
            bar.advance()
        stage.done("812 clips -> vectors (64,), 3 failed")

Stages nest, and the outermost one is the line: what runs inside it is seen while it runs, so that a screen holds as
many lines as a run has stages, however often they train and embed. Functions take a ``Progress`` and know nothing of
terminals. ``Silent`` is for libraries and tests, ``Bars`` draws.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column, Table
from rich.text import Text

from recsys.util.printable import plain

LOG_WIDTH = 120  # columns of the rare line that is folded where there is no terminal
FIRST_SIGN_S = 60.0  # without a terminal a run says how far it is after this time, then whenever it has doubled


class Bar(Protocol):
    """One running count."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """Say that ``n`` more are done; ``note`` (a loss, say) is shown behind the count."""


class Stage(Protocol):
    """One running part of a run."""

    def done(self, outcome: str) -> None:
        """Say in a few words what came out; it is shown when the stage ends."""


class Progress(Protocol):
    """Where a run reports."""

    def stage(self, name: str) -> AbstractContextManager[Stage]:
        """Open a part of the run, named in a word or two."""

    def bar(self, description: str, total: int, unit: str) -> AbstractContextManager[Bar]:
        """Open a count over ``total`` things called ``unit``."""

    def log(self, line: str) -> None:
        """Tell one thing that a person should know whatever else is shown, in one line."""

    def detail(self, line: str) -> None:
        """Tell one thing for those who asked for details."""


class _SilentBar:
    def advance(self, n: int = 1, note: str = "") -> None:
        """Nothing to show."""


class _SilentStage:
    def done(self, outcome: str) -> None:
        """Nothing to show."""


class Silent:
    """Shows nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Open a stage that nobody sees."""
        yield _SilentStage()

    @contextmanager
    def bar(self, description: str, total: int, unit: str) -> Iterator[Bar]:
        """Open a count that nobody sees."""
        yield _SilentBar()

    def log(self, line: str) -> None:
        """Drop the line."""

    def detail(self, line: str) -> None:
        """Drop the line."""


@dataclass(slots=True, eq=False)
class _Running:
    """A stage or a count that has begun; ``outcome`` is what its line will say, ``stopped`` if an error ends it."""

    name: str
    task: TaskID
    started: float
    outcome: str = ""
    stopped: str = ""

    def done(self, outcome: str) -> None:
        self.outcome = outcome


class _Count:
    def __init__(self, bars: "Bars", task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, n: int = 1, note: str = "") -> None:
        self._bars.moved(self._task, n, note)


class Bars:
    """Draws on standard error, so that standard output stays clean for results.

    On a terminal one live line says what is running, and a line stays for every stage that has ended. Elsewhere there
    is no live line; each line is written at once and whole. With ``verbose`` the parts of the stages have lines too.
    """

    def __init__(
        self, console: Console | None = None, *, verbose: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # a log file has no width of its own
        self._console = console or Console(file=sys.stderr, width=None if sys.stderr.isatty() else LOG_WIDTH)
        self._verbose, self._clock = verbose, clock
        self._open: list[_Running] = []
        self._said: set[str] = set()
        self._began: float | None = None
        self._next_sign_s = FIRST_SIGN_S
        self._drawn = RichProgress(
            TextColumn("{task.fields[outer]:<11}", table_column=Column(no_wrap=True), markup=False),
            _Elapsed(self._outer_seconds),
            BarColumn(bar_width=12),
            _Words(table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=self._console,
            transient=True,
            redirect_stdout=False,  # results are not remarks
            refresh_per_second=5,
            speed_estimate_period=600.0,  # seconds: trials and epochs may be minutes apart
            get_time=clock,
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Open a part of the run; when it ends the outermost one leaves a line: name, time, outcome.

        Where an error ends it, which has a line of its own, it is only told how far a count had come.
        """
        running = self._begin(name, None, "")
        try:
            yield running
        except BaseException:
            self._end(running, running.stopped)
            raise
        self._end(running, running.outcome or "done")

    @contextmanager
    def bar(self, description: str, total: int, unit: str) -> Iterator[Bar]:
        """Open a count; it leaves a line only where it is in no stage, or details were asked for."""
        running = self._begin(description, total, unit)
        try:
            yield _Count(self, running.task)
        except BaseException:
            inner = f"{running.name} " if running is not self._open[0] else ""
            self._open[0].stopped = f"stopped at {inner}{self._count(running)}"
            self._end(running, f"stopped at {self._count(running)}")
            raise
        self._end(running, self._count(running))

    def log(self, line: str) -> None:
        """Print one line, above the live one; what every fit of an evaluation says is told once."""
        if line not in self._said:
            self._said.add(line)
            self._print(Text(plain(line, keep="\n")))

    def detail(self, line: str) -> None:
        """Print one line where details were asked for."""
        if self._verbose:
            self._print(Text(f"{'  ' * len(self._open)}{plain(line)}"))

    def moved(self, task: TaskID, n: int, note: str) -> None:
        """Count ``n`` more of a running task; a long run without a terminal gives a sign of life."""
        self._drawn.update(task, advance=n, note=note)
        if self._console.is_interactive or self._began is None:
            return
        seconds = self._clock() - self._began
        if seconds >= self._next_sign_s:
            self._next_sign_s = 2 * seconds
            self._print(
                Text(f"{_column(self._open[0].name)}{_took(self._outer_seconds()):>11}  so far: {self._words(task)}")
            )

    def _begin(self, name: str, total: int | None, unit: str) -> _Running:
        if self._open:
            self._drawn.update(self._open[-1].task, visible=False)
        name = plain(name)
        outer = self._open[0].name if self._open else name
        path = [running.name for running in self._open[1:]] + ([name] if self._open else [])
        inner = " > ".join(part.removeprefix(f"{outer}: ") for part in path)
        task = self._drawn.add_task(inner, total=total, unit=unit, note="", outer=outer)
        self._began = self._clock() if self._began is None else self._began
        self._open.append(_Running(name, task, self._clock()))
        if self._console.is_interactive:
            self._drawn.start()
            self._drawn.refresh()  # a step that blocks the interpreter shows its name all the same
        return self._open[-1]

    def _end(self, running: _Running, outcome: str) -> None:
        self._open.remove(running)
        self._drawn.remove_task(running.task)
        if self._open:
            self._drawn.update(self._open[-1].task, visible=True)
        elif self._console.is_interactive:
            self._drawn.stop()
        if outcome and (not self._open or self._verbose):
            self._finished(running, outcome)

    def _finished(self, running: _Running, outcome: str) -> None:
        """Print the line of what has ended."""
        depth, took = len(self._open), f"{_took(self._clock() - running.started):>11}"
        own = running.name.removeprefix(f"{self._open[0].name}: ") if depth else running.name
        name, outcome = f"{'  ' * depth}{_column(own)}", plain(outcome)
        if not self._console.is_interactive:
            self._print(Text(f"{name}{took}  {outcome}"))
            return
        line = Table.grid(padding=(0, 2, 0, 0))  # a long outcome is folded beside the name, not below it
        line.add_column(no_wrap=True)
        line.add_column(overflow="fold")
        line.add_row(Text.assemble(name, (took, "cyan")), Text(outcome))
        self._console.print(line)

    def _print(self, line: Text) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)

    def _count(self, running: _Running) -> str:
        return _counted(self._drawn.tasks[self._drawn.task_ids.index(running.task)])

    def _words(self, task_id: TaskID) -> str:
        return _words_of(self._drawn.tasks[self._drawn.task_ids.index(task_id)])

    def _outer_seconds(self) -> float:
        return self._clock() - self._open[0].started if self._open else 0.0


class _Elapsed(ProgressColumn):
    """How long the outermost stage has been running."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        super().__init__(table_column=Column(no_wrap=True, justify="right", min_width=8))
        self._seconds = seconds

    def render(self, task: Task) -> Text:
        return Text(_clock_time(self._seconds()), style="cyan")


class _Words(ProgressColumn):
    """What is running inside the stage, how far it is, how fast, and how long it will take."""

    def render(self, task: Task) -> Text:
        return Text(_words_of(task), no_wrap=True, overflow="ellipsis")


def _words_of(task: Task) -> str:
    parts = [task.description]
    if task.total is not None:
        speed, left_s = task.finished_speed or task.speed, task.time_remaining
        parts.append(f"{task.completed:,.0f}/{task.total:,.0f} {task.fields['unit']}")
        parts += [] if speed is None else [f"{speed:,.1f}/s"]
        parts += [] if left_s is None or task.finished else [f"{_clock_time(left_s)} left"]
    return "  ".join(part for part in [*parts, task.fields["note"]] if part)


def _counted(task: Task) -> str:
    done = f"{task.completed:,.0f}"
    whole = "" if task.total is None or task.completed == task.total else f" of {task.total:,.0f}"
    note = task.fields["note"]
    return f"{done}{whole} {task.fields['unit']}{f', {note}' if note else ''}"


def _column(name: str) -> str:
    return f"{name:<11}"


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _took(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else _clock_time(seconds)
