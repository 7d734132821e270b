"""Vectors in, a picture out: the catalogue on a plane, near where it sounds alike, coloured by genre.

    vectors (n, d)  ->  on_a_plane (t-SNE; PCA of few tracks)  ->  draw_map  ->  a figure

t-SNE keeps who is near whom, not how far apart groups lie (van der Maaten and Hinton 2008), so the axes have no unit.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from recsys.types import Float32
from recsys.util.figures import printable

_MOST_GENRES = 9  # with a colour of their own; more cannot be told apart
_LEAST_TRACKS = 20  # for t-SNE
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#44bb99", "#333333")
_REST, _UNKNOWN = "#999999", "#dddddd"


def on_a_plane(vectors: Float32, seed: int) -> Float32:
    """Place vectors (n, d) on a plane, (n, 2)."""
    n, d = vectors.shape
    if n < _LEAST_TRACKS:
        placed: Float32 = np.zeros((n, 2), np.float32)
        n_axes = min(2, n, d)
        if n > 1:
            placed[:, :n_axes] = PCA(n_axes, random_state=seed).fit_transform(vectors)
        return placed
    perplexity = min(30.0, (n - 1) / 4)
    tsne = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=seed)
    made: Float32 = tsne.fit_transform(vectors).astype(np.float32)
    return made


def draw_map(places: Float32, genres: Sequence[str | None], title: str) -> Figure:
    """Draw tracks as dots.

    Args:
        places: (n, 2). genres: (n,), None for unknown; beyond the nine most frequent they share a colour.
    """
    known = [genre for genre in genres if genre]
    frequent = sorted(set(known), key=lambda genre: (-known.count(genre), genre))
    named, rest = frequent[:_MOST_GENRES], set(frequent[_MOST_GENRES:])
    kinds = [(_of(genres, name), printable(name, 30), colour) for name, colour in zip(named, _COLOURS, strict=False)]
    kinds += [(_of(genres, *rest), f"{len(rest)} other genres", _REST), (_of(genres, None), "no genre", _UNKNOWN)]
    figure = Figure(figsize=(9.5, 7), layout="constrained")
    axes = figure.add_subplot()
    size = float(np.clip(9_000 / max(len(places), 1), 6, 60))
    for n, (rows, label, colour) in enumerate(kinds):
        if len(rows):
            x, y = places[rows].T
            below = 2.0 - n / len(kinds)  # large genres are drawn over small ones, named ones over the rest
            name = f"{label} ({len(rows):,})"
            axes.scatter(x, y, s=size, c=colour, label=name, linewidths=0.4, edgecolors="white", zorder=below)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("near is alike; how far apart groups lie says little")
    axes.set_aspect("equal", adjustable="datalim")
    figure.legend(loc="outside right upper", frameon=False, markerscale=1.5)
    return figure


def _of(genres: Sequence[str | None], *wanted: str | None) -> np.ndarray:
    """Rows of the tracks of these genres; None stands for no genre."""
    return np.array([row for row, genre in enumerate(genres) if (genre or None) in wanted], np.int64)
