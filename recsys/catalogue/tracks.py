"""The catalogue's tables: a table of tracks in, ``Tracks`` out; a table of tags in, ``Tags`` out.

    tracks table  ->  read_tracks  ->  Tracks, a row a track
    tags table    ->  read_tags    ->  Tags, a row a pair of track and tag

A bad value costs a track that value, not its place: only an empty or repeated id drops a row. Whether the
audio behind ``path`` exists and can be decoded is not looked at here.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from recsys.catalogue.problems import Problems
from recsys.catalogue.tables import read_table, require, split_list, text_column
from recsys.types import TAGS_SCHEMA, TRACKS_SCHEMA, Tags, Tracks

_TEXTS = ("track_id", "path", "title", "artist", "album", "year", "lyrics", "lyrics_path")
FIRST_YEAR = 1000  # earlier years are typing errors, not recordings nor works
_YEAR = r"^(\d{4})(?:\.0+)?$|^(\d{4})-\d{2}(?:-\d{2}(?:[T ].*)?)?$"  # 1999, 1999.0, or a date that begins with it


def last_year() -> int:
    """Give the last year that a recording can be of: releases are announced ahead."""
    return datetime.now(UTC).year + 1


def read_tracks(path: Path, problems: Problems, audio_root: Path | None = None) -> Tracks:
    """Read the catalogue; of rows with one id the first wins.

    Args:
        path: a table with ``track_id``; known besides are ``path``, ``title``, ``artist``, ``album``,
            ``genre`` or ``genres``, ``year``, ``lyrics`` or ``lyrics_path``, ``vector``; others are ignored.
        problems: takes what is wrong with rows and values.
        audio_root: the folder that paths of audio and lyrics start from, else the table's own.

    Raises:
        DataError: the table cannot be read or has no ``track_id``.
    """
    frame = read_table(path, problems)
    require(frame, path, "track_id")
    frame = frame.with_columns(text_column(frame, path, name) for name in _TEXTS)
    frame = _with_good_ids(frame, path, problems)
    root = Path(os.path.abspath(audio_root or path.parent))
    frame = _with_lyrics(frame, path, root, problems)
    frame = _with_years(frame, path, problems)
    frame = _with_vectors(frame, path, problems)
    frame = frame.with_columns(_absolute("path", root), genres=_genres(frame))
    return Tracks(frame.select(TRACKS_SCHEMA.names()))


def read_tags(path: Path, track_ids: pl.Series, problems: Problems) -> Tags:
    """Read tags, in lower case; repeated rows add up, and without a column ``weight`` each counts 1.

    Raises:
        DataError: the table cannot be read, or ``track_id`` or ``tag`` is missing.
    """
    source = str(path)
    frame = read_table(path, problems)
    require(frame, path, "track_id", "tag")
    weight = text_column(frame, path, "weight") if "weight" in frame.columns else pl.lit("1").alias("weight")
    frame = frame.select("row", text_column(frame, path, "track_id"), text_column(frame, path, "tag"), weight)
    track, tag = pl.col("track_id"), pl.col("tag")
    frame = problems.drop(
        frame, track.is_null(), "empty-id", source, value="track_id", reason="the row has no track id"
    )
    frame = problems.drop(
        frame,
        ~track.is_in(track_ids.implode()),
        "unknown-track",
        source,
        value="track_id",
        reason="no such id in the tracks table",
    )
    frame = problems.drop(frame, tag.is_null(), "empty-tag", source, value="tag", reason="the row has no tag")
    number = pl.col("weight").cast(pl.Float64, strict=False)
    frame = problems.drop(
        frame,
        ~(number.is_finite() & (number > 0)).fill_null(False),
        "bad-weight",
        source,
        value="weight",
        reason="a weight is a number above 0",
    )
    summed = (
        frame.with_columns(tag.str.to_lowercase(), number)
        .group_by("track_id", "tag", maintain_order=True)
        .agg(pl.col("weight").sum())
    )
    return Tags(summed.select(TAGS_SCHEMA.names()))


def _with_good_ids(frame: pl.DataFrame, path: Path, problems: Problems) -> pl.DataFrame:
    track = pl.col("track_id")
    missing = "the row has no track id"
    frame = problems.drop(frame, track.is_null(), "empty-id", str(path), value="track_id", reason=missing)
    repeated = "an earlier row has this id, and the first one stays"
    return problems.drop(
        frame, ~track.is_first_distinct(), "duplicate-id", str(path), value="track_id", reason=repeated
    )


def _absolute(column: str, root: Path) -> pl.Expr:
    """Join relative paths to ``root``; as text, since ten million ``Path`` objects take a minute."""
    path = pl.col(column)
    joined = pl.lit(str(root).rstrip(os.sep) + os.sep) + path
    return pl.when(path.str.contains(r"^(?:/|\\|[A-Za-z]:[\\/])")).then(path).otherwise(joined).alias(column)


def _with_lyrics(frame: pl.DataFrame, path: Path, root: Path, problems: Problems) -> pl.DataFrame:
    """Fill up ``lyrics`` from the files that ``lyrics_path`` names."""
    files = frame.filter(pl.col("lyrics").is_null() & pl.col("lyrics_path").is_not_null())
    if files.is_empty():
        return frame
    at = files.select("row", _absolute("lyrics_path", root))
    texts = [_read_lyrics(Path(file), str(path), row, problems) for row, file in at.iter_rows()]
    read = at.select("row", pl.Series("read", texts, dtype=pl.String))
    joined = frame.join(read, on="row", how="left", maintain_order="left")
    return joined.with_columns(lyrics=pl.coalesce("lyrics", "read"))


def _read_lyrics(file: Path, source: str, row: int, problems: Problems) -> str | None:
    try:
        data = file.read_bytes()
    except (OSError, ValueError) as error:  # a path that holds a null character is a ValueError
        problems.add("missing-file", source, row, file, f"the lyrics cannot be read: {error}")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        problems.add("bad-text", source, row, file, "the lyrics are not UTF-8; what is not was replaced")
        text = data.decode("utf-8-sig", "replace")
    return text.strip() or None


def _genres(frame: pl.DataFrame) -> pl.Expr:
    """Join the genre columns to one list, trimmed, each once whatever its case, in the order given."""
    lists = [_genre_list(frame[name]) for name in ("genre", "genres") if name in frame.columns]
    if not lists:
        return pl.lit([], dtype=pl.List(pl.String))
    genre = pl.element().str.strip_chars()
    genre = genre.filter(genre.is_not_null() & (genre != ""))
    joined = pl.concat_list(pl.lit(texts).fill_null([]) for texts in lists)
    return joined.list.eval(genre.filter(genre.str.to_lowercase().is_first_distinct()))


def _genre_list(genres: pl.Series) -> pl.Series:
    if isinstance(genres.dtype, pl.List):
        return genres.cast(pl.List(pl.String))
    lists = split_list(genres)
    return lists.zip_with(lists.is_not_null(), genres.str.split(";"))


def _with_years(frame: pl.DataFrame, path: Path, problems: Problems) -> pl.DataFrame:
    last = last_year()
    text = pl.col("year")
    year = pl.coalesce(text.str.extract(_YEAR, 1), text.str.extract(_YEAR, 2)).cast(pl.Int32)
    year = pl.when(year.is_between(FIRST_YEAR, last)).then(year)
    reason = f"a year is a whole number from {FIRST_YEAR} to {last}, or a date that begins with one"
    bad = text.is_not_null() & year.is_null()
    problems.report(frame, bad, "bad-year", str(path), value="year", reason=reason)
    return frame.with_columns(year.alias("year"))


def _with_vectors(frame: pl.DataFrame, path: Path, problems: Problems) -> pl.DataFrame:
    """Cast vectors to float32 and make null those that are not finite or not as long as most."""
    if "vector" not in frame.columns:
        return frame.with_columns(vector=pl.lit(None, dtype=pl.List(pl.Float32)))
    vector = pl.col("vector")
    given = frame.filter(vector.is_not_null())
    numbers = _numbers(given["vector"])
    finite = pl.element().is_finite().fill_null(False).all()
    good = numbers.list.eval(finite).list.first().fill_null(False) & (numbers.list.len() > 0).fill_null(False)
    given = given.with_columns(numbers=numbers.set(~good, None))
    numbers_good = pl.col("numbers").is_not_null()
    reason = "a vector is a list of finite numbers"
    given = problems.drop(given, ~numbers_good, "bad-vector", str(path), value="vector", reason=reason)
    lengths = given["numbers"].list.len()
    counts = lengths.value_counts().sort("count", lengths.name, descending=True)  # of equally many, the longest
    usual = counts[lengths.name][0] if len(given) else 0
    reason = f"most vectors of this table have {usual} numbers"
    ragged = pl.col("numbers").list.len() != usual
    given = problems.drop(given, ragged, "bad-vector", str(path), value="vector", reason=reason)
    kept = given.select("row", vector="numbers")
    return frame.drop("vector").join(kept, on="row", how="left", maintain_order="left")


def _numbers(vectors: pl.Series) -> pl.Series:
    """Cast lists, or lists written as text, to float32; what is no number or no list is null."""
    floats = pl.List(pl.Float32)
    if isinstance(vectors.dtype, pl.List):
        nested = vectors.dtype.inner.is_nested()
        return pl.repeat(None, len(vectors), dtype=floats, eager=True) if nested else vectors.cast(floats, strict=False)
    inner = vectors.str.extract(r"^\s*\[([^\[\]]*)\]\s*$")
    number = pl.element().str.strip_chars().cast(pl.Float32, strict=False)
    return inner.str.split(",").list.eval(number)
