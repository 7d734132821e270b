"""Listens as a service has them, made up: power-law popularity, users with a few tastes each.

n_users, n_items, n_pairs  ->  made_listens  ->  Listening: csr counts, the taste of each item
counts, factors            ->  model_of      ->  Model that ranks by ALS alone
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.catalogue.ids import IdMap
from recsys.hybrid.blend import Part, join
from recsys.ranking.model import Model
from recsys.types import Factors, Int32, Plays

ITEMS_A_TASTE = 200  # at least
MOST_TASTES = 1000
OWN_TASTES = 3  # of a user, the first the strongest
ELSEWHERE = 0.15  # share of plays outside of them
WIDTH = 2.0  # of a taste: it runs over into those beside it
SPREAD = 1.0  # deviation of the logarithm of how much users play


@dataclass(frozen=True, slots=True, eq=False)
class Listening:
    """``counts`` csr float32 (n_users, n_items), int32 indices; ``taste`` (n_items,)."""

    counts: csr_matrix
    taste: Int32

    @property
    def plays(self) -> Plays:
        """The same with ids and nothing barred."""
        n_users, n_items = self.counts.shape
        barred = csr_matrix(self.counts.shape, dtype=bool)
        return Plays(self.counts, barred, list(map(str, range(n_users))), list(map(str, range(n_items))))


def made_listens(n_users: int, n_items: int, n_pairs: int, seed: int = 0) -> Listening:
    """Make about ``n_pairs`` distinct pairs; same arguments, same listens.

    Within a taste the r-th item is played in proportion to 1/r; users differ by a log-normal factor.
    """
    rng = np.random.default_rng(seed)
    n_tastes = min(MOST_TASTES, max(1, n_items // ITEMS_A_TASTE))
    own = rng.integers(0, n_tastes, (n_users, OWN_TASTES))
    share = rng.lognormal(0, SPREAD, n_users)
    keys = np.zeros(0, dtype=np.int64)
    while len(keys) < n_pairs:
        n = 1.3 * (n_pairs - len(keys)) + 1000
        user = np.repeat(np.arange(n_users), rng.poisson(n * share / share.sum()))
        drawn = user * np.int64(n_items) + _items(rng, own, user, n_items, n_tastes)
        keys = np.concatenate([keys, drawn])
        keys.sort()
        keys = keys[np.append(True, keys[1:] != keys[:-1])]
    keys = keys[rng.random(len(keys)) < n_pairs / len(keys)]
    plays = rng.geometric(0.4, len(keys)).astype(np.float32)
    indptr = np.searchsorted(keys, np.arange(n_users + 1) * np.int64(n_items)).astype(np.int32)
    counts = csr_matrix((plays, (keys % n_items).astype(np.int32), indptr), shape=(n_users, n_items))
    return Listening(counts, (np.arange(n_items) % n_tastes).astype(np.int32))


def _items(
    rng: np.random.Generator, own: NDArray[np.int64], user: NDArray[np.int64], n_items: int, n_tastes: int
) -> NDArray[np.int64]:
    """Draw an item for each of some user rows (n,), ``own`` (n_users, OWN_TASTES) being everybody's tastes."""
    n = len(user)
    choice = (OWN_TASTES * rng.random(n, dtype=np.float32) ** 2).astype(np.int64)
    beside = np.rint(WIDTH * rng.standard_normal(n, dtype=np.float32)).astype(np.int64)
    taste = (own[user, choice] + beside) % n_tastes
    elsewhere = rng.random(n, dtype=np.float32) < ELSEWHERE
    taste[elsewhere] = rng.integers(0, n_tastes, int(elsewhere.sum()))
    n_ranks = n_items // n_tastes
    rank = np.minimum(np.float64(n_ranks + 1) ** rng.random(n), n_ranks).astype(np.int64)  # density 1/r
    return np.asarray((rank - 1) * n_tastes + taste, dtype=np.int64)


def model_of(counts: csr_matrix, factors: Factors) -> Model:
    """Make a model that ranks by these factors alone."""
    plays = Listening(counts, np.zeros(counts.shape[1], np.int32)).plays
    part = Part("als", factors.user_factors, factors.item_factors, "mean")
    blend, users, items = join([part], {"als": 1.0}, plays.n_listeners)
    user_ids, track_ids = IdMap.of(plays.user_ids, what="user"), IdMap.of(plays.track_ids, what="track")
    return Model(user_ids, track_ids, blend, users, items, counts, plays.barred, {})
