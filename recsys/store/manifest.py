"""Opening a store: the current generation's arrays and tables, and the uploads since laid over them."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from recsys.errors import ArtefactError, ChangedError
from recsys.eventlog.snapshot import ITEM, Snapshot
from recsys.eventlog.store import LiveReader
from recsys.eventlog.user_state import touched_of
from recsys.ranking.attributes import Traits
from recsys.ranking.catalogue_view import UNTOUCHED, Touched, Uploads
from recsys.ranking.diversity import ListSettings, Variety
from recsys.ranking.model import Model
from recsys.recommender import Recommender
from recsys.store.checksums import check_facts, check_files, check_sizes, file_sizes
from recsys.store.duckdb_tables import FILE, StoredTables
from recsys.store.generation import Store
from recsys.store.lmdb_lookup import FILE as LOOKUP
from recsys.store.lmdb_lookup import Lookup, open_lookup
from recsys.types import Float32, Tables
from recsys.util.npy import read

Backend = Literal["duckdb", "lmdb"]
NEEDED_FACTS = ("generation", "last_live_number")
_LOG = logging.getLogger(__name__)
__all__ = ["ITEM", "check_sizes", "file_sizes", "open_generation", "open_store", "read_facts"]


def open_store(
    folder: Path, backend: Backend | Lookup = "duckdb", name: str | None = None, strict: bool = False
) -> Recommender:
    """Open a generation, read-only.

    Args:
        folder: of the store.
        backend: where stored lists are looked up: in the DuckDB file, or in serving.lmdb, which says the same and may
            be open already.
        name: of the generation; the current one by default.
        strict: refuse a DuckDB file that others have changed or hold; by default serving.lmdb stands in for it.

    Raises:
        ArtefactError: there is no such store, nothing was published in it, or a file is damaged.
    """
    store = Store(folder)
    return open_generation(store, store.current() if name is None else store.generation(name), backend, strict)


def open_generation(
    store: Store, generation: Path, backend: Backend | Lookup = "duckdb", strict: bool = False
) -> Recommender:
    """Open a generation by its folder, which may still be one that is being written, read-only.

    Raises:
        ArtefactError: a file is missing or damaged.
    """
    facts = read_facts(generation)
    # a store that has lost serving.lmdb still serves, if slower
    changed = check_files(generation, facts, but={LOOKUP} if backend == "duckdb" else ())
    name, taken_in = str(facts["generation"]), int(facts["last_live_number"])
    arrays = generation / "arrays"
    model = Model.load(arrays)
    since = Since(store, Snapshot.at(model, name, store.uploads, taken_in))
    tables = _tables(backend, generation, changed, strict)
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


def _tables(backend: Backend | Lookup, generation: Path, changed: ChangedError | None, strict: bool) -> Tables:
    """Open what lists are looked up in: serving.lmdb too where the DuckDB file is another one now, or is held."""
    if changed is not None and strict:
        raise changed
    if backend != "duckdb":
        if changed is not None:
            _LOG.warning("%s; the lists come from serving.lmdb", changed)
        return backend if isinstance(backend, Lookup) else open_lookup(generation / LOOKUP)
    try:
        if changed is not None:
            raise changed
        return StoredTables(generation / FILE)
    except ChangedError as error:
        if strict:
            raise
        try:
            facts = read_facts(generation)
            check_sizes(generation, {n: size for n, size in dict(facts.get("files", {})).items() if n == LOOKUP})
            lookup = open_lookup(generation / LOOKUP)
        except ArtefactError:
            raise error from None
        _LOG.warning("%s; the lists come from serving.lmdb", error)
        return lookup


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
    check_facts(facts, generation / "meta.json")
    return facts


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
