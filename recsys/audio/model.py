"""The audio tower as one thing: clips in, sound vectors out, kept in a folder.

    clips  ->  SoundModel.embed  ->  unit vectors (n, d)
    SoundModel.save / SoundModel.load  <->  folder/sound.safetensors + folder/sound.json

The one function that training, batch embedding, uploads and evaluation all go through, so a vector never
depends on where it was made. ``version`` names the weights and all that comes before them: vectors of one
version compare.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from recsys.audio.logmel import log_mel, patches
from recsys.audio.networks import build_network
from recsys.audio.settings import (
    AudioSettings,
)
from recsys.errors import ArtefactError, DataError
from recsys.threads import n_cores, torch_threads
from recsys.types import Clip, Float32

_FORMAT = 1  # of the folder
_CORES_A_THREAD = 4  # the decoders need the rest: measured, decoding costs as much as all that follows it
_SAME_LENGTH = 8  # clips whose spectrum is made at once: 30 MB, and no faster with more


@dataclass(frozen=True, slots=True, eq=False)
class SoundModel:
    """A network with the settings of its input; ``version`` is a hash of both (32 hexadecimal digits)."""

    network: nn.Module
    settings: AudioSettings
    version: str = field(init=False)

    def __post_init__(self) -> None:
        """Work out the version."""
        self.network.eval()
        object.__setattr__(self, "version", _version(self.network, self.settings))

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.settings.network.dim

    def embed(self, clips: Sequence[Clip]) -> Float32:
        """Embed clips of any lengths, each as the mean over its patches, scaled to unit length.

        Returns:
            (n, d) float32, rows in the order of ``clips``; a row does not depend on the others (to 1e-5).

        Raises:
            DataError: a clip has another sample rate than the model.
        """
        vectors = np.zeros((len(clips), self.dim), np.float32)
        by_length: dict[int, list[int]] = {}
        for row, clip in enumerate(clips):
            if clip.sample_rate != self.settings.decode.sample_rate:
                expected = self.settings.decode.sample_rate
                raise DataError(f"a clip has {clip.sample_rate} samples a second, expected {expected}; decode it anew")
            by_length.setdefault(len(clip.samples), []).append(row)
        for rows in by_length.values():
            for start in range(0, len(rows), _SAME_LENGTH):
                part = rows[start : start + _SAME_LENGTH]
                vectors[part] = self._embed_same_length(np.stack([clips[row].samples for row in part]))
        return vectors

    def _embed_same_length(self, samples: Float32) -> Float32:
        with torch.inference_mode(), torch_threads(max(1, n_cores() // _CORES_A_THREAD)):
            cut = patches(log_mel(torch.from_numpy(samples), self.settings.log_mel), self.settings.log_mel)
            of_patches: Tensor = self.network(cut.flatten(0, 1))
            means = of_patches.view(*cut.shape[:2], -1).mean(dim=1)
            vectors: Float32 = torch.nn.functional.normalize(means, dim=1).numpy()
        return vectors

    def save(self, folder: Path) -> None:
        """Write the weights and a description into an existing folder."""
        weights = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        (folder / "sound.safetensors").write_bytes(save(weights))  # its own save_file hides why a disk refused
        about = {
            "format": _FORMAT,
            "version": self.version,
            "settings": self.settings.model_dump(mode="json"),
        }
        (folder / "sound.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> "SoundModel":
        """Read a model back.

        Raises:
            ArtefactError: a file is missing, damaged, of another format, or the two do not belong together.
        """
        try:
            about = json.loads((folder / "sound.json").read_text(encoding="utf-8"))
            if about["format"] != _FORMAT:
                raise ArtefactError(f"{folder}: an audio model of format {about['format']}, expected {_FORMAT}")
            settings = AudioSettings.model_validate(about["settings"])
            network = build_network(settings.network, settings.log_mel.n_mels)
            network.load_state_dict(load_file(folder / "sound.safetensors"))
            model = SoundModel(network, settings)
            intact = model.version == about["version"]
        except (
            OSError,
            SafetensorError,
            ValidationError,
            ValueError,
            KeyError,
            TypeError,
            RuntimeError,
        ) as error:
            if isinstance(error, ArtefactError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise ArtefactError(f"{folder}: the audio model cannot be read ({reason}); build anew") from error
        if not intact:
            raise ArtefactError(f"{folder}: the audio model's weights are not those of sound.json; build anew")
        return model


def _version(network: nn.Module, settings: AudioSettings) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in (settings.decode, settings.log_mel, settings.network):
        digest.update(part.model_dump_json().encode() + b"\0")
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + b"\0" + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
