"""The live log as a build takes it in: every entry, every time, as the tables may or may not hold it by now.

    journal, live.lmdb  ->  read_live  ->  Taken  ->  with_tracks, with_listens  ->  Tracks and Listens to fit

Deletions hold for the tables too: a deleted track is dropped from them, and so are the rows of a deleted user. What
such a user has heard after the deletion is in the log and stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.live.events import Listened, TrackDeleted, Upload, UserDeleted
from recsys.live.journal import read_journal, row_of
from recsys.progress import Progress
from recsys.store.generation import Store
from recsys.store.live import open_live
from recsys.types import LISTENS_SCHEMA, TRACKS_SCHEMA, Listens, Tracks


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What a build takes in: everything up to ``last_number`` of the log."""

    uploads: list[Upload]
    listens: pl.DataFrame
    gone_tracks: list[str]
    gone_users: list[str]
    last_number: int


def read_live(store: Store) -> Taken:
    """Read the journal and the log of a store; there may be none.

    Raises:
        ArtefactError: it is damaged.
    """
    uploads, rows = list[Upload](), list[tuple[Any, ...]]()
    tracks, users, last = dict[str, None](), dict[str, None](), 0
    old = pl.DataFrame(schema=LISTENS_SCHEMA)
    with open_live(store.live) as live:
        if live is not None:
            with live.reading() as reading:
                old = read_journal(store, reading)
                for number, event in reading.events():
                    last = number
                    if isinstance(event, Upload):
                        uploads.append(event)
                    elif isinstance(event, Listened):
                        rows.append(row_of(event))
                    elif isinstance(event, TrackDeleted):
                        tracks[event.track_id] = None
                    elif isinstance(event, UserDeleted):
                        users[event.user_id] = None
    uploads = [upload for upload in uploads if upload.track_id not in tracks]
    listens = pl.concat([old, pl.DataFrame(rows, schema=LISTENS_SCHEMA, orient="row")])
    return Taken(uploads, listens, list(tracks), list(users), last)


def with_tracks(tracks: Tracks, taken: Taken, folder: Path, progress: Progress) -> Tracks:
    """Drop deleted tracks and add the uploads; a track of the table with the same id comes first."""
    frame = tracks.frame
    known = set(frame["track_id"].to_list()) if taken.uploads else set()
    fresh = [upload for upload in taken.uploads if upload.track_id not in known]
    if len(fresh) < len(taken.uploads):
        n = len(taken.uploads) - len(fresh)
        progress.say(f"{n:,} uploads have ids that the tracks table has too: its rows are used")
    if taken.gone_tracks:
        frame = frame.filter(~pl.col("track_id").is_in(taken.gone_tracks))
    return Tracks(pl.concat([frame, tracks_of(fresh, folder).frame]) if fresh else frame)


def with_listens(listens: Listens | None, tracks: Tracks, taken: Taken, progress: Progress) -> Listens | None:
    """Drop listens of deleted users and tracks, and add those of the log, but for events that the table has by now."""
    if listens is None and taken.listens.is_empty():
        return None
    frame = pl.DataFrame(schema=LISTENS_SCHEMA) if listens is None else listens.frame
    if taken.gone_users:
        frame = frame.filter(~pl.col("user_id").is_in(taken.gone_users))
    same = ["user_id", "track_id", "listened_at"]
    fresh = taken.listens.join(frame.select(same).unique(), on=same, how="anti", maintain_order="left")
    joined = pl.concat([frame, fresh]).filter(pl.col("track_id").is_in(tracks.frame["track_id"].implode()))
    progress.say(f"{len(fresh):,} listens and {len(taken.uploads):,} tracks came live since the tables")
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
