"""The published musicnn: from the Python package that carries it to files that ``recsys.audio.networks.musicnn`` loads.

    the package index  ->  fetch_musicnn  ->  CACHE/recsys/musicnn-0.1.0/: msd.safetensors, mtt.safetensors, about.json
    musicnn_weights()  ->  that folder, or None;  load_musicnn(folder, name)  ->  MusicNN

The wheel is downloaded by pip but never installed (it asks for a TensorFlow of 2019); it holds one TensorFlow
checkpoint a network, trained on the Million Song Dataset ("msd") or MagnaTagATune ("mtt") by Pons and Serra, under the
ISC licence. What comes out is checked twice: the tensors against a hash, and the network on a made-up patch against
what the original gives. CACHE is ``XDG_CACHE_HOME`` or ``~/.cache``. Once the folder is there, no network is needed.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Literal
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from recsys.audio.networks.musicnn import MusicNN
from recsys.audio.networks.tf_checkpoint import read_checkpoint
from recsys.errors import ArtefactError
from recsys.types import Float32
from recsys.util.progress import Progress

Name = Literal["msd", "mtt"]
NAMES: tuple[Name, ...] = ("msd", "mtt")

_REQUIREMENT = "musicnn==0.1.0"
_FOLDER = "musicnn-0.1.0"
_MEMBERS = {"msd": "musicnn/MSD_musicnn/", "mtt": "musicnn/MTT_musicnn/"}
WEIGHTS_SHA256: dict[str, str] = {  # of each network's tensors
    "msd": "9dfb6efcc8907d732d5ca04a12210ec782f18901b5f404b38c5ae7f47f85bec3",
    "mtt": "417d9980a10079dba389f1ed92497f088148a621e51b5d40d7d25090eb76ce2c",
}
# first tags of the patch below, by a double-precision forward pass in numpy that shares no code with this package
_KNOWN_TAGS: dict[str, tuple[float, ...]] = {
    "msd": (0.002924, 0.048741, 0.041788, 0.386355, 0.436411, 0.180476, 0.003219, 0.054651),
    "mtt": (0.113795, 0.002282, 0.020205, 7.3e-05, 0.13882, 0.001331, 0.000102, 2.4e-05),
}
_KNOWN_TOLERANCE = 1e-4
_ABOUT = {
    "format": 1,
    "source": "the package musicnn 0.1.0 of the Python package index",
    "authors": "Jordi Pons, Music Technology Group, Universitat Pompeu Fabra",
    "licence": "ISC",
    "reference": "Pons and Serra, musicnn: pre-trained convolutional neural networks for music tagging, 2019",
}
_PARTS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_N_FRONT, _N_CONVOLUTIONS = 5, 8


def musicnn_weights() -> Path | None:
    """Find the folder of the weights; None where they were never fetched."""
    folder = _cache() / _FOLDER
    return folder if (folder / "about.json").is_file() else None


def fetch_musicnn(progress: Progress, download: Callable[[Path], None] | None = None) -> Path:
    """Get the weights, check them and store them, unless they are there already.

    Args:
        progress: told what is done.
        download: puts the wheel into a folder; by default pip does.

    Returns:
        The folder.

    Raises:
        ArtefactError: the wheel cannot be had, is not the one that is known, or the cache cannot be written.
    """
    found = musicnn_weights()
    if found is not None:
        progress.log(f"musicnn: the weights are in {found}")
        return found
    progress.log(f"musicnn: getting {_REQUIREMENT} (29 MB) from the package index")
    with TemporaryDirectory() as scratch:
        (download or _pip_download)(Path(scratch))
        wheels = list(Path(scratch).glob("*.whl"))
        if len(wheels) != 1:
            raise ArtefactError(f"the download of {_REQUIREMENT} gave {len(wheels)} wheels, expected 1; try again")
        states = {name: _checked(name, state_of(_checkpoint(wheels[0], _MEMBERS[name]))) for name in NAMES}
    folder = _store(states)
    progress.log(f"musicnn: checked and stored in {folder}")
    return folder


def load_musicnn(folder: Path, name: Name = "msd") -> MusicNN:
    """Load one of the networks, ready to embed.

    Raises:
        ArtefactError: the file is missing or is not what ``fetch_musicnn`` wrote.
    """
    try:
        state = load((folder / f"{name}.safetensors").read_bytes())
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ArtefactError(f"{folder}: musicnn's weights cannot be read ({reason}); delete the folder") from error
    if tensors_sha256(state) != WEIGHTS_SHA256[name]:
        raise ArtefactError(f"{folder}: {name}.safetensors is damaged; delete the folder and fetch it again")
    return _network(state)


def state_of(tensors: Mapping[str, Float32]) -> dict[str, Tensor]:
    """Turn the checkpoint's tensors, by TensorFlow's names and axes, into the state of a ``MusicNN``.

    Raises:
        ArtefactError: a tensor is missing or has another number of axes than is known.
    """
    places = {"normalise": "batch_normalization", "normalise_pooled": "batch_normalization_9"}
    places["normalise_dense"] = "batch_normalization_10"
    state: dict[str, NDArray[Any]] = {}
    try:
        for n in range(_N_CONVOLUTIONS):
            part = f"front.{n}" if n < _N_FRONT else f"middle.{n - _N_FRONT}"
            name = f"conv2d_{n}" if n else "conv2d"
            kernel = tensors[f"{name}/kernel"]  # (frames, bands or channels, 1, filters)
            turned = kernel.transpose(3, 2, 1, 0) if n < _N_FRONT else kernel[:, :, 0].transpose(2, 1, 0)
            state |= {f"{part}.convolution.weight": turned, f"{part}.convolution.bias": tensors[f"{name}/bias"]}
            places[f"{part}.norm"] = f"batch_normalization_{n + 1}"
        for ours, theirs in places.items():
            state |= {f"{ours}.{part}": tensors[f"{theirs}/{name}"] for part, name in _PARTS.items()}
            state[f"{ours}.num_batches_tracked"] = np.zeros((), np.int64)
        for ours, theirs in (("dense", "dense"), ("to_tags", "dense_1")):
            state |= {f"{ours}.weight": tensors[f"{theirs}/kernel"].T, f"{ours}.bias": tensors[f"{theirs}/bias"]}
    except (KeyError, ValueError, IndexError) as error:
        raise ArtefactError(f"this is no checkpoint of musicnn ({error}); get {_REQUIREMENT} anew") from error
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in state.items()}


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash names, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(
            f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode() + tensor.cpu().contiguous().numpy().tobytes()
        )
    return digest.hexdigest()


def known_patch() -> Tensor:
    """Make a patch (1, 96, 187) with tones, beats and a slope: log-mel-like, and the same everywhere."""
    band, frame = torch.arange(96.0)[:, None], torch.arange(187.0)
    return (3 * torch.exp(-band / 40) * (1 + torch.sin(band * band / 50 + frame / 9)) * (1 + (frame % 23 < 5)))[None]


def _checked(name: Name, state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = tensors_sha256(state)
    if found != WEIGHTS_SHA256[name]:
        raise ArtefactError(
            f"the weights of {name} hash to {found[:12]}, expected {WEIGHTS_SHA256[name][:12]}; try again"
        )
    with torch.inference_mode():
        tags = _network(state, torch.float32).tags(known_patch())[0, : len(_KNOWN_TAGS[name])]
    furthest = float((tags - torch.tensor(_KNOWN_TAGS[name])).abs().max())
    if not furthest <= _KNOWN_TOLERANCE:
        raise ArtefactError(f"{name} is {furthest:.2g} off its known output; torch computes wrongly here")
    return state


def _network(state: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> MusicNN:
    network = MusicNN(dtype=dtype)
    network.load_state_dict(state)
    return network.eval()


def _checkpoint(wheel: Path, member: str) -> dict[str, Float32]:
    try:
        with ZipFile(wheel) as file:
            return read_checkpoint(file.read(member + ".index"), file.read(member + ".data-00000-of-00001"))
    except (BadZipFile, KeyError, OSError) as error:
        raise ArtefactError(f"{wheel.name} is not the wheel of {_REQUIREMENT} ({error}); try again") from error


def _pip_download(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), _REQUIREMENT]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        lines = [line for line in ran.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise ArtefactError(
            f"pip could not get {_REQUIREMENT} ({lines[-1].strip()}); `recsys weights musicnn` tries again"
        )


def _store(states: Mapping[Name, Mapping[str, Tensor]]) -> Path:
    """Write a folder beside, then rename it into place."""
    folder = _cache() / _FOLDER
    about = _ABOUT | {"sha256": {name: tensors_sha256(state) for name, state in states.items()}}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=".musicnn-", ignore_cleanup_errors=True) as beside:
            written = Path(mkdtemp(dir=beside))
            for name, state in states.items():
                (written / f"{name}.safetensors").write_bytes(save(dict(state)))
            (written / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            written.chmod(0o755)
            if musicnn_weights() is None:  # another process may have been faster
                written.rename(folder)
    except OSError as error:
        raise ArtefactError(f"{folder}: musicnn's weights cannot be stored ({error})") from error
    return folder


def _cache() -> Path:
    named = os.environ.get("XDG_CACHE_HOME")
    return (Path(named) if named else Path.home() / ".cache") / "recsys"
