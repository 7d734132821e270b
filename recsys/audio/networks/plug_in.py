"""A network of the user's own, as an ONNX file: a clip in, features out.

    file, its SHA-256  ->  read_plug_in  ->  PlugIn
    samples of a clip  ->  windows of samples, or of log-mel  ->  PlugIn.features  ->  (n_features,)

The windows' outputs are pooled to their mean and their deviation. The file is bytes of strangers: only a file of the
hash that the settings name is opened, its graph is parsed by ONNX Runtime and never by pickle, no operators of other
libraries are loaded, and other files that it points to are not read, for the hash does not cover them. It runs on the
processor, a thread a clip, so that a vector is the same on every machine (to 1e-5).
"""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys.audio.logmel import log_mel, patches
from recsys.audio.settings import LogMelSettings, NetworkSettings
from recsys.errors import ConfigError, DataError, MissingExtraError
from recsys.types import Float32

RUNTIME = "onnxruntime"
_OF_PLUG_INS = {"model", "sha256", "sample_rate", "window_s", "hop_s", "input", "outputs", "beside"}
_AT_ONCE = 8  # windows, where the model takes any number
_NOWHERE = "/dev/null/none"  # where a model's further files are looked for, so that none is found


class PlugIn:
    """A model that is loaded; called from several threads at once.

    Args:
        model: the file's bytes.
        network: how it is fed, and which outputs are taken.
        log_mel: of its input, where that is log-mel.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        ConfigError: the bytes are not those that the settings name, or no model, or what it takes and gives does not
            fit the settings.
    """

    def __init__(self, model: bytes, network: NetworkSettings, log_mel: LogMelSettings) -> None:
        found = hashlib.sha256(model).hexdigest()
        if found != network.sha256:
            raise ConfigError(
                f"the ONNX model has the SHA-256 {found}, audio.network.sha256 is {network.sha256}; it is another file"
            )
        self.model, self.sha256 = model, found
        self._network = network
        self._log_mel = _windowed(network, log_mel)
        self._session = _session(model)
        self._input = self._only_input()
        self._outputs = self._asked_outputs()
        self._fixed_batch = isinstance(self._input.shape[0], int)
        self.sizes = tuple(out.shape[1] for out in self._run(self._shaped(self._silence())))
        self.block_sizes = tuple(size for size in self.sizes for _ in ("mean", "deviation"))
        self.n_features = sum(self.block_sizes)

    @property
    def identity(self) -> str:
        """Name all that decides the features: the file, its input and outputs, and what runs it."""
        return f"{described(self._network)} {self._log_mel.model_dump_json()}"

    @property
    def mean_blocks(self) -> list[int]:
        """Places of the means among the blocks."""
        return list(range(0, len(self.block_sizes), 2))

    def features(self, samples: Float32, n_stretches: int = 1) -> Float32:
        """Describe a clip (n_samples,) of stretches of one length: each output's mean and deviation over windows.

        Raises:
            DataError: the model gives numbers that are not finite, or another shape than for silence.
        """
        least = self._log_mel.n_fft if self._network.input == "log-mel" else 1
        n_stretches = n_stretches if len(samples) >= n_stretches * least else 1  # too short to be cut
        stretches = samples[: len(samples) // n_stretches * n_stretches].reshape(n_stretches, -1)
        windows = self._shaped(np.concatenate([self._windows(stretch) for stretch in stretches]))
        found = [np.concatenate(parts) for parts in zip(*self._batches(windows), strict=True)]
        if tuple(out.shape[1] for out in found) != self.sizes:
            raise DataError(f"the ONNX model gave outputs of other widths than {self.sizes}; give a model of one width")
        if not all(np.isfinite(out).all() for out in found):
            raise DataError("the ONNX model gave numbers that are not finite; give another model")
        features = np.concatenate([part for out in found for part in (out.mean(axis=0), out.std(axis=0))])
        return features.astype(np.float32)

    def _batches(self, windows: Float32) -> Iterator[list[Float32]]:
        size = 1 if self._fixed_batch else _AT_ONCE
        return (self._run(windows[start : start + size]) for start in range(0, len(windows), size))

    def _windows(self, stretch: Float32) -> Float32:
        """Cut a stretch into windows: (n, n_samples) or (n, n_mels, n_frames)."""
        if self._network.input == "log-mel":
            spectrogram = log_mel(torch.from_numpy(stretch[None]), self._log_mel)
            cut: Float32 = patches(spectrogram, self._log_mel)[0].numpy()
            return cut
        window = round(self._network.window_s * self._network.sample_rate)
        hop = round(self._network.hop_s * self._network.sample_rate)
        whole = np.resize(stretch, max(len(stretch), window))  # a short one is repeated until it fills a window
        return np.lib.stride_tricks.sliding_window_view(whole, window)[:: max(hop, 1)]

    def _shaped(self, windows: Float32) -> Float32:
        """Lay windows out as the model takes them: with a channel, or with time before the bands, if it says so."""
        shape = self._input.shape
        if self._network.input == "log-mel" and shape[-1] == windows.shape[1] and shape[-2] != windows.shape[1]:
            windows = windows.transpose(0, 2, 1)
        if len(shape) == windows.ndim + 1:
            windows = windows[:, None]
        return np.ascontiguousarray(windows, np.float32)

    def _silence(self) -> Float32:
        n_samples = max(round(self._network.window_s * self._network.sample_rate), self._log_mel.n_fft)
        return self._windows(np.zeros(n_samples, np.float32))[:1]

    def _run(self, windows: Float32) -> list[Float32]:
        """Ask for the outputs of some windows: (n, d) each; of one with time or a map, the mean over it."""
        try:
            given = self._session.run(self._outputs, {self._input.name: windows})
        except _errors() as error:
            raise ConfigError(
                f"the ONNX model cannot be run on windows {windows.shape} ({_first_line(error)}); set "
                "audio.network.input, window_s and sample_rate as it needs them"
            ) from error
        found = []
        for name, out in zip(self._outputs, given, strict=True):
            array = np.asarray(out)
            if array.dtype.kind != "f" or array.ndim not in (2, 3) or len(array) != len(windows):
                raise ConfigError(
                    f"the output {name} of the ONNX model is {array.dtype} {array.shape} of {len(windows)} windows, "
                    "expected numbers (n, d) or (n, time, d)"
                )
            with np.errstate(invalid="ignore"):  # numbers that are not finite are refused later
                found.append((array if array.ndim == 2 else array.mean(axis=1)).astype(np.float32))
        return found

    def _only_input(self) -> Any:
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            told = ", ".join(f"{one.name} {one.type}" for one in inputs)
            raise ConfigError(f"the ONNX model takes {told}; expected one input of single precision")
        expected = (2, 3) if self._network.input == "wave" else (3, 4)
        if len(inputs[0].shape) not in expected:
            raise ConfigError(
                f"the ONNX model takes {inputs[0].name} of shape {inputs[0].shape}, which is no "
                f"{self._network.input}; set audio.network.input as it needs it"
            )
        return inputs[0]

    def _asked_outputs(self) -> list[str]:
        there = [one.name for one in self._session.get_outputs()]
        missing = [name for name in self._network.outputs if name not in there]
        if missing:
            raise ConfigError(f"the ONNX model has no output {missing[0]!r}, it has {', '.join(there)}")
        return list(self._network.outputs)


def read_plug_in(network: NetworkSettings, log_mel: LogMelSettings) -> PlugIn:
    """Read the model that the settings name; a relative path starts where the program was started.

    Raises:
        ConfigError: it is not there, is another file than the one of that hash, or cannot be used.
    """
    try:
        model = Path(network.model or "").read_bytes()
    except OSError as error:
        raise ConfigError(f"audio.network.model {network.model} cannot be read: {error.strerror}") from error
    return PlugIn(model, network, log_mel)


def described(network: NetworkSettings) -> str:
    """Say as JSON which network it is: not where a plug-in's file lies, nor a plug-in's settings where there is none.

    Versions of before plug-ins are hashes of the same text.
    """
    left_out = {"model"} if network.name == "onnx" else _OF_PLUG_INS
    left_out |= {"patches"} if network.patches == "all" else set()
    text = network.model_dump_json(exclude=left_out)
    return f"{RUNTIME} {text}" if network.name == "onnx" else text


def _windowed(network: NetworkSettings, log_mel: LogMelSettings) -> LogMelSettings:
    """The front end with the plug-in's windows for patches."""
    per_s = log_mel.sample_rate / log_mel.hop_length
    frames = {"patch_frames": network.window_s * per_s, "patch_hop_frames": network.hop_s * per_s}
    return log_mel.model_copy(update={name: max(round(n), 1) for name, n in frames.items()})


def _session(model: bytes) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"audio.network.name is onnx, which needs {error.name}: pip install 'recsys[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it says is raised too
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except _errors() as error:
        raise ConfigError(
            f"the ONNX model cannot be loaded ({_first_line(error)}); give a whole model in one file"
        ) from error


@lru_cache(maxsize=1)
def _errors() -> tuple[type[Exception], ...]:
    """The errors of ONNX Runtime, which have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, ValueError, RuntimeError)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
