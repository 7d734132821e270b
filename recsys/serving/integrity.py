"""All files of the generation that is served, hashed beside the calls: by one slow thread of the first worker for all.

    meta.json's SHA-256, files  ->  Checker  ->  Findings, which all workers see  ->  log, metric, another generation

What is found of the DuckDB file is told, and no more: lists come from serving.lmdb. What is found of that is told, too:
each of its values has a checksum of its own, and is asked of the DuckDB file where it is damaged. Of any other file the
generation is not answered from any more (``recsys.serving.reload``).
"""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from recsys.errors import ArtefactError, DamagedError
from recsys.serving.rate_limits import shared_floats
from recsys.store.checksums import LOOKUP, TABLES, changed, check_hashes
from recsys.store.generation import Store
from recsys.store.manifest import read_facts

PIECE = 1 << 20  # bytes that are read and hashed in one go, 1 ms
PACE = 64 << 20  # bytes a second, 4 % of a core: 18 GB take 5 minutes
AGAIN_S = 24 * 3600.0  # until the same generation is looked at again
LOOK_S = 1.0  # between looks whether there is another generation
LOWEST = 19  # how nice a thread can be
_KEPT = 32  # generations that findings are kept of

_LOG = logging.getLogger(__name__)


class Findings:
    """What was found damaged, in memory that a server's processes share; made before they are forked.

    Pairs of cells: a generation, and how many of its files are damaged, below zero where it must not be answered from.
    """

    def __init__(self) -> None:
        self._cells = shared_floats(2 * _KEPT)

    def add(self, generation: str, is_fatal: bool) -> None:
        """Count a damaged file; from the one thread that looks for them."""
        name = _number(generation)
        place = next((at for at in range(_KEPT) if self._cells[2 * at] in (name, 0.0)), 0)
        known = self._cells[2 * place + 1] if self._cells[2 * place] == name else 0.0
        count = abs(known) + 1
        self._cells[2 * place + 1] = -count if is_fatal or known < 0 else count
        self._cells[2 * place] = name

    def count(self, generation: str) -> int:
        """How many files of a generation are damaged."""
        return int(abs(self._found(generation)))

    def is_refused(self, generation: str) -> bool:
        """Whether a generation must not be answered from."""
        return self._found(generation) < 0

    def _found(self, generation: str) -> float:
        name = _number(generation)
        return next((self._cells[2 * at + 1] for at in range(_KEPT) if self._cells[2 * at] == name), 0.0)


def _number(generation: str) -> float:
    return 1.0 + crc32(generation.encode())  # 0 is nobody's


class Checker:
    """The thread; ``stop`` ends it within a piece."""

    def __init__(self, store: Path, served: Callable[[], str], findings: Findings, pace: float = PACE) -> None:
        """Look at the generation that ``served`` names, now and whenever it names another one."""
        self._store, self._served, self._findings, self._pace = Store(store), served, findings, pace
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checker", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(OSError, AttributeError):  # of this thread alone, where the system has such
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
        done, at = "", 0.0
        while not self._stopped.is_set():
            generation = self._served()
            if generation != done or time.monotonic() > at + AGAIN_S:
                with suppress(ArtefactError):  # it is gone, or its meta.json is; opening it says so
                    self.check(generation)
                done, at = generation, time.monotonic()
            self._stopped.wait(LOOK_S)

    def check(self, generation: str) -> None:
        """Hash all files of a generation once, and say what is damaged.

        Raises:
            ArtefactError: there is no such generation, or its meta.json cannot be read.
        """
        folder = self._store.generation(generation)
        facts = read_facts(folder)
        for name in facts.get("sha256", {}):
            if self._stopped.is_set():
                return
            try:
                check_hashes(folder, facts, [name], self._hash_of)
            except DamagedError as error:
                self._tell(generation, name, error)
            except ArtefactError as error:
                if self._stopped.is_set() or not folder.is_dir():
                    return  # it was pruned meanwhile
                self._tell(generation, name, error)

    def _tell(self, generation: str, name: str, error: ArtefactError) -> None:
        if name == TABLES:
            _LOG.warning("%s; calls are answered without it", changed(self._store.generations / generation / name))
        elif name == LOOKUP:
            _LOG.error("%s; until then what is damaged in it is asked of the DuckDB file", error)
        else:
            _LOG.error("%s; generation %s is not answered from any more", error, generation)
        self._findings.add(generation, is_fatal=name not in (TABLES, LOOKUP))

    def _hash_of(self, file: Path) -> str:
        """SHA-256 of a file, slowly; what is read for this alone does not push other pages out of memory."""
        digest, start = hashlib.sha256(), 0
        with file.open("rb", buffering=0) as stream:
            while piece := stream.read(PIECE):
                digest.update(piece)
                with suppress(OSError, AttributeError):  # pages that are mapped stay
                    os.posix_fadvise(stream.fileno(), start, len(piece), os.POSIX_FADV_DONTNEED)
                start += len(piece)
                if self._stopped.wait(len(piece) / self._pace):
                    raise ArtefactError("the check was stopped")
        return digest.hexdigest()
