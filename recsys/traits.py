"""What tracks are, as numbers by row, for filters: artist, year, genres, and whether anybody has played them.

    Tracks, plays  ->  Traits.of  ->  save  ->  <generation>/arrays/trait_*.npy  ->  load (memory-mapped)  ->  Traits

Names are compared in lower case, as people type them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.catalogue.ids import IdMap
from recsys.errors import ArtefactError
from recsys.model import mapped
from recsys.types import NO_ITEM, Float32, Int32

UNKNOWN_YEAR = np.iinfo(np.int16).min
_ARRAYS = ("artists", "years", "is_new", "genre_starts", "genres")


def same_name(name: str) -> str:
    """Give the form in which names are compared."""
    return name.strip().casefold()


@dataclass(frozen=True, eq=False)
class Traits:
    """Numbers of n tracks.

    ``artists`` (n,) int32, -1 where not known; ``years`` (n,) int16, ``UNKNOWN_YEAR`` where not known; ``is_new`` (n,)
    bool; the genres of row r are ``genres[genre_starts[r]:genre_starts[r + 1]]``. Numbers are rows of the names.
    """

    artists: Int32
    years: NDArray[np.int16]
    is_new: NDArray[np.bool_]
    genre_starts: NDArray[np.int64]
    genres: Int32
    artist_names: IdMap
    genre_names: IdMap

    @classmethod
    def of(cls, tracks: pl.DataFrame, n_plays: Float32) -> "Traits":
        """Number what is known of ``tracks`` (columns artist, year, genres), of which ``n_plays`` (n,) were heard."""
        artists, artist_names = _numbered(tracks["artist"], "artist")
        lists = tracks["genres"].fill_null([])
        genres, genre_names = _numbered(lists.filter(lists.list.len() > 0).explode(), "genre")
        starts = np.concatenate([[0], np.cumsum(lists.list.len().to_numpy(), dtype=np.int64)])
        known = tracks["year"].cast(pl.Int16, strict=False).fill_null(UNKNOWN_YEAR).to_numpy()
        return cls(artists, known, np.asarray(n_plays == 0), starts, genres, artist_names, genre_names)

    @classmethod
    def unknown(cls, n_plays: Float32) -> "Traits":
        """Traits of tracks of which nothing is known but who heard them."""
        schema = {"artist": pl.String(), "year": pl.Int32(), "genres": pl.List(pl.String())}
        nothing = [None] * len(n_plays)
        return cls.of(pl.DataFrame({"artist": nothing, "year": nothing, "genres": nothing}, schema=schema), n_plays)

    def save(self, folder: Path) -> None:
        """Write the arrays into a folder that is there."""
        for name in _ARRAYS:
            np.save(folder / f"trait_{name}.npy", getattr(self, name), allow_pickle=False)
        self.artist_names.save(folder, "trait_artist_names")
        self.genre_names.save(folder, "trait_genre_names")

    @classmethod
    def load(cls, folder: Path) -> "Traits":
        """Map the arrays of a folder into memory.

        Raises:
            ArtefactError: a file is missing or damaged.
        """
        try:
            arrays = {name: np.asarray(mapped(folder, f"trait_{name}")) for name in _ARRAYS}
        except (OSError, ValueError, EOFError) as error:
            raise ArtefactError(f"cannot read the traits in {folder}: {error}; build again") from error
        artist_names, genre_names = (IdMap.load(folder, f"trait_{kind}_names") for kind in ("artist", "genre"))
        return cls(**arrays, artist_names=artist_names, genre_names=genre_names)

    def artist(self, name: str) -> int | str:
        """Give the number of an artist, or the name in lower case where no track of the catalogue has it."""
        number = int(self.artist_names.find([same_name(name)])[0])
        return same_name(name) if number == NO_ITEM else number

    @cached_property
    def _genre_numbers(self) -> dict[str, int]:
        """Genres are few, and a dictionary is ten times as fast as the map."""
        return {name: number for number, name in enumerate(self.genre_names.all())}

    def has_genre(self, rows: Int32, wanted: Iterable[str]) -> NDArray[np.bool_]:
        """Mark the rows (n,) that have one of some genres."""
        numbers = [self._genre_numbers.get(same_name(name), NO_ITEM) for name in wanted]
        marked = np.zeros(len(self.genre_names) + 1, dtype=bool)
        marked[numbers] = True
        marked[NO_ITEM] = False  # the last place, where unknown names went
        starts, sizes = self.genre_starts[rows], self.genre_starts[rows + 1] - self.genre_starts[rows]
        places = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
        owners = np.repeat(np.arange(len(rows)), sizes)
        found = np.zeros(len(rows), dtype=bool)
        found[owners[marked[self.genres[places]]]] = True
        return found

    def has_artist(self, rows: Int32, wanted: Iterable[str]) -> NDArray[np.bool_]:
        """Mark the rows (n,) that are by one of some artists."""
        numbers = self.artist_names.find([same_name(name) for name in wanted])
        return np.isin(self.artists[rows], numbers[numbers != NO_ITEM])


def _numbered(names: pl.Series, what: str) -> tuple[Int32, IdMap]:
    """Number names, the same one in lower case alike: (n,), -1 where there is none."""
    lower = pl.Series("name", [None if name is None else same_name(name) for name in names], dtype=pl.String)
    distinct = lower.drop_nulls().unique().sort()
    table = pl.DataFrame({"name": distinct, "number": np.arange(len(distinct), dtype=np.int32)})
    numbers = lower.to_frame().join(table, on="name", how="left", maintain_order="left")["number"]
    return numbers.fill_null(NO_ITEM).to_numpy().astype(np.int32), IdMap.of(distinct.to_list(), what)
