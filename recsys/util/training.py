"""The training loop of every network here: epochs until nothing gets better, then back to the best weights.

    modules, one epoch, a judge  ->  run_epochs  ->  the modules at their best epoch, and the curve of the run

What an epoch does and what it is judged by are the caller's. A run that is interrupted goes on from its last
checkpoint as if nothing had happened: on a CPU, to the bit. A checkpoint is one safetensors file with its JSON facts
in the header, never a pickle, written beside and renamed, so that a kill leaves the last whole one.
"""

import json
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from recsys.util.files import replace
from recsys.util.progress import Progress
from recsys.util.settings import Settings

Curve = list[dict[str, float]]  # a row an epoch: epoch from 1, the judge's figures, training cost, seconds
Judge = Callable[[], Mapping[str, float]]

FILE = "checkpoint.safetensors"
CURVES = "curves.json"
_FORMAT = "1"
_TRAINING_COST = "training cost"


class StopSettings(Settings):
    """When a run ends."""

    epochs: int = Field(ge=0)  # at most
    patience: int = Field(ge=1)  # epochs without a better figure before stopping


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run is kept while it goes on.

    ``fingerprint`` names all that decides the run (settings, targets, data, seed): a checkpoint with another one is not
    resumed from. Written after the first epoch that ends ``every_s`` seconds or more after the last writing.
    """

    folder: Path
    fingerprint: str
    every_s: float = 10.0

    def discard(self) -> None:
        """Remove the checkpoint, as the network it leads to is kept elsewhere; the curve stays."""
        (self.folder / FILE).unlink(missing_ok=True)


@dataclass(slots=True)
class _Run:
    """All that a run is between two epochs."""

    modules: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    rng: np.random.Generator
    best: dict[str, Tensor]
    curve: Curve

    def weights(self) -> dict[str, Tensor]:
        """Copy the weights of all modules, by ``module/name``."""
        named = ((name, module.state_dict()) for name, module in self.modules.items())
        return {f"{name}/{key}": value.detach().clone() for name, state in named for key, value in state.items()}

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        for name, module in self.modules.items():
            module.load_state_dict({key: weights[f"{name}/{key}"] for key in module.state_dict()})

    def epochs_since_best(self, figure: str) -> int:
        """Count the epochs since the lowest value of a figure; NaN is no improvement."""
        values = [row[figure] if row[figure] == row[figure] else float("inf") for row in self.curve]
        return len(values) - 1 - values.index(min(values)) if min(values, default=np.inf) < np.inf else len(values)


def run_epochs(
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    epoch: Callable[[np.random.Generator], float],
    judge: Judge | None,
    settings: StopSettings,
    rng: np.random.Generator,
    progress: Progress,
    name: str,
    checkpoint: Checkpoint | None = None,
) -> Curve:
    """Train until the deciding figure has not become lower for some epochs, and leave the weights of the best one.

    Args:
        modules: by name, all that is trained; set to ``train()`` before an epoch, to ``eval()`` before the judge.
        optimizer: over their parameters.
        epoch: sees the training data once, in an order drawn from the generator, and gives the mean cost.
        judge: figures of what is held out, called in inference mode; the first decides, lower is better. None: the
            training cost decides.
        settings: when to stop.
        rng: a PCG64 generator (``default_rng``), the only one that ``epoch`` draws from besides torch's own.
        progress: shows the figures and the time left; told where a checkpoint is damaged.
        name: of the bar, such as "content: training".
        checkpoint: where to resume from and to write to; None keeps nothing.

    Returns:
        The curve of the whole run, epochs before an interruption included; also written as ``curves.json`` beside the
        checkpoint.
    """
    run = _Run(modules, optimizer, rng, {}, [])
    run.best = run.weights()
    if checkpoint is not None:
        _resume(run, checkpoint, progress, name)
    written, decides = time.monotonic(), _deciding(run.curve)
    with progress.bar(name, settings.epochs, "epochs") as bar:
        bar.advance(len(run.curve))
        while len(run.curve) < settings.epochs and run.epochs_since_best(decides) < settings.patience:
            row = _one_epoch(run, epoch, judge)
            decides = next(key for key in row if key != "epoch")
            bar.advance(note=", ".join(f"{k} {v:.3f}" for k, v in row.items() if k not in {"epoch", "seconds"}))
            if run.epochs_since_best(decides) == 0:
                run.best = run.weights()
            if checkpoint is not None:
                _write(checkpoint.folder / CURVES, json.dumps(run.curve, indent=1).encode())
                if time.monotonic() - written >= checkpoint.every_s:
                    _write(checkpoint.folder / FILE, _packed(run, checkpoint.fingerprint))
                    written = time.monotonic()
    run.set_weights(run.best)
    return run.curve


def _deciding(curve: Curve) -> str:
    return next((key for row in curve for key in row if key != "epoch"), _TRAINING_COST)


def _one_epoch(run: _Run, epoch: Callable[[np.random.Generator], float], judge: Judge | None) -> dict[str, float]:
    """Add a row to the curve; the figure that decides stands first behind the epoch."""
    start = time.perf_counter()
    for module in run.modules.values():
        module.train()
    cost = float(epoch(run.rng))
    for module in run.modules.values():
        module.eval()
    with torch.inference_mode():
        figures = {} if judge is None else {key: float(value) for key, value in judge().items()}
    seconds = round(time.perf_counter() - start, 3)
    row = {"epoch": len(run.curve) + 1, **figures, _TRAINING_COST: cost, "seconds": seconds}
    run.curve.append(row)
    return row


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, lambda beside: beside.write_bytes(content))


def _packed(run: _Run, fingerprint: str) -> bytes:
    optimizer = run.optimizer.state_dict()
    states = [(f"{i}/{key}", value) for i, state in optimizer["state"].items() for key, value in state.items()]
    tensors = {f"weights/{key}": value for key, value in run.weights().items()}
    tensors |= {f"best/{key}": value for key, value in run.best.items()}
    tensors |= {f"optimizer/{key}": value.detach() for key, value in states if isinstance(value, Tensor)}
    tensors["torch_rng"] = torch.get_rng_state()
    tensors = {key: value.cpu().contiguous() for key, value in tensors.items()}
    facts = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "checksum": _checksum(tensors),
        "curve": run.curve,
        "rng": run.rng.bit_generator.state,
        "groups": optimizer["param_groups"],
        "numbers": {key: value for key, value in states if not isinstance(value, Tensor)},
    }
    packed: bytes = save(tensors, {"facts": json.dumps(facts)})
    return packed


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 of all tensors by name: a flipped bit inside them makes no invalid file, but another run."""
    total = 0
    for name in sorted(tensors):
        content = tensors[name].reshape(-1).view(torch.uint8).numpy()
        total = zlib.crc32(content.data, zlib.crc32(name.encode(), total))
    return total


