"""`recsys evaluate` with the models of others beside ours: tuned, judged, listed."""

import json
from pathlib import Path

import polars as pl
import pytest

from eval.baselines.registry import NAMES
from eval.settings import EvaluationSettings
from eval.splitting.split import SplitSettings
from eval.tuning.tune_baselines import baseline_settings
from helpers.catalogues import QUICK, TinyCatalogue
from helpers.command import run


def test_what_the_command_line_says_of_peers() -> None:
    chosen = EvaluationSettings(splits=SplitSettings(cold_by="artist"))
    assert baseline_settings(chosen, 0, None) is None
    made = baseline_settings(chosen, 3, 2.0)
    assert made is not None
    assert (made.trials, made.time_budget_s, made.splits.cold_by, made.models) == (3, 120.0, "artist", NAMES)
    assert baseline_settings(chosen, 3, None).time_budget_s is None


@pytest.mark.slow
def test_peers_are_tuned_and_judged_beside_ours(tiny_catalogue: TinyCatalogue, tmp_path: Path) -> None:
    (tmp_path / "quick.toml").write_text(QUICK)
    ran = run(
        *(
            "evaluate",
            "--tracks",
            tiny_catalogue.tracks,
            "--listens",
            tiny_catalogue.listens,
            "--out",
            tmp_path / "out",
        ),
        *("--protocol", "cold-track", "--trials", "2", "-k", "5", "--config", tmp_path / "quick.toml"),
    )
    assert ran.status == 0, ran.err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    models = set(pl.DataFrame(report["figures"])["model"])
    assert {"ridge", "content-profile", "dropoutnet", "lightfm-features", "artist-mean", "hybrid"} <= models
    assert "als" not in models  # without content it cannot tell cold tracks apart, and is listed as left out
    told = {one["model"]: one["status"] for one in report["splits"][0]["peers"]}
    assert set(told) == set(NAMES)
    assert told["ridge"] == "tuned"
    assert "left out" in told["als"]
    assert not (tmp_path / "out" / "evaluation.partial").exists()
