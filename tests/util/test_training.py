"""The training loop: the best epoch is kept, and an interrupted run ends in the same bits as an uninterrupted one."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from recsys.util.progress import Silent
from recsys.util.training import CURVES, FILE, Checkpoint, Curve, StopSettings, run_epochs

INPUTS = torch.from_numpy(np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32))
ANSWERS = INPUTS @ torch.tensor([[1.0], [-2.0], [0.5]])


class Told(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)


class Killed(BaseException):
    """The process is gone."""


class Training:
    """A small network with all that has a state: dropout (torch's), a norm's buffers, and an order (numpy's)."""

    def __init__(self, seed: int = 0, optimizer: str = "adamw") -> None:
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.network = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3))
        self.head = nn.Linear(8, 1)
        parameters = [*self.network.parameters(), *self.head.parameters()]
        if optimizer == "adamw":
            self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(parameters, lr=0.05)
        else:
            self.optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9 if optimizer == "momentum" else 0)
        self.n_epochs, self.seed = 0, seed

    def epoch(self, rng: np.random.Generator) -> float:
        if self.n_epochs == getattr(self, "dies_in", None):
            raise Killed
        self.n_epochs += 1
        costs = []
        for rows in rng.permutation(24).reshape(4, 6):
            cost = (self.head(self.network(INPUTS[rows])) - ANSWERS[rows]).square().mean()
            self.optimizer.zero_grad()
            cost.backward()
            self.optimizer.step()
            costs.append(float(cost.detach()))
        return float(np.mean(costs))

    def judge(self) -> Mapping[str, float]:
        assert not self.network.training
        assert torch.is_inference_mode_enabled()
        return {"held-out cost": float((self.head(self.network(INPUTS)) - ANSWERS).abs().mean()), "other": -1.0}

    def run(self, checkpoint: Checkpoint | None = None, epochs: int = 9, patience: int = 9, told: Silent | None = None,
            judged: bool = True) -> Curve:  # fmt: skip
        torch.manual_seed(self.seed)
        return run_epochs(
            {"network": self.network, "head": self.head}, self.optimizer, self.epoch, self.judge if judged else None,
            StopSettings(epochs=epochs, patience=patience), self.rng, told or Silent(), "made: training", checkpoint,
        )  # fmt: skip

    def weights(self) -> list[np.ndarray]:
        states = [*self.network.state_dict().values(), *self.head.state_dict().values()]
        return [value.numpy().copy() for value in states]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def without_seconds(curve: Curve) -> Curve:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in curve]


@pytest.mark.parametrize("optimizer", ["adamw", "momentum", "plain"])
@pytest.mark.parametrize("dies_in", [1, 4, 8])
def test_an_interrupted_run_ends_in_the_same_bits(dies_in: int, optimizer: str, tmp_path: Path) -> None:
    whole = Training(optimizer=optimizer)
    curve = whole.run()
    checkpoint = Checkpoint(tmp_path / "run", "one", every_s=0)
    first = Training(optimizer=optimizer)
    first.dies_in = dies_in
    with pytest.raises(Killed):
        first.run(checkpoint)
    assert len(json.loads((tmp_path / "run" / CURVES).read_text())) == dies_in
    second = Training(seed=7, optimizer=optimizer)  # its start does not matter, nor where the generators stand
    resumed = second.run(checkpoint)
    assert second.n_epochs == 9 - dies_in
    assert same(second.weights(), whole.weights())
    assert without_seconds(resumed) == without_seconds(curve)
    assert json.loads((tmp_path / "run" / CURVES).read_text()) == resumed
    assert np.array_equal(second.rng.random(3), whole.rng.random(3))


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "one", every_s=0)
    done, again = Training(), Training(seed=5)
    curve = done.run(checkpoint)
    assert again.run(checkpoint) == curve
    assert again.n_epochs == 0
    assert same(again.weights(), done.weights())
    checkpoint.discard()
    checkpoint.discard()
    assert [path.name for path in tmp_path.iterdir()] == [CURVES]


def test_another_runs_checkpoint_is_ignored(tmp_path: Path) -> None:
    Training().run(Checkpoint(tmp_path, "one", every_s=0))
    told, anew, plain = Told(), Training(seed=1), Training(seed=1)
    anew.run(Checkpoint(tmp_path, "other", every_s=0), told=told)
    plain.run()
    assert anew.n_epochs == 9
    assert same(anew.weights(), plain.weights())
    assert told.lines == []


