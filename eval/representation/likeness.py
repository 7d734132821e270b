"""Vectors in, figures of likeness out: are near tracks of one genre or artist, is a track found by its own sound?

Likeness is the cosine, computed exactly. A figure is a value a track, NaN where it says nothing.
"""

import numpy as np
from numpy.typing import NDArray

from recsys.types import Float32, Int32

Float64 = NDArray[np.float64]


def same_genre(vectors: Float32, queries: Int32, candidates: Int32, genres: Int32, groups: Int32, k: int) -> Float64:
    """Share of the k nearest candidates that have the query's genre, among tracks of other artists.

    Args:
        vectors: (n, d) unit rows. queries: (q,) rows of it. candidates: (c,) rows of it; those without a genre are left
        out. genres, groups: (n,), genre -1 for none.

    Returns:
        (q,): of fewer than k candidates the share of those; NaN where the query has no genre or there is none.
    """
    candidates = candidates[genres[candidates] >= 0]
    likeness = vectors[queries] @ vectors[candidates].T
    others = groups[queries][:, None] != groups[candidates][None]
    likeness[~others] = -np.inf
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
    counted = np.take_along_axis(others, nearest, axis=1)
    same = (genres[candidates][nearest] == genres[queries][:, None]) & counted
    return _share(same.sum(axis=1), counted.sum(axis=1), genres[queries] >= 0)


def same_artist(
    vectors: Float32, queries: Int32, candidates: Int32, groups: Int32, has_artist: NDArray[np.bool_]
) -> Float64:
    """Tell whether the nearest other candidate is of the query's artist.

    Returns:
        (q,): 1 or 0; NaN where the query has no artist or no other candidate is of the same one.
    """
    likeness = vectors[queries] @ vectors[candidates].T
    itself = queries[:, None] == candidates[None]
    same = (groups[queries][:, None] == groups[candidates][None]) & ~itself
    likeness[itself] = -np.inf
    hits = same[np.arange(len(queries)), likeness.argmax(axis=1)]
    judged: Float64 = np.where(has_artist[queries] & same.any(axis=1), hits, np.nan)
    return judged


def found_again(distorted: Float32, rows: Int32, clean: Float32) -> Float64:
    """Tell whether the clean vector nearest to a distorted one is the track's own: recall@1.

    Args:
        distorted: (q, d) unit rows. rows: (q,), the track of each. clean: (n, d) of all tracks.
    """
    found: Float64 = ((distorted @ clean.T).argmax(axis=1) == rows).astype(np.float64)
    return found


def _share(found: NDArray[np.int64], of: NDArray[np.int64], counts: NDArray[np.bool_]) -> Float64:
    share: Float64 = np.divide(found, of, out=np.full(len(of), np.nan), where=(of > 0) & counts)
    return share
