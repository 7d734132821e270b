"""The protocols on listens: split, fit and judge each split, compare; what was judged is kept on the way.

    Listens -> splits -> OneSplit (fit on train, judge) -> gather -> summarise, compare, per_user -> HeldOut

Each split is fitted by ``recsys.fit.fit``, the path of the build, on its training listens alone; held-out listens are
first looked at when lists are judged. With ``ablations`` it is fitted again without each modality that there is.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from eval.aggregate import gather, incomplete, outcome, per_user, summarise, usual_k
from eval.checkpoint import KeptSplits, facts_of
from eval.curves import Curve, named
from eval.facts import versions
from eval.judge import Judged
from eval.settings import EvaluationSettings
from eval.significance import compare
from eval.split_run import NO_OTHERS, Fit, OneSplit, Others
from eval.splitting.ablations import present
from eval.splitting.protocols import splits
from eval.splitting.temporal import check_times
from recsys.types import Listens, Tags, Tracks
from recsys.util.progress import Progress
from recsys.util.settings import Settings

_MOST_REMEMBERED = 2000  # tracks whose published features are kept from split to split: 150 kB each


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Figures in ``FIGURES_SCHEMA``, a report a split, a record a comparison, and each user's recall.

    ``unfinished`` names the models that have no lists on some split, with the reason where there is one. ``curves`` are
    those of the hybrid's networks on each split, by a name for the reader.
    """

    figures: pl.DataFrame
    reports: list[dict[str, Any]]
    tests: list[dict[str, Any]]
    per_user: pl.DataFrame
    unfinished: list[str]
    curves: dict[str, Curve]


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
    seed, ks, n_resamples = evaluation_settings.splits.seed, evaluation_settings.ks, evaluation_settings.n_resamples
    kept = KeptSplits(out, _facts(tracks, listens, tags, settings, evaluation_settings, others.facts))
    mixed = shuffled(tracks, seed)
    one = OneSplit(fit or build_fit(), mixed, tags, settings, evaluation_settings, others, kept, progress)
    left_out = present(tracks, tags) if evaluation_settings.ablations else []
    judged: list[Judged] = []
    reports: list[dict[str, Any]] = []
    curves: dict[str, Curve] = {}
    with nullcontext() if fit or len(tracks) > _MOST_REMEMBERED else _remembered():
        for protocol in evaluation_settings.on_listens:
            with progress.stage(protocol) as stage:
                before = len(judged)
                for split in splits(listens, protocol, evaluation_settings.splits, tracks, tags):
                    of_split, report = one.whole(split)
                    curves |= named(report.pop("curves"), split.name, split.seed)
                    lacking = {modality: one.without(split, modality) for modality in left_out}
                    judged += of_split + [lists for found, _ in lacking.values() for lists in found]
                    reports.append(
                        {**report, "without": {modality: reason for modality, (_, reason) in lacking.items()}}
                    )
                stage.done(outcome(judged[before:], protocol, usual_k(ks)))
    gathered, k = gather(judged), usual_k(ks)
    figures = summarise(gathered, ks, n_resamples, seed)
    missing = dict.fromkeys(name for report in reports for name in report["unfinished"])
    unfinished = [*missing, *incomplete(judged)]
    return HeldOut(figures, reports, compare(gathered, k, n_resamples, seed), per_user(gathered, k), unfinished, curves)


def _facts(
    tracks: Tracks,
    listens: Listens,
    tags: Tags | None,
    settings: Settings,
    evaluation_settings: EvaluationSettings,
    baseline_facts: dict[str, Any] | None,
) -> dict[str, Any]:
    """Collect all that decides what is judged on a split."""
    return {
        **facts_of(tracks, listens, tags),
        "fit": settings.model_dump(mode="json"),
        "evaluate": evaluation_settings.model_dump(mode="json", include={"ks", "splits", "max_users"}),
        "peers": baseline_facts,
        "versions": versions(),
    }


def _remembered() -> AbstractContextManager[None]:
    from recsys.audio.networks.frozen import remembered_features  # loads torch

    return remembered_features()  # every split's audio network hears the same clips


def shuffled(tracks: Tracks, seed: int) -> Tracks:
    """Mix a table: many are sorted by popularity, which a model that breaks ties by row would get for nothing."""
    return Tracks(tracks.frame.sample(fraction=1, shuffle=True, seed=seed))


def build_fit() -> Fit:
    """The build's own fit."""
    from recsys.fit import fit  # loads torch, so only when something is to be fitted

    return fit
