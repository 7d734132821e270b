"""Servers without the second that their imports take: forked from a process that has imported everything.

What is forked is what ``python -c SCRIPT ARGUMENTS`` would be after its imports, in a session of its own. That a server
starts from nothing is held by the tests that run ``python -m recsys``, among them all those that upload.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from types import TracebackType
from typing import IO, Self

from helpers.places import ROOT

_START = """
import sys
from helpers.template import served_from
script = served_from(int(sys.argv[1]))
if script is not None:
    exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
"""


class _Template:
    """The process that is forked, and the way to ask it; started when a test first needs it."""

    def __init__(self) -> None:
        self._asks, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        path = os.pathsep.join(map(str, filter(None, [ROOT, ROOT / "tests", os.environ.get("PYTHONPATH")])))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, str(theirs.fileno())], cwd=ROOT, stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()], env=os.environ | {"PYTHONPATH": path},
            )  # fmt: skip
        atexit.register(self._end)

    def ask(self, asked: dict[str, object], files: list[int]) -> int:
        with self._lock:
            socket.send_fds(self._asks, [json.dumps(asked).encode()], files)
            answer = self._asks.recv(100)
        if not answer:
            raise RuntimeError("the process that is forked has ended")
        return int(answer)

    def _end(self) -> None:
        self._asks.close()
        self._process.wait()


_template: _Template | None = None


def _the_template() -> _Template:
    global _template  # noqa: PLW0603 - one for all tests of this process
    _template = _template or _Template()
    return _template


class Forked:
    """A started script, to be used as a ``subprocess.Popen`` whose outputs are pipes of text.

    Args:
        script: the code to run.
        arguments: ``sys.argv[1:]``.
        errors: an open file for standard error, in the place of a pipe.
        strict: warnings are errors, as with ``-W error``.
    """

    def __init__(self, script: str, *arguments: object, errors: IO[bytes] | None = None, strict: bool = False) -> None:
        asked = {
            "script": script, "argv": ["-c", *map(str, arguments)], "environment": dict(os.environ), "strict": strict
        }  # fmt: skip
        (out, its_out), (err, its_err) = os.pipe(), os.pipe()
        try:
            self.pid = _the_template().ask(asked, [its_out, its_err if errors is None else errors.fileno()])
        finally:
            os.close(its_out)
            os.close(its_err)
        self.stdout, self.stderr = open(out, encoding="utf-8"), open(err, encoding="utf-8")  # noqa: SIM115
        self.returncode: int | None = None
        self._ends = os.pidfd_open(self.pid)
        self._said: tuple[str, str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stdout.close()
        self.stderr.close()
        self.wait()

    def poll(self) -> int | None:
        """The exit status, minus a signal's number where that ended it; None while it runs."""
        if self.returncode is None and select.select([self._ends], [], [], 0)[0]:
            self._reap()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._ends], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a forked script", timeout or 0)
            self._reap()
        assert self.returncode is not None
        return self.returncode

    def _reap(self) -> None:
        self.returncode = _the_template().ask({"wait": self.pid}, [])
        os.close(self._ends)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """The rest of both outputs, once it has ended."""
        if self._said is None:
            found = ["", ""]

            def read(number: int, file: IO[str]) -> None:
                found[number] = file.read()

            outputs = enumerate((self.stdout, self.stderr))
            readers = [threading.Thread(target=read, args=given, daemon=True) for given in outputs]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join(timeout)
                if reader.is_alive():
                    raise subprocess.TimeoutExpired("a forked script", timeout or 0)
            self.stdout.close()
            self.stderr.close()
            self._said = (found[0], found[1])
        self.wait(timeout)
        return self._said

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
