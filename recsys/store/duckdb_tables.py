"""The DuckDB file of a generation: what each table holds, writing it, and looking lists up in it.

    Recommender in memory  ->  write_tables  ->  recommendations.duckdb  ->  StoredTables (read-only)

Lists are kept one row a key with lists inside, which is smaller and makes a look-up one index probe; the names that
people query, ``recommendations`` and ``track_neighbours``, are views that unfold them. Rows arrive through Parquet
files written block by block, so memory does not grow with the catalogue.
"""

import errno
import json
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

from recsys.errors import ArtefactError, ChangedError, DataError
from recsys.types import Float32, Space

FILE = "recommendations.duckdb"

SCHEMA = """
CREATE TABLE tracks (track_id VARCHAR, title VARCHAR, artist VARCHAR, album VARCHAR, genres VARCHAR[], year INTEGER,
    duration_s FLOAT, path VARCHAR, plays DOUBLE, is_cold BOOLEAN);
CREATE TABLE users (user_id VARCHAR, plays DOUBLE, distinct_tracks INTEGER, last_listened_at TIMESTAMPTZ);
CREATE TABLE recommendation_lists (user_id VARCHAR, track_ids VARCHAR[], scores FLOAT[], reason_track_ids VARCHAR[]);
CREATE TABLE neighbour_lists (track_id VARCHAR, space VARCHAR, neighbour_ids VARCHAR[], scores FLOAT[]);
CREATE TABLE track_vectors (track_id VARCHAR, space VARCHAR, vector FLOAT[]);
CREATE TABLE track_audio (track_id VARCHAR, content_hash VARCHAR);
CREATE TABLE build (generation VARCHAR, created_at TIMESTAMPTZ, settings JSON, versions JSON, counts JSON,
    durations JSON, inputs JSON);
CREATE TABLE build_problems (kind VARCHAR, source VARCHAR, row BIGINT, value VARCHAR, reason VARCHAR);
CREATE VIEW recommendations AS
    SELECT user_id, unnest(range(1, len(track_ids) + 1))::INTEGER AS rank, unnest(track_ids) AS track_id,
        unnest(scores) AS score, unnest(reason_track_ids) AS reason_track_id
    FROM recommendation_lists;
CREATE VIEW track_neighbours AS
    SELECT track_id, unnest(range(1, len(neighbour_ids) + 1))::INTEGER AS rank, unnest(neighbour_ids) AS neighbour_id,
        unnest(scores) AS score, space
    FROM neighbour_lists;
"""
# single-column indexes, built after loading: DuckDB looks up by them in under a millisecond
INDEXES = {"tracks": "track_id", "users": "user_id", "recommendation_lists": "user_id", "neighbour_lists": "track_id",
           "track_audio": "content_hash"}  # fmt: skip
# what DuckDB says of a file that another process has open to write, and who that is
_HELD, _HOLDER = re.compile("Could not set lock|with a different configuration"), re.compile(r"\(PID \d+\)")
# DuckDB says fatal when a checkpoint finds no room
_WRITE_ERRORS = (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.FatalException, pl.exceptions.ComputeError)


def write_tables(file: Path, tables: Iterable[tuple[str, Iterator[pl.DataFrame]]], build: dict[str, Any]) -> None:
    """Create the file.

    Args:
        file: must not exist.
        tables: names of tables of the schema with their rows, block by block, columns by name.
        build: the fields of the one row of ``build``; those of type JSON as plain values.

    Raises:
        OSError: writing failed, a full disk among the reasons.
    """
    shard = file.with_name("rows.parquet")
    try:
        with duckdb.connect(file) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(SCHEMA)
            for name, blocks in tables:
                for block in blocks:
                    block.write_parquet(shard, compression="zstd", compression_level=1)
                    rows = "read_parquet(?, hive_partitioning = false)"  # a folder named key=value is no column
                    connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM {rows}", [str(shard)])
            values = [json.dumps(v) if isinstance(v, dict) else v for v in build.values()]
            marks = ", ".join("?" for _ in values)
            connection.execute(f"INSERT INTO build ({', '.join(build)}) VALUES ({marks})", values)
            for table, column in INDEXES.items():
                connection.execute(f"CREATE INDEX {table}_{column} ON {table} ({column})")
            connection.execute("CHECKPOINT")
    except _WRITE_ERRORS as error:
        told = str(error).splitlines()[0]
        raise OSError(errno.ENOSPC if "No space left" in told else None, told) from error
    finally:
        shard.unlink(missing_ok=True)


