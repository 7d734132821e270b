"""The command line, run in this process."""

import io
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

STAGE = re.compile(r"[a-z][a-z: -]* +[0-9.:]+( s)?  ")


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line of an error; stages that ended well before it have theirs."""
        lines = [line for line in self.err.strip().splitlines() if not STAGE.match(line)]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("recsys: "), self.err
        return lines[0]


def run(*arguments: object) -> Ran:
    """Run `recsys …` in this process. An exception that would be a traceback fails the test."""
    from recsys.cli import main

    out, err = io.StringIO(), io.StringIO()
    status: Any = 0
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", ["recsys", *map(str, arguments)]):
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    return Ran(status, out.getvalue(), err.getvalue())
