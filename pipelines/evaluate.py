"""An evaluation from files: the same reading as a build, then ``eval.run``."""

from pathlib import Path

from eval.results import Evaluation
from eval.run import evaluate
from eval.settings import EvaluationSettings
from pipelines.build import Inputs, read_catalogue
from recsys.catalogue.problems import Problems
from recsys.config import RunSettings
from recsys.progress import Progress


def evaluate_files(
    inputs: Inputs,
    settings: RunSettings,
    evaluation_settings: EvaluationSettings,
    out: Path,
    store: Path | None,
    progress: Progress,
) -> Evaluation:
    """Read a catalogue and judge the engine on it; see ``eval.run.evaluate`` for what is written and raised."""
    problems = Problems()
    catalogue = read_catalogue(inputs, settings, problems)
    if len(problems):
        told = ", ".join(f"{n:,} {kind}" for kind, n in problems.counts().items())
        progress.say(f"problems in the input (the rest is used): {told}")
    return evaluate(
        catalogue.tracks,
        catalogue.listens,
        catalogue.tags,
        settings=settings,
        evaluation_settings=evaluation_settings,
        out=out,
        store=store,
        progress=progress,
    )
