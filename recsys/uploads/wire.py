"""What goes over the socket to the embedding process: JSON, and rows of float32 behind it. No code can travel in it.

    message, vectors  <->  length (4 bytes, big-endian), JSON, the vectors' float32 in the order that the JSON names

``"vectors": {"hybrid": 64, "sound": 12}`` in a message says which vectors follow, and how long each is.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from recsys.types import Float32

MAX_JSON_BYTES = 2**24
_MAX_FLOATS = 2**20
_LENGTH = struct.Struct(">I")

Message = tuple[dict[str, Any], dict[str, Float32]]


def packed(message: Mapping[str, Any], vectors: Mapping[str, Float32] | None = None) -> bytes:
    """Write a message with vectors (d,) by name."""
    rows = {name: np.asarray(vector, dtype="<f4") for name, vector in (vectors or {}).items()}
    text = json.dumps({**message, "vectors": {name: len(row) for name, row in rows.items()}}).encode()
    return b"".join([_LENGTH.pack(len(text)), text, *(row.tobytes() for row in rows.values())])


def receive(connection: socket.socket) -> Message:
    """Read a message from a blocking socket.

    Raises:
        EOFError: the other end was closed before its end.
        ValueError: it is no message.
    """
    text = _exactly(connection, _length(_exactly(connection, _LENGTH.size)))
    message, n_bytes = _parsed(text)
    return message, _vectors(message, _exactly(connection, n_bytes))


async def received(stream: asyncio.StreamReader) -> Message:
    """Read a message from a stream.

    Raises:
        EOFError: the other end was closed before its end.
        ValueError: it is no message.
    """
    text = await stream.readexactly(_length(await stream.readexactly(_LENGTH.size)))
    message, n_bytes = _parsed(text)
    return message, _vectors(message, await stream.readexactly(n_bytes))


def _exactly(connection: socket.socket, n_bytes: int) -> bytes:
    parts: list[bytes] = []
    while n_bytes:
        part = connection.recv(min(n_bytes, 2**20))
        if not part:
            raise EOFError
        parts.append(part)
        n_bytes -= len(part)
    return b"".join(parts)


def _length(prefix: bytes) -> int:
    length = int(_LENGTH.unpack(prefix)[0])
    if length > MAX_JSON_BYTES:
        raise ValueError(f"a message of {length:,} bytes is announced, expected {MAX_JSON_BYTES:,} or fewer")
    return length


def _parsed(text: bytes) -> tuple[dict[str, Any], int]:
    message = json.loads(text)
    lengths = list(message["vectors"].values())
    if min(lengths, default=0) < 0 or sum(lengths) > _MAX_FLOATS:
        raise ValueError(f"vectors of {lengths} numbers are announced, expected {_MAX_FLOATS:,} or fewer in all")
    return message, 4 * sum(lengths)


def _vectors(message: dict[str, Any], content: bytes) -> dict[str, Float32]:
    lengths: dict[str, int] = message.pop("vectors")
    ends = np.cumsum(list(lengths.values()), dtype=int)[:-1]
    parts = np.split(np.frombuffer(content, dtype="<f4").astype(np.float32), ends)
    return dict(zip(lengths, parts, strict=False))
