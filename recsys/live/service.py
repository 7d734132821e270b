"""What a server's process does with the live store: it writes events and reads lists, while others do the same.

    Store, Recommender of one generation  ->  LiveUpdater  ->  record, add, delete_…; list_of, uploads, gone_rows

Opened once a process, after the fork, and again for another generation. What a method has written is on disk when it
returns and seen by all processes: from then on nobody shows a deleted user's list, a deleted track, or to a user what
that user heard or barred. Lists are made after the commit (``recsys.live.updater``), those of a few users before the
method returns.
"""

import itertools
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from recsys.errors import ArtefactError, LogLostError, NotFoundError, TakenError
from recsys.eventlog.events import (
    Clock,
    GenerationMovedError,
    KnownAudioError,
    Listened,
    TrackDeleted,
    Upload,
    UserDeleted,
)
from recsys.eventlog.pinned_reader import PinnedReader
from recsys.eventlog.snapshot import Snapshot
from recsys.eventlog.store import lost_log, open_as_allowed
from recsys.eventlog.transactions import ReadTxn, WriteTxn
from recsys.eventlog.view import LiveView, LiveViews
from recsys.live.settings import LiveSettings
from recsys.live.stored_lists import StoredLists
from recsys.live.updater import USERS_AT_ONCE, ListUpdater, UpdateThread
from recsys.live.validation import refusal, time_of
from recsys.ranking.uploaded_tracks import UploadedTracks
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.store.lmdb_lookup import space_key
from recsys.types import Float32, Space
from recsys.util.files import moved

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a batch: events taken in, those known by their id, and places of refused ones with reasons."""

    recorded: int
    repeated: int
    refused: list[tuple[int, str]]


class LiveUpdater:
    """The live store under one generation; thread-safe, but for ``get`` and ``release``, which one thread calls."""

    def __init__(self, store: Store, recommender: Recommender, clock: Clock = time.time) -> None:
        """Open the live store, made if it is not there; a thread brings this generation's lists up to the log.

        Raises:
            ArtefactError: the file is damaged.
        """
        self._store, self.generation = store, recommender.generation
        self._stored = stored = StoredLists(recommender, store.generation(self.generation))
        self._applied_seq = stored.applied_seq
        self._live = open_as_allowed(store.live)
        with suppress(ArtefactError):  # on a full disk, say: what is missing is made with the first write
            self._live.prepare()
        self._views = LiveViews(Snapshot.at(stored.model, self.generation, store.uploads, stored.applied_seq))
        reach = LiveSettings.of(recommender.facts.get("settings", {})).reach
        self._clock = clock
        self._list_updater = ListUpdater(self._live, stored, self._views, reach, clock)
        self._update_thread: UpdateThread | None = None
        self._following, self._is_retired = threading.Lock(), False
        self._pinned = PinnedReader(self._live, self.generation, stored.applied_seq, self._views)
        self.get = self._pinned.get  # what every call asks, on the event loop
        try:
            with self._live.reading() as reading:
                self._views.at(reading)
                lost = lost_log(reading, stored.applied_seq)
        except BaseException:
            self.close()
            raise
        if lost:
            _LOG.error("%s", lost)
        else:
            self._follow()

    def retire(self) -> None:
        """Leave lists of this generation as they are from here on, except for callers that still write through this.

        On a thread: it waits for what is being derived.
        """
        with self._following:
            self._is_retired = True
            update_thread = self._update_thread
        if update_thread is not None:
            update_thread.close()

    def close(self) -> None:
        """Let go of the files that were opened here."""
        self.retire()
        self._stored.close()
        self._pinned.release()
        self._live.close()

    # ---- reading, on the event loop --------------------------------------------------------------------------------

    def get_near(self, key: bytes, space: Space) -> tuple[bytes, Set[int]] | None:
        """What SimilarTracks asks of a track's key, as ``PinnedReader.near`` finds it; for the thread that looks."""
        return self._pinned.near(space_key(space), key)

    def release(self) -> None:
        """Let go of what looks keep open; from the thread that looks."""
        self._pinned.release()

    # ---- reading, on a thread --------------------------------------------------------------------------------------

    def view(self) -> LiveView:
        """The current uploads and deletions; waits for no writer."""
        with self._live.reading() as reading:
            return self._views.at(reading)

    def version(self) -> int:
        """A number that is another one after every write of any process."""
        with self._live.reading() as reading:
            return reading.version()

    def backlog(self) -> int:
        """Count the entries of the log that the generation was built without."""
        with self._live.reading() as reading:
            return max(reading.last_seq() - self._applied_seq, 0)

    def behind(self) -> int:
        """Count the entries of the log that the lists do not take in yet; readers leave heard tracks out all the same.

        0 is the rule: a batch of many users is acknowledged before their lists are made.
        """
        return self._list_updater.behind()

    def settle(self) -> None:
        """Wait until the lists take in everything that is in the log by now.

        Raises:
            ArtefactError: they cannot be written.
        """
        self._list_updater.catch_up()

    def refresh(self, user_id: str) -> None:
        """Make a user's list anew where the session that it follows is over; where it cannot be written it stays."""
        if self._live.readonly:
            return
        try:
            self._list_updater.past(user_id)
        except ArtefactError as error:
            self._not_derived(error)

    def list_of(self, user_id: str) -> bytes | None:
        """The Record of a user whose list differs from the stored one; None for the others."""
        with self._live.reading() as reading:
            return reading.list_of(self.generation, user_id)

    def is_gone_user(self, user_id: str) -> bool:
        """Whether what this generation stores of a user must not be used; ``list_of`` comes first."""
        with self._live.reading() as reading:
            return reading.user_gone(user_id) > self._applied_seq

    def gone_rows(self) -> Set[int]:
        """Item rows of deleted tracks, uploads among them."""
        return self.view().hidden

    def uploads(self) -> UploadedTracks:
        """The uploads since this generation was built; the same object as long as they are the same."""
        return self.view().uploads

    def track_of_audio(self, content_hash: str) -> str | None:
        """Find the track, of the generation or uploaded since, that has this audio."""
        with self._live.reading() as reading:
            known = self._track_of_audio(content_hash, reading)
        if known is not None and not self._live.readonly:
            self._list_updater.neighbours()  # the process that took it in may have been killed before its lists
        return known

    def free_id(self, wanted: str) -> str:
        """An id that no track has or had: the wanted one, or that with a number."""
        with self._live.reading() as reading:
            for number in itertools.count(1):
                track_id = wanted if number == 1 else f"{wanted}-{number}"
                if not self._is_taken(track_id, reading):
                    break
        return track_id

    # ---- writing, on a thread --------------------------------------------------------------------------------------

    def record(self, listens: Sequence[Listened]) -> Recorded:
        """Take in what was heard and disliked, on disk when this returns.

        Lists of up to ``USERS_AT_ONCE`` users follow before it returns; those of more users soon after.

        Raises:
            ArtefactError: it cannot be written; then nothing of it was.
        """
        recorded, repeated, refused = 0, 0, list[tuple[int, str]]()
        now, seq, users = datetime.fromtimestamp(self._clock(), UTC), 0, dict[str, None]()
        built = (self._stored.model.items.find([listen.track_id for listen in listens]) >= 0).tolist()
        with self._committing() as writing:
            for place, (listen, is_built) in enumerate(zip(listens, built, strict=True)):
                reason = refusal(listen, writing, is_built)
                if reason is not None:
                    refused.append((place, reason))
                elif listen.event_id and writing.recorded(listen.event_id):
                    repeated += 1
                else:
                    seq = writing.append(replace(listen, at=time_of(listen, now)))
                    users[listen.user_id] = None
                    recorded += 1
        if seq:
            self._derive(list(users), seq)
        return Recorded(recorded, repeated, refused)

    def add(self, upload: Upload, vectors: Mapping[str, Float32], audio: Path | None = None) -> int:
        """Take in a track; returns how many lists it came into.

        Args:
            upload: what is known of it.
            vectors: by space, the joint one under 'hybrid', made with this generation's models.
            audio: the file, durably written, which moves to its place in ``uploads/``; None where it is there.

        Raises:
            GenerationMovedError: another generation is current; nothing was written.
            KnownAudioError: this audio is another track.
            TakenError: the id belongs to another track.
            ArtefactError: it cannot be written.
        """
        with self._store.live_lock():  # no other generation becomes current meanwhile, without vectors of this track
            current = self._store.current().name
            if current != self.generation:
                raise GenerationMovedError(
                    f"the generation {current} became current after {self.generation}; send the track again"
                )
            with moved(audio, self._store.uploads / upload.file), self._committing() as writing:
                self._check_new(upload, writing)
                seq = writing.append(upload)
                writing.set_vectors(self.generation, seq, vectors)
        try:
            reached = self._list_updater.uploads(seq)
            self._list_updater.neighbours()
            return reached
        except ArtefactError as error:  # a full disk, say: the track is kept, and comes into lists later
            self._not_derived(error)
            return 0

    def delete_track(self, track_id: str) -> None:
        """Take a track out of all lists and later builds, and the audio of an upload out of the store.

        Raises:
            NotFoundError: there is no such track.
        """
        is_built = bool(self._stored.model.items.find([track_id])[0] >= 0)
        with self._committing() as writing:
            seq = writing.upload_seq(track_id)
            if not (is_built or seq) or writing.track_gone(track_id):
                raise NotFoundError(f"no track {track_id!r} to delete; check the id")
            writing.append(TrackDeleted(track_id, _now()))
            upload = writing.upload(track_id) if seq else None
            if upload is not None:
                writing.delete("hashes", upload.content_hash.encode())
        self.view()  # bytes of this process answer again at once; other processes' with the first call
        if upload is not None:
            self._forget_audio(upload)
        self._follow()

    def delete_user(self, user_id: str) -> None:
        """Forget a user: entries, lists, and what any generation knows of them; that nothing is known is no error."""
        with self._committing() as writing:
            writing.forget_user(user_id)
            writing.append(UserDeleted(user_id, _now()))
        self._follow()

    # ---- inside ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _committing(self) -> Iterator[WriteTxn]:
        """Write to the log; on disk when the block has ended.

        Raises:
            LogLostError: it is not the log that this generation was built with.
        """
        with self._live.writing() as writing:
            lost = lost_log(writing, self._applied_seq)
            if lost:
                raise LogLostError(lost)
            yield writing

    def _derive(self, user_ids: list[str], seq: int) -> None:
        """Make the lists of a few users now, of many soon; their events are written, whatever comes of the lists."""
        if len(user_ids) > USERS_AT_ONCE:
            self._follow()
            return
        try:
            self._list_updater.users(user_ids, seq)
        except ArtefactError as error:
            self._not_derived(error)

    def _not_derived(self, error: ArtefactError) -> None:
        _LOG.warning("lists of generation %s lag behind what was heard: %s", self.generation, error)

    def _follow(self) -> None:
        """Have a thread bring lists up to the log; it begins where there was nothing to follow, as with a lost log."""
        with self._following:
            if self._update_thread is not None:
                self._update_thread.wake()
            elif not (self._is_retired or self._live.readonly):
                self._update_thread = UpdateThread(self._list_updater, self._store.folder / "derive.lock")

    def _forget_audio(self, upload: Upload) -> None:
        """Delete the audio of a deleted upload, unless the same bytes were uploaded again meanwhile."""
        with self._store.live_lock(), self._live.reading() as reading:  # under which ``add`` writes file and log
            if reading.track_of_audio(upload.content_hash) is None:
                (self._store.uploads / upload.file).unlink(missing_ok=True)

    def _check_new(self, upload: Upload, writing: WriteTxn) -> None:
        known = self._track_of_audio(upload.content_hash, writing)
        if known is not None:
            raise KnownAudioError(known)
        if self._is_taken(upload.track_id, writing):
            raise TakenError(f"track id {upload.track_id!r} belongs to another track; give another id")

    def _track_of_audio(self, content_hash: str, reading: ReadTxn) -> str | None:
        known = reading.track_of_audio(content_hash) or self._stored.track_of_audio(content_hash)
        return None if known is None or reading.track_gone(known) else known

    def _is_taken(self, track_id: str, reading: ReadTxn) -> bool:
        """Whether a track has an id, or had it: a deleted one stays deleted."""
        here = self._stored.model.items.find([track_id])[0] >= 0 or reading.upload_seq(track_id) > 0
        return bool(here) or reading.track_gone(track_id)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
