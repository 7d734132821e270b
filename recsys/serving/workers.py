"""Processes that share one port: ``serve(store, address, workers)`` returns when it is told to stop.

    address -> hold_port -> ServerContext -> fork -> each worker: open the store, create_server, report -> one line on
    stdout

The parent opens neither the store nor gRPC, so it can fork at any time, and a worker shares what is imported
(2 MB of its own at its start; a fresh process has 56 MB). It holds the port by a bound socket that never
listens (so port 0 is known before the first worker starts, and a second server on the port is refused); the
workers listen beside it (SO_REUSEPORT) and the kernel spreads connections over them. It also holds the writing
end of a pipe, the lifeline: when that closes, because the parent stops or dies, each worker drains and ends.
What is answered is ``recsys.serving.server``.
"""

import asyncio
import gc
import logging
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Protocol

from grpc_health.v1.health import aio as health_aio

from recsys.errors import ArtefactError, ConfigError, RecsysError
from recsys.serving.context import ServerContext, open_context
from recsys.serving.fast_path import ServingState
from recsys.serving.integrity import Checker
from recsys.serving.leftovers import clear_leftovers
from recsys.serving.logs import to_stderr
from recsys.serving.metrics import moment
from recsys.serving.reload import open_serving, watch
from recsys.serving.server import create_server
from recsys.serving.settings import ServeSettings
from recsys.serving.sockets import hold_port, text_of
from recsys.serving.transport import raise_descriptors
from recsys.serving.upload_handler import TrackUploads, serving_now
from recsys.serving.worker_process import QUICK_DEATH_S, WorkerProcess
from recsys.store.damage import n_met
from recsys.store.generation import Store
from recsys.uploads.embed_client import Embedder, EmbeddingProcess, can_embed
from recsys.util.threads import one_blas_thread

DRAIN_S = 5.0  # calls in flight have this long to end once a stop is asked for
STOP_S = 7.0  # then workers are killed: the whole stop takes less than 10 s
MAX_QUICK_DEATHS = 5  # in a row in one place, before the server gives up

_LOG = logging.getLogger(__name__)


class _Closable(Protocol):
    def close(self) -> None: ...


class _Workers:
    """The processes of one server, each in its place."""

    def __init__(
        self, store: Path, port_holder: socket.socket, context: ServerContext, embedding: EmbeddingProcess | None
    ) -> None:
        self._store = store
        self._embedding = embedding
        self._port_holder = port_holder
        self._context = context
        self._held_by_workers, self._lifeline = get_context("fork").Pipe(duplex=False)
        self._workers: list[WorkerProcess] = []

    def start(self, n_workers: int) -> None:
        """Fork the workers; ``close`` ends those that are there."""
        for slot in range(n_workers):
            self._workers.append(self._fork(slot))

    def _fork(self, slot: int, quick_deaths: int = 0) -> WorkerProcess:
        fork = get_context("fork")
        report, tell = fork.Pipe(duplex=False)
        address = text_of(self._port_holder)
        # The child must not keep the ports nor its own lifeline open.
        embedding = self._embedding
        parents_own = (self._port_holder, self._lifeline, report, *self._context.sockets)
        parents_own += () if embedding is None else embedding.parents_own
        embedder = None if embedding is None else embedding.address
        given = (self._store, address, self._held_by_workers, tell, parents_own, self._context, slot, embedder)
        process = fork.Process(target=_work, args=given)
        process.start()
        tell.close()
        return WorkerProcess(process, report, quick_deaths)

    def wait(self, stop: Connection, until_serving: bool) -> bool:
        """Look after the workers until all serve (if so asked), which gives True, or a stop is asked for."""
        while not (until_serving and all(worker.generation is not None for worker in self._workers)):
            reports = [worker.report for worker in self._workers if not worker.report.closed]
            ends = [worker.process.sentinel for worker in self._workers]
            embedding_end = None if self._embedding is None else self._embedding.sentinel
            ends += [] if embedding_end is None else [embedding_end]
            ready = connection.wait([stop, *reports, *ends, *self._context.sockets])
            if stop in ready:
                return False
            if self._embedding is not None and embedding_end in ready:
                self._embedding.revive()
            self._context.answer(ready)
            for slot, worker in enumerate(self._workers):
                if worker.report in ready:
                    worker.hear()
                if worker.process.sentinel in ready:
                    self._workers[slot] = self._replace(slot, worker, at_start=until_serving)
        return True

    def _replace(self, slot: int, worker: WorkerProcess, at_start: bool) -> WorkerProcess:
        """Start a new process in the place of one that has ended, unless it is no use to try again."""
        worker.process.join()
        self._context.forget(slot)
        quick_deaths = worker.quick_deaths + 1 if worker.died_quickly else 0
        if at_start and worker.failure:
            raise worker.failure
        if quick_deaths >= MAX_QUICK_DEATHS:
            raise ArtefactError(
                f"a worker died {quick_deaths} times in a row within {QUICK_DEATH_S:g} s of serving, "
                f"and the last {worker.cause}; see above what it wrote, and check the store {self._store}"
            )
        _LOG.warning("worker %d %s; starting another", worker.process.pid, worker.cause)
        return self._fork(slot, quick_deaths)

    @property
    def generation(self) -> str:
        """The generation that the first worker serves."""
        return self._workers[0].generation or ""

    def close(self) -> None:
        """Let every worker drain and end, and kill those that do not."""
        self._lifeline.close()
        deadline = time.monotonic() + STOP_S
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                _LOG.warning("worker %d did not end in time; killed", worker.process.pid)
                worker.process.kill()
                worker.process.join()


