"""A process of its own that reads what strangers made: what it may take is limited, and it may end without harm.

    LimitedProcess, here            a program at the other end of a socket, started, waited for, ended
    limit_this_process, give_up_rights, cpu_limit, in that program

Only the standard library is needed at both ends. What the two say to each other is not decided here.
"""

import ctypes
import os
import pwd
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from recsys.errors import ArtefactError

CONFINED = "confined"  # the argument that tells a process to give up its rights
READY = b"ready"  # its first word
_START_S = 60.0  # for a process to start, on a machine that is very busy
_END_S = 5.0  # seconds in which a process that is ending has ended, on a busy machine too
_NOBODY = 65_534  # where the system has no user of that name
_PR_SET_NO_NEW_PRIVS = 38  # from linux/prctl.h


class LimitedProcess:
    """One process and the socket to it.

    Args:
        module: what it runs, with the socket's descriptor, the memory limit and perhaps ``confined`` as arguments.
        memory_mb: address space that it may take beyond what it has at its start.
        confined: it gives up its rights.
    """

    def __init__(self, module: str, memory_mb: int, confined: bool) -> None:
        self._module = module
        ours, theirs = socket.socketpair()
        # the same modules as here, wherever this was started; what decoders print goes nowhere
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with theirs:
            arguments = [str(theirs.fileno()), str(memory_mb), *([CONFINED] if confined else [])]
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *arguments],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the parent, which then ends its workers
            )
        self._connection = Connection(ours.detach())

    def wait_until_ready(self) -> None:
        """Wait for the first word.

        Raises:
            ArtefactError: it never comes.
        """
        try:
            if self._connection.poll(_START_S) and self._connection.recv_bytes() == READY:
                return
        except (EOFError, OSError):
            pass
        raise ArtefactError(
            f"a decoding process did not start ({self.end()}); "
            f"`{sys.executable} -c 'import {self._module}'` may say why"
        )

    def end(self) -> str:
        """End the process, and say how it ended by itself if it did."""
        try:
            code = self.process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "stopped"
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def close(self) -> None:
        """End the process; free what it held."""
        self.process.kill()
        self.process.wait()
        self._connection.close()


def limit_this_process(memory_bytes: int) -> None:
    """Cap what this process may take from now on; address space only where Linux enforces it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        n_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = n_pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def give_up_rights() -> None:
    """Become nobody where this process may, and (on Linux) never gain rights again."""
    if os.geteuid() == 0:
        try:
            nobody = pwd.getpwnam("nobody")
            user, group = nobody.pw_uid, nobody.pw_gid
        except KeyError:
            user = group = _NOBODY
        with suppress(OSError):  # a container may have no other user
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Let Python code inside a ``with`` block, in the main thread, take so much processor time.

    Native code is not interrupted: for that the other end has a limit of its own.

    Raises:
        TimeoutError: it took more.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"stopped after {seconds:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, 1.0)  # again, where a library caught the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
