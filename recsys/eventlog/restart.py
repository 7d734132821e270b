"""Going on after the live log was lost: a new one, or an older copy, above the numbers that generations know.

    store  ->  restart_log  ->  live.lmdb whose next entry no generation takes for one that it was built with

It is done on purpose only: what the lost log held since the last build is given up, deletions among it.
"""

from pathlib import Path

import polars as pl

from recsys.errors import ArtefactError
from recsys.eventlog.archive import AT_ONCE, archive_files
from recsys.eventlog.replay import applied_by_all
from recsys.eventlog.store import lost_log, open_live
from recsys.store.generation import Store


def restart_log(folder: Path) -> int:
    """Let the live log of a store go on above all numbers that its generations and its archive know; returns it.

    Listens that are in the archive stay there. What was deleted before, and is still in the tables, comes back with the
    next build unless it is deleted again.

    Raises:
        ArtefactError: the log lacks nothing, is damaged, or a build is running.
    """
    store = Store(folder)
    store.current()
    with store.build_lock(), store.live_lock(), open_live(store.live, write=True) as live:
        assert live is not None
        known, moved = applied_by_all(store), _last_moved(store)
        with live.reading() as reading:
            if lost_log(reading, known) is None:
                raise ArtefactError(f"the live log of {folder} lacks nothing that generations know; nothing was done")
        while True:  # an older copy still has listens that have gone into the archive since
            with live.writing() as writing:
                if writing.moved_up_to() >= moved or writing.let_go(moved, AT_ONCE) >= moved:
                    writing.begin_above(max(known, moved))
                    return max(known, moved)


def _last_moved(store: Store) -> int:
    """The number of the newest listen in the archive, 0 if there is none."""
    last = 0
    for file in archive_files(store):
        try:
            last = max(last, pl.scan_parquet(file, glob=False).select(pl.col("number").max()).collect().item() or 0)
        except pl.exceptions.PolarsError as error:
            raise ArtefactError(
                f"the archive's file {file} cannot be read: {error}; restore it from a backup"
            ) from error
    return last
