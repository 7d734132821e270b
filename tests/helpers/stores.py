"""Built stores as tests use them: copied, asked by SQL, with other facts."""

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb

from recsys.store.checksums import described
from recsys.store.duckdb_tables import FILE
from recsys.store.generation import Store


def rows(store: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask a store's current file as anybody would, by DuckDB alone."""
    with duckdb.connect(Store(store).current() / FILE, read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(sql).fetchall()


TABLES = ("tracks", "recommendations", "track_neighbours", "track_vectors", "users", "build_problems", "track_audio")


def tables(store: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables but `build`."""
    return {name: rows(store, f"SELECT * FROM {name} ORDER BY ALL") for name in TABLES}


def copied(store: Path, to: Path) -> Path:
    """Copy a shared store, for a test that writes to it; servers that only read leave an empty live store there."""
    copy = Path(shutil.copytree(store, to / "store", ignore=shutil.ignore_patterns("live.lmdb*")))
    for file in copy.rglob("*"):
        file.chmod(file.stat().st_mode | 0o200)  # published files are read-only, and tests damage them
    return copy


def with_facts(folder: Path, **changes: Any) -> None:
    """Write a generation's meta.json with other facts, as publishing would: with hashes and checksum of now."""
    file = folder / "meta.json"
    facts = described(folder, json.loads(file.read_text()) | changes)
    file.write_text(json.dumps(facts))
