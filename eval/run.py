"""Listens or sound in, an evaluation out: split, fit on what may be seen, judge, write down.

    Listens -> splits -> (train) fit -> judge -> summarise -> Evaluation -> report.json, evaluation.duckdb
    Tracks  -> eval.representation  -> its figures, in the same table

Each split is fitted by ``recsys.fit.fit``, the path of the build, on its training listens alone; held-out
listens are first looked at when lists are judged. Tuning, peers and plots are not here.
"""

import platform
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import polars as pl
from pydantic import Field, ValidationError, field_validator

from eval import splits as parting
from eval.baselines import Fitted
from eval.judge import Judged, judge, summarise
from eval.metrics import FORMULAS
from eval.representation.settings import PARTIAL, RepresentationSettings
from eval.results import FIGURES_SCHEMA, Evaluation, current_generation, make_folder, save, save_to_store
from eval.splits import PROTOCOLS, SplitSettings, splits
from recsys.config import RunSettings
from recsys.errors import ConfigError, DataError
from recsys.progress import Progress, Silent
from recsys.settings import Settings
from recsys.types import Listens, Tags, Tracks

if TYPE_CHECKING:
    from eval.representation.run import Tools

REPRESENTATION: Literal["representation"] = "representation"
_MOST_REMEMBERED = 2000  # tracks whose published features are kept from split to split: 150 kB each
_PACKAGES = (
    "recsys",
    "duckdb",
    "faiss-cpu",
    "implicit",
    "lightfm-next",
    "numpy",
    "polars",
    "scikit-learn",
    "scipy",
    "torch",
)


class EvaluationSettings(Settings):
    """``[evaluate]`` in the run's TOML file."""

    protocols: tuple[parting.Protocol | Literal["representation"], ...] = Field(default=PROTOCOLS[:2], min_length=1)
    ks: tuple[int, ...] = Field(default=(5, 10, 20, 50), min_length=1)  # lengths of lists
    splits: SplitSettings = SplitSettings()
    representation: RepresentationSettings = RepresentationSettings()
    max_users: int = Field(default=50_000, ge=1)  # of a split with more, so many are drawn at random and judged
    n_resamples: int = Field(default=1000, ge=100)  # of the bootstrap over users

    @field_validator("ks")
    @classmethod
    def _ascending(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if min(ks) < 1:
            raise ValueError(f"k is {min(ks)}, expected 1 or more")
        return tuple(sorted(set(ks)))


class Fit(Protocol):
    """What ``recsys.fit.fit`` looks like from here."""

    def __call__(
        self, tracks: Tracks, listens: Listens, tags: Tags | None, settings: Any, *, progress: Progress
    ) -> Fitted:
        """Fit on these listens and no others."""


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
) -> Evaluation:
    """Evaluate the engine on held-out listens, or its sound vectors on artists they have not met; write it down.

    Args:
        tracks: the catalogue.
        listens: what was heard; the protocols ``warm`` and ``cold-track`` need it.
        tags: of the catalogue; given to every fit whole.
        settings: of the fit, as a build would use them.
        evaluation_settings: protocols, lengths of lists, splits.
        out: folder for ``report.json`` and ``evaluation.duckdb``.
        store: where the figures are also kept, as ``evaluations/<time>-<generation>.duckdb``.
        progress: where to report; nothing is shown when None.
        fit: what is judged on listens; ``recsys.fit.fit`` when None.
        tools: what the protocol ``representation`` works with; the build's own when None.

    Raises:
        DataError: a protocol needs listens, sound or artists that are not there, or nothing can be held out.
        ArtefactError: ``store`` has no generation, or a file cannot be written.
    """
    on_listens = _on_listens(evaluation_settings)
    if on_listens and (listens is None or not len(listens)):
        raise DataError(
            f"there are no listens, and {' and '.join(on_listens)} need some to hold out; give them with --listens"
        )
    generation = None if store is None else current_generation(store)  # fail before hours of work, not after
    make_folder(out)
    started = time.perf_counter()
    progress = progress or Silent()
    figures, about = pl.DataFrame(schema=FIGURES_SCHEMA), _facts(settings, evaluation_settings, tags)
    about |= {"generation": generation, "counts": {"tracks": len(tracks), "listens": len(listens or ())}, "splits": []}
    if on_listens and listens is not None:
        figures, about["splits"] = _on_held_out(tracks, listens, tags, settings, evaluation_settings, progress, fit)
    if REPRESENTATION in evaluation_settings.protocols:
        figures = figures.vstack(_represented(tracks, tags, settings, evaluation_settings, out, progress, tools, about))
    about["seconds"] = round(time.perf_counter() - started, 2)
    evaluation = Evaluation(figures, about)
    save(evaluation, out)
    if store is not None and generation is not None:
        save_to_store(evaluation, store, generation)
    shutil.rmtree(out / PARTIAL, ignore_errors=True)  # the report holds what was kept there
    return evaluation


