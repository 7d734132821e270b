"""One new track, uploaded a second ago: from an audio file to its place among all others.

    audio file, what is known of it  ->  add_track  ->  store/uploads/<hash>.mp3 + store/live.lmdb, durably

The file is decoded in a limited process, embedded with the current generation's models, and found at once by
``similar`` and ``recommend`` of anyone who opens the store afterwards. The same audio twice is the same track.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from recsys.audio.decoding.pool import DecodeWorkers
from recsys.audio.decoding.worker import content_hash
from recsys.audio.settings import WorkerSettings
from recsys.catalogue.scan import AUDIO_SUFFIXES
from recsys.errors import ArtefactError, DataError
from recsys.eventlog.events import GenerationMovedError, KnownAudioError
from recsys.live.service import LiveUpdater
from recsys.recommender import Recommender, open_generation
from recsys.store.generation import Store, disk_errors
from recsys.uploads.metadata import Embedded, NewTrack, ignored_words, take_in
from recsys.uploads.vectors import UploadModels, embed_upload

__all__ = ["Added", "NewTrack", "add_track"]
_TRIES = 3  # with generations that come and go


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
        for _ in range(_TRIES):
            try:
                return _placed(store, generation, copy, audio, about)
            except GenerationMovedError:  # a build has ended since, maybe with another network
                generation = store.current()
    raise ArtefactError(f"generations changed {_TRIES} times while {audio} was added; try again")


def _placed(store: Store, generation: Path, copy: Path, audio: Path, about: NewTrack) -> Added:
    """Put a track into the live store, if the generation whose models listen to it is still current."""
    recommender = open_generation(store, generation)
    with closing(recommender), closing(LiveUpdater(store, recommender)) as live:
        known = live.track_of_audio(content_hash(copy))
        if known is not None:
            return _known(live, recommender, known, about)
        embedded = _embedded(copy, about, generation)
        try:
            title = audio.stem.encode("utf-8", "replace").decode()
            track_id, n_reached = take_in(live, about, embedded, copy, copy.suffix, title)
        except KnownAudioError as error:  # sent twice at once
            return _known(live, recommender, error.track_id, about)
        return Added(track_id, False, embedded.has_sound, embedded.notes, n_reached)


def _known(live: LiveUpdater, recommender: Recommender, track_id: str, about: NewTrack) -> Added:
    """Answer for audio that was there before."""
    has_sound = recommender.with_uploads(live.uploads()).has_vector(track_id, "sound")
    return Added(track_id, True, has_sound, ignored_words(about, track_id))


def _embedded(copy: Path, about: NewTrack, generation: Path) -> Embedded:
    """Listen to a file in a limited process of its own."""
    models = UploadModels.of(generation)
    with DecodeWorkers(models.decode, WorkerSettings(n_workers=1), confined=True) as workers:
        return embed_upload(copy, about, models, workers)


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
        raise DataError(str(error).replace("the audio", str(audio), 1)) from error
    finally:
        copy.unlink(missing_ok=True)
