"""`recsys sql`: anybody's SQL, which can change nothing and read nothing but the published tables."""

import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from helpers.command import run
from recsys.store import sql
from recsys.store.duckdb_tables import FILE
from recsys.store.generation import Store
from recsys.store.sql import ask

TRIED = {
    "COPY TO": "COPY (SELECT 1) TO '{out}'",
    "COPY FROM": "COPY tracks FROM '{inside}'",
    "EXPORT": "EXPORT DATABASE '{out}'",
    "ATTACH": "ATTACH '{out}' AS another",
    "ATTACH itself": "ATTACH '{file}' AS another",
    "INSTALL": "INSTALL httpfs",
    "LOAD": "LOAD httpfs",
    "LOAD a path": "LOAD '{inside}'",
    "read_text": "SELECT * FROM read_text('{inside}')",
    "read_blob": "SELECT * FROM read_blob('{inside}')",
    "read_csv": "SELECT * FROM read_csv('{inside}')",
    "read_json": "SELECT * FROM read_json('{inside}')",
    "read_parquet": "SELECT * FROM read_parquet('{inside}')",
    "a file as a table": "SELECT * FROM '{inside}'",
    "glob": "SELECT * FROM glob('/*')",
    "getenv": "SELECT getenv('HOME')",
    "SET": "SET enable_external_access = true",
    "SET another": "SET memory_limit = '1GB'",
    "RESET": "RESET lock_configuration",
    "PRAGMA": "PRAGMA enable_external_access = true",
    "PRAGMA of a profile": "PRAGMA profiling_output = '{out}'",
    "CALL": "CALL pragma_load('{inside}')",
    "CREATE": "CREATE TABLE mine (n INTEGER)",
    "CREATE SECRET": "CREATE PERSISTENT SECRET s (TYPE s3)",
    "INSERT": "INSERT INTO tracks (track_id) VALUES ('x')",
    "DROP": "DROP TABLE tracks",
    "CHECKPOINT": "FORCE CHECKPOINT",
    "two at once": "SELECT 1; COPY (SELECT 1) TO '{out}'",
}


