"""A catalogue's sound: audio files in, one vector a track out.

    paths, Targets  ->  train_sound_model  ->  SoundModel
    paths, SoundModel  ->  embed_paths  ->  Sound: rows, vectors (n, d), durations, content hashes

Files stream through decoding processes into batches; nothing but vectors is kept of a track. Finished vectors
go into the ``VectorCache`` batch by batch, so an interrupted run goes on where it was. A file that cannot be
used is a problem with its row and reason, and its track simply has no vector.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch

from recsys.audio.cache import CachedSound, FileMark, VectorCache
from recsys.audio.decode import Decoded, mislabelled
from recsys.audio.logmel import log_mel
from recsys.audio.model import SoundModel
from recsys.audio.settings import AudioSettings
from recsys.audio.train import Spectrogram, train_network
from recsys.audio.workers import DecodeFailure, DecodeWorkers
from recsys.catalogue.problems import Problems
from recsys.content.tasks import Targets
from recsys.errors import DataError
from recsys.progress import Bar, Progress, Silent
from recsys.types import Float32, Int32

__all__ = ["AudioSettings", "Heard", "Sound", "SoundModel", "embed_file", "embed_paths", "train_sound_model"]


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """What was heard: ``rows`` (m,) int32 ascending, the tracks with a vector, and for each of them the rest.

    ``vectors`` (m, d) float32 of unit length, ``durations_s`` (m,) float32 of the whole recordings,
    ``hashes`` of the files' bytes.
    """

    rows: Int32
    vectors: Float32
    durations_s: Float32
    hashes: tuple[str, ...]


def train_sound_model(
    paths: Sequence[tuple[int, Path]],
    targets: Targets,
    settings: AudioSettings,
    seed: int,
    progress: Progress,
) -> SoundModel:
    """Train the audio network on a random sample of the files.

    Args:
        paths: (row of the track in ``targets``, its file). What cannot be decoded is left out without a word:
            ``embed_paths``, which sees every file, reports it.
        targets: of the whole catalogue.
        settings: of the audio.
        seed: of the sample and the training.
        progress: shows both decoding and training.
    """
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.permutation(len(paths))[: settings.train.train_tracks])
    with TemporaryFile() as scratch:
        rows, spectrograms = _spectrograms([paths[i] for i in sample], settings, scratch.fileno(), progress)
        network = train_network(
            spectrograms,
            targets.take(rows),
            settings,
            seed,
            progress,
        )
        return SoundModel(network, settings)


def _spectrograms(
    paths: Sequence[tuple[int, Path]], settings: AudioSettings, scratch: int, progress: Progress
) -> tuple[Int32, list[Spectrogram]]:
    """Decode a sample into log-mels: half-precision views of a scratch file, maybe larger than memory."""
    n_samples = round(settings.decode.clip_s * settings.decode.sample_rate)
    shape = (max(len(paths), 1), settings.log_mel.n_mels, 1 + n_samples // settings.log_mel.hop_length)
    with open(scratch, "r+b", closefd=False) as file:
        kept = np.memmap(file, np.float16, "w+", shape=shape)
    rows: list[int] = []
    spectrograms: list[Spectrogram] = []
    with (
        DecodeWorkers(settings.decode, settings.workers) as workers,
        progress.bar("audio: reading a sample", len(paths), "clips") as bar,
    ):
        for (row, _), outcome in zip(paths, workers.decode(path for _, path in paths), strict=True):
            bar.advance()
            if isinstance(outcome, DecodeFailure):
                continue
            made = log_mel(torch.from_numpy(outcome.clip.samples)[None], settings.log_mel)[0].numpy()
            view = kept[len(rows), :, : made.shape[1]]
            view[:] = made
            rows.append(row)
            spectrograms.append(view)
    return np.array(rows, np.int32), spectrograms


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
        decoded = run.decoded(run.unhashed(bar), workers, bar)
        while batch := list(islice(decoded, settings.batch_clips)):
            run.embed(batch)
            bar.advance(len(batch))
        run.flush()
    return run.sound()


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """One file: ``vector`` (d,) of unit length, the recording's length, and ``notes`` on what was odd."""

    content_hash: str
    duration_s: float
    vector: Float32
    notes: tuple[str, ...]


def embed_file(path: Path, model: SoundModel) -> Heard:
    """Embed one file, as uploads are: like a catalogue, but one that cannot be used is an error.

    Raises:
        DataError: the file is missing, or nothing usable decodes.
    """
    problems = Problems()
    sound = embed_paths([path], model, model.settings, None, problems, Silent())
    notes = tuple(problems.frame()["reason"].to_list())
    if not len(sound.rows):
        raise DataError(f"{path} cannot be used: {'; '.join(notes)}")
    return Heard(sound.hashes[0], float(sound.durations_s[0]), sound.vectors[0], notes)


@dataclass(frozen=True, slots=True)
class _Job:
    """A file on its way: its track, and what it was like before it was read."""

    row: int
    path: Path
    mark: FileMark | None
    content_hash: str = ""


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
        self._unwritten_files: list[tuple[FileMark, str]] = []

    def unhashed(self, bar: Bar) -> Iterator[_Job]:
        """Give the files that are new or have changed; the others are taken from the cache."""
        for row, path in enumerate(self._paths):
            if path is None:
                continue
            mark = FileMark.of(path)
            known = self._cache.hash_of(mark) if self._cache and mark else None
            if known and self._found(_Job(row, path, None, known)):
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
                if self._found(job):
                    bar.advance()
                else:
                    decoding.append(job)
                    yield job.path

        for outcome in workers.decode(unknown()):
            job = decoding.popleft()
            if isinstance(outcome, DecodeFailure):
                self._problem(job, outcome.kind, outcome.reason)
                bar.advance()
            else:
                yield job, outcome

    def embed(self, batch: list[tuple[_Job, Decoded]]) -> None:
        """Embed a batch and write it to the cache."""
        vectors = self._model.embed([decoded.clip for _, decoded in batch])
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
        if self._cache and (sounds or self._unwritten_files):
            self._cache.put(self._model.version, sounds, self._unwritten_files)
        self._unwritten_files.clear()

    def sound(self) -> Sound:
        """Collect the rows that have a vector."""
        rows = np.array(sorted(self._hashes), np.int32)
        hashes = tuple(self._hashes[row] for row in rows.tolist())
        return Sound(rows, self._vectors[rows], self._durations_s[rows], hashes)

    def _found(self, job: _Job) -> bool:
        sound = self._cache.get(self._model.version, job.content_hash) if self._cache else None
        if sound is not None:
            self._take(job, sound)
        return sound is not None

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
