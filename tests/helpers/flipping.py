"""One bit is another one."""

from pathlib import Path


def flipped(value: bytes, bit: int) -> bytes:
    return value[: bit // 8] + bytes([value[bit // 8] ^ 1 << bit % 8]) + value[bit // 8 + 1 :]


def flip(file: Path, bit: int) -> None:
    file.write_bytes(flipped(file.read_bytes(), bit))
