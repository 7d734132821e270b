"""Table files in, text frames out: CSV, TSV, Parquet and JSON lines, each plain or gzipped.

    file  ->  read_table  ->  frame: scalars as trimmed text, lists as lists, and ``row`` (data row from 1)

Everything is text first, so that ``007`` stays ``007``; the readers of tracks, tags and listens cast what
they know. Polars reads clean files at full speed. A file that it refuses, or in which it would quietly fill
up short rows, goes through ``recsys.catalogue.repair``. But for two aliases, columns have no meaning here.
"""

import ast
import codecs
import gzip
import io
import json
import warnings
import zlib
from pathlib import Path

import polars as pl
from polars.datatypes import DataTypeClass

from recsys.catalogue.problems import Problems
from recsys.catalogue.repair import good_lines, read_records
from recsys.errors import DataError

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")

# one entry of a list written as text: "a", 'a' or a bare word, which holds no comma, bracket or outer blank
_ITEM = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s,\[\]"'](?:[^,\[\]]*[^\s,\[\]])?)"""
_LIST = rf"(?s)^\s*\[\s*(?:{_ITEM}\s*(?:,\s*{_ITEM}\s*)*)?\]\s*$"


def read_table(path: Path, problems: Problems) -> pl.DataFrame:
    """Read a table whose suffix names its form; bad rows go to ``problems``, the rest is returned.

    Column names are stripped and case-folded; ``file`` is read as ``path``, ``tracks_id`` as ``track_id``, or
    as ``track_ids`` when it holds lists. Empty text is null. A whole number in a float column loses its
    ``.0``.

    Raises:
        DataError: the file is missing, unreadable or empty, or its form is unknown.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = (suffixes[:-1] if suffixes[-1:] == [".gz"] else suffixes)[-1:]
    form = suffix[0] if suffix else ""
    if form not in (*SEPARATORS, *JSON_SUFFIXES, ".parquet"):
        raise DataError(f"{path} is no known form of table; use .csv, .tsv, .parquet or .jsonl, plain or with .gz")
    data = _read_bytes(path)
    if form == ".parquet":
        return _normalised(_read_parquet(data, path), None, path, problems)
    data = _as_utf8(data)
    if not data.strip():
        raise DataError(f"{path} is empty, expected a table with at least a header")
    if form in JSON_SUFFIXES:
        return _normalised(*_read_json_lines(data, path, problems), path, problems)
    return _normalised(*_read_delimited(data, path, SEPARATORS[form], problems), path, problems)


def require(frame: pl.DataFrame, path: Path, *names: str) -> None:
    """Check that a table has these columns.

    Raises:
        DataError: one is missing.
    """
    if missing := [name for name in names if name not in frame.columns]:
        found = ", ".join(name for name in frame.columns if name != "row")
        raise DataError(f"{path} has no column {missing[0]!r}, only {found}; add the column or rename the one meant")


def text_column(frame: pl.DataFrame, path: Path, name: str) -> pl.Expr:
    """Give the column as text, all null when the table has none.

    Raises:
        DataError: it holds lists.
    """
    if name not in frame.columns:
        return pl.lit(None, dtype=pl.String).alias(name)
    if frame.schema[name] != pl.String:
        raise DataError(f"{path} has lists in the column {name!r}, expected one value a row")
    return pl.col(name)


def as_text(values: pl.Expr, dtype: pl.DataType | DataTypeClass) -> pl.Expr:
    """Make text of scalars: whole floats as integers (7.0 is "7"), NaN and blank text as null."""
    if dtype.is_float():
        whole = values.is_finite() & (values == values.round()) & (values.abs() < 2.0**63)
        integers = values.cast(pl.Int64, strict=False).cast(pl.String)
        return pl.when(whole).then(integers).otherwise(values.fill_nan(None).cast(pl.String))
    text = values.cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)


def split_list(texts: pl.Series) -> pl.Series:
    """Split lists written as text, ``[1, 007]``, ``["a"]`` or ``['a']``; null where the text is no list."""
    is_list = texts.str.contains(_LIST).fill_null(False)
    raw = texts.set(~is_list, None).str.extract_all(_ITEM)
    item = pl.element()
    value = pl.when(item.str.contains("^[\"']")).then(item.str.slice(1).str.head(-1)).otherwise(item)
    items = raw.explode()
    escaped = items.filter(items.str.contains(r"^[\"'](?s:.*)\\")).unique().to_list()
    if escaped:  # rare, so these few are worth a Python loop
        plain = pl.Series([_unescape(text) for text in escaped], dtype=pl.String)
        value = pl.when(item.is_in(escaped)).then(item.replace(escaped, plain)).otherwise(value)
    return raw.list.eval(as_text(value, pl.String))


def read_text(path: Path) -> str:
    """Read one text file, such as lyrics, without outer blanks.

    Raises:
        DataError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig").strip()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give the path of a text file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _unescape(quoted: str) -> str | None:
    """Read a quoted item with escapes, as JSON or else as Python writes it; None where it is neither."""
    try:
        text = json.loads(quoted, strict=False)
    except ValueError:
        try:
            with warnings.catch_warnings(action="error"):  # Python only warns of an escape that it does not know
                text = ast.literal_eval(quoted)
        except (ValueError, SyntaxError):
            return None
    # half of a surrogate pair is no text
    return None if any("\ud800" <= char <= "\udfff" for char in text) else text


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix.lower() == ".gz" else data
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give the path of a table") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); give the path of a readable table") from error


