"""Answering from the newest generation: a new one is noticed, opened beside the old one, and takes its place.

    CURRENT changes  ->  open_answers, on a thread  ->  Current.answers = the new ones

A call goes on with the answers that it began with, so none fails and none is mixed; the old ones are let go of with the
last call that holds them. A generation that cannot be opened is told of once and tried again later; until then the
old one goes on answering.
"""

import asyncio
import logging
import time
from pathlib import Path

from recsys.errors import ArtefactError
from recsys.live.service import Live
from recsys.serving.answers import Answers, Current
from recsys.store.generation import Store
from recsys.store.lookup import FILE, open_lookup
from recsys.store.opened import Backend, open_store

LOOK_S = 0.5  # between looks at CURRENT
AGAIN_S = 30.0  # until a generation that could not be opened is tried again

_LOG = logging.getLogger(__name__)


def open_answers(folder: Path, backend: Backend = "lmdb") -> Answers:
    """Open a store's current generation and its live store; after the fork, as LMDB files are not shared across one.

    Raises:
        ArtefactError: nothing was published here, or a file is missing or damaged.
    """
    store = Store(folder)
    generation = store.current()
    lookup = open_lookup(generation / FILE) if backend == "lmdb" else None
    recommender = open_store(folder, lookup or backend, generation.name)
    return Answers(recommender, lookup, Live(store, recommender))


async def follow(current: Current, folder: Path, backend: Backend, every_s: float = LOOK_S) -> None:
    """Look for a new generation until cancelled, and let it answer; one that cannot be opened is tried again later."""
    refused, again_at = "", 0.0
    while True:
        await asyncio.sleep(every_s)
        try:
            named = Store(folder).current().name
        except ArtefactError:  # CURRENT is away, as when the store is being moved: what is open goes on answering
            continue
        if named == current.answers.generation or (named == refused and time.monotonic() < again_at):
            continue
        try:
            current.answers = await asyncio.to_thread(open_answers, folder, backend)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one generation, the next must be noticed
            if named != refused:
                _LOG.error(
                    "%s; generation %s goes on answering", error, current.answers.generation,
                    exc_info=None if isinstance(error, ArtefactError) else error,
                )  # fmt: skip
            refused, again_at = named, time.monotonic() + AGAIN_S  # there may be room on the disk by then
        else:
            refused = ""
            _LOG.info("serving generation %s", current.answers.generation)
