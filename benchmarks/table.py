"""What a benchmark prints: measurements in, a table of found, target, met out."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; ``met`` is None where there is no target."""

    what: str
    found: str
    target: str = ""
    met: bool | None = None


def table(rows: Sequence[Row], title: str) -> Table:
    """Lay the lines out."""
    drawn = Table(title=title, title_justify="left")
    for heading in ("", "found", "target", "met"):
        drawn.add_column(heading)
    for row in rows:
        drawn.add_row(row.what, row.found, row.target, {None: "", True: "yes", False: "no"}[row.met])
    return drawn
