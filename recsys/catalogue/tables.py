"""Table files in, text frames out: CSV, TSV, Parquet and JSON lines, each plain or gzipped.

    file  ->  read_table  ->  frame: scalars as trimmed text, lists as lists, and ``row`` (data row from 1)

Everything is text first, so that ``007`` stays ``007``; the readers of tracks, tags and listens cast what
they know. Polars reads clean files at full speed. A file that it refuses, or in which it would quietly fill
up short rows, goes through ``recsys.catalogue.repair``. But for two aliases, columns have no meaning here; those that
nobody asks for are not looked at, whatever is in them.
"""

import ast
import gzip
import io
import json
import warnings
import zlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import polars as pl

from recsys.catalogue.cells import IDS, as_text, check_ids, check_type, is_scalar, missing, one_sentence
from recsys.catalogue.notation import separated, text_of
from recsys.catalogue.problems import MAX_VALUE_CHARS, Problems
from recsys.catalogue.repair import Undecodable, good_lines, read_records
from recsys.errors import DataError
from recsys.util.printable import shown

__all__ = ["SEPARATORS", "as_text", "read_table", "read_text", "require", "split_list", "text_column"]

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
ALIASES = {"tracks_id": "track_id", "file": "path"}

ROUNDED_TIMES = (
    "these times are 32-bit floating-point numbers, which keep an epoch to a minute or two; they are used as they are, "
    "write them as 64-bit numbers or text to keep seconds and the order of plays"
)

# one entry of a list written as text: "a", 'a' or a bare word, which holds no comma, bracket or outer blank
_ITEM = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s,\[\]"'](?:[^,\[\]]*[^\s,\[\]])?)"""
_LIST = rf"(?s)^\s*\[\s*(?:{_ITEM}\s*(?:,\s*{_ITEM}\s*)*)?\]\s*$"


