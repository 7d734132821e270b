"""Make ``sound_vector.npz``: the vector of the sound in ``log_mel.npz`` by a made-up conv1d, in double precision.

Run it as a script. Weights come from a formula, the forward pass is written out in numpy, and nothing of the package is
used; the package must agree to 1e-4.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

N_MELS, WIDTH, KERNEL, DIM, PATCH = 96, 10, 4, 7, 50
Array = NDArray[np.float64]


def weights() -> dict[str, Array]:
    """Weights by the names that the package gives them; variances are positive, no two alike."""
    shapes = {
        "normalise.weight": (N_MELS,),
        "layers.0.weight": (WIDTH, N_MELS, KERNEL),
        "layers.0.bias": (WIDTH,),
        "layers.4.weight": (WIDTH, WIDTH, KERNEL),
        "layers.4.bias": (WIDTH,),
        "dense.2.weight": (DIM, 3 * WIDTH),
        "dense.2.bias": (DIM,),
    }
    norms = {"normalise": N_MELS, "layers.1": WIDTH, "layers.5": WIDTH, "dense.0": 3 * WIDTH}
    for name, n in norms.items():
        shapes |= {f"{name}.{part}": (n,) for part in ("weight", "bias", "running_mean", "running_var")}
    made = {}
    for place, (name, shape) in enumerate(sorted(shapes.items())):
        values = np.sin(1.7 * np.arange(np.prod(shape)) + place).reshape(shape)
        made[name] = 1.5 + values if name.endswith(("running_var", "norm.weight")) else 0.3 * values
    return made


def norm(x: Array, w: dict[str, Array], name: str) -> Array:
    """Normalise (channels, ...) by the running statistics."""
    mean, var, scale, bias = (
        w[f"{name}.{part}"].reshape(-1, *[1] * (x.ndim - 1))
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def layer(x: Array, w: dict[str, Array], place: int) -> Array:
    """Convolve along time with zeros at both ends, normalise, rectify, keep the greater of two neighbours."""
    kernel, bias = w[f"layers.{place}.weight"], w[f"layers.{place}.bias"]
    padded = np.pad(x, ((0, 0), (KERNEL // 2, KERNEL // 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, KERNEL, axis=1)
    y = np.einsum("ctk,fck->ft", windows, kernel) + bias[:, None]
    y = np.maximum(norm(y, w, f"layers.{place + 1}"), 0)
    if y.shape[1] % 2:
        y = np.concatenate([y, y[:, -1:]], axis=1)
    return np.maximum(y[:, ::2], y[:, 1::2])


def embedding(patch: Array, w: dict[str, Array]) -> Array:
    """Embed one patch (n_mels, n_frames)."""
    x = layer(layer(norm(patch, w, "normalise"), w, 0), w, 4)
    pooled = np.concatenate([x.mean(axis=1), x.max(axis=1), np.sqrt((x**2).mean(axis=1) + 1e-6)])
    return w["dense.2.weight"] @ norm(pooled, w, "dense.0") + w["dense.2.bias"]


def vector(log_mel: Array, w: dict[str, Array]) -> Array:
    """Average the embeddings of the whole patches, and scale to unit length."""
    starts = range(0, log_mel.shape[1] - PATCH + 1, PATCH)
    mean = np.mean([embedding(log_mel[:, start : start + PATCH], w) for start in starts], axis=0)
    return mean / np.linalg.norm(mean)


if __name__ == "__main__":
    folder = Path(__file__).parent
    with np.load(folder / "log_mel.npz") as golden:
        made = vector(golden["log_mel"].astype(np.float64), weights())
    np.savez_compressed(folder / "sound_vector.npz", vector=made.astype(np.float32))
