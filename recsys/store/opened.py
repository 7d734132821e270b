"""Opening a store: the current generation's arrays and tables, and the uploads since laid over them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recsys.diversity import ListSettings, Variety
from recsys.errors import ArtefactError
from recsys.model import Model
from recsys.overlay import Uploads
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.store.live import open_live
from recsys.store.lookup import FILE as LOOKUP
from recsys.store.lookup import Lookup, open_lookup
from recsys.store.tables import FILE, StoredTables
from recsys.traits import Traits
from recsys.types import SPACES, Float32, Space, Tables

Backend = Literal["duckdb", "lmdb"]
ITEM = "hybrid"  # the name that an upload's joint item vector has among its vectors


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
    generation = store.current() if name is None else store.generation(name)
    facts = read_facts(generation)
    check_sizes(generation, facts.get("files", {}))
    model = Model.load(generation / "arrays")
    edges = _edges(generation / "arrays" / "edges.npy")
    uploads = _uploads(store, generation.name, int(facts["last_live_number"]), model)
    lists, traits = _list_settings(facts), Traits.load(generation / "arrays")
    tables: Tables = StoredTables(generation / FILE) if backend == "duckdb" else _lookup(backend, generation)
    return Recommender(model, tables, facts, uploads, edges=edges, lists=lists, traits=traits)


def _lookup(backend: Backend | Lookup, generation: Path) -> Lookup:
    return backend if isinstance(backend, Lookup) else open_lookup(generation / LOOKUP)


def _list_settings(facts: Mapping[str, Any]) -> ListSettings:
    """How the stored lists were made; lists from before there was a choice are plain."""
    known = facts.get("settings", {}).get("lists")
    return ListSettings(popular=Variety()) if known is None else ListSettings.model_validate(known)


def _edges(file: Path) -> Float32:
    try:
        edges: Float32 = np.load(file, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise ArtefactError(f"cannot read {file}: {error}; build again") from error
    return edges


def read_facts(generation: Path) -> dict[str, Any]:
    """Read a generation's meta.json.

    Raises:
        ArtefactError: it is missing or damaged.
    """
    try:
        facts: dict[str, Any] = json.loads((generation / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"cannot read {generation}/meta.json: {error}; build again") from error
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


def _uploads(store: Store, generation: str, taken_in: int, model: Model) -> Uploads:
    """Gather the uploads that the generation does not know yet."""
    track_ids: list[str] = []
    rows: list[Float32] = []
    spaces: dict[Space, dict[int, Float32]] = {}
    about: dict[str, Mapping[str, Any]] = {}
    with open_live(store.live) as live:
        entries = [] if live is None else list(live.uploads(after=taken_in))
        for number, upload in entries:
            vectors = live.vectors(generation, number) if live is not None else {}
            if ITEM not in vectors or int(model.items.find([upload.track_id])[0]) >= 0:
                continue
            for space in SPACES:
                if space in vectors and space != ITEM:
                    spaces.setdefault(space, {})[len(track_ids)] = vectors[space]
            track_ids.append(upload.track_id)
            rows.append(vectors[ITEM])
            about[upload.track_id] = {
                "track_id": upload.track_id, "title": upload.title, "artist": upload.artist, "album": upload.album,
                "genres": upload.genres, "year": upload.year, "duration_s": upload.duration_s,
                "path": str(store.uploads / upload.file), "plays": 0.0, "is_cold": True,
            }  # fmt: skip
    dim = model.item_vectors.shape[1]
    joint = np.stack(rows) if rows else np.zeros((0, dim), dtype=np.float32)
    return Uploads(tuple(track_ids), joint, spaces, {name: dict(known) for name, known in about.items()})
