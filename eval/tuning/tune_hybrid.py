"""The engine's own settings tuned on validation: listens and base settings in, better settings out.

    Listens  ->  splits (one a protocol)  ->  trials of ``SPACE``: fit on train, recall@20 of what is held out
    the best trial, base settings  ->  Outcome  ->  ``eval.tuning.settings_file``: a file for ``recsys build --config``

The first trial is the base settings as they are, so the outcome is never worse than they are on validation. With one
protocol a trial is worth the hybrid's recall; with several, the mean over them of its recall / the base's.

Sound is heard once a split, by a network that was trained with the base settings on the split's training listens, and
its vectors are handed to every trial: no trial trains an audio network, and none has met what is held out. Trials are
lines in a folder (``eval.tuning.trials``); a run that was killed goes on there and loses at most the trial that was
running.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from eval.baselines.base import Choice, Number, Space
from eval.checkpoint import Partial, facts_of
from eval.facts import versions
from eval.held_out import build_fit, shuffled
from eval.results import make_folder
from eval.split_run import Fit
from eval.splitting.protocols import splits
from eval.splitting.split import Protocol, SplitSettings
from eval.tuning.objective import Fitting
from eval.tuning.settings_file import value_at, with_values
from eval.tuning.trials import Trial, Trials, fingerprint, search
from recsys.config import RunSettings
from recsys.errors import ConfigError, DataError
from recsys.types import Listens, Tags, Tracks
from recsys.util.progress import Progress, Silent
from recsys.util.settings import Settings

CONFIDENCE = "hybrid.als.mean_confidence"

# What is tuned, by the dotted path of the setting, with the default of ``RunSettings``. A section with ``enabled =
# false`` is left alone, and so is a number on a logarithmic range that the base settings put at 0: it is off.
SPACE: Space = {
    "hybrid.als.n_factors": Number(32, 192, 64, log=True, whole=True),
    "hybrid.als.l2": Number(0.5, 100, 10, log=True),
    CONFIDENCE: Number(2, 64, 8, log=True),
    "hybrid.prior.strength": Number(0.003, 1, 0.03, log=True),
    "hybrid.prior.exposure": Number(0.1, 10, 1, log=True),
    "hybrid.lightfm.n_factors": Number(16, 128, 64, log=True, whole=True),
    "hybrid.lightfm.epochs": Number(10, 60, 30, log=True, whole=True),
    "hybrid.lightfm.learning_rate": Number(0.01, 0.15, 0.03, log=True),
    "hybrid.lightfm.l2": Number(1e-6, 1e-3, 5e-5, log=True),
}
MODEL = "hybrid"  # what the trials are of
BOTH: tuple[Protocol, ...] = ("warm", "cold-track")


class TuneSettings(Settings):
    """What ``recsys tune`` is told beside the inputs."""

    trials: int = Field(default=20, ge=1)  # in all, those of earlier runs and that of the base settings among them
    time_budget_s: float | None = Field(default=None, gt=0)  # of one run, after which no trial begins; None: no end
    protocol: Literal["warm", "cold-track", "both"] = "both"
    splits: SplitSettings = SplitSettings()  # of random splits the first alone is made
    k: int = Field(default=20, ge=1)  # recall at k is what is raised
    max_users: int = Field(default=5000, ge=1)  # judged in a trial, drawn at random
    seed: int = Field(default=0, ge=0)  # of the search

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """The protocols that a trial is judged by."""
        return BOTH if self.protocol == "both" else (self.protocol,)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What tuning came to.

    ``changed`` has a row (path, value of the base, tuned value) a setting that differs; recalls are by protocol, of
    the base settings and of the best trial; ``k`` is their list length. Of ``n_asked`` trials ``n_trials`` were made.
    """

    settings: RunSettings
    changed: list[tuple[str, Any, Any]]
    before: dict[str, float]
    after: dict[str, float]
    k: int
    n_trials: int
    n_asked: int

    def rows(self) -> list[tuple[str, str, str]]:
        """Lay out recalls and changed settings as name, base, tuned."""
        recalls = [
            (f"recall@{self.k} {name}", f"{self.before[name]:.4f}", f"{self.after[name]:.4f}") for name in self.before
        ]
        return recalls + [(path, _short(base), _short(tuned)) for path, base, tuned in self.changed]

    def told(self) -> list[str]:
        """Say what was reached, a line a fact."""
        recalls = [f"{name} {self.before[name]:.4f} -> {self.after[name]:.4f}" for name in self.before]
        cut = "" if self.n_trials == self.n_asked else f" of {self.n_asked} (the time budget was spent)"
        return [
            f"recall@{self.k} on validation, base -> tuned: {', '.join(recalls)}",
            f"{self.n_trials} trials{cut}, the first with the base settings; {len(self.changed)} settings differ",
        ]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def tune_settings(protocol: str, trials: int, minutes: float | None, seed: int, cold_by: str) -> TuneSettings:
    """Make settings of what a command line says.

    Raises:
        ConfigError: a value is unknown or out of range.
    """
    seconds = None if minutes is None else 60 * minutes
    given = {"trials": trials, "time_budget_s": seconds, "protocol": protocol, "seed": seed}
    try:
        return TuneSettings.model_validate({**given, "splits": {"seed": seed, "cold_by": cold_by}})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error


