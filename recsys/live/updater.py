"""Entries of the log to the lists of one generation, in bounded pieces, after they were committed.

    log  ->  Piece  ->  lists computed, in a read transaction  ->  written, in a short one, if nothing changed meanwhile

The log is the truth and lists can always be made again from it, so a kill in between costs nothing: ``applied`` says
up to where all lists of a generation take everything in, and the next process goes on from there. Lists of a few
users and new tracks are made at once, ahead of the others; what is then met in the order of the log is known already.
Readers need not wait: what a list does not take in yet they read from the log (``recsys.eventlog.pinned_reader``).
"""

import fcntl
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import ArtefactError
from recsys.eventlog.events import Clock, Listened, Upload, UserDeleted
from recsys.eventlog.store import LiveStore
from recsys.eventlog.transactions import ReadTxn
from recsys.eventlog.user_state import known_up_to
from recsys.eventlog.view import LiveViews
from recsys.live import neighbour_insert
from recsys.live.popular_list import refresh_popular
from recsys.live.stored_lists import StoredLists
from recsys.live.track_insert import TOGETHER, TrackInsert, inserts_of
from recsys.live.user_update import UpdatedUser, UserUpdate
from recsys.store.keys import key_of
from recsys.store.record import Record, is_past, is_whole

USERS_AT_ONCE = 20  # whose lists one piece makes: 16 KB each, written in some milliseconds
ENTRIES_AT_ONCE = 5000  # looked at for one piece
READERS_AT_ONCE = 100  # lists that a new track comes into in one transaction
TRIES = 4  # of computing outside a transaction what others keep changing
LOOK_S = 0.5  # between looks at what others wrote and did not derive
AGAIN_S = 5.0  # after a failure, a full disk among the reasons
BUSY_S = 0.02  # until it is seen whether another process still derives

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Piece:
    """What comes next in the log, up to number ``stop``: users whose lists follow, or uploads by their numbers."""

    stop: int
    users: tuple[str, ...] = ()
    uploads: tuple[int, ...] = ()


def next_piece(reading: ReadTxn, start: int) -> Piece | None:
    """Cut a piece from the log after a number; None where nothing comes."""
    users, uploads, stop = dict[str, None](), list[int](), start
    for n_seen, (seq, event) in enumerate(reading.whole_events(start)):
        if isinstance(event, Upload):
            if users or len(uploads) == TOGETHER:
                break
            uploads.append(seq)
        elif isinstance(event, Listened | UserDeleted):
            if uploads or (event.user_id not in users and len(users) == USERS_AT_ONCE):
                break
            users[event.user_id] = None
        # deleted tracks are left out when lists are read
        stop = seq
        if n_seen + 1 == ENTRIES_AT_ONCE:
            break
    return None if stop == start else Piece(stop, tuple(users), tuple(uploads))


