"""The contrastive cost: tracks of one group draw together, all others are pushed apart.

    embeddings (b, d), groups (b,)  ->  contrastive_cost  ->  one number

Supervised contrastive learning (Khosla et al., NeurIPS 2020, the sum outside the logarithm). What makes a group is
the caller's: two stretches of one track, tracks of one artist. With two rows a group it is NT-Xent (Chen et al. 2020).
"""

from math import log

import torch
from torch import Tensor
from torch.nn.functional import normalize


def contrastive_cost(embeddings: Tensor, groups: Tensor, temperature: float = 0.1) -> Tensor:
    """The mean cost of the rows that have a partner, in units of what knowing nothing costs.

    A row costs -log(its softmax share) of each partner, averaged over its partners; shares are of exp(cosine /
    temperature) over all other rows. Divided by log(b - 1), the cost where all rows are alike, so that it compares
    with the other tasks' costs.

    Args:
        embeddings: (b, d), of any length; their directions count.
        groups: (b,) int64; -1 is no group: such a row attracts nothing, but is pushed away.
        temperature: > 0; the smaller, the more the nearest rows count.

    Returns:
        A scalar >= 0; 0 with a gradient of 0 where no row has a partner, or there are fewer than three rows.
    """
    n = len(embeddings)
    alone = torch.eye(n, dtype=torch.bool, device=embeddings.device)
    partners = (groups[:, None] == groups[None, :]) & (groups >= 0)[:, None] & ~alone
    n_partners = partners.sum(dim=1)
    if n < 3 or not bool(n_partners.any()):
        return embeddings.sum() * 0.0
    directions = normalize(embeddings, dim=1)
    closeness = (directions @ directions.T / temperature).masked_fill(alone, float("-inf"))
    log_shares = closeness - closeness.logsumexp(dim=1, keepdim=True)
    costs = -log_shares.masked_fill(~partners, 0.0).sum(dim=1) / n_partners.clamp(min=1)
    total: Tensor = costs.sum() / (n_partners > 0).sum() / log(n - 1)
    return total
