"""Content as the prior of item factors: what a track is like says who would play it, until plays say it better.

    content vectors, sparse features, ALS item factors  ->  fit_prediction  ->  f(content)
    Plays, user factors, f(content)  ->  prior_item_step  ->  item factors of every track, cold ones too

    v_i = argmin  w_i * (ALS cost of item i)  +  lambda * |v_i - f(content_i)|^2,     w_i = n_i / (n_i + tau)

n_i is the number of listeners. Nobody has passed over a track that nobody was shown, so its unplayed pairs count in
proportion to its exposure w_i; without w_i they pull a new track's vector to almost nothing. n_i = 0 gives f exactly;
as n_i grows or lambda -> 0 it tends to plain ALS. The idea of a content mean for item factors: Agarwal & Chen,
KDD 2009 (regression-based latent factors); Wang & Blei, KDD 2011 (collaborative topic regression).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_matrix, hstack

from recsys.cf.als import ALSSettings, confidence, confidence_scale, solve_rows, without_empty_rows
from recsys.settings import Settings
from recsys.types import Float32, Int32, Plays


class PriorSettings(Settings):
    """``[prior]`` in the run's TOML file."""

    strength: float = Field(default=0.03, ge=0)  # lambda, in units of trace(U'U) / n_factors, U the user factors
    exposure: float = Field(default=1.0, gt=0)  # tau: listeners at which unplayed pairs count half
    # items of more listeners keep their ALS factors where these are given; None: the prior takes part in all
    at_most_listeners: int | None = Field(default=None, ge=1)
    # tried on a tenth of the tracks
    ridge_l2: tuple[PositiveFloat, ...] = Field(default=(1.0, 10.0, 100.0, 1000.0), min_length=1)
    artist_shrinkage: float = Field(default=1.0, gt=0)  # an artist's offset counts as if seen on so many tracks fewer


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What the prediction looks at: ``dense`` (n, d), ``sparse`` csr (n, F), ``artist`` (n,) class or -1."""

    dense: Float32
    sparse: csr_matrix
    artist: NDArray[np.int64]

    def take(self, rows: NDArray[np.integer[Any]]) -> "Features":
        """Keep some rows, in the order asked for."""
        return Features(self.dense[rows], self.sparse[rows], self.artist[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """f(content): ridge on dense and sparse features, plus a shrunken offset of each artist.

    ``weights`` (d + F + 1, f), the last row being the mean; ``artist_sums`` (A, f) weighted residuals of an artist's
    tracks, ``artist_weights`` (A,) their weights.
    """

    weights: Float32
    artist_sums: Float32
    artist_weights: Float32
    shrinkage: float

    def __call__(self, features: Features) -> Float32:
        """Predict item factors (n, f) of tracks that took no part in the fit."""
        return self._linear(features) + self._offset(features.artist, self.artist_sums, self.artist_weights)

    def leave_one_out(self, features: Features, item_factors: Float32, weight: Float32) -> Float32:
        """Predict for the tracks of the fit, each artist's offset taken from the artist's other tracks."""
        linear = self._linear(features)
        known = np.maximum(features.artist, 0)
        if not len(self.artist_weights):
            return linear
        own = weight[:, None] * (item_factors - linear)
        sums = self.artist_sums[known] - own
        weights = np.maximum(self.artist_weights[known] - weight, 0)
        offset = sums / (weights + self.shrinkage)[:, None]
        return linear + np.where((features.artist >= 0)[:, None], offset, 0).astype(np.float32)

    def _linear(self, features: Features) -> Float32:
        d = features.dense.shape[1]
        linear = features.dense @ self.weights[:d] + features.sparse @ self.weights[d:-1] + self.weights[-1]
        return np.asarray(linear, dtype=np.float32)

    def _offset(self, artist: NDArray[np.int64], sums: Float32, weights: Float32) -> Float32:
        if not len(weights):
            return np.zeros((len(artist), self.weights.shape[1]), dtype=np.float32)
        known = np.maximum(artist, 0)
        offset = sums[known] / (weights[known] + self.shrinkage)[:, None]
        return np.where((artist >= 0)[:, None], offset, 0).astype(np.float32)


def exposure_weight(n_listeners: Int32, exposure: float) -> Float32:
    """w = n / (n + tau), how far a track's unplayed pairs may be taken for a verdict; 0 for a cold track."""
    return (n_listeners / (n_listeners + exposure)).astype(np.float32)


