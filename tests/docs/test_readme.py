"""The README says what is: its commands exist with those options, its map names every module, its lines run.

The quickstart's lines run in test_demo.py, on the folder of the one small demo.
"""

import re
from pathlib import Path

import pytest
import typer

from helpers.catalogues import AudioCatalogue, clip
from helpers.command import run
from helpers.places import ROOT
from helpers.readme import BLOCKS, README, USED, lines, words
from pipelines.build import build
from recsys.cli.main import app
from recsys.config import RunSettings, load_settings
from recsys.util.progress import Silent

COMMANDS = typer.main.get_command(app).commands


def parameters(command: str, member: str | None = None) -> list[typer.core.TyperArgument | typer.core.TyperOption]:
    """What a command takes; of a group of commands, what one of them takes, or any."""
    members = getattr(COMMANDS[command], "commands", {member: COMMANDS[command]})
    chosen = members.values() if member is None else [members[member]]
    return [parameter for one in chosen for parameter in one.params]


def options(command: str, member: str | None = None) -> set[str]:
    return {option for parameter in parameters(command, member) for option in parameter.opts}


@pytest.mark.parametrize("line", USED)
def test_each_command_exists_with_its_options(line: str) -> None:
    _, command, *rest = words(line)
    assert command in COMMANDS, line
    member = rest[0] if rest else None
    used = [word.partition("=")[0] for word in rest if word.startswith("-")]
    assert set(used) <= options(command, member), line
    needed = {p.opts[0] for p in parameters(command, member) if p.required and p.opts[0].startswith("--")}
    assert needed <= set(used), f"{line} lacks a required option"


def test_every_command_is_shown() -> None:
    shown = {words(line)[1] for line in USED}
    assert shown | {"demo"} == set(COMMANDS), "`make demo` stands for the demo"
    assert "make demo" in README


def test_the_interface_is_the_one_that_was_promised() -> None:
    promised = {
        "scan": {"--out"},
        "build": {"--tracks", "--listens", "--tags", "--audio-root", "--store", "--config", "--strict"},
        "recommend": {"--store", "-k", "--json"},
        "similar": {"--store", "-k", "--space", "--json"},
        "add": {"--store", "--track-id", "--title", "--artist", "--genre", "--year", "--lyrics-file", "--json"},
        "sql": {"--store"},
        "serve": {"--store", "--listen", "--workers", "--tokens", "--tls-cert", "--tls-key", "--client-ca"},
        "token": {"--tokens", "--role", "--name"},
        "call": {"--at", "--token-file", "--ca", "--cert", "--key", "--json", "-k", "--space"},
        "rollback": {"--store", "--to"},
        "evaluate": {"--tracks", "--listens", "--tags", "--audio-root", "--out", "--store", "--protocol", "-k"},
        "tune": {
            "--tracks",
            "--listens",
            "--tags",
            "--config",
            "--out",
            "--trials",
            "--time-budget",
            "--protocol",
            "--seed",
        },
        "spectrogram": {"--out"},
        "status": {"--store"},
        "demo": {"--out"},
    }
    assert set(promised) <= set(COMMANDS)
    for command, expected in promised.items():
        assert expected <= options(command), command


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str) -> None:
    ran = run(command, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert all(parameter.help for parameter in parameters(command) if parameter.name in ("store", "tracks", "out"))


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = {words(line)[1] for line in lines("bash") if line.startswith("make ")} | set(
        re.findall(r"`make (\w+)`", README)
    )
    assert {"demo", "test"} <= named <= targets
    assert [words(line) for line in lines("bash")[:2]] == [["make", "demo"], ["make", "test"]]


def test_every_module_is_in_the_map() -> None:
    text = "\n".join(block for _, block in BLOCKS)
    mapped = set(re.findall(r"^((?:recsys|eval|pipelines|benchmarks)/\S+\.py)\s", text, flags=re.MULTILINE))
    modules = {
        str(path.relative_to(ROOT))
        for folder in ("recsys", "eval", "pipelines", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py" and path.parent != ROOT / "recsys" / "v1"
    }
    assert modules - mapped == set(), "modules that the map lacks"
    assert mapped - modules == set(), "modules that are no more"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_example_settings_are_settings() -> None:
    example = ROOT / "pipelines" / "example.toml"
    assert isinstance(load_settings(example), RunSettings)


def test_the_python_example(audio_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its lines run as they stand, but for the ids and the store's name."""
    [block] = [block for name, block in BLOCKS if name == "python"]
    (tmp_path / "mystore").symlink_to(audio_store)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for track in set(re.findall(r'"([\w-]+-[0-9a-f]{12})"', block)):
        block = block.replace(track, "s1")
    exec(block.replace('"anna"', '"v1"').replace('"ben"', '"v2"'), names)
    assert names["recommender"].status()["n_tracks"] == 8


@pytest.mark.slow
def test_own_music_as_the_readme_says(audio_catalogue: AudioCatalogue, tmp_path: Path) -> None:
    """Every line under "With your own music" but `serve`, with this folder's names put in."""
    store = tmp_path / "mystore"
    build(audio_catalogue.inputs, store, load_settings(audio_catalogue.folder / "quick.toml"), Silent())
    own = {
        "~/Music": audio_catalogue.folder / "music",
        "tracks.parquet": tmp_path / "tracks.parquet",
        "mystore": store,
        "listens.csv": audio_catalogue.inputs.listens,
        "anna": "v1",
        "new-song.mp3": tmp_path / "new.wav",
        "new-song.png": tmp_path / "new.png",
    }
    (tmp_path / "new.wav").write_bytes(clip("new.wav", 70))
    for line in USED:
        command = words(line)
        if command[1] in ("scan", "recommend", "similar", "add", "spectrogram", "sql") and "demo-out" not in line:
            put = ["s1" if re.fullmatch(r"[\w-]+-[0-9a-f]{12}", word) else own.get(word, word) for word in command[1:]]
            ran = run(*put)
            assert ran.status == 0, (line, ran.err)
