"""`recsys serve` as others run it, in a process of its own, with or without what embeds uploads."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# embedding costs seconds of a core, so it is there where a test asks for it
SERVER = """
import sys
from recsys.cli.main import main
from recsys.serving import workers
embed = sys.argv.pop(1) == "embed"
workers.can_embed = lambda: embed
main()
"""


@contextmanager
def served(store: Path, *options: object, embed: bool = False) -> Iterator[str]:
    """`recsys serve` on a store; gives its address."""
    with told(store, *options, embed=embed) as (address, _):
        yield address


@contextmanager
def told(store: Path, *options: object, embed: bool = False, n_lines: int = 0) -> Iterator[tuple[str, str]]:
    """The same; gives its address, and the first lines that it wrote on standard error."""
    command = [sys.executable, "-c", SERVER, "embed" if embed else "plain", "serve", "--store", store, *options]
    listen = ["--listen", "127.0.0.1:0"]
    process = subprocess.Popen([*map(str, command), *listen], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        lines = [process.stderr.readline() for _ in range(n_lines)]
        yield line.split(" on ")[1].split()[0], "".join(lines)
    finally:
        process.terminate()
        process.communicate(timeout=20)
