"""All pages say what is: commands parse, links lead somewhere, Python compiles, and nothing is left out."""

import re
from pathlib import Path

import pytest
import typer

from docs.tools import hooks
from helpers.catalogues import AudioCatalogue, clip
from helpers.command import run
from helpers.pages import DOCS, PAGES, README, blocks, commands, named, shell_lines, text_of, words
from helpers.places import ROOT
from pipelines.build import build
from recsys.cli.main import app
from recsys.config import RunSettings, load_settings
from recsys.util.progress import Silent
from recsys.v1 import recommender_pb2 as pb

COMMANDS = typer.main.get_command(app).commands
OWN = DOCS / "tutorial" / "own-library.md"
TRACK = re.compile(r"[\w-]+-[0-9a-f]{12}")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def members(command: str) -> list[typer.core.TyperCommand]:
    """The command, or, of a group, its commands."""
    return list(getattr(COMMANDS[command], "commands", {command: COMMANDS[command]}).values())


def options(command: str) -> set[str]:
    return {option for one in members(command) for parameter in one.params for option in parameter.opts}


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_each_command_is_one_that_parses(page: Path) -> None:
    for line in commands(page):
        _, name, *rest = words(line)
        assert name in COMMANDS, line
        command = COMMANDS[name]
        if hasattr(command, "commands"):
            assert rest[0] in command.commands, line
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context(command.name, rest)  # parsed, and not run; what is wrong with it is an exception


def test_every_command_is_shown() -> None:
    shown = {tuple(words(line)[1:3]) for page in PAGES for line in commands(page)}
    assert {name for name, *_ in shown} | {"demo"} == set(COMMANDS), "`make demo` stands for the demo"
    for group in ("call", "token"):
        assert {member for name, member in shown if name == group} == set(COMMANDS[group].commands)


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
    parameters = [parameter for one in members(command) for parameter in one.params]
    assert all(parameter.help for parameter in parameters if parameter.name in ("store", "tracks", "out"))


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    typed = {words(line)[1] for page in PAGES for line in shell_lines(page) if line.startswith("make ")}
    told = {name for page in PAGES for name in re.findall(r"`make ([\w-]+)(?: ARGS=\S+)?`", text_of(page))}
    assert {"demo", "test", "docs", "lint"} <= typed | told <= targets
    assert "make docs" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = text_of(page)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    assert [target for target in targets if not target.startswith("http") and not (page.parent / target).exists()] == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = set(
        re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    assert navigation == {str(page.relative_to(DOCS)) for page in PAGES if DOCS in page.parents}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_python_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


def test_grpcurl_asks_for_methods_that_there_are() -> None:
    lines = [line for page in PAGES for line in shell_lines(page) if line.startswith("grpcurl")]
    asked = {name for line in lines for name in re.findall(r"recsys\.v1\.Recommender/(\w+)", line)}
    assert {"Recommend", "RecordListens"} <= asked
    assert asked <= {method.name for method in pb.DESCRIPTOR.services_by_name["Recommender"].methods}


def test_the_example_settings_are_settings() -> None:
    assert isinstance(load_settings(ROOT / "pipelines" / "example.toml"), RunSettings)


def test_what_is_included_from_the_top_has_links_that_fit() -> None:
    assert "](../how-to/call.md)" in hooks.included("CONTRIBUTING.md", "../")
    assert "](explanation/architecture.md)" in hooks.included("CONTRIBUTING.md", "")
    assert "](CHANGELOG.md)" not in hooks.included("CONTRIBUTING.md", "")
    part = hooks.included("README.md", "", "try")
    assert "make demo" in part
    assert "recsys scan" not in part
    with pytest.raises(LookupError):
        hooks.included("README.md", "", "nothing")


def test_the_python_example(audio_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its lines run as they stand, but for the ids and the store's name."""
    [block] = blocks(OWN, "python")
    assert block.splitlines()[1:] == blocks(DOCS / "reference" / "python.md", "python")[0].splitlines()[1:]
    (tmp_path / "mystore").symlink_to(audio_store)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for track in set(TRACK.findall(block)):
        block = block.replace(track, "s1")
    exec(block.replace('"anna"', '"v1"').replace('"ben"', '"v2"'), names)
    assert names["recommender"].status()["n_tracks"] == 8


@pytest.mark.slow
def test_own_music_as_the_tutorial_says(audio_catalogue: AudioCatalogue, tmp_path: Path) -> None:
    """Every line of it but ``build``, ``tune`` and ``serve``, with this folder's names put in, and how to ask SQL."""
    store = tmp_path / "mystore"
    build(audio_catalogue.inputs, store, load_settings(audio_catalogue.folder / "quick.toml"), Silent())
    own = {
        "~/Music": audio_catalogue.folder / "music",
        "tracks.parquet": tmp_path / "tracks.parquet",
        "recommendations.parquet": tmp_path / "recommendations.parquet",
        "mystore": store,
        "listens.csv": audio_catalogue.inputs.listens,
        "anna": "v1",
        "new-song.mp3": audio_catalogue.folder / "new.wav",
        "new-song.png": tmp_path / "new.png",
    }
    (audio_catalogue.folder / "new.wav").write_bytes(clip("new.wav", 70))
    ran_lines = 0
    for line in (
        *commands(OWN),
        *commands(DOCS / "how-to" / "sql.md"),
        *commands(DOCS / "how-to" / "sound-network.md"),
    ):
        command = words(line)
        if command[1] in ("scan", "recommend", "similar", "add", "spectrogram", "sql", "status"):
            put = ["s1" if TRACK.fullmatch(word) else own.get(word, word) for word in command[1:]]
            ran = run(*put)
            assert ran.status == 0, (line, ran.err)
            ran_lines += 1
    assert ran_lines >= 12


def test_pages_of_words_that_are_no_more_are_gone() -> None:
    """Names of the code's former private vocabulary are in no page; what is on disk keeps its name."""
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            found = re.findall(r"\b(?:[Pp]eers?|[Ff]ittings|[Gg]lances|refold\w*|the doors?)\b", text_of(page))
            assert found == [], page


def test_readme_and_site_have_the_same_first_screen() -> None:
    assert "<!-- include: README.md try -->" in named("index.md")
    assert text_of(README).count("<!-- try -->") == 1
