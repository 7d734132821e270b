"""What tuning found becomes a settings file that a build takes."""

import json
import tomllib
from pathlib import Path

import pytest

from eval.tuning.settings_file import with_values, write_settings
from helpers.catalogues import QUICK, TinyCatalogue, quick_settings
from helpers.command import run
from helpers.stores import rows
from recsys.config import RunSettings, load_settings


def test_an_unknown_path_or_value_is_an_error() -> None:
    for path, value in (("hybrid.als.n_facters", 3), ("hybrid.als.l2", -1.0)):
        with pytest.raises(ValueError, match=path):
            with_values(RunSettings(), {path: value})


def test_the_file_holds_the_base_with_what_was_tuned(tmp_path: Path) -> None:
    base = RunSettings.model_validate({"seed": 3, "hybrid": {"als": {"l2": 2.0}, "content": {"tasks": {"genre": 0.7}}}})
    settings = with_values(base, {"hybrid.als.l2": 0.1 + 0.2, "hybrid.prior.exposure": 4.0})
    write_settings(settings, tmp_path / "new" / "t.toml", ["made by: recsys tune --out 'a\nb\udcff'"])
    text = (tmp_path / "new" / "t.toml").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "# made by: recsys tune --out 'a?b?'"
    assert tomllib.loads(text) == {
        "seed": 3,
        "hybrid": {
            "als": {"l2": 0.1 + 0.2},
            "choice": {"enabled": False},  # who sets l2 has chosen
            "content": {"tasks": {"genre": 0.7}},
            "prior": {"exposure": 4.0},
        },
    }
    assert load_settings(tmp_path / "new" / "t.toml") == settings
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["t.toml"]


@pytest.mark.slow
def test_the_command_writes_a_settings_file(tiny_catalogue: TinyCatalogue, tmp_path: Path) -> None:
    (tmp_path / "quick.toml").write_text(QUICK)
    out = tmp_path / "tuned.toml"
    tables = ("--tracks", tiny_catalogue.tracks, "--listens", tiny_catalogue.listens)
    command = ("tune", *tables, "--config", tmp_path / "quick.toml", "--out", out, "--protocol", "cold-track")
    ran = run(*command, "--trials", "2")
    assert ran.status == 0, ran.err
    assert "recall@20 cold-track" in ran.out
    settings = load_settings(out)
    assert settings.hybrid.content == quick_settings().hybrid.content
    assert f"recsys tune --tracks {tiny_catalogue.tracks}" in out.read_text().splitlines()[2]
    refused = run(*command, "--trials", "3")
    assert refused.status == 2
    assert "--force" in refused.complaint
    again = run(*command, "--trials", "2", "--force")
    assert again.status == 0
    assert "2 trials of an earlier run" in " ".join(again.err.split())
    folder = run(*command[:-3], tmp_path, "--protocol", "warm")
    assert (folder.status, "is a folder" in folder.complaint) == (2, True)


@pytest.mark.slow
def test_a_build_takes_the_file(tiny_catalogue: TinyCatalogue, tmp_path: Path) -> None:
    settings = with_values(quick_settings(), {"hybrid.als.n_factors": 5})
    write_settings(settings, tmp_path / "tuned.toml", ["as tune leaves it"])
    tables = ("--tracks", tiny_catalogue.tracks, "--listens", tiny_catalogue.listens)
    built = run("build", *tables, "--store", tmp_path / "store", "--config", tmp_path / "tuned.toml")
    assert built.status == 0, built.err
    [(told,)] = rows(tmp_path / "store", "SELECT settings FROM build")
    assert RunSettings.model_validate(json.loads(told)) == settings
