"""A catalogue's sound: audio files in, one vector a track out.

    paths, SoundModel  ->  embed_paths  ->  Sound: rows, vectors (n, d), durations, content hashes

Files stream through decoding processes into batches, batches through threads, one a core; nothing but vectors is kept
of a track. Finished vectors go into the ``VectorCache`` batch by batch, so an interrupted run goes on where it was. A
file that cannot be used, or in which there is nothing to hear, is a problem with its row and reason, and its track
simply has no vector. What an older version of the decoder heard is heard again where that one may have been wrong.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from recsys.audio.cache import CachedSound, FileMark, VectorCache
from recsys.audio.decoding.decode import DECODER, SILENT, Decoded, mislabelled
from recsys.audio.decoding.pool import DecodeFailure, DecodeWorkers
from recsys.audio.model import SoundModel
from recsys.audio.settings import AudioSettings
from recsys.catalogue.problems import Problems
from recsys.types import Float32, Int32
from recsys.util.progress import Bar, Progress
from recsys.util.threads import in_threads

__all__ = ["AudioSettings", "Sound", "SoundModel", "embed_paths"]

T = TypeVar("T")

_FLUSHED = 1000  # entries of an older decoder that are written anew at a time
_HEARD_RIGHT = ("flac", "ogg", "aiff")  # formats that were heard wrong only where it was told
_TOLD_WRONG = ("truncated-audio", SILENT)  # what was told of files that may be heard otherwise now


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """What was heard: ``rows`` (m,) int32 ascending, the tracks with a vector, and for each of them the rest.

    ``vectors`` (m, d) float32 of unit length, ``durations_s`` (m,) float32 of the whole recordings,
    ``hashes`` of the files' bytes. ``silent`` are those in which there is nothing to hear.
    """

    rows: Int32
    vectors: Float32
    durations_s: Float32
    hashes: tuple[str, ...]
    silent: "tuple[Silence, ...]" = ()


@dataclass(frozen=True, slots=True)
class Silence:
    """A recording in which there is nothing to hear: its row, the hash of its bytes, its length."""

    row: int
    content_hash: str
    duration_s: float


def embed_paths(
    paths: Sequence[Path | None],
    model: SoundModel,
    settings: AudioSettings,
    cache: VectorCache | None,
    problems: Problems,
    progress: Progress,
    *,
    track_ids: Sequence[str] | None = None,
) -> Sound:
    """Embed the audio of a catalogue.

    Args:
        paths: one a track, None where a track has no audio.
        model: gives the vectors, and says how to decode.
        settings: of this run: processes, limits and the size of a batch.
        cache: vectors of earlier runs; new ones are added batch by batch.
        problems: told of every file that is not used, or is used with a reservation, cached ones too.
        progress: shows the files done.
        track_ids: one a path; a problem's source is the file and its value the id (the file's name by default).

    Returns:
        Vectors by place in ``paths``.

    Raises:
        ArtefactError: the cache is damaged or cannot be written.
    """
    run = _Embedding(paths, model, cache, problems, track_ids)
    n_files = sum(path is not None for path in paths)
    with (
        DecodeWorkers(model.settings.decode, settings.workers) as workers,
        progress.bar("audio: embedding", n_files, "clips") as bar,
    ):
        decoded = run.decoded(run.unhashed(workers, bar), workers, bar)
        for batch, vectors in in_threads(run.embedded, batches(decoded, settings.batch_clips)):
            run.take(batch, vectors)
            bar.advance(len(batch))
        run.flush()
    return run.sound()


def batches(things: Iterator[T], n: int) -> Iterator[list[T]]:
    """Gather things in lists of ``n``; the last may be shorter."""
    while batch := list(islice(things, n)):
        yield batch


@dataclass(frozen=True, slots=True)
class _Job:
    """A file on its way: its track, and what it was like before it was read."""

    row: int
    path: Path
    mark: FileMark | None
    content_hash: str = ""


Batch = list[tuple[_Job, Decoded]]


def _heard_right(sound: CachedSound, path: Path, workers: DecodeWorkers) -> bool:
    """Whether an older version of the decoder heard a file as this one would.

    It took estimates for lengths, lost what lies behind an error, and gave a vector to silence.
    """
    if any(problem.kind in _TOLD_WRONG for problem in sound.problems):
        return False
    return sound.format in _HEARD_RIGHT or workers.declares_length(path) is True


class _Embedding:
    """One run over a catalogue: what is found so far."""

    def __init__(
        self,
        paths: Sequence[Path | None],
        model: SoundModel,
        cache: VectorCache | None,
        problems: Problems,
        track_ids: Sequence[str] | None,
    ) -> None:
        self._paths, self._track_ids, self._model = paths, track_ids, model
        self._cache, self._problems = cache, problems
        self._vectors = np.zeros((len(paths), model.dim), np.float32)
        self._durations_s = np.zeros(len(paths), np.float32)
        self._hashes: dict[int, str] = {}
        self._silent: list[Silence] = []
        self._heard_right: list[tuple[str, CachedSound]] = []  # by an older decoder: to be kept as if by this one
        self._unwritten_files: list[tuple[FileMark, str]] = []

    def unhashed(self, workers: DecodeWorkers, bar: Bar) -> Iterator[_Job]:
        """The files that are new or have changed; the others are taken from the cache."""
        for row, path in enumerate(self._paths):
            if path is None:
                continue
            mark = FileMark.of(path)
            known = self._cache.hash_of(mark) if self._cache and mark else None
            if known and self._found(_Job(row, path, None, known), workers):
                bar.advance()
            else:
                yield _Job(row, path, mark)

    def decoded(self, jobs: Iterator[_Job], workers: DecodeWorkers, bar: Bar) -> Iterator[tuple[_Job, Decoded]]:
        """Hash the files, then decode those whose content has no vector yet; failures become problems."""
        hashing: deque[_Job] = deque()
        decoding: deque[_Job] = deque()

        def drawn() -> Iterator[Path]:
            for job in jobs:
                hashing.append(job)
                yield job.path

        def unknown() -> Iterator[Path]:
            for outcome in workers.hashes(drawn()):
                job = hashing.popleft()
                if isinstance(outcome, DecodeFailure):
                    self._problem(job, outcome.kind, outcome.reason)
                    bar.advance()
                    continue
                job = _Job(job.row, job.path, job.mark, outcome)
                if self._found(job, workers):
                    bar.advance()
                else:
                    decoding.append(job)
                    yield job.path

        for outcome in workers.decode(unknown()):
            job = decoding.popleft()
            if isinstance(outcome, DecodeFailure):
                self._problem(job, outcome.kind, outcome.reason)
                bar.advance()
            elif outcome.is_silent:
                self._silent.append(Silence(job.row, job.content_hash, outcome.clip.duration_s))
                for problem in outcome.problems:
                    self._problem(job, problem.kind, problem.reason)
                bar.advance()
            else:
                yield job, outcome

    def embedded(self, batch: Batch) -> tuple[Batch, Float32]:
        """Embed a batch; called from several threads."""
        return batch, self._model.embed([decoded.clip for _, decoded in batch])

    def take(self, batch: Batch, vectors: Float32) -> None:
        """Take in a batch's vectors and write them to the cache."""
        sounds = []
        for (job, decoded), vector in zip(batch, vectors, strict=True):
            # the name's fault is not the content's: the same bytes may lie elsewhere under a right name
            own = tuple(problem for problem in decoded.problems if problem.kind != "mislabelled-audio")
            sound = CachedSound(vector, decoded.clip.duration_s, decoded.format, own)
            self._take(job, sound)
            sounds.append((job.content_hash, sound))
        self.flush(sounds)

    def flush(self, sounds: Sequence[tuple[str, CachedSound]] = ()) -> None:
        """Write vectors, and the hashes of files seen since the last time, to the cache."""
        sounds = [*self._heard_right, *sounds]
        if self._cache and (sounds or self._unwritten_files):
            self._cache.put(self._model.version, sounds, self._unwritten_files)
        self._unwritten_files.clear()
        self._heard_right.clear()

    def sound(self) -> Sound:
        """Collect the rows that have a vector."""
        rows = np.array(sorted(self._hashes), np.int32)
        hashes = tuple(self._hashes[row] for row in rows.tolist())
        return Sound(rows, self._vectors[rows], self._durations_s[rows], hashes, tuple(self._silent))

    def _found(self, job: _Job, workers: DecodeWorkers) -> bool:
        """Take a file's vector from the cache, if it is there and its file would be heard so again."""
        sound = self._cache.get(self._model.version, job.content_hash) if self._cache else None
        if sound is None or len(sound.vector) != self._model.dim:
            return False
        if sound.decoder < DECODER:
            if not _heard_right(sound, job.path, workers):
                return False
            self._heard_right.append((job.content_hash, replace(sound, decoder=DECODER)))
            if len(self._heard_right) >= _FLUSHED:
                self.flush()
        self._take(job, sound)
        return True

    def _take(self, job: _Job, sound: CachedSound) -> None:
        self._vectors[job.row] = sound.vector
        self._durations_s[job.row] = sound.duration_s
        self._hashes[job.row] = job.content_hash
        if job.mark is not None:
            self._unwritten_files.append((job.mark, job.content_hash))
        for problem in sound.problems + mislabelled(job.path, sound.format):
            self._problem(job, problem.kind, problem.reason)

    def _problem(self, job: _Job, kind: str, reason: str) -> None:
        value = job.path.name if self._track_ids is None else self._track_ids[job.row]
        self._problems.add(kind, str(job.path), None, value, reason)
