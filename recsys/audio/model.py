"""The audio tower as one thing: clips in, sound vectors out, kept in a folder.

    clips  ->  SoundModel.embed  ->  unit vectors (n, d)
    SoundModel.save / SoundModel.load  <->  folder/sound.safetensors + folder/sound.json (+ folder/sound.onnx)

The one function that training, batch embedding, uploads and evaluation all go through, so a vector never
depends on where it was made. ``version`` names the weights and all that comes before them: vectors of one
version compare. How a network comes to its weights is in ``recsys.audio.fit``.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from recsys.audio.networks.clips import clip_patches, of_one_length
from recsys.audio.networks.conv1d import Pooled, build_network
from recsys.audio.networks.device import device_of, move
from recsys.audio.networks.frozen import clip_features
from recsys.audio.networks.head import Headed, empty_frozen, empty_headed
from recsys.audio.networks.plug_in import PlugIn, described
from recsys.audio.networks.unfitted import Unfitted
from recsys.audio.settings import AudioSettings
from recsys.errors import ArtefactError, MissingExtraError
from recsys.types import Clip, Float32
from recsys.util.threads import torch_threads
from recsys.util.training import Curve

_PLUG_IN = "sound.onnx"
_FORMAT = 3  # of the folder; 2 heard every patch by both published networks


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a network comes from: the settings as they were given, published weights by name with their SHA-256, and
    the curve of its training (empty where nothing was trained by gradient).
    """

    asked: AudioSettings
    weights: dict[str, str] = field(default_factory=dict)
    curve: Curve = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class SoundModel:
    """A network with the settings of its input; ``version`` is a hash of both (32 hexadecimal digits)."""

    network: Pooled | Headed | Unfitted
    settings: AudioSettings
    origin: Origin
    version: str = field(init=False)

    def __post_init__(self) -> None:
        """Work out the version."""
        self.network.eval()
        object.__setattr__(self, "version", _version(self.network, self.settings))

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.network.dim

    @property
    def label(self) -> str:
        """Say in a few words which network this is and where it started."""
        network = self.settings.network
        if network.name == "onnx":
            told = f"onnx {str(network.sha256)[:12]}, {'fitted head' if network.tune == 'head' else 'as it comes'}"
            return f"{told}, beside musicnn" if network.beside == "musicnn" else told
        if network.start == "random":
            return f"{network.name}, random start"
        if network.name != "musicnn":
            return f"{network.name}, taught by musicnn"
        tuned = {"none": "as published", "head": "fitted head", "last": "last layers tuned", "all": "all layers tuned"}
        return f"musicnn, {tuned[network.tune]}"

    def embed(self, clips: Sequence[Clip]) -> Float32:
        """Embed clips of any lengths, each over all of its patches, scaled to unit length.

        Returns:
            (n, d) float32, rows in the order of ``clips``; a row does not depend on the others (to 1e-5).

        Raises:
            DataError: a clip has another sample rate than the model.
            ConfigError: the setting ``audio.device`` names a device that is not here.
        """
        if not isinstance(self.network, Pooled):
            with torch_threads(1):
                return self.network.vectors(clip_features(self.network.frozen, clips, self.settings))
        vectors = np.zeros((len(clips), self.dim), np.float32)
        device = device_of(self.settings.device)
        move(self.network, device)
        with torch.inference_mode(), torch_threads(1):
            for rows, samples in of_one_length(clips, self.settings.decode.sample_rate):
                embedded = self.network(clip_patches(samples, self.settings, device))
                vectors[rows] = nn.functional.normalize(embedded, dim=1).cpu().numpy()
        return vectors

    @property
    def _plug_in(self) -> PlugIn | None:
        return None if isinstance(self.network, Pooled) else self.network.frozen.plug_in

    def save(self, folder: Path) -> None:
        """Write the weights and a description into an existing folder."""
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        (folder / "sound.safetensors").write_bytes(save(weights))  # its own save_file hides why a disk refused
        if self._plug_in is not None:
            (folder / _PLUG_IN).write_bytes(self._plug_in.model)
        about = {
            "format": _FORMAT,
            "version": self.version,
            "network": self.label,
            "settings": self.settings.model_dump(mode="json"),
            "asked": self.origin.asked.model_dump(mode="json"),
            "published_weights": self.origin.weights,
            "curve": self.origin.curve,
        }
        (folder / "sound.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> "SoundModel":
        """Read a model back.

        Raises:
            ArtefactError: a file is missing, damaged, of another format, or they do not belong together.
            ConfigError: its plug-in needs ONNX Runtime, which is not installed.
        """
        try:
            about = json.loads((folder / "sound.json").read_text(encoding="utf-8"))
            if about["format"] != _FORMAT:
                raise ArtefactError(f"{folder}: an audio model of format {about['format']}, expected {_FORMAT}")
            model = _loaded(about, load_file(folder / "sound.safetensors"), folder / _PLUG_IN)
            intact = model.version == about["version"]
        except (ArtefactError, MissingExtraError):
            raise
        except (OSError, SafetensorError, ValidationError, ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ArtefactError(f"{folder}: the audio model cannot be read ({reason}); build anew") from error
        if not intact:
            raise ArtefactError(f"{folder}: the audio model's weights are not those of sound.json; build anew")
        return model


def _loaded(about: dict[str, Any], weights: dict[str, torch.Tensor], onnx: Path) -> SoundModel:
    settings = AudioSettings.model_validate(about["settings"])
    origin = Origin(AudioSettings.model_validate(about["asked"]), about["published_weights"], about["curve"])
    network: Pooled | Headed | Unfitted
    chosen = settings.network
    if chosen.name == "onnx":
        plug_in = PlugIn(onnx.read_bytes(), chosen, settings.log_mel)
        has_head = chosen.tune == "head"
        network = empty_headed(weights, plug_in) if has_head else Unfitted(empty_frozen(weights, plug_in))
    elif chosen.name == "musicnn" and chosen.start == "pretrained" and chosen.tune == "head":
        network = empty_headed(weights)
    else:
        network = build_network(chosen, settings.log_mel)
    network.load_state_dict(weights)
    return SoundModel(network, settings, origin)


def _version(network: nn.Module, settings: AudioSettings) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in (settings.decode.model_dump_json(), settings.log_mel.model_dump_json(), described(settings.network)):
        digest.update(part.encode() + b"\0")
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + b"\0" + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
