"""A panel in, parts of its held-out pairs out, each judged by itself on the same lists.

    Panel, ItemFacts  ->  segments_of  ->  name -> held out (n_users, n_items)

    activity-low, -middle, -high       users by terciles of their training plays
    popularity-low, -middle, -high     held-out pairs by terciles of the track's training listeners
    artist-known, artist-unknown       cold tracks whose artist has a track with listeners in training, or not

Terciles are of the judged users and of the held-out pairs of a panel; equal values stay together, so a part may be
empty. Where all are equal there are no terciles. A user without pairs in a part does not count there.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from eval.metrics.beyond_accuracy import ItemFacts
from eval.metrics.panels import Panel

THIRDS = ("low", "middle", "high")
ACTIVITY = tuple(f"activity-{third}" for third in THIRDS)
POPULARITY = tuple(f"popularity-{third}" for third in THIRDS)
ARTIST = ("artist-known", "artist-unknown")


def segments_of(panel: Panel, traits: ItemFacts) -> dict[str, csr_matrix]:
    """Name the parts of a panel; the names depend on its protocol alone, so that splits meet.

    Cold users have all played the same number of tracks, and cold tracks have no listeners: no terciles of these.
    """
    held_out = panel.held_out
    users = np.repeat(np.arange(held_out.shape[0]), np.diff(held_out.indptr))
    is_cold = panel.name.startswith("cold-track")
    segments: dict[str, csr_matrix] = {}
    if not panel.is_folded:
        n_plays = np.asarray(panel.heard.counts[panel.user_rows].sum(axis=1)).ravel()
        third_of_user = thirds(n_plays)[users]
        segments |= {name: _only(held_out, third_of_user == n) for n, name in enumerate(ACTIVITY)}
    if not is_cold:
        third_of_track = thirds(traits.n_listeners[held_out.indices])
        segments |= {name: _only(held_out, third_of_track == n) for n, name in enumerate(POPULARITY)}
    else:
        known = _artist_is_known(traits)[held_out.indices]
        segments |= {name: _only(held_out, known == wanted) for name, wanted in zip(ARTIST, (True, False), strict=True)}
    return segments


def thirds(values: NDArray[np.generic]) -> NDArray[np.int8]:
    """Give each value 0, 1 or 2 by the terciles of all, -1 where all are equal."""
    numbers = values.astype(np.float64)
    if not len(numbers) or numbers.min() == numbers.max():
        return np.full(len(numbers), -1, dtype=np.int8)
    return np.searchsorted(np.quantile(numbers, [1 / 3, 2 / 3]), numbers, side="left").astype(np.int8)


def _artist_is_known(traits: ItemFacts) -> NDArray[np.bool_]:
    """Tell of each item whether its artist has an item with listeners."""
    met = np.unique(traits.artist[(traits.n_listeners > 0) & (traits.artist >= 0)])
    return np.isin(traits.artist, met)


def _only(held_out: csr_matrix, wanted: NDArray[np.bool_]) -> csr_matrix:
    """Keep those stored pairs that are wanted; the shape stays."""
    n_before = np.concatenate([[0], np.cumsum(wanted)])
    indptr = n_before[held_out.indptr]
    return csr_matrix((held_out.data[wanted], held_out.indices[wanted], indptr), shape=held_out.shape)
