"""Bringing a generation's lists up to the log before it is made current, by a build that ends or a rollback.

    Store, generation  ->  catch_up  ->  vectors of uploads that it has not met, and lists that miss nothing

Most is done while others go on writing, a little at a time; the rest, at last, under the live lock, so that no upload
comes between it and the rename of CURRENT. Listens go on meanwhile: the generation's server derives those.
"""

import logging
from pathlib import Path

from recsys.eventlog.snapshot import Snapshot
from recsys.eventlog.store import LiveStore, open_live
from recsys.eventlog.view import LiveViews
from recsys.live import neighbour_insert
from recsys.live.settings import LiveSettings
from recsys.live.stored_lists import StoredLists
from recsys.live.updater import ListUpdater
from recsys.recommender import Recommender, open_generation
from recsys.store.generation import Store

FORGOTTEN_AT_ONCE = 2000  # values of a past generation that a transaction takes away: others who write wait for it
MOST_ROUNDS = 5  # of embedding what came meanwhile: what is left to do under the live lock keeps uploads waiting

_LOG = logging.getLogger(__name__)


def catch_up(store: Store, generation: Path) -> None:
    """Bring the lists of a generation up to the log; call it before the live lock, and once more under it.

    Args:
        store: the store.
        generation: folder of the generation, which may still be one that is being written.

    Raises:
        ArtefactError: a file is damaged, or the live store cannot be written.
    """
    if not store.live.exists():
        return
    with open_live(store.live, write=True) as live:
        if live is None:
            return
        recommender = open_generation(store, generation)
        try:
            for _ in range(MOST_ROUNDS):
                if not _embed_late(store, live, recommender, generation / "models"):
                    break
            _apply_all(store, live, recommender, generation)
        finally:
            recommender.close()


def forget_generations(store: Store, generations: list[str]) -> None:
    """Take away the lists and vectors of generations that were deleted."""
    if not generations or not store.live.exists():
        return
    with open_live(store.live, write=True) as live:
        for generation in generations:
            done = live is None
            while live is not None and not done:
                with live.writing() as writing:
                    done = writing.forget_generation(generation, FORGOTTEN_AT_ONCE)


def _embed_late(store: Store, live: LiveStore, recommender: Recommender, models: Path) -> int:
    """Embed the uploads since a generation that have no vectors under it; returns how many."""
    with live.reading() as reading:
        late = [
            (seq, upload)
            for seq, upload in reading.uploads(int(recommender.facts["last_live_number"]))
            if not (upload.is_lost or reading.track_gone(upload.track_id))
            and not reading.vectors(recommender.generation, seq)
        ]
    if not late:
        return 0
    try:
        from recsys.uploads.vectors import embed_late
    except ModuleNotFoundError as error:  # going back must not wait for an installation
        _LOG.warning(
            "%d uploads are not shown under generation %s until the next build: embedding them needs %s: "
            "pip install 'recsys[build]'", len(late), recommender.generation, error.name,
        )  # fmt: skip
        return 0
    embed_late(store, live, late, recommender, models)
    with live.writing() as writing:
        neighbour_insert.begin_at(writing, recommender.generation, late[0][0])
        if (writing.applied(recommender.generation) or 0) >= late[0][0]:  # users' lists likewise: twice is as once
            writing.set_applied(recommender.generation, late[0][0] - 1)
    return len(late)


def _apply_all(store: Store, live: LiveStore, recommender: Recommender, folder: Path) -> None:
    stored = StoredLists(recommender, folder)
    views = LiveViews(Snapshot.at(stored.model, stored.generation, store.uploads, stored.applied_seq))
    ListUpdater(live, stored, views, LiveSettings.of(recommender.facts.get("settings", {})).reach).catch_up()
