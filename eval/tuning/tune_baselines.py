"""Baselines tuned on validation data, each with the same number of trials: a split in, rankers out.

    Split.train  ->  validation_split  ->  trials of each baseline (Optuna TPE)  ->  best settings
    all of Split.train, best settings  ->  Baseline.fit  ->  (name, Ranker), one model at a time

The first trial is the baseline's defaults. What is held out of ``Split`` is never looked at here: trials are judged by
recall@k on a part of the training listens, parted by the split's own protocol. Sound vectors are those of the fitted
recommender, so an audio network may have met the listens of validation, never those held out.

Each trial is a line of ``<folder>/<protocol>-<seed>-<fingerprint>.jsonl``; a run that was killed reads them back and
goes on where it was. Each trial's draw depends on its number and on the values before it alone, so that it then tries
what it would have tried.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from eval.baselines.base import Baseline
from eval.baselines.features import BaselineData
from eval.baselines.registry import BASELINES, NAMES
from eval.baselines.simple import Fitted, Ranker
from eval.metrics.panels import Panel, panels_of
from eval.settings import EvaluationSettings
from eval.splitting import protocols as parting
from eval.splitting.split import Split, SplitSettings
from eval.tuning.trials import Trial, Trials, Validation, fingerprint, search
from recsys.catalogue.listens import plays_of
from recsys.errors import DataError
from recsys.types import Float32, Int32, Tags, Tracks
from recsys.util.progress import Bar, Progress
from recsys.util.settings import Settings


class BaselineSettings(Settings):
    """``--trials`` and ``--time-budget`` of an evaluation, and how trials are judged."""

    trials: int = Field(default=10, ge=1)  # of each model, the first with its defaults
    time_budget_s: float | None = Field(default=None, gt=0)  # of all models on one split; None: as long as it takes
    models: tuple[str, ...] = NAMES
    splits: SplitSettings = SplitSettings()  # how training listens are parted once more
    k: int = Field(default=20, ge=1)  # recall at k is what is raised
    max_users: int = Field(default=5000, ge=1)  # judged in a trial, drawn at random
    seed: int = Field(default=0, ge=0)

    @field_validator("models")
    @classmethod
    def _known(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in models if name not in NAMES]
        if unknown:
            raise ValueError(f"there is no model {', '.join(unknown)}; there are {', '.join(NAMES)}")
        return tuple(name for name in NAMES if name in models)


@dataclass(frozen=True, slots=True)
class Tuned:
    """What became of one baseline on one split.

    ``status`` is 'tuned', or says why it has fewer trials than asked for, or none, or no lists. ``value`` is the
    best recall on validation (None without trials); ``seconds`` of trials and the last fit, in this run.
    """

    model: str
    protocol: str
    seed: int
    status: str
    n_trials: int
    params: dict[str, Any] | None
    value: float | None
    seconds: float

    @property
    def has_lists(self) -> bool:
        """Whether the model was fitted in the end."""
        return self.params is not None


@dataclass(eq=False)
class TunedBaselines:
    """Tunes and fits every baseline for a split when called; ``reports`` says what became of each."""

    tracks: Tracks
    tags: Tags | None
    settings: BaselineSettings
    folder: Path
    progress: Progress
    reports: list[Tuned] = field(default_factory=list)

    def __call__(self, fitted: Fitted, split: Split) -> Iterator[tuple[str, Ranker]]:
        """Give each baseline that could be fitted, in the rows of ``fitted.plays``, as soon as it is.

        Cold tracks are ranked by those baselines alone that tell them apart, and cold users by none: they have no row.
        """
        if split.protocol == "cold-user":
            return
        started = time.perf_counter()
        sound = _sound_of(fitted)
        told = plays_of(split.train, fitted.plays.track_ids, fitted.plays.user_ids)
        plays = replace(fitted.plays, histories=told.histories)
        tracks, tags = (
            (self.tracks, self.tags) if split.made_up is None else split.made_up.added(self.tracks, self.tags)
        )
        whole = BaselineData.of(plays, tracks, tags, sound, split.train)
        chosen = [baseline for baseline in BASELINES if baseline.name in self.settings.models]
        suited = []
        for baseline in chosen:
            reason = _unsuited(baseline, whole, split)
            if reason:
                self._report(Tuned(baseline.name, split.name, split.seed, f"left out: {reason}", 0, None, None, 0.0))
            else:
                suited.append(baseline)
        validation, why_not = self._validation(split, fitted.plays.track_ids, sound, tracks, tags)
        kept = Trials(self.folder, f"{split.name}-{split.seed}", self._fingerprint(whole, split, validation))
        with self.progress.bar(f"baselines {split.name}", len(suited) * self.settings.trials, "trials") as bar:
            for place, baseline in enumerate(suited):
                share = self._share(started, len(suited) - place)
                if share is not None and share <= 0:
                    status = "did not finish: the time budget was spent"
                    self._report(Tuned(baseline.name, split.name, split.seed, status, 0, None, None, 0.0))
                    continue
                yield from self._tune_and_fit(baseline, split, whole, validation, why_not, kept, share, bar)

    def _tune_and_fit(
        self,
        baseline: Baseline,
        split: Split,
        whole: BaselineData,
        validation: Validation | None,
        why_not: str,
        kept: Trials,
        share: float | None,
        bar: Bar,
    ) -> Iterator[tuple[str, Ranker]]:
        started = time.perf_counter()
        seed = self.settings.seed + split.seed
        trials: list[Trial] = []
        if validation is not None:
            trials = _search(baseline, validation, kept, self.settings.trials, seed, share, bar)
        best = max(trials, key=lambda trial: trial.value, default=None)
        params = baseline.defaults if best is None else best.params
        n_trials, asked = len(trials), self.settings.trials
        status = why_not or ("tuned" if n_trials == asked else f"{n_trials} of {asked} trials in its share of the time")
        value = None if best is None else best.value
        try:
            ranker = baseline.fit(whole, params, seed)
        except DataError as error:
            seconds = time.perf_counter() - started
            self._report(
                Tuned(baseline.name, split.name, split.seed, f"failed: {error}", n_trials, None, value, seconds)
            )
            return
        seconds = time.perf_counter() - started
        self._report(Tuned(baseline.name, split.name, split.seed, status, n_trials, params, value, seconds))
        yield baseline.name, ranker

    def _validation(
        self,
        split: Split,
        track_ids: Sequence[str],
        sound: tuple[Int32, Float32] | None,
        tracks: Tracks,
        tags: Tags | None,
    ) -> tuple[Validation | None, str]:
        """Part the training listens once more; where that cannot be, defaults are taken and the reason is given."""
        try:
            inner = parting.validation_split(split, self.settings.splits)
        except DataError as error:
            return None, f"not tuned, defaults taken: {error}"
        plays = plays_of(inner.train, track_ids)
        try:
            panel = _tuned_on(panels_of(inner, plays, self.settings.max_users))
        except DataError as error:
            return None, f"not tuned, defaults taken: {error}"
        material = BaselineData.of(plays, tracks, tags, sound, inner.train)
        return Validation(material, panel, self.settings.k), ""

    def _share(self, started: float, n_left: int) -> float | None:
        """The seconds that a model may take: its part of what is left of the budget."""
        if self.settings.time_budget_s is None:
            return None
        return (started + self.settings.time_budget_s - time.perf_counter()) / n_left

    def _fingerprint(self, whole: BaselineData, split: Split, validation: Validation | None) -> str:
        """Name all that decides what a trial is worth."""
        facts = {
            "settings": self.settings.model_dump(mode="json", exclude={"trials", "time_budget_s", "models"}),
            "split": [split.name, split.seed],
            "spaces": {baseline.name: repr(baseline.space) for baseline in BASELINES},
        }
        metadata = whole.metadata
        matrices = [metadata.tags, metadata.genres]
        arrays: list[NDArray[Any]] = [metadata.artist, metadata.year, whole.sound]
        if validation is not None:
            plays, panel = validation.material.plays, validation.panel
            matrices += [plays.counts, plays.barred, panel.heard.counts, panel.held_out]
            arrays += [panel.user_rows] + ([] if panel.candidates is None else [panel.candidates])
            for moments in () if panel.moments is None else (panel.moments,):
                arrays += [moments.now, moments.histories.items, moments.histories.seconds]
        arrays += [part for matrix in matrices for part in (matrix.data, matrix.indices, matrix.indptr)]
        return fingerprint(facts, arrays, whole.plays.track_ids)

    def _report(self, tuned: Tuned) -> None:
        self.reports.append(tuned)
        value = "" if tuned.value is None else f", recall@{self.settings.k} {tuned.value:.4f} on validation"
        self.progress.detail(
            f"{tuned.model} ({tuned.protocol}, seed {tuned.seed}): {tuned.status}{value}, {tuned.seconds:.1f} s"
        )


def baseline_settings(settings: EvaluationSettings, trials: int, minutes: float | None) -> BaselineSettings | None:
    """Make settings of what a command line says; None where no trials are asked for."""
    if not trials:
        return None
    seconds = None if minutes is None else 60 * minutes
    return BaselineSettings(trials=trials, time_budget_s=seconds, splits=settings.splits)


def tuned_baselines(
    tracks: Tracks, tags: Tags | None, settings: BaselineSettings, folder: Path, progress: Progress
) -> TunedBaselines:
    """Prepare the baselines of an evaluation; nothing is fitted before a split is there.

    Args:
        tracks: the catalogue, in any order.
        tags: of the catalogue, whole.
        settings: trials, time, models.
        folder: where trials are kept until the report is written.
        progress: where trials are shown, and each model's outcome told in a line.
    """
    return TunedBaselines(tracks, tags, settings, folder, progress)


def _search(
    baseline: Baseline, validation: Validation, kept: Trials, n_trials: int, seed: int, share_s: float | None, bar: Bar
) -> list[Trial]:
    """Run the trials that are still wanted, and give them all, earlier ones first.

    Where the next trial and a last fit would not end within ``share_s`` seconds, no more are begun; one always is.
    """

    def judge(params: dict[str, Any]) -> tuple[float, dict[str, float]]:
        try:
            return validation.recall(baseline.fit(validation.material, params, seed)), {}
        except DataError:  # settings under which learning diverges are worth nothing
            return 0.0, {}

    started = time.perf_counter()
    trials = kept.of(baseline.name)[:n_trials]
    bar.advance(len(trials), baseline.name)
    coming = search(baseline.name, baseline.space, judge, kept, n_trials, seed)
    while len(trials) < n_trials:
        usual = float(np.mean([trial.seconds for trial in trials])) if trials else 0.0
        if trials and share_s is not None and time.perf_counter() - started + 2 * usual > share_s:
            break
        trials.append(next(coming))
        bar.advance(1, f"{baseline.name} {max(one.value for one in trials):.4f}")
    return trials


def _tuned_on(panels: Sequence[Panel]) -> Panel:
    """The panel whose recall is raised: among all tracks where played, unplayed and all are panels, else the first."""
    return next((panel for panel in panels if panel.name.endswith("-total")), panels[0])


def _unsuited(baseline: Baseline, material: BaselineData, split: Split) -> str:
    if split.cold_track_ids is not None and not baseline.ranks_cold:
        return "it cannot tell tracks without plays apart"
    if split.protocol == "live" and not baseline.for_anyone:
        return "it ranks for users of training alone"
    return baseline.lacks(material)


def _sound_of(fitted: Fitted) -> tuple[Int32, Float32] | None:
    """Take the sound vectors that a fit left behind; an opened store has none."""
    sound = getattr(getattr(fitted, "artefacts", None), "sound", None)
    return None if sound is None or not len(sound.rows) else (sound.rows, sound.vectors)
