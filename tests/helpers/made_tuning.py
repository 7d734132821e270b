"""A fit that knows the more the nearer one setting is to the best, and tuning on it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eval.tuning.tune_hybrid import Outcome, TuneSettings, tune
from helpers.tastes import N_TRACKS, TasteFake, catalogue, planted, plays_of_fake
from recsys.config import RunSettings
from recsys.types import Candidates, Int32, Listens, Tags, Tracks
from recsys.util.progress import Progress

BEST_L2 = 1.0  # the base has 10


@dataclass(frozen=True)
class PartlyKnowing(TasteFake):
    """Knows the taste of a share of the users and takes the others for their opposite."""

    share: float = 1.0

    def rank(
        self, user_ids: Sequence[str], k: int, candidates: Int32 | None = None, *, part: str | None = None
    ) -> Candidates:
        right = super().rank(user_ids, k, candidates)
        wrong = super().rank(user_ids, k, candidates, part="worst")
        known = np.array([int(user_id[1:]) < self.share * len(self.plays.user_ids) for user_id in user_ids])[:, None]
        return Candidates(np.where(known, right.items, wrong.items), np.where(known, right.scores, wrong.scores))


@dataclass
class PlantedFit:
    """Fits what knows the more users the nearer ``hybrid.als.l2`` is to the best; remembers what it was given."""

    settings: list[RunSettings] = field(default_factory=list)
    tracks: list[Tracks] = field(default_factory=list)
    listens: list[Listens] = field(default_factory=list)
    dies_at: int = -1
    before: Callable[[RunSettings], None] = lambda settings: None

    def __call__(
        self, tracks: Tracks, listens: Listens, tags: Tags | None, settings: Any, *, progress: Progress
    ) -> PartlyKnowing:
        if len(self.settings) == self.dies_at:
            raise KeyboardInterrupt
        self.settings.append(settings)
        self.tracks.append(tracks)
        self.listens.append(listens)
        self.before(settings)
        share = max(0.1, 1 - abs(np.log10(settings.hybrid.als.l2 / BEST_L2)) / 2)
        return PartlyKnowing(plays_of_fake(listens, N_TRACKS), share=float(share))


def tuned(folder: Path, fit: Any, tracks: Tracks | None = None, **given: Any) -> Outcome:
    chosen = TuneSettings.model_validate({"trials": 6, "k": 3, "protocol": "warm", **given})
    return tune(
        catalogue() if tracks is None else tracks,
        planted(),
        None,
        settings=RunSettings(),
        tune_settings=chosen,
        folder=folder,
        fit=fit,
    )


def lines(folder: Path) -> list[dict[str, Any]]:
    [file] = folder.glob("*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]
