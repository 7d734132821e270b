"""What the order of plays tells, as plain arrays: each user's last plays, what lies near tracks, how much each counts.

Order  ->  save  ->  <generation>/arrays/history_*.npy, next_*.npy, artist_tracks_*.npy, near_artists_*.npy,
following.json, following_stored.json  ->  load (memory-mapped)  ->  Order
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.hybrid.following import Following, Links, Surroundings
from recsys.hybrid.next_tracks import NextTracks
from recsys.types import Histories
from recsys.util.npy import mapped

FILE, STORED = "following.json", "following_stored.json"


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Each user's last plays, what lies near tracks, and how much each counts.

    ``following`` is for lists that follow each play, ``stored`` for those of a build: None where these are better by
    all plays.
    """

    histories: Histories
    surroundings: Surroundings
    following: Following
    stored: Following | None = None

    def of_stored(self) -> "Order | None":
        """The same for lists that a build stores; None where these are by all plays."""
        return None if self.stored is None else replace(self, following=self.stored)

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
        for file, following in ((FILE, self.following), (STORED, self.stored)):
            if following is not None:
                (folder / file).write_text(json.dumps(asdict(following), indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Order | None":
        """Map what ``save`` wrote; None where a generation has no such files: where nothing was learned, or an old one.

        Raises:
            OSError: a file is missing.
            ValueError: a file is damaged.
        """
        if not (folder / FILE).exists():
            return None
        following, stored = (
            Following(**json.loads((folder / file).read_text())) if (folder / file).exists() else None
            for file in (FILE, STORED)
        )

        def links(name: str) -> Links:
            return Links(*(mapped(folder / f"{name}_{part}.npy") for part in ("starts", "rows", "strengths")))

        histories = Histories(*(mapped(folder / f"history_{part}.npy") for part in ("starts", "items", "seconds")))
        tracks = NextTracks(
            *(mapped(folder / f"next_{part}.npy") for part in ("starts", "items", "follows", "together"))
        )
        artists, strengths = mapped(folder / "next_artists.npy"), mapped(folder / "next_strengths.npy")
        near = Surroundings(tracks, artists, links("artist_tracks"), links("near_artists"), strengths)
        assert following is not None
        return cls(histories, near, following, stored)
