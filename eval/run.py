"""Listens or sound in, an evaluation out: judge by each protocol, write down.

    Tracks, Listens  ->  eval.held_out        ->  figures, tests, each user's recall  ─┐
    Tracks           ->  eval.representation  ->  figures, in the same table          ─┴─> Evaluation -> files

Plots are not here, and neither are the other models that ours is compared with: they come as ``baselines``.
"""

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from eval import checkpoint
from eval.facts import notes_of, versions
from eval.held_out import judge_held_out
from eval.metrics import accuracy, beyond_accuracy
from eval.representation.settings import PARTIAL
from eval.results import FIGURES_SCHEMA, Evaluation, make_folder, save, save_to_store
from eval.settings import REPRESENTATION, EvaluationSettings
from eval.split_run import Baselines, Fit, Others
from recsys.config import RunSettings
from recsys.errors import DataError
from recsys.store.generation import Store
from recsys.types import Listens, Tags, Tracks
from recsys.util.progress import Progress, Silent

if TYPE_CHECKING:
    from eval.representation.run import Tools


def evaluate(
    tracks: Tracks,
    listens: Listens | None,
    tags: Tags | None,
    *,
    settings: RunSettings,
    evaluation_settings: EvaluationSettings,
    out: Path,
    store: Path | None = None,
    progress: Progress | None = None,
    fit: Fit | None = None,
    tools: "Tools | None" = None,
    baselines: Baselines | None = None,
    baseline_facts: dict[str, Any] | None = None,
) -> Evaluation:
    """Evaluate the engine on held-out listens, or its sound vectors on artists they have not met; write it down.

    A run that was killed goes on with the same arguments where it was: finished splits are kept under ``out``.

    Args:
        tracks: the catalogue.
        listens: what was heard; all protocols but ``representation`` need it.
        tags: of the catalogue; given to every fit whole.
        settings: of the fit, as a build would use them.
        evaluation_settings: protocols, lengths of lists, splits.
        out: folder for ``report.json``, ``evaluation.duckdb`` and ``per_user.parquet``.
        store: where the figures are also kept, as ``evaluations/<time>-<generation>.duckdb``.
        progress: where to report; nothing is shown when None.
        fit: what is judged on listens; ``recsys.fit.fit`` when None.
        tools: what the protocol ``representation`` works with; the build's own when None.
        baselines: other models to judge beside ours (see ``eval.split_run.Baselines``).
        baseline_facts: what decides the baselines, their settings above all, as ``json`` can write it.

    Raises:
        DataError: a protocol needs listens, sound or artists that are not there, nothing can be held out, or the fit
            saw what was.
        ArtefactError: ``store`` has no generation, or a file cannot be written.
    """
    on_listens = evaluation_settings.on_listens
    if on_listens and (listens is None or not len(listens)):
        raise DataError(
            f"there are no listens, and {' and '.join(on_listens)} need some to hold out; give them with --listens"
        )
    generation = None if store is None else Store(store).current().name  # fail before hours of work, not after
    make_folder(out)
    started = time.perf_counter()
    progress = progress or Silent()
    figures, of_users = pl.DataFrame(schema=FIGURES_SCHEMA), None
    about = _about(settings, evaluation_settings, generation)
    about["counts"] = {"tracks": len(tracks), "listens": len(listens or ())}
    if on_listens and listens is not None:
        others = Others(baselines, baseline_facts)
        found = judge_held_out(tracks, listens, tags, settings, evaluation_settings, out, progress, fit, others)
        figures, of_users = found.figures, found.per_user
        about |= {"splits": found.reports, "tests": found.tests, "formulas": _formulas(figures)}
        about["notes"] = notes_of(evaluation_settings, tags, found.reports)
        about |= {"unfinished": found.unfinished, "curves": found.curves}
    if REPRESENTATION in evaluation_settings.protocols:
        figures = figures.vstack(_represented(tracks, tags, settings, evaluation_settings, out, progress, tools, about))
    from eval.report.page import write_report  # loads matplotlib

    about["seconds"] = round(time.perf_counter() - started, 2)
    evaluation = Evaluation(figures, about, of_users)
    with progress.stage("report") as stage:
        save(evaluation, out)
        write_report(evaluation, out)
        if store is not None and generation is not None:
            save_to_store(evaluation, store, generation)
        stage.done(_report_outcome(evaluation))
    for partial in (PARTIAL, checkpoint.PARTIAL):
        shutil.rmtree(out / partial, ignore_errors=True)  # the report holds what was kept there
    return evaluation


def _report_outcome(evaluation: Evaluation) -> str:
    unfinished = evaluation.about["unfinished"]
    lacking = f"; without lists: {', '.join(unfinished)}" if unfinished else ""
    return f"{len(evaluation.figures):,} figures and their plots{lacking}"


def _about(settings: RunSettings, evaluation_settings: EvaluationSettings, generation: str | None) -> dict[str, Any]:
    """Gather what does not depend on the outcome, and leave room for what does."""
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": {
            "evaluate": evaluation_settings.model_dump(mode="json"),
            "fit": settings.model_dump(mode="json"),
        },
        "generation": generation,
        "versions": versions(),
        **{name: [] for name in ("splits", "tests", "unfinished", "notes")},
        "formulas": {},
    }


def _formulas(figures: pl.DataFrame) -> dict[str, str]:
    """The formula of each metric that there is a figure of."""
    shown = set(figures["metric"])
    return {
        name: formula for name, formula in {**accuracy.FORMULAS, **beyond_accuracy.FORMULAS}.items() if name in shown
    }


def _represented(
    tracks: Tracks,
    tags: Tags | None,
    settings: RunSettings,
    evaluation_settings: EvaluationSettings,
    out: Path,
    progress: Progress,
    tools: "Tools | None",
    about: dict[str, Any],
) -> pl.DataFrame:
    """Judge sound vectors; ``about`` is told what a reader must know of it."""
    from eval.representation.figures import FORMULAS as ON_VECTORS
    from eval.representation.run import represent  # loads torch

    with progress.stage(REPRESENTATION) as stage:
        found = represent(
            tracks,
            tags,
            settings.audio,
            evaluation_settings.representation,
            n_resamples=evaluation_settings.n_resamples,
            out=out,
            progress=progress,
            tools=tools,
        )
        stage.done(f"{len(found.networks)} networks: {', '.join(found.networks)}")
    about["networks"] = found.networks
    about["notes"] = about["notes"] + found.notes
    for metric, formula in ON_VECTORS.items():
        before = about["formulas"].get(metric)
        about["formulas"][metric] = formula if before is None else f"{before}; {REPRESENTATION}: {formula}"
    return found.figures
