"""The README, the other pages at the top and those of the site, and the commands in them."""

import re
import shlex
from functools import cache
from pathlib import Path

from helpers.places import ROOT

DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def named(name: str) -> str:
    """The text of a page of the site."""
    return text_of(DOCS / name)


def blocks(page: Path, *languages: str) -> list[str]:
    """What stands in the page's blocks of these languages."""
    return [block for name, block in _BLOCK.findall(text_of(page)) if name in languages]


def shell_lines(page: Path) -> list[str]:
    """The commands of a page: lines of ``bash``, and those behind a prompt in ``console``; continued ones joined."""
    typed = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    prompted = [line[2:] for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]
    return [line.strip() for line in (*typed, *prompted) if line.strip()]


def commands(page: Path) -> list[str]:
    """The page's calls of recsys, without what is set before them and where their output goes."""
    found = [line for line in shell_lines(page) if re.match(r"(\w+=\S+( \S+\))? )?recsys ", line)]
    return [line[line.index("recsys ") :].partition(" > ")[0] for line in found]


def words(line: str) -> list[str]:
    return shlex.split(line, comments=True)
