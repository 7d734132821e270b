"""From what a track is like to item factors: for tracks that nobody has played, and for the others without their own.

    Features, item factors of several models, listeners  ->  fit_map  ->  FactorMap, predictions of every track

Kernel ridge regression on landmarks, plus a shrunken offset of each artist. A played track's prediction leaves its own
factors out, by the closed form of leave-one-out, so that it looks like that of a new track. Mapping attributes to the
factors of a model: Gantner et al., ICDM 2010.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat
from scipy.linalg import cholesky, eigh, solve_triangular

from recsys.hybrid.kernel import BLOCK, Features, Kernel
from recsys.types import Float32
from recsys.util.settings import Settings

_JITTER = 1e-5  # of the kernel's mean diagonal: float32 likenesses of alike landmarks are no exact ones
_LEAST_FREEDOM = 1e-3  # of a track in its own prediction


class MapSettings(Settings):
    """``[hybrid.map]`` in the run's TOML file."""

    n_landmarks: int = Field(default=3000, ge=1)  # a catalogue of fewer kinds of tracks is mapped exactly
    max_tracks: int = Field(default=200_000, ge=1)  # more are sampled, the much heard ones rather, and only to fit on
    ridge_l2: tuple[PositiveFloat, ...] = Field(default=(0.5, 1.0, 2.0, 5.0, 20.0), min_length=1)  # by leave-one-out
    artist_shrinkage: float = Field(default=1.0, gt=0)  # an artist's offset counts as if seen on so many tracks fewer


@dataclass(frozen=True, slots=True, eq=False)
class FactorMap:
    """f(content), for the factors of several models at once, side by side in the columns.

    ``widths``: columns by part name, in order, f in all. ``coefficients`` (m, f) of the landmarks; ``mean`` (f,);
    ``artist_sums`` (A, f) weighted residuals of an artist's tracks, each left out of its own prediction, and
    ``artist_weights`` (A,) their weights.
    """

    kernel: Kernel
    widths: dict[str, int]
    coefficients: Float32
    mean: Float32
    artist_sums: Float32
    artist_weights: Float32
    shrinkage: float

    def __call__(self, features: Features) -> dict[str, Float32]:
        """Predict item factors (n, width), by part name, of tracks that took no part in the fit."""
        found = np.empty((len(features), len(self.mean)), dtype=np.float32)
        for rows, block in features.blocks():
            found[rows] = self.kernel(block) @ self.coefficients + self.mean
            found[rows] += self._offset(block.artist)
        return self.parted(found)

    def parted(self, joint: Float32) -> dict[str, Float32]:
        """Cut columns (n, f) by part."""
        stops = np.cumsum(list(self.widths.values()))
        return {name: joint[:, stop - self.widths[name] : stop] for name, stop in zip(self.widths, stops, strict=True)}

    def _offset(self, artist: NDArray[np.int64]) -> Float32:
        if not len(self.artist_weights):
            return np.zeros((len(artist), len(self.mean)), dtype=np.float32)
        known = np.maximum(artist, 0)
        offset = self.artist_sums[known] / (self.artist_weights[known] + self.shrinkage)[:, None]
        return np.where((artist >= 0)[:, None], offset, 0).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Ridge:
    """The ridge in the coordinates where its normal matrix is diagonal: ``turn`` (m, m') brings likenesses there."""

    kernel: Kernel
    turn: Float32
    eigenvalues: NDArray[np.float64]
    right: NDArray[np.float64]
    mean: NDArray[np.float64]

    def weights(self, l2: float) -> Float32:
        return np.asarray(self.right / (self.eigenvalues + l2)[:, None], dtype=np.float32)


def fit_map(
    features: Features,
    factors: dict[str, Float32],
    weight: Float32,
    n_artists: int,
    settings: MapSettings,
    seed: int,
) -> tuple[FactorMap, dict[str, Float32]]:
    """Learn f from the tracks of weight > 0; the ridge's l2 is that of the least error in leaving one out.

    Args:
        features: of all tracks.
        factors: item factors (n, width) of each model, by part name.
        weight: (n,) >= 0, how far a track's factors can be believed; 0 where nobody has played it. One is > 0.
        n_artists: classes of artists.
        settings: of the map.
        seed: decides which tracks are landmarks.

    Returns:
        The map, and its predictions of every track by part name: of a played one, had it not been there.
    """
    y = np.hstack(list(factors.values()))
    played = np.flatnonzero(weight)
    ridge, fitted = _ridge(features, y, weight, played, settings, seed)
    l2 = _best_l2(ridge, features, y, weight, fitted, settings)
    weights = ridge.weights(l2)
    predicted = _left_out(ridge, features, y, weight, fitted, weights, l2)
    residuals = y[played] - predicted[played]
    artist, w = features.artist[played], weight[played]
    known = artist >= 0
    sums = np.zeros((n_artists, y.shape[1]), dtype=np.float32)
    np.add.at(sums, artist[known], w[known, None] * residuals[known])
    totals = np.bincount(artist[known], weights=w[known], minlength=n_artists).astype(np.float32)
    widths = {name: vectors.shape[1] for name, vectors in factors.items()}
    found = FactorMap(
        ridge.kernel,
        widths,
        np.asarray(ridge.turn @ weights, dtype=np.float32),
        ridge.mean.astype(np.float32),
        sums,
        totals,
        settings.artist_shrinkage,
    )
    _add_offsets(predicted, found, features.artist, residuals, played, w)
    return found, found.parted(predicted)


