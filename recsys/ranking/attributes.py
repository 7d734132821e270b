"""What tracks are, as numbers by row, for filters: artist, year, genres, and whether anybody has played them.

    Tracks, plays  ->  TrackAttributes.of  ->  save  ->  <generation>/arrays/trait_*.npy  ->  load (memory-mapped)  ->
    TrackAttributes

Names are compared as ``recsys.catalogue.names`` folds them: in any case, and however their accents are stored.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.catalogue.ids import IdMap
from recsys.catalogue.names import FOLDING, fold_name, fold_names
from recsys.errors import ArtefactError
from recsys.types import NO_ITEM, Float32, Int32
from recsys.util.npy import mapped

UNKNOWN_YEAR = np.iinfo(np.int16).min
_ARRAYS = ("artists", "years", "is_new", "genre_starts", "genres", "genre_bits")
_BITS = 64
FOLDING_FILE = "trait_folding.npy"  # how the names were folded


class AttributeViews(NamedTuple):
    """What ``TrackAttributes`` has, for code that looks at a few rows one by one."""

    artists: "memoryview[int]"
    years: "memoryview[int]"
    is_new: "memoryview[int]"
    genre_starts: "memoryview[int]"
    genres: "memoryview[int]"
    genre_bits: "memoryview[int]"


@dataclass(frozen=True, eq=False)
class TrackAttributes:
    """Numbers of n tracks.

    ``artists`` (n,) int32, -1 where not known; ``years`` (n,) int16, ``UNKNOWN_YEAR`` where not known; ``is_new`` (n,)
    bool; the genres of row r are ``genres[genre_starts[r]:genre_starts[r + 1]]``. Numbers are rows of the names.
    ``genre_bits`` (n,) uint64 has a bit for each of a row's genres, those numbered alike modulo 64 sharing one: most
    rows need no other look.
    """

    artists: Int32
    years: NDArray[np.int16]
    is_new: NDArray[np.bool_]
    genre_starts: NDArray[np.int64]
    genres: Int32
    genre_bits: NDArray[np.uint64]
    artist_names: IdMap
    genre_names: IdMap

    @classmethod
    def of(cls, tracks: pl.DataFrame, n_plays: Float32) -> "TrackAttributes":
        """Number what is known of ``tracks`` (columns artist, year, genres), of which ``n_plays`` (n,) were heard."""
        artists, artist_names = _numbered(tracks["artist"], "artist")
        lists = tracks["genres"].fill_null([])
        genres, genre_names = _numbered(lists.filter(lists.list.len() > 0).explode(), "genre")
        starts = np.concatenate([[0], np.cumsum(lists.list.len().to_numpy(), dtype=np.int64)])
        known = tracks["year"].cast(pl.Int16, strict=False).fill_null(UNKNOWN_YEAR).to_numpy()
        is_new, bits = np.asarray(n_plays == 0), _bits(starts, genres)
        return cls(artists, known, is_new, starts, genres, bits, artist_names, genre_names)

    @classmethod
    def unknown(cls, n_plays: Float32) -> "TrackAttributes":
        """Traits of tracks of which nothing is known but who heard them."""
        schema = {"artist": pl.String(), "year": pl.Int32(), "genres": pl.List(pl.String())}
        nothing = [None] * len(n_plays)
        return cls.of(pl.DataFrame({"artist": nothing, "year": nothing, "genres": nothing}, schema=schema), n_plays)

    def save(self, folder: Path) -> None:
        """Write the arrays into a folder that is there."""
        for name in _ARRAYS:
            np.save(folder / f"trait_{name}.npy", getattr(self, name), allow_pickle=False)
        np.save(folder / FOLDING_FILE, np.int32(FOLDING), allow_pickle=False)
        self.artist_names.save(folder, "trait_artist_names")
        self.genre_names.save(folder, "trait_genre_names")

    @classmethod
    def load(cls, folder: Path) -> "TrackAttributes":
        """Map the arrays of a folder into memory.

        Raises:
            ArtefactError: a file is missing or damaged.
        """
        try:
            there = [name for name in _ARRAYS if name != "genre_bits" or (folder / "trait_genre_bits.npy").exists()]
            arrays: dict[str, Any] = {name: mapped(folder / f"trait_{name}.npy") for name in there}
        except (OSError, ValueError, EOFError) as error:
            raise ArtefactError(f"cannot read the traits in {folder}: {error}; build again") from error
        if "genre_bits" not in arrays:  # of a generation of before there were any
            arrays["genre_bits"] = _bits(arrays["genre_starts"], arrays["genres"])
        artist_names, genre_names = (IdMap.load(folder, f"trait_{kind}_names") for kind in ("artist", "genre"))
        if not (folder / FOLDING_FILE).exists():  # of a generation of before names were composed
            arrays["artists"], artist_names = _refolded(arrays["artists"], artist_names)
            arrays["genres"], folded = _refolded(arrays["genres"], genre_names)
            if folded is not genre_names:
                genre_names, arrays["genre_bits"] = folded, _bits(arrays["genre_starts"], arrays["genres"])
        return cls(**arrays, artist_names=artist_names, genre_names=genre_names)

    def artist(self, name: str) -> int | str:
        """The number of an artist, or the name in lower case where no track of the catalogue has it."""
        number = int(self.artist_names.find([fold_name(name)])[0])
        return fold_name(name) if number == NO_ITEM else number

    @cached_property
    def _genre_numbers(self) -> dict[str, int]:
        """Genres are few, and a dictionary is ten times as fast as the map."""
        return {name: number for number, name in enumerate(self.genre_names.all())}

    @cached_property
    def views(self) -> "AttributeViews":
        """The arrays as memory, of which a number is read in 50 ns, where numpy takes 100 and more."""
        return AttributeViews(*(memoryview(getattr(self, name)) for name in AttributeViews._fields))

    def genre_test(self, wanted: Iterable[str]) -> Callable[[int], bool]:
        """Make what says of a row whether it has one of some genres."""
        numbers = self._numbers_of_genres(wanted)
        starts, genres, bits, asked = self.views.genre_starts, self.views.genres, self.views.genre_bits, _asked(numbers)

        def may(row: int) -> bool:
            return bits[row] & asked != 0

        def does(row: int) -> bool:
            return bits[row] & asked != 0 and not numbers.isdisjoint(genres[starts[row] : starts[row + 1]])

        return may if len(self.genre_names) <= _BITS else does

    def artist_numbers(self, wanted: Iterable[str]) -> set[int]:
        """The numbers of some artists, those that there are."""
        return set(self.artist_names.find([fold_name(name) for name in wanted]).tolist()) - {NO_ITEM}

    def _numbers_of_genres(self, wanted: Iterable[str]) -> set[int]:
        return {self._genre_numbers.get(fold_name(name), NO_ITEM) for name in wanted} - {NO_ITEM}

    def has_genre(self, rows: Int32, wanted: Iterable[str]) -> NDArray[np.bool_]:
        """Mark the rows (n,) that have one of some genres."""
        numbers = self._numbers_of_genres(wanted)
        found: NDArray[np.bool_] = (self.genre_bits[rows] & np.uint64(_asked(numbers))) != 0
        if len(self.genre_names) > _BITS:
            found[found] = self._has_number(rows[found], numbers)
        return found

    def _has_number(self, rows: Int32, numbers: set[int]) -> NDArray[np.bool_]:
        marked = np.zeros(len(self.genre_names), dtype=bool)
        marked[list(numbers)] = True
        starts, sizes = self.genre_starts[rows], self.genre_starts[rows + 1] - self.genre_starts[rows]
        places = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
        owners = np.repeat(np.arange(len(rows)), sizes)
        found = np.zeros(len(rows), dtype=bool)
        found[owners[marked[self.genres[places]]]] = True
        return found

    def has_artist(self, rows: Int32, wanted: Iterable[str]) -> NDArray[np.bool_]:
        """Mark the rows (n,) that are by one of some artists."""
        return np.isin(self.artists[rows], list(self.artist_numbers(wanted)))


def _asked(numbers: set[int]) -> int:
    return sum({1 << number % _BITS for number in numbers})


def _bits(starts: NDArray[np.int64], genres: Int32) -> NDArray[np.uint64]:
    bits = np.zeros(len(starts) - 1, dtype=np.uint64)
    rows = np.repeat(np.arange(len(bits)), np.diff(starts))
    np.bitwise_or.at(bits, rows, np.left_shift(np.uint64(1), (genres % _BITS).astype(np.uint64)))
    return bits


def _numbered(names: pl.Series, what: str) -> tuple[Int32, IdMap]:
    """Number names, those that are compared as one alike: (n,), -1 where there is none."""
    folded = fold_names(names).alias("name")
    distinct = folded.drop_nulls().unique().sort()
    table = pl.DataFrame({"name": distinct, "number": np.arange(len(distinct), dtype=np.int32)})
    numbers = folded.to_frame().join(table, on="name", how="left", maintain_order="left")["number"]
    return numbers.fill_null(NO_ITEM).to_numpy().astype(np.int32), IdMap.of(distinct.to_list(), what)


def _refolded(numbers: Int32, names: IdMap) -> tuple[Int32, IdMap]:
    """Number anew what was numbered by names that were folded otherwise; the same where that makes no difference."""
    before = pl.Series("name", names.all(), dtype=pl.String)
    new, folded = _numbered(before, names.what)
    if folded.all() == before.to_list():
        return numbers, names
    return np.asarray(np.append(new, np.int32(NO_ITEM))[numbers]), folded  # -1 takes the last
