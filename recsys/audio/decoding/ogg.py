"""Ogg pages: is the last one there, and are there several recordings behind each other (a chain)?

    an open file  ->  is_closed  ->  whether the last page is whole and marked as the last
    an open file  ->  links      ->  the bytes of each recording of a chain; of a file that is none, nothing

A stream from the radio is a chain of songs. Decoders give the first one, or times that begin anew with each.
"""

import os
from typing import BinaryIO

_PAGE_BYTES = 27  # of a page's head, without the list of its segments
_LARGEST_PAGE_BYTES = 65_536 + _PAGE_BYTES + 255
_MOST_LINKS = 1000
_MOST_BYTES = 2**32  # of a file whose pages are walked through
_FIRST, _LAST = 0x02, 0x04  # flags of a page


def is_closed(file: BinaryIO, size: int) -> bool:
    """Whether the last page is whole and marked as the last of its recording."""
    page = _last_page(file, size)
    if len(page) < _PAGE_BYTES or len(page) < _PAGE_BYTES + page[26]:
        return False
    return bool(page[5] & _LAST) and len(page) >= _n_bytes(page)


def is_chain(file: BinaryIO, start: int, size: int) -> bool:
    """Whether the last page belongs to none of the recordings that begin at the start of the file."""
    page, serials, at = _last_page(file, size), set(), start
    file.seek(at)
    while (head := file.read(_PAGE_BYTES + 255))[:4] == b"OggS" and len(head) > _PAGE_BYTES and head[5] & _FIRST:
        serials.add(head[14:18])
        at += _n_bytes(head)
        file.seek(at)
    return len(page) >= _PAGE_BYTES and bool(serials) and page[14:18] not in serials


def links(file: BinaryIO, start: int, size: int) -> list[tuple[int, int]]:
    """List where each recording of a chain begins and ends, in bytes; a file that is none has none."""
    if size - start > _MOST_BYTES or not is_chain(file, start, size):
        return []
    starts, at, in_heads = [start], start, True
    while at < size and len(starts) <= _MOST_LINKS:
        file.seek(at)
        head = file.read(_PAGE_BYTES + 255)
        if head[:4] != b"OggS" or len(head) < _PAGE_BYTES or len(head) < _PAGE_BYTES + head[26]:
            at = _next_page(file, at + 1)
            continue
        is_head = bool(head[5] & _FIRST)
        if is_head and not in_heads:
            starts.append(at)
        in_heads = is_head
        at += _n_bytes(head)
    return list(zip(starts, [*starts[1:], size], strict=True))


def _n_bytes(page: bytes) -> int:
    return _PAGE_BYTES + page[26] + sum(page[_PAGE_BYTES : _PAGE_BYTES + page[26]])


def _last_page(file: BinaryIO, size: int) -> bytes:
    file.seek(max(0, size - _LARGEST_PAGE_BYTES))
    tail = file.read()
    return tail[tail.rfind(b"OggS") :] if b"OggS" in tail else b""


def _next_page(file: BinaryIO, at: int) -> int:
    """Find where pages go on behind a damaged one; the end of the file where they do not."""
    file.seek(at)
    while block := file.read(_LARGEST_PAGE_BYTES):
        found = block.find(b"OggS")
        if found >= 0:
            return at + found
        at += len(block) - 3
        if len(block) < _LARGEST_PAGE_BYTES:
            break
        file.seek(at)
    return file.seek(0, os.SEEK_END)
