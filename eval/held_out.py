"""The protocols on listens: split, fit on what may be seen, judge, compare; what was judged is kept on the way.

    Listens -> splits -> (train) fit -> assert_no_leak -> judge -> gather -> summarise, compare, per_user -> HeldOut

Each split is fitted by ``recsys.fit.fit``, the path of the build, on its training listens alone; held-out listens are
first looked at when lists are judged. Other models come in at one place, as ``Peers``.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from eval.audit import ALIKE, assert_no_leak, tags_of_listeners
from eval.baselines import Fitted, Ranker
from eval.by_time import check_times
from eval.facts import versions
from eval.judge import Judged, judge
from eval.kept import KeptSplits, facts_of
from eval.parts import Split
from eval.settings import EvaluationSettings
from eval.significance import compare
from eval.splits import splits
from eval.summary import gather, incomplete, per_user, summarise, usual_k
from recsys.progress import Progress
from recsys.settings import Settings
from recsys.types import Listens, Tags, Tracks

_UNSUITED = "left out"  # how the status begins of a peer that cannot rank what the split asks for
_MOST_REMEMBERED = 2000  # tracks whose published features are kept from split to split: 150 kB each

# Given what was fitted and the split, models by name over the rows of ``fitted.plays``, made one after another and
# tuned on ``eval.splits.validation_split`` alone; None stands for one that did not finish. Those with ``rank_folded``
# (``eval.baselines.Folding``) are judged on cold users too. If it has ``reports``, a list of dataclasses with model,
# protocol, seed, status and params (None where there are no lists), these are kept in the report too.
Peers = Callable[[Fitted, Split], Iterable[tuple[str, Ranker | None]]]


@dataclass(frozen=True, slots=True, eq=False)
class Others:
    """The peers, if any, and what decides them, as ``json`` can write it."""

    peers: Peers | None = None
    facts: dict[str, Any] | None = None


NO_OTHERS = Others()


class Fit(Protocol):
    """What ``recsys.fit.fit`` looks like from here."""

    def __call__(
        self, tracks: Tracks, listens: Listens, tags: Tags | None, settings: Any, *, progress: Progress
    ) -> Fitted:
        """Fit on these listens and no others."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Figures in ``FIGURES_SCHEMA``, a report a split, a record a comparison, and each user's recall.

    ``unfinished`` names the models that have no lists on some split, with the reason where there is one.
    """

    figures: pl.DataFrame
    reports: list[dict[str, Any]]
    tests: list[dict[str, Any]]
    per_user: pl.DataFrame
    unfinished: list[str]


def judge_held_out(
    tracks: Tracks,
    listens: Listens,
    tags: Tags | None,
    settings: Settings,
    evaluation_settings: EvaluationSettings,
    out: Path,
    progress: Progress,
    fit: Fit | None = None,
    others: Others = NO_OTHERS,
) -> HeldOut:
    """Judge what is fitted on training listens by every protocol that holds listens out.

    Args:
        tracks: the catalogue. listens: to be parted. tags: given to every fit whole.
        settings: of the fit. evaluation_settings: protocols, splits, lengths of lists.
        out: the report's folder; finished splits are kept there, and the caller removes them when all is written.
        progress: where to report. fit: ``recsys.fit.fit`` when None. others: more models to judge.

    Raises:
        DataError: nothing can be held out, listens have no times to part them by, or the fit saw what is held out.
        ArtefactError: the folder cannot be written.
    """
    if "cold-track" in evaluation_settings.on_listens and evaluation_settings.splits.cold_by == "time":
        check_times(listens)  # before hours of work, not after
    fit_build = fit or build_fit()
    seed, ks, n_resamples = evaluation_settings.splits.seed, evaluation_settings.ks, evaluation_settings.n_resamples
    mixed = shuffled(tracks, seed)

    def judge_split(split: Split) -> tuple[list[Judged], dict[str, Any]]:
        started = time.perf_counter()
        fitted = fit_build(mixed, split.train, tags, settings, progress=progress)
        fit_seconds = time.perf_counter() - started
        assert_no_leak(fitted.plays, split)
        made = _Made(others.peers, fitted, split)
        judged = judge(fitted, split, ks, evaluation_settings.max_users, progress, made)
        return judged, _report(split, tags, judged, made, fit_seconds)

    kept = KeptSplits(out, _facts(tracks, listens, tags, settings, evaluation_settings, others.facts))
    judged: list[Judged] = []
    reports: list[dict[str, Any]] = []
    with nullcontext() if fit or len(tracks) > _MOST_REMEMBERED else _remembered():
        for split in _all_splits(tracks, listens, evaluation_settings):
            found = kept.get(split.protocol, split.seed)
            progress.say(f"{split.protocol}: {split.note}{'' if found is None else '; judged by an earlier run'}")
            if found is None:
                found = judge_split(split)
                kept.put(split.protocol, split.seed, *found)
            judged += found[0]
            reports.append(found[1])
    gathered, k = gather(judged), usual_k(ks)
    figures = summarise(gathered, ks, n_resamples, seed)
    missing = dict.fromkeys(name for report in reports for name in report["unfinished"])
    unfinished = [*missing, *incomplete(judged)]
    return HeldOut(figures, reports, compare(gathered, k, n_resamples, seed), per_user(gathered, k), unfinished)


def _report(
    split: Split, tags: Tags | None, judged: Sequence[Judged], made: "_Made", fit_seconds: float
) -> dict[str, Any]:
    return {
        "protocol": split.protocol,
        "seed": split.seed,
        "note": split.note,
        "fit_seconds": round(fit_seconds, 2),
        "peer_seconds": made.seconds,
        "rank_seconds": {f"{one.split} {one.model}": round(one.seconds, 2) for one in judged},
        "peers": made.told,
        "unfinished": made.unfinished,
        "tags_like_a_listener": [] if tags is None else tags_of_listeners(tags, split, ALIKE),
    }


class _Made:
    """Peers one after another; ``seconds`` that each took to make, ``unfinished`` ones, and what they ``told``."""

    def __init__(self, peers: Peers | None, fitted: Fitted, split: Split) -> None:
        self._peers, self._fitted, self._split = peers, fitted, split
        self.seconds: dict[str, float] = {}
        self.unfinished: list[str] = []
        self.told: list[dict[str, Any]] = []

    def __iter__(self) -> Iterator[tuple[str, Ranker]]:
        started = time.perf_counter()
        for name, ranker in () if self._peers is None else self._peers(self._fitted, self._split):
            self.seconds[name] = round(time.perf_counter() - started, 2)
            if ranker is None:
                self.unfinished.append(f"{name} on {self._split.protocol}")
            else:
                yield name, ranker
            started = time.perf_counter()
        mine = (self._split.protocol, self._split.seed)
        told = [asdict(one) for one in getattr(self._peers, "reports", ())]
        self.told = [one for one in told if (one["protocol"], one["seed"]) == mine]
        without = [one for one in self.told if one["params"] is None and not one["status"].startswith(_UNSUITED)]
        self.unfinished += [f"{one['model']} on {one['protocol']} ({one['status']})" for one in without]


def _all_splits(tracks: Tracks, listens: Listens, settings: EvaluationSettings) -> Iterator[Split]:
    for protocol in settings.on_listens:
        yield from splits(listens, protocol, settings.splits, tracks)


def _facts(
    tracks: Tracks,
    listens: Listens,
    tags: Tags | None,
    settings: Settings,
    evaluation_settings: EvaluationSettings,
    peer_facts: dict[str, Any] | None,
) -> dict[str, Any]:
    """Collect all that decides what is judged on a split."""
    return {
        **facts_of(tracks, listens, tags),
        "fit": settings.model_dump(mode="json"),
        "evaluate": evaluation_settings.model_dump(mode="json", include={"ks", "splits", "max_users"}),
        "peers": peer_facts,
        "versions": versions(),
    }


def _remembered() -> AbstractContextManager[None]:
    from recsys.audio.frozen import remembered_features  # loads torch

    return remembered_features()  # every split's audio network hears the same clips


def shuffled(tracks: Tracks, seed: int) -> Tracks:
    """Mix a table: many are sorted by popularity, which a model that breaks ties by row would get for nothing."""
    return Tracks(tracks.frame.sample(fraction=1, shuffle=True, seed=seed))


def build_fit() -> Fit:
    """Give the build's own fit."""
    from recsys.fit import fit  # loads torch, so only when something is to be fitted

    return fit
