"""Noisy clips of planted genres."""

import numpy as np

from recsys.types import Clip


def tones(n: int, seconds: float = 1.1) -> tuple[list[int], list[int], list[Clip]]:
    """Noisy clips of three planted genres, a band each that moves from clip to clip, by nine artists."""
    rng = np.random.default_rng(0)
    genres, artists, clips = [], [], []
    t = np.arange(round(seconds * 16_000)) / 16_000
    for i in range(n):
        artist = i % 9
        genre = artist % 3
        hz = 500 * 3**genre * rng.uniform(0.95, 1.05)
        samples = 0.2 * np.sin(2 * np.pi * hz * t) + 0.02 * rng.standard_normal(len(t))
        genres.append(genre)
        artists.append(artist)
        clips.append(Clip(samples.astype(np.float32), 16_000, seconds))
    return genres, artists, clips