class ListUpdater:
    """Keeps the lists of one generation; ``most`` users are reached by an upload. Thread-safe, on threads alone."""

    def __init__(
        self, live: LiveStore, stored: StoredLists, views: LiveViews, most: int, clock: Clock = time.time
    ) -> None:
        self._live, self._stored, self._views, self._most, self._clock = live, stored, views, most, clock
        self._updating = threading.Lock()

    def behind(self) -> int:
        """Count the entries of the log that lists do not take in yet."""
        with self._live.reading() as reading:
            behind = max(0, reading.last_seq() - self._applied(reading))
            lacks_neighbours = neighbour_insert.is_behind(reading, self._stored.generation, self._stored.applied_seq)
            return behind or int(lacks_neighbours)

    def _applied(self, reading: ReadTxn) -> int:
        known = reading.applied(self._stored.generation)
        return self._stored.applied_seq if known is None else known

    # ---- in the order of the log ---------------------------------------------------------------------------------

    def neighbours(self) -> None:
        """Bring lists of neighbours to all uploads that there are by now."""
        neighbour_insert.follow(self._live, self._stored, lambda reading: self._views.at(reading).snapshot)

    def step(self) -> bool:
        """Derive the next piece of the log; False where lists of users take everything in."""
        with self._updating:
            with self._live.reading() as reading:
                start = self._applied(reading)
                piece = next_piece(reading, start)
                if piece is None:
                    return False
                derived = self._derived(reading, self._late(reading, piece.users, start))
                inserts = self._inserts(reading, piece.uploads)
            self._write(derived, inserts, start, piece.stop)
            return True

    def catch_up(self) -> None:
        """Derive everything that is in the log by now; what comes meanwhile is for its writer."""
        with self._live.reading() as reading:
            last = reading.last_seq()
        while True:
            with self._live.reading() as reading:
                if self._applied(reading) >= last:
                    break
            self.step()
        self.neighbours()

    # ---- ahead of the others -------------------------------------------------------------------------------------

    def users(self, user_ids: Sequence[str], seq: int) -> None:
        """Make the lists of a few users whose events up to a number of the log were just written."""
        while not self._users(user_ids, seq):
            pass  # another process was quicker with what came before

    def _users(self, user_ids: Sequence[str], seq: int) -> bool:
        with self._updating:
            with self._live.reading() as reading:
                start = self._applied(reading)
                if start >= seq:
                    return True
                piece = next_piece(reading, start)
                in_order = piece is not None and piece.stop >= seq and not piece.uploads
                wanted = piece.users if piece is not None and in_order else user_ids
                derived = self._derived(reading, self._late(reading, wanted, start))
                stop = piece.stop if piece is not None and in_order else None
            self._write(derived, [], start, stop)
            return stop is None

    def uploads(self, seq: int) -> int:
        """Put a new track, by its number in the log, into the lists that it belongs in; returns how many."""
        with self._updating:
            with self._live.reading() as reading:
                start = self._applied(reading)
                piece = next_piece(reading, start)
                in_order = piece is not None and seq in piece.uploads
                inserts = self._inserts(reading, piece.uploads if piece is not None and in_order else (seq,))
                stop = piece.stop if piece is not None and in_order else None
            reached = self._write([], inserts, start, stop)
            return reached.get(seq, 0)

    def past(self, user_id: str) -> None:
        """Make a user's list anew where it was good until a time that is over.

        While other lists are made it stays: somebody waits for an answer, which can be computed.
        """
        with self._live.reading() as reading:
            record = reading.list_of(self._stored.generation, user_id)
            if record is None or not is_whole(record) or not is_past(Record(record).head, self._clock()):
                return
        if not self._updating.acquire(blocking=False):
            return
        try:
            with self._live.reading() as reading:
                derived, start = self._derived(reading, [user_id]), self._applied(reading)
            self._write(derived, [], start, None)
        finally:
            self._updating.release()

    # ---- computing and writing -----------------------------------------------------------------------------------

    def _late(self, reading: ReadTxn, users: Sequence[str], applied: int) -> list[str]:
        """Those of some users whose lists do not take in all that they heard, or who were deleted since."""
        generation, late = self._stored.generation, []
        for user_id in users:
            key = key_of(user_id)
            up_to = known_up_to(reading, generation, key, applied)
            if reading.user_gone(user_id) > up_to or next(reading.seqs_at(key, up_to), None) is not None:
                late.append(user_id)
        return late

    def _derived(self, reading: ReadTxn, users: Sequence[str]) -> list[UpdatedUser]:
        update = UserUpdate(self._stored, self._views.at(reading).snapshot, self._clock())
        return [update(reading, user_id) for user_id in users]

    def _inserts(self, reading: ReadTxn, seqs: Sequence[int]) -> list[TrackInsert]:
        if not seqs:
            return []
        return inserts_of(reading, self._stored, self._views.at(reading).snapshot, seqs, self._most)

    def _write(
        self, derived: list[UpdatedUser], inserts: list[TrackInsert], start: int, stop: int | None
    ) -> dict[int, int]:
        """Write lists, new tracks into lists, and up to where lists then take everything in, if that is known.

        Returns:
            How many lists each upload came into, by its number.
        """
        reached = {insert.seq: 0 for insert in inserts}
        for insert in inserts:
            for at in range(0, len(insert.readers), READERS_AT_ONCE):
                with self._live.writing() as writing:
                    readers = insert.readers[at : at + READERS_AT_ONCE]
                    reached[insert.seq] += insert.write(writing, self._stored, readers)
        for n_tries in range(1, TRIES + 1):
            with self._live.writing() as writing:
                applied = self._applied(writing)
                if stop is not None and applied != start:
                    return reached  # another process was quicker
                late = [one.user_id for one in derived if not one.write(writing)]
                if late and n_tries == TRIES:  # others changed them time and again: once with nobody beside
                    for one in self._derived(writing, late):
                        one.write(writing)
                if inserts:
                    refresh_popular(writing, self._stored, self._views.at(writing).snapshot, list(reached))
                done = not late or n_tries == TRIES
                if done:
                    writing.set_applied(self._stored.generation, applied if stop is None else stop)
            if done:
                break
            with self._live.reading() as reading:
                derived, inserts = self._derived(reading, late), []
        return reached


class UpdateThread:
    """A thread that derives what was written and not derived: large batches, other generations', a killed worker's."""

    def __init__(self, list_updater: ListUpdater, lock: Path) -> None:
        """Begin; one process of those that have the ``lock`` file derives at a time."""
        self._list_updater, self._lock = list_updater, lock
        self._woken, self._ended = threading.Event(), threading.Event()
        self._woken.set()
        self._thread = threading.Thread(target=self._run, name="derive", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Derive now and not at the next look."""
        self._woken.set()

    def close(self) -> None:
        """End, after the piece at hand."""
        self._ended.set()
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        seen = -1
        while not self._ended.is_set():
            woken = self._woken.wait(LOOK_S)
            self._woken.clear()
            if self._ended.is_set():
                return
            try:
                behind = self._list_updater.behind()
                # who writes a few events derives them at once; what another process is at needs nobody else
                if behind and (woken or behind == seen):
                    self._derive()
                seen = behind
            except Exception as error:  # noqa: BLE001 - whatever failed, it is tried again: nobody else would see to it
                trace = None if isinstance(error, ArtefactError) else error
                _LOG.warning("lists lag behind what was heard, and are tried again: %s", error, exc_info=trace)
                self._pause(AGAIN_S)

    def _derive(self) -> None:
        while not self._ended.is_set():
            with _alone(self._lock) as alone:
                if alone and not self._list_updater.step():
                    self._list_updater.neighbours()
                    return
            if not alone:
                if not self._list_updater.behind():
                    return
                self._pause(BUSY_S)

    def _pause(self, seconds: float) -> None:
        self._ended.wait(seconds)
        self._woken.set()


@contextmanager
def _alone(lock: Path) -> Iterator[bool]:
    """Hold a lock file for a piece of work, or say False where another process has it."""
    with lock.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
