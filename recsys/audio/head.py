"""What matters of the published networks' features: a head fitted in closed form, in seconds.

    features (n, 1 + n_copies, n_features), Targets  ->  fit_head  ->  Head
    features (n, n_features)  ->  Head  ->  unit vectors (n, dim)

Two parts stand beside each other in a vector. The first is the features whitened by how they differ within an artist,
augmented copies among them: what noise, level or the next song of an album change counts little, what tells artists
apart counts much (within-class covariance normalisation: Hatch and Stolcke, ICASSP 2006; here it tells a track's own
sound apart too). The second are linear discriminants of the genres (Fisher). Nothing is learned by gradient: on a few
hundred clips that came out worse (``docs/findings-audio.md``).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from recsys.audio.frozen import Frozen
from recsys.audio.musicnn import MusicNN
from recsys.audio.settings import HeadSettings
from recsys.content.tasks import Targets
from recsys.types import Float32

_CLIP = 3.0  # deviations beyond which a standardised feature says no more
_SMALL_DEVIATION = 1e-6

Float64 = NDArray[np.float64]


class Head(nn.Module):
    """Standardise -> principal components -> whitened part | discriminants, each of unit length times a weight."""

    mean: Tensor
    scale: Tensor
    components: Tensor
    whitening: Tensor
    discriminants: Tensor
    weight: Tensor

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(tuple(shape)))

    def forward(self, features: Tensor) -> Tensor:
        """Turn features (n, n_features) into unit vectors (n, dim)."""
        x = ((features - self.mean) * self.scale).clamp(-1, 1) @ self.components
        parts = [normalize(x @ self.whitening, dim=1), self.weight * normalize(x @ self.discriminants, dim=1)]
        return normalize(torch.cat(parts, dim=1), dim=1)


class Headed(nn.Module):
    """Published networks and the head on top of them."""

    def __init__(self, frozen: Frozen, head: Head) -> None:
        super().__init__()
        self.frozen, self.head = frozen, head

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.head.whitening.shape[1] + self.head.discriminants.shape[1]

    def forward(self, clips: Tensor) -> Tensor:
        """Embed clips (n, n_patches, 96, n_frames) as unit vectors (n, dim)."""
        vectors: Tensor = self.head(self.frozen(clips))
        return vectors

    def vectors(self, features: Float32) -> Float32:
        """Turn features (n, n_features) into unit vectors (n, dim)."""
        with torch.inference_mode():
            vectors: Float32 = self.head.cpu()(torch.from_numpy(features)).numpy()
        return vectors


def empty_headed(weights: Mapping[str, Tensor]) -> Headed:
    """Make networks and a head of the sizes that saved weights have."""
    n_networks = len({name.split(".")[2] for name in weights if name.startswith("frozen.networks.")})
    shapes = {name.removeprefix("head."): tuple(t.shape) for name, t in weights.items() if name.startswith("head.")}
    return Headed(Frozen([MusicNN() for _ in range(n_networks)]), Head(shapes))


def fit_head(features: Float32, block_sizes: Sequence[int], targets: Targets, settings: HeadSettings) -> Head:
    """Fit a head.

    Args:
        features: (n, 1 + n_copies, n_features) of n clips, each followed by its augmented copies.
        block_sizes: of the blocks that the features consist of; each block counts alike.
        targets: a row a clip; genres and artists are looked at.
        settings: of the head.
    """
    n, n_versions, _ = features.shape
    clean = features[:, 0].astype(np.float64)
    mean, deviation = clean.mean(axis=0), clean.std(axis=0)
    evenly = 1 / np.sqrt(np.repeat(block_sizes, block_sizes))
    scale = 1 / (_CLIP * np.maximum(deviation, _SMALL_DEVIATION))

    standardised = np.clip((features - mean) * scale, -1, 1) * evenly
    flat = standardised.reshape(n * n_versions, -1)
    components = _principal(flat, min(settings.n_components, len(flat), flat.shape[1]))
    x = (flat @ components).reshape(n, n_versions, -1)

    artists = np.where(targets.artists >= 0, targets.artists, targets.n_artists + np.arange(n))
    whitening = _whitening(x, artists, settings.shrinkage)
    discriminants = (
        _discriminants(x[:, 0], targets.genres, settings.shrinkage) if settings.genre else x[0, 0][:, None][:, :0]
    )
    arrays = {
        "mean": mean,
        "scale": scale,
        "components": evenly[:, None] * components,
        "whitening": whitening,
        "discriminants": discriminants,
        "weight": np.array(settings.genre),
    }
    head = Head({name: array.shape for name, array in arrays.items()})
    head.load_state_dict({name: torch.from_numpy(array).float() for name, array in arrays.items()})
    return head.eval()


def _principal(x: Float64, n_components: int) -> Float64:
    """Give the leading directions (n_features, n_components) of rows that are centred already."""
    found: Float64
    if len(x) < x.shape[1]:  # the small Gram matrix has the same spectrum
        values, vectors = np.linalg.eigh(x @ x.T)
        leading = vectors[:, ::-1][:, :n_components]
        found = x.T @ leading / np.sqrt(np.maximum(values[::-1][:n_components], 1e-12))
        return found
    found = np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :n_components]
    return found


def _whitening(x: Float64, artists: NDArray[np.int64], shrinkage: float) -> Float64:
    """Whiten by the covariance within artists and within the copies of a track."""
    n, n_versions, d = x.shape
    tracks = x.mean(axis=1)
    of_artist, place = np.unique(artists, return_inverse=True)
    sums = np.zeros((len(of_artist), d))
    np.add.at(sums, place, tracks)
    counts = np.bincount(place)
    between_tracks = tracks - sums[place] / counts[place, None]
    between_copies = (x - tracks[:, None]).reshape(n * n_versions, d)
    within = np.zeros((d, d))
    for deviations, degrees in ((between_tracks, n - len(of_artist)), (between_copies, n * (n_versions - 1))):
        if degrees > 0:
            within += deviations.T @ deviations / degrees
    return _inverse_root(_shrunk(within, shrinkage))


def _discriminants(x: Float64, genres: Float32, shrinkage: float) -> Float64:
    """Give Fisher's directions (d, n_genres - 1), whitened within genres; a track of two genres counts half in each."""
    weights = genres / np.maximum(genres.sum(axis=1, keepdims=True), 1)
    sizes = weights.sum(axis=0)
    weights, sizes = weights[:, sizes > 0], sizes[sizes > 0]
    if len(sizes) < 2:
        return np.zeros((x.shape[1], 0))
    means = weights.T @ x / sizes[:, None]
    known = weights.sum(axis=1)
    scatter = (x * known[:, None]).T @ x - (means * sizes[:, None]).T @ means
    root = _inverse_root(_shrunk(scatter / max(known.sum() - len(sizes), 1), shrinkage))
    centred = (means - sizes @ means / sizes.sum()) * np.sqrt(sizes)[:, None] @ root
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    found: Float64 = root @ directions[: len(sizes) - 1].T
    return found


def _shrunk(covariance: Float64, shrinkage: float) -> Float64:
    """Pull a covariance (d, d) towards a ball of its mean variance."""
    variance = np.trace(covariance) / len(covariance)
    if variance <= 0:
        return np.eye(len(covariance))
    shrunk: Float64 = (1 - shrinkage) * covariance + shrinkage * variance * np.eye(len(covariance))
    return shrunk


def _inverse_root(covariance: Float64) -> Float64:
    values, vectors = np.linalg.eigh(covariance)
    root: Float64 = vectors / np.sqrt(values)
    return root
