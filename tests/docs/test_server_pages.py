"""The pages on serving say what is: limits, statuses, paths, metrics, methods; their commands are in test_pages.py."""

import re
import shlex
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
import typer

from docs.tools import hooks
from helpers.guarded_server import eventually
from helpers.pages import DOCS, PAGES, named, shell_lines, text_of
from helpers.places import ROOT
from helpers.served import told
from helpers.stores import copied
from recsys import client
from recsys.cli.main import app
from recsys.eventlog.events import Listened
from recsys.eventlog.replay import happened_since
from recsys.live.service import LiveUpdater
from recsys.recommender import Recommender
from recsys.serving.call_context import PATHS
from recsys.serving.settings import ServeSettings
from recsys.store.generation import Store
from recsys.uploads.settings import UploadSettings
from recsys.v1 import recommender_pb2 as pb

LIMITS, SERVING = named("reference/limits.md"), named("explanation/serving.md")
SERVER_PAGES = "\n".join(
    text_of(page)
    for folder in ("how-to", "explanation", "reference")
    for page in PAGES
    if page.parent == DOCS / folder and page.name not in ("cli.md", "settings.md", "grpc.md")
)


def first_cells(page: str, heading: str) -> list[str]:
    """The first column of the table under a heading of a page."""
    part = page.partition(f"\n{heading}")[2]
    table = re.search(r"(?:^\|.*\n)+", part, flags=re.MULTILINE)[0]
    return [row.split("|")[1].strip() for row in table.splitlines()[2:]]


def test_all_options_of_serve_are_shown_or_told() -> None:
    serve = typer.main.get_command(app).commands["serve"]
    options = {option for parameter in serve.params for option in parameter.opts} - {"--help"}
    assert [option for option in sorted(options) if option not in SERVER_PAGES] == []


@pytest.mark.slow
def test_the_metrics_are_those_of_a_running_server(tiny_store: Path, tmp_path: Path) -> None:
    with told(copied(tiny_store, tmp_path), "--metrics", "127.0.0.1:0", n_lines=2) as (address, lines):
        figures = re.search(r"http://\S+/metrics", lines)[0]
        with client.Client(address) as calls:
            calls.record([client.Listen("u1", "t1"), client.Listen("u1", "t2")])
            calls.recommend("u2")

        def text() -> str:
            with urlopen(figures) as answer:
                return answer.read().decode()

        assert eventually(lambda: "recsys_live_backlog_entries 2.0" in text())
        kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)", text(), flags=re.MULTILINE))
    page = hooks.filled(named("reference/server-metrics.md"))
    assert sorted(first_cells(page, "This table is written")) == sorted(f"`{name}`" for name in kinds)
    for name, kind in kinds.items():
        assert f"| `{name}` | {kind} |" in page
    alarms = first_cells(named("how-to/monitor.md"), "Every metric is in")
    assert {cell.strip("`") for cell in alarms} <= set(kinds)


def test_tables_name_every_path_and_only_statuses_that_there_are() -> None:
    assert set(first_cells(SERVING, "## Which way")) == {f"`{path}`" for path in PATHS}
    named = {name for cell in first_cells(LIMITS, "## Statuses") for name in cell.split(", ")}
    assert named <= {status.name for status in grpc.StatusCode}
    proto = (
        (ROOT / "proto" / "recsys" / "v1" / "recommender.proto").read_text(encoding="utf-8").partition("\nsyntax")[0]
    )
    assert set(re.findall(r"\b[A-Z]{4,}(?:_[A-Z]+)*\b", proto)) <= named


def test_limits_are_those_of_the_settings() -> None:
    serve, uploads = ServeSettings(), UploadSettings()
    for line in (
        f"| {serve.max_message_mib} MiB | `--max-message`",
        f"| calls running at once, a worker | {serve.max_calls} | `--max-calls`",
        f"| {serve.max_uploads} | `--max-uploads`",
        f"| {serve.upload_s:g} s | `--upload-seconds`",
        f"| {serve.max_upload_mib:g} MiB | `--max-upload-size`",
        f"| {serve.max_upload_length_s:g} s | `--max-upload-length`",
        f"| silence on its stream | {uploads.idle_s:g} s |",
        f"| {uploads.time_limit_s:g} s, {uploads.memory_mb // 1024} GiB |",
    ):
        assert line in LIMITS, line


def test_every_method_is_told_of() -> None:
    methods = {method.name for method in pb.DESCRIPTOR.services_by_name["Recommender"].methods}
    reads = {"RecommendFromTracks": "recommend_from_tracks", "GetStatus": "`status`"}  # by the client's name
    assert [name for name in sorted(methods) if reads.get(name, name) not in SERVER_PAGES] == []
    for name in vars(client.Client):
        assert name.startswith("_") or name == "close" or f"`{name}`" in SERVER_PAGES, name


def test_a_compacted_copy_of_the_live_store_holds_nothing_of_a_deleted_user_but_that(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line that the page gives, run as it stands."""
    store = Store(copied(tiny_store, tmp_path))
    with closing(Recommender.open(store.folder)) as recommender, closing(LiveUpdater(store, recommender)) as live:
        live.record([Listened(f"somebody-{n % 9}", f"t{n % 30}") for n in range(300)])
        live.delete_user("somebody-7")
    assert store.live.read_bytes().count(b"somebody-7") > 9, "old bytes stay where they were"
    lines = {line for page in PAGES for line in shell_lines(page) if line.startswith("python -c")}
    [line], [backup] = ([one for one in lines if name in one] for name in ("compacted", "backup"))
    (tmp_path / "mystore").symlink_to(store.folder)
    monkeypatch.chdir(tmp_path)
    exec(shlex.split(line)[2], {})
    exec(shlex.split(backup)[2], {})
    assert (tmp_path / "live.lmdb.backup").stat().st_size == (store.folder / "compacted").stat().st_size
    copy = (store.folder / "compacted").read_bytes()
    assert b'"user_id": "somebody-7", "track_id"' not in copy, "what they heard"
    assert copy.count(b"somebody-7") <= 3, "the deletion, what finds it, and maybe a signpost inside the index"
    assert copy.count(b'"user_id": "somebody-6"') == 33
    (store.folder / "compacted").replace(store.live)
    assert happened_since(store, 0) == {"uploads": 0, "listens": 267, "deletions": 1}
