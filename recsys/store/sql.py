"""Anybody's SQL on a published file, in a process that can neither write nor look elsewhere.

    file, SQL  ->  ask: python -m recsys.store.sql FILE  <-  the SQL, on standard input
                                                            ->  a line that says how it went, and the rows as Arrow IPC
    rows, FILE.parquet | .csv | .json  ->  write_result: in the process that asks, for the other may not

The file is opened read-only. Then DuckDB is told to touch nothing outside it and to be told nothing more, and the
process gives up the right to write a file at all and, where it was root, every other right.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from recsys.errors import ArtefactError, ConfigError, DataError
from recsys.store.duckdb_tables import connect
from recsys.util.limited_process import give_up_rights

CLOSED = (
    "SET TimeZone = 'UTC'",
    "SET temp_directory = ''",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET enable_external_access = false",  # no file, no network, no extension, no other database
    "SET lock_configuration = true",  # last
)
WRITERS: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    ".parquet": lambda rows, file: rows.write_parquet(file),
    ".csv": lambda rows, file: rows.write_csv(file),
    ".json": lambda rows, file: rows.write_json(file),
}
KEPT = ("PATH", "LANG", "LC_ALL", "HOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV")  # of the environment: no secrets


def ask(file: Path, sql: str) -> pl.DataFrame:
    """Run one statement on a published file; returns the rows, none of no columns where it has no result.

    Raises:
        ArtefactError: the file cannot be opened.
        DataError: the statement is no UTF-8, or DuckDB refuses it.
    """
    try:
        asked = sql.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"the query {sql!a} is not UTF-8 text; give it in UTF-8") from error
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment = kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-m", "recsys.store.sql", str(file.absolute())]
    done = subprocess.run(command, input=asked, capture_output=True, env=environment, check=False)
    head, _, rows = done.stdout.partition(b"\n")
    if done.returncode or not head:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise ArtefactError(f"the process that asks {file} ended: {lines[-1]}")
    failed = json.loads(head)
    if failed:
        raise (DataError if failed["kind"] == "data" else ArtefactError)(failed["sentence"])
    return pl.read_ipc_stream(rows)


def check_result(file: Path) -> None:
    """Raise ConfigError where a name ends as nothing that a result can be written as."""
    if file.suffix.lower() not in WRITERS:
        raise ConfigError(f"the result is to go to {file}, expected a name that ends in {', '.join(WRITERS)}")


def write_result(rows: pl.DataFrame, file: Path) -> None:
    """Write rows as the file's name ends: Parquet, CSV or JSON; lists in a CSV are JSON.

    Raises:
        ConfigError: the name ends otherwise, or the file cannot be written.
    """
    check_result(file)
    if file.suffix.lower() == ".csv":
        rows = rows.with_columns(_as_json(rows[name]) for name, kind in rows.schema.items() if kind.is_nested())
    try:
        WRITERS[file.suffix.lower()](rows, file)
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror or error}") from error


def _as_json(column: pl.Series) -> pl.Series:
    texts = [
        None if value is None else json.dumps(value, default=str, ensure_ascii=False) for value in column.to_list()
    ]
    return pl.Series(column.name, texts, dtype=pl.String)


def answer(file: Path, sql: str) -> bytes:
    """Be the process that asks: what ``ask`` reads."""
    try:
        with connect(file) as connection:
            for setting in CLOSED:
                connection.execute(setting)
            _give_up_all()
            cursor = connection.execute(sql)
            names = [column[0] for column in cursor.description or []]
            rows = cursor.fetchall() if names else []
    except ArtefactError as error:
        return _failed("artefact", str(error))
    except (duckdb.Error, ValueError) as error:  # ValueError: a time beyond the years that Python has
        return _failed("data", f"DuckDB refused the query: {' '.join(str(error).split())}")
    return b"{}\n" + _frame(names, rows).write_ipc_stream(None).getvalue()


def _failed(kind: str, sentence: str) -> bytes:
    return json.dumps({"kind": kind, "sentence": sentence}).encode() + b"\n"


def _give_up_all() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    give_up_rights()


def _frame(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Rows as a table; columns of one name are numbered, and a kind that Arrow does not have becomes text."""
    columns, taken = list[pl.Series](), set[str]()
    for place, given in enumerate(names):
        name = next(n for n in (given, *(f"{given}_{more}" for more in range(1, len(names) + 1))) if n not in taken)
        taken.add(name)
        values = [row[place] for row in rows]
        try:
            column = pl.Series(name, values, strict=True)
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            column = pl.Series(name, [None if value is None else str(value) for value in values], dtype=pl.String)
        if column.dtype == pl.Object:
            column = pl.Series(name, [None if value is None else str(value) for value in values], dtype=pl.String)
        columns.append(column)
    return pl.DataFrame(columns)


if __name__ == "__main__":
    sys.stdout.buffer.write(answer(Path(sys.argv[1]), sys.stdin.buffer.read().decode()))
