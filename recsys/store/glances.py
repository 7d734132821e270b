"""Looks at the live store by one thread, again and again: a transaction stays open until something is committed.

    LiveStore  ->  Glances  ->  at(own, gone, version)

Every call that a server answers from stored bytes asks whether its user has a list of now. Beginning a transaction for
that, reading the version and letting LMDB find its databases anew was half of what such an answer cost beyond an empty
one. LMDB writes the number of every commit into one of the first two pages of its file: mapped here, they say in 0.2 µs
that nothing was committed since the open transaction began. What is acknowledged was committed before, so it is seen.
"""

from typing import Any

import lmdb

from recsys.store.environment import FIRST
from recsys.store.live import LiveStore


class Glances:
    """Looks of one thread, as LMDB lets no two share a transaction; others ask ``LiveStore.look``."""

    def __init__(self, store: LiveStore) -> None:
        self._store, self._environment = store, store.environment
        self._known: tuple[int, int] | None = None  # of the open transaction: sum of commits, and the store's version
        self._transaction: Any = None

    def at(self, own: bytes, gone: bytes | None, version: int) -> tuple[bytes | None, bytes | None]:
        """Find a user's list and, where asked for, deletion, as ``LiveStore.look`` does.

        Raises:
            StaleError: the store's version is another one than the caller knows.
            ArtefactError: the file is damaged.
        """
        environment = self._environment
        if environment is None or environment.commits is None:
            return self._store.look(own, gone, version)
        commits, databases = environment.commits, environment.databases
        known = commits[FIRST] + commits[environment.second], version
        if known == self._known:
            get = self._transaction.get
            try:
                return get(own, None, databases["lists"]), None if gone is None else get(gone, None, databases["gone"])
            except lmdb.Error:
                pass  # its file was closed, or is damaged: the store says which
        self.rest()
        found = self._store.look(own, gone, version)
        if None not in (databases["lists"], databases["gone"]):
            # begun after the commits were read: whatever is committed from here on makes them others
            self._transaction, self._known = environment.lmdb.begin(), known
        return found

    def rest(self) -> None:
        """Let go of the open transaction, which keeps LMDB from using pages again; the next look begins another."""
        if self._transaction is not None:
            self._transaction.abort()
        self._transaction = self._known = None
