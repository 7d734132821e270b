"""LightFM on sparse features: plays and what is known of tracks in, one embedding a user and an item out.

    Plays, features csr (n_items, F)  ->  fit_lightfm  ->  Factors (n_users, f + 1), (n_items, f + 1)

A track is the sum of the embeddings of its features (its identity among them, if it has plays), learned with the
WARP loss (Kula, CBRecSys 2015; Weston et al., IJCAI 2011). The item bias is the last factor, against a constant 1
of every user. A cold track has its features alone.
"""

import numpy as np
from pydantic import Field
from scipy.sparse import csr_matrix, diags, hstack

from recsys.errors import DataError
from recsys.types import Factors, Float32, Int32, Plays
from recsys.util.progress import Progress
from recsys.util.settings import Settings


class LightFMSettings(Settings):
    """``[hybrid.lightfm]`` in the run's TOML file."""

    enabled: bool = True
    n_factors: int = Field(default=64, ge=1)
    epochs: int = Field(default=30, ge=1)
    learning_rate: float = Field(default=0.03, gt=0)
    l2: float = Field(default=5e-5, ge=0)  # of the embeddings of users and features
    max_pairs: int = Field(default=2_000_000, ge=0)  # above it LightFM leaves the blend: it takes longer than the rest
    # the content vector enters as its nearest centroids: dense columns cost 100 times more
    n_centroids: int = Field(default=64, ge=1)
    nearest_centroids: int = Field(default=3, ge=1)


def content_columns(content: Float32, n_centroids: int, nearest: int, seed: int) -> tuple[csr_matrix, Float32]:
    """Describe content vectors (n, d) by their nearest centroids.

    Returns (n, n_centroids) csr with 1 / nearest in the nearest columns (an all-zero row stays empty), and the
    centroids (n_centroids, d). k-means by faiss, on at most 256 vectors a centroid.
    """
    import faiss

    known = np.flatnonzero(np.abs(content).sum(axis=1))
    if not len(known):
        return csr_matrix((len(content), 0), dtype=np.float32), np.zeros((0, content.shape[1]), dtype=np.float32)
    n_centroids = max(1, min(n_centroids, len(known) // 40))  # faiss wants 39 points or more a centroid
    # a catalogue of fewer tracks has one centroid; faiss would complain of it on the terminal
    means = faiss.Kmeans(content.shape[1], n_centroids, niter=20, seed=seed, min_points_per_centroid=1)
    means.train(np.ascontiguousarray(content[known]))
    centroids = np.asarray(means.centroids, dtype=np.float32)
    return nearest_columns(content, centroids, nearest), centroids


def nearest_columns(content: Float32, centroids: Float32, nearest: int) -> csr_matrix:
    """(n, n_centroids) csr with 1 / nearest at the nearest centroids; an all-zero vector has none."""
    nearest = min(nearest, len(centroids))
    if nearest == 0:
        return csr_matrix((len(content), 0), dtype=np.float32)
    known = np.flatnonzero(np.abs(content).sum(axis=1))
    distances = (centroids**2).sum(axis=1) - 2 * content[known] @ centroids.T
    columns = np.argpartition(distances, nearest - 1, axis=1)[:, :nearest]
    return csr_matrix(
        (
            np.full(columns.size, 1 / nearest, dtype=np.float32),
            (np.repeat(known, nearest), columns.ravel()),
        ),
        shape=(len(content), len(centroids)),
    )


def fit_lightfm(
    plays: Plays, features: csr_matrix, settings: LightFMSettings, seed: int, progress: Progress
) -> tuple[Factors, Float32]:
    """Fit user and item embeddings; one thread, so that the same inputs give the same bits.

    Args:
        plays: training plays; a pair weighs 1 however often it was played.
        features: (n_items, F) csr >= 0, without identity columns; they are added here for items with plays.
        settings: hyper-parameters.
        seed: of the initial embeddings and of the sampling.
        progress: shows an epoch a step.

    Returns:
        Factors with the bias as last column, and the embeddings of the F features alone (F, f + 1), of which a new
        track's vector is the sum (its features brought to unit length, as in training).

    Raises:
        DataError: learning diverged.
    """
    from lightfm import LightFM

    n_items = len(plays.track_ids)
    warm: Int32 = np.flatnonzero(plays.n_listeners).astype(np.int32)
    identity = csr_matrix(
        (np.ones(len(warm), dtype=np.float32), (warm, np.arange(len(warm)))), shape=(n_items, len(warm))
    )
    columns = with_unit_rows(csr_matrix(hstack([features, identity], format="csr", dtype=np.float32)))
    pairs = plays.counts.tocoo(copy=True)
    pairs.data = np.ones_like(pairs.data)
    model = LightFM(
        no_components=settings.n_factors,
        loss="warp",
        learning_rate=settings.learning_rate,
        item_alpha=settings.l2,
        user_alpha=settings.l2,
        random_state=seed,
    )
    with progress.bar("LightFM", settings.epochs, "epochs") as bar:
        for _ in range(settings.epochs):
            try:
                with np.errstate(all="ignore"):  # it checks its parameters at the end
                    model.fit_partial(pairs, item_features=columns, epochs=1, num_threads=1)
            except ValueError as error:  # it found parameters that are not finite
                raise DataError(
                    f"LightFM diverged ({error}); hybrid.lightfm.learning_rate is {settings.learning_rate}, "
                    "give a lower one"
                ) from error
            bar.advance()
    embeddings = np.hstack([model.item_embeddings, model.item_biases[:, None]]).astype(np.float32)
    users = np.hstack([model.user_embeddings, np.ones((len(plays.user_ids), 1))]).astype(np.float32)
    users[np.diff(plays.counts.indptr) == 0] = 0
    return Factors(users, np.asarray(columns @ embeddings, dtype=np.float32)), embeddings[: features.shape[1]]


def with_unit_rows(features: csr_matrix) -> csr_matrix:
    """Bring rows to unit length; empty rows stay empty.

    Adding up to 1 instead, as LightFM does by itself, makes a track of many features nearly nobody
    (docs/research/findings.md).
    """
    lengths = np.sqrt(np.asarray(features.multiply(features).sum(axis=1)).ravel())
    return csr_matrix(diags((1 / np.maximum(lengths, 1e-12)).astype(np.float32)) @ features)
