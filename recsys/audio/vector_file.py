"""Sound vectors as a Parquet file that goes from store to store, so that nothing is analysed twice.

    StoredSound ...  ->  write_vectors  ->  vectors.parquet
    vectors.parquet  ->  read_vectors  ->  blocks of StoredSound; bad rows are problems, the rest is used

A row is what one network made of one recording. ``model`` is the network's version, which hashes its weights and all
that comes before them: vectors compare within one version, and a build takes those of its own network alone.
``content_hash`` names the recording by the bytes of its file, so track ids and paths may differ at the other end.
``checksum``, if there is one, covers version, recording and numbers: a row that was changed on the way is not used.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from recsys.audio.cache import CachedSound
from recsys.audio.decoding.decode import DECODER, AudioProblem
from recsys.catalogue.problems import Problems
from recsys.errors import DataError
from recsys.types import Float32
from recsys.util.files import replace

SCHEMA = pl.Schema(
    {
        "track_id": pl.String(),  # of the store that wrote it, for people; null where none has this recording now
        "path": pl.String(),  # the same
        "content_hash": pl.String(),  # BLAKE2b of the file's bytes, 32 hexadecimal digits
        "model": pl.String(),  # the network's version, 32 hexadecimal digits
        "network": pl.String(),  # its name in words
        "vector": pl.List(pl.Float32()),  # of unit length
        "duration_s": pl.Float64(),
        "format": pl.String(),  # of the file; null where that is not known
        "decoder": pl.Int64(),  # version of the decoder that heard it; null counts as the first
        "problems": pl.List(pl.Struct({"kind": pl.String(), "reason": pl.String()})),
        "checksum": pl.String(),
    }
)
_NEEDED = ("content_hash", "model", "vector")
_ROWS = 4096  # of a row group, and of a block that is read
_HEX = re.compile(r"[0-9a-f]{32}")
_OFF_UNIT = 1e-3  # how far a length may be from 1: single precision is 1e-6 off
_BAD = "bad-vector"


@dataclass(frozen=True, slots=True, eq=False)
class StoredSound:
    """What the network of version ``model`` made of the recording ``content_hash``; the rest is for people."""

    model: str
    content_hash: str
    sound: CachedSound
    network: str | None = None
    track_id: str | None = None
    path: str | None = None


def checksum(model: str, content_hash: str, vector: Float32) -> str:
    """Hash a row's version, recording and numbers: 32 hexadecimal digits."""
    digest = hashlib.blake2b(f"{model}:{content_hash}:".encode(), digest_size=16)
    digest.update(np.asarray(vector, "<f4").tobytes())
    return digest.hexdigest()


def write_vectors(file: Path, rows: Iterable[StoredSound]) -> int:
    """Write rows, beside the file's place first; only a few thousand are in memory at a time. Returns how many.

    Raises:
        DataError: the file cannot be written.
    """
    n_rows = 0

    def frames(*_: object) -> Iterator[pl.DataFrame]:
        nonlocal n_rows
        given = iter(rows)
        while some := list(islice(given, _ROWS)):
            n_rows += len(some)
            yield pl.DataFrame([_row(one) for one in some], schema=SCHEMA, orient="row")

    def write(beside: Path) -> None:
        lazy = register_io_source(frames, schema=SCHEMA, is_pure=False)
        lazy.sink_parquet(beside, row_group_size=_ROWS, compression="zstd", engine="streaming")

    try:
        replace(file, write)
    except (OSError, pl.exceptions.ComputeError) as error:
        reason = _first_line(error)
        raise DataError(f"{file} cannot be written ({reason}); give a file in a folder that is there") from error
    return n_rows


def _row(one: StoredSound) -> tuple[Any, ...]:
    sound = one.sound
    problems = [{"kind": problem.kind, "reason": problem.reason} for problem in sound.problems]
    return (
        *(one.track_id, one.path, one.content_hash, one.model, one.network, sound.vector.tolist(), sound.duration_s),
        *(sound.format or None, sound.decoder, problems, checksum(one.model, one.content_hash, sound.vector)),
    )


