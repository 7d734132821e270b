"""Names of networks in, functions that fit them out: what one table compares.

    musicnn-head, musicnn, conv1d, dense, untrained, mfcc, ...  ->  fits_of  ->  clips, tracks -> Fitted

A fit gets the clips and tracks of the training folds and nothing else, so what is held out cannot reach it. All but
``mfcc`` are the build's own networks, fitted by the build's own function (``recsys.audio.fit``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from eval.representation.mfcc import N_STATISTICS, fit_mfcc
from eval.representation.settings import NetworkName
from recsys.audio.fit import fit_sound_model
from recsys.audio.networks.weights import musicnn_weights
from recsys.audio.settings import AudioSettings
from recsys.content.targets import targets_of
from recsys.errors import ConfigError
from recsys.types import Clip, Float32, Tags, Tracks
from recsys.util.progress import Progress


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A network that may be asked for vectors: (n, d) float32, of any lengths; from several threads at once.

    ``n_parameters`` counts all numbers that are kept of it; ``label`` says what the name came to.
    """

    embed: Callable[[Sequence[Clip]], Float32]
    n_parameters: int
    label: str


Fit = Callable[[Sequence[Clip], Tracks, Tags | None, Progress], Fitted]

_CHANGES: dict[NetworkName, dict[str, dict[str, Any]]] = {
    "auto": {},
    "musicnn-head": {"network": {"name": "musicnn", "start": "pretrained", "tune": "head"}},
    "musicnn": {"network": {"name": "musicnn", "start": "pretrained", "tune": "none"}},
    "musicnn-last": {"network": {"name": "musicnn", "start": "pretrained", "tune": "last"}},
    "conv1d-taught": {"network": {"name": "conv1d", "start": "pretrained"}},
    "conv1d": {"network": {"name": "conv1d", "start": "random"}},
    "conv1d-gru": {"network": {"name": "conv1d", "start": "random", "pooling": "gru"}},
    "dense": {"network": {"name": "dense", "start": "random"}},
    "untrained": {"network": {"name": "conv1d", "start": "random"}, "train": {"epochs": 0}},
}
WHAT = {
    "auto": "the network that the settings choose for this catalogue",
    "musicnn-head": "published musicnn, its head trained on the training folds",
    "musicnn": "published musicnn as it comes",
    "musicnn-last": "published musicnn, its last layers tuned by gradient",
    "conv1d-taught": "conv1d taught the vectors of musicnn-head",
    "conv1d-gru": "conv1d with a GRU over patches in place of their mean",
    "conv1d": "1-D convolutions along time, from a random start",
    "dense": "fully connected, from a random start",
    "untrained": "conv1d at its random start",
    "mfcc": "mean and deviation of 20 MFCCs and of their differences, standardised",
    "given": "the vectors that came with the tracks",
}


def network_settings(name: NetworkName, settings: AudioSettings) -> AudioSettings:
    """Change the run's settings to those of a named network; what the name does not speak of stays.

    Raises:
        ConfigError: the two do not go together.
    """
    tree = settings.model_dump()
    for section, values in _CHANGES[name].items():
        tree[section] |= values
    try:
        return AudioSettings.model_validate(tree)
    except ValidationError as error:  # clips of an ONNX model's sample rate
        raise ConfigError(f"{name} cannot be judged with these settings: {error.errors()[0]['msg']}") from error


def fits_of(names: Sequence[NetworkName], settings: AudioSettings, seed: int, notes: list[str]) -> dict[str, Fit]:
    """A function for each name that can be fitted here; musicnn needs its published weights.

    Args:
        names: of the table's rows. settings: of the run. seed: of each fit, the same for all. notes: told what is left
        out.
    """
    fits: dict[str, Fit] = {}
    missing = (
        [name for name in names if name.startswith("musicnn") or name == "conv1d-taught"]
        if musicnn_weights() is None
        else []
    )
    if missing:
        notes.append(
            f"{' and '.join(missing)}: no published weights here, so not judged; `recsys weights musicnn` fetches them"
        )
    for name in names:
        if name not in missing:
            fits[name] = _mfcc(settings) if name == "mfcc" else _network(network_settings(name, settings), seed)
    return fits


def _mfcc(settings: AudioSettings) -> Fit:
    def fit(clips: Sequence[Clip], tracks: Tracks, tags: Tags | None, progress: Progress) -> Fitted:
        return Fitted(fit_mfcc(clips, settings.log_mel).embed, 2 * N_STATISTICS, "MFCC statistics")

    return fit


def _network(settings: AudioSettings, seed: int) -> Fit:
    def fit(clips: Sequence[Clip], tracks: Tracks, tags: Tags | None, progress: Progress) -> Fitted:
        targets = targets_of(tracks, None, None, settings.tasks, tags)
        model = fit_sound_model(clips, targets, settings, seed, progress)
        n_parameters = sum(numbers.numel() for numbers in model.network.state_dict().values())
        return Fitted(model.embed, n_parameters, model.label)

    return fit
