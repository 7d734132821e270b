"""A file seen as another one: some bytes in front, and of the file behind them a part.

    an open file, bytes, start, end  ->  view  ->  an open file that begins with the bytes and goes on at ``start``

A decoder that is handed a header with the true length needs no estimate, and one that is handed only the stretch that
is wanted needs no search. Each view keeps its own position, so several may be read in turn.
"""

import io
import os
from typing import Any, BinaryIO

_BUFFER_BYTES = 65_536  # decoders ask for a few bytes at a time


class _Spliced(io.RawIOBase):
    def __init__(self, front: bytes, file: BinaryIO, start: int, end: int) -> None:
        self._front, self._file, self._start = front, file, start
        self._size = len(front) + end - start
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        if self._at < len(self._front):
            content = self._front[self._at : self._at + wanted]
        else:
            self._file.seek(self._start + self._at - len(self._front))
            content = self._file.read(wanted)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def view(file: BinaryIO, start: int = 0, end: int | None = None, front: bytes = b"") -> BinaryIO:
    """Show ``front`` and behind it the bytes from ``start`` to ``end`` of a seekable file, by default to its end.

    The file must stay open as long as the view is read.
    """
    if end is None:
        end = file.seek(0, os.SEEK_END)
    return io.BufferedReader(_Spliced(front, file, start, max(start, end)), _BUFFER_BYTES)