def tune(
    tracks: Tracks,
    listens: Listens | None,
    tags: Tags | None,
    *,
    settings: RunSettings,
    tune_settings: TuneSettings,
    folder: Path,
    progress: Progress | None = None,
    fit: Fit | None = None,
) -> Outcome:
    """Find settings that do better on a held-out part of the listens; the same call goes on where a killed one was.

    Args:
        tracks: the catalogue. tags: of it, given to every fit whole.
        listens: to be parted into training and validation; what is to test the result must not be among them.
        settings: the base.
        tune_settings: trials, time, protocols.
        folder: where trials are kept.
        progress: where to report; nothing is shown when None.
        fit: what is tuned; ``recsys.fit.fit`` when None.

    Raises:
        DataError: there are no listens, nothing can be held out, or the base settings find nothing to compare with.
        ArtefactError: the folder cannot be written.
    """
    started = time.perf_counter()
    progress = progress or Silent()
    if listens is None or not len(listens):
        raise DataError("there are no listens, and tuning needs some to hold out; give them with --listens")
    seed, n_trials = tune_settings.seed, tune_settings.trials
    parted = [next(splits(listens, name, tune_settings.splits, tracks)) for name in tune_settings.protocols]
    for split in parted:
        progress.detail(f"{split.protocol}: {split.note}")
    make_folder(folder)  # fail before hours of work, not after
    mixed = shuffled(tracks, seed)
    space = space_of(settings)
    facts = _facts(tracks, listens, tags, settings, tune_settings, space)
    kept = Trials(folder, f"{tune_settings.protocol}-{seed}", fingerprint(facts, [], []))
    trials = kept.of(MODEL)[:n_trials]
    if trials:
        progress.log(f"{len(trials)} trials of an earlier run are taken from {folder}")
    fitting = Fitting(fit or build_fit(), tags, settings, tune_settings.k, tune_settings.max_users, progress)
    if len(trials) < n_trials:
        sounds = Partial(folder, facts)
        fitting.material = [(split, fitting.heard(mixed, split, sounds)) for split in parted]
    fitting.base = trials[0].figures if trials else None

    def judge(params: dict[str, Any]) -> tuple[float, Mapping[str, float]]:
        return fitting.judge(changed_settings(settings, changes(params, space)))

    coming = search(MODEL, space, judge, kept, n_trials, seed)
    trials += _in_time(coming, trials, tune_settings, started, progress)
    return _outcome(space, settings, tune_settings, trials)