def read_vectors(file: Path, problems: Problems) -> Iterator[list[StoredSound]]:
    """Read rows block by block.

    Args:
        file: as ``write_vectors`` makes it; columns besides content_hash, model and vector may be missing.
        problems: told of rows, and of blocks, that are damaged.

    Raises:
        DataError: the file is missing, no Parquet, or lacks a column that is needed.
    """
    lazy, n_rows = _opened(file)
    for start in range(0, n_rows, _ROWS):
        try:
            frame = lazy.slice(start, _ROWS).collect()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            end = min(start + _ROWS, n_rows)
            problems.add(_BAD, str(file), start + 1, None, f"rows up to {end:,} cannot be read: {_first_line(error)}")
            continue
        found = []
        for number, row in enumerate(frame.iter_rows(named=True), start + 1):
            reason = _fault(row)
            if reason is None:
                found.append(_stored(row))
            else:
                problems.add(_BAD, str(file), number, row["content_hash"], reason)
        yield found


def _opened(file: Path) -> tuple[pl.LazyFrame, int]:
    """Open a file as the columns of ``SCHEMA``, with the number of its rows; columns that it lacks are null."""
    if not file.is_file():
        raise DataError(f"{file} does not exist; give a file that `recsys vectors export` wrote")
    try:
        lazy = pl.scan_parquet(file, glob=False, hive_partitioning=False)
        there = lazy.collect_schema()
        missing = [name for name in _NEEDED if name not in there]
        if missing:
            raise DataError(f"{file} has no column {missing[0]}; give a file that `recsys vectors export` wrote")
        columns = [
            (pl.col(name).cast(kind, strict=False) if name in there else pl.lit(None, kind)).alias(name)
            for name, kind in SCHEMA.items()
        ]
        n_rows = int(lazy.select(pl.len()).collect().item())
        lazy = lazy.select(columns)
        lazy.head(0).collect()  # a column of another kind cannot be cast
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(f"{file} cannot be read as Parquet ({_first_line(error)}); export it again") from error
    return lazy, n_rows


def _fault(row: dict[str, Any]) -> str | None:
    """Say what is wrong with a row; None where it can be used."""
    for name in ("content_hash", "model"):
        if row[name] is None or not _HEX.fullmatch(row[name]):
            return f"{name} is {row[name]!r}, expected 32 hexadecimal digits"
    if not row["vector"] or None in row["vector"]:
        return "there is no vector, or a number of it is missing"
    vector = np.array(row["vector"], np.float32)
    if row["checksum"] is not None and row["checksum"] != checksum(row["model"], row["content_hash"], vector):
        return "the checksum is another one: the row was changed"
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not abs(length - 1) <= _OFF_UNIT:  # nor is a length that is no number
        return f"the vector has a length of {length:.4g}, expected 1"
    if row["duration_s"] is not None and not 0 <= row["duration_s"] < np.inf:
        return f"duration_s is {row['duration_s']}, expected 0 or more"
    if row["decoder"] is not None and not 1 <= row["decoder"] <= DECODER:
        return f"decoder is {row['decoder']}, expected 1 to {DECODER}: a newer version of recsys heard it"
    return None


def _stored(row: dict[str, Any]) -> StoredSound:
    told = [one for one in row["problems"] or [] if one is not None and None not in (one["kind"], one["reason"])]
    sound = CachedSound(
        np.array(row["vector"], np.float32),
        row["duration_s"] or 0.0,
        row["format"] or "",
        tuple(AudioProblem(one["kind"], one["reason"]) for one in told),
        row["decoder"] or 1,
    )
    return StoredSound(row["model"], row["content_hash"], sound, row["network"], row["track_id"], row["path"])


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
