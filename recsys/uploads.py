"""One new track, uploaded a second ago: from an audio file to its place among all others.

    audio file, what is known of it  ->  add_track  ->  store/uploads/<hash>.mp3 + store/live.lmdb, durably

The file is decoded in a limited process, embedded with the current generation's models, and found at once by
``similar`` and ``recommend`` of whoever opens the store afterwards. The same audio twice is the same track.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recsys.audio.embed import embed_file
from recsys.audio.settings import DecodeSettings, WorkerSettings
from recsys.audio.worker import content_hash
from recsys.audio.workers import DecodeFailure, decode_many
from recsys.catalogue.scan import AUDIO_SUFFIXES, file_tags
from recsys.errors import ArtefactError, DataError
from recsys.hybrid.blend import Blend
from recsys.hybrid.encoder import Encoder
from recsys.live.arrivals import NewTrack, upload_of
from recsys.model import Model
from recsys.store.generation import Store, disk_errors, sync_folder
from recsys.store.live import LiveStore, Upload, open_live
from recsys.store.models import load_encoder, load_sound_model
from recsys.store.opened import ITEM
from recsys.store.tables import FILE, StoredTables
from recsys.types import TRACKS_SCHEMA, Float32, Tracks

__all__ = ["Added", "NewTrack", "add_track", "reembed_late_uploads", "tracks_of", "vectors_of"]


@dataclass(frozen=True, slots=True)
class Added:
    """The outcome: ``known`` says that this audio was there before; ``notes`` tell what was odd about the file."""

    track_id: str
    known: bool
    has_sound: bool
    notes: tuple[str, ...]


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
        heard = _hear(copy, generation / "models")
        upload = _upload(audio, copy.suffix, about, heard)
        with store.live_lock(), open_live(store.live, write=True) as live:
            if live is None:
                raise ArtefactError(f"cannot open {store.live}")
            if store.current() != generation:  # a build has ended since, maybe with another network
                generation = store.current()
                heard = _hear(copy, generation / "models")
            known = _known_as(generation, live, heard.content_hash)
            if known is not None:
                return Added(known, True, heard.vector is not None, heard.notes)
            _check_id(generation, live, upload.track_id)
            encoder = load_encoder(generation / "models")
            blend = Model.load(generation / "arrays").blend
            vectors = vectors_of(upload, heard.vector, encoder, blend)
            kept = copy.replace(store.uploads / upload.file)
            try:
                sync_folder(store.uploads)
                live.append(upload, generation.name, vectors)
            except BaseException:
                kept.unlink()
                raise
    return Added(upload.track_id, False, heard.vector is not None, heard.notes)


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


def _upload(audio: Path, suffix: str, about: NewTrack, heard: _Heard) -> Upload:
    name = audio.stem.encode("utf-8", "replace").decode()
    return upload_of(about, file_tags(audio), heard.content_hash, heard.duration_s, suffix, name)


def _known_as(generation: Path, live: LiveStore, content_hash: str) -> str | None:
    found = live.track_of_audio(content_hash)
    if found is None:
        tables = StoredTables(generation / FILE)
        found = tables.track_of_audio(content_hash)
        tables.close()
    return found


def _check_id(generation: Path, live: LiveStore, track_id: str) -> None:
    ids = Model.load(generation / "arrays").items
    if int(ids.find([track_id])[0]) >= 0 or any(known.track_id == track_id for _, known in live.uploads()):
        raise DataError(f"track id {track_id!r} belongs to another track; give another --track-id")


def tracks_of(uploads: list[Upload], folder: Path) -> Tracks:
    """Uploads as rows of a catalogue; ``folder`` holds their audio."""
    rows = [
        {
            "track_id": u.track_id, "path": str((folder / u.file).absolute()), "title": u.title, "artist": u.artist,
            "album": u.album, "genres": u.genres, "year": u.year, "lyrics": u.lyrics, "vector": None,
        }
        for u in uploads
    ]  # fmt: skip
    return Tracks(pl.DataFrame(rows, schema=TRACKS_SCHEMA))


def vectors_of(upload: Upload, sound: Float32 | None, encoder: Encoder, blend: Blend) -> dict[str, Float32]:
    """Vectors (d,) of an upload by space, the joint item vector among them, as nobody has played it."""
    given = None if sound is None else (np.zeros(1, dtype=np.int32), sound[None])
    tracks = encoder.modalities(tracks_of([upload], Path()), None, given)
    content = encoder.content.encode(tracks)
    vectors = {ITEM: encoder.item_vectors(tracks, content, blend)[0]}
    if sound is not None:
        vectors["sound"] = sound
    if content.any():
        vectors["content"] = content[0]
    return vectors


def reembed_late_uploads(
    store: Store, generation: str, models: Path, taken_in: int, encoder: Encoder, blend: Blend
) -> None:
    """Give uploads that came while a build ran their vectors under the generation it made; under the live lock."""
    if not store.live.exists():
        return
    with open_live(store.live, write=True) as live:
        for number, upload in () if live is None else list(live.uploads(after=taken_in)):
            try:
                sound = _hear(store.uploads / upload.file, models).vector
            except DataError:  # its file was damaged or taken away since: placed by what else is known
                sound = None
            if live is not None:
                live.set_vectors(generation, number, vectors_of(upload, sound, encoder, blend))
