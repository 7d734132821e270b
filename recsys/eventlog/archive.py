"""Old listens, moved from the live log to Parquet once every generation that is kept has taken them in.

    log of live.lmdb  ->  move_listens  ->  store/journal/<first number>.parquet  ->  read_archive  ->  later builds

The log is what servers look into, and stays small; the archive is for builds, and for anyone's SQL. A file is written
beside, synced and read back before the log lets go of what is in it. How far the log has let go stands in the live
store: a listen numbered up to there is in the archive alone, a later one in the log alone, whatever a kill left behind.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import ArtefactError
from recsys.eventlog.events import Listened
from recsys.eventlog.store import LiveStore, open_live
from recsys.eventlog.transactions import USER, ReadTxn
from recsys.store.generation import Store
from recsys.store.manifest import read_facts
from recsys.types import LISTENS_SCHEMA
from recsys.util.files import replace, sync_folder
from recsys.util.progress import Progress

IN_A_FILE = 250_000  # listens; their rows are in memory together
AT_ONCE = 5000  # entries that one transaction takes out of the log: other writers wait for it
SCHEMA = pl.Schema({"number": pl.Int64(), **LISTENS_SCHEMA, "event_id": pl.String()})
_GONE = pl.Schema({"user_id": pl.String(), "gone": pl.Int64()})


def move_listens(store: Store, progress: Progress) -> int:
    """Move the listens that all generations of a store know into its archive; returns how many went.

    Call it under the build lock. Rows of users who were deleted since leave the archive on the way.

    Raises:
        ArtefactError: a file is damaged or cannot be written; nothing was lost.
        OSError: the same, a full disk among the reasons.
    """
    if not store.live.exists():
        return 0
    n_moved = 0
    with open_live(store.live, write=True) as live:
        assert live is not None
        with live.reading() as reading:
            start, gone = reading.moved_up_to(), _gone(reading)
            stop = min(_known_to_all(store), reading.last_seq() - 1)  # numbers go on from the newest, so it stays
        for file in archive_files(store):
            _clean(file, start, gone)
        if start >= stop:
            return 0
        with progress.bar("archive", stop - start, "entries") as bar:
            while start < stop:
                rows, reached = _rows(live, start, stop)
                if rows:
                    _write(store.journal / f"{rows[0][0]:016d}.parquet", pl.DataFrame(rows, SCHEMA, orient="row"))
                _let_go(live, reached)
                n_moved += len(rows)
                bar.advance(reached - start)
                start = reached
    return n_moved


def read_archive(store: Store, reading: ReadTxn) -> pl.DataFrame:
    """The listens of the archive, without those of users who were deleted since: ``LISTENS_SCHEMA``.

    Raises:
        ArtefactError: a file is damaged.
    """
    files, moved_up_to = archive_files(store), reading.moved_up_to()
    if not files:
        return pl.DataFrame(schema=LISTENS_SCHEMA)
    valid = _valid(moved_up_to, _gone(reading))
    every = pl.concat([_read(valid(_scan(file)), file) for file in files])
    return every.select(list(LISTENS_SCHEMA))


def row_of(listen: Listened) -> tuple[Any, ...]:
    """What a listen says as a row of ``LISTENS_SCHEMA``."""
    time = datetime.fromisoformat(listen.at)
    time = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    plays = 0.0 if listen.disliked else listen.plays
    return listen.user_id, listen.track_id, plays, time, False, listen.disliked


def archive_files(store: Store) -> list[Path]:
    """Files of the archive, oldest first."""
    return sorted(store.journal.glob("*.parquet")) if store.journal.is_dir() else []


def _known_to_all(store: Store) -> int:
    """Up to which number every generation knows the log; 0 where one does not say."""
    try:
        return min(int(read_facts(store.generation(name))["last_live_number"]) for name in store.names())
    except (ArtefactError, ValueError):
        return 0


def _gone(reading: ReadTxn) -> pl.DataFrame:
    """Deleted users with the number of their last deletion."""
    return pl.DataFrame([(user, reading.user_gone(user)) for user in reading.gone(USER)], _GONE, orient="row")


def _valid(moved_up_to: int, gone: pl.DataFrame) -> Any:
    """Make what leaves out rows that a kill left here, and those of users who were deleted afterwards."""

    def valid(rows: pl.LazyFrame) -> pl.LazyFrame:
        known = rows.filter(pl.col("number") <= moved_up_to).join(
            gone.lazy(), on="user_id", how="left", maintain_order="left"
        )
        return known.filter(pl.col("gone").is_null() | (pl.col("number") > pl.col("gone"))).drop("gone")

    return valid


def _clean(file: Path, moved_up_to: int, gone: pl.DataFrame) -> None:
    """Write a file anew without what is not valid in it."""
    rows = _scan(file)
    valid = _valid(moved_up_to, gone)(rows)
    n_rows, n_valid = (int(_read(some.select(pl.len()), file).item()) for some in (rows, valid))
    if n_valid == n_rows:
        return
    if n_valid:
        _write(file, _read(valid, file))
    else:
        file.unlink()


def _rows(live: LiveStore, start: int, stop: int) -> tuple[list[tuple[Any, ...]], int]:
    """Read the listens above a number, a file's worth of them; returns their rows, and up to where they go."""
    rows = list[tuple[Any, ...]]()
    with live.reading() as reading:
        for seq, event in reading.events(start):
            if seq > stop:
                break
            if isinstance(event, Listened):
                rows.append((seq, *row_of(event), event.event_id))
            if len(rows) == IN_A_FILE:
                return rows, seq
    return rows, stop


def _write(file: Path, frame: pl.DataFrame) -> None:
    """Write a file beside its place, read it back, and move it there; durable when this returns."""
    file.parent.mkdir(exist_ok=True)

    def write(beside: Path) -> None:
        frame.write_parquet(beside)
        if not _read(_scan(beside), beside).equals(frame):
            raise ArtefactError(f"{beside} does not read back as it was written; check the disk")

    replace(file, write)
    sync_folder(file.parent.parent)


def _let_go(live: LiveStore, up_to: int) -> None:
    while True:
        with live.writing() as writing:
            if writing.let_go(up_to, AT_ONCE) >= up_to:
                return


def _scan(file: Path) -> pl.LazyFrame:
    """Read what is in the file alone: a folder above it named ``key=value`` is no column."""
    return pl.scan_parquet(file, glob=False, hive_partitioning=False)


def _read(rows: pl.LazyFrame, file: Path) -> pl.DataFrame:
    try:
        return rows.collect()
    except pl.exceptions.PolarsError as error:
        raise ArtefactError(f"the archive's file {file} cannot be read: {error}; restore it from a backup") from error
