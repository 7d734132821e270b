"""Tuning from files: read as a build reads, ``eval.tuning.tune_hybrid``, then a settings file for the next build."""

from pathlib import Path

from eval.tuning.settings_file import write_settings
from eval.tuning.tune_hybrid import Outcome, TuneSettings, tune
from pipelines.build import Inputs, read_and_tell
from recsys.config import RunSettings
from recsys.errors import ConfigError
from recsys.util.progress import Progress


def tune_files(
    inputs: Inputs,
    settings: RunSettings,
    tune_settings: TuneSettings,
    out: Path,
    force: bool,
    command: str,
    progress: Progress,
) -> Outcome:
    """Read a catalogue, tune the settings on it and write them to ``out``; trials are kept in ``<out>.trials``.

    ``command`` is told in the file. What else is raised is said in ``eval.tuning.tune_hybrid.tune``.

    Raises:
        ConfigError: ``out`` is there and may not be replaced, which ``force`` allows.
    """
    if out.is_dir():
        raise ConfigError(f"{out} is a folder, expected the name of a settings file such as {out / 'tuned.toml'}")
    if out.exists() and not force:
        raise ConfigError(f"{out} is there already; give another --out, or --force to replace it (its trials go on)")
    catalogue = read_and_tell(inputs, settings, progress)
    outcome = tune(
        catalogue.tracks,
        catalogue.listens,
        catalogue.tags,
        settings=settings,
        tune_settings=tune_settings,
        folder=out.with_name(f"{out.name}.trials"),
        progress=progress,
    )
    write_settings(outcome.settings, out, [*outcome.told(), f"made by: {command}"])
    return outcome
