"""Make ``musicnn.npz``: what a network of musicnn's shape with made-up weights gives for a made-up patch.

Run it as a script. The forward pass is written out in numpy, in double precision, from the paper and the published
code; nothing of the package is used. The weights are drawn anew by the tests (``tensors``), under TensorFlow's names,
so only the results are stored. About half of the norms' scales are negative, as in the published weights.
"""

from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

N_FRAMES = 187
KERNELS = (
    *((7, 38, 1, 204), (7, 67, 1, 204), (128, 1, 1, 51), (64, 1, 1, 51), (32, 1, 1, 51)),
    *((7, 561, 1, 64), (7, 64, 1, 64), (7, 64, 1, 64)),
)
NORMS = (1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200)


def tensors() -> dict[str, NDArray[np.float32]]:
    """Draw weights by the names of the checkpoint."""
    rng = np.random.default_rng(11)
    made: dict[str, NDArray[np.float64]] = {}
    for n, shape in enumerate(KERNELS):
        name = f"conv2d_{n}" if n else "conv2d"
        made[f"{name}/kernel"] = rng.normal(0, 1 / np.sqrt(np.prod(shape[:3])), shape)
        made[f"{name}/bias"] = rng.normal(0, 0.3, shape[3])
    for n, width in enumerate(NORMS):
        name = f"batch_normalization_{n}" if n else "batch_normalization"
        made[f"{name}/gamma"] = rng.uniform(0.5, 1.5, width) * rng.choice([-1, 1], width)
        made[f"{name}/beta"] = rng.normal(0, 0.3, width)
        made[f"{name}/moving_mean"] = rng.normal(0.5, 0.3, width)
        made[f"{name}/moving_variance"] = rng.uniform(0.2, 2.0, width)
    for name, shape in (("dense", (1506, 200)), ("dense_1", (200, 50))):
        made[f"{name}/kernel"] = rng.normal(0, 1 / np.sqrt(shape[0]), shape)
        made[f"{name}/bias"] = rng.normal(0, 0.3, shape[1])
    return {name: array.astype(np.float32) for name, array in made.items()}


def patch() -> NDArray[np.float32]:
    """Draw a log-mel-like patch, (96, 187)."""
    return np.random.default_rng(12).gamma(1.0, 1.5, (96, N_FRAMES)).astype(np.float32)


class Network:
    """The forward pass; rows are frames."""

    def __init__(self, weights: dict[str, NDArray[np.float32]]) -> None:
        self.w = {name: array.astype(np.float64) for name, array in weights.items()}

    def norm(self, x: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        """Normalise the last axis by stored moments."""
        name = f"batch_normalization_{n}" if n else "batch_normalization"
        scale = self.w[f"{name}/gamma"] / np.sqrt(self.w[f"{name}/moving_variance"] + 1e-3)
        return (x - self.w[f"{name}/moving_mean"]) * scale + self.w[f"{name}/beta"]

    def convolution(self, x: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        """Filter (frames, bands): 'same' along frames, 'valid' along bands; then ReLU and norm."""
        name = f"conv2d_{n}" if n else "conv2d"
        kernel, bias = self.w[f"{name}/kernel"][:, :, 0], self.w[f"{name}/bias"]
        before = (len(kernel) - 1) // 2
        windows = sliding_window_view(np.pad(x, ((before, len(kernel) - 1 - before), (0, 0))), kernel.shape[:2])
        return self.norm(np.maximum(np.einsum("tfij,ijo->tfo", windows, kernel, optimize=True) + bias, 0), n + 1)

    def __call__(self, log_mel: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
        """Give what each stage gives for one patch (96, n_frames)."""
        x = self.norm(log_mel.T.astype(np.float64)[..., None], 0)[..., 0]
        front = np.concatenate([self.convolution(x, n).max(axis=1) for n in range(5)], axis=1)
        first = self.convolution(front, 5)[:, 0]
        second = first + self.convolution(first, 6)[:, 0]
        third = second + self.convolution(second, 7)[:, 0]
        layers = np.concatenate([front, first, second, third], axis=1)
        pooled = np.stack([layers.max(axis=0), layers.mean(axis=0)], axis=1).ravel()
        hidden = np.maximum(self.norm(pooled, 9) @ self.w["dense/kernel"] + self.w["dense/bias"], 0)
        features = self.norm(hidden, 10)
        tags = 1 / (1 + np.exp(-(features @ self.w["dense_1/kernel"] + self.w["dense_1/bias"])))
        return {"maxima": layers.max(axis=0), "means": layers.mean(axis=0), "penultimate": features, "tags": tags}


if __name__ == "__main__":
    results = {name: array.astype(np.float32) for name, array in Network(tensors())(patch()).items()}
    np.savez_compressed(Path(__file__).with_name("musicnn.npz"), **results)
