"""Trials of tuning: settings are drawn by Optuna's TPE, judged on validation, and survive a kill.

    Space, judge, Trials (earlier ones)  ->  search  ->  one Trial(params, value, seconds, figures) after another

Each is a line of JSON in a file that one fingerprint names:

    folder/<name>-<fingerprint>.jsonl   {"model": ..., "params": {...}, "value": ..., "seconds": ..., "figures": {...}}

``eval.tuning.tune_baselines`` searches for baselines, ``eval.tuning.tune_hybrid`` for the engine itself; when to stop
is theirs to say.

A line that was cut off by a kill is not read, and the trial is made again. TPE: Bergstra et al., NIPS 2011.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from eval.baselines.asked import peer_on
from eval.baselines.base import Choice, Space
from eval.baselines.features import BaselineData
from eval.baselines.simple import Ranker
from eval.metrics.accuracy import find_hits, mean_over_users, recall_at_k
from eval.metrics.panels import Panel
from eval.results import make_folder
from recsys.errors import ArtefactError
from recsys.types import Int32

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_FORMAT = 2
_SAMPLED_FIRST = 4  # trials before TPE trusts what it has seen; its own 10 would leave nothing to it


@dataclass(frozen=True, slots=True)
class Trial:
    """Settings that were tried, what they were worth on validation, and how long it took.

    ``figures`` are what the value was made of, by name; empty where it stands for itself.
    """

    params: dict[str, Any]
    value: float
    seconds: float
    figures: dict[str, float] = field(default_factory=dict)


# settings in, their value and figures out; to be called with settings that were not tried before
Judge = Callable[[dict[str, Any]], tuple[float, Mapping[str, float]]]


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """What trials are judged on: a panel, and ``material`` of the training listens less what is held out there.

    Recall is at ``k``.
    """

    material: BaselineData
    panel: Panel
    k: int

    def recall(self, ranker: Ranker) -> float:
        """Mean recall over the users, or over the events where each has a list; 0 for who cannot rank for them."""
        panel, asked = self.panel, peer_on(ranker, self.panel)
        if asked is None:
            return 0.0
        rows = np.flatnonzero(panel.judged[0].rows)
        return mean_recall(asked, panel.user_rows[rows], panel.held_out[rows], panel.candidates, self.k)


def mean_recall(ranker: Ranker, user_rows: Int32, held_out: csr_matrix, candidates: Int32 | None, k: int) -> float:
    """Rank for users, and give the mean over them of recall at k; ``held_out`` (n_users, n_items) has their rows."""
    hits = find_hits(ranker.rank(user_rows, k, candidates).items, held_out)
    return float(mean_over_users(recall_at_k(hits, k)[:, None, None])[0])


class Trials:
    """The trials of one split, by model.

    Args:
        folder: is made when there is something to keep.
        name: begins the file's name, for a reader.
        decides: fingerprint of all that decides the values; trials under another one are not seen.
    """

    def __init__(self, folder: Path, name: str, decides: str) -> None:
        self._file = folder / f"{name}-{decides}.jsonl"
        self._by_model: dict[str, list[Trial]] = {}
        for line in self._lines():
            self._by_model.setdefault(line["model"], []).append(
                Trial(line["params"], float(line["value"]), float(line["seconds"]), line["figures"])
            )

    def of(self, model: str) -> list[Trial]:
        """What was tried of a model, in order."""
        return list(self._by_model.get(model, []))

    def add(self, model: str, trial: Trial) -> None:
        """Keep a trial, on the disk before this returns.

        Raises:
            ArtefactError: the file cannot be written.
        """
        make_folder(self._file.parent)
        facts = {"model": model, **asdict(trial), "seconds": round(trial.seconds, 3)}
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(facts) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ArtefactError(f"cannot write {self._file} ({error!r}); give a folder with room and rights") from error
        self._by_model.setdefault(model, []).append(trial)

    def _lines(self) -> list[dict[str, Any]]:
        """Read whole lines; one that a kill cut off is taken away, so that the next does not join it."""
        try:
            text = self._file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ArtefactError(f"cannot read {self._file} ({error!r}); give another folder") from error
        if text and not text.endswith("\n"):
            text = text[: text.rfind("\n") + 1]
            self._file.write_text(text, encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


def fingerprint(facts: dict[str, Any], arrays: Sequence[NDArray[Any]], names: Sequence[str]) -> str:
    """Hash what ``json`` can write, arrays with their shapes, and ids in their order."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(json.dumps({"format": _FORMAT, **facts}, sort_keys=True).encode())
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update("\0".join(names).encode())
    return digest.hexdigest()


def search(model: str, space: Space, judge: Judge, kept: Trials, n_trials: int, seed: int) -> Iterator[Trial]:
    """Make and keep the trials of a model that are still wanted, one whenever the next is asked for.

    The first is of the space's defaults. A draw depends on its number and on the trials before it alone, earlier runs'
    too, so a search that was cut short and goes on tries what it would have tried.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = _distributions(space)
    study = optuna.create_study(direction="maximize")
    trials = kept.of(model)[:n_trials]
    for trial in trials:
        study.add_trial(optuna.trial.create_trial(params=trial.params, distributions=distributions, value=trial.value))
    for number in range(len(trials), n_trials):
        study.sampler = optuna.samplers.TPESampler(seed=1000 * seed + number, n_startup_trials=_SAMPLED_FIRST)
        if number == 0:
            study.enqueue_trial({name: dimension.default for name, dimension in space.items()})
        asked = study.ask(distributions)
        trial = _tried(dict(asked.params), judge, trials)
        study.tell(asked, trial.value)
        kept.add(model, trial)
        trials.append(trial)
        yield trial


def _tried(params: dict[str, Any], judge: Judge, done: Sequence[Trial]) -> Trial:
    """Judge settings; those that were tried before have the value that they had."""
    for trial in done:
        if trial.params == params:
            return replace(trial, seconds=0.0)
    started = time.perf_counter()
    value, figures = judge(params)
    return Trial(params, value, time.perf_counter() - started, dict(figures))


def _distributions(space: Space) -> "dict[str, BaseDistribution]":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for name, dimension in space.items():
        if isinstance(dimension, Choice):
            found[name] = CategoricalDistribution(dimension.options)
        elif dimension.whole:
            found[name] = IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
        else:
            found[name] = FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    return found