def _add_offsets(
    predicted: Float32,
    found: FactorMap,
    artist: NDArray[np.int64],
    residuals: Float32,
    played: NDArray[np.int64],
    weight: Float32,
) -> None:
    """Add to each prediction (n, f), in place, the offset of its artist's other tracks."""
    if not len(found.artist_weights):
        return
    own = np.full(len(artist), -1)
    own[played] = np.arange(len(played))
    for start in range(0, len(artist), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(artist)))
        rows = rows[artist[rows] >= 0]
        sums, totals = found.artist_sums[artist[rows]], found.artist_weights[artist[rows]]
        theirs = own[rows]
        taught = theirs >= 0
        sums[taught] -= weight[theirs[taught], None] * residuals[theirs[taught]]
        totals[taught] -= weight[theirs[taught]]
        predicted[rows] += sums / (np.maximum(totals, 0) + found.shrinkage)[:, None]


def _ridge(
    features: Features, y: Float32, weight: Float32, played: NDArray[np.int64], settings: MapSettings, seed: int
) -> tuple[_Ridge, NDArray[np.int64]]:
    """Choose tracks to fit on and landmarks among them, and bring the normal equations into their own axes."""
    rng = np.random.default_rng(seed)
    fitted = _drawn(played, settings.max_tracks, weight, rng)
    subset, w = features.take(fitted), weight[fitted].astype(np.float64)
    landmarks = _drawn(subset.distinct(), settings.n_landmarks, weight[fitted], rng)
    kernel = Kernel.of(subset, landmarks)
    among = np.concatenate([kernel(block) for _, block in kernel.landmarks.blocks()]).astype(np.float64)
    among[np.diag_indices(len(among))] += _JITTER * np.trace(among) / len(among)
    root = cholesky((among + among.T) / 2, lower=True)
    mean = w @ y[fitted] / w.sum()
    normal, right = np.zeros_like(among), np.zeros((len(among), y.shape[1]))
    for rows, block in subset.blocks():
        likeness = kernel(block)
        weighted = likeness * w[rows, None].astype(np.float32)
        normal += weighted.T @ likeness
        right += weighted.T @ (y[fitted[rows]] - mean).astype(np.float32)
    normal = solve_triangular(root, solve_triangular(root, normal, lower=True).T, lower=True)
    eigenvalues, axes = eigh((normal + normal.T) / 2, check_finite=False)
    turn = solve_triangular(root.T, axes, lower=False)
    right = turn.T @ right
    return _Ridge(kernel, turn.astype(np.float32), np.maximum(eigenvalues, 0), right, mean), fitted


def _drawn(rows: NDArray[np.int64], at_most: int, weight: Float32, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw no more rows than that, in rising order, each with a chance in proportion to its weight."""
    if len(rows) <= at_most:
        return rows
    chance = weight[rows].astype(np.float64)
    return np.sort(rng.choice(rows, at_most, replace=False, p=chance / chance.sum()))


def _best_l2(
    ridge: _Ridge, features: Features, y: Float32, weight: Float32, fitted: NDArray[np.int64], settings: MapSettings
) -> float:
    """Find the l2 whose leave-one-out error is least, every model's factors counting by their own variance."""
    if len(settings.ridge_l2) == 1:
        return settings.ridge_l2[0]
    variance = np.maximum((weight[fitted] @ (y[fitted] - ridge.mean) ** 2) / weight[fitted].sum(), 1e-12)
    errors = np.zeros(len(settings.ridge_l2))
    for rows, block in features.take(fitted).blocks():
        turned, w, theirs = ridge.kernel(block) @ ridge.turn, weight[fitted[rows]], y[fitted[rows]]
        for place, l2 in enumerate(settings.ridge_l2):
            residuals = theirs - (turned @ ridge.weights(l2) + ridge.mean)
            residuals /= _freedom(ridge, turned, w, l2)[:, None]
            errors[place] += float(w @ (residuals**2 / variance).sum(axis=1))
    return settings.ridge_l2[int(np.argmin(errors))]


def _left_out(
    ridge: _Ridge,
    features: Features,
    y: Float32,
    weight: Float32,
    fitted: NDArray[np.int64],
    weights: Float32,
    l2: float,
) -> Float32:
    """Predict every track (n, f); those that were fitted on as if they had not been there."""
    took_part = np.zeros(len(features), dtype=bool)
    took_part[fitted] = True
    predicted = np.empty((len(features), y.shape[1]), dtype=np.float32)
    for rows, block in features.blocks():
        turned = ridge.kernel(block) @ ridge.turn
        plain = turned @ weights + ridge.mean
        freedom = _freedom(ridge, turned, weight[rows], l2)[:, None]
        alone = y[rows] - (y[rows] - plain) / freedom
        predicted[rows] = np.where(took_part[rows, None], alone, plain)
    return predicted


def _freedom(ridge: _Ridge, turned: Float32, weight: Float32, l2: float) -> NDArray[np.float64]:
    """1 - h_i: how little a track's own factors say of its prediction, (n,)."""
    own = (turned**2) @ (1 / (ridge.eigenvalues + l2))
    return np.asarray(np.maximum(1 - weight * own, _LEAST_FREEDOM), dtype=np.float64)
