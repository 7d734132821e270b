"""A table in a page of Markdown in, its cells out: pictures are drawn from the numbers that are committed."""

import re
from pathlib import Path


def table(page: Path, heading: str) -> list[dict[str, str]]:
    """The first table under a heading, a dict a row by the names of its columns.

    Raises:
        LookupError: the page has no such heading, or no table under it.
    """
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\|(.*)\|$", found[1], flags=re.MULTILINE) if found else []
    if not rows:
        raise LookupError(f"{page} has no table under the heading {heading!r}")
    names, _, *body = ([cell.strip() for cell in row.split("|")] for row in _first(found[1] if found else ""))
    return [dict(zip(names, cells, strict=False)) for cells in body]


def _first(text: str) -> list[str]:
    block = re.search(r"(?:^\|.*\|\n?)+", text, flags=re.MULTILINE)
    return [line.strip("|") for line in block[0].splitlines()] if block else []


def number(cell: str) -> float | None:
    """The first number of a cell, None where it has none."""
    found = re.match(r"\**(-?\d+(?:\.\d+)?)", cell.replace(",", ""))
    return float(found[1]) if found else None