def _on_listens(settings: EvaluationSettings) -> list[parting.Protocol]:
    return [protocol for protocol in settings.protocols if protocol != REPRESENTATION]


def _on_held_out(
    tracks: Tracks,
    listens: Listens,
    tags: Tags | None,
    settings: RunSettings,
    evaluation_settings: EvaluationSettings,
    progress: Progress,
    fit: Fit | None,
) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """Judge what was fitted on training listens; returns the figures and a report of each split."""
    fit_build = fit or _build_fit()
    seed = evaluation_settings.splits.seed
    # tables are often sorted by popularity, which a model that breaks ties by row would get for nothing
    mixed = Tracks(tracks.frame.sample(fraction=1, shuffle=True, seed=seed))

    def fit_to(train: Listens) -> Fitted:
        return fit_build(mixed, train, tags, settings, progress=progress)

    with nullcontext() if fit or len(tracks) > _MOST_REMEMBERED else _remembered():
        judged, reports = _judge_splits(listens, fit_to, evaluation_settings, progress)
    return summarise(judged, evaluation_settings.ks, evaluation_settings.n_resamples, seed), reports


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
    about["networks"] = found.networks
    about["notes"] = about["notes"] + found.notes
    for metric, formula in ON_VECTORS.items():
        before = about["formulas"].get(metric)
        about["formulas"][metric] = formula if before is None else f"{before}; {REPRESENTATION}: {formula}"
    return found.figures


def _judge_splits(
    listens: Listens, fit_to: Callable[[Listens], Fitted], settings: EvaluationSettings, progress: Progress
) -> tuple[list[Judged], list[dict[str, Any]]]:
    """Fit and judge every split of every protocol; returns what was judged and a report of each split."""
    judged: list[Judged] = []
    reports: list[dict[str, Any]] = []
    for protocol in _on_listens(settings):
        for split in splits(listens, protocol, settings.splits):
            progress.say(f"{protocol}: {split.note}")
            started = time.perf_counter()
            fitted = fit_to(split.train)
            fit_seconds = round(time.perf_counter() - started, 2)
            ranked = judge(fitted, split, settings.ks, settings.max_users, progress)
            judged += ranked
            reports.append(
                {
                    "protocol": protocol,
                    "seed": split.seed,
                    "note": split.note,
                    "fit_seconds": fit_seconds,
                    "rank_seconds": {f"{one.split} {one.model}": round(one.seconds, 2) for one in ranked},
                }
            )
    return judged, reports


def _remembered() -> AbstractContextManager[None]:
    from recsys.audio.frozen import remembered_features  # loads torch

    return remembered_features()  # every split's audio network hears the same clips


def _build_fit() -> Fit:
    from recsys.fit import fit  # loads torch, so only when something is to be fitted

    return fit


def _facts(settings: Settings, evaluation_settings: EvaluationSettings, tags: Tags | None) -> dict[str, Any]:
    """Gather what does not depend on the outcome."""
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": {
            "evaluate": evaluation_settings.model_dump(mode="json"),
            "fit": settings.model_dump(mode="json"),
        },
        "formulas": dict(FORMULAS) if _on_listens(evaluation_settings) else {},
        "notes": _notes(evaluation_settings, tags) if _on_listens(evaluation_settings) else [],
        "versions": _versions(),
    }


def _notes(evaluation_settings: EvaluationSettings, tags: Tags | None) -> list[str]:
    """Say what a reader must know before believing a figure."""
    notes = [
        "every model ranks the whole set of candidates, without negative sampling; tracks heard or disliked "
        "in training are left out of every list",
        "value is the mean over users, then over splits; ci_low and ci_high are the 95 % bootstrap interval "
        "over users; a user counts where something is held out for them and they have plays in training",
        "tracks are given to every fit in a random order, so that ties do not tell what the table is sorted by",
        "cold-track ranks the cold tracks among themselves, cold-track-among-all among the whole catalogue",
        f"of a split with more than {evaluation_settings.max_users:,} users so many are drawn and judged",
    ]
    if tags is not None:
        notes.append(
            "tags are given to every fit whole: where the same listeners gave them (as in HetRec), they may "
            "tell of held-out listens"
        )
    return notes


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def evaluation_settings(
    protocols: list[str] | None, ks: str, networks: str | None = None, max_tracks: int | None = None
) -> EvaluationSettings:
    """Make settings of what a command line says: protocols, list lengths and networks, each with commas.

    Raises:
        ConfigError: a protocol or network is unknown, or a number is no whole number from 1.
    """
    given: dict[str, Any] = {"ks": _parts([ks]), "representation": {}}
    if protocols:
        given["protocols"] = _parts(protocols)
    if networks is not None:
        given["representation"]["networks"] = _parts([networks])
    if max_tracks is not None:
        given["representation"]["max_tracks"] = max_tracks
    try:
        return EvaluationSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error


def _parts(texts: list[str]) -> list[str]:
    return [part.strip() for text in texts for part in text.split(",")]
