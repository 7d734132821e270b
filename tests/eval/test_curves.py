"""Training curves: read from a fit, kept with its split, told in the report and drawn there."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from eval.curves import curves_of, named
from eval.run import evaluate
from eval.settings import EvaluationSettings
from eval.splitting.split import SplitSettings
from helpers.catalogues import AudioCatalogue, quick_settings
from helpers.tastes import RecordingFit, TasteFake, catalogue, planted
from pipelines.build import read_and_tell
from recsys.fit import fit as fit_build
from recsys.util.progress import Silent
from recsys.util.settings import Settings

pytestmark = pytest.mark.usefixtures("decoded_here")


def left_behind(content: list[dict[str, float]], sound: list[dict[str, float]] | None) -> Any:
    """Artefacts as ``recsys.fit`` leaves them; no network of sound where ``sound`` is None."""
    model = None if sound is None else SimpleNamespace(origin=SimpleNamespace(curve=sound))
    encoder = SimpleNamespace(content=SimpleNamespace(curve=content))
    return SimpleNamespace(encoder=encoder, sound=SimpleNamespace(model=model))


def curve(first: float) -> list[dict[str, float]]:
    return [{"epoch": n, "held-out cost": first / n, "training cost": first / n / 2, "seconds": 0.1} for n in (1, 2, 3)]


@dataclass(frozen=True)
class Trained(TasteFake):
    """A fit that trained something, each differently."""

    artefacts: Any = None


class TrainingFit(RecordingFit):
    def __init__(self, killed_at: int | None = None) -> None:
        super().__init__()
        self.killed_at = killed_at

    def __call__(self, *given: Any, **named: Any) -> TasteFake:
        if len(self.given) == self.killed_at:
            raise KeyboardInterrupt
        fitted = super().__call__(*given, **named)
        n_pairs = float(fitted.plays.counts.sum()) + fitted.plays.counts.indices.sum()
        return Trained(fitted.plays, artefacts=left_behind(curve(n_pairs), curve(2 * n_pairs)))


def run(out: Path, fit: Any, protocols: tuple[str, ...] = ("warm", "cold-track")) -> Any:
    splits = SplitSettings(n_splits=2)
    chosen = EvaluationSettings(protocols=protocols, ks=(3,), splits=splits, n_resamples=100)
    return evaluate(catalogue(), planted(), None, settings=Settings(), evaluation_settings=chosen, out=out, fit=fit)


def test_only_what_was_trained_has_a_curve() -> None:
    fit = SimpleNamespace(artefacts=left_behind(curve(8.0), curve(4.0)))
    assert curves_of(fit) == {"content": curve(8.0), "sound": curve(4.0)}
    assert curves_of(SimpleNamespace(artefacts=left_behind(curve(8.0), []))) == {"content": curve(8.0)}
    assert curves_of(SimpleNamespace(artefacts=left_behind([], None))) == {}
    assert curves_of(SimpleNamespace()) == {}
    diverged = left_behind([{"epoch": 1, "held-out cost": float("nan")}], None)
    assert curves_of(SimpleNamespace(artefacts=diverged)) == {"content": [{"epoch": 1, "held-out cost": None}]}
    assert list(named({"content": [], "sound": []}, "warm", 3)) == ["warm, seed 3: content", "warm, seed 3: sound"]


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_the_report_draws_the_curves_of_each_split(tmp_path: Path) -> None:
    about = run(tmp_path, TrainingFit()).about
    names = [
        f"{protocol}, seed {seed}: {what}"
        for protocol in ("warm", "cold-track")
        for seed in (0, 1)
        for what in ("content", "sound")
    ]
    assert list(about["curves"]) == names
    starts = [rows[0]["held-out cost"] for rows in about["curves"].values()]
    assert len(set(starts)) == len(starts)
    assert json.loads((tmp_path / "report.json").read_text())["curves"] == about["curves"]
    assert not any("curves" in split for split in about["splits"])  # told once
    page = (tmp_path / "report.html").read_text()
    assert '<section id="training">' in page
    assert all(f"<b>{name}</b>" in page for name in names)


def test_a_run_that_goes_on_has_the_curves_of_before(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", TrainingFit(killed_at=3))
    rest = TrainingFit()
    resumed, fresh = run(tmp_path / "killed", rest), run(tmp_path / "fresh", TrainingFit())
    assert len(rest.given) == 1
    assert resumed.about["curves"] == fresh.about["curves"]
    assert len(fresh.about["curves"]) == 8


@pytest.mark.usefixtures("drawn")
def test_a_fit_that_trained_nothing_has_no_place_in_the_report(tmp_path: Path) -> None:
    assert run(tmp_path, RecordingFit(), ("warm",)).about["curves"] == {}
    page = (tmp_path / "report.html").read_text()
    assert 'id="split-1"' in page
    assert 'id="training"' not in page


@pytest.mark.slow
def test_the_engine_leaves_the_curves_of_both_networks(audio_catalogue: AudioCatalogue) -> None:
    """Where ``recsys.fit`` puts its artefacts is told by this alone: it fails when they move."""
    settings = quick_settings()
    read = read_and_tell(audio_catalogue.inputs, settings, Silent())
    found = curves_of(fit_build(read.tracks, read.listens, None, settings, progress=Silent()))
    assert set(found) == {"content", "sound"}
    for rows in found.values():
        assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
        assert all(row["training cost"] > 0 for row in rows)
    assert found["content"] != found["sound"]
