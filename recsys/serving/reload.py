"""Answering from the newest generation: a new one is noticed, opened beside the old one, and takes its place.

    at the start     ->  open_serving  ->  the current generation, or the newest earlier one that can be opened
    CURRENT changes  ->  open_answers, on a thread  ->  ServingState.answers = the new ones

A call goes on with the answers that it began with, so none fails and none is mixed; the old ones are let go of on a
thread, or with the last call that holds them. A generation that cannot be opened is told of once and tried again later;
until then the old one goes on answering, or an earlier one answers where a worker has only begun: a file that is
shortened under a server kills its workers, and those that take their places must not fail at once.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from recsys.errors import ArtefactError, DamagedError
from recsys.eventlog.store import open_as_allowed
from recsys.live.service import LiveUpdater
from recsys.recommender import Backend, Recommender, open_store
from recsys.serving.fast_path import FastPath, ServingState
from recsys.store.generation import Store
from recsys.store.lmdb_lookup import FILE, open_lookup
from recsys.util.npy import giving_way

LOOK_S = 0.5  # between looks at CURRENT
PAUSE_S = 0.001  # before each file of a new generation, of which there are some 40
AGAIN_S = 30.0  # until a generation that could not be opened is tried again

_LOG = logging.getLogger(__name__)


def open_answers(folder: Path, backend: Backend = "lmdb", name: str | None = None) -> FastPath:
    """Open a generation, by default the current one, and the live store; after the fork: LMDB files are not shared.

    Raises:
        ArtefactError: nothing was published here, or a file is missing or damaged.
    """
    store = Store(folder)
    generation = store.current() if name is None else store.generation(name)
    with closing(open_as_allowed(store.live)):  # for writing at once, so that it is not opened anew for that
        recommender = open_store(folder, backend, generation.name)
        return _answers(store, generation, backend, recommender)


def _answers(store: Store, generation: Path, backend: Backend, recommender: Recommender) -> FastPath:
    lookup = open_lookup(generation / FILE) if backend == "lmdb" else None  # which the recommender has open
    return FastPath(recommender, lookup, LiveUpdater(store, recommender))


def nothing_damaged(_generation: str) -> bool:
    """Say of any generation that nothing was found damaged in it."""
    return False


def open_serving(
    folder: Path, backend: Backend = "lmdb", damaged: Callable[[str], bool] = nothing_damaged
) -> tuple[FastPath, str]:
    """Open the current generation, or where that cannot be, the newest earlier one that can.

    Args:
        folder: of the store.
        backend: where lists are looked up.
        damaged: says of which generation a file was found damaged; the answers of one that was are of what is stored
            alone, and are given only where there is no other.

    Returns:
        What answers, and the id of the current generation if it could not be opened, to be given to ``watch``.

    Raises:
        ArtefactError: neither the current one, of which the message is, nor any earlier one can be opened.
    """
    store = Store(folder)
    try:
        current = store.current().name
        if damaged(current):
            raise _FoundError(f"a file of generation {current} is damaged; roll back or build again")
        return open_answers(folder, backend, current), ""
    except Exception as error:
        wanted = store.current_name() if store.has_current() else ""
        for name in store.before(wanted):
            if damaged(name):
                continue
            try:
                answers = open_answers(folder, backend, name)
            except Exception as another:  # noqa: BLE001 - whatever is wrong with this one, the next may be whole
                _LOG.warning("an earlier generation cannot be opened either: %s", another)
                continue
            told = "%s; until the current generation can be opened, the earlier one %s answers"
            _LOG.error(told, error, name, exc_info=_unless_told(error))
            return answers, wanted
        if not isinstance(error, _FoundError):
            raise
        answers = open_answers(folder, backend, wanted)
        _only_stored(answers)
        return answers, ""


class _FoundError(DamagedError):
    """A damaged file was found before."""


def _only_stored(answers: FastPath) -> None:
    answers.damaged = True
    told = "a file of generation %s is damaged; only stored lists are answered, until there is another"
    _LOG.error(told, answers.generation)


def _unless_told(error: Exception) -> Exception | None:
    """What is to be told of an error beside its words: nothing of one that was raised on purpose."""
    return None if isinstance(error, ArtefactError) else error


def _opened_beside(folder: Path, backend: Backend) -> FastPath:
    with giving_way(PAUSE_S):  # opening takes ten milliseconds in all, which calls would wait for
        return open_answers(folder, backend)


def _let_go(former: list[FastPath]) -> None:
    """Be done with answers, which are to be held by this list and by calls alone."""
    former[0].retire()
    former.clear()


def _named(folder: Path) -> str:
    """The generation that CURRENT names; on a thread, as a disk may be slow."""
    return Store(folder).current().name


async def watch(
    current: ServingState,
    folder: Path,
    backend: Backend,
    every_s: float = LOOK_S,
    refused: str = "",
    damaged: Callable[[str], bool] = nothing_damaged,
) -> None:
    """Look for a new generation until cancelled, and let it answer; one that cannot be opened is tried again later.

    ``refused`` is one that could not be opened just now; ``damaged`` says of which a file was found damaged since.
    """
    again_at = time.monotonic() + AGAIN_S
    while True:
        await asyncio.sleep(every_s)
        current.answers.release()
        if damaged(current.answers.generation) and not current.answers.damaged:
            await _leave(current, folder, backend, damaged)
        try:
            named = await asyncio.to_thread(_named, folder)
        except ArtefactError:  # CURRENT is away, as when the store is being moved: what is open goes on answering
            continue
        waits = named == refused and time.monotonic() < again_at
        if named == current.answers.generation or waits or damaged(named):
            continue
        try:
            opened = await asyncio.to_thread(_opened_beside, folder, backend)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one generation, the next must be noticed
            if named != refused:
                told = "%s; generation %s goes on answering"
                _LOG.error(told, error, current.answers.generation, exc_info=_unless_told(error))
            refused, again_at = named, time.monotonic() + AGAIN_S  # there may be room on the disk by then
        else:
            current.answers.release()  # the last calls that hold them may take long
            former, current.answers, refused = [current.answers], opened, ""
            _LOG.info("serving generation %s", current.answers.generation)
            await asyncio.to_thread(_let_go, former)  # unmapping pages that calls have looked at takes milliseconds


async def _leave(current: ServingState, folder: Path, backend: Backend, damaged: Callable[[str], bool]) -> None:
    """Go from a generation with a damaged file to the newest earlier one; to what is stored alone if there is none."""
    left = current.answers.generation
    for name in Store(folder).before(left):
        if damaged(name):
            continue
        try:
            opened = await asyncio.to_thread(open_answers, folder, backend, name)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with this one, the next may be whole
            _LOG.warning("an earlier generation cannot be opened either: %s", error)
            continue
        former, current.answers = [current.answers], opened
        _LOG.error("a file of generation %s is damaged; the earlier one %s answers", left, name)
        await asyncio.to_thread(_let_go, former)
        return
    _only_stored(current.answers)
