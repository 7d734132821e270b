"""`recsys serve` as others run it, in a process of its own, with or without what embeds uploads."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.forked import Forked
from helpers.places import ROOT
from helpers.serve_process import PLAIN


@contextmanager
def served(store: Path, *options: object, embed: bool = False) -> Iterator[str]:
    """`recsys serve` on a store; gives its address."""
    with told(store, *options, embed=embed) as (address, _):
        yield address


@contextmanager
def told(store: Path, *options: object, embed: bool = False, n_lines: int = 0) -> Iterator[tuple[str, str]]:
    """The same; gives its address, and the first lines that it wrote on standard error."""
    arguments = list(map(str, ["serve", "--store", store, *options, "--listen", "127.0.0.1:0"]))
    if embed:
        command = [sys.executable, "-m", "recsys", *arguments]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    else:
        process = Forked(PLAIN, *arguments)
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        lines = [process.stderr.readline() for _ in range(n_lines)]
        yield line.split(" on ")[1].split()[0], "".join(lines)
    finally:
        process.terminate()
        process.communicate(timeout=20)
