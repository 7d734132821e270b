"""The DuckDB file: its tables and columns by name and type, and looking lists up in it."""

import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest

from recsys.errors import ArtefactError, DataError
from recsys.store.duckdb_tables import FILE, StoredTables, count_rows, query, write_tables

BUILD = {
    "generation": "g1", "created_at": datetime(2026, 1, 2, tzinfo=UTC), "settings": {"seed": 0}, "versions": {},
    "counts": {"tracks": 2}, "durations": {"als": 0.5}, "inputs": {},
}  # fmt: skip
# as the design promises them to anyone's SQL
DESIGN = {
    "tracks": {
        "track_id": "VARCHAR", "title": "VARCHAR", "artist": "VARCHAR", "album": "VARCHAR", "genres": "VARCHAR[]",
        "year": "INTEGER", "duration_s": "FLOAT", "path": "VARCHAR", "plays": "DOUBLE", "is_cold": "BOOLEAN",
    },
    "recommendations": {
        "user_id": "VARCHAR", "rank": "INTEGER", "track_id": "VARCHAR", "score": "FLOAT", "reason_track_id": "VARCHAR",
    },
    "track_neighbours": {
        "track_id": "VARCHAR", "rank": "INTEGER", "neighbour_id": "VARCHAR", "score": "FLOAT", "space": "VARCHAR",
    },
    "track_vectors": {"track_id": "VARCHAR", "space": "VARCHAR", "vector": "FLOAT[]"},
    "users": {
        "user_id": "VARCHAR", "plays": "DOUBLE", "distinct_tracks": "INTEGER",
        "last_listened_at": "TIMESTAMP WITH TIME ZONE",
    },
    "build": {
        "generation": "VARCHAR", "created_at": "TIMESTAMP WITH TIME ZONE", "settings": "JSON", "versions": "JSON",
        "counts": "JSON", "durations": "JSON", "inputs": "JSON",
    },
    "build_problems": {
        "kind": "VARCHAR", "source": "VARCHAR", "row": "BIGINT", "value": "VARCHAR", "reason": "VARCHAR",
    },
}  # fmt: skip


def blocks() -> list[tuple[str, Iterator[pl.DataFrame]]]:
    """Two users in two blocks, their columns in another order than the table's; u3 has an empty list."""
    lists = [
        pl.DataFrame({"track_ids": [["b", "a"]], "user_id": ["u1"], "scores": [[2.0, 0.5]],
                      "reason_track_ids": [["c", None]]}),
        pl.DataFrame({"user_id": ["u2", "u3"], "track_ids": [["a"], []], "scores": [[1.5], []],
                      "reason_track_ids": [[None], []]},
                     schema_overrides={"reason_track_ids": pl.List(pl.String), "track_ids": pl.List(pl.String)}),
    ]  # fmt: skip
    neighbours = pl.DataFrame(
        {"track_id": ["a", "a"], "space": ["taste", "sound"], "neighbour_ids": [["b"], ["c"]], "scores": [[0.9], [0.1]]}
    )
    tracks = pl.DataFrame({"track_id": ["a", "b"], "genres": [["x"], []], "year": [1999, None], "plays": [2.0, 0.0]})
    audio = pl.DataFrame({"track_id": ["b", "a"], "content_hash": ["ff", "ff"]})
    return [
        ("tracks", iter([tracks])),
        ("recommendation_lists", iter(lists)),
        ("neighbour_lists", iter([neighbours])),
        ("track_audio", iter([audio])),
    ]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / FILE
    write_tables(path, blocks(), BUILD)
    return path


def test_tables_and_columns_are_those_of_the_design(file: Path) -> None:
    with duckdb.connect(file, read_only=True) as connection:
        for table, columns in DESIGN.items():
            found = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE {table}").fetchall()}
            assert found == columns, table


def test_the_views_unfold_the_lists(file: Path) -> None:
    names, found = query(file, "SELECT * FROM recommendations ORDER BY user_id, rank")
    assert names == list(DESIGN["recommendations"])
    assert found == [("u1", 1, "b", 2.0, "c"), ("u1", 2, "a", 0.5, None), ("u2", 1, "a", 1.5, None)]
    _, found = query(file, "SELECT space, neighbour_id, rank FROM track_neighbours ORDER BY space")
    assert found == [("sound", "c", 1), ("taste", "b", 1)]


def test_the_build_row(file: Path) -> None:
    _, found = query(file, "SELECT generation, epoch(created_at), counts->>'tracks', settings->'seed' FROM build")
    assert found == [("g1", BUILD["created_at"].timestamp(), "2", "0")]
    assert count_rows(file, ["tracks", "recommendations"]) == {"tracks": 2, "recommendations": 3}


def test_look_ups(file: Path) -> None:
    tables = StoredTables(file)
    assert tables.recommended("u1") == [("b", 2.0, "c"), ("a", 0.5, None)]
    assert tables.recommended("u3") == tables.recommended("nobody") == []
    assert tables.neighbours("a", "sound") == [("c", pytest.approx(0.1))]
    assert tables.neighbours("a", "hybrid") == tables.neighbours("b", "sound") == []
    about = tables.about(["b", "a", "?"])
    assert {track: (known["genres"], known["year"]) for track, known in about.items()} == {
        "a": (["x"], 1999),
        "b": ([], None),
    }
    assert tables.about([]) == {}
    assert (tables.track_of_audio("ff"), tables.track_of_audio("00")) == ("a", None)
    tables.close()


def test_threads_look_up_at_the_same_time(file: Path) -> None:
    tables = StoredTables(file)
    asked = ["u1", "u2"] * 200
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(tables.recommended, asked))
    assert [len(tracks) for tracks in found] == [2, 1] * 200
    tables.close()


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT nonsense FROM tracks", "nonsense"),
        ("DROP TABLE tracks", "read-only"),
        ("INSERT INTO tracks (track_id) VALUES ('x')", "read-only"),
        ("SELEC", "syntax"),
    ],
)
def test_a_refused_query_is_one_line(file: Path, sql: str, told: str) -> None:
    with pytest.raises(DataError, match=told) as caught:
        query(file, sql)
    assert "\n" not in str(caught.value)
    assert count_rows(file, ["tracks"]) == {"tracks": 2}


def test_files_that_are_missing_or_damaged(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="cannot open"):
        StoredTables(tmp_path / "missing")
    (tmp_path / "text").write_text("no database" * 1000)
    with pytest.raises(ArtefactError, match="cannot open"):
        query(tmp_path / "text", "SELECT 1")


@pytest.mark.parametrize("limit_kb", [0, 4, 100, 300, 1100])
def test_a_disk_that_fills_up_is_an_os_error(tmp_path: Path, limit_kb: int) -> None:
    """A limit on the size of files stands in for the disk: the same calls fail."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_kb * 1024, former[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_tables(tmp_path / FILE, blocks(), BUILD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "rows.parquet").exists()
