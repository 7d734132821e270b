"""Vectors and labels in, who was told right out: what simple classifiers read from vectors.

    training vectors, held-out vectors, genres  ->  genre_hits  ->  1 or 0 a held-out track and probe
    held-out vectors, artists  ->  artist_hits  ->  1 or 0 a track
    training vectors, held-out vectors, tags  ->  tag_scores  ->  a score a track and tag

Probes stand on training folds alone and are judged on artists that neither they nor the network saw; their settings are
fixed, nothing is tuned. Vectors are standardised by the training ones, except for neighbours, which go by cosine.
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from recsys.types import Float32, Int32

GENRE_PROBES = ("logistic", "lda", "svm", "knn")
N_NEIGHBOURS = 10
_C = 0.01  # of the logistic and the linear SVM: inverse strength of the L2 penalty, on standardised vectors

Float64 = NDArray[np.float64]


def genre_hits(train: Float32, train_genres: Int32, held_out: Float32, genres: Int32) -> dict[str, Float64]:
    """Judge each of ``GENRE_PROBES`` on held-out tracks.

    Args:
        train: (n, d) unit rows; those with genre -1 are left out. held_out: (m, d).

    Returns:
        By probe (m,): 1 where the genre was told right, 0 where not (a genre that training lacks never is), NaN where
        there is none or training has fewer than two.
    """
    known = train_genres >= 0
    train, train_genres = train[known], train_genres[known]
    hits = {name: np.full(len(held_out), np.nan) for name in GENRE_PROBES}
    judged = genres >= 0
    if len(np.unique(train_genres)) < 2 or not judged.any():
        return hits
    probes = {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(C=_C, max_iter=5000)),
        "lda": make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
        "svm": make_pipeline(StandardScaler(), SVC(kernel="linear", C=_C)),
        "knn": KNeighborsClassifier(min(N_NEIGHBOURS, len(train)), metric="cosine"),
    }
    for name, probe in probes.items():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Only one sample")  # a genre of one training track: LDA does what it can
            predicted = probe.fit(train, train_genres).predict(held_out[judged])
        hits[name][judged] = predicted == genres[judged]
    return hits


def artist_hits(vectors: Float32, artists: Int32) -> dict[str, Float64]:
    """Tell each track's artist from the other tracks of one fold, by cosine.

    Only artists with two tracks or more in the fold take part; each track is left out in turn. ``nearest`` names the
    artist of the nearest other track, ``centroid`` the one whose other tracks have the nearest mean.

    Args:
        vectors: (m, d) unit rows. artists: (m,), -1 for none.

    Returns:
        By way (m,): 1 or 0; NaN where the artist does not take part, or is the only one who does.
    """
    hits = {name: np.full(len(vectors), np.nan) for name in ("nearest", "centroid")}
    names, artist_of, counts = np.unique(artists, return_inverse=True, return_counts=True)
    usable = (counts >= 2) & (names >= 0)
    rows = np.flatnonzero(usable[artist_of])
    if usable.sum() < 2:
        return hits
    v, (_, own) = vectors[rows].astype(np.float64), np.unique(artists[rows], return_inverse=True)
    likeness = v @ v.T
    np.fill_diagonal(likeness, -np.inf)
    hits["nearest"][rows] = own[likeness.argmax(axis=1)] == own
    sums = np.zeros((int(usable.sum()), v.shape[1]))
    np.add.at(sums, own, v)
    to_centroid = v @ _unit(sums).T
    without_self = _unit(sums[own] - v)
    to_centroid[np.arange(len(v)), own] = np.sum(v * without_self, axis=1)
    hits["centroid"][rows] = to_centroid.argmax(axis=1) == own
    return hits


def tag_scores(train: Float32, tags: NDArray[np.bool_], held_out: Float32) -> Float32:
    """Score tags by a logistic probe each.

    Args:
        train: (n, d). tags: (n, T). held_out: (m, d).

    Returns:
        (m, T) float32, higher where the tag is likelier; NaN where training has no track with it, or none without.
    """
    scores = np.full((len(held_out), tags.shape[1]), np.nan, np.float32)
    scaler = StandardScaler().fit(train)
    x, x_held_out = scaler.transform(train), scaler.transform(held_out)
    for column in range(tags.shape[1]):
        labels = tags[:, column]
        if labels.any() and not labels.all():
            probe = LogisticRegression(C=_C, max_iter=5000, class_weight="balanced").fit(x, labels)
            scores[:, column] = probe.decision_function(x_held_out)
    return scores


def _unit(rows: Float64) -> Float64:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Float64 = rows / np.maximum(lengths, 1e-12)
    return unit
