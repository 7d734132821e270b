"""Entries of the log to the lists of one generation; the lists take in all that came before a number, and then more.

    Writing, Snapshot  ->  Applier.catch_up  ->  lists, tastes and applied of the generation

Whoever writes applies at once, in the transaction that writes the log. Whoever makes a generation current, or opens
one whose lists lag behind, catches up: lists can always be made again from the log.
"""

from dataclasses import dataclass

import numpy as np

from recsys.live.events import Listened, TrackDeleted, Upload, UserDeleted
from recsys.live.inserts import insert_uploads
from recsys.live.popular import refresh_popular
from recsys.live.refold import Refold
from recsys.live.snapshot import Snapshot
from recsys.live.splice import without
from recsys.live.stored import Stored
from recsys.store.transactions import Reading, Writing, user_key

AT_ONCE = 500  # entries that a transaction takes in: others who write wait for it


@dataclass(frozen=True, slots=True)
class Applier:
    """Keeps the lists of one generation; ``most`` users are reached by an upload."""

    stored: Stored
    most: int

    def applied(self, reading: Reading) -> int:
        """Up to which number the lists take everything in."""
        known = reading.applied(self.stored.generation)
        return self.stored.taken_in if known is None else known

    def catch_up(self, writing: Writing, snapshot: Snapshot, at_most: int | None = None) -> tuple[Snapshot, list[int]]:
        """Apply what the lists lack.

        Args:
            writing: the transaction.
            snapshot: of the generation, not newer than the transaction.
            at_most: entries, all by default.

        Returns:
            The snapshot of now, and how many lists each upload among the entries came into.
        """
        snapshot = snapshot.extended(writing)
        start, stop = self.applied(writing), writing.last_number()
        if at_most is not None:
            stop = min(stop, start + at_most)
        if stop <= start:
            return snapshot, []
        places, users = list[int](), dict[str, None]()
        deleted: list[str] = []
        for number, event in writing.events(start):
            if number > stop:
                break
            if isinstance(event, Upload):
                places.append(snapshot.uploads.about[event.track_id]["place"])
            elif isinstance(event, Listened):
                users[event.user_id] = None
            elif isinstance(event, UserDeleted):
                writing.drop_list(self.stored.generation, event.user_id)
                users[event.user_id] = None
            elif isinstance(event, TrackDeleted):
                deleted.append(event.track_id)
        if deleted:
            self._take_out(writing, snapshot.rows_of(deleted))
        reached = insert_uploads(writing, self.stored, snapshot, places, self.most)
        refresh_popular(writing, self.stored, snapshot, places)
        refold = Refold(self.stored, snapshot)
        for user_id in users:
            refold(writing, user_id)
        writing.set_applied(self.stored.generation, stop)
        return snapshot, reached

    def _take_out(self, writing: Writing, rows: np.ndarray) -> None:
        """Take tracks out of every list that was touched."""
        changed = {}
        for key, record in writing.pairs("lists", prefix=user_key(self.stored.generation, None)):
            rest = without(record, rows)
            if rest is not None:
                changed[key] = rest
        for key, rest in changed.items():
            writing.put("lists", key, rest)
