"""Audio to measure with: composed clips, full-length recordings in several formats, damaged files.

    nothing  ->  clips, recordings, damaged  ->  files in a folder

What is composed is chords that change twice a second, with noise: music enough for a codec and a network.
"""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import soundfile

from recsys.types import Float32
from recsys.util.progress import Bar

RATE = 44_100  # Hz
CLIP_S = 30.0
FORMATS = ("mp3", "flac", "m4a")


def sound(seconds: float, seed: int, n_channels: int) -> Float32:
    """Compose samples (n, n_channels)."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    mixed = 0.05 * rng.standard_normal((len(t), n_channels))
    for _ in range(4):
        notes = rng.uniform(80, 4000, size=int(2 * seconds) + 1)[(2 * t).astype(int)]
        mixed += (0.15 * np.sin(2 * np.pi * np.cumsum(notes) / RATE))[:, None] * rng.uniform(0.5, 1, n_channels)
    return np.clip(mixed, -1, 1).astype(np.float32)


def clips(folder: Path, n: int, bar: Bar, seconds: float = CLIP_S) -> list[Path]:
    """Write mono mp3 files of 30 s."""
    paths = [folder / f"clip-{seed:04}.mp3" for seed in range(n)]
    for seed, path in enumerate(paths):
        soundfile.write(path, sound(seconds, seed, 1), RATE, format="MP3")
        bar.advance()
    return paths


def recording(path: Path, seconds: float, seed: int = 0) -> Path:
    """Write a stereo recording in the format of the path's suffix."""
    samples = sound(seconds, seed, 2)
    if path.suffix != ".m4a":
        soundfile.write(path, samples, RATE, format=path.suffix[1:].upper())
        return path
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=RATE, bit_rate=192_000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = RATE, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def damaged(folder: Path, whole: Sequence[Path], n: int) -> list[Path]:
    """Write files of which nothing can be used: noise, text under a right beginning, a cut header, nothing."""
    rng = np.random.default_rng(n)
    kinds = (
        lambda content: rng.bytes(len(content)),
        lambda content: content[:64] + b"no sound in here " * 10_000,
        lambda content: content[:100],
        lambda content: b"",
    )
    paths = [folder / f"damaged-{number:04}.mp3" for number in range(n)]
    for number, path in enumerate(paths):
        path.write_bytes(kinds[number % len(kinds)](whole[number % len(whole)].read_bytes()))
    return paths
