"""Which ALS: its number of factors, l2 and confidence, by what it ranks among plays that it has not seen.

    kept plays, held-out pairs, ALSSettings to try  ->  choose_als  ->  the best of them

How much an unplayed pair tells, and how many factors the plays can bear, differ from catalogue to catalogue more than
anything else does: where most pairs are played once and most tracks by one user, few factors and a strong belief in
what was played rank best; where taste is dense, the opposite.
"""

import numpy as np
from pydantic import Field
from scipy.sparse import csr_matrix

from recsys.cf.als import ALSSettings, fit_als
from recsys.types import Plays
from recsys.util.progress import Progress
from recsys.util.settings import Settings
from recsys.util.topk import top_k

K = 20


class ALSChoice(Settings):
    """``[hybrid.choice]`` in the run's TOML file.

    Where ``[hybrid.als]`` is given, and this table is not, nothing is tried.
    """

    enabled: bool = True
    n_factors: tuple[int, ...] = (32, 64, 128)
    l2_and_confidence: tuple[tuple[float, float], ...] = ((10.0, 8.0), (26.0, 20.0), (26.0, 60.0))  # mean confidence
    max_pairs: int = Field(default=2_000_000, ge=1)  # of more plays a sample of users is tried on
    max_users: int = Field(default=3000, ge=1)  # whose lists are judged

    def tried(self, base: ALSSettings) -> list[ALSSettings]:
        """The settings to try, the base first."""
        others = [
            base.model_copy(
                update={"n_factors": f, "l2": l2, "mean_confidence": mean, "confidence_scale": None},
            )
            for f in self.n_factors
            for l2, mean in self.l2_and_confidence
        ]
        return [base, *(other for other in others if other != base)]


def choose_als(
    kept: Plays, pairs: csr_matrix, base: ALSSettings, choice: ALSChoice, seed: int, progress: Progress
) -> ALSSettings:
    """Choose by recall@20 of the held-out ``pairs`` (n_users, n_items) among all played items."""
    users = np.flatnonzero(np.diff(kept.counts.indptr) * np.diff(pairs.indptr))
    tried = choice.tried(base)
    if not choice.enabled or len(tried) < 2 or not len(users):
        return base
    rng = np.random.default_rng(seed)
    users = np.sort(rng.permutation(users)[: choice.max_users])
    rows = _sample(kept, users, choice.max_pairs, rng)
    plays = Plays(
        csr_matrix(kept.counts[rows]), kept.barred[rows], [kept.user_ids[row] for row in rows], kept.track_ids
    )
    judged, wanted = np.searchsorted(rows, users), pairs[users]
    known = np.flatnonzero(plays.n_listeners).astype(np.int32)
    best, chosen = -1.0, base
    with progress.bar("ALS: settings", len(tried), "fits") as bar:
        for settings in tried:
            factors = fit_als(plays, settings, seed)
            left_out = (plays.counts[judged], plays.barred[judged])
            lists = top_k(factors.user_factors[judged], factors.item_factors, K, left_out, known).items
            hits = np.array([np.isin(row, wanted[place].indices).sum() for place, row in enumerate(lists)])
            recall = float((hits / np.minimum(np.diff(wanted.indptr), K)).mean())
            if recall > best:
                best, chosen = recall, settings
            bar.advance(note=f"recall@{K} {best:.4f}")
    progress.detail(
        f"ALS: {chosen.n_factors} factors, l2 {chosen.l2:g} and mean confidence {chosen.mean_confidence:g} rank best "
        f"on held-out plays, recall@{K} {best:.4f}"
    )
    return chosen


def _sample(plays: Plays, users: np.ndarray, max_pairs: int, rng: np.random.Generator) -> np.ndarray:
    """Draw rows of users, the given ones among them, that have about so many pairs, in rising order."""
    if plays.counts.nnz <= max_pairs:
        return np.arange(len(plays.user_ids))
    sizes = np.diff(plays.counts.indptr)
    others = rng.permutation(np.setdiff1d(np.arange(len(sizes)), users))
    room = max(max_pairs - int(sizes[users].sum()), 0)
    return np.sort(np.concatenate([users, others[: int(np.searchsorted(np.cumsum(sizes[others]), room))]]))
