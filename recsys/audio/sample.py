"""The clips that are trained on: decoded once, kept in a scratch file, read back one at a time.

    (row, path) ...  ->  read_sample  ->  rows (m,), ClipSample of m clips

16 bits a sample: 1 MB a 30 s clip, and noise 90 dB below full scale, which no network hears. The file may be larger
than memory. Nothing else of the catalogue is ever kept: it streams (``recsys.audio.embed``).
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
from numpy.typing import NDArray

from recsys.audio.decoding.pool import DecodeFailure, DecodeWorkers
from recsys.audio.settings import AudioSettings
from recsys.types import Clip, Int32
from recsys.util.progress import Progress

_FULL_SCALE = 32_767


class ClipSample(Sequence[Clip]):
    """Clips of one sample rate behind each other in a file; ``take`` gives some of them without reading any.

    Args:
        file: open for reading and writing, empty; it must stay open.
        sample_rate: of every clip, in Hz.
    """

    def __init__(self, file: BinaryIO, sample_rate: int) -> None:
        self._file, self._sample_rate = file, sample_rate
        self._places: list[tuple[int, int, float]] = []  # offset in samples, length, duration of the recording in s

    def append(self, clip: Clip) -> None:
        """Write one clip at the end."""
        offset = self._file.seek(0, 2) // 2
        self._file.write(np.round(np.clip(clip.samples, -1, 1) * _FULL_SCALE).astype("<i2").tobytes())
        self._file.flush()
        self._places.append((offset, len(clip.samples), clip.duration_s))

    def take(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> "ClipSample":
        """Some of the clips, in the order asked for; they stay where they are."""
        taken = ClipSample(self._file, self._sample_rate)
        taken._places = [self._places[int(row)] for row in rows]
        return taken

    def __len__(self) -> int:
        """Count the clips."""
        return len(self._places)

    def __iter__(self) -> Iterator[Clip]:
        """Read one clip after another."""
        return (self[row] for row in range(len(self)))

    @overload
    def __getitem__(self, row: int) -> Clip: ...
    @overload
    def __getitem__(self, row: slice) -> "ClipSample": ...
    def __getitem__(self, row: int | slice) -> "Clip | ClipSample":
        """Read one clip."""
        if isinstance(row, slice):
            return self.take(range(len(self))[row])
        offset, length, duration_s = self._places[row]
        content = os.pread(self._file.fileno(), 2 * length, 2 * offset)  # moves nothing: several threads may read
        samples = np.frombuffer(content, "<i2").astype(np.float32)
        return Clip(samples / np.float32(_FULL_SCALE), self._sample_rate, duration_s)


def read_sample(
    paths: Sequence[tuple[int, Path]], settings: AudioSettings, scratch: BinaryIO, progress: Progress
) -> tuple[Int32, ClipSample]:
    """Decode files into a scratch file.

    Args:
        paths: (row of the track, its file). What cannot be decoded, and silence, is left out without a word:
            ``embed_paths``, which sees every file, reports it.
        settings: how to decode, in how many processes.
        scratch: open for reading and writing, empty.
        progress: shows the files done.

    Returns:
        The rows (m,) of the files in which there is something to hear, and their clips.
    """
    rows: list[int] = []
    clips = ClipSample(scratch, settings.decode.sample_rate)
    with (
        DecodeWorkers(settings.decode, settings.workers) as workers,
        progress.bar("audio: reading a sample", len(paths), "clips") as bar,
    ):
        for (row, _), outcome in zip(paths, workers.decode(path for _, path in paths), strict=True):
            if not isinstance(outcome, DecodeFailure) and not outcome.is_silent:
                clips.append(outcome.clip)
                rows.append(row)
            bar.advance()
    return np.array(rows, np.int32), clips


class KeptRows:
    """An array (n, ...) float32 that is filled row by row, and in a folder outlives a kill.

    Args:
        folder: made if it is not there; None keeps the rows in memory.
        shape: of the array.
        fingerprint: of all that decides the rows; rows of another one are not taken up.
    """

    def __init__(self, folder: Path | None, shape: tuple[int, ...], fingerprint: str) -> None:
        self.rows: NDArray[np.float32]
        self._done: NDArray[np.bool_]
        if folder is None:
            self.rows, self._done = np.zeros(shape, np.float32), np.zeros(shape[0], bool)
            return
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{fingerprint}-{'x'.join(map(str, shape))}"
        values, done = folder / f"{name}.f4", folder / f"{name}.done"
        if not (values.exists() and done.exists()):
            for stale in (*folder.glob("*.f4"), *folder.glob("*.done")):
                stale.unlink()
        for path, size in ((values, 4 * int(np.prod(shape))), (done, shape[0])):
            with path.open("ab") as file:  # a new file is full of zeros, and sparse
                file.truncate(max(size, 1))
        self.rows = np.memmap(values, np.float32, "r+", shape=shape)
        self._done = np.memmap(done, np.bool_, "r+", shape=(shape[0],))

    def missing(self) -> list[int]:
        """List the rows that are still to be filled."""
        return np.flatnonzero(~self._done).tolist()

    def put(self, row: int, values: NDArray[np.float32]) -> None:
        """Fill a row; a kill leaves it whole or missing."""
        self.rows[row] = values
        self._done[row] = True  # the kernel writes both, whatever becomes of this process
