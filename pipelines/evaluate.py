"""An evaluation from files: the same reading as a build, then ``eval.run``."""

from pathlib import Path

from eval.checkpoint import PARTIAL
from eval.results import Evaluation
from eval.run import evaluate
from eval.settings import EvaluationSettings
from eval.tuning.tune_baselines import BaselineSettings, tuned_baselines
from pipelines.build import Inputs, read_and_tell
from recsys.config import RunSettings
from recsys.util.progress import Progress


def evaluate_files(
    inputs: Inputs,
    settings: RunSettings,
    evaluation_settings: EvaluationSettings,
    out: Path,
    store: Path | None,
    progress: Progress,
    baseline_settings: BaselineSettings | None = None,
) -> Evaluation:
    """Read a catalogue and judge the engine on it; see ``eval.run.evaluate`` for what is written and raised.

    With ``baseline_settings`` models of other libraries and papers are tuned and judged beside ours.
    """
    catalogue = read_and_tell(inputs, settings, progress)
    baselines = None
    if baseline_settings is not None and evaluation_settings.on_listens:
        baselines = tuned_baselines(
            catalogue.tracks, catalogue.tags, baseline_settings, out / PARTIAL / "trials", progress
        )
    return evaluate(
        catalogue.tracks,
        catalogue.listens,
        catalogue.tags,
        settings=settings,
        evaluation_settings=evaluation_settings,
        out=out,
        store=store,
        progress=progress,
        baselines=baselines,
        baseline_facts=None if baseline_settings is None else baseline_settings.model_dump(mode="json"),
    )
