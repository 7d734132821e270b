"""Opening a store: the current generation's arrays and tables, and the uploads since laid over them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from recsys.arrays import read
from recsys.diversity import ListSettings, Variety
from recsys.errors import ArtefactError
from recsys.live.snapshot import ITEM, Snapshot
from recsys.live.taste import touched_of
from recsys.model import Model
from recsys.overlay import UNTOUCHED, Touched, Uploads
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.store.live import LiveReader
from recsys.store.lookup import FILE as LOOKUP
from recsys.store.lookup import Lookup, open_lookup
from recsys.store.tables import FILE, StoredTables
from recsys.traits import Traits
from recsys.types import Float32, Tables

Backend = Literal["duckdb", "lmdb"]
NEEDED_FACTS = ("generation", "last_live_number")
__all__ = ["ITEM", "check_sizes", "file_sizes", "open_generation", "open_store", "read_facts"]


def open_store(folder: Path, backend: Backend | Lookup = "duckdb", name: str | None = None) -> Recommender:
    """Open a generation, read-only.

    Args:
        folder: of the store.
        backend: where stored lists are looked up: in the DuckDB file, or in serving.lmdb, which says the same and may
            be open already.
        name: of the generation; the current one by default.

    Raises:
        ArtefactError: there is no such store, nothing was published in it, or a file is damaged.
    """
    store = Store(folder)
    return open_generation(store, store.current() if name is None else store.generation(name), backend)


def open_generation(store: Store, generation: Path, backend: Backend | Lookup = "duckdb") -> Recommender:
    """Open a generation by its folder, which may still be one that is being written, read-only.

    Raises:
        ArtefactError: a file is missing or damaged.
    """
    facts = read_facts(generation)
    sizes = dict(facts.get("files", {}))
    if backend == "duckdb":
        sizes.pop(LOOKUP, None)  # a store that has lost it still serves, if slower
    check_sizes(generation, sizes)
    name, taken_in = str(facts["generation"]), int(facts["last_live_number"])
    arrays = generation / "arrays"
    model = Model.load(arrays)
    since = Since(store, Snapshot.at(model, name, store.uploads, taken_in))
    tables: Tables = StoredTables(generation / FILE) if backend == "duckdb" else _lookup(backend, generation)
    return Recommender(
        model,
        tables,
        facts,
        since.uploads(),
        edges=_scores(arrays / "edges.npy"),
        lists=_list_settings(facts),
        traits=Traits.load(arrays),
        lasts=_scores(arrays / "lasts.npy") if (arrays / "lasts.npy").exists() else None,
        since=since,
    )


def _lookup(backend: Backend | Lookup, generation: Path) -> Lookup:
    return backend if isinstance(backend, Lookup) else open_lookup(generation / LOOKUP)


def _list_settings(facts: Mapping[str, Any]) -> ListSettings:
    """How the stored lists were made; lists from before there was a choice are plain."""
    known = facts.get("settings", {}).get("lists")
    return ListSettings(popular=Variety()) if known is None else ListSettings.model_validate(known)


def _scores(file: Path) -> Float32:
    try:
        scores: Float32 = read(file)
    except (OSError, EOFError, ValueError) as error:
        raise ArtefactError(f"cannot read {file}: {error}; build again") from error
    return scores


def read_facts(generation: Path) -> dict[str, Any]:
    """Read a generation's meta.json.

    Raises:
        ArtefactError: it is missing or damaged.
    """
    try:
        facts: dict[str, Any] = json.loads((generation / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"cannot read {generation}/meta.json: {error}; build again") from error
    lacking = [name for name in NEEDED_FACTS if name not in facts] if isinstance(facts, dict) else list(NEEDED_FACTS)
    if lacking:
        raise ArtefactError(f"{generation}/meta.json does not say {', '.join(lacking)}; roll back or build again")
    return facts


def file_sizes(generation: Path) -> dict[str, int]:
    """Bytes of every file of a generation but meta.json, which holds them, by its name below the folder."""
    files = sorted(file for file in generation.rglob("*") if file.is_file() and file.name != "meta.json")
    return {file.relative_to(generation).as_posix(): file.stat().st_size for file in files}


def check_sizes(generation: Path, expected: Mapping[str, int]) -> None:
    """Refuse a generation with a file that is missing or shorter than it was: mapped ones would kill their reader.

    Raises:
        ArtefactError: there is one; the message names it.
    """
    for name, n_bytes in expected.items():
        file = generation / name
        found = file.stat().st_size if file.is_file() else None
        if found != n_bytes:
            told = "is missing" if found is None else f"has {found:,} bytes, expected {n_bytes:,}"
            raise ArtefactError(f"{file} {told}; roll back or build again")


class Since:
    """What happened since a generation was built, as whoever opened it reads it: in one environment for its life."""

    def __init__(self, store: Store, snapshot: Snapshot) -> None:
        self._live, self._snapshot = LiveReader(store.live), snapshot

    def uploads(self) -> Uploads:
        """The uploads that the generation does not know yet, and what was deleted."""
        with self._live.reading() as reading:
            return (self._snapshot if reading is None else self._snapshot.extended(reading)).uploads

    def touched(self, user_id: str) -> Touched:
        """What happened to one user's list, by whatever process."""
        with self._live.reading() as reading:
            if reading is None:
                return UNTOUCHED
            return touched_of(reading, self._snapshot.generation, self._snapshot.seen, user_id)

    def close(self) -> None:
        """Let go of the file."""
        self._live.close()