def fit_prediction(
    features: Features, item_factors: Float32, n_listeners: Int32, n_artists: int, settings: PriorSettings, seed: int
) -> Prediction:
    """Learn f from the tracks that have plays, weighted by exposure; the ridge's l2 by validation on a tenth of them.

    Normal equations in d + F + 1 columns: time grows with the tracks, memory does not.
    """
    rows = np.flatnonzero(n_listeners)
    weight = exposure_weight(n_listeners, settings.exposure)
    validation = np.random.default_rng(seed).permutation(rows)[: len(rows) // 10]
    training = np.setdiff1d(rows, validation)
    best = settings.ridge_l2[-1]
    if len(validation):
        tried = [
            (_fit(features, item_factors, weight, training, n_artists, l2, settings), l2) for l2 in settings.ridge_l2
        ]
        held_out = features.take(validation)
        errors = [
            float(weight[validation] @ ((f(held_out) - item_factors[validation]) ** 2).sum(axis=1)) for f, _ in tried
        ]
        best = tried[int(np.argmin(errors))][1]
    return _fit(features, item_factors, weight, rows, n_artists, best, settings)


def _fit(
    features: Features,
    item_factors: Float32,
    weight: Float32,
    rows: NDArray[np.int64],
    n_artists: int,
    l2: float,
    settings: PriorSettings,
) -> Prediction:
    subset, w, v = features.take(rows), weight[rows], item_factors[rows]
    ones = np.ones((len(rows), 1), dtype=np.float32)
    columns = csr_matrix(hstack([csr_matrix(subset.dense), subset.sparse, csr_matrix(ones)], format="csr"))
    weighted = csr_matrix(columns.multiply(w[:, None]))
    normal = (weighted.T @ columns).toarray().astype(np.float64)
    normal[np.diag_indices(len(normal) - 1)] += l2  # the mean, last, is not shrunk
    normal[-1, -1] += 1e-6
    weights = cho_solve(cho_factor(normal), weighted.T @ v.astype(np.float64)).astype(np.float32)
    linear = Prediction(
        weights, np.zeros((0, v.shape[1]), np.float32), np.zeros(0, np.float32), settings.artist_shrinkage
    )
    residuals = v - linear(subset)
    artists = subset.artist
    known = artists >= 0
    sums = np.zeros((n_artists, v.shape[1]), dtype=np.float32)
    np.add.at(sums, artists[known], w[known, None] * residuals[known])
    totals = np.bincount(artists[known], weights=w[known], minlength=n_artists).astype(np.float32)
    return Prediction(weights, sums, totals, settings.artist_shrinkage)


def prior_item_step(
    plays: Plays,
    user_factors: Float32,
    prior: Float32,
    als: ALSSettings,
    settings: PriorSettings,
    item_factors: Float32 | None = None,
) -> Float32:
    """Solve every item's factors (n_items, f) around its ``prior`` (n_items, f), exactly.

    With ``item_factors`` (n_items, f), those of ALS, items of more than ``settings.at_most_listeners`` keep them.

    Dividing the cost by w_i leaves plain ALS, drawn to f_i with lambda / w_i and to zero with l2.
    """
    gram = user_factors.T @ user_factors
    strength = settings.strength * float(np.trace(gram)) / len(gram)
    scale = confidence_scale(plays.counts, als)
    by_item = csr_matrix(plays.counts.T.tocsr())
    n_listeners = np.diff(by_item.indptr)
    solved = n_listeners > 0
    kept = np.zeros_like(solved)
    if item_factors is not None and settings.at_most_listeners is not None:
        kept = n_listeners > settings.at_most_listeners
    items = np.flatnonzero(solved & ~kept)
    by_item = csr_matrix(by_item[items]) if kept.any() else without_empty_rows(by_item, items)
    c = confidence(by_item, scale, out=by_item.data)  # in the copy's own memory
    pull = strength / exposure_weight(n_listeners[items], settings.exposure)
    centre = prior[items].astype(np.float32, copy=False)
    centre *= (pull / (pull + als.l2))[:, None]
    found = solve_rows(c, user_factors, gram, als.l2 + pull, centre)
    del centre, by_item, c  # before the last copy: plays and factors are the largest things in memory
    factors = prior.astype(np.float32)
    factors[items] = found
    if item_factors is not None:
        factors[kept] = item_factors[kept]
    return factors


def exposed_gram(item_factors: Float32, n_listeners: Int32, settings: PriorSettings) -> Float32:
    """Sum of w_i v_i v_i': the unplayed pairs in a user's own cost, counted by exposure as in the item step."""
    weight = exposure_weight(n_listeners, settings.exposure)
    return np.asarray((item_factors * weight[:, None]).T @ item_factors, dtype=np.float32)
