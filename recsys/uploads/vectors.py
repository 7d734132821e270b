"""Vectors of uploaded tracks, by the models of a generation.

    file, what its uploader says, models  ->  embed_upload  ->  Embedded: a vector a space, the tags inside
    what is known of an upload, its sound vector  ->  vectors_of  ->  a vector a space

Bytes of strangers are decoded, and the tags among them read, only in the limited processes of
``recsys.audio.decoding.pool``, which have no rights.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from recsys.audio.decoding.decode import mislabelled
from recsys.audio.decoding.pool import DecodeFailure, DecodeWorkers
from recsys.audio.decoding.worker import content_hash
from recsys.audio.embed import embed_paths
from recsys.audio.model import SoundModel
from recsys.audio.settings import DecodeSettings
from recsys.catalogue.problems import Problems
from recsys.errors import ArtefactError, DataError
from recsys.eventlog.events import Upload
from recsys.eventlog.replay import tracks_of
from recsys.eventlog.store import LiveStore
from recsys.hybrid.blend import Blend
from recsys.hybrid.encoder import Encoder
from recsys.ranking.model import Model
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.store.weights import load_encoder, load_sound_model
from recsys.types import ITEM, Float32
from recsys.uploads.metadata import Embedded, NewTrack, upload_of
from recsys.util.progress import Silent

NO_SOUND = "the sound vectors of this catalogue came with its table, so this track has none"


@dataclass(frozen=True, slots=True, eq=False)
class UploadModels:
    """What a generation embeds uploads with; ``sound`` is None where its sound vectors came with the tracks table."""

    sound: SoundModel | None
    encoder: Encoder
    blend: Blend

    @classmethod
    def of(cls, generation: Path) -> Self:
        """Load them from a generation's folder.

        Raises:
            ArtefactError: a file is missing or damaged.
        """
        models = generation / "models"
        return cls(load_sound_model(models), load_encoder(models), Model.load(generation / "arrays").blend)

    @property
    def decode(self) -> DecodeSettings:
        """Which stretch of a recording they listen to."""
        return DecodeSettings() if self.sound is None else self.sound.settings.decode


def embed_upload(
    path: Path, about: NewTrack, models: UploadModels, workers: DecodeWorkers, most_s: float = math.inf
) -> Embedded:
    """Listen to an upload and read the tags inside it, as a build does.

    Args:
        path: of the file.
        about: what its uploader says of it.
        models: of the generation that it is for.
        workers: decode it, confined.
        most_s: how long the recording may be.

    Raises:
        DataError: it cannot be used as audio, or is too long.
        ArtefactError: it is gone, or no process can be started to decode it.
    """
    try:
        with ThreadPoolExecutor(1, "hash") as hashing, path.open("rb") as file:
            hashes = hashing.submit(content_hash, path)  # while another process decodes
            outcome = workers.listen(file, models.decode)
            hashed = hashes.result()
    except OSError as error:  # its upload was given up meanwhile
        raise ArtefactError(f"cannot read the upload {path}: {error.strerror}") from error
    if isinstance(outcome, DecodeFailure):
        raise DataError(f"the audio cannot be used: {outcome.reason}")
    decoded, inside = outcome
    duration_s = decoded.clip.duration_s
    if duration_s > most_s:
        raise DataError(f"the recording lasts {duration_s:,.0f} s, expected {most_s:,.0f} s or less")
    sound = None if models.sound is None or decoded.is_silent else models.sound.embed([decoded.clip])[0]
    problems = decoded.problems + mislabelled(path, decoded.format)
    notes = [problem.reason for problem in problems] + ([NO_SOUND] if models.sound is None else [])
    upload = upload_of(about, inside, hashed, duration_s)
    vectors = vectors_of(upload, sound, models.encoder, models.blend)
    return Embedded(hashed, duration_s, vectors, tuple(notes), inside)


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


def embed_late(
    store: Store, live: LiveStore, late: Sequence[tuple[int, Upload]], recommender: Recommender, models: Path
) -> None:
    """Embed uploads, with their numbers in the log, under a generation that had no vectors of them."""
    encoder, model = load_encoder(models), load_sound_model(models)
    sounds: dict[int, Float32] = {}  # by place; a file may be damaged or taken away since: placed by what else is known
    if model is not None:
        paths = [store.uploads / upload.file for _, upload in late]
        heard = embed_paths(paths, model, model.settings, None, Problems(), Silent())
        sounds = dict(zip(heard.rows.tolist(), heard.vectors, strict=True))
    for place, (number, upload) in enumerate(late):
        vectors = vectors_of(upload, sounds.get(place), encoder, recommender.model.blend)
        live.set_vectors(recommender.generation, number, vectors)
