"""Make ``log_mel.npz``: a short synthetic sound and its log-mel, by numpy in double precision.

Run it as a script. The formulas are those of musicnn's front end, written out, and nothing of the package is used; the
package must agree to 1e-4.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE, N_FFT, HOP, N_MELS = 16_000, 512, 256, 96


def sound() -> NDArray[np.float32]:
    """A rising tone, a click and a little noise: 1.2 s and 37 samples, so that no length is round."""
    t = np.arange(19_237) / SAMPLE_RATE
    rng = np.random.default_rng(5)
    samples = 0.4 * np.sin(2 * np.pi * (200 * t + 1500 * t**2)) + 0.003 * rng.standard_normal(len(t))
    samples[7_000] += 0.5
    samples[15_000:16_500] = 0.0
    return samples.astype(np.float32)


def mel_bands() -> NDArray[np.float64]:
    """Triangles of equal area on Slaney's scale: 15 mel below 1 kHz by 200/3 Hz each, logarithmic above."""
    log_step = np.log(6.4) / 27
    top = 15 + np.log(SAMPLE_RATE / 2 / 1000) / log_step
    mels = np.linspace(0, top, N_MELS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(log_step * (mels - 15)))
    bins = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """log10(10000 x + 1) of the mel power spectrum, (n_mels, n_frames)."""
    padded = np.pad(samples.astype(np.float64), N_FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP] * np.hanning(N_FFT + 1)[:-1]
    return np.log10(10_000 * mel_bands() @ (np.abs(np.fft.rfft(frames, axis=1)) ** 2).T + 1)


if __name__ == "__main__":
    made = {"samples": sound(), "log_mel": log_mel(sound()).astype(np.float32)}
    np.savez_compressed(Path(__file__).with_name("log_mel.npz"), **made)
