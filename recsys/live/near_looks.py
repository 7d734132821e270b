"""Looks at the lists of neighbours since the build by one thread, that of the loop: no lock, nothing that is computed.

    LiveStore  ->  NearLooks  ->  at(letter of space, track key, last deletion)

As ``recsys.store.glances``: a transaction stays open until LMDB's own numbers say that something was committed. What it
says is then asked once and not for each call: whether the lists are kept at all, and what was deleted last.
"""

from typing import Any

import lmdb

from recsys.live.near import are_kept
from recsys.store.environment import FIRST
from recsys.store.live import LiveStore
from recsys.store.transactions import TRACK, Reading

UNCHANGED = b""


class NearLooks:
    """Looks of one thread, as LMDB lets no two share a transaction."""

    def __init__(self, store: LiveStore, generation: str, taken_in: int) -> None:
        self._environment = store.environment
        self._generation, self._taken_in = generation, taken_in
        self._prefix = f"{generation}/".encode()
        self._known: int | None = None  # sum of commits before the open transaction
        self._transaction: Any = None
        self._ready, self._deleted = False, 0

    def at(self, letter: bytes, key: bytes, deleted: int) -> bytes | None:
        """Find the list of a track's key, in the space of the letter.

        Args:
            letter: see ``recsys.store.lookup.space_key``.
            key: see ``recsys.store.keys.key_of``.
            deleted: number of the last deletion of a track that the caller knows of.

        Returns:
            The Record; ``UNCHANGED`` where the generation's list is right; None where a thread must answer: the
            caller does not know the last deletion, the track was deleted, or the lists have not been begun yet.
        """
        environment = self._environment
        if environment is None:
            return UNCHANGED
        commits = environment.commits
        try:
            if commits is None or commits[FIRST] + commits[environment.second] != self._known:
                self._renew()
            if not self._ready or self._deleted > deleted:
                return None
            get, databases = self._transaction.get, environment.databases
            if self._deleted and get(TRACK + key, None, databases["gone"]) is not None:
                return None
            found: bytes = get(self._prefix + letter + key, UNCHANGED, databases["near"])
        except lmdb.Error:  # its file was closed, or is damaged: a thread will meet the same, and has words for it
            self.rest()
            return None
        return found

    def _renew(self) -> None:
        self.rest()
        environment = self._environment
        assert environment is not None
        if None in environment.databases.values():
            return
        commits = environment.commits
        # read before the transaction begins: whatever is committed from here on makes them others
        known = None if commits is None else commits[FIRST] + commits[environment.second]
        self._transaction = environment.lmdb.begin()
        reading = Reading(self._transaction, environment.databases)
        self._ready = are_kept(reading, self._generation, self._taken_in)
        self._deleted, self._known = reading.number("state", b"deleted"), known

    def rest(self) -> None:
        """Let go of the open transaction, which keeps LMDB from using pages again; the next look begins another."""
        if self._transaction is not None:
            self._transaction.abort()
        self._transaction = self._known = None
        self._ready = False
