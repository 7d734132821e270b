"""Opening a store: a generation's arrays and tables, and what was uploaded, heard and deleted since laid over them."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recsys.diversity import ListSettings, Variety
from recsys.errors import ArtefactError
from recsys.live.snapshot import ITEM, Snapshot
from recsys.model import Model
from recsys.overlay import Touched, Uploads
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.store.live import open_live
from recsys.store.tables import FILE, StoredTables
from recsys.types import Float32

__all__ = ["ITEM", "open_generation", "open_store", "read_facts"]


def open_store(folder: Path) -> Recommender:
    """Open the current generation, read-only.

    Raises:
        ArtefactError: there is no such store, nothing was published in it, or a file is damaged.
    """
    store = Store(folder)
    return open_generation(store, store.current())


def open_generation(store: Store, generation: Path) -> Recommender:
    """Open a generation by its folder, which may still be one that is being written, read-only.

    Raises:
        ArtefactError: a file is missing or damaged.
    """
    facts = read_facts(generation)
    model = Model.load(generation / "arrays")
    edges = _scores(generation / "arrays" / "edges.npy")
    lasts = generation / "arrays" / "lasts.npy"
    name = str(facts["generation"])
    uploads = _uploads(store, Snapshot.at(model, name, store.uploads, int(facts["last_live_number"])))
    return Recommender(
        model,
        StoredTables(generation / FILE),
        facts,
        uploads,
        edges=edges,
        lists=_list_settings(facts),
        lasts=_scores(lasts) if lasts.exists() else None,
        touched=partial(_touched, store, name, int(facts["last_live_number"])),
    )


def _list_settings(facts: Mapping[str, Any]) -> ListSettings:
    """How the stored lists were made; lists from before there was a choice are plain."""
    known = facts.get("settings", {}).get("lists")
    return ListSettings(popular=Variety()) if known is None else ListSettings.model_validate(known)


def _scores(file: Path) -> Float32:
    try:
        scores: Float32 = np.load(file, allow_pickle=False)
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
    return facts


def _uploads(store: Store, snapshot: Snapshot) -> Uploads:
    """Gather the uploads that the generation does not know yet, and what was deleted."""
    with open_live(store.live) as live:
        if live is None:
            return snapshot.uploads
        with live.reading() as reading:
            return snapshot.extended(reading).uploads


def _touched(store: Store, generation: str, taken_in: int, user_id: str) -> Touched:
    """Look up what happened to one user's list, by whatever process."""
    with open_live(store.live) as live:
        if live is None:
            return Touched(None, False)
        with live.reading() as reading:
            return Touched(reading.list_of(generation, user_id), reading.user_gone(user_id) > taken_in)
