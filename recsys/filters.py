"""Which tracks may be in a list: wanted genres, artists and years, unwanted tracks, heard ones or only new ones.

    Filters, Traits of the catalogue, Uploads  ->  allowed(rows)  ->  first_places  ->  places of a stored list

What is known of the catalogue's tracks is numbers by row, so a filter is a few comparisons of arrays; uploads are few
and are looked at one by one.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.diversity import cap_per_artist
from recsys.overlay import Uploads
from recsys.traits import UNKNOWN_YEAR, Traits, same_name
from recsys.types import NO_ITEM, Int32


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is to be limited to; by default to nothing.

    Genres and artists are compared in lower case, years are inclusive, and a track whose year is not known has none.
    """

    exclude_track_ids: tuple[str, ...] = ()
    genres: tuple[str, ...] = ()
    artists: tuple[str, ...] = ()
    min_year: int | None = None
    max_year: int | None = None
    include_heard: bool = False
    only_new: bool = False

    @property
    def nothing(self) -> bool:
        """Whether every track that is not heard may be in the list."""
        return self == NO_FILTERS

    def allowed(self, rows: Int32, traits: Traits, uploads: Uploads, excluded: Int32) -> NDArray[np.bool_]:
        """Mark the rows (n,) that pass; ``excluded`` are the rows of ``exclude_track_ids``."""
        n_built = len(traits.artists)
        passing = ~np.isin(rows, excluded) if len(excluded) else np.ones(len(rows), dtype=bool)
        built = rows < n_built
        own = rows[built]
        marks = np.ones(len(own), dtype=bool)
        if self.only_new:
            marks &= traits.is_new[own]
        if self.min_year is not None:
            marks &= traits.years[own] >= self.min_year
        if self.max_year is not None:
            marks &= (traits.years[own] <= self.max_year) & (traits.years[own] != UNKNOWN_YEAR)
        if self.genres:
            marks &= traits.has_genre(own, self.genres)
        if self.artists:
            marks &= traits.has_artist(own, self.artists)
        passing[built] &= marks
        for place in np.flatnonzero(~built):
            about = uploads.about[uploads.track_ids[int(rows[place]) - n_built]]
            passing[place] &= self._allows(about)
        return passing

    def _allows(self, about: Mapping[str, Any]) -> bool:
        """Whether an upload, which is new, passes."""
        year, artist = about.get("year"), about.get("artist")
        genres = {same_name(name) for name in about.get("genres") or ()}
        return (
            (self.min_year is None or (year is not None and year >= self.min_year))
            and (self.max_year is None or (year is not None and year <= self.max_year))
            and (not self.genres or not genres.isdisjoint(map(same_name, self.genres)))
            and (not self.artists or (artist is not None and same_name(artist) in map(same_name, self.artists)))
        )


NO_FILTERS = Filters()


def artists_of(rows: Int32, traits: Traits, uploads: Uploads) -> list[Hashable | None]:
    """Name the artists of rows, as numbers, or as names where only uploads have them; None where not known."""
    n_built = len(traits.artists)
    numbers = traits.artists[np.minimum(rows, n_built - 1)].tolist() if n_built else [NO_ITEM] * len(rows)
    artists: list[Hashable | None] = [None if number == NO_ITEM else number for number in numbers]
    for place in np.flatnonzero(rows >= n_built):
        name = uploads.about[uploads.track_ids[int(rows[place]) - n_built]].get("artist")
        artists[place] = None if name is None else traits.artist(name)
    return artists


def first_places(
    passing: NDArray[np.bool_], artists: Sequence[Hashable | None], max_per_artist: int | None, k: int
) -> list[int]:
    """Choose the first k places of a list that pass, at most so many of one artist: fewer where there are no more.

    ``artists`` (n,) are those of the places, None where not known.
    """
    places: list[int] = np.flatnonzero(passing).tolist()
    if max_per_artist is not None:
        kept = cap_per_artist([artists[place] for place in places], max_per_artist)
        places = [places[one] for one in kept]
    return places[:k]
