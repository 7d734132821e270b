"""What a baseline is: a name, a way to fit it, and the settings that tuning may choose.

    BaselineData, params, seed  ->  Baseline.fit  ->  Ranker

``Number`` and ``Choice`` describe a search space without the library that searches it, so that a space and its
defaults can be read, hashed and written as JSON.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from eval.baselines.features import BaselineData
from eval.baselines.simple import Ranker

Params = Mapping[str, Any]  # numbers, texts and truth values by name


@dataclass(frozen=True, slots=True)
class Number:
    """A number from ``low`` to ``high``; ``log`` searches its logarithm, ``whole`` keeps to whole numbers."""

    low: float
    high: float
    default: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """One of ``options``, the default first."""

    options: tuple[Any, ...]

    @property
    def default(self) -> Any:
        """The first option."""
        return self.options[0]


Space = Mapping[str, Number | Choice]


@dataclass(frozen=True, slots=True)
class Baseline:
    """One model to compare with.

    ``ranks_cold`` says whether it tells tracks without plays apart; ``uses_features`` whether it reads anything but
    plays; ``needs`` what the catalogue must have for it; ``for_anyone`` whether it ranks for people by their plays, as
    a ``Following`` or ``Folding`` model does, and not for users of training alone.
    """

    name: str
    fit: Callable[[BaselineData, Params, int], Ranker]
    space: Space
    ranks_cold: bool = False
    uses_features: bool = False
    needs: Literal["plays", "features", "artists", "order", "order-and-artists"] = "plays"
    for_anyone: bool = False

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings that are tried first."""
        return {name: dimension.default for name, dimension in self.space.items()}

    def lacks(self, material: BaselineData) -> str:
        """Say in a few words what the material lacks for this model; empty where nothing is missing."""
        if not material.plays.counts.nnz:
            return "there are no plays"
        if self.needs == "features" and not material.has_features:
            return "nothing is known of any track"
        if "artists" in self.needs and not material.n_artists:
            return "no artist has two tracks"
        if "order" in self.needs and not len(material.timeline):
            return "no play has a time"
        return ""
