"""Decoding in separate processes that may crash, hang or swell without harm.

    paths  ->  DecodeWorkers.decode  ->  Decoded or DecodeFailure, in the order of the paths
    paths  ->  DecodeWorkers.hashes  ->  content hash or DecodeFailure
    an open file  ->  DecodeWorkers.listen  ->  Decoded and the tags inside, or DecodeFailure

A thread of this process owns each worker (``recsys.audio.decoding.worker``), so a track that takes too long or takes
its worker down costs that track alone, and a new worker takes over. Only a few tracks per worker are ever
ahead of the reader: memory does not grow with the catalogue. Workers are started as programs of their own,
not forked or spawned by ``multiprocessing``: those would load the caller's main module, and torch with it,
into every worker.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.reduction import send_handle
from pathlib import Path
from threading import Lock, local
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

import numpy as np

from recsys.audio.decoding.decode import AudioProblem, Decoded
from recsys.audio.settings import DecodeSettings, WorkerSettings
from recsys.catalogue.tags.fields import checked, with_sure_year
from recsys.types import Clip, Float32
from recsys.util.limited_process import LimitedProcess
from recsys.util.threads import n_cores

_LOOK_AHEAD = 4  # tracks per worker that are asked for before the first of them is taken: 8 MB a worker
_MAX_REPLY_BYTES = 2**24  # of JSON; tags may be long, but what a process that was taken over sends is not read
_MODULE = "recsys.audio.decoding.worker"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DecodeFailure:
    """Audio that is not used: ``missing-file`` or ``bad-audio``, and why."""

    kind: str
    reason: str


def decode_many(
    paths: Sequence[Path], settings: DecodeSettings, limits: WorkerSettings
) -> Iterator[Decoded | DecodeFailure]:
    """Decode ``paths`` in processes of their own; outcomes come in the order of the paths."""
    with DecodeWorkers(settings, limits) as workers:
        yield from workers.decode(paths)


class DecodeWorkers:
    """A pool of limited processes, kept from one call to the next; a context manager that ends them.

    Args:
        settings: how to decode.
        limits: how many processes, and what each may take.
        module: what a worker runs; tests put in one that crashes.
        confined: the processes give up their rights: for files of strangers, which are handed to ``listen``.
    """

    def __init__(
        self, settings: DecodeSettings, limits: WorkerSettings, module: str = _MODULE, confined: bool = False
    ) -> None:
        self._settings, self._limits, self._module, self._confined = settings, limits, module, confined
        self._n_workers = limits.n_workers or n_cores()
        self._threads = ThreadPoolExecutor(self._n_workers, "decode")
        self._of_thread = local()
        self._workers: set[_Worker] = set()
        self._lock = Lock()
        self._is_open = True

    def __enter__(self) -> Self:
        """Return the pool; processes start as tasks come."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes at once, at work or not."""
        with self._lock:
            self._is_open = False
            for worker in self._workers:
                worker.process.kill()  # its thread sees that, and cleans up
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def decode(self, paths: Iterable[Path]) -> Iterator[Decoded | DecodeFailure]:
        """Decode each path; outcomes come in the order of the paths, which are drawn a few ahead.

        Raises:
            ArtefactError: no worker can be started.
        """
        return self._in_order(self._decode, paths)

    def hashes(self, paths: Iterable[Path]) -> Iterator[str | DecodeFailure]:
        """Hash the bytes of each file, in order.

        Raises:
            ArtefactError: no worker can be started.
        """
        return self._in_order(self._hash, paths)

    def declares_length(self, path: Path) -> bool | DecodeFailure:
        """Whether a file's headers say how long it is, so that it is not counted.

        Raises:
            ArtefactError: no worker can be started.
        """
        return self._threads.submit(self._look, path).result()

    def listen(self, file: BinaryIO, settings: DecodeSettings) -> tuple[Decoded, dict[str, str]] | DecodeFailure:
        """Decode one open file and read the tags inside.

        Raises:
            ArtefactError: no worker can be started.
        """
        return self._threads.submit(self._listen, file, settings).result()

    def _listen(self, file: BinaryIO, settings: DecodeSettings) -> tuple[Decoded, dict[str, str]] | DecodeFailure:
        reply = self._ask({"task": "listen", "settings": settings.model_dump()}, settings, file)
        if isinstance(reply, DecodeFailure):
            return reply
        return self._decoded(*reply, settings), with_sure_year(checked(reply[0]["tags"]))

    def _in_order(self, task: Callable[[Path], T], paths: Iterable[Path]) -> Iterator[T]:
        running: deque[Future[T]] = deque()
        for path in paths:
            running.append(self._threads.submit(task, path))
            if len(running) >= _LOOK_AHEAD * self._n_workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()

    def _decode(self, path: Path) -> Decoded | DecodeFailure:
        reply = self._ask({"task": "decode", "path": str(path), "settings": self._settings.model_dump()})
        if isinstance(reply, DecodeFailure):
            return reply
        return self._decoded(*reply, self._settings)

    def _decoded(self, about: dict[str, Any], samples: Float32, settings: DecodeSettings) -> Decoded:
        clip = Clip(samples, settings.sample_rate, about["duration_s"])
        problems = tuple(AudioProblem(*problem) for problem in about["problems"])
        return Decoded(clip, about["format"], problems)

    def _hash(self, path: Path) -> str | DecodeFailure:
        reply = self._ask({"task": "hash", "path": str(path)})
        return reply if isinstance(reply, DecodeFailure) else str(reply[0]["content_hash"])

    def _look(self, path: Path) -> bool | DecodeFailure:
        reply = self._ask({"task": "look", "path": str(path)})
        return reply if isinstance(reply, DecodeFailure) else bool(reply[0]["declares_length"])

    def _ask(
        self, request: dict[str, Any], settings: DecodeSettings | None = None, file: BinaryIO | None = None
    ) -> tuple[dict[str, Any], Float32] | DecodeFailure:
        """Have this thread's worker do one task; a worker that fails is replaced before the next."""
        worker: _Worker | None = getattr(self._of_thread, "worker", None)
        if worker is None or worker.process.poll() is not None:
            worker = self._replaced(worker)
        limit_s = self._limits.time_limit_s
        try:
            settings = settings or self._settings
            most = round(settings.clip_s * settings.sample_rate)
            reply, samples = worker.ask(request | {"alarm_s": int(2 * limit_s) + 10}, limit_s, most, file)
            return DecodeFailure(reply["kind"], reply["reason"]) if "kind" in reply else (reply, samples)
        except TimeoutError:
            reason = f"decoding was stopped after {limit_s:g} s"
        except (EOFError, OSError, ValueError):  # a process that was taken over may say anything
            reason = f"decoding crashed ({worker.end()})"
        self._of_thread.worker = None
        self._drop(worker)
        return DecodeFailure("bad-audio", reason)

    def _replaced(self, worker: "_Worker | None") -> "_Worker":
        if worker is not None:
            self._drop(worker)
        worker = _Worker(self._module, self._limits.memory_mb, self._confined)
        with self._lock:
            self._workers.add(worker)
            if not self._is_open:
                worker.process.kill()
        self._of_thread.worker = worker
        worker.wait_until_ready()
        return worker

    def _drop(self, worker: "_Worker") -> None:
        with self._lock:
            self._workers.discard(worker)
        worker.close()


