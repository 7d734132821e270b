"""What the artist alone says of a track: the mean factor of the artist's tracks, listeners, the user's own artists.

    ALS item factors, artist  ->  a cold track has the mean of its artist's tracks  ->  ByVectors
    Plays, artist             ->  listeners of the artist, or the user's plays of the artist  ->  ByScores

A track whose artist has no other track stands for itself.
"""

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_matrix

from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.features import BaselineData, Value, valued
from eval.baselines.rankers import ByScores, ByVectors
from eval.baselines.simple import Ranker
from recsys.types import Float32, Int32

ALS_CHOICES: dict[str, Number | Choice] = {  # a grid, so that trials share fits
    "n_factors": Choice((64, 32, 128)),
    "l2": Choice((10.0, 3.0, 30.0)),
    "mean_confidence": Choice((8.0, 4.0, 16.0, 32.0)),
}


def _fit_mean(material: BaselineData, params: Params, seed: int) -> Ranker:
    plays = material.plays
    factors = material.als(params["n_factors"], params["l2"], params["mean_confidence"], seed)
    played = plays.n_listeners > 0
    everyone = factors.item_factors[played].mean(axis=0)
    artists = csr_matrix(material.artists)
    of_played = csr_matrix(artists[played])
    shrinkage = params["shrinkage"]
    counts = np.asarray(of_played.sum(axis=0)).ravel()[:, None]
    means = (of_played.T @ factors.item_factors[played] + shrinkage * everyone) / (counts + shrinkage)
    known = np.asarray(artists.sum(axis=1)).ravel()[:, None] > 0
    cold = np.where(known, artists @ means, everyone)
    items = np.where(played[:, None], factors.item_factors, cold).astype(np.float32)
    return ByVectors(plays, factors.user_factors, items)


def _fit_popularity(material: BaselineData, params: Params, seed: int) -> Ranker:
    artist = artist_or_self(material)
    plays = material.plays
    if params["counted"] == "listeners":
        heard = valued(plays.counts, "binary") @ one_hot_artists(artist)
        weight = np.bincount(csr_matrix(heard).indices, minlength=int(artist.max(initial=-1)) + 1)
    else:
        weight = np.bincount(artist, weights=plays.n_plays)
    scores = weight[artist].astype(np.float32)
    return ByScores(plays, lambda user_rows: np.tile(scores, (len(user_rows), 1)), seed)


def _fit_own(material: BaselineData, params: Params, seed: int) -> Ranker:
    return ByScores(material.plays, own_artist_scores(material, params["value"]), seed)


def own_artist_scores(material: BaselineData, value: Value) -> Callable[[Int32], Float32]:
    """Count the plays of every artist by every user; returns what scores all items for some users."""
    artist = artist_or_self(material)
    heard = csr_matrix(valued(material.plays.counts, value) @ one_hot_artists(artist))

    def score(user_rows: Int32) -> Float32:
        return np.asarray(heard[user_rows].toarray()[:, artist], dtype=np.float32)

    return score


def artist_or_self(material: BaselineData) -> Int32:
    """Number the artists (n_items,); a track without a known artist is an artist of its own."""
    artist = material.metadata.artist
    alone = artist < 0
    numbers = np.where(alone, material.n_artists + np.cumsum(alone) - 1, artist)
    return numbers.astype(np.int32)


def one_hot_artists(artist: Int32) -> csr_matrix:
    """One column an artist: (n_items, number of artists), 1 where an item is the artist's."""
    n = len(artist)
    return csr_matrix((np.ones(n, np.float32), (np.arange(n), artist)), shape=(n, int(artist.max(initial=-1)) + 1))


ARTIST_MEAN = Baseline(
    "artist-mean",
    _fit_mean,
    {**ALS_CHOICES, "shrinkage": Number(0.01, 10, 0.5, log=True)},  # as if so many average tracks were the artist's too
    ranks_cold=True,
    uses_features=True,
    needs="artists",
)
ARTIST_POPULARITY = Baseline(
    "artist-popularity",
    _fit_popularity,
    {"counted": Choice(("listeners", "plays"))},
    ranks_cold=True,
    uses_features=True,
    needs="artists",
)
OWN_ARTISTS = Baseline(
    "own-artists",
    _fit_own,
    {"value": Choice(("raw", "log", "binary"))},
    ranks_cold=True,
    uses_features=True,
    needs="artists",
)
