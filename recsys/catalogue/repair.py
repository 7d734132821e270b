"""Damaged tables in, their good rows out: the second reading of a text table that polars refused.

    bytes of CSV or TSV   ->  read_records  ->  frame of text, and the number of each row kept
    bytes of JSON lines   ->  good_lines    ->  bytes of the good lines, and the number of each line kept

Every record is looked at by itself, which is slower by an order of magnitude but finds each ragged, malformed
or undecodable one. Blank lines are passed over, but they count in the numbers, as they do in an editor.
"""

import csv
import io
import json
from collections import deque
from collections.abc import Iterator, MutableMapping, Sequence
from itertools import islice
from typing import Any

import polars as pl

from recsys.catalogue.problems import Problems

ID_COLUMNS = frozenset({"user_id", "track_id", "track_ids", "tracks_id"})  # without its id a row is nothing
BLOCK_ROWS = 100_000  # rows that exist as Python objects at a time


def read_records(data: bytes, source: str, separator: str, problems: Problems) -> tuple[pl.DataFrame, pl.Series]:
    """Read delimited text record by record and report the bad ones.

    Args:
        data: the whole file, not empty; what is not UTF-8 is reported and becomes null.
        source: the file's name for the reports.
        separator: one character.
        problems: takes the bad records.

    Returns:
        The good records as text, named by the header, and their numbers from 1.
    """
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8", errors="surrogateescape", newline="")
    records = _records(text, separator)
    header = [_printable(name) for name in next(record for record in records if record)]
    names = [name if name not in header[:at] else f"{name}_repeated_{at}" for at, name in enumerate(header)]
    rows: list[int] = []
    good = _good_records(records, names, source, problems, rows)
    schema = dict.fromkeys(names, pl.String)
    blocks = [pl.DataFrame(schema=schema)]
    while block := list(islice(good, BLOCK_ROWS)):
        blocks.append(pl.DataFrame(block, schema=schema, orient="row"))
    return pl.concat(blocks), pl.Series("row", rows, dtype=pl.Int64)


def good_lines(data: bytes, source: str, problems: Problems) -> tuple[bytes, pl.Series]:
    """Keep the lines that hold a JSON object and report the others; returns them and their numbers from 1."""
    good = io.BytesIO()
    rows: list[int] = []
    for row, line in enumerate(io.BytesIO(data), 1):
        text = line.decode("utf-8", "surrogateescape").strip()
        if not text:
            continue
        try:
            # NaN and Infinity are no JSON, yet Python writes them; as text they are judged with the column
            found = json.loads(text, parse_constant=str)
        except (ValueError, RecursionError) as error:
            problems.add("bad-json", source, row, text, f"the line is no JSON: {error}")
            continue
        if not isinstance(found, dict):
            problems.add("bad-json", source, row, text, "the line holds no JSON object in braces")
        elif _keep_text(found, source, row, problems):
            good.write(json.dumps(found).encode() + b"\n")
            rows.append(row)
    return good.getvalue(), pl.Series("row", rows, dtype=pl.Int64)


def _records(lines: Iterator[str], separator: str) -> Iterator[list[str]]:
    """Split lines into records; of one whose quotes do not close well only the first line is taken."""
    waiting: deque[str] = deque()
    taken: list[str] = []

    def feed() -> Iterator[str]:
        while (line := waiting.popleft() if waiting else next(lines, None)) is not None:
            taken.append(line)
            yield line

    reader = csv.reader(feed(), delimiter=separator, strict=True)
    while True:
        taken.clear()
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield _lenient(taken[0], separator)
            waiting.extendleft(reversed(taken[1:]))
            reader = csv.reader(feed(), delimiter=separator, strict=True)


def _lenient(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator))
    except csv.Error:  # a field beyond the reader's limit of 128 KiB
        return [line]


def _good_records(
    records: Iterator[list[str]], names: list[str], source: str, problems: Problems, rows: list[int]
) -> Iterator[Sequence[str | None]]:
    for row, fields in enumerate(records, 1):
        if not fields:
            continue
        if len(fields) != len(names):
            reason = f"the row has {len(fields)} fields, expected {len(names)}"
            problems.add("ragged-row", source, row, ",".join(fields), reason)
            continue
        if _encodable("".join(fields)):
            rows.append(row)
            yield fields
            continue
        record: dict[str, Any] = dict(zip(names, fields, strict=True))
        if _keep_text(record, source, row, problems):
            rows.append(row)
            yield list(record.values())


def _keep_text(record: MutableMapping[str, Any], source: str, row: int, problems: Problems) -> bool:
    """Report values that are not UTF-8 and make them null; false when that leaves the row without an id."""
    kept = True
    for name, value in record.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if not _encodable(text):
            problems.add("bad-text", source, row, text, f"the column {_printable(name)} is not UTF-8 text")
            record[name] = None
            kept = kept and name.strip().casefold() not in ID_COLUMNS
    return kept


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
