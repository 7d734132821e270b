"""TensorFlow checkpoints in, numpy arrays out, without TensorFlow.

    the bytes of an .index and a .data file  ->  read_checkpoint  ->  {name: float32 array}

A checkpoint of format V2 is a "tensor bundle": an index, which is a sorted-string table as in LevelDB (blocks of
prefix-compressed keys, a 48-byte footer with a magic number), whose values are protobuf messages that say where in the
data file each tensor lies. Read here: one data file, uncompressed blocks, float32 tensors, little-endian; every length
is checked against what is there. Other types are left out. Checksums are not verified: the caller knows the hash of
what it expects.

Reference: tensorflow/core/util/tensor_bundle, tensorflow/core/lib/io/table_format.txt.
"""

import struct
from collections.abc import Iterator
from math import prod

import numpy as np

from recsys.errors import ArtefactError
from recsys.types import Float32

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # behind each block: how it is compressed, and a checksum
_FLOAT32 = 1  # DataType.DT_FLOAT

Message = dict[int, list[int | bytes]]  # a protobuf message: values by field number


def read_checkpoint(index: bytes, data: bytes) -> dict[str, Float32]:
    """Read the float32 tensors of a checkpoint.

    Args:
        index: the bytes of the ``.index`` file.
        data: the bytes of the one ``.data-00000-of-00001`` file.

    Raises:
        ArtefactError: the two are no whole checkpoint of format V2, or a part of them is damaged.
    """
    try:
        tensors = {}
        for key, value in _entries(index):
            if not key:  # the header: about the bundle, not a tensor
                continue
            tensor = _tensor(_message(value), data)
            if tensor is not None:
                tensors[key.decode()] = tensor
    except (IndexError, ValueError, struct.error) as error:
        raise ArtefactError(f"the checkpoint is damaged ({error}); get it anew") from error
    return tensors


def _entries(index: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of the table: its footer points to a block of pointers to blocks."""
    if len(index) < _FOOTER_BYTES or struct.unpack("<Q", index[-8:])[0] != _MAGIC:
        raise ValueError("the index does not end in the magic number of a table")
    footer = index[-_FOOTER_BYTES:]
    _, position = _varint(footer, 0)  # where the table's own metadata begin, and their size: not needed
    _, position = _varint(footer, position)
    for _, handle in _block(index, footer[position:]):
        yield from _block(index, handle)


def _block(index: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of the block that a handle (offset and size) points to."""
    start, position = _varint(handle, 0)
    n_bytes, _ = _varint(handle, position)
    block = _slice(index, start, n_bytes + _TRAILER_BYTES)
    if block[n_bytes] != 0:
        raise ValueError("a block of the index is compressed")
    n_restarts = struct.unpack("<I", block[n_bytes - 4 : n_bytes])[0]
    end, position, key = n_bytes - 4 - 4 * n_restarts, 0, b""
    while position < end:
        n_shared, position = _varint(block, position)
        n_own, position = _varint(block, position)
        n_value, position = _varint(block, position)
        key = _slice(key, 0, n_shared) + _slice(block, position, n_own)
        yield key, _slice(block, position + n_own, n_value)
        position += n_own + n_value


def _tensor(entry: Message, data: bytes) -> Float32 | None:
    """Read one tensor: fields are 1 type, 2 shape, 3 data file, 4 offset, 5 size."""
    if _number(entry, 1) != _FLOAT32:
        return None
    if _number(entry, 3) != 0:
        raise ValueError("a tensor lies in another data file than the first")
    shape = [_number(_message(_bytes(axis)), 1) for axis in _message(_bytes(entry.get(2, [b""])[0])).get(2, [])]
    raw = _slice(data, _number(entry, 4), _number(entry, 5))
    if len(raw) != 4 * prod(shape):
        raise ValueError(f"a tensor of shape {tuple(shape)} has {len(raw)} bytes")
    return np.frombuffer(raw, "<f4").reshape(shape).astype(np.float32)


def _message(raw: bytes) -> Message:
    """Take a protobuf message apart: numbers (wire type 0) as int, the others as bytes."""
    fields: Message = {}
    position = 0
    while position < len(raw):
        tag, position = _varint(raw, position)
        value: int | bytes
        match tag & 7:
            case 0:
                value, position = _varint(raw, position)
            case 1 | 2 | 5 as wire:
                n_bytes = {1: 8, 5: 4}.get(wire, 0)
                if wire == 2:
                    n_bytes, position = _varint(raw, position)
                value, position = _slice(raw, position, n_bytes), position + n_bytes
            case wire:
                raise ValueError(f"a message has a field of wire type {wire}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    """Read a number of 7 bits a byte, low bits first; returns it and where it ends."""
    number = 0
    for shift in range(0, 64, 7):
        byte = raw[position]
        number |= (byte & 127) << shift
        position += 1
        if byte < 128:
            return number, position
    raise ValueError("a number is longer than 64 bits")


def _slice(raw: bytes, start: int, n_bytes: int) -> bytes:
    if start + n_bytes > len(raw):
        raise ValueError(f"{start + n_bytes:,} bytes are declared, {len(raw):,} are there")
    return raw[start : start + n_bytes]


def _number(message: Message, field: int) -> int:
    value = message.get(field, [0])[0]
    if not isinstance(value, int):
        raise ValueError(f"field {field} is not a number")
    return value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a field is a number")
    return value
