"""Metadata to numbers: what is known of a track besides its sound becomes sparse columns and small classes.

    Tracks, Tags  ->  Vocabulary (learned once a fit)  ->  Metadata (genres csr, tags csr, artist, year)

The vocabulary goes with the model, so that an upload is encoded as its catalogue was. Nothing here looks at listens.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix, hstack

from recsys.catalogue.names import fold_names
from recsys.types import Tags, Tracks
from recsys.util.settings import Settings

UNKNOWN = -1


class MetadataSettings(Settings):
    """``[metadata]`` in the run's TOML file."""

    max_genres: int = Field(default=500, ge=0)
    max_tags: int = Field(default=2000, ge=0)  # the most used tags; rarer ones say little and cost a column each
    max_artists: int = Field(default=200_000, ge=0)
    min_artist_tracks: int = Field(default=2, ge=1)  # an artist with one track tells nothing about any other track
    year_bucket: int = Field(default=5, ge=1)  # years in one bucket


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names behind the columns, in column order; an artist is compared without case and outer blanks."""

    genres: list[str]
    tags: list[str]
    artists: list[str]
    first_year: int
    n_year_buckets: int
    year_bucket: int

    @property
    def n_columns(self) -> int:
        """Width of ``sparse_features`` with artists."""
        return len(self.genres) + len(self.tags) + self.n_year_buckets + len(self.artists)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain lists and numbers."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Metadata:
    """Encoded tracks: ``genres`` (n, G) and ``tags`` (n, T) csr float32, ``artist`` and ``year`` (n,) classes or -1.

    A tag's value is log(1 + weight), a genre's is 1.
    """

    genres: csr_matrix
    tags: csr_matrix
    artist: NDArray[np.int64]
    year: NDArray[np.int64]

    def take(self, rows: NDArray[np.integer[Any]]) -> "Metadata":
        """Keep some rows, in the order asked for."""
        return Metadata(self.genres[rows], self.tags[rows], self.artist[rows], self.year[rows])


def learn_vocabulary(tracks: Tracks, tags: Tags | None, settings: MetadataSettings) -> Vocabulary:
    """Choose the columns: the most frequent names, ties in alphabetical order."""
    frame = tracks.frame
    genres = _most_frequent(frame["genres"].explode(), settings.max_genres)
    artists = _most_frequent(frame["artist"], settings.max_artists, settings.min_artist_tracks)
    tag_names = [] if tags is None else _most_frequent(tags.frame["tag"], settings.max_tags, folded=False)
    years = frame["year"].drop_nulls()
    first, last = (int(years.min()), int(years.max())) if len(years) else (0, -1)  # type: ignore[arg-type]
    n_buckets = (last - first) // settings.year_bucket + 1 if len(years) else 0
    return Vocabulary(genres, tag_names, artists, first, n_buckets, settings.year_bucket)


def _most_frequent(names: pl.Series, at_most: int, min_count: int = 1, *, folded: bool = True) -> list[str]:
    """Choose names, of the table's tags as they are, of others as they are compared."""
    table = pl.DataFrame({"name": names, "order": names})
    if folded:  # in the order of the alphabet as they are written
        table = pl.DataFrame({"name": fold_names(names), "order": names.str.strip_chars().str.to_lowercase()})
    counts = table.drop_nulls().group_by("name").agg(pl.len(), pl.col("order").min())
    counts = counts.filter(pl.col("len") >= min_count)
    return counts.sort(["len", "order"], descending=[True, False]).head(at_most)["name"].to_list()


def encode(tracks: Tracks, tags: Tags | None, vocabulary: Vocabulary) -> Metadata:
    """Turn tracks into columns; a name that the vocabulary lacks counts as unknown."""
    frame = tracks.frame.with_row_index("item").with_columns(pl.col("item").cast(pl.Int64))
    genre_pairs = frame.select("item", "genres").explode("genres")
    genre_pairs = genre_pairs.select("item", name=fold_names(genre_pairs["genres"]))
    genres = _columns(genre_pairs.unique().with_columns(value=pl.lit(1.0)), _folded(vocabulary.genres), len(frame))
    if tags is None:
        tag_columns = csr_matrix((len(frame), len(vocabulary.tags)), dtype=np.float32)
    else:
        pairs = tags.frame.join(frame.select("item", "track_id"), on="track_id").select(
            "item", name="tag", value=pl.col("weight").log1p()
        )
        tag_columns = _columns(pairs, vocabulary.tags, len(frame))
    artist = pl.DataFrame({"name": fold_names(frame["artist"])}).join(
        _index(_folded(vocabulary.artists)), on="name", how="left", maintain_order="left"
    )["column"]
    buckets = (frame["year"] - vocabulary.first_year) // vocabulary.year_bucket
    year = buckets.fill_null(UNKNOWN).to_numpy().astype(np.int64)
    known = (year >= 0) & (year < max(vocabulary.n_year_buckets, 1)) & (vocabulary.n_year_buckets > 0)
    return Metadata(
        genres,
        tag_columns,
        artist.fill_null(UNKNOWN).to_numpy().astype(np.int64),
        np.where(known, year, UNKNOWN).astype(np.int64),
    )


def _folded(names: Sequence[str]) -> list[str]:
    """Fold the names of a vocabulary, which may be of before accents were composed."""
    return fold_names(pl.Series("name", names, dtype=pl.String)).to_list()


def _index(names: Sequence[str]) -> pl.DataFrame:
    """Number the columns; of those of one name the first."""
    index = pl.DataFrame(
        {"name": list(names), "column": np.arange(len(names))}, schema={"name": pl.String(), "column": pl.Int64()}
    )
    return index.unique("name", keep="first", maintain_order=True)


def _columns(pairs: pl.DataFrame, names: Sequence[str], n_rows: int) -> csr_matrix:
    """Place (item, name, value) rows in a csr of (n_rows, len(names)); names that are not listed fall away."""
    known = pairs.join(_index(names), on="name").sort("item", "column")
    return csr_matrix(
        (known["value"].to_numpy().astype(np.float32), (known["item"].to_numpy(), known["column"].to_numpy())),
        shape=(n_rows, len(names)),
    )


def one_hot(classes: NDArray[np.int64], n_classes: int) -> csr_matrix:
    """(n, n_classes) csr float32 with a 1 in each row's class; -1 is an empty row."""
    rows = np.flatnonzero(classes >= 0)
    return csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, classes[rows])), shape=(len(classes), n_classes))


def sparse_features(metadata: Metadata, vocabulary: Vocabulary, artists: bool) -> csr_matrix:
    """Join genre, tag and year columns, and those of artists where asked for, into one csr of (n, F)."""
    blocks = [metadata.genres, metadata.tags, one_hot(metadata.year, vocabulary.n_year_buckets)]
    if artists:
        blocks.append(one_hot(metadata.artist, len(vocabulary.artists)))
    return csr_matrix(hstack(blocks, format="csr", dtype=np.float32))