def _in_time(
    coming: Iterator[Trial], earlier: Sequence[Trial], tune_settings: TuneSettings, started: float, progress: Progress
) -> list[Trial]:
    """Make trials until there are enough or the time is spent; without earlier ones at least that of the base."""
    trials, n_trials = list(earlier), tune_settings.trials
    with progress.stage("tune") as stage, progress.bar("trials", n_trials - len(trials), "trials") as bar:
        while len(trials) < n_trials:
            left_s = _left(tune_settings.time_budget_s, started)
            if trials and left_s is not None and left_s <= 0:
                break
            bar.advance(0, _note(trials, n_trials, left_s))
            trials.append(next(coming))
            bar.advance(1, _note(trials, n_trials, _left(tune_settings.time_budget_s, started)))
        best, n_failed = max(trial.value for trial in trials), sum(not trial.figures for trial in trials)
        failed = f"; {n_failed} failed and count for nothing" if n_failed else ""
        stage.done(f"{len(trials)} trials, best {best:.4f}, base settings {trials[0].value:.4f}{failed}")
    return trials[len(earlier) :]


def space_of(base: RunSettings) -> Space:
    """Fit ``SPACE`` to the base settings.

    Every dimension begins with the base's value, and its range reaches there. The mean confidence is left alone where
    the base gives a scale.
    """
    space: dict[str, Number | Choice] = {}
    for path, dimension in SPACE.items():
        value = value_at(base, path)
        if not getattr(value_at(base, path.rpartition(".")[0]), "enabled", True):
            continue
        if path == CONFIDENCE and base.hybrid.als.confidence_scale is not None:
            continue
        if isinstance(dimension, Choice):
            options = tuple(option for option in dimension.options if option != value)
            space[path] = Choice((value, *options))
            continue
        if value > 0 or not dimension.log:
            low, high = min(dimension.low, value), max(dimension.high, value)
            space[path] = replace(dimension, low=low, high=high, default=value)
    return space


def changes(params: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Keep the values that are not the base's."""
    return {path: value for path, value in params.items() if value != space[path].default}


def changed_settings(base: RunSettings, changed: Mapping[str, Any]) -> RunSettings:
    """Change the base; who changes ALS has chosen, and its fit is not to choose again."""
    by_hand = any(path.startswith("hybrid.als.") for path in changed)
    return with_values(base, {**changed, **({"hybrid.choice.enabled": False} if by_hand else {})})


def _outcome(space: Space, base: RunSettings, tune_settings: TuneSettings, trials: Sequence[Trial]) -> Outcome:
    best = max(trials, key=lambda trial: trial.value)  # of equals the earliest, so the base where nothing is better
    changed = changes(best.params, space)
    return Outcome(
        changed_settings(base, changed),
        [(path, space[path].default, value) for path, value in changed.items()],
        dict(trials[0].figures),
        dict(best.figures),
        tune_settings.k,
        len(trials),
        tune_settings.trials,
    )


def _left(budget_s: float | None, started: float) -> float | None:
    return None if budget_s is None else started + budget_s - time.perf_counter()


def _note(trials: Sequence[Trial], n_trials: int, left_s: float | None) -> str:
    """Say what was reached, and what a bar cannot know: how long a slow step takes, and the end that a budget sets."""
    if not trials:
        return "the base settings"
    best = max(trials, key=lambda trial: trial.value)
    made = [trial.seconds for trial in trials if trial.seconds > 0]  # what was tried before took no time
    usual = float(np.mean(made)) if made else 0.0
    wanted = usual * (n_trials - len(trials))
    left = wanted if left_s is None else min(wanted, max(left_s, 0.0))
    return f"best {best.value:.4f}, base {trials[0].value:.4f}, {usual:.3g} s each, {left / 60:.0f} min left"


def _facts(
    tracks: Tracks,
    listens: Listens,
    tags: Tags | None,
    settings: RunSettings,
    tune_settings: TuneSettings,
    space: Space,
) -> dict[str, Any]:
    """Collect all that decides what a trial is worth and which is drawn next, as ``json`` can write it."""
    return {
        **facts_of(tracks, listens, tags),
        "base": settings.model_dump(mode="json"),
        "tune": tune_settings.model_dump(mode="json", exclude={"trials", "time_budget_s"}),
        "space": {path: repr(dimension) for path, dimension in space.items()},
        "versions": versions(),
    }
