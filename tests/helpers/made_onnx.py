"""Tiny ONNX models, written byte by byte: what a plug-in's tests need of the format, without its library."""

import struct
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from recsys.types import Float32

WAVE_S, SAMPLE_RATE = 0.25, 16_000
N_SAMPLES = round(WAVE_S * SAMPLE_RATE)


def _varint(number: int) -> bytes:
    out = bytearray()
    while True:
        number, low = number >> 7, number & 127
        out.append(low | (128 if number else 0))
        if not number:
            return bytes(out)


def number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def some(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def tensor(name: str, values: Float32) -> bytes:
    dims = b"".join(number(1, n) for n in values.shape)
    return dims + number(2, 1) + some(8, name) + some(9, values.astype("<f4").tobytes())


def external_tensor(name: str, shape: Sequence[int], location: str) -> bytes:
    """A tensor whose numbers lie in another file."""
    dims = b"".join(number(1, n) for n in shape)
    return dims + number(2, 1) + some(8, name) + some(13, some(1, "location") + some(2, location)) + number(14, 1)


def value(name: str, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(some(1, some(2, n) if isinstance(n, str) else number(1, n)) for n in shape)
    return some(1, name) + some(2, some(1, number(1, 1) + some(2, dims)))


def ints(name: str, values: Sequence[int]) -> bytes:
    return some(5, some(1, name) + b"".join(number(8, n) for n in values) + number(20, 7))


def node(kind: str, inputs: Sequence[str], output: str, attributes: bytes = b"") -> bytes:
    return b"".join(some(1, name) for name in inputs) + some(2, output) + some(4, kind) + attributes


def model(nodes: Sequence[bytes], tensors: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes]) -> bytes:
    graph = b"".join(some(1, one) for one in nodes) + some(2, "made") + b"".join(some(5, one) for one in tensors)
    graph += b"".join(some(11, one) for one in inputs) + b"".join(some(12, one) for one in outputs)
    return number(1, 8) + some(7, graph) + some(8, some(1, "") + number(2, 13))


def weights(n_out: int = 6) -> Float32:
    """Make those of ``wave_model``, (N_SAMPLES, n_out)."""
    return np.random.default_rng(5).normal(size=(N_SAMPLES, n_out)).astype(np.float32) / 50


def wave_model(batch: int | str = "n", tensors: Sequence[bytes] | None = None) -> bytes:
    """Windows (batch, N_SAMPLES) in; products out, their ``squares`` (batch, 6), and as ``frames`` (batch, 2, 3)."""
    nodes = [
        node("MatMul", ["wave", "weights"], "products"),
        node("Mul", ["products", "products"], "squares"),
        node("Reshape", ["products", "shape"], "frames"),
    ]
    shape = number(1, 3) + number(2, 7) + some(8, "shape") + some(9, struct.pack("<3q", -1, 2, 3))
    given = [tensor("weights", weights())] if tensors is None else tensors
    outputs = [value("squares", [batch, 6]), value("frames", [batch, 2, 3])]
    return model(nodes, [*given, shape], [value("wave", [batch, N_SAMPLES])], outputs)


def log_mel_model(shape: Sequence[int | str], axis: int) -> bytes:
    """Log-mel patches of a shape in, their ``mean`` along an axis out."""
    nodes = [
        node(
            "ReduceMean",
            ["patches"],
            "mean",
            ints("axes", [axis]) + some(5, some(1, "keepdims") + number(3, 0) + number(20, 2)),
        )
    ]
    return model(nodes, [], [value("patches", shape)], [value("mean", ["n", 96])])


def written(folder: Path, data: bytes) -> tuple[str, str]:
    """Write a model into a folder: its path and SHA-256."""
    (folder / "made.onnx").write_bytes(data)
    return str(folder / "made.onnx"), sha256(data).hexdigest()
