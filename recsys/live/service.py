"""What a server's process does with the live store: it writes events and reads lists, while others do the same.

    Store, Recommender of one generation  ->  Live  ->  record, add, delete_…; list_of, uploads, gone_rows

Opened once a process, after the fork, and again for another generation. What a method has written is on disk when it
returns, in every list of this generation that it belongs in, and seen by all processes.
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

from recsys.errors import ArtefactError, NotFoundError, TakenError
from recsys.live import near
from recsys.live.apply import AT_ONCE, Applier
from recsys.live.checks import refusal
from recsys.live.events import GenerationMovedError, KnownAudioError, Listened, TrackDeleted, Upload, UserDeleted
from recsys.live.near_looks import NearLooks
from recsys.live.settings import LiveSettings
from recsys.live.snapshot import Snapshot
from recsys.live.stored import Stored
from recsys.live.taste import touched_of
from recsys.overlay import Touched, Uploads
from recsys.recommender import Recommender
from recsys.store.generation import Store, moved
from recsys.store.glances import Glances
from recsys.store.keys import key_of
from recsys.store.live import StaleError, open_as_allowed
from recsys.store.lookup import space_key
from recsys.store.transactions import USER, Reading, Writing, number_of, user_key
from recsys.types import Float32, Space

AGAIN_S = 5.0  # after a failure to bring lists up to what others wrote

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a batch: events taken in, those known by their id, and places of refused ones with reasons."""

    recorded: int
    repeated: int
    refused: list[tuple[int, str]]


