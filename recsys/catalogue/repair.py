"""Damaged tables in, their good rows out: the second reading of a text table that polars refused.

    bytes of CSV or TSV   ->  read_records  ->  frame of text, and the number of each row kept
    bytes of JSON lines   ->  good_lines    ->  bytes of the good lines, and the number of each line kept

Every record is looked at by itself, which is slower by an order of magnitude but finds each ragged, malformed
or undecodable one. Blank lines are passed over, but they count in the numbers, as they do in an editor.
"""

import csv
import io
import json
from collections import Counter, deque
from collections.abc import Iterator, MutableMapping, Sequence
from itertools import islice
from typing import Any

import polars as pl

from recsys.catalogue.problems import MAX_VALUE_CHARS, Problems
from recsys.errors import DataError
from recsys.util.printable import shown

ID_COLUMNS = frozenset({"user_id", "track_id", "track_ids", "tracks_id"})  # without its id a row is nothing
FEW = 5  # values of a column that are told one by one; more are a fault of the column, and told as one
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

    Raises:
        DataError: no record has as many fields as the header.
    """
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8", errors="surrogateescape", newline="")
    records = _records(text, separator)
    header = [_printable(name) for name in next(record for record in records if record)]
    names = [name if name not in header[:at] else f"{name}_repeated_{at}" for at, name in enumerate(header)]
    rows: list[int] = []
    undecodable, ragged = Undecodable(source), Ragged(source, len(names))
    good = _good_records(records, names, rows, undecodable, ragged)
    schema = dict.fromkeys(names, pl.String)
    blocks = [pl.DataFrame(schema=schema)]
    while block := list(islice(good, BLOCK_ROWS)):
        blocks.append(pl.DataFrame(block, schema=schema, orient="row"))
    ragged.tell(problems, any_good=bool(rows))
    undecodable.tell(problems)
    return pl.concat(blocks), pl.Series("row", rows, dtype=pl.Int64)


def good_lines(data: bytes, source: str, problems: Problems) -> tuple[bytes, pl.Series]:
    """Keep the lines that hold a JSON object and report the others; returns them and their numbers from 1."""
    good = io.BytesIO()
    rows: list[int] = []
    undecodable = Undecodable(source)
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
        elif undecodable.taken_out(found, row):
            good.write(json.dumps(found).encode() + b"\n")
            rows.append(row)
    undecodable.tell(problems)
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
    records: Iterator[list[str]],
    names: list[str],
    rows: list[int],
    undecodable: "Undecodable",
    ragged: "Ragged",
) -> Iterator[Sequence[str | None]]:
    for row, fields in enumerate(records, 1):
        if not fields:
            continue
        if len(fields) != len(names):
            ragged.found(row, fields)
            continue
        if _encodable("".join(fields)):
            rows.append(row)
            yield fields
            continue
        record: dict[str, Any] = dict(zip(names, fields, strict=True))
        if undecodable.taken_out(record, row):
            rows.append(row)
            yield list(record.values())


class Ragged:
    """Rows that have not as many fields as the header, ``n_names``."""

    def __init__(self, source: str, n_names: int) -> None:
        self._source, self._n_names = source, n_names
        self._found: list[tuple[int, int, str]] = []

    def found(self, row: int, fields: Sequence[str]) -> None:
        """Take note of one."""
        self._found.append((row, len(fields), ",".join(fields)[:MAX_VALUE_CHARS]))

    def tell(self, problems: Problems, *, any_good: bool) -> None:
        """Report them.

        Raises:
            DataError: there are several, and no good row beside them.
        """
        if len(self._found) > 1 and not any_good:
            row, n, text = self._found[0]
            raise DataError(
                f"{self._source}: none of the {len(self._found):,} rows has the {self._n_names} fields of the header; "
                f"row {row} has {n} ('{shown(text)}'); put texts that hold the separator in quotes, and end the header "
                "as the rows end"
            )
        for row, n, text in self._found:
            problems.add("ragged-row", self._source, row, text, f"the row has {n} fields, expected {self._n_names}")


class Undecodable:
    """Values of a file that are not UTF-8 text: a few of a column are told each, more of them as one with their number.

    A file in another encoding has them in every row.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._first: dict[str, list[tuple[int, str]]] = {}
        self._n: Counter[str] = Counter()
        self._n_lost: Counter[str] = Counter()

    def taken_out(self, record: MutableMapping[str, Any], row: int) -> bool:
        """Make such values of a row null; false when that leaves the row without an id."""
        kept = True
        for name, value in record.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            if not _encodable(text):
                record[name] = None
                is_lost = name.strip().casefold() in ID_COLUMNS
                self.found(_printable(name), row, text, is_lost=is_lost)
                kept = kept and not is_lost
        return kept

    def found(self, column: str, row: int, text: str, *, is_lost: bool = False) -> None:
        """Take note of one; ``is_lost`` says that its row is left out."""
        self._n[column] += 1
        self._n_lost[column] += is_lost
        if self._n[column] <= FEW:
            self._first.setdefault(column, []).append((row, text))

    def tell(self, problems: Problems) -> None:
        """Report them."""
        for column, first in self._first.items():
            n, n_lost = self._n[column], self._n_lost[column]
            if n <= FEW:
                for row, text in first:
                    problems.add("bad-text", self._source, row, text, f"the column {column} is not UTF-8 text")
                continue
            reason = f"{n:,} values of the column {column} are not UTF-8 text"
            lost = f", so {n_lost:,} rows have no id and are left out" if n_lost else " and are left out"
            problems.add("bad-text", self._source, *first[0], f"{reason}{lost}; save the file as UTF-8")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
