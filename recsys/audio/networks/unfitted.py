"""Features as they come, for a plug-in whose catalogue is too small for a head, or where none is wanted.

    features (n, n_features)  ->  Unfitted  ->  unit vectors (n, dim)

Of each output of the plug-in its mean over windows, of each published network beside it the 200 features below its
tags; each of unit length, so that none outweighs the others by its scale.
"""

from itertools import accumulate

import numpy as np
from torch import nn

from recsys.audio.networks.frozen import BLOCKS, Frozen
from recsys.types import Float32
from recsys.util.topk import unit_rows


class Unfitted(nn.Module):
    """Networks whose weights stay as they are, with nothing on top of them."""

    def __init__(self, frozen: Frozen) -> None:
        super().__init__()
        self.frozen = frozen
        sizes, first = frozen.block_sizes, len(frozen.networks) * len(BLOCKS)
        places = list(range(list(BLOCKS).index("penultimate"), first, len(BLOCKS)))
        places += [first + place for place in (frozen.plug_in.mean_blocks if frozen.plug_in is not None else [])]
        ends = list(accumulate(sizes))
        self._blocks = [slice(ends[place] - sizes[place], ends[place]) for place in places]

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return sum(block.stop - block.start for block in self._blocks)

    def vectors(self, features: Float32) -> Float32:
        """Turn features (n, n_features) into unit vectors (n, dim)."""
        return unit_rows(np.concatenate([unit_rows(features[:, block]) for block in self._blocks], axis=1))