class Live:
    """The live store under one generation; thread-safe."""

    def __init__(self, store: Store, recommender: Recommender) -> None:
        """Open the live store, made if it is not there, and bring this generation's lists up to the log.

        Raises:
            ArtefactError: the file is damaged or cannot be written.
        """
        self._store, self.generation = store, recommender.generation
        stored = Stored(recommender, store.generation(self.generation))
        self._taken_in, self._prefix = stored.taken_in, user_key(self.generation, None)
        self._applier = Applier(stored, LiveSettings.of(recommender.facts.get("settings", {})).reach)
        self._snapshot = Snapshot.at(stored.model, self.generation, store.uploads, stored.taken_in)
        self._gone = self._snapshot.uploads, frozenset[int]()
        self._guard, self._any_user_gone = threading.Lock(), False
        self._version, self._again_at, self._live = 0, 0.0, open_as_allowed(store.live)
        with suppress(ArtefactError):  # on a full disk, say: what is missing is made with the first write
            self._live.prepare()
        self._glances = Glances(self._live)
        self._near = NearLooks(self._live, self.generation, stored.taken_in)
        try:
            self._follow()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the files that were opened here."""
        self._applier.stored.close()
        self._glances.rest()
        self._near.rest()
        self._live.close()

    # ---- reading ---------------------------------------------------------------------------------------------------

    def version(self) -> int:
        """A number that is another one after every write of any process."""
        found = self._live.get("state", b"version")
        return 0 if found is None else number_of(found)

    def backlog(self) -> int:
        """Count the entries of the log that the generation was built without."""
        with self._live.reading() as reading:
            return max(reading.last_number() - self._taken_in, 0)

    def look(self, key: bytes) -> tuple[bytes | None, bool, frozenset[int]]:
        """What every call asks of a user's key: ``list_of``, ``is_gone_user`` and ``gone_rows``.

        For the one thread that answers calls; it keeps a transaction open, which ``rest`` lets go of.
        """
        try:
            asked = USER + key if self._any_user_gone else None
            own, gone = self._glances.at(self._prefix + key, asked, self._version)
        except StaleError:
            own, gone = self._look_anew(key)
        uploads, (known, rows) = self._snapshot.catalogue.uploads, self._gone
        is_gone = gone is not None and number_of(gone) > self._taken_in
        return own, is_gone, rows if uploads is known else self._rows_gone(uploads)

    def look_near(self, key: bytes, space: Space) -> tuple[bytes | None, Set[int]]:
        """The list of neighbours of a track's key, as ``NearLooks.at`` says it, and the rows that must not be shown.

        For the one thread that answers calls, as ``look``; it takes no lock, and reads nothing but what is committed.
        """
        snapshot = self._snapshot
        return self._near.at(space_key(space), key, snapshot.deleted), snapshot.uploads.hidden_rows

    def rest(self) -> None:
        """Let go of what ``look`` and ``look_near`` keep open; from the thread that looks."""
        self._glances.rest()
        self._near.rest()

    def _look_anew(self, key: bytes) -> tuple[bytes | None, bytes | None]:
        with self._seen():
            return self._live.look(self._prefix + key, USER + key, None)

    def list_of(self, user_id: str) -> bytes | None:
        """The Record of a user whose list differs from the stored one; None for the others."""
        return self._look_anew(key_of(user_id))[0]

    def touched(self, user_id: str) -> Touched:
        """All that happened to a user since this generation: the list, the query, what was heard and barred."""
        with self._seen() as reading:
            return touched_of(reading, self.generation, self._taken_in, user_id)

    def is_gone_user(self, user_id: str) -> bool:
        """Whether what this generation stores of a user must not be used; ``list_of`` comes first."""
        gone = self._look_anew(key_of(user_id))[1]
        return gone is not None and number_of(gone) > self._taken_in

    def gone_rows(self) -> frozenset[int]:
        """Item rows of deleted tracks, uploads among them."""
        return self._rows_gone(self.uploads())

    def _rows_gone(self, uploads: Uploads) -> frozenset[int]:
        known, gone = self._gone
        if uploads is not known:
            gone = frozenset(uploads.hidden_rows)
            self._gone = uploads, gone
        return gone

    def uploads(self) -> Uploads:
        """The uploads since this generation was built; the same object as long as they are the same."""
        if self.version() != self._version:
            with self._seen():
                pass
        return self._snapshot.uploads

    # ---- writing ---------------------------------------------------------------------------------------------------

    def record(self, listens: Sequence[Listened]) -> Recorded:
        """Take in what was heard and disliked; the lists of these users follow at once.

        Raises:
            ArtefactError: it cannot be written; then nothing of it was.
        """
        recorded, repeated, refused = 0, 0, list[tuple[int, str]]()
        now = _now()
        with self._writing() as writing:
            for place, listen in enumerate(listens):
                reason = refusal(listen, writing, self._snapshot)
                if reason is not None:
                    refused.append((place, reason))
                elif listen.event_id and writing.recorded(listen.event_id):
                    repeated += 1
                else:
                    writing.append(replace(listen, at=listen.at or now))
                    recorded += 1
        return Recorded(recorded, repeated, refused)

    def track_of_audio(self, content_hash: str) -> str | None:
        """Find the track, of the generation or uploaded since, that has this audio."""
        with self._live.reading() as reading:
            known = self._track_of_audio(content_hash, reading)
        if known is not None:
            self._follow_near()  # it may be told to be here: whoever took it in may have been killed before this
        return known

    def free_id(self, wanted: str) -> str:
        """Give an id that no track has or had: the wanted one, or that with a number."""
        with self._live.reading() as reading:
            for number in itertools.count(1):
                track_id = wanted if number == 1 else f"{wanted}-{number}"
                if not self._is_taken(track_id, reading):
                    break
        return track_id

    def add(self, upload: Upload, vectors: Mapping[str, Float32], audio: Path | None = None) -> int:
        """Take in a track; gives how many lists it came into.

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
        reached = list[int]()
        with self._store.live_lock():  # no other generation becomes current meanwhile, without vectors of this track
            current = self._store.current().name
            if current != self.generation:
                raise GenerationMovedError(
                    f"the generation {current} became current after {self.generation}; send the track again"
                )
            with moved(audio, self._store.uploads / upload.file), self._writing(reached) as writing:
                self._check_new(upload, writing)
                number = writing.append(upload)
                writing.set_vectors(self.generation, number, vectors)
        self._follow_near()
        return reached[-1]

    def delete_track(self, track_id: str) -> None:
        """Take a track out of all lists and later builds, and the audio of an upload out of the store.

        Raises:
            NotFoundError: there is no such track.
        """
        with self._writing() as writing:
            known = self._snapshot.rows_of([track_id])[0] >= 0 or writing.upload_number(track_id)
            if not known or writing.track_gone(track_id):
                raise NotFoundError(f"no track {track_id!r} to delete; check the id")
            writing.append(TrackDeleted(track_id, _now()))
            number = writing.upload_number(track_id)
            upload = next(writing.uploads(number - 1))[1] if number else None
            if upload is not None:
                writing.delete("hashes", upload.content_hash.encode())
        if upload is not None:
            (self._store.uploads / upload.file).unlink(missing_ok=True)

    def delete_user(self, user_id: str) -> None:
        """Forget a user: entries, lists, and what any generation knows of them; that nothing is known is no error."""
        with self._writing() as writing:
            writing.forget_user(user_id)
            writing.append(UserDeleted(user_id, _now()))

    # ---- inside ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self, reached: list[int] | None = None) -> Iterator[Writing]:
        """Write and bring the lists up to it, in one transaction; ``reached`` gets how many lists uploads came into."""
        with self._guard:
            with self._live.writing() as writing:
                snapshot, _ = self._applier.catch_up(writing, self._snapshot)
                self._snapshot = snapshot
                yield writing
                snapshot, came_into = self._applier.catch_up(writing, snapshot)
            self._snapshot = snapshot
            if reached is not None:
                reached += came_into

    @contextmanager
    def _seen(self) -> Iterator[Reading]:
        """Look at the store, and first take in what other processes have written."""
        with self._live.reading() as reading:
            if reading.version() == self._version or time.monotonic() < self._again_at:
                yield reading
                return
        try:
            self._follow()
        except ArtefactError as error:  # a full disk, say: what is there goes on answering, and is tried again later
            self._again_at = time.monotonic() + AGAIN_S
            _LOG.warning("lists of generation %s lag behind what was heard: %s", self.generation, error)
        with self._live.reading() as reading:
            yield reading

    def _follow_near(self) -> None:
        """Bring lists of neighbours to the uploads; others may write in between."""
        if not self._live.readonly:
            near.follow(self._live, self._applier.stored, self._snapshot.extended)

    def _follow(self) -> None:
        """Take in what was written since, and the lists too where whoever wrote did not know this generation."""
        self._take_in()
        self._follow_near()

    def _take_in(self) -> None:
        with self._guard:
            while True:
                with self._live.reading() as reading:
                    version = reading.version()
                    last = reading.last_number()
                    behind = last > (reading.applied(self.generation) or self._taken_in)
                    if not behind or self._live.readonly:
                        self._snapshot = self._snapshot.extended(reading)
                        self._any_user_gone = reading.last_user_gone() > self._taken_in  # before others trust it
                        self._version = version
                        return
                with self._live.writing() as writing:
                    snapshot, _ = self._applier.catch_up(writing, self._snapshot, AT_ONCE)
                self._snapshot = snapshot

    def _check_new(self, upload: Upload, writing: Writing) -> None:
        known = self._track_of_audio(upload.content_hash, writing)
        if known is not None:
            raise KnownAudioError(known)
        if self._is_taken(upload.track_id, writing):
            raise TakenError(f"track id {upload.track_id!r} belongs to another track; give another id")

    def _track_of_audio(self, content_hash: str, reading: Reading) -> str | None:
        known = reading.track_of_audio(content_hash) or self._applier.stored.track_of_audio(content_hash)
        return None if known is None or reading.track_gone(known) else known

    def _is_taken(self, track_id: str, reading: Reading) -> bool:
        """Whether a track has an id, or had it: a deleted one stays deleted."""
        here = self._snapshot.rows_of([track_id])[0] >= 0 or reading.upload_number(track_id) > 0
        return bool(here) or reading.track_gone(track_id)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
