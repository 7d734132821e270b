"""The demo, small: it runs to its end, says that everything is simulated, and harms no other folder.

The lines of the README and of the tutorial run on what it leaves; all stand in one file, so that one process makes
the demo once.
"""

import ast
import io
import json
import re
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from docs.tools.transcripts import rewritten
from helpers.catalogues import clip
from helpers.command import run
from helpers.pages import DOCS, README, blocks, commands, text_of, words
from pipelines import demo as demonstration
from pipelines.synth import SynthSettings
from recsys.audio.networks.frozen import remembered_features
from recsys.errors import ArtefactError
from recsys.recommender import Recommender
from recsys.util.progress import Silent

SMALL = SynthSettings(n_tracks=32, n_artists=8, clip_s=3.0, n_users=40, n_listens=700)
MOST_LINES = 15  # on the screen of a build, an evaluation or a tuning
OUT = Path("demo-out")  # as `make demo` names it, seen from where it runs


@dataclass(frozen=True)
class Ran:
    """A demo that ran in a folder where an earlier one had left things: its folder, and what it printed."""

    out: Path
    told: str
    complaints: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    parent = tmp_path_factory.mktemp("demo")
    (parent / OUT / "store" / "generations").mkdir(parents=True)
    (parent / OUT / "store" / "generations" / "left").write_text("by a demo that was killed")
    (parent / OUT / "audio").mkdir()
    (parent / OUT / "audio" / "left.mp3").write_bytes(clip("left.mp3", 5))
    (parent / OUT / demonstration.MARK).touch()
    out, err = io.StringIO(), io.StringIO()
    with chdir(parent), redirect_stdout(out), redirect_stderr(err):
        demonstration.demo(OUT, Silent(), SMALL)
    return Ran(parent / OUT, out.getvalue(), err.getvalue())


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    ran = run("demo", "--out", tmp_path)
    assert ran.status == 4
    assert "holds something else; give another folder with --out" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]
    with pytest.raises(ArtefactError):
        demonstration.demo(tmp_path, Silent(), SMALL)


@pytest.mark.slow
def test_it_runs_to_its_end(ran: Ran) -> None:
    assert ran.complaints == ""
    plain = " ".join(ran.told.split())
    assert "simulated music and simulated listeners" in plain
    for part in range(1, 9):
        assert f"{part}. " in plain
    assert 'source: "personal"' in plain
    assert "popularity" in plain
    assert "random" in plain
    assert "who would like it" in plain.lower()
    assert "recsys scan ~/Music" in plain.split("Now with your own music")[1]
    status = Recommender.open(ran.out / "store").status()
    assert (status["n_tracks"], status["n_uploads"]) == (SMALL.n_tracks + 1, 1)
    assert run("recommend", "listener-0001", "--store", ran.out / "store").status == 0


@pytest.mark.slow
def test_it_makes_its_own_folder_anew(ran: Ran) -> None:
    """A mark and leftovers were in it; now it has the mark that the next demo looks for, and no leftovers."""
    assert not list(ran.out.rglob("left*"))
    assert (ran.out / demonstration.MARK).read_text(encoding="utf-8").startswith("Simulated music")


@pytest.mark.slow
def test_the_lines_of_readme_and_tutorial_run_as_they_stand(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a demo folder as `make demo` leaves it, but smaller."""
    monkeypatch.chdir(ran.out.parent)
    pages = (README, DOCS / "tutorial" / "demo.md")
    lines = list(dict.fromkeys(line for page in pages for line in commands(page) if OUT.name in line))
    assert len(lines) >= 10
    with remembered_features():  # the lines hear the same clips, and need not listen to each again
        for line in lines:
            answer = run(*words(line)[1:])
            assert answer.status == 0, (line, answer.err)
            assert answer.out
            assert len(answer.err.splitlines()) <= MOST_LINES, (line, answer.err)


@pytest.mark.slow
def test_the_readme_prints_what_its_lines_print(ran: Ran) -> None:
    """Made anew on the small demo, its examples have the same lines, keys and columns; ids and figures differ."""
    now = rewritten(text_of(README), ran.out.parent)
    assert shape(now) == shape(text_of(README))
    assert ">>> " in blocks(README, "pycon")[0]


def shape(text: str) -> list[str]:
    """Of each line of an example what does not depend on the catalogue: prompts, first words, keys, heads of tables."""
    kept = []
    for block in re.findall(r"^```(?:console|pycon)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith(("$ ", ">>> ", "... ")):
                kept.append(line)
            elif line.startswith("{"):
                kept.append(" ".join(json.loads(line)))
            elif line.startswith("┃"):
                kept.append(" ".join(line.replace("┃", " ").split()))
            elif line[:1] in "[(":
                kept.append(type(ast.literal_eval(line)).__name__)
            elif line[:1].isalpha():
                kept.append(line.split()[0])
    return kept
