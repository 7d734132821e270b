"""What a process knows of the log beside the lists: uploads and deletions, as one value that never changes.

    Reading  ->  Views.at, on a thread  ->  View  ->  Views.now, anywhere

Who answers on the event loop takes the newest view as it is; a thread that meets a newer state of the log makes the
next one and puts it in its place. No lock is held while anybody waits for a writer.
"""

import threading
from dataclasses import dataclass
from functools import cached_property

from recsys.live.snapshot import Snapshot
from recsys.overlay import Uploads
from recsys.store.transactions import Reading


@dataclass(frozen=True, eq=False)
class View:
    """The uploads and deletions of the log up to number ``seen``."""

    snapshot: Snapshot

    @property
    def seen(self) -> int:
        """Number of the log up to which everything is known."""
        return self.snapshot.seen

    @property
    def deleted(self) -> int:
        """Number of the last deletion of a track."""
        return self.snapshot.deleted

    @property
    def uploads(self) -> Uploads:
        """The uploads since the generation."""
        return self.snapshot.uploads

    @cached_property
    def hidden(self) -> frozenset[int]:
        """Item rows of deleted tracks, and of uploads that are not shown."""
        return frozenset(self.snapshot.catalogue.hidden.tolist())


class Views:
    """The newest view of a process; thread-safe."""

    def __init__(self, first: Snapshot) -> None:
        self.now = View(first)
        self._next = threading.Lock()

    def at(self, reading: Reading) -> View:
        """A view that knows at least what a reading does; the newest one, if that is newer."""
        with self._next:
            snapshot = self.now.snapshot
            extended = snapshot.extended(reading) if reading.last_number() > snapshot.seen else snapshot
            if extended is not snapshot:
                same = self.now.hidden if extended.uploads is snapshot.uploads else None
                view = View(extended)
                if same is not None:
                    view.__dict__["hidden"] = same
                _ = view.hidden  # made here, so that nobody waits for it on the event loop
                self.now = view
            return self.now
