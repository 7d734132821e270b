"""Music recommendations from sound, lyrics, metadata and listening.

from recsys import Recommender
Recommender.open("mystore").recommend("anna")
"""

from typing import TYPE_CHECKING, Any

from recsys.errors import ArtefactError, ConfigError, DataError, NoSpaceError, NotFoundError, RecsysError

if TYPE_CHECKING:
    from recsys.recommender import Recommender

__all__ = [
    "ArtefactError",
    "ConfigError",
    "DataError",
    "NoSpaceError",
    "NotFoundError",
    "Recommender",
    "RecsysError",
]


def __getattr__(name: str) -> Any:
    """Load the recommender when it is first asked for: a decoding process must start without polars and scipy."""
    if name == "Recommender":
        from recsys.recommender import Recommender

        return Recommender
    raise AttributeError(f"module 'recsys' has no attribute {name!r}")
