"""Looks at the live store by one thread, again and again: a transaction stays open until something is committed.

    LiveStore  ->  Glances  ->  at(user)  ->  Glance

Every call that a server answers from stored bytes asks whether its user has a list of now. Beginning a transaction for
that, reading the version and letting LMDB find its databases anew was half of what such an answer cost beyond an empty
one. LMDB writes the number of every commit into one of the first two pages of its file: mapped here, they say in 0.2 µs
that nothing was committed since the open transaction began. What is acknowledged was committed before, so it is seen.

No lock is taken here that a writer holds: read transactions of LMDB wait for nobody.
"""

from contextlib import suppress
from typing import Any, NamedTuple

import lmdb

from recsys.live.near import are_kept
from recsys.live.taste import known_up_to
from recsys.store.environment import FIRST
from recsys.store.live import LiveStore
from recsys.store.transactions import TRACK, USER, Reading, number_of


class Glance(NamedTuple):
    """What the log and the lists say of one user at this moment.

    ``own`` is the list of now, None where it is the stored one. ``is_gone`` says that what the generation knows of the
    user must not be used. ``is_behind`` says that events of the user wait to be taken into the list. ``deleted`` is the
    number of the last deletion of a track.
    """

    own: bytes | None
    is_gone: bool
    is_behind: bool
    deleted: int


NOTHING = Glance(None, False, False, 0)


class Glances:
    """Looks of one thread, as LMDB lets no two share a transaction."""

    def __init__(self, store: LiveStore, generation: str, taken_in: int) -> None:
        """Look for a generation that took in everything up to a number of the log."""
        self._store, self._environment = store, store.environment
        self._generation, self._taken_in = generation, taken_in
        self._prefix = f"{generation}/".encode()
        self._known: int | None = None  # sum of commits before the open transaction
        self._reading: Reading | None = None
        self._get: Any = None
        self._lists: Any = None
        self._gone: Any = None
        self._applied: int | None = None  # None where the lists take everything in
        self._deleted, self._has_near = 0, False

    def at(self, key: bytes) -> Glance | None:
        """Look at a user's key; None where it takes a thread: the file is damaged, or of an older version."""
        try:
            return self._at(key)
        except lmdb.Error:  # the file was opened anew, or is damaged
            self.rest()
        try:
            return self._at(key)
        except lmdb.Error:  # a thread will meet the same, and has words for it
            self.rest()
            return None

    def _at(self, key: bytes) -> Glance | None:
        environment = self._environment
        if environment is None:
            return NOTHING
        commits = environment.commits
        if commits is None or commits[FIRST] + commits[environment.second] != self._known:
            self._renew()
        get = self._get
        if get is None:
            return None
        own = get(self._prefix + key, None, self._lists)
        gone = None if self._gone is None else get(USER + key, None, self._gone)
        is_gone = gone is not None and number_of(gone) > self._taken_in
        is_behind = self._applied is not None and self._lags(key)
        return Glance(own, is_gone, is_behind, self._deleted)

    def near(self, letter: bytes, key: bytes, deleted: int) -> bytes | None:
        """Find the list of neighbours of a track's key.

        Args:
            letter: of the space, see ``recsys.store.lookup.space_key``.
            key: see ``recsys.store.keys.key_of``.
            deleted: number of the last deletion of a track that the caller knows of.

        Returns:
            The Record; empty bytes where the generation's list is right; None where a thread must answer: the caller
            does not know the last deletion, the track was deleted, or the lists have not been begun yet.
        """
        environment = self._environment
        if environment is None:
            return b""
        commits = environment.commits
        try:
            if commits is None or commits[FIRST] + commits[environment.second] != self._known:
                self._renew()
            get, databases = self._get, environment.databases
            if get is None or not self._has_near or self._deleted > deleted:
                return None
            if self._deleted and get(TRACK + key, None, databases["gone"]) is not None:
                return None
            found: bytes = get(self._prefix + letter + key, b"", databases["near"])
        except lmdb.Error:  # its file was opened anew, or is damaged
            self.rest()
            return None
        return found

    def _renew(self) -> None:
        """Begin another transaction, and read in it what all users have in common."""
        self.rest()
        environment, taken_in = self._environment, self._taken_in
        assert environment is not None
        databases = environment.databases
        if None in databases.values():
            return
        commits = environment.commits
        # read before the transaction begins: whatever is committed from here on makes them others
        known = None if commits is None else commits[FIRST] + commits[environment.second]
        transaction = environment.lmdb.begin()
        self._reading = reading = Reading(transaction, databases)
        self._get, self._known, self._lists = transaction.get, known, databases["lists"]
        self._gone = databases["gone"] if reading.last_user_gone() > taken_in else None
        applied = reading.applied(self._generation)
        applied = taken_in if applied is None else applied
        self._applied = None if applied >= reading.last_number() else applied
        self._deleted = reading.last_deletion()
        self._has_near = are_kept(reading, self._generation, taken_in)

    def _lags(self, key: bytes) -> bool:
        """Whether a user has events that the list does not take in; asked only where somebody has."""
        assert self._reading is not None
        assert self._applied is not None
        up_to = known_up_to(self._reading, self._generation, key, self._applied)
        return next(self._reading.numbers_at(key, up_to), None) is not None

    def rest(self) -> None:
        """Let go of the open transaction, which keeps LMDB from using pages again; the next look begins another."""
        if self._reading is not None:
            with suppress(lmdb.Error):  # its file was closed
                self._reading.transaction.abort()
        self._reading = self._get = self._known = None
