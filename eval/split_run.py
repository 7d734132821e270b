"""One split: fitted on what may be seen, checked for leaks, judged, and kept so that a killed run goes on.

    Split  ->  OneSplit.whole    ->  fit, judge                         ->  baselines, parts, hybrid; a report
           ->  OneSplit.without  ->  fit less one modality, judge it alone  ->  hybrid-without-<modality>; its seconds

Both are kept apart, so a run that is to have more, or was killed between two fits, makes only what is missing.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from eval.baselines.simple import Fitted, Ranker
from eval.checkpoint import KeptSplits
from eval.curves import curves_of
from eval.judge import WITHOUT, Judged, judge, judge_hybrid
from eval.settings import EvaluationSettings
from eval.splitting.ablations import Modality, without
from eval.splitting.leakage import ALIKE, assert_no_leak, tags_of_listeners
from eval.splitting.split import Split
from recsys.types import Listens, Tags, Tracks
from recsys.util.progress import Progress
from recsys.util.settings import Settings

_UNSUITED = "left out"  # how the status begins of a baseline that cannot rank what the split asks for

# Given what was fitted and the split, models by name over the rows of ``fitted.plays``, made one after another and
# tuned on ``eval.splitting.protocols.validation_split`` alone; None stands for one that did not finish. Those with
# ``rank_folded`` (``eval.baselines.simple.Folding``) are judged on cold users too. If it has ``reports``, a list of
# dataclasses with model, protocol, seed, status and params (None where there are no lists), these are kept in the
# report too.
Baselines = Callable[[Fitted, Split], Iterable[tuple[str, Ranker | None]]]


@dataclass(frozen=True, slots=True, eq=False)
class Others:
    """The baselines, if any, and what decides them, as ``json`` can write it."""

    baselines: Baselines | None = None
    facts: dict[str, Any] | None = None


NO_OTHERS = Others()


class Fit(Protocol):
    """What ``recsys.fit.fit`` looks like from here."""

    def __call__(
        self, tracks: Tracks, listens: Listens, tags: Tags | None, settings: Any, *, progress: Progress
    ) -> Fitted:
        """Fit on these listens and no others."""


@dataclass(frozen=True, slots=True, eq=False)
class OneSplit:
    """What is the same for every split: the catalogue in the order of its fits, settings, and what was kept."""

    fit: Fit
    tracks: Tracks
    tags: Tags | None
    settings: Settings
    evaluation_settings: EvaluationSettings
    others: Others
    kept: KeptSplits
    progress: Progress

    def whole(self, split: Split) -> tuple[list[Judged], dict[str, Any]]:
        """Judge every model but those that lack something, and report; or take what an earlier run kept."""
        found = self.kept.get(split.name, split.seed)
        known = "" if found is None else "; judged by an earlier run"
        self.progress.detail(f"{split.name}: {split.note}{known}")
        if found is None:
            fitted, seconds = self._fitted(*self._catalogue(split), split)
            made = _Made(self.others.baselines, fitted, split)
            ks, max_users = self.evaluation_settings.ks, self.evaluation_settings.max_users
            judged = judge(fitted, split, ks, max_users, self.progress, made)
            report = _report(split, self.tags, judged, made, seconds)
            found = judged, {**report, "curves": curves_of(fitted)}
            self.kept.put(split.name, split.seed, *found)
        return found

    def without(self, split: Split, modality: Modality) -> tuple[list[Judged], dict[str, Any]]:
        """Judge the hybrid that never knew a modality; or take what an earlier run kept."""
        model = f"{WITHOUT}{modality}"
        found = self.kept.get(split.name, split.seed, model)
        known = "" if found is None else ", judged by an earlier run"
        self.progress.detail(f"{split.name}, seed {split.seed}: without {modality}{known}")
        if found is None:
            fitted, seconds = self._fitted(*without(*self._catalogue(split), modality), split)
            ks, max_users = self.evaluation_settings.ks, self.evaluation_settings.max_users
            judged = judge_hybrid(fitted, split, ks, max_users, self.progress, model)
            found = judged, {"fit_seconds": seconds, "rank_seconds": _rank_seconds(judged)}
            self.kept.put(split.name, split.seed, *found, model)
        return found

    def _catalogue(self, split: Split) -> tuple[Tracks, Tags | None]:
        """Tracks and tags of a split, those that are made up for it too."""
        return (self.tracks, self.tags) if split.made_up is None else split.made_up.added(self.tracks, self.tags)

    def _fitted(self, tracks: Tracks, tags: Tags | None, split: Split) -> tuple[Fitted, float]:
        """Fit on the split's training listens, and check that nothing else was seen; with the seconds it took."""
        started = time.perf_counter()
        fitted = self.fit(tracks, split.train, tags, self.settings, progress=self.progress)
        seconds = round(time.perf_counter() - started, 2)
        assert_no_leak(fitted.plays, split)
        return fitted, seconds


def _report(
    split: Split, tags: Tags | None, judged: Sequence[Judged], made: "_Made", fit_seconds: float
) -> dict[str, Any]:
    return {
        "protocol": split.name,
        "seed": split.seed,
        "note": split.note,
        "fit_seconds": fit_seconds,
        "peer_seconds": made.seconds,
        "rank_seconds": _rank_seconds(judged),
        "peers": made.reports,
        "unfinished": made.unfinished,
        "tags_like_a_listener": [] if tags is None else tags_of_listeners(tags, split, ALIKE),
    }


def _rank_seconds(judged: Sequence[Judged]) -> dict[str, float]:
    return {f"{one.split} {one.model}": round(one.seconds, 2) for one in judged}


class _Made:
    """Baselines one after another; ``seconds`` that each took to make, ``unfinished`` ones, and their reports."""

    def __init__(self, baselines: Baselines | None, fitted: Fitted, split: Split) -> None:
        self._baselines, self._fitted, self._split = baselines, fitted, split
        self.seconds: dict[str, float] = {}
        self.unfinished: list[str] = []
        self.reports: list[dict[str, Any]] = []

    def __iter__(self) -> Iterator[tuple[str, Ranker]]:
        started = time.perf_counter()
        for name, ranker in () if self._baselines is None else self._baselines(self._fitted, self._split):
            self.seconds[name] = round(time.perf_counter() - started, 2)
            if ranker is None:
                self.unfinished.append(f"{name} on {self._split.name}")
            else:
                yield name, ranker
            started = time.perf_counter()
        mine = (self._split.name, self._split.seed)
        reports = [asdict(one) for one in getattr(self._baselines, "reports", ())]
        self.reports = [one for one in reports if (one["protocol"], one["seed"]) == mine]
        without = [one for one in self.reports if one["params"] is None and not one["status"].startswith(_UNSUITED)]
        self.unfinished += [f"{one['model']} on {one['protocol']} ({one['status']})" for one in without]
