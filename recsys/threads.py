"""How many cores there are, and how many threads torch may use of them for a while."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