def connect(file: Path) -> duckdb.DuckDBPyConnection:
    """Open a published file for reading.

    Raises:
        ChangedError: another process holds it to write.
        ArtefactError: it is missing or damaged.
    """
    try:
        connection = duckdb.connect(file, read_only=True)
        connection.execute("SET TimeZone = 'UTC'")
    except duckdb.Error as error:
        if _HELD.search(str(error)):
            by = "".join(f" {holder}" for holder in _HOLDER.findall(str(error)))
            raise ChangedError(f"{file} is held by a client{by} that opened it to write; close it there") from error
        raise ArtefactError(f"cannot open {file}: {str(error).splitlines()[0]}; build again") from error
    return connection


def count_rows(file: Path, names: Sequence[str]) -> dict[str, int]:
    """Count the rows of tables, through a fresh read-only connection.

    Raises:
        ArtefactError: the file cannot be read.
    """
    with connect(file) as connection:
        return {name: _one(connection, f"SELECT count(*) FROM {name}", []) for name in names}


def _one(connection: duckdb.DuckDBPyConnection, query: str, values: list[Any]) -> Any:
    row = connection.execute(query, values).fetchone()
    return None if row is None else row[0]


def query(file: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one statement on a published file, read-only; returns column names and rows.

    Raises:
        DataError: DuckDB refuses the statement; the message is its first line.
    """
    with connect(file) as connection:
        try:
            cursor = connection.execute(sql.encode().decode())  # DuckDB takes half a surrogate pair badly
            names = [column[0] for column in cursor.description or []]
            return names, cursor.fetchall() if names else []
        except UnicodeEncodeError as error:
            raise DataError(f"the query {sql!a} is not UTF-8 text; give it in UTF-8") from error
        except duckdb.Error as error:
            raise DataError(f"DuckDB refused the query: {' '.join(str(error).split())}") from error


class StoredTables:
    """Look-ups in a published file; one cursor a thread, since a DuckDB connection is not shared by threads."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._connection = connect(file)
        self._threads = threading.local()

    def _fetch(self, query: str, values: list[Any]) -> list[tuple[Any, ...]]:
        cursor = getattr(self._threads, "cursor", None)
        if cursor is None:
            cursor = self._threads.cursor = self._connection.cursor()
        try:
            rows: list[tuple[Any, ...]] = cursor.execute(query, values).fetchall()
        except duckdb.Error as error:
            raise ArtefactError(f"cannot read {self._file}: {str(error).splitlines()[0]}; build again") from error
        return rows

    def recommended(self, user_id: str) -> list[tuple[str, float, str | None]]:
        """Track id, score and reason of a user's stored list, best first."""
        rows = self._fetch(
            "SELECT track_ids, scores, reason_track_ids FROM recommendation_lists WHERE user_id = ?", [user_id]
        )
        return list(zip(*rows[0], strict=True)) if rows else []

    def neighbours(self, track_id: str, space: Space) -> list[tuple[str, float]]:
        """Track id and score of a track's stored neighbours, best first; none if the space lacks the track."""
        rows = self._fetch(
            "SELECT neighbour_ids, scores FROM neighbour_lists WHERE track_id = ? AND space = ?", [track_id, space]
        )
        return list(zip(*rows[0], strict=True)) if rows else []

    def last_scores(self, space: Space, depth: int) -> tuple[list[str], Float32]:
        """Ids of all tracks with neighbours in a space, and the score at the last of ``depth`` places.

        The score is -inf where there are fewer. For generations that have no array of them.
        """
        rows = self._fetch(
            "SELECT track_id, CASE WHEN len(scores) < $1 THEN '-inf'::FLOAT ELSE scores[$1] END "
            "FROM neighbour_lists WHERE space = $2 AND len(scores) > 0", [depth, space],
        )  # fmt: skip
        return [row[0] for row in rows], np.array([row[1] for row in rows], dtype=np.float32)

    popular = b""  # records are in serving.lmdb alone

    def list_of(self, user_id: str) -> None:
        """Lists are not stored as records here."""

    def neighbours_of(self, track_id: str, space: Space) -> None:
        """Neighbours are not stored as records here."""

    def about(self, track_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What is known of tracks: the columns of ``tracks`` by track id."""
        if not track_ids:
            return {}
        columns = "track_id, title, artist, album, genres, year, duration_s, path, plays, is_cold"
        marks = ", ".join("?" for _ in track_ids)
        rows = self._fetch(f"SELECT {columns} FROM tracks WHERE track_id IN ({marks})", list(track_ids))
        names = columns.split(", ")
        return {row[0]: dict(zip(names, row, strict=True)) for row in rows}

    def track_of_audio(self, content_hash: str) -> str | None:
        """Find the track whose audio file has this content."""
        rows = self._fetch("SELECT min(track_id) FROM track_audio WHERE content_hash = ?", [content_hash])
        found: str | None = rows[0][0]
        return found

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
