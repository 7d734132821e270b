"""The demo, small: it runs to its end, says that everything is simulated, and harms no other folder."""

from pathlib import Path

import pytest
from conftest import run

from pipelines import demo as demonstration
from pipelines.synth import SynthSettings
from recsys.errors import ArtefactError
from recsys.progress import Silent
from recsys.recommender import Recommender

SMALL = SynthSettings(n_tracks=32, n_artists=8, clip_s=3.0, n_users=40, n_listens=700, n_workers=1)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    ran = run("demo", "--out", tmp_path)
    assert ran.status == 4
    assert "holds something else; give another folder with --out" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]
    with pytest.raises(ArtefactError):
        demonstration.demo(tmp_path, Silent(), SMALL)


@pytest.mark.slow
def test_it_runs_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # and again, into its own folder
        demonstration.demo(tmp_path / "out", Silent(), SMALL)
        out, err = capsys.readouterr()
        assert err == ""
        plain = " ".join(out.split())
        assert "simulated music and simulated listeners" in plain
        for part in range(1, 9):
            assert f"{part}. " in plain
        assert 'source: "personal"' in plain
        assert "popularity" in plain
        assert "random" in plain
        assert "who would like it" in plain.lower()
        assert "recsys scan ~/Music" in plain.split("Now with your own music")[1]
    status = Recommender.open(tmp_path / "out" / "store").status()
    assert (status["n_tracks"], status["n_uploads"]) == (33, 1)
    assert run("recommend", "listener-0001", "--store", tmp_path / "out" / "store").status == 0