def _resume(run: _Run, checkpoint: Checkpoint, progress: Progress, name: str) -> None:
    """Take up a checkpoint of the same run; say so where there is one that cannot be read."""
    path = checkpoint.folder / FILE
    if not path.exists():
        return
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            if (facts["format"], facts["fingerprint"]) != (_FORMAT, checkpoint.fingerprint):
                return
            tensors = {key: file.get_tensor(key) for key in list(file.keys())}
        if _checksum(tensors) != facts["checksum"]:
            raise ValueError("its checksum does not match its content")
        _restore(run, facts, tensors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        progress.log(f"{name}: the checkpoint {path} is damaged ({error}); training starts anew")


def _restore(run: _Run, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Put a run back to where the checkpoint was written; nothing is touched before all of it is known to fit."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    own, weights, best = run.weights(), part("weights/"), part("best/")
    for found in (weights, best):
        if {key: value.shape for key, value in found.items()} != {key: value.shape for key, value in own.items()}:
            raise ValueError("its weights are of another network")
    states: dict[int, dict[str, Any]] = {}
    for path, value in {**part("optimizer/"), **facts["numbers"]}.items():
        i, _, key = path.partition("/")
        states.setdefault(int(i), {})[key] = value
    curve, rng_state, torch_state = facts["curve"], facts["rng"], tensors["torch_rng"]
    type(run.rng.bit_generator)().state = rng_state  # raises if it is another generator's
    run.optimizer.load_state_dict({"state": states, "param_groups": facts["groups"]})
    run.rng.bit_generator.state = rng_state
    run.set_weights(weights)
    run.best, run.curve = best, curve
    torch.set_rng_state(torch_state)
