"""What a process knows of the log beside the lists: uploads and deletions, as one value that never changes.

    ReadTxn  ->  LiveViews.at, on a thread  ->  LiveView  ->  LiveViews.now, anywhere

Who answers on the event loop takes the newest view as it is; a thread that meets a newer state of the log makes the
next one and puts it in its place. No lock is held while anybody waits for a writer.
"""

import threading
from collections.abc import Set
from dataclasses import dataclass

from recsys.eventlog.snapshot import Snapshot
from recsys.eventlog.transactions import ReadTxn
from recsys.ranking.uploaded_tracks import UploadedTracks

NOTHING_HIDDEN: Set[int] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class LiveView:
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
    def uploads(self) -> UploadedTracks:
        """The uploads since the generation."""
        return self.snapshot.uploads

    @property
    def hidden(self) -> Set[int]:
        """Item rows of deleted tracks, and of uploads that are not shown."""
        return self.uploads.hidden_rows if self.uploads.n_hidden else NOTHING_HIDDEN


class LiveViews:
    """The newest view of a process; thread-safe."""

    def __init__(self, first: Snapshot) -> None:
        self.now = LiveView(first)
        self._next = threading.Lock()

    def at(self, reading: ReadTxn) -> LiveView:
        """A view that knows at least what a reading does; the newest one, if that is newer."""
        with self._next:
            snapshot = self.now.snapshot
            extended = snapshot.extended(reading) if reading.last_seq() >= snapshot.seen else snapshot
            if extended is not snapshot:
                self.now = LiveView(extended)
            return self.now
