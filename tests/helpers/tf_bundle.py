"""Write TensorFlow checkpoints as the reader's tests need them: one block of tensors, one block that points to it."""

import struct

import numpy as np

MAGIC = 0xDB4775248B80FB57


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(entries: list[tuple[bytes, bytes]], compressed: int = 0) -> bytes:
    """Keys share what they can with the one before; one restart; no checksum, and only said to be compressed."""
    out, before = b"", b""
    for key, value in entries:
        shared = next(
            (n for n, (a, b) in enumerate(zip(key, before, strict=False)) if a != b), min(len(key), len(before))
        )
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return out + struct.pack("<II", 0, 1) + bytes([compressed]) + bytes(4)


def bundle(tensors: dict[str, np.ndarray], dtype: int = 1, compressed: int = 0) -> tuple[bytes, bytes]:
    """The .index and the .data file of ``tensors``, all written as float32 and labelled ``dtype``."""
    data, entries = b"", [(b"", field(1, 1))]
    for name, array in sorted(tensors.items()):
        raw = np.asarray(array, "<f4").tobytes()
        shape = b"".join(field(2, field(1, n)) for n in array.shape)
        where = (
            field(1, dtype) + field(2, shape) + field(4, len(data)) + field(5, len(raw)) + varint(6 << 3 | 5) + bytes(4)
        )
        entries.append((name.encode(), where))
        data += raw
    tensors_block = block(entries, compressed)
    pointer = varint(0) + varint(len(tensors_block) - 5)
    pointers_block = block([(b"zzz", pointer)])
    handle = varint(len(tensors_block)) + varint(len(pointers_block) - 5)
    footer = (varint(0) + varint(0) + handle).ljust(40, b"\0") + struct.pack("<Q", MAGIC)
    return tensors_block + pointers_block + footer, data
