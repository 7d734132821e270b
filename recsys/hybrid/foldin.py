"""A user vector from a few tracks, without training: what an ALS user step would give, part by part.

    played items and plays, Blend, item vectors  ->  fold_in  ->  user vector (d,)

Plain numpy, so that the serving side needs no training library. For a user of the training data the ALS part comes
out as trained, since training ends with this very step.
"""

import numpy as np

from recsys.hybrid.blend import Blend, Layout, calibrated
from recsys.types import Float32, Int32


def fold_in(items: Int32, plays: Float32, item_vectors: Float32, blend: Blend) -> Float32:
    """The joint user vector (d,) of somebody who played ``items`` (n,) so many times (n,), n > 0.

    ``item_vectors`` (n_items, d) are the blend's. The vector is calibrated and not yet weighted, as those of ``join``.
    """
    played = blend.as_played(item_vectors[items])  # a new track is none any more: this user has played it
    vector = np.zeros(blend.dim, dtype=np.float32)
    for part, covariance, gram in zip(blend.parts, blend.covariances, blend.grams, strict=True):
        vectors = played[:, part.start : part.stop]
        if part.fold in ("constant", "level"):
            raw = np.ones(part.stop - part.start, dtype=np.float32)
        elif part.fold == "mean":
            weight = np.log1p(plays)
            raw = np.asarray(weight @ vectors / weight.sum(), dtype=np.float32)
        else:
            raw = _solve(vectors, plays, part, gram)
        vector[part.start : part.stop] = raw if part.fold == "level" else calibrated(raw[None], covariance)[0]
    return vector


def _solve(vectors: Float32, plays: Float32, part: Layout, gram: Float32 | None) -> Float32:
    """Ridge on the played items, unplayed ones counting through the gram: the user step of ALS."""
    c = 1 + part.confidence_scale * np.log1p(plays)
    free = vectors[:, :-1] if part.bias else vectors
    unplayed = np.zeros((free.shape[1], free.shape[1])) if gram is None else gram
    left = unplayed + (free * (c - 1)[:, None]).T @ free + part.l2 * np.eye(free.shape[1])
    solved = np.linalg.solve(left.astype(np.float64), (c @ free).astype(np.float64)).astype(np.float32)
    if not part.bias:
        return solved
    # against an item bias the length of the vector matters: it gets that of the trained users
    length = float(np.linalg.norm(solved))
    return np.append(solved * np.float32(part.norm / max(length, 1e-12)), np.float32(1))