class _Worker(LimitedProcess):
    """A process that decodes."""

    def ask(
        self, request: dict[str, Any], limit_s: float, most: int, file: BinaryIO | None = None
    ) -> tuple[dict[str, Any], Float32]:
        """Send a request, and an open file where there is one; wait for the reply and the samples, if there are any.

        Raises:
            TimeoutError: nothing came within ``limit_s``.
            EOFError, OSError: the process ended.
            ValueError: the reply is none, or announces more than ``most`` samples.
        """
        self._connection.send_bytes(json.dumps(request).encode())
        if file is not None:
            send_handle(self._connection, file.fileno(), self.process.pid)
        if not self._connection.poll(limit_s):
            raise TimeoutError
        reply = json.loads(self._connection.recv_bytes(_MAX_REPLY_BYTES))
        n_samples = int(reply.get("n_samples", 0))
        if not 0 <= n_samples <= most:
            raise ValueError(f"{n_samples} samples are announced, expected {most} or fewer")
        samples = np.empty(n_samples, np.float32)
        missing = samples.data.cast("B")
        while missing:  # into their place, without a copy on the way
            n_bytes = os.readv(self._connection.fileno(), [missing])
            if not n_bytes:
                raise EOFError
            missing = missing[n_bytes:]
        return reply, samples
