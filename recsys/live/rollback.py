"""Back to an earlier generation, or on to a later one: checked, then made current by one rename.

    store, id of a generation  ->  opened as a server would  ->  CURRENT

Nothing is deleted, so a rollback can be rolled back. Servers notice within a second.
"""

from pathlib import Path

from recsys.errors import ArtefactError
from recsys.recommender import open_store
from recsys.store.generation import Store, disk_errors
from recsys.store.lmdb_lookup import FILE, open_lookup


def rollback(folder: Path, name: str | None = None) -> str:
    """Make another generation current; returns its id.

    Args:
        folder: of the store.
        name: of the generation; by default the newest of those before the current one.

    Raises:
        ArtefactError: there is none, it is damaged, or a build is running.
    """
    store = Store(folder)
    with store.build_lock():
        current = store.current().name
        earlier = [one for one in store.names() if one < current]
        if name is None and not earlier:
            raise ArtefactError(f"{folder} has no generation before {current}; it has {', '.join(store.names())}")
        chosen = store.generation(name or earlier[-1])
        open_store(folder, "duckdb", chosen.name, strict=True).close()
        open_lookup(chosen / FILE)
        _catch_up(store, chosen)
        with store.live_lock(), disk_errors("going back"):
            _catch_up(store, chosen)
            store.make_current(chosen.name)
    return chosen.name


def _catch_up(store: Store, generation: Path) -> None:
    """Bring the lists of a generation up to what was uploaded, heard and deleted while another one was current."""
    if store.live.exists():
        from recsys.live.catchup import catch_up  # only now: embedding uploads loads torch

        catch_up(store, generation)
