"""One new track, uploaded a second ago: from an audio file to its place among all others.

    audio file, what is known of it  ->  add_track  ->  store/uploads/<hash>.mp3 + store/live.lmdb, durably

The file is decoded in a limited process, embedded with the current generation's models, and found at once by
``similar`` and ``recommend`` of whoever opens the store afterwards. The same audio twice is the same track.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from recsys.audio.decoding.pool import DecodeFailure, decode_many
from recsys.audio.decoding.worker import content_hash
from recsys.audio.embed import embed_file
from recsys.audio.settings import DecodeSettings, WorkerSettings
from recsys.catalogue.scan import AUDIO_SUFFIXES
from recsys.catalogue.tags.fields import Inside, with_sure_year
from recsys.catalogue.tags.pool import tags_of
from recsys.errors import DataError
from recsys.eventlog.events import GenerationMovedError, KnownAudioError, Upload
from recsys.live.service import Live
from recsys.recommender import open_generation
from recsys.store.generation import Store, disk_errors
from recsys.store.weights import load_encoder, load_sound_model
from recsys.types import Float32
from recsys.uploads.metadata import NewTrack, ignored_words, upload_of
from recsys.uploads.vectors import vectors_of

__all__ = ["Added", "NewTrack", "add_track", "vectors_of"]


@dataclass(frozen=True, slots=True)
class Added:
    """The outcome: ``known`` says that this audio was there before; ``notes`` tell what was odd about the file.

    ``users_reached`` counts the lists that the track came into at once.
    """

    track_id: str
    known: bool
    has_sound: bool
    notes: tuple[str, ...]
    users_reached: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Heard:
    content_hash: str
    duration_s: float | None
    vector: Float32 | None
    notes: tuple[str, ...]


def add_track(folder: Path, audio: Path, about: NewTrack) -> Added:
    """Put an audio file into a store.

    Args:
        folder: of a store with a published generation.
        audio: any file that libsndfile or FFmpeg decodes.
        about: what is known; the id defaults to one made from the audio's content.

    Raises:
        DataError: the file cannot be decoded, or the id belongs to another track.
        ArtefactError: the store holds no generation or cannot be written.
    """
    store = Store(folder)
    generation = store.current()
    if not audio.is_file():
        raise DataError(f"there is no audio file {audio}")
    with disk_errors("writing the upload"), _copied(store, audio) as copy:
        inside = tags_of(copy)
        heard = _hear(copy, generation / "models")
        upload = _upload(audio, copy.suffix, about, heard, inside)
        while True:
            try:
                added = _place(store, generation, copy, upload, heard, about)
                return replace(added, notes=added.notes + inside.notes)
            except GenerationMovedError:  # a build has ended since, maybe with another network
                generation = store.current()
                heard = _hear(copy, generation / "models")


def _place(store: Store, generation: Path, copy: Path, upload: Upload, heard: _Heard, about: NewTrack) -> Added:
    """Put a track that was heard with a generation's network into the live store, if that generation is current."""
    recommender = open_generation(store, generation)
    with closing(recommender), closing(Live(store, recommender)) as live:
        known = live.track_of_audio(upload.content_hash)
        if known is not None:
            return Added(known, True, heard.vector is not None, (*heard.notes, *ignored_words(about, known)))
        upload = replace(upload, track_id=upload.track_id or live.free_id(f"upload-{upload.content_hash[:12]}"))
        vectors = vectors_of(upload, heard.vector, load_encoder(generation / "models"), recommender.model.blend)
        try:
            n_reached = live.add(upload, vectors, copy)
        except KnownAudioError as error:  # sent twice at once
            notes = (*heard.notes, *ignored_words(about, error.track_id))
            return Added(error.track_id, True, heard.vector is not None, notes)
    return Added(upload.track_id, False, heard.vector is not None, heard.notes, n_reached)


@contextmanager
def _copied(store: Store, audio: Path) -> Iterator[Path]:
    """Copy the file into the store first, durably: what is embedded is then what is kept.

    Errors name the file that the user knows. What is no audio suffix says nothing, and may be no text.
    """
    store.uploads.mkdir(exist_ok=True)
    suffix = audio.suffix.lower()
    copy = store.uploads / f".{uuid.uuid4().hex}{suffix if suffix in AUDIO_SUFFIXES else ''}"
    try:
        with audio.open("rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        yield copy
    except DataError as error:
        raise DataError(str(error).replace(str(copy), str(audio))) from error
    finally:
        copy.unlink(missing_ok=True)


def _hear(copy: Path, models: Path) -> _Heard:
    """Decode in a limited process and embed, as the build does; a catalogue of given vectors has no audio network."""
    model = load_sound_model(models)
    if model is None:
        [outcome] = decode_many([copy], DecodeSettings(), WorkerSettings())
        if isinstance(outcome, DecodeFailure):
            raise DataError(f"{copy} cannot be used: {outcome.reason}")
        notes = ("the sound vectors of this catalogue came with its table, so this track has none",)
        return _Heard(content_hash(copy), outcome.clip.duration_s, None, notes)
    heard = embed_file(copy, model)
    return _Heard(heard.content_hash, heard.duration_s, heard.vector, heard.notes)


def _upload(audio: Path, suffix: str, about: NewTrack, heard: _Heard, inside: Inside) -> Upload:
    name = audio.stem.encode("utf-8", "replace").decode()
    return upload_of(about, with_sure_year(inside.tags), heard.content_hash, heard.duration_s, suffix, name)
