"""What can be asked of the live store and written to it, inside one LMDB transaction.

    log       seq -> JSON of an event, sealed; those of deleted users are overwritten, old listens go to the archive
    uploads   seq -> nothing: which entries are uploads; of_track: track key -> seq of its upload
    of_user   user key, seq -> nothing: which entries are a user's
    events    hash of an event id -> seq: what was recorded already
    gone      t and track key, or u and user key -> seq of the deletion
    deletions seq -> id of the track that was deleted
    hashes    content hash of audio -> track id
    vectors   generation/seq/name -> float32 bytes of an upload, sealed
    lists     generation/user key -> Record, the popular one under ANONYMOUS_ID; of those who listened, same key:
    near      generation/letter of space, track key -> Record, see ``recsys.live.neighbour_insert``
    tastes    row, edge, last score and query; heard: what they played and barred, with the generation's plays
    state     version -> raised by every write; applied/generation -> what its lists take in, a seq;
              deleted, forgotten -> seq of the last deletion of a track, of a user; deletions -> its format;
              moved -> up to where listens are in the archive; format (``recsys.eventlog.file_format``);
              base -> the seq that a log begun anew goes on from

A seq is the number of an entry of the log, from 1. The log is the truth, the lists of a generation are made from it. A
file of an older version has only log, hashes and vectors; a reader takes what is there. A damaged value holds nobody up
but who needs it: it is left out and told, or looked for in the log. Only ``events``, for builds, which would lose an
entry for good, raises.
"""

import hashlib
import struct
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from recsys.errors import DamagedError
from recsys.eventlog.events import Event, Listened, Removed, TrackDeleted, Upload, UserDeleted, decoded, encoded
from recsys.store.damage import met
from recsys.store.keys import key_of
from recsys.store.sealed import is_sealed, sealed, unsealed
from recsys.types import Float32

_NUMBER = struct.Struct(">Q")
TRACK, USER = b"t", b"u"
VECTORS = 2  # the format of an upload's vectors
_DELETIONS = b"deletions"  # in state: the format of ``deletions``, which was made complete once


def seq_key(seq: int) -> bytes:
    """Write a number so that keys rise as it does."""
    return _NUMBER.pack(seq)


def seq_of(key: bytes) -> int:
    """Read a number."""
    return int(_NUMBER.unpack(key)[0])


