"""Looks at the live store by one thread, again and again: a transaction stays open until something is committed.

    LiveStore  ->  PinnedReader  ->  get(user), near(track)

Every call that a server answers from stored bytes asks whether its user has a current list of their own. Beginning a
transaction for that, reading the version and letting LMDB find its databases anew was half of what such an answer cost
beyond an empty one. LMDB writes the number of every commit into one of the first two pages of its file: mapped here,
they say in 0.2 µs that nothing was committed since the open transaction began. What is acknowledged was committed
before, so it is seen: a transaction that began while a commit was under way, and does not see it yet, is kept for one
look only.

No lock is taken here that a writer holds: read transactions of LMDB wait for nobody.
"""

from collections.abc import Set
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

import lmdb

from recsys.eventlog.lmdb_env import FIRST
from recsys.eventlog.store import LiveStore
from recsys.eventlog.transactions import TRACK, USER, ReadTxn, seq_of
from recsys.eventlog.user_state import known_up_to

# The current list of a user, None where it is the stored one; whether what the generation knows of the user must not be
# used; item rows that nobody must be shown.
PinnedUser: TypeAlias = tuple[bytes | None, bool, Set[int]]
NOTHING: PinnedUser = (None, False, frozenset())


class DeletionView(Protocol):
    """What a process knows of deletions (``recsys.eventlog.view``)."""

    @property
    def deleted(self) -> int:
        """Number of the last deletion of a track that it knows."""

    @property
    def hidden(self) -> Set[int]:
        """Item rows that nobody must be shown."""


class DeletionViews(Protocol):
    """The newest view, which threads bring up to date."""

    @property
    def now(self) -> DeletionView:
        """The newest view."""


class PinnedReader:
    """Looks of one thread, as LMDB lets no two share a transaction."""

    def __init__(self, store: LiveStore, generation: str, applied_seq: int, views: DeletionViews) -> None:
        """Look for a generation that took in everything up to a number of the log."""
        self._environment, self._views = store.environment, views
        self._generation, self._applied_seq = generation, applied_seq
        self._prefix = f"{generation}/".encode()
        self._commits: Any = None
        self._second = 0
        self._known: int | None = None  # sum of commits before the open transaction
        self._reading: ReadTxn | None = None
        self._get: Any = None
        self._lists: Any = None
        self._gone: Any = None
        self._applied: int | None = None  # None where the lists take everything in
        self._deleted, self._has_near = 0, False
        self._hidden: Set[int] = frozenset()
        # whether a user's list alone decides: nobody was deleted, all lists take everything in, deletions are known
        self._is_plain = False

    def get(self, key: bytes) -> PinnedUser | None:
        """Look at a user's key; None where it takes a thread.

        So it is where a track was deleted a moment ago, the user's list does not take in what was heard, or the file is
        damaged or of an older version. In one piece for speed, as ``recsys.serving.fast_path.FastPath.recommend`` is.
        """
        try:
            commits = self._commits
            if commits is None or commits[FIRST] + commits[self._second] != self._known:
                self._renew()
            own = self._get(self._prefix + key, None, self._lists)
            return (own, False, self._hidden) if self._is_plain else self._judged(own, key)
        except (lmdb.Error, TypeError):
            return self._get_again(key)

    def _get_again(self, key: bytes) -> PinnedUser | None:
        """Look where there is no file, where some of its databases are not there, or where it was opened anew."""
        if self._environment is None:
            return NOTHING
        self.release()
        try:
            self._renew()
            return None if self._get is None else self._judged(self._get(self._prefix + key, None, self._lists), key)
        except lmdb.Error:  # a thread will meet the same, and has words for it
            self.release()
            return None

    def _judged(self, own: bytes | None, key: bytes) -> PinnedUser | None:
        """Look at what else may decide."""
        view = self._views.now
        if self._deleted > view.deleted:
            return None
        self._hidden = view.hidden
        self._is_plain = self._gone is None and self._applied is None
        gone = None if self._gone is None else self._get(USER + key, None, self._gone)
        is_gone = gone is not None and seq_of(gone) > self._applied_seq
        return None if self._lags(key) else (own, is_gone, self._hidden)

    def near(self, letter: bytes, key: bytes) -> tuple[bytes, Set[int]] | None:
        """Find the list of neighbours of a track's key, and the rows that nobody must be shown.

        Args:
            letter: of the space, see ``recsys.store.lmdb_lookup.space_key``.
            key: see ``recsys.store.keys.key_of``.

        Returns:
            The Record, empty bytes where the generation's list is right; None where a thread must answer: a track was
            deleted a moment ago, it was this one, or the lists have not been begun yet.
        """
        if self._environment is None:
            return b"", frozenset()
        try:
            commits = self._commits
            if commits is None or commits[FIRST] + commits[self._second] != self._known:
                self._renew()
            get, databases, view = self._get, self._environment.databases, self._views.now
            if get is None or not self._has_near or self._deleted > view.deleted:
                return None
            if self._deleted and get(TRACK + key, None, databases["gone"]) is not None:
                return None
            return get(self._prefix + letter + key, b"", databases["near"]), view.hidden
        except lmdb.Error:  # its file was opened anew, or is damaged
            self.release()
            return None

    def _renew(self) -> None:
        """Begin another transaction, and read in it what all users have in common."""
        self.release()
        environment, applied_seq = self._environment, self._applied_seq
        if environment is None or None in environment.databases.values():
            return
        databases, self._commits, self._second = environment.databases, environment.commits, environment.second
        # read before the transaction begins: whatever is committed from here on makes them others
        commits = self._commits
        pages = None if commits is None else (commits[FIRST], commits[self._second])
        transaction = environment.lmdb.begin()
        # a commit stands on its page while its writer still waits for the disk, and transactions see it only after
        # that: one begun in between is of the state before it, and good for this look alone
        known = sum(pages) if pages is not None and transaction.id() >= max(pages) else None
        self._reading = reading = ReadTxn(transaction, databases)
        self._get, self._known, self._lists = transaction.get, known, databases["lists"]
        self._gone = databases["gone"] if reading.last_user_gone() > applied_seq else None
        applied = reading.applied(self._generation)
        applied = applied_seq if applied is None else applied
        self._applied = None if applied >= reading.last_seq() else applied
        self._deleted = reading.last_deletion()
        self._has_near = reading.has_all_neighbours(self._generation, applied_seq)

    def _lags(self, key: bytes) -> bool:
        """Whether a user has events that the list does not take in; nobody has where all lists take everything in."""
        if self._applied is None or self._reading is None:
            return False
        up_to = known_up_to(self._reading, self._generation, key, self._applied)
        return next(self._reading.seqs_at(key, up_to), None) is not None

    def release(self) -> None:
        """Let go of the open transaction, which keeps LMDB from using pages again; the next look begins another."""
        if self._reading is not None:
            with suppress(lmdb.Error):  # its file was closed
                self._reading.transaction.abort()
        self._reading = self._get = self._known = None
        self._is_plain = False
