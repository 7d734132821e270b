"""Small values with a format number and a checksum before them.

    bytes, key  ->  sealed  ->  u8 format | u32 checksum of format, key and bytes | bytes  ->  unsealed  ->  the bytes

Values of before have neither; a reader tells them apart by their length (``is_sealed``), and so they must be
of whole numbers of four bytes, which a sealed one is not.
"""

import struct
from zlib import crc32

from recsys.errors import DamagedError, NewerError

_SEAL = struct.Struct("<BI")
SIZE = _SEAL.size


def sealed(number: int, payload: bytes, key: bytes = b"") -> bytes:
    """Put the format ``number`` and a checksum before bytes, which are good under ``key`` alone."""
    return _SEAL.pack(number, _checksum(number, payload, key)) + payload


def is_sealed(value: bytes | memoryview) -> bool:
    """Whether a value that holds numbers of four bytes has a seal."""
    return len(value) % 4 == SIZE % 4


def unsealed(value: bytes | memoryview, number: int, what: str, key: bytes = b"") -> bytes:
    """Check and take off the seal of a value of format ``number``; ``what`` it is says the error.

    Raises:
        DamagedError: it is not as it was written, or stands under another key.
        NewerError: it is of a later format.
    """
    if len(value) < SIZE:
        raise DamagedError(f"{what} is shorter than its checksum")
    found, checksum = _SEAL.unpack_from(value)
    payload = bytes(value[SIZE:])
    if _checksum(found, payload, key) != checksum:
        raise DamagedError(f"{what} does not match its checksum")
    if found != number:
        raise NewerError(f"{what} has the format {found}, expected {number}")
    return payload


def _checksum(number: int, payload: bytes, key: bytes) -> int:
    return crc32(payload, crc32(key, number))
