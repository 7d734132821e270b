"""The README's examples with what they really print: ``python -m docs.tools.transcripts FOLDER``.

FOLDER is where ``make demo`` ran, with ``demo-out`` in it. In a block of ``console`` the lines behind ``$ `` are run,
in one of ``pycon`` those behind ``>>> `` and ``... ``; everything else in the block is replaced by their output.
"""

import code
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"^```(console|pycon)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def rewritten(text: str, folder: Path) -> str:
    """The text with every example's output made anew in a folder."""
    run: dict[str, Callable[[str, Path], str]] = {"console": shell, "pycon": python}
    return _BLOCK.sub(lambda found: f"```{found[1]}\n{run[found[1]](found[2], folder)}```", text)


def shell(block: str, folder: Path) -> str:
    """The block's commands, each with its output."""
    lines = []
    for line in block.splitlines():
        if line.startswith("$ "):
            command = [sys.executable, "-m", *shlex.split(line[2:])]
            environment = os.environ | {"COLUMNS": "100", "PYTHONPATH": str(README.parent)}
            ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
            lines += [line, *(message.strip() for message in ran.stdout.splitlines() if message.strip())]
    return "\n".join(lines) + "\n"


def python(block: str, folder: Path) -> str:
    """The block's statements, each with its output."""
    names, lines = code.InteractiveConsole(), []
    statements = re.findall(r"^>>> .*\n(?:^\.\.\. .*\n)*", block, flags=re.MULTILINE)
    with chdir(folder):
        for statement in statements:
            out = io.StringIO()
            source = "".join(line[4:] for line in statement.splitlines(keepends=True))
            with redirect_stdout(out):
                names.runsource(source + "\n" * ("..." in statement), symbol="single")
            lines.append(statement + out.getvalue())
    return "".join(lines)


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text(encoding="utf-8"), Path(sys.argv[1])), encoding="utf-8")
