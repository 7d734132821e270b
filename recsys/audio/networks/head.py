"""What matters of the published networks' features: a head fitted in closed form, in seconds.

    features (n, 1 + n_copies, n_features), Targets  ->  fit_head  ->  Head
    features (n, n_features)  ->  Head  ->  unit vectors (n, dim)

Two parts stand beside each other in a vector, over the principal components of the standardised features. The first is
whitened by how tracks differ within an artist and augmented copies from their track: what noise, level or the next
song of an album change counts little, what tells artists and recordings apart counts much (within-class covariance
normalisation: Hatch and Stolcke, ICASSP 2006). The second says what the labels are likely to be: a kernel ridge
regression of the proxy tasks (Nystroem's approximation beyond ``max_landmarks`` clips: Williams and Seeger, NIPS 2000).
Far from all known clips, in noise say, it says little, and leaves the word to the first. Nothing is learned by
gradient: on a few hundred clips that came out worse (``docs/research/findings-audio.md``).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd
from torch import Tensor, nn
from torch.nn.functional import normalize

from recsys.audio.networks.frozen import Frozen
from recsys.audio.networks.musicnn import MusicNN
from recsys.audio.networks.plug_in import PlugIn
from recsys.audio.settings import HeadSettings
from recsys.content.settings import TaskSettings
from recsys.content.targets import Targets
from recsys.types import Float32

_CLIP = 3.0  # deviations beyond which a standardised feature says no more
_SMALL_DEVIATION = 1e-6
_JITTER = 1e-8  # of the kernel's mean diagonal: two landmarks may be one sound

Float64 = NDArray[np.float64]


class Head(nn.Module):
    """Standardise -> principal components -> whitened part of unit length | regressed labels.

    ``mean`` and ``scale`` (n_features,), ``components`` (n_features, d), ``centre`` (d,), ``whitening`` (d, d),
    ``landmarks`` (m, d), ``coefficients`` (m, n_labels), ``width`` ().
    """

    mean: Tensor
    scale: Tensor
    components: Tensor
    centre: Tensor
    whitening: Tensor
    landmarks: Tensor
    coefficients: Tensor
    width: Tensor

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(tuple(shape)))

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.whitening.shape[1] + self.coefficients.shape[1]

    def forward(self, features: Tensor) -> Tensor:
        """Turn features (n, n_features) into unit vectors (n, dim)."""
        x = ((features - self.mean) * self.scale).clamp(-1, 1) @ self.components - self.centre
        labels = torch.exp(-self.width * torch.cdist(x, self.landmarks).square()) @ self.coefficients
        return normalize(torch.cat([normalize(x @ self.whitening, dim=1), labels], dim=1), dim=1)


class Headed(nn.Module):
    """Published networks and the head on top of them."""

    def __init__(self, frozen: Frozen, head: Head) -> None:
        super().__init__()
        self.frozen, self.head = frozen, head

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.head.dim

    def forward(self, clips: Tensor) -> Tensor:
        """Embed clips (n, n_patches, 96, n_frames) as unit vectors (n, dim), where there is no plug-in."""
        vectors: Tensor = self.head(self.frozen(clips))
        return vectors

    def vectors(self, features: Float32) -> Float32:
        """Turn features (n, n_features) into unit vectors (n, dim)."""
        with torch.inference_mode():
            vectors: Float32 = self.head.cpu()(torch.from_numpy(features)).numpy()
        return vectors


def empty_frozen(weights: Mapping[str, Tensor], plug_in: PlugIn | None = None) -> Frozen:
    """Make as many published networks as saved weights have."""
    n_networks = len({name.split(".")[2] for name in weights if name.startswith("frozen.networks.")})
    return Frozen([MusicNN() for _ in range(n_networks)], plug_in)


def empty_headed(weights: Mapping[str, Tensor], plug_in: PlugIn | None = None) -> Headed:
    """Make networks and a head of the sizes that saved weights have."""
    shapes = {name.removeprefix("head."): tuple(t.shape) for name, t in weights.items() if name.startswith("head.")}
    return Headed(empty_frozen(weights, plug_in), Head(shapes))


def fit_head(features: Float32, block_sizes: Sequence[int], targets: Targets, settings: HeadSettings) -> Head:
    """Fit a head.

    Args:
        features: (n, 1 + n_copies, n_features) of n clips, each followed by its augmented copies.
        block_sizes: of the blocks that the features consist of; each block counts alike.
        targets: a row a clip; artists, and the labels of the tasks that have a weight.
        settings: of the head.
    """
    n, n_versions, n_features = features.shape
    mean, deviation = features[:, 0].mean(axis=0), features[:, 0].std(axis=0)
    evenly = (1 / np.sqrt(np.repeat(block_sizes, block_sizes))).astype(np.float32)
    scale = 1 / (_CLIP * np.maximum(deviation, _SMALL_DEVIATION))
    rows = (np.clip((features - mean) * scale, -1, 1) * evenly).reshape(n * n_versions, n_features)
    centre = rows.reshape(n, n_versions, n_features)[:, 0].mean(axis=0)
    n_components = min(settings.n_components, *rows.shape)
    components = randomized_svd(rows - centre, n_components, n_iter=7, random_state=0)[2].T
    x = ((rows - centre) @ components).astype(np.float64).reshape(n, n_versions, n_components)

    artists = np.where(targets.artists >= 0, targets.artists, targets.n_artists + np.arange(n))
    landmarks, width, coefficients = _regression(x[:, 0], _labels(targets, settings.tasks), settings)
    arrays = {
        "mean": mean,
        "scale": scale,
        "components": evenly[:, None] * components,
        "centre": centre @ components,
        "whitening": _whitening(x, artists, settings),
        "landmarks": landmarks,
        "coefficients": coefficients,
        "width": np.array(width),
    }
    head = Head({name: array.shape for name, array in arrays.items()})
    head.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(a, np.float32)) for name, a in arrays.items()})
    return head.eval()


def _whitening(x: Float64, artists: NDArray[np.int64], settings: HeadSettings) -> Float64:
    """Whiten (n, 1 + n_copies, d) by the covariance within artists and, times a weight, within tracks: (d, d)."""
    n, n_versions, d = x.shape
    names, place = np.unique(artists, return_inverse=True)
    sums = np.zeros((len(names), d))
    np.add.at(sums, place, x[:, 0])
    within_artists = x[:, 0] - sums[place] / np.bincount(place)[place, None]
    # not from their mean: where noise moves all tracks alike, that too must not count
    within_tracks = (x[:, 1:] - x[:, :1]).reshape(-1, d)
    covariance = np.zeros((d, d))
    if n > len(names):
        covariance += within_artists.T @ within_artists / (n - len(names))
    if n_versions > 1:
        covariance += settings.nuisance * within_tracks.T @ within_tracks / len(within_tracks)
    variance = np.trace(covariance) / d
    if not variance > 0:  # nobody has two tracks, and there are no copies
        return np.eye(d)
    shrunk = (1 - settings.shrinkage) * covariance + settings.shrinkage * variance * np.eye(d)
    values, vectors = np.linalg.eigh(shrunk)
    whitening: Float64 = vectors / np.sqrt(np.maximum(values, 1e-9 * variance))
    return whitening


def _labels(targets: Targets, tasks: TaskSettings) -> Float64:
    """Lay the labels of the weighted tasks side by side (n, n_labels), centred; what is missing is 0, the mean."""
    shares = targets.genres / np.maximum(targets.genres.sum(axis=1, keepdims=True), 1)
    one_hot = np.eye(targets.n_artists + 1, dtype=np.float32)[targets.artists, : targets.n_artists]
    columns = (
        (tasks.genre, shares, targets.genres.any(axis=1)),
        (tasks.tags, targets.tags, targets.tags.any(axis=1)),
        (tasks.artist, one_hot, targets.artists >= 0),
        (tasks.factors, targets.factors, targets.factor_weights > 0),
        (tasks.year, targets.years[:, None], ~np.isnan(targets.years)),
        (tasks.popularity, targets.popularity[:, None], ~np.isnan(targets.popularity)),
    )
    found = [np.zeros((len(targets), 0))]
    for weight, labels, known in columns:
        if weight > 0 and known.any():
            centred = np.zeros(labels.shape)
            centred[known] = labels[known] - labels[known].mean(axis=0, dtype=np.float64)
            found.append(np.sqrt(weight) * centred[:, np.abs(centred).max(axis=0) > 0])
    return np.concatenate(found, axis=1)


def _regression(x: Float64, labels: Float64, settings: HeadSettings) -> tuple[Float64, float, Float64]:
    """Regress labels (n, n_labels) on clips (n, d): landmarks (m, d), the kernel's width, coefficients.

    Minimises the squared errors + l2 · the function's squared norm; then what it says of the clips is scaled to a
    median length of ``weight``.
    """
    n, d = x.shape
    if not labels.shape[1]:
        return np.zeros((1, d)), 0.0, np.zeros((1, 0))
    landmarks = x[np.sort(np.random.default_rng(0).permutation(n)[: settings.max_landmarks])]
    between = _squared_distances(landmarks, landmarks)
    width = settings.kernel_width / max(float(np.median(between)), _SMALL_DEVIATION)
    kernel = np.exp(-width * _squared_distances(x, landmarks))
    system = kernel.T @ kernel + settings.l2 * np.exp(-width * between)
    system += _JITTER * np.trace(system) / len(system) * np.eye(len(system))
    coefficients = np.linalg.solve(system, kernel.T @ labels)
    length = float(np.median(np.linalg.norm(kernel @ coefficients, axis=1)))
    scale = settings.weight / max(length, _SMALL_DEVIATION)
    return landmarks, width, np.asarray(scale * coefficients, np.float64)


def _squared_distances(a: Float64, b: Float64) -> Float64:
    found: Float64 = np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T, 0)
    return found
