"""Tags read in separate processes that may crash, hang or swell without harm.

    paths  ->  TagReaders.read  ->  Inside, in the order of the paths

Each process is handed open files, many at a time, and answers for each apart: a file that takes too long or takes its
process down costs that file alone, and another process takes over behind it. Only a few files are ever ahead of the
reader. The processes need neither torch nor a decoder.
"""

import json
import os
import socket
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from threading import Lock, local
from types import TracebackType
from typing import Self

from recsys.catalogue.tags.fields import MAX_NOTES, Inside, checked
from recsys.util.limited_process import LimitedProcess
from recsys.util.threads import n_cores

_MODULE = "recsys.catalogue.tags.worker"
TIME_LIMIT_S = 30.0  # a file, on a busy machine and a slow disk too; the process itself stops Python code earlier
MEMORY_MB = 256  # address space of a process beyond what it has at its start
_BATCH_FILES = 50  # a message
_LOOK_AHEAD = 2  # batches a process that are asked for before the first of them is taken
_MAX_REPLY_BYTES = 2**22  # of JSON; 200,000 characters take 2.4 MB at most
_MAX_NOTE_CHARS = 200


class TagReaders:
    """A pool of limited processes; a context manager that ends them.

    Args:
        n_workers: processes; one a core where it is None.
        module: what a process runs; tests put in one that crashes.
        time_limit_s: for a file.
    """

    def __init__(self, n_workers: int | None = None, module: str = _MODULE, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._module, self._limit_s = module, time_limit_s
        self._n_workers = n_workers or n_cores()
        self._threads = ThreadPoolExecutor(self._n_workers, "tags")
        self._of_thread = local()
        self._readers: set[_Reader] = set()
        self._lock = Lock()
        self._is_open = True

    def __enter__(self) -> Self:
        """Return the pool; processes start as files come."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes at once, at work or not."""
        with self._lock:
            self._is_open = False
            for reader in self._readers:
                reader.process.kill()  # its thread sees that, and cleans up
        self._threads.shutdown(wait=True, cancel_futures=True)
        for reader in self._readers:
            reader.close()

    def read(self, paths: Iterable[Path]) -> Iterator[Inside]:
        """Read the tags of each file, in order.

        Raises:
            ArtefactError: no process can be started.
        """
        running: deque[Future[list[Inside]]] = deque()
        rest = iter(paths)
        while batch := list(islice(rest, _BATCH_FILES)):
            running.append(self._threads.submit(self._read_batch, batch))
            if len(running) >= _LOOK_AHEAD * self._n_workers:
                yield from running.popleft().result()
        while running:
            yield from running.popleft().result()

    def _read_batch(self, paths: Sequence[Path]) -> list[Inside]:
        found: list[Inside] = []
        while len(found) < len(paths):  # more than once where a file took a process down
            rest = paths[len(found) :]
            with ExitStack() as stack:
                opened = [_opened(path, stack) for path in rest]
                found += self._ask(opened)
        return found

    def _ask(self, opened: Sequence[int | Inside]) -> list[Inside]:
        """Have this thread's process read files, up to the first that it fails on; one that did not open is known."""
        reader = self._reader()
        handed = [file for file in opened if isinstance(file, int)]
        found: list[Inside] = []
        if handed:
            reader.hand(handed, self._limit_s)
        for file in opened:
            if isinstance(file, Inside):
                found.append(file)
                continue
            try:
                found.append(reader.answer(self._limit_s))
                continue
            except TimeoutError:
                reason = f"reading was stopped after {self._limit_s:g} s"
            except (EOFError, OSError, ValueError):  # a process that was taken over may say anything
                reason = f"reading crashed ({reader.end()})"
            self._of_thread.reader = None
            self._drop(reader)
            return [*found, Inside({}, (f"the tags cannot be read: {reason}",))]
        return found

    def _reader(self) -> "_Reader":
        reader: _Reader | None = getattr(self._of_thread, "reader", None)
        if reader is not None and reader.process.poll() is None:
            return reader
        if reader is not None:
            self._drop(reader)
        reader = _Reader(self._module, MEMORY_MB, confined=True)
        with self._lock:
            self._readers.add(reader)
            if not self._is_open:
                reader.process.kill()
        self._of_thread.reader = reader
        reader.wait_until_ready()
        return reader

    def _drop(self, reader: "_Reader") -> None:
        with self._lock:
            self._readers.discard(reader)
        reader.close()


class _Reader(LimitedProcess):
    """A process that reads tags."""

    def hand(self, files: Sequence[int], limit_s: float) -> None:
        """Hand over open files; where the process is gone, the answer tells."""
        request = {"n_files": len(files), "alarm_s": int(2 * limit_s) * len(files) + 10}
        try:
            self._connection.send_bytes(json.dumps(request).encode())
            with socket.socket(fileno=os.dup(self._connection.fileno())) as ours:
                socket.send_fds(ours, [b"f"], files)
        except OSError:
            return

    def answer(self, limit_s: float) -> Inside:
        """Wait for what the next file says.

        Raises:
            TimeoutError: nothing came within ``limit_s``.
            EOFError, OSError: the process ended.
            ValueError: it did not answer in the form that was agreed.
        """
        if not self._connection.poll(limit_s):
            raise TimeoutError
        reply = json.loads(self._connection.recv_bytes(_MAX_REPLY_BYTES))
        if not isinstance(reply, dict) or not isinstance(reply.get("tags"), dict):
            raise ValueError("no tags")
        notes = reply.get("notes") or []
        return Inside(checked(reply["tags"]), tuple(str(note)[:_MAX_NOTE_CHARS] for note in notes[:MAX_NOTES]))


def _opened(path: Path, stack: ExitStack) -> int | Inside:
    """Open a file until the stack is left; a pipe, which would wait for ever, is not read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        stack.callback(os.close, file)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return Inside({}, ("the tags cannot be read: this is not a regular file",))
    except (OSError, ValueError) as error:
        return Inside({}, (f"the tags cannot be read: {error}",))
    return file
