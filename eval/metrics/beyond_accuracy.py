"""What lists are like beside being right: how popular, how alike, by how many artists, how much of the catalogue.

    ranked (n_users, K), ItemFacts  ->  mean_percentile, novelty, diversity, n_artists  ->  a value a user
    ranked (n_users, K)          ->  coverage, gini                                  ->  a value for all lists

Empty places of a list count for nothing; a list without a value has NaN. Formulas are in ``FORMULAS``. Whether a
track was held out is not looked at here (``eval.metrics.accuracy``).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.types import NO_ITEM, Float32, Int32, Plays

Float64 = NDArray[np.float64]

_BLOCK_PLACES = 65_536  # places of lists whose sound vectors are held at once: tens of MB


@dataclass(frozen=True, slots=True, eq=False)
class ItemFacts:
    """What is known of each item: all (n_items,) but ``sound`` (m, d), rows of unit length.

    ``percentile`` is of popularity, from 0 to 1; ``novelty`` in bits; ``artist`` a number, negative where the artist is
    not known, and then every item its own; ``sound_row`` the row in ``sound``, -1 without.
    """

    n_listeners: Int32
    percentile: Float64
    novelty: Float64
    artist: Int32
    sound_row: Int32
    sound: Float32


def traits_of(plays: Plays, artists: pl.DataFrame | None, sound: tuple[Int32, Float32]) -> ItemFacts:
    """Gather the traits of the catalogue as training knows it.

    Args:
        plays: of training. artists: columns track_id, artist, or None. sound: item rows and their vectors.
    """
    listeners = plays.n_listeners
    n_items, n_users = len(listeners), int((np.diff(plays.counts.indptr) > 0).sum())
    below, upto = (np.searchsorted(np.sort(listeners), listeners, side) for side in ("left", "right"))
    percentile = (below + upto) / 2 / max(n_items, 1)
    novelty = -np.log2((listeners + 1) / (n_users + 1))
    rows, vectors = sound
    sound_row = np.full(n_items, NO_ITEM, dtype=np.int32)
    length = np.linalg.norm(vectors, axis=1)
    heard = length > 0
    sound_row[rows[heard]] = np.arange(int(heard.sum()), dtype=np.int32)
    unit = np.asarray(vectors[heard] / length[heard, None], dtype=np.float32)
    return ItemFacts(listeners, percentile, novelty, artist_numbers(plays.track_ids, artists), sound_row, unit)


def artist_numbers(track_ids: list[str], artists: pl.DataFrame | None) -> Int32:
    """Number the artists from 0; a track without a known one gets a negative number of its own, from -2 down."""
    numbers = -2 - np.arange(len(track_ids), dtype=np.int32)  # -1 marks an empty place
    if artists is not None:
        tracks = pl.DataFrame({"track_id": track_ids}).with_row_index("item")
        known = tracks.join(artists, on="track_id").with_columns(number=pl.col("artist").rank("dense") - 1)
        numbers[known["item"].to_numpy()] = known["number"].to_numpy()
    return numbers


def mean_percentile(ranked: Int32, traits: ItemFacts) -> Float64:
    """Mean popularity percentile of the shown items."""
    return _mean_shown(ranked, traits.percentile)


def novelty(ranked: Int32, traits: ItemFacts) -> Float64:
    """Mean of -log2((listeners + 1) / (users + 1)) of the shown items."""
    return _mean_shown(ranked, traits.novelty)


def n_artists(ranked: Int32, traits: ItemFacts) -> Float64:
    """Distinct artists of the shown items; NaN for all where no artist is known in the whole catalogue."""
    if not bool((traits.artist >= 0).any()):
        return np.full(len(ranked), np.nan)
    artists = np.sort(np.where(ranked == NO_ITEM, NO_ITEM, traits.artist[ranked]), axis=1)
    first = np.ones(artists.shape, dtype=np.bool_)
    first[:, 1:] = artists[:, 1:] != artists[:, :-1]
    found: Float64 = (first & (artists != NO_ITEM)).sum(axis=1).astype(np.float64)
    return np.where((ranked != NO_ITEM).any(axis=1), found, np.nan)


def diversity(ranked: Int32, traits: ItemFacts) -> Float64:
    """Mean over pairs of shown items that have sound of 1 - cosine of their sound vectors.

    The cosines of all pairs add up to (|sum of the unit vectors|^2 - n) / 2.
    """
    rows = np.where(ranked == NO_ITEM, NO_ITEM, traits.sound_row[ranked])
    n_known = (rows != NO_ITEM).sum(axis=1).astype(np.float64)
    length = np.zeros(len(ranked))
    if len(traits.sound):
        step = max(1, _BLOCK_PLACES // ranked.shape[1])
        for start in range(0, len(ranked), step):
            block = rows[start : start + step]
            total = np.einsum("nkd,nk->nd", traits.sound[block], (block != NO_ITEM).astype(np.float32))
            length[start : start + step] = np.einsum("nd,nd->n", total, total, dtype=np.float64)
    pairs = n_known * (n_known - 1) / 2
    cosines = (length - n_known) / 2
    unknown = np.full(len(ranked), np.nan)
    mean: Float64 = np.divide(pairs - cosines, pairs, out=unknown, where=pairs > 0)
    return mean


def coverage(ranked: Int32, n_candidates: int) -> float:
    """Distinct tracks in all users' lists / candidates: how much of the catalogue is ever shown."""
    shown = np.unique(ranked)
    return float((shown != NO_ITEM).sum() / n_candidates)


def gini(ranked: Int32, n_candidates: int) -> float:
    """Gini coefficient of how often each candidate is shown: 0 all alike, near 1 a few take every place.

    NaN where nothing is shown.
    """
    _, shown = np.unique(ranked[ranked != NO_ITEM], return_counts=True)
    if not len(shown):
        return float("nan")
    # the candidates that are never shown stand first in rising order and add nothing to the sum
    place = np.arange(n_candidates - len(shown), n_candidates) + 1
    return float(((2 * place - n_candidates - 1) @ np.sort(shown)) / (n_candidates * shown.sum()))


LIST_METRICS: dict[str, Callable[[Int32, ItemFacts], Float64]] = {
    "popularity_percentile": mean_percentile,
    "novelty": novelty,
    "diversity": diversity,
    "artists": n_artists,
}
CATALOGUE_METRICS: dict[str, Callable[[Int32, int], float]] = {"coverage": coverage, "gini": gini}
FORMULAS: dict[str, str] = {
    "popularity_percentile": "mean over the top k of the share of the catalogue's tracks with fewer training "
    "listeners, those with as many counting half",
    "novelty": "mean over the top k of -log2((training listeners of the track + 1) / (training users + 1)), in bits",
    "diversity": "mean over pairs of tracks in the top k of 1 - cosine of their sound vectors",
    "artists": "distinct artists in the top k; a track without a known artist stands for one of its own",
    "coverage": "distinct tracks in all users' top k / candidates",
    "gini": "Gini coefficient of how often each candidate is in a top k, those never shown included: "
    "sum over candidates in rising order of (2 place - candidates - 1) times shown / (candidates times all shown)",
}


def _mean_shown(ranked: Int32, of_items: Float64) -> Float64:
    shown = ranked != NO_ITEM
    total = np.where(shown, of_items[ranked], 0).sum(axis=1)
    n_shown = shown.sum(axis=1)
    mean: Float64 = np.divide(total, n_shown, out=np.full(len(ranked), np.nan), where=n_shown > 0)
    return mean
