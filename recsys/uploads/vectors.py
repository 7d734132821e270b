"""Vectors of uploaded tracks, by the models of a generation.

what is known of an upload, its sound vector  ->  vectors_of  ->  a vector a space
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recsys.audio.embed import embed_paths
from recsys.catalogue.problems import Problems
from recsys.eventlog.events import Upload
from recsys.eventlog.replay import tracks_of
from recsys.eventlog.store import LiveStore
from recsys.hybrid.blend import Blend
from recsys.hybrid.encoder import Encoder
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.store.weights import load_encoder, load_sound_model
from recsys.types import ITEM, Float32
from recsys.util.progress import Silent


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
    """Give uploads, with their numbers in the log, their vectors under a generation that had none of them."""
    encoder, model = load_encoder(models), load_sound_model(models)
    sounds: dict[int, Float32] = {}  # by place; a file may be damaged or taken away since: placed by what else is known
    if model is not None:
        paths = [store.uploads / upload.file for _, upload in late]
        heard = embed_paths(paths, model, model.settings, None, Problems(), Silent())
        sounds = dict(zip(heard.rows.tolist(), heard.vectors, strict=True))
    for place, (number, upload) in enumerate(late):
        vectors = vectors_of(upload, sounds.get(place), encoder, recommender.model.blend)
        live.set_vectors(recommender.generation, number, vectors)