def _as_utf8(data: bytes) -> bytes:
    """Drop a byte order mark, read the two-byte text that spreadsheets save, and end lines in a line feed."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", "replace").encode()
    data = data.removeprefix(codecs.BOM_UTF8)
    return data if b"\n" in data else data.replace(b"\r", b"\n")


def _read_parquet(data: bytes, path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({_first_line(error)}); write it again") from error


def _read_delimited(
    data: bytes, path: Path, separator: str, problems: Problems
) -> tuple[pl.DataFrame, pl.Series | None]:
    """Read CSV or TSV; the rows' numbers are given only where some are left out."""
    try:
        frame = pl.read_csv(io.BytesIO(data), separator=separator, infer_schema=False)
    except pl.exceptions.PolarsError:
        return read_records(data, str(path), separator, problems)
    # Polars fills up short rows without a word, so count: each separator is between two fields or inside one
    names = pl.Series("names", frame.columns, dtype=pl.String)
    inside = (
        sum(int(texts.str.count_matches(separator, literal=True).sum()) for texts in [names, *frame])
        if b'"' in data
        else 0
    )
    if data.count(separator.encode()) != inside + (frame.width - 1) * (len(frame) + 1):
        return read_records(data, str(path), separator, problems)
    return frame, None


def _read_json_lines(data: bytes, path: Path, problems: Problems) -> tuple[pl.DataFrame, pl.Series | None]:
    """Read JSON lines; the rows' numbers are given only where some are left out."""
    try:
        frame = pl.read_ndjson(io.BytesIO(data), infer_schema_length=None)
        if len(frame) == data.rstrip().count(b"\n") + 1:  # else blank lines, which count in the numbers
            return frame, None
    except pl.exceptions.PolarsError:
        pass  # the second reading says what was wrong
    good, rows = good_lines(data, str(path), problems)
    if not len(rows):
        raise DataError(f"{path} holds no JSON object, expected one on each line")
    try:
        return pl.read_ndjson(io.BytesIO(good), infer_schema_length=None), rows
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{path} cannot be read as JSON lines ({_first_line(error)}); give each column one kind of value"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]


def _normalised(frame: pl.DataFrame, rows: pl.Series | None, path: Path, problems: Problems) -> pl.DataFrame:
    """Give the columns their names, scalars their text, and the frame its column ``row``."""
    frame = _renamed(frame)
    columns: list[pl.Expr] = []
    for name, dtype in frame.schema.items():
        column = pl.col(name)
        if isinstance(dtype, pl.Array):
            columns.append(column.cast(pl.List(dtype.inner)))
        elif isinstance(dtype, pl.List):
            columns.append(column)
        elif isinstance(dtype, pl.Binary):
            columns.append(column.map_elements(_decoded, return_dtype=pl.String))
        elif not dtype.is_nested() and not isinstance(dtype, pl.Object):
            columns.append(as_text(column, dtype))
    number = pl.int_range(1, pl.len() + 1, dtype=pl.Int64) if rows is None else pl.lit(rows)
    out = frame.select(*columns, number.alias("row"))
    for name in (name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Binary)):
        bad = pl.lit(frame[name]).is_not_null() & pl.col(name).is_null()
        problems.report(out, bad, "bad-text", str(path), value=name, reason=f"the column {name} is not UTF-8 text")
    return out


def _renamed(frame: pl.DataFrame) -> pl.DataFrame:
    """Strip and case-fold the names; of two columns with one name the first stays, of nameless ones none."""
    columns: dict[str, pl.Series] = {}
    for column in frame:
        name = column.name.strip().casefold()
        if name not in ("", "row") and not name.startswith(("^", "*")):  # polars would take these for patterns
            columns.setdefault(name, column)
    frame = pl.DataFrame(columns)
    listed = [name for name in ("track_id", "tracks_id") if name in frame.columns and _holds_lists(frame[name])]
    if listed and "track_ids" not in frame.columns:
        frame = frame.rename({listed[0]: "track_ids"})
    aliases = {"tracks_id": "track_id", "file": "path"}
    return frame.rename({a: b for a, b in aliases.items() if a in frame.columns and b not in frame.columns})


def _holds_lists(column: pl.Series) -> bool:
    """Tell a column of lists, native or as text, from one of ids."""
    if column.dtype.is_nested():
        return True
    if column.name != "tracks_id" or column.dtype != pl.String:
        return False
    share = column.str.contains(r"^\s*\[").mean()  # most, as a bad row must not decide
    return isinstance(share, float) and share > 0.5


def _decoded(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