def flipped(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda _: b"",
        lambda _: b"no checkpoint",
        flipped,
        lambda content: content.replace(b"PCG64", b"PCG65"),
    ],
    ids=["cut", "empty", "text", "a bit", "another generator"],
)
def test_a_damaged_checkpoint_is_told_and_training_starts_anew(damage, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "one", every_s=0)
    Training().run(checkpoint, epochs=3)
    path = tmp_path / FILE
    path.write_bytes(damage(path.read_bytes()))
    told, anew, plain = Told(), Training(), Training()
    anew.run(checkpoint, told=told)
    plain.run()
    assert anew.n_epochs == 9
    assert same(anew.weights(), plain.weights())
    [line] = told.lines
    assert line.startswith("made: training: the checkpoint ")
    assert "\n" not in line
    assert load_file(path)  # a whole one again


def test_a_checkpoint_of_another_network_is_told(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "one", every_s=0)
    Training().run(checkpoint)
    told, anew = Told(), Training()
    anew.head = nn.Linear(8, 2)
    anew.optimizer = torch.optim.AdamW([*anew.network.parameters(), *anew.head.parameters()], lr=0.05)
    anew.run(checkpoint, told=told)
    assert anew.n_epochs == 9
    assert "another network" in told.lines[0]


def test_writing_takes_its_time(tmp_path: Path) -> None:
    Training().run(Checkpoint(tmp_path, "one", every_s=3600))
    assert [path.name for path in tmp_path.iterdir()] == [CURVES]


class Scripted(Training):
    """Judged by given figures."""

    figures: list[float]

    def judge(self) -> Mapping[str, float]:
        return {"held-out cost": self.figures.pop(0), "other": 0.0}


def scripted(figures: list[float], epochs: int, patience: int) -> Scripted:
    made = Scripted()
    made.figures = figures
    made.run(epochs=epochs, patience=patience)
    return made


def test_the_best_epoch_is_kept_and_patience_ends_the_run() -> None:
    after_two = scripted([2.0, 1.0], 2, 9)
    figures = [2.0, 1.0, 1.0, 1.5, 0.1]
    stopped = scripted(figures, 9, 2)
    assert same(stopped.weights(), after_two.weights())
    assert figures == [0.1]
    assert not same(scripted([2.0, 1.0, 1.0, 1.5, 0.1], 5, 3).weights(), after_two.weights())
    start = Training().weights()
    assert same(scripted([float("nan")] * 3, 9, 3).weights(), start)
    assert same(
        scripted([float("nan"), 2.0, float("nan"), float("nan")], 9, 2).weights(), scripted([3, 2], 2, 2).weights()
    )


def test_without_a_judge_the_training_cost_decides() -> None:
    training = Training()
    curve = training.run(judged=False)
    assert list(curve[0]) == ["epoch", "training cost", "seconds"]
    assert [row["epoch"] for row in curve] == list(range(1, 10))
    assert curve[-1]["training cost"] < curve[0]["training cost"]
    judged = Training().run()
    assert list(judged[0]) == ["epoch", "held-out cost", "other", "training cost", "seconds"]


def test_no_epochs_leave_the_start() -> None:
    training = Training()
    start = training.weights()
    assert training.run(epochs=0) == []
    assert same(training.weights(), start)


def test_the_bar_shows_costs_and_counts_what_was_done_before(tmp_path: Path) -> None:
    class Seen(Silent):
        def __init__(self) -> None:
            self.steps: list[tuple[int, str]] = []

        def bar(self, description: str, total: int, unit: str):
            from contextlib import nullcontext

            class Bar:
                advance = staticmethod(lambda n=1, note="": self.steps.append((n, note)))

            assert (description, total, unit) == ("made: training", 9, "epochs")
            return nullcontext(Bar())

    checkpoint = Checkpoint(tmp_path, "one", every_s=0)
    first = Training()
    first.dies_in = 7
    with pytest.raises(Killed):
        first.run(checkpoint)
    seen = Seen()
    Training().run(checkpoint, told=seen)
    assert [n for n, _ in seen.steps] == [7, 1, 1]
    assert seen.steps[-1][1].startswith("held-out cost 0.")
    assert "training cost" in seen.steps[-1][1]
