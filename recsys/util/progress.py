"""Progress of anything that takes longer than a second: what is done, how fast, how long it will take.

Stages take a ``Progress`` and know nothing of terminals. ``Silent`` is for libraries and tests, ``Bars`` draws.
"""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from recsys.util.printable import plain


class Bar(Protocol):
    """One running bar."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """Say that ``n`` more are done; ``note`` (a loss, say) is shown behind the bar."""


LOG_WIDTH = 120  # columns


class Progress(Protocol):
    """Where stages report."""

    def bar(self, description: str, total: int, unit: str) -> AbstractContextManager[Bar]:
        """Open a bar over ``total`` things called ``unit``."""

    def say(self, line: str) -> None:
        """Tell one fact about the run, in one line."""


class _SilentBar:
    def advance(self, n: int = 1, note: str = "") -> None:
        """Nothing to show."""


class Silent:
    """Shows nothing."""

    @contextmanager
    def bar(self, description: str, total: int, unit: str) -> Iterator[Bar]:
        """Open a bar that nobody sees."""
        yield _SilentBar()

    def say(self, line: str) -> None:
        """Drop the line."""


class _RateColumn(ProgressColumn):
    def get_table_column(self) -> Column:
        return Column(no_wrap=True)

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} {task.fields['unit']}/s", style="progress.data.speed")


class _RichBar:
    def __init__(self, progress: RichProgress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, n: int = 1, note: str = "") -> None:
        self._progress.update(self._task, advance=n, note=note)


class Bars:
    """Bars with rate and time left on standard error, so that standard output stays clean for results."""

    def __init__(self, console: Console | None = None) -> None:
        # a log file has no width of its own, and the 80 columns that rich takes for it are too few for a bar
        self._console = console or Console(file=sys.stderr, width=None if sys.stderr.isatty() else LOG_WIDTH)

    @contextmanager
    def bar(self, description: str, total: int, unit: str) -> Iterator[Bar]:
        """Open a bar over ``total`` things called ``unit``; where there is no terminal, one line at the end."""
        progress = RichProgress(
            TextColumn("{task.description:<24}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", table_column=Column(no_wrap=True)),
            console=self._console,
        )
        with progress:
            task = progress.add_task(description, total=total, unit=unit, note="")
            yield _RichBar(progress, task)

    def say(self, line: str) -> None:
        """Print one line above the bars."""
        self._console.print(plain(line, keep="\n"), highlight=False, markup=False)
