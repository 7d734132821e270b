"""Settings of the protocol ``representation``, apart from its code."""

from typing import Literal, get_args

from pydantic import Field

from recsys.util.settings import Settings

NetworkName = Literal[
    "auto",
    "musicnn-head",
    "musicnn",
    "musicnn-last",
    "conv1d-taught",
    "conv1d",
    "conv1d-gru",
    "dense",
    "untrained",
    "mfcc",
]
# all but what one of them is anyhow
NETWORKS: tuple[NetworkName, ...] = tuple(name for name in get_args(NetworkName) if name != "auto")
PARTIAL = "representation.partial"  # where finished folds are kept while a run goes on, under the report's folder


class RepresentationSettings(Settings):
    """Which networks are judged, on how much, and how the tracks are parted."""

    networks: tuple[NetworkName, ...] = Field(default=NETWORKS, min_length=1)
    n_folds: int = Field(default=5, ge=2)
    max_tracks: int = Field(default=2000, ge=10)  # of a larger catalogue, whole artists are drawn at random
    max_tags: int = Field(default=50, ge=0)  # the most frequent ones are probed
    min_tag_tracks: int = Field(default=10, ge=1)  # tags of fewer tracks are not
    seed: int = Field(default=0, ge=0)  # of the folds, the networks, the distortions and the bootstrap