class ReadTxn:
    """Looks at one state of the store."""

    def __init__(self, transaction: Any, databases: Mapping[str, Any]) -> None:
        self.transaction, self.databases = transaction, databases

    def get(self, database: str, key: bytes) -> bytes | None:
        """Find a value."""
        opened = self.databases[database]
        found: bytes | None = None if opened is None else self.transaction.get(key, db=opened)
        return found

    def pairs(self, database: str, start: bytes = b"", prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in order, from a key on, while keys begin so."""
        opened = self.databases[database]
        if opened is None:
            return
        with self.transaction.cursor(opened) as cursor:
            if not (cursor.set_range(max(start, prefix)) if start or prefix else cursor.first()):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, value

    def number(self, database: str, key: bytes) -> int:
        """Find a number, 0 where there is none."""
        found = self.get(database, key)
        return 0 if found is None else seq_of(found)

    # ---- the log -------------------------------------------------------------------------------------------------

    def last_seq(self) -> int:
        """Number of the newest entry, 0 if there is none; of a log begun anew at least what it goes on from."""
        if self.databases["log"] is None:
            return 0
        base = self.number("state", b"base")
        with self.transaction.cursor(self.databases["log"]) as cursor:
            return max(base, seq_of(cursor.key())) if cursor.last() else base

    def moved_up_to(self) -> int:
        """Number up to which listens have left the log for the archive."""
        return self.number("state", b"moved")

    def events(self, after: int = 0) -> Iterator[tuple[int, Event]]:
        """The entries numbered above ``after``, in order.

        Raises:
            DamagedError: one of them is damaged.
        """
        for key, line in self.pairs("log", seq_key(after + 1)):
            yield seq_of(key), decoded(line)

    def whole_events(self, after: int = 0) -> Iterator[tuple[int, Event]]:
        """The same, with ``Removed`` in the place of what is damaged."""
        for key, line in self.pairs("log", seq_key(after + 1)):
            yield seq_of(key), _event(line)

    def entry(self, seq: int) -> Event:
        """Read one entry; ``Removed`` where it is damaged or is no more."""
        return _event(self.get("log", seq_key(seq)) or _NO_ENTRY)

    def uploads(self, after: int = 0) -> Iterator[tuple[int, Upload]]:
        """The uploads numbered above ``after``, in order; ``Upload.lost`` in the place of a damaged one."""
        if self.databases["uploads"] is None:
            found = ((seq, event) for seq, event in self.whole_events(after) if isinstance(event, Upload))
            yield from found
            return
        for key, _ in self.pairs("uploads", seq_key(after + 1)):
            event = self.entry(seq_of(key))
            yield seq_of(key), event if isinstance(event, Upload) else Upload.lost(seq_of(key))

    def upload(self, track_id: str) -> Upload | None:
        """Find the upload that brought a track; None where none did, or its entry is damaged."""
        seq = self.upload_seq(track_id)
        event = self.entry(seq) if seq else None
        return event if isinstance(event, Upload) and event.track_id == track_id else None

    def numbers_of_user(self, user_id: str, after: int = 0) -> list[int]:
        """Numbers above ``after`` of a user's entries."""
        return list(self.seqs_at(key_of(user_id), after))

    def seqs_at(self, key: bytes, after: int = 0) -> Iterator[int]:
        """The numbers above ``after`` of the entries of a user's key, rising."""
        prefix = key + b"\0"  # numbers do not reach 2 ** 56; keys of other ids may stand between, but are longer
        size = len(key) + _NUMBER.size
        for found, _ in self.pairs("of_user", key + seq_key(after + 1), prefix):
            if len(found) == size:
                yield seq_of(found[len(key) :])

    def listens_of(self, user_id: str, after: int = 0) -> list[tuple[int, Listened]]:
        """What a user heard and disliked, as entries numbered above ``after``, in order."""
        entries = [(seq, self.entry(seq)) for seq in self.numbers_of_user(user_id, after)]
        return [(seq, event) for seq, event in entries if isinstance(event, Listened)]

    def recorded(self, event_id: str) -> bool:
        """Whether an event of this name was taken in."""
        return self.get("events", _event_key(event_id)) is not None

    def track_of_audio(self, content_hash: str) -> str | None:
        """Find the upload with this audio; where the id that is kept of it is damaged, the log says it."""
        found = self.get("hashes", content_hash.encode())
        if found is None:
            return None
        track_id = found.decode("utf-8", "replace")
        upload = self.upload(track_id)
        if upload is not None and upload.content_hash == content_hash:
            return track_id
        same = [upload.track_id for _, upload in self.uploads() if upload.content_hash == content_hash]
        return same[-1] if same else None

    def upload_seq(self, track_id: str) -> int:
        """Number of the upload that brought a track, 0 where none did."""
        if self.databases["of_track"] is None:
            return next((seq for seq, upload in self.uploads() if upload.track_id == track_id), 0)
        return self.number("of_track", key_of(track_id))

    # ---- what is gone ---------------------------------------------------------------------------------------------

    def user_gone(self, user_id: str) -> int:
        """Number of a user's last deletion, 0 where there was none."""
        return self.number("gone", USER + key_of(user_id))

    def last_user_gone(self) -> int:
        """Number of the last deletion of a user, 0 where there was none."""
        found = self.get("state", b"forgotten")
        if found is None:  # of an older version, or nobody was
            return max((seq_of(seq) for _, seq in self.pairs("gone", prefix=USER)), default=0)
        return seq_of(found)

    def track_gone(self, track_id: str) -> bool:
        """Whether a track was deleted."""
        return self.get("gone", TRACK + key_of(track_id)) is not None

    def gone(self, kind: bytes, after: int = 0) -> list[str]:
        """Ids of the tracks or users that were last deleted by an entry numbered above ``after``."""
        seqs = [found for _, seq in self.pairs("gone", prefix=kind) if (found := seq_of(seq)) > after]
        entries = map(self.entry, seqs)
        return [
            event.track_id if isinstance(event, TrackDeleted) else event.user_id
            for event in entries
            if isinstance(event, TrackDeleted | UserDeleted)
        ]

    def deleted_tracks(self, after: int = 0) -> list[tuple[int, str]]:
        """Numbers above ``after`` and track ids of deletions, in order.

        Only these are read, but for a file that an older program wrote to, which has none of them or not the last.
        """
        last = self.last_deletion()
        if self.number("state", _DELETIONS) and self.get("deletions", seq_key(last)) is not None:
            found = self.pairs("deletions", seq_key(after + 1))
            known = ((seq_of(key), self._deleted(seq_of(key), text)) for key, text in found)
            return [(seq, track_id) for seq, track_id in known if track_id is not None]
        seqs = sorted(seq_of(seq) for _, seq in self.pairs("gone", prefix=TRACK))
        events = ((seq, self.entry(seq)) for seq in seqs if seq > after)
        return [(seq, event.track_id) for seq, event in events if isinstance(event, TrackDeleted)]

    def last_deletion(self) -> int:
        """Number of the last deletion of a track, 0 where there was none."""
        last = self._mark(b"deleted") or 0
        deletions = self.databases["deletions"]
        if deletions is None:
            return last
        with self.transaction.cursor(deletions) as cursor:
            return max(last, seq_of(cursor.key())) if cursor.last() else last

    def _deleted(self, seq: int, text: bytes) -> str | None:
        """The id of the track that an entry deleted: the ``text``, unless that is damaged and the log says it."""
        track_id = text.decode("utf-8", "replace")
        if self.number("gone", TRACK + key_of(track_id)) == seq:
            return track_id
        event = self.entry(seq)
        return event.track_id if isinstance(event, TrackDeleted) else None

    def _mark(self, key: bytes) -> int | None:
        """Find a number of the log in ``state``; one that is beyond its end is damaged, and None."""
        found = self.get("state", key)
        if found is None or seq_of(found) <= self.last_seq():
            return None if found is None else seq_of(found)
        met(DamagedError("a number of live.lmdb is beyond the end of the log"), "what follows is derived once more")
        return None

    # ---- of one generation ----------------------------------------------------------------------------------------

    def version(self) -> int:
        """A number that every write raises."""
        return self.number("state", b"version")

    def applied(self, generation: str) -> int | None:
        """Up to which number the lists of a generation take everything in; None where nothing was applied."""
        return self._mark(_applied_key(generation))

    def near_up_to(self, generation: str) -> int | None:
        """Up to which number uploads are in its lists of neighbours; None where those were not begun."""
        return self._mark(near_mark(generation))

    def last_upload(self) -> int:
        """Number of the newest upload, 0 where there is none."""
        uploads = self.databases["uploads"]
        if uploads is None:  # nothing was written yet, or by an older version
            return max((seq for seq, _ in self.uploads()), default=0)
        with self.transaction.cursor(uploads) as cursor:
            return seq_of(cursor.key()) if cursor.last() else 0

    def has_all_neighbours(self, generation: str, applied_seq: int) -> bool:
        """Whether the neighbour lists of a generation have every upload that was acknowledged.

        A process that acknowledges one puts it into them first; an older program did not, nor one that was killed
        before, so that they are made complete once, from when on they are.
        """
        return self.near_up_to(generation) is not None or self.last_upload() <= applied_seq

    def generations(self) -> list[str]:
        """The generations that have lists."""
        prefix = _applied_key("")
        return [key[len(prefix) :].decode() for key, _ in self.pairs("state", prefix=prefix)]

    def list_of(self, generation: str, user_id: str) -> bytes | None:
        """The Record of a touched user."""
        return self.get("lists", user_key(generation, user_id))

    def vectors(self, generation: str, seq: int) -> dict[str, Float32]:
        """Vectors (d,) of an upload under a generation, by name; empty if it has none there, or one is damaged."""
        prefix = f"{generation}/{seq}/".encode()
        found = self.pairs("vectors", prefix=prefix)
        try:
            return {key[len(prefix) :].decode(): _vector(key, value) for key, value in found}
        except DamagedError as error:
            met(error, "the upload is not shown until the next build or rollback makes its vectors anew")
            return {}


class WriteTxn(ReadTxn):
    """Writes as well; nothing of it is there before the transaction ends well."""

    def put(self, database: str, key: bytes, value: bytes) -> None:
        """Write a value."""
        self.transaction.put(key, value, db=self.databases[database])

    def delete(self, database: str, key: bytes) -> None:
        """Take a value away, if it is there."""
        self.transaction.delete(key, db=self.databases[database])

    def append(self, event: Event) -> int:
        """Write an event at the end of the log, with what finds it again; returns its number."""
        seq = self.last_seq() + 1
        here = seq_key(seq)
        self.put("log", here, encoded(event))
        if isinstance(event, Upload):
            self.put("uploads", here, b"")
            self.put("of_track", key_of(event.track_id), here)
            self.put("hashes", event.content_hash.encode(), event.track_id.encode())
        elif isinstance(event, Listened):
            self.put("of_user", key_of(event.user_id) + here, b"")
            if event.event_id:
                self.put("events", _event_key(event.event_id), here)
        elif isinstance(event, TrackDeleted):
            self.put("gone", TRACK + key_of(event.track_id), here)
            self.put("deletions", here, event.track_id.encode("utf-8", "surrogatepass"))
            self.put("state", b"deleted", here)
        elif isinstance(event, UserDeleted):
            self.put("gone", USER + key_of(event.user_id), here)
            self.put("state", b"forgotten", here)
        self.put("state", b"version", seq_key(self.version() + 1))
        return seq

    def let_go(self, up_to: int, at_most: int) -> int:
        """Take listens up to a number out of the log; looks at some entries, and gives up to where they are gone."""
        entries, done = list(islice(self.pairs("log", seq_key(self.moved_up_to() + 1)), at_most)), up_to
        for here, line in entries:
            if seq_of(here) > up_to:
                break
            event = _event(line)
            if isinstance(event, Listened):
                self.delete("of_user", key_of(event.user_id) + here)
            if isinstance(event, Listened | Removed):
                self.delete("log", here)
        else:
            done = seq_of(entries[-1][0]) if len(entries) == at_most else up_to
        self.put("state", b"moved", seq_key(done))
        return done

    def forget_user(self, user_id: str) -> None:
        """Overwrite a user's entries and take away their lists, of every generation."""
        key = key_of(user_id)
        for seq in self.numbers_of_user(user_id):
            self.put("log", seq_key(seq), encoded(Removed()))
            self.delete("of_user", key + seq_key(seq))
        for generation in self.generations():
            self.drop_list(generation, user_id)

    def forget_generation(self, generation: str, at_most: int | None = None) -> bool:
        """Take away what belongs to a generation that is no more, so many values at most; says whether it was all."""
        prefix, n_gone = user_key(generation, None), 0
        for database in ("lists", "tastes", "heard", "vectors", "near"):
            with self.transaction.cursor(self.databases[database]) as cursor:
                found = cursor.set_range(prefix)
                while found and cursor.key().startswith(prefix):
                    if n_gone == at_most:
                        return False
                    found, n_gone = cursor.delete(), n_gone + 1
        self.delete("state", _applied_key(generation))
        self.delete("state", near_mark(generation))
        return True

    def put_list(self, generation: str, user_id: str, record: bytes) -> None:
        """Write the list of a touched user."""
        self.put("lists", user_key(generation, user_id), record)

    def drop_list(self, generation: str, user_id: str) -> None:
        """Take the list and the taste of a user away."""
        for database in ("lists", "tastes", "heard"):
            self.delete(database, user_key(generation, user_id))

    def set_applied(self, generation: str, seq: int) -> None:
        """Say up to where the lists of a generation take everything in."""
        self.put("state", _applied_key(generation), seq_key(seq))
        self.put("state", b"version", seq_key(self.version() + 1))

    def set_vectors(self, generation: str, seq: int, vectors: Mapping[str, Float32]) -> None:
        """Write the vectors of an upload under a generation."""
        for name, vector in vectors.items():
            key = f"{generation}/{seq}/{name}".encode()
            self.put("vectors", key, sealed(VECTORS, np.asarray(vector, dtype="<f4").tobytes(), key))

    def begin_above(self, seq: int) -> None:
        """Let the log go on from a number, whatever it holds."""
        self.put("state", b"base", seq_key(seq))
        self.put("state", b"version", seq_key(self.version() + 1))

    def complete(self) -> None:
        """Index the uploads and deletions of a file that an older version wrote."""
        last = self.number("state", b"deleted")
        if not self.number("state", _DELETIONS) or (last and self.get("deletions", seq_key(last)) is None):
            for seq, track_id in self.deleted_tracks():
                self.put("deletions", seq_key(seq), track_id.encode("utf-8", "surrogatepass"))
            self.put("state", _DELETIONS, seq_key(1))
        if self.get("state", b"version") is not None:
            return
        for seq, upload in [(n, event) for n, event in self.whole_events() if isinstance(event, Upload)]:
            self.put("uploads", seq_key(seq), b"")
            self.put("of_track", key_of(upload.track_id), seq_key(seq))
        self.put("state", b"version", seq_key(1))


def user_key(generation: str, user_id: str | None) -> bytes:
    """The key of a user's list in a generation, or what all of them begin with."""
    return f"{generation}/".encode() + (b"" if user_id is None else key_of(user_id))


def near_mark(generation: str) -> bytes:
    """The key of the number up to which uploads are in a generation's lists of neighbours."""
    return f"near/{generation}".encode()


_NO_ENTRY = encoded(Removed())  # of listens that the archive has


def _event(line: bytes) -> Event:
    """Read an entry; ``Removed`` where it is damaged, and that is told."""
    try:
        return decoded(line)
    except DamagedError as error:
        met(error, "it is left out, and no build takes the log in before live.lmdb is restored")
        return Removed()


def _vector(key: bytes, value: bytes) -> Float32:
    if is_sealed(value):
        value = unsealed(value, VECTORS, "a vector of an upload", key)
    elif len(value) % 4:
        raise DamagedError("a vector of an upload is of a length that it cannot have")
    return np.frombuffer(value, dtype="<f4").copy()


def _applied_key(generation: str) -> bytes:
    return f"applied/{generation}".encode()


def _event_key(event_id: str) -> bytes:
    """Hash the name of an event: it may say whose it is, and stays when a user is deleted, so that none comes back."""
    return hashlib.blake2b(event_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
