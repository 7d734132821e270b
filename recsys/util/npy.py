"""Arrays as they lie on disk, in numpy's own files: no pickles.

    file  ->  mapped: its pages are read when they are looked at, and shared by processes
          ->  read: all of it, for what is small

A server opens the next generation beside its calls, on a thread that takes turns with them: Python lets one of them run
at a time. ``giving_way`` makes it wait a little before each file, so that no call waits for more than one of them.
"""

import math
import mmap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_THREAD = threading.local()


def mapped(file: Path) -> NDArray[Any]:
    """Map a saved array into memory, read-only; an empty one has nothing to map.

    A plain array over the file: slices of ``np.memmap`` take five times as long, and making one three times.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is damaged or shorter than it says.
    """
    give_way()
    with file.open("rb") as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"{file.name} is of another version of numpy's format than 1.0")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        start, n_bytes = stream.tell(), math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise ValueError(f"{file.name} holds objects, which are not read")
        if n_bytes == 0:
            return np.zeros(shape, dtype)
        whole = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    if len(whole) < start + n_bytes:
        raise ValueError(f"{file.name} has {len(whole):,} bytes, expected {start + n_bytes:,}")
    return np.ndarray(shape, dtype, whole, start, order="F" if is_fortran else "C")


def read(file: Path) -> NDArray[Any]:
    """Read a saved array.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError, EOFError: it is damaged or shorter than it says.
    """
    give_way()
    array: NDArray[Any] = np.load(str(file), allow_pickle=False)
    return array


@contextmanager
def giving_way(seconds: float) -> Iterator[None]:
    """Have this thread wait so long before each file that it opens, as others have work that cannot wait."""
    _THREAD.seconds = seconds
    try:
        yield
    finally:
        _THREAD.seconds = 0.0


def give_way() -> None:
    """Wait where this thread is to, before a file is opened."""
    seconds = getattr(_THREAD, "seconds", 0.0)
    if seconds:
        time.sleep(seconds)
