"""How many cores there are, how many threads torch may use of them for a while, and work spread over them."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import TypeVar

_LOOK_AHEAD = 2  # tasks a thread that are asked for before the first of them is taken

T = TypeVar("T")
S = TypeVar("S")


def n_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Let torch use ``n`` threads inside a ``with`` block; the caller's number is put back after it."""
    import torch  # not at the top: the decoders' side counts cores without it

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_threads(function: Callable[[T], S], things: Iterable[T], n_threads: int | None = None) -> Iterator[S]:
    """Do torch's work on many things, a thread a core and one core a thread; results come in their order.

    Only a few things are drawn ahead. numpy and torch let go of the interpreter while they compute, so threads are
    enough; two things at once on a core each are faster than one thing on two cores (measured: the products of a
    musicnn clip are too small to share).
    """
    import torch

    n = n_threads or n_cores()
    running: deque[Future[S]] = deque()
    with ThreadPoolExecutor(n, "torch", initializer=lambda: torch.set_num_threads(1)) as threads:
        try:
            for thing in things:
                running.append(threads.submit(copy_context().run, function, thing))
                if len(running) >= _LOOK_AHEAD * n:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def one_blas_thread() -> None:
    """Let numpy's products in this process take one thread each, for good: a server's threads share the cores already.

    Products of the size of a list take longer on more; 1,000 lists made by two workers at once took minutes.
    """
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, "blas")


def in_numpy_threads(function: Callable[[T], S], things: Sequence[T]) -> Iterator[S]:
    """Do numpy's work on many things, a thread a core, BLAS kept to one thread each; results come in their order.

    A few things are done one after the other, with all of BLAS's threads. (Both at once, threads here and threads in
    BLAS, took 1.7 times as long on two cores.)
    """
    if len(things) < 2 * n_cores():
        yield from map(function, things)
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(n_cores(), "numpy") as threads:
        yield from threads.map(function, things)
