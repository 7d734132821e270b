"""Simulated music as files: the plan's songs played, encoded to mp3 and tagged.

    SynthSettings  ->  compose  ->  out/audio/<artist>/<title>.mp3, out/upload/<title>.mp3

``recsys scan out/audio`` finds the catalogue; the one clip under ``upload`` is by an artist whom the
catalogue does not know. Every file says in a comment that it is simulated. Same settings, same bytes,
however many processes compose. Listeners are made in ``pipelines.synth.listeners``.
"""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import soundfile
from mutagen import MutagenError
from mutagen.id3 import COMM, ID3, TALB, TCON, TDRC, TIT2, TPE1, USLT, Frame

from pipelines.synth.music import perform
from pipelines.synth.plan import Plan, Song, SynthSettings, plan, slug
from recsys.errors import ArtefactError
from recsys.util.progress import Bar, Progress

_NOTE = "Simulated music, composed by the demo of recsys; artist, title and words are invented."
_COMPRESSION = 0.6  # of libsndfile's scale from 0 to 1: 64 kbit/s at 22.05 kHz (measured)
_FEW = 24  # clips that one process composes before others have started (about 0.15 s each, measured)


@dataclass(frozen=True, slots=True)
class Composed:
    """What was planted, and where: the folder to scan and the one clip for a later upload."""

    plan: Plan
    audio: Path
    upload: Path


def compose(out: Path, settings: SynthSettings, progress: Progress) -> Composed:
    """Compose the simulated catalogue and the clip for the upload into the folder ``out``.

    Files of the same names are written anew. About 0.15 s of one core a clip of 12 s.

    Raises:
        ConfigError: the settings ask for more artists than tracks.
        ArtefactError: a file cannot be written.
    """
    planned = plan(settings)
    composed = Composed(planned, out / "audio", out / "upload" / f"{slug(planned.upload.title)}.mp3")
    jobs = [(song, composed.audio / song.path) for song in planned.songs]
    jobs.append((planned.upload, composed.upload))
    try:
        for folder in {path.parent for _, path in jobs}:
            folder.mkdir(parents=True, exist_ok=True)
        (out / "SIMULATED.txt").write_text(f"{_NOTE}\nThe listeners are simulated too.\n", encoding="utf-8")
        with progress.bar("composing simulated music", len(jobs), "clips") as bar:
            _compose_all(jobs, settings, bar)
    except (OSError, soundfile.LibsndfileError, MutagenError) as error:
        raise ArtefactError(f"cannot write simulated music to {out} ({error}); check the disk and rights") from error
    return composed


def _compose_all(jobs: list[tuple[Song, Path]], settings: SynthSettings, bar: Bar) -> None:
    n_workers = settings.n_workers or os.cpu_count() or 1
    if n_workers == 1 or len(jobs) <= _FEW:
        for song, path in jobs:
            _compose_one(song, path, settings)
            bar.advance()
        return
    # spawn, since threads of the caller do not survive a fork
    with ProcessPoolExecutor(n_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_compose_one, song, path, settings) for song, path in jobs]
        try:
            for future in as_completed(futures):
                future.result()
                bar.advance()
        finally:
            pool.shutdown(cancel_futures=True)  # after a failure or Ctrl-C the rest is not waited for


def _compose_one(song: Song, path: Path, settings: SynthSettings) -> None:
    samples = perform(song, settings.clip_s, settings.sample_rate)
    soundfile.write(
        path,
        samples,
        settings.sample_rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        compression_level=_COMPRESSION,
    )
    _tag(song, path)


def _tag(song: Song, path: Path) -> None:
    frames: list[tuple[type[Frame], dict[str, object]]] = [
        (TIT2, {"text": [song.title]}),
        (TPE1, {"text": [song.artist.name]}),
        (TALB, {"text": [song.album]}),
        (TCON, {"text": [song.artist.genre.name]}),
        (TDRC, {"text": [str(song.year)]}),
        (COMM, {"lang": "eng", "desc": "", "text": [_NOTE]}),
    ]
    if song.lyrics:
        frames.append((USLT, {"lang": "eng", "desc": "", "text": song.lyrics}))
    tags = ID3()  # mutagen has no types
    for frame, fields in frames:
        tags.add(frame(encoding=3, **fields))
    tags.save(path)
