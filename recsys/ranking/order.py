"""What the order of plays tells, as plain arrays: each user's last plays, what lies near tracks, how much each counts.

Order  ->  save  ->  <generation>/arrays/history_*.npy, next_*.npy, artist_tracks_*.npy, near_artists_*.npy,
following.json  ->  load (memory-mapped)  ->  Order
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.hybrid.following import Following, Links, Surroundings
from recsys.hybrid.next_tracks import NextTracks
from recsys.types import Histories
from recsys.util.npy import mapped

FILE = "following.json"


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Each user's last plays, what lies near tracks, and how much each counts."""

    histories: Histories
    surroundings: Surroundings
    following: Following

    def save(self, folder: Path) -> None:
        """Write the arrays into a folder that is there."""
        near = self.surroundings
        arrays: dict[str, NDArray[Any]] = {
            "history_starts": self.histories.starts,
            "history_items": self.histories.items,
            "history_seconds": self.histories.seconds,
            "next_starts": near.tracks.starts,
            "next_items": near.tracks.items,
            "next_follows": near.tracks.follows,
            "next_together": near.tracks.together,
            "next_artists": near.artists,
            "next_strengths": near.track_strengths,
        }
        for name, links in (("artist_tracks", near.by_artist), ("near_artists", near.near_artists)):
            arrays |= {f"{name}_starts": links.starts, f"{name}_rows": links.rows, f"{name}_strengths": links.strengths}
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        (folder / FILE).write_text(json.dumps(asdict(self.following), indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Order | None":
        """Map what ``save`` wrote; None where a generation has no such files: where nothing was learned, or an old one.

        Raises:
            OSError: a file is missing.
            ValueError: a file is damaged.
        """
        if not (folder / FILE).exists():
            return None
        following = Following(**json.loads((folder / FILE).read_text()))

        def links(name: str) -> Links:
            return Links(*(mapped(folder / f"{name}_{part}.npy") for part in ("starts", "rows", "strengths")))

        histories = Histories(*(mapped(folder / f"history_{part}.npy") for part in ("starts", "items", "seconds")))
        tracks = NextTracks(
            *(mapped(folder / f"next_{part}.npy") for part in ("starts", "items", "follows", "together"))
        )
        artists, strengths = mapped(folder / "next_artists.npy"), mapped(folder / "next_strengths.npy")
        near = Surroundings(tracks, artists, links("artist_tracks"), links("near_artists"), strengths)
        return cls(histories, near, following)