@pytest.fixture
def asked_of(tiny_store: Path, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """What the queries name; whatever they were, no file was written and the published one is as it was."""
    file, inside = tmp_path / "published.duckdb", tmp_path / "secret.csv"
    shutil.copy(Store(tiny_store).current() / FILE, file)
    inside.write_text("secret\nsesame\n")
    before, content = sorted(tmp_path.rglob("*")), file.read_bytes()
    yield {"file": file, "inside": inside, "out": tmp_path / "out"}
    assert sorted(tmp_path.rglob("*")) == before, "a file was written"
    assert file.read_bytes() == content


@pytest.mark.parametrize("name", TRIED)
def test_what_is_not_a_question_about_the_tables_is_refused(
    name: str, asked_of: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By DuckDB as it is closed off, before the process gives up any right."""
    monkeypatch.setattr(sql, "_give_up_all", lambda: None)
    said = sql.answer(asked_of["file"], TRIED[name].format(**asked_of))
    told = json.loads(said.partition(b"\n")[0])
    if told:
        assert told["kind"] == "data"
        assert told["sentence"].startswith("DuckDB refused the query: ")
    else:  # DuckDB takes it for nothing to do
        assert name in ("CHECKPOINT", "ATTACH itself"), said
    assert b"sesame" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ("COPY TO", "read_text", "SET") else pytest.mark.long) for n in TRIED]
)
def test_the_command_refuses_it_in_one_line(name: str, asked_of: dict[str, Path], tiny_store: Path) -> None:
    file = Store(tiny_store).current() / FILE
    size = file.stat().st_size
    ran = run("sql", TRIED[name].format(**asked_of | {"file": file}), "--store", tiny_store)
    if ran.status == 0:
        assert name in ("CHECKPOINT", "ATTACH itself"), ran.out
    else:
        assert ran.status == 2
        assert "DuckDB refused the query" in ran.complaint
    assert "sesame" not in ran.out + ran.err
    assert file.stat().st_size == size


@pytest.mark.slow
def test_the_process_may_not_write_whatever_duckdb_is_told(tiny_store: Path, tmp_path: Path, monkeypatch) -> None:
    import os
    import subprocess
    import sys

    told = (
        "import sys; from recsys.store import sql; sql.CLOSED = ()\n"
        "sys.stdout.buffer.write(sql.answer(__import__('pathlib').Path(sys.argv[1]), sys.argv[2]))"
    )
    file, out = Store(tiny_store).current() / FILE, tmp_path / "out.csv"
    tmp_path.chmod(0o777)
    ran = subprocess.run(
        [sys.executable, "-c", told, str(file), f"COPY (SELECT range FROM range(100000)) TO '{out}'"],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )  # fmt: skip
    assert json.loads(ran.stdout.splitlines()[0])["kind"] == "data", ran.stderr
    assert not out.exists() or out.stat().st_size == 0


def test_the_right_to_write_files_goes_and_then_every_other(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = list[object]()
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: given_up.append((what, limits)))
    monkeypatch.setattr(sql, "give_up_rights", lambda: given_up.append("rights"))
    sql._give_up_all()
    assert given_up == [(resource.RLIMIT_CORE, (0, 0)), (resource.RLIMIT_FSIZE, (0, 0)), "rights"]


@pytest.mark.slow
def test_kinds_of_columns_come_through(tiny_store: Path) -> None:
    sql = """SELECT 1::HUGEINT AS big, 1.5::DECIMAL(5,2) AS decimal, [1, 2] AS list, {'a': 1} AS struct, uuid() AS id,
        TIMESTAMPTZ '2026-01-01 00:00:00+00' AS at, INTERVAL 1 MONTH AS length, 'x'::BLOB AS bytes, NULL AS nothing,
        1 AS n, 2 AS n, MAP {'a': 1} AS map"""
    found = ask(Store(tiny_store).current() / FILE, sql)
    assert found.columns == [
        "big",
        "decimal",
        "list",
        "struct",
        "id",
        "at",
        "length",
        "bytes",
        "nothing",
        "n",
        "n_1",
        "map",
    ]
    assert found["list"].to_list() == [[1, 2]]
    assert (found["n"][0], found["n_1"][0]) == (1, 2)
    assert ask(Store(tiny_store).current() / FILE, "SELECT 1 AS n WHERE false").columns == ["n"]


FIVE = "SELECT track_id, genres, plays FROM tracks ORDER BY track_id LIMIT 5"


@pytest.fixture(scope="module")
def five(tiny_store: Path) -> pl.DataFrame:
    return ask(Store(tiny_store).current() / FILE, FIVE)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".json"])
def test_a_result_is_written_by_who_asks(suffix: str, five: pl.DataFrame, tiny_store: Path, tmp_path: Path) -> None:
    out, sql = tmp_path / f"out{suffix}", FIVE
    ran = run("sql", sql, "--store", tiny_store, "--out", out)
    assert (ran.status, ran.out) == (0, "")
    read = {".parquet": pl.read_parquet, ".csv": pl.read_csv, ".json": pl.read_json}[suffix](out)
    assert read.columns == ["track_id", "genres", "plays"]
    assert read["track_id"].to_list() == five["track_id"].to_list()
    genres = [json.loads(one) for one in read["genres"]] if suffix == ".csv" else read["genres"].to_list()
    assert genres == five["genres"].to_list()


@pytest.mark.slow
def test_a_result_of_another_name_or_place_is_one_line(tiny_store: Path, tmp_path: Path) -> None:
    ran = run("sql", "SELECT 1", "--store", tiny_store, "--out", tmp_path / "out.xlsx")
    assert (ran.status, "ends in .parquet, .csv, .json" in ran.complaint) == (2, True)
    ran = run("sql", "SELECT 1", "--store", tiny_store, "--out", tmp_path / "away" / "out.csv")
    assert (ran.status, "cannot write" in ran.complaint) == (2, True)
