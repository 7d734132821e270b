"""The live log as a build takes it in: every entry, every time, as the tables may or may not hold it by now.

    archive, live.lmdb  ->  read_live  ->  ReplayedLog  ->  with_tracks, with_listens  ->  Tracks and Listens to fit

Deletions hold for the tables too: a deleted track is dropped from them, and so are the rows of a deleted user. What
such a user has heard after the deletion is in the log and stays.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import ArtefactError, LogLostError
from recsys.eventlog.archive import read_archive, row_of
from recsys.eventlog.events import Event, Listened, TrackDeleted, Upload, UserDeleted
from recsys.eventlog.store import LiveStore, lost_log, open_live
from recsys.store.generation import Store
from recsys.store.manifest import read_facts
from recsys.types import LISTENS_SCHEMA, TRACKS_SCHEMA, Listens, Tracks
from recsys.util.progress import Progress

KINDS: dict[type[Event], str] = {
    Upload: "uploads",
    Listened: "listens",
    TrackDeleted: "deletions",
    UserDeleted: "deletions",
}


@dataclass(frozen=True, slots=True, eq=False)
class ReplayedLog:
    """What a build takes in: everything up to ``last_seq`` of the log. ``gone_uploads`` were deleted since."""

    uploads: list[Upload]
    listens: pl.DataFrame
    gone_tracks: list[str]
    gone_users: list[str]
    last_seq: int
    gone_uploads: Sequence[Upload] = ()


def read_live(store: Store) -> ReplayedLog:
    """Read the archive and the log of a store; there may be none.

    Raises:
        LogLostError: it is not the log that a generation was built with.
        ArtefactError: it is damaged.
    """
    uploads, rows = list[Upload](), list[tuple[Any, ...]]()
    tracks, users, last = dict[str, None](), dict[str, None](), 0
    old, known = pl.DataFrame(schema=LISTENS_SCHEMA), applied_by_all(store)
    with open_live(store.live) as live:
        store_or_none = LiveStore.absent(store.live) if live is None else live
        with store_or_none.reading() as reading:
            lost = lost_log(reading, known)
            if lost:
                raise LogLostError(lost)
            if live is not None:
                old, last = read_archive(store, reading), reading.last_seq()
                for _, event in reading.events():
                    if isinstance(event, Upload):
                        uploads.append(event)
                    elif isinstance(event, Listened):
                        rows.append(row_of(event))
                    elif isinstance(event, TrackDeleted):
                        tracks[event.track_id] = None
                    elif isinstance(event, UserDeleted):
                        users[event.user_id] = None
    gone = [upload for upload in uploads if upload.track_id in tracks]
    uploads = [upload for upload in uploads if upload.track_id not in tracks]
    listens = pl.concat([old, pl.DataFrame(rows, schema=LISTENS_SCHEMA, orient="row")])
    return ReplayedLog(uploads, listens, list(tracks), list(users), last, gone)


def applied_by_all(store: Store) -> int:
    """The largest number of the log that a generation of a store took in; damaged generations say nothing."""
    known = [0]
    for name in store.names():
        with suppress(ArtefactError):
            known.append(int(read_facts(store.generation(name))["last_live_number"]))
    return max(known)


def forget_audio(store: Store, taken: ReplayedLog) -> None:
    """Delete audio of deleted uploads that is still there: a kill may have come between the two."""
    if not any((store.uploads / upload.file).exists() for upload in taken.gone_uploads):
        return
    with store.live_lock(), open_live(store.live) as live:
        assert live is not None
        for upload in taken.gone_uploads:
            if live.track_of_audio(upload.content_hash) is None:
                (store.uploads / upload.file).unlink(missing_ok=True)


def with_tracks(tracks: Tracks, taken: ReplayedLog, folder: Path, progress: Progress) -> Tracks:
    """Drop deleted tracks and add the uploads; a track of the table with the same id comes first."""
    frame = tracks.frame
    known = set(frame["track_id"].to_list()) if taken.uploads else set()
    fresh = [upload for upload in taken.uploads if upload.track_id not in known]
    if len(fresh) < len(taken.uploads):
        n = len(taken.uploads) - len(fresh)
        progress.log(f"{n:,} uploads have ids that the tracks table has too: its rows are used")
    if taken.gone_tracks:
        frame = frame.filter(~pl.col("track_id").is_in(taken.gone_tracks))
    return Tracks(pl.concat([frame, tracks_of(fresh, folder).frame]) if fresh else frame)


def with_listens(listens: Listens | None, tracks: Tracks, taken: ReplayedLog, progress: Progress) -> Listens | None:
    """Drop listens of deleted users and tracks, and add those of the log, but for events that the table has by now."""
    if listens is None and taken.listens.is_empty():
        return None
    frame = pl.DataFrame(schema=LISTENS_SCHEMA) if listens is None else listens.frame
    if taken.gone_users:
        frame = frame.filter(~pl.col("user_id").is_in(taken.gone_users))
    same = ["user_id", "track_id", "listened_at"]
    fresh = taken.listens.join(frame.select(same).unique(), on=same, how="anti", maintain_order="left")
    joined = pl.concat([frame, fresh]).filter(pl.col("track_id").is_in(tracks.frame["track_id"].implode()))
    progress.log(f"{len(fresh):,} listens and {len(taken.uploads):,} tracks came live since the tables")
    return Listens(joined)


def tracks_of(uploads: Sequence[Upload], folder: Path) -> Tracks:
    """Uploads as rows of a catalogue; ``folder`` holds their audio."""
    rows = [
        {
            "track_id": u.track_id, "path": str((folder / u.file).absolute()), "title": u.title, "artist": u.artist,
            "album": u.album, "genres": u.genres, "year": u.year, "lyrics": u.lyrics, "vector": None,
        }
        for u in uploads
    ]  # fmt: skip
    return Tracks(pl.DataFrame(rows, schema=TRACKS_SCHEMA))


def happened_since(store: Store, seq: int) -> dict[str, int]:
    """Count the entries of the live log above ``seq``; those of deleted users are no more.

    Raises:
        ArtefactError: the live store is damaged.
    """
    counts = dict.fromkeys(KINDS.values(), 0)
    with open_live(store.live) as live:
        if live is not None:
            with live.reading() as reading:
                for _, event in reading.whole_events(seq):
                    if type(event) in KINDS:
                        counts[KINDS[type(event)]] += 1
    return counts


def other_generations(store: Store) -> list[str]:
    """Ids of the generations that a rollback can make current, newest first."""
    current = store.current().name
    return [name for name in reversed(store.names()) if name != current]
