"""Content as the prior of item factors: what a track is like says who would play it, until plays say it better.

    Plays, user factors, f(content) of recsys.hybrid.mapping  ->  prior_item_step  ->  item factors of every track

    v_i = argmin  w_i * (ALS cost of item i)  +  lambda * |v_i - f(content_i)|^2,     w_i = n_i / (n_i + tau)

n_i is the number of listeners. Nobody has passed over a track that nobody was shown, so its unplayed pairs count in
proportion to its exposure w_i; without w_i they pull a new track's vector to almost nothing. n_i = 0 gives f exactly;
as n_i grows or lambda -> 0 it tends to plain ALS. The idea of a content mean for item factors: Agarwal & Chen,
KDD 2009 (regression-based latent factors); Wang & Blei, KDD 2011 (collaborative topic regression).
"""

import numpy as np
from pydantic import Field
from scipy.sparse import csr_matrix

from recsys.cf.als import ALSSettings, confidence, confidence_scale, solve_rows, without_empty_rows
from recsys.types import Float32, Int32, Plays
from recsys.util.settings import Settings


class PriorSettings(Settings):
    """``[hybrid.prior]`` in the run's TOML file."""

    strength: float = Field(default=0.03, ge=0)  # lambda, in units of trace(U'U) / n_factors, U the user factors
    exposure: float = Field(default=1.0, gt=0)  # tau: listeners at which unplayed pairs count half
    # items of more listeners keep their ALS factors where these are given; None: the prior takes part in all
    at_most_listeners: int | None = Field(default=None, ge=1)


def exposure_weight(n_listeners: Int32, exposure: float) -> Float32:
    """w = n / (n + tau), how far a track's unplayed pairs may be taken for a verdict; 0 for a cold track."""
    return (n_listeners / (n_listeners + exposure)).astype(np.float32)


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
