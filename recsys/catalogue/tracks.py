"""The catalogue's tables: a table of tracks in, ``Tracks`` out; a table of tags in, ``Tags`` out.

    tracks table  ->  read_tracks  ->  Tracks, a row a track
    tags table    ->  read_tags    ->  Tags, a row a pair of track and tag

A bad value costs a track that value, not its place: only an empty or repeated id drops a row. Whether the
audio behind ``path`` exists and can be decoded is not looked at here.
"""

import os
from pathlib import Path

import polars as pl

from recsys.catalogue.cells import check_fits, check_type, one_sentence
from recsys.catalogue.lookalikes import report_alike, with_known_tracks
from recsys.catalogue.names import fold_names
from recsys.catalogue.numbers import read_numbers, report_numbers
from recsys.catalogue.problems import Problems
from recsys.catalogue.tables import read_table, split_list, text_column
from recsys.catalogue.years import FIRST_YEAR, last_year, year_in
from recsys.types import TAGS_SCHEMA, TRACKS_SCHEMA, Tags, Tracks

__all__ = ["FIRST_YEAR", "last_year", "read_tags", "read_tracks"]

_TEXTS = ("track_id", "path", "title", "artist", "album", "year", "lyrics", "lyrics_path")
_KNOWN = (*_TEXTS, "genre", "genres", "vector")


def read_tracks(path: Path, problems: Problems, audio_root: Path | None = None) -> Tracks:
    """Read the catalogue; of rows with one id the first wins.

    Args:
        path: a table with ``track_id``; known besides are ``path``, ``title``, ``artist``, ``album``,
            ``genre`` or ``genres``, ``year``, ``lyrics`` or ``lyrics_path``, ``vector``; others are ignored.
        problems: takes what is wrong with rows and values.
        audio_root: the folder that paths of audio and lyrics start from, else the table's own.

    Raises:
        DataError: the table cannot be read or has no ``track_id``, or none of the values of a column fits.
    """
    frame = read_table(path, problems, _KNOWN, [["track_id"]])
    with one_sentence(path):
        frame = frame.with_columns(text_column(frame, path, name) for name in _TEXTS)
        frame = _with_good_ids(frame, path, problems)
        root = Path(os.path.abspath(audio_root or path.parent))
        frame = _with_lyrics(frame, path, root, problems)
        frame = _with_years(frame, path, problems)
        frame = _with_vectors(frame, path, problems)
        frame = frame.with_columns(_absolute("path", root), genres=_genres(frame, path, problems))
        return Tracks(frame.select(TRACKS_SCHEMA.names()))


def read_tags(path: Path, track_ids: pl.Series, problems: Problems) -> Tags:
    """Read tags, compared as names are; repeated rows add up, and without a column ``weight`` each counts 1.

    Raises:
        DataError: the table cannot be read, ``track_id`` or ``tag`` is missing, or none of the values of a column fits.
    """
    frame = read_table(path, problems, ("track_id", "tag", "weight"), [["track_id"], ["tag"]])
    with one_sentence(path):
        return _tags(frame, path, track_ids, problems)


def _tags(frame: pl.DataFrame, path: Path, track_ids: pl.Series, problems: Problems) -> Tags:
    source, track, tag = str(path), pl.col("track_id"), pl.col("tag")
    weight = text_column(frame, path, "weight") if "weight" in frame.columns else pl.lit("1").alias("weight")
    frame = frame.select("row", text_column(frame, path, "track_id"), text_column(frame, path, "tag"), weight)
    reason = "the row has no track id"
    frame = problems.drop(frame, track.is_null(), "empty-id", source, value="track_id", reason=reason)
    frame = with_known_tracks(frame, track_ids, source, problems)
    frame = problems.drop(frame, tag.is_null(), "empty-tag", source, value="tag", reason="the row has no tag")
    frame = frame.with_columns(number=read_numbers(frame["weight"]))
    number, reason = pl.col("number"), "a weight is a number above 0"
    good = (number.is_finite() & (number > 0)).fill_null(False)
    check_fits(frame, good, path, "weight", reason)
    report_numbers(frame, ~good, problems, "bad-weight", source, value="weight", reason=reason)
    frame = frame.filter(good).with_columns(weight="number")
    summed = (
        frame.with_columns(tag=fold_names(frame["tag"]))
        .group_by("track_id", "tag", maintain_order=True)
        .agg(pl.col("weight").sum())
    )
    return Tags(summed.select(TAGS_SCHEMA.names()))


def _with_good_ids(frame: pl.DataFrame, path: Path, problems: Problems) -> pl.DataFrame:
    track = pl.col("track_id")
    missing = "the row has no track id"
    frame = problems.drop(frame, track.is_null(), "empty-id", str(path), value="track_id", reason=missing)
    repeated = "an earlier row has this id, and the first one stays"
    frame = problems.drop(
        frame, ~track.is_first_distinct(), "duplicate-id", str(path), value="track_id", reason=repeated
    )
    report_alike(frame, "track_id", str(path), problems)
    return frame


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


