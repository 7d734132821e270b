"""Model weights of a generation: what turns a new upload into vectors, as safetensors and JSON, never pickles.

Encoder, SoundModel  ->  <generation>/models/{content,sound}  ->  Encoder, SoundModel
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from safetensors.torch import load_file as load_weights
from safetensors.torch import save as save_weights
from scipy.sparse import csr_matrix

from recsys.audio.model import SoundModel
from recsys.content.fusion import Fusion, FusionSettings, FusionShape
from recsys.content.lyrics import LyricsReader
from recsys.content.metadata import Vocabulary
from recsys.content.train import ContentModel
from recsys.errors import ArtefactError
from recsys.hybrid.encoder import Encoder, LightFMColumns, Scaler
from recsys.hybrid.kernel import Features, Kernel
from recsys.hybrid.mapping import FactorMap


def save_models(folder: Path, encoder: Encoder, sound: SoundModel | None) -> None:
    """Write the encoder, and the audio network where there is one, into a new folder."""
    content = folder / "content"
    content.mkdir(parents=True)
    model = encoder.content
    weights = {k: v.contiguous() for k, v in model.network.state_dict().items()}
    (content / "fusion.safetensors").write_bytes(save_weights(weights))  # save_file hides why a disk refused
    arrays: dict[str, NDArray[Any]] = {"content_mean": encoder.content_mean}
    if encoder.scaler is not None:
        arrays |= {"sound_mean": encoder.scaler.mean, "sound_deviation": encoder.scaler.deviation}
    if encoder.signs is not None:
        arrays["label_signs"] = encoder.signs
    if encoder.factor_map is not None:
        arrays |= _map_arrays(encoder.factor_map)
    if encoder.lightfm is not None:
        arrays |= {"lightfm_embeddings": encoder.lightfm.embeddings, "lightfm_centroids": encoder.lightfm.centroids}
    packed = save({name: np.ascontiguousarray(a) for name, a in arrays.items()})
    (content / "encoder.safetensors").write_bytes(packed)
    facts = {
        "shape": asdict(model.shape),
        "vocabulary": model.vocabulary.to_json(),
        "settings": model.settings.model_dump(),
        "trained_on": list(model.trained_on),
        "curve": model.curve,
        "factor_map": None if encoder.factor_map is None else _map_facts(encoder.factor_map),
        "unplayed": encoder.unplayed,
        "nearest": None if encoder.lightfm is None else encoder.lightfm.nearest,
    }
    (content / "lyrics.spm").write_bytes(model.reader.pieces)
    (content / "content.json").write_text(json.dumps(facts), encoding="utf-8")
    if sound is not None:
        (folder / "sound").mkdir()
        sound.save(folder / "sound")


def load_sound_model(folder: Path) -> SoundModel | None:
    """Read the audio network of a generation's ``models`` folder; None if the catalogue has none.

    Raises:
        ArtefactError: it is damaged.
    """
    return SoundModel.load(folder / "sound") if (folder / "sound").is_dir() else None


def load_encoder(folder: Path) -> Encoder:
    """Read the encoder of a generation's ``models`` folder.

    Raises:
        ArtefactError: a file is missing or damaged.
    """
    try:
        return _read_encoder(folder / "content")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ArtefactError(f"cannot read the models in {folder}: {error}; build again") from error


def _read_encoder(content: Path) -> Encoder:
    facts = json.loads((content / "content.json").read_text(encoding="utf-8"))
    shape, settings = FusionShape(**facts["shape"]), FusionSettings.model_validate(facts["settings"])
    network = Fusion(shape, settings)
    network.load_state_dict(load_weights(content / "fusion.safetensors"))
    arrays = load_file(content / "encoder.safetensors")
    reader = LyricsReader(settings.lyrics, (content / "lyrics.spm").read_bytes(), shape.lyrics)
    scaler = Scaler(arrays["sound_mean"], arrays["sound_deviation"]) if "sound_mean" in arrays else None
    factor_map = None if facts["factor_map"] is None else _load_map(arrays, facts["factor_map"])
    lightfm = None
    if "lightfm_embeddings" in arrays:
        lightfm = LightFMColumns(arrays["lightfm_embeddings"], arrays["lightfm_centroids"], facts["nearest"])
    model = ContentModel(
        network.eval(),
        shape,
        Vocabulary(**facts["vocabulary"]),
        reader,
        settings,
        tuple(facts["trained_on"]),
        facts["curve"],
    )
    return Encoder(
        model, scaler, arrays["content_mean"], factor_map, lightfm, facts["unplayed"], arrays.get("label_signs")
    )


def _map_arrays(f: FactorMap) -> dict[str, NDArray[Any]]:
    landmarks = f.kernel.landmarks
    return {
        "map_labels_data": landmarks.labels.data,
        "map_labels_indices": landmarks.labels.indices,
        "map_labels_indptr": landmarks.labels.indptr,
        "map_sound": landmarks.sound,
        "map_artist": landmarks.artist,
        "map_length_mean": f.kernel.length_mean,
        "map_length_deviation": f.kernel.length_deviation,
        "map_coefficients": f.coefficients,
        "map_mean": f.mean,
        "artist_sums": f.artist_sums,
        "artist_weights": f.artist_weights,
    }


def _map_facts(f: FactorMap) -> dict[str, Any]:
    n_labels = f.kernel.landmarks.labels.shape[1]
    return {"size": f.kernel.size, "widths": f.widths, "shrinkage": f.shrinkage, "n_labels": n_labels}


def _load_map(arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> FactorMap:
    sound = arrays["map_sound"]
    parts = tuple(arrays[f"map_labels_{name}"] for name in ("data", "indices", "indptr"))
    labels = csr_matrix(parts, shape=(len(sound), facts["n_labels"]))
    kernel = Kernel(
        Features(labels, sound, arrays["map_artist"]),
        facts["size"],
        arrays["map_length_mean"],
        arrays["map_length_deviation"],
    )
    return FactorMap(
        kernel,
        facts["widths"],
        arrays["map_coefficients"],
        arrays["map_mean"],
        arrays["artist_sums"],
        arrays["artist_weights"],
        facts["shrinkage"],
    )