def serve(store: Path, address: str, workers: int = 1, settings: ServeSettings | None = None) -> int:
    """Serve a store on ``address`` from ``workers`` processes until SIGTERM or SIGINT.

    Once all serve, one line on stdout says where: ``serving generation G on 127.0.0.1:50051 (2 workers)``.
    A worker that dies is replaced, with a line on stderr. Call it on the main thread of a process that has
    not yet opened a gRPC channel or server, nor a store.

    Returns:
        The exit status, 0.

    Raises:
        ConfigError: the address cannot be parsed, found or bound, ``workers`` is below 1, or the settings do not do:
            a file that is missing or damaged, or an address that others can reach without tokens and TLS.
        ArtefactError: the store cannot be opened, or workers die again and again.
    """
    if workers < 1:
        raise ConfigError(f"workers is {workers}, expected 1 or more")
    settings = settings or ServeSettings()
    raise_descriptors()
    clear_leftovers(Store(store))
    with (
        to_stderr(settings),
        closing(hold_port(address)) as port_holder,
        closing(hold_port(settings.metrics)) if settings.metrics else nullcontext() as figures_holder,
        closing(open_context(settings, workers, port_holder, figures_holder)) as context,
        _stop_requests() as stop,
        imports_frozen(),
        closing(EmbeddingProcess(store, settings.uploads)) if can_embed() else nullcontext() as embedding,
        closing(_Workers(store, port_holder, context, embedding)) as processes,
    ):
        processes.start(workers)
        if processes.wait(stop, until_serving=True):
            context.announce()
            where, s = text_of(port_holder), "" if workers == 1 else "s"
            print(f"serving generation {processes.generation} on {where} ({workers} worker{s})", flush=True)
            if embedding is not None:
                embedding.start()  # only now: it takes seconds of a core to be warm
            processes.wait(stop, until_serving=False)
    return 0


@contextmanager
def imports_frozen() -> Iterator[None]:
    """Leave what is there already out of garbage collections, here and in what is forked from here.

    Nearly all of 80,000 objects are modules' own. Going through them, once in some ten thousand calls, stopped a
    worker for 20 to 60 ms, and wrote to pages that it shares with others.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _stop_requests() -> Iterator[Connection]:
    """Turn SIGTERM and SIGINT into something to read."""
    stop, ask = get_context("fork").Pipe(duplex=False)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        ask.send(None)

    former = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        stop.close()
        ask.close()


def _work(
    store: Path,
    address: str,
    lifeline: Connection,
    report: Connection,
    parents_own: Sequence[_Closable],
    context: ServerContext,
    slot: int,
    embedder: Path | None,
) -> None:
    """Be a worker: open the store, serve it, say so; in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for held in parents_own:
        held.close()
    one_blas_thread()
    try:
        answers, refused = open_serving(store, context.settings.backend, context.findings.is_refused)
        current = ServingState(answers)
        del answers  # else the files of the first generation stay open after the next one has taken its place
        asyncio.run(_answer_calls(current, refused, store, address, lifeline, report, context, slot, embedder))
        current.answers.close()
    except RecsysError as error:
        report.send(error)
        sys.exit(1)


async def _answer_calls(
    current: ServingState,
    refused: str,
    store: Path,
    address: str,
    lifeline: Connection,
    report: Connection,
    context: ServerContext,
    slot: int,
    embedder: Path | None,
) -> None:
    """Serve until SIGTERM or the end of the lifeline, then let calls in flight end."""
    health = health_aio.HealthServicer()
    access, meter = context.enter(slot)
    uploads, limits = None, context.settings.uploads
    if embedder is not None:
        uploads = TrackUploads(Store(store), Embedder(embedder, limits), lambda: serving_now(current), limits)
    server, _ = await create_server(
        current, address, health=health, shared_port=True, access=access, meter=meter, uploads=uploads
    )
    await server.start()
    findings = context.findings
    following = watch(current, store, context.settings.backend, refused=refused, damaged=findings.is_refused)
    tasks = [asyncio.create_task(following)]
    checker = Checker(store, lambda: current.answers.generation, findings) if slot == 0 else None
    if checker is not None:
        checker.start()
    if context.keyring:
        tasks.append(asyncio.create_task(context.keyring.follow()))
    if meter:
        tasks.append(asyncio.create_task(meter.tell()))
        meter.watch(
            built_at=lambda: moment(current.answers.recommender.status()["created_at"]),
            backlog=lambda: 0 if current.answers.live is None else current.answers.live.backlog(),
            behind=lambda: Store(store).current_name() != current.answers.generation,
            lists_behind=lambda: 0 if current.answers.live is None else current.answers.live.behind(),
            failed_lookups=lambda: current.answers.n_failed_lookups,
            damaged_values=n_met,
            damaged_files=lambda: findings.count(current.answers.generation),
        )
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(lifeline.fileno(), stop.set)
    report.send(current.answers.generation)
    await stop.wait()
    loop.remove_reader(lifeline.fileno())  # a closed pipe stays readable: without this the loop would spin
    await health.enter_graceful_shutdown()
    await server.stop(DRAIN_S)
    for task in tasks:
        task.cancel()
    if checker is not None:
        checker.stop()