def read_table(
    path: Path, problems: Problems, known: Collection[str] | None = None, needed: Sequence[Sequence[str]] = ()
) -> pl.DataFrame:
    """Read a table whose suffix names its form; bad rows go to ``problems``, the rest is returned.

    Column names are stripped and case-folded; ``file`` is read as ``path``, ``tracks_id`` as ``track_id``, or
    as ``track_ids`` when it holds lists. Empty text is null. A whole number in a float column loses its
    ``.0``.

    Args:
        path: of the file. Another separator and another encoding than its suffix means are found out.
        problems: takes bad rows.
        known: the columns that are wanted, all by default; others are not read.
        needed: of each of these names one must be there.

    Raises:
        DataError: the file is missing, unreadable or empty, its form is unknown, or a needed column is not there.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = (suffixes[:-1] if suffixes[-1:] == [".gz"] else suffixes)[-1:]
    form = suffix[0] if suffix else ""
    if form not in (*SEPARATORS, *JSON_SUFFIXES, ".parquet"):
        raise DataError(f"{path} is no known form of table; use .csv, .tsv, .parquet or .jsonl, plain or with .gz")
    data = _read_bytes(path)
    if form != ".parquet":
        data = text_of(data, path)
        if not data.strip():
            raise DataError(f"{path} is empty, expected a table with at least a header")

    def wanted(names: Sequence[str]) -> dict[str, str]:
        return _wanted(names, known, needed, path)

    with one_sentence(path):
        rows: pl.Series | None = None
        if form == ".parquet":
            frame = _read_parquet(data, path, wanted)
        elif form in JSON_SUFFIXES:
            frame, rows = _read_json_lines(data, path, problems)
        else:
            data, separator = separated(data, SEPARATORS[form], known or ())
            frame, rows = _read_delimited(data, path, separator, problems)
        return _normalised(_renamed(frame, wanted(frame.columns)), rows, path, problems)


def require(frame: pl.DataFrame, path: Path, *names: str) -> None:
    """Check that a table has these columns.

    Raises:
        DataError: one is missing.
    """
    for name in names:
        if name not in frame.columns:
            raise missing(frame.columns, path, name)


def text_column(frame: pl.DataFrame, path: Path, name: str) -> pl.Expr:
    """The column as text, all null when the table has none.

    Raises:
        DataError: it holds lists, or values that have no text.
    """
    if name not in frame.columns:
        return pl.lit(None, dtype=pl.String).alias(name)
    check_type(frame.schema[name], path, name)
    return pl.col(name)


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
    return raw.list.eval(as_text(value, pl.String, is_id=True))


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


def _read_parquet(data: bytes, path: Path, wanted: Callable[[Sequence[str]], dict[str, str]]) -> pl.DataFrame:
    """Read the columns that are wanted; of the others nothing but the name."""
    try:
        columns = list(wanted(list(pl.read_parquet_schema(io.BytesIO(data)))))
        return pl.read_parquet(io.BytesIO(data), columns=columns, hive_partitioning=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
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
    if _is_array(data):
        raise DataError(
            f"{path} holds no JSON object on a line but one JSON array, expected one object on each line; write it so, "
            "for example by: jq -c '.[]' FILE > FILE.jsonl"
        )
    good, rows = good_lines(data, str(path), problems)
    if not len(rows):
        raise DataError(f"{path} holds no JSON object, expected one on each line")
    try:
        return pl.read_ndjson(io.BytesIO(good), infer_schema_length=None), rows
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{path} cannot be read as JSON lines ({_first_line(error)}); give each column one kind of value"
        ) from error


def _is_array(data: bytes) -> bool:
    """Whether a whole file is one list of objects, on one line or on many."""
    if not data.lstrip().startswith(b"["):
        return False
    try:
        found = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return False
    return isinstance(found, list) and bool(found) and all(isinstance(one, dict) for one in found)


def _first_line(error: BaseException) -> str:
    return shown(str(error).strip().split("\n", maxsplit=1)[0])


def _wanted(
    names: Sequence[str], known: Collection[str] | None, needed: Sequence[Sequence[str]], path: Path
) -> dict[str, str]:
    """Choose a file's columns: their names there, and as they are compared. Of two with one name the first stays.

    Raises:
        DataError: one that is needed is not there.
    """
    chosen: dict[str, str] = {}
    for name in names:
        plain = name.strip().casefold()
        # polars would take the latter for patterns
        if plain not in ("", "row", *chosen.values()) and not plain.startswith(("^", "*")):
            chosen[name] = plain
    there = {*chosen.values(), *(ALIASES[name] for name in chosen.values() if name in ALIASES)}
    if "tracks_id" in there:
        there.add("track_ids")
    for either in needed:
        if there.isdisjoint(either):
            raise missing(list(chosen.values()), path, either[-1])
    if known is None:
        return chosen
    return {name: plain for name, plain in chosen.items() if plain in known or plain in ALIASES}


def _normalised(frame: pl.DataFrame, rows: pl.Series | None, path: Path, problems: Problems) -> pl.DataFrame:
    """Turn scalars into text, and add the column ``row``; what has no text stays what it is."""
    columns: list[pl.Expr] = []
    for name, dtype in frame.schema.items():
        column = pl.col(name)
        if name in IDS:
            check_ids(frame[name], path)
        if name == "listened_at" and dtype == pl.Float32 and frame[name].count():
            problems.add("rounded-time", str(path), None, name, ROUNDED_TIMES)
        if isinstance(dtype, pl.Array):
            columns.append(column.arr.to_list())
        elif isinstance(dtype, pl.Binary):
            columns.append(column.map_elements(_decoded, return_dtype=pl.String))
        elif is_scalar(dtype):
            columns.append(as_text(column, dtype, is_id=name in IDS))
        else:
            columns.append(column)
    number = pl.int_range(1, pl.len() + 1, dtype=pl.Int64) if rows is None else pl.lit(rows)
    out = frame.select(*columns, number.alias("row"))
    binary = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Binary)]
    undecodable = Undecodable(str(path))
    for name in binary:
        bad = out.select("row", value=frame[name]).filter(frame[name].is_not_null() & out[name].is_null())
        for row, value in bad.iter_rows():
            undecodable.found(name, row, value[:MAX_VALUE_CHARS].decode("utf-8", "surrogateescape"))
    undecodable.tell(problems)
    return out


def _renamed(frame: pl.DataFrame, names: dict[str, str]) -> pl.DataFrame:
    """Keep some columns under the names that they are compared by, and read the aliases."""
    frame = pl.DataFrame({plain: frame[name] for name, plain in names.items()})
    listed = [name for name in ("track_id", "tracks_id") if name in frame.columns and _holds_lists(frame[name])]
    if listed and "track_ids" not in frame.columns:
        frame = frame.rename({listed[0]: "track_ids"})
    return frame.rename({a: b for a, b in ALIASES.items() if a in frame.columns and b not in frame.columns})


def _holds_lists(column: pl.Series) -> bool:
    """Tell a column of lists, native or as text, from one of ids."""
    if isinstance(column.dtype, (pl.List, pl.Array)):
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
