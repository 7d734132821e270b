"""Records of format 1, as generations and live stores hold them that were written before there were checksums.

    u32 n | u32 length of the head | u32 ends of tracks (n,) after the head | i32 rows (n,) | head | tracks

They are read, never written. Only what cannot be is told from what was damaged: numbers that do not fit together.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DamagedError
from recsys.types import Int32

_START = struct.Struct("<II")


def read(buffer: bytes | memoryview) -> tuple[int, bytes, int, NDArray[np.uint32], Int32]:
    """Read a record: n, the head, where the tracks begin, their ends and rows (n,).

    Raises:
        DamagedError: its numbers do not fit together.
    """
    size = len(buffer)
    n, length_of_head = _START.unpack_from(buffer) if size >= _START.size else (0, size)
    body = _START.size + 8 * n
    if body + length_of_head > size:
        raise DamagedError("a stored list is shorter than it says")
    ends = np.frombuffer(buffer, dtype="<u4", count=n, offset=_START.size)
    rows = np.frombuffer(buffer, dtype="<i4", count=n, offset=_START.size + 4 * n)
    at = body + length_of_head
    if at + (int(ends[-1]) if n else 0) != size or not (np.diff(ends.astype(np.int64)) > 0).all():
        raise DamagedError("a stored list's tracks do not end where they should")
    return n, bytes(buffer[body:at]), at, ends, rows