def _genres(frame: pl.DataFrame, path: Path, problems: Problems) -> pl.Series:
    """Join the genre columns to one list, trimmed, each once however it is written, in the order given."""
    lists = [_genre_list(frame[name], path, problems) for name in ("genre", "genres") if name in frame.columns]
    owners = pl.int_range(len(frame), dtype=pl.Int64, eager=True).alias("owner")
    parts = [pl.DataFrame({"owner": owners, "genre": texts}) for texts in lists]
    none = pl.DataFrame(schema={"owner": pl.Int64, "genre": pl.List(pl.String)})
    given = pl.concat([none, *parts]).sort("owner", maintain_order=True).explode("genre")
    given = given.with_columns(pl.col("genre").str.strip_chars()).filter(pl.col("genre") != "")
    given = given.with_columns(folded=fold_names(given["genre"])).unique(["owner", "folded"], maintain_order=True)
    joined = given.group_by("owner", maintain_order=True).agg("genre")
    return owners.to_frame().join(joined, on="owner", how="left", maintain_order="left")["genre"].fill_null([])


def _genre_list(genres: pl.Series, path: Path, problems: Problems) -> pl.Series:
    if isinstance(genres.dtype, pl.List):
        return _flat(genres, path, problems)
    check_type(genres.dtype, path, genres.name)
    lists = split_list(genres)
    return lists.zip_with(lists.is_not_null(), genres.str.replace_all("\0", ";", literal=True).str.split(";"))


def _flat(genres: pl.Series, path: Path, problems: Problems) -> pl.Series:
    """Make lists of text of lists; those of lists become one each, which is told."""
    inner = genres.dtype.inner  # type: ignore[attr-defined]
    if not isinstance(inner, (pl.List, pl.Array)):
        check_type(pl.String() if not inner.is_nested() and inner != pl.Duration else inner, path, genres.name)
        return genres.cast(pl.List(pl.String))
    reason = "lists of lists, expected a list of names; all names of a row are taken as one list"
    problems.add("bad-genre", str(path), None, genres.name, reason)
    values = genres.to_list()
    return pl.Series(genres.name, [_names_in(value) for value in values], dtype=pl.List(pl.String))


def _names_in(value: object) -> list[str]:
    """Collect the texts of lists within lists."""
    if isinstance(value, list):
        return [name for one in value for name in _names_in(one)]
    return [] if value is None else [str(value)]


def _with_years(frame: pl.DataFrame, path: Path, problems: Problems) -> pl.DataFrame:
    texts = frame["year"]
    plain = texts.str.extract(r"^([0-9]{4})(?:\.0+)?$", 1).cast(pl.Int32)
    year = plain.set(~plain.is_between(FIRST_YEAR, last_year()).fill_null(False), None)
    others = texts.filter(plain.is_null() & texts.is_not_null()).unique()
    if len(others):
        read = pl.DataFrame({"year": others, "found": pl.Series(map(year_in, others.to_list()), dtype=pl.Int32)})
        found = frame.select("year").join(read, on="year", how="left", maintain_order="left")["found"]
        year = year.zip_with(year.is_not_null(), found)
    expected = f"a year is a whole number from {FIRST_YEAR} to {last_year()}, or a text that holds one"
    # a number is not in another notation: many write 0 where they do not know
    check_fits(frame.with_columns(read=year), pl.col("read").is_not_null() | pl.col("year").str.contains(r"^[0-9]+$"),
               path, "year", expected)  # fmt: skip
    bad = texts.is_not_null() & year.is_null()
    problems.report(frame, pl.lit(bad), "bad-year", str(path), value="year", reason=expected)
    return frame.with_columns(year.alias("year"))


def _with_vectors(frame: pl.DataFrame, path: Path, problems: Problems) -> pl.DataFrame:
    """Cast vectors to float32 and make null those that are not finite or not as long as most."""
    if "vector" not in frame.columns:
        return frame.with_columns(vector=pl.lit(None, dtype=pl.List(pl.Float32)))
    vector = pl.col("vector")
    given = frame.filter(vector.is_not_null())
    if not isinstance(given.schema["vector"], pl.List):
        check_type(given.schema["vector"], path, "vector")
    numbers = _numbers(given["vector"])
    finite = pl.element().is_finite().fill_null(False).all()
    good = numbers.list.eval(finite).list.first().fill_null(False) & (numbers.list.len() > 0).fill_null(False)
    given = given.with_columns(numbers=numbers.set(~good, None))
    numbers_good = pl.col("numbers").is_not_null()
    reason = "a vector is a list of finite numbers"
    check_fits(given, numbers_good, path, "vector", reason)
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
        if not (vectors.dtype.inner.is_numeric() or vectors.dtype.inner == pl.String):
            return pl.repeat(None, len(vectors), dtype=floats, eager=True)
        return vectors.cast(floats, strict=False)
    inner = vectors.str.extract(r"^\s*\[([^\[\]]*)\]\s*$")
    number = pl.element().str.strip_chars().cast(pl.Float32, strict=False)
    return inner.str.split(",").list.eval(number)
