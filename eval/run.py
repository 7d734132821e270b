"""Listens in, an evaluation out: split, fit on what may be seen, judge, write down.

    Listens -> splits -> (train) fit -> judge -> summarise -> Evaluation -> report.json, evaluation.duckdb

Each split is fitted by ``recsys.fit.fit``, the path of the build, on its training listens alone; held-out
listens are first looked at when lists are judged. Tuning, peers and plots are not here.
"""

import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field, ValidationError, field_validator

from eval import splits as parting
from eval.baselines import Fitted
from eval.judge import Judged, judge, summarise
from eval.metrics import FORMULAS
from eval.results import Evaluation, current_generation, make_folder, save, save_to_store
from eval.splits import PROTOCOLS, SplitSettings, splits
from recsys.errors import ConfigError, DataError
from recsys.progress import Progress, Silent
from recsys.settings import Settings
from recsys.types import Listens, Tags, Tracks

_PACKAGES = ("recsys", "duckdb", "faiss-cpu", "implicit", "lightfm-next", "numpy", "polars", "scipy", "torch")


class EvaluationSettings(Settings):
    """``[evaluate]`` in the run's TOML file."""

    protocols: tuple[parting.Protocol, ...] = Field(default=PROTOCOLS, min_length=1)
    ks: tuple[int, ...] = Field(default=(5, 10, 20, 50), min_length=1)  # lengths of lists
    splits: SplitSettings = SplitSettings()
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
    settings: Settings,
    evaluation_settings: EvaluationSettings,
    out: Path,
    store: Path | None = None,
    progress: Progress | None = None,
    fit: Fit | None = None,
) -> Evaluation:
    """Evaluate the engine on held-out listens and write what came out.

    Args:
        tracks: the catalogue.
        listens: what was heard; the protocols ``warm`` and ``cold-track`` need it.
        tags: of the catalogue; given to every fit whole.
        settings: of the fit, as a build would use them.
        evaluation_settings: protocols, lengths of lists, splits.
        out: folder for ``report.json`` and ``evaluation.duckdb``.
        store: where the figures are also kept, as ``evaluations/<time>-<generation>.duckdb``.
        progress: where to report; nothing is shown when None.
        fit: what is judged; ``recsys.fit.fit`` when None.

    Raises:
        DataError: there are no listens, or nothing can be held out of them.
        ArtefactError: ``store`` has no generation, or a file cannot be written.
    """
    if listens is None or not len(listens):
        protocols = " and ".join(evaluation_settings.protocols)
        raise DataError(f"there are no listens, and {protocols} need some to hold out; give them with --listens")
    generation = None if store is None else current_generation(store)  # fail before hours of work, not after
    make_folder(out)
    started = time.perf_counter()
    progress, fit = progress or Silent(), fit or _build_fit()

    # tables are often sorted by popularity, which a model that breaks ties by row would get for nothing
    mixed = Tracks(tracks.frame.sample(fraction=1, shuffle=True, seed=evaluation_settings.splits.seed))

    def fit_to(train: Listens) -> Fitted:
        return fit(mixed, train, tags, settings, progress=progress)

    judged, reports = _judge_splits(listens, fit_to, evaluation_settings, progress)
    seed = evaluation_settings.splits.seed
    figures = summarise(judged, evaluation_settings.ks, evaluation_settings.n_resamples, seed)
    about = {
        "generation": generation,
        "counts": {"tracks": len(tracks), "listens": len(listens)},
        "splits": reports,
        "seconds": round(time.perf_counter() - started, 2),
    }
    evaluation = Evaluation(figures, about | _facts(settings, evaluation_settings, tags))
    save(evaluation, out)
    if store is not None and generation is not None:
        save_to_store(evaluation, store, generation)
    return evaluation


def _judge_splits(
    listens: Listens, fit_to: Callable[[Listens], Fitted], settings: EvaluationSettings, progress: Progress
) -> tuple[list[Judged], list[dict[str, Any]]]:
    """Fit and judge every split of every protocol; returns what was judged and a report of each split."""
    judged: list[Judged] = []
    reports: list[dict[str, Any]] = []
    for protocol in settings.protocols:
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
        "formulas": FORMULAS,
        "notes": _notes(evaluation_settings, tags),
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


def evaluation_settings(protocols: list[str] | None, ks: str) -> EvaluationSettings:
    """Make settings of what a command line says: names of protocols and list lengths, either with commas.

    Raises:
        ConfigError: a protocol is unknown, or a length is no whole number from 1.
    """
    named = [part.strip() for text in protocols or [] for part in text.split(",")]
    chosen = {"protocols": named} if named else {}
    try:
        return EvaluationSettings.model_validate({**chosen, "ks": [part.strip() for part in ks.split(",")]})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
