"""Which tracks may be in a list: wanted genres, artists and years, unwanted tracks, heard ones or only new ones.

    Filters, TrackAttributes of the catalogue, UploadedTracks  ->  allowed(rows)  ->  first_places  ->  places of a
    stored list

What is known of the catalogue's tracks is numbers by row, so a filter is a few comparisons of arrays; uploads are few
and are looked at one by one.
"""

from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recsys.catalogue.names import fold_name
from recsys.ranking.attributes import UNKNOWN_YEAR, TrackAttributes
from recsys.ranking.catalogue_view import UploadedTracks
from recsys.ranking.diversity import cap_per_artist
from recsys.types import NO_ITEM, Int32

ArtistsOf: TypeAlias = Callable[[NDArray[np.intp]], Sequence[Hashable | None]]


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is to be limited to; by default to nothing.

    Genres and artists are compared as ``recsys.catalogue.names`` folds them; years are inclusive, and a track whose
    year is not known has none.
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

    def allowed(
        self, rows: Int32, attributes: TrackAttributes, uploads: UploadedTracks, excluded: Int32
    ) -> NDArray[np.bool_]:
        """Mark the rows (n,) that pass; ``excluded`` are the rows of ``exclude_track_ids``."""
        n_built = len(attributes.artists)
        built = rows < n_built
        passing = np.zeros(len(rows), dtype=bool)
        passing[built] = self._built(rows[built], attributes)
        for place in np.flatnonzero(~built):
            passing[place] = self._allows(uploads.about[uploads.track_ids[int(rows[place]) - n_built]])
        if len(excluded):
            passing &= ~np.isin(rows, excluded)
        return passing

    def first(
        self,
        rows: Sequence[int],
        attributes: TrackAttributes,
        excluded: Container[int],
        max_per_artist: int | None,
        k: int,
    ) -> list[int] | None:
        """Choose the first k places that pass, as ``first_places`` of what is ``allowed``, one row after another.

        For stored lists under a server's hands: most need a look at few rows, and a loop over numbers that stops is
        three times as fast there as the arrays (a filtered answer 110 µs for 240, of 200 for an empty one).

        Returns:
            Places, fewer than k where no more pass; None where an upload comes before the k-th, which has no traits.
        """
        traits_of = attributes.views
        years, artists, is_new = traits_of.years, traits_of.artists, traits_of.is_new
        has_genre = attributes.genre_test(self.genres) if self.genres else None
        wanted = attributes.artist_numbers(self.artists) if self.artists else None
        lowest = self.min_year
        if lowest is None and self.max_year is not None:
            lowest = UNKNOWN_YEAR + 1
        highest, seen, places = self.max_year, dict[int, int](), list[int]()
        for place, row in enumerate(rows):
            if row >= len(years):
                return None
            if (
                (self.only_new and not is_new[row])
                or (lowest is not None and years[row] < lowest)
                or (highest is not None and years[row] > highest)
                or (has_genre is not None and not has_genre(row))
                or row in excluded
            ):
                continue
            if wanted is not None or max_per_artist is not None:
                artist = artists[row]
                if wanted is not None and artist not in wanted:
                    continue
                if max_per_artist is not None and artist != NO_ITEM:
                    seen[artist] = seen.get(artist, 0) + 1
                    if seen[artist] > max_per_artist:
                        continue
            places.append(place)
            if len(places) == k:
                break
        return places

    def _built(self, rows: Int32, attributes: TrackAttributes) -> NDArray[np.bool_]:
        """Mark the rows (n,), no uploads among them, that pass; ``exclude_track_ids`` are not looked at."""
        passing = np.ones(len(rows), dtype=bool)
        if self.only_new:
            passing &= attributes.is_new[rows]
        if self.min_year is not None:
            passing &= attributes.years[rows] >= self.min_year
        if self.max_year is not None:
            passing &= (attributes.years[rows] <= self.max_year) & (attributes.years[rows] != UNKNOWN_YEAR)
        if self.genres:
            passing &= attributes.has_genre(rows, self.genres)
        if self.artists:
            passing &= attributes.has_artist(rows, self.artists)
        return passing

    def _allows(self, about: Mapping[str, Any]) -> bool:
        """Whether an upload, which is new, passes."""
        year, artist = about.get("year"), about.get("artist")
        genres = {fold_name(name) for name in about.get("genres") or ()}
        return (
            (self.min_year is None or (year is not None and year >= self.min_year))
            and (self.max_year is None or (year is not None and year <= self.max_year))
            and (not self.genres or not genres.isdisjoint(map(fold_name, self.genres)))
            and (not self.artists or (artist is not None and fold_name(artist) in map(fold_name, self.artists)))
        )


NO_FILTERS = Filters()


def artists_of(rows: Int32, attributes: TrackAttributes, uploads: UploadedTracks) -> list[Hashable | None]:
    """Name the artists of rows, as numbers, or as names where only uploads have them; None where not known."""
    n_built = len(attributes.artists)
    numbers = attributes.artists[np.minimum(rows, n_built - 1)].tolist() if n_built else [NO_ITEM] * len(rows)
    artists: list[Hashable | None] = [None if number == NO_ITEM else number for number in numbers]
    for place in np.flatnonzero(rows >= n_built).tolist():
        name = uploads.about[uploads.track_ids[int(rows[place]) - n_built]].get("artist")
        artists[place] = None if name is None else attributes.artist(name)
    return artists


def first_places(passing: NDArray[np.bool_], artists: ArtistsOf, max_per_artist: int | None, k: int) -> list[int]:
    """Choose the first k places of a list that pass, at most so many of one artist: fewer where there are no more.

    ``artists`` gives those of some places, None where not known; it is not asked where there is no cap.
    """
    passed = passing.nonzero()[0]
    places: list[int] = passed.tolist()
    if max_per_artist is not None:
        kept = cap_per_artist(artists(passed), max_per_artist, k)
        return [places[one] for one in kept]
    return places[:k]
