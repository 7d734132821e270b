"""The command line, command by command: what is printed, where, and the exit status. Never a traceback."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import grpc
import polars as pl
import pytest

from helpers.catalogues import AudioCatalogue, TinyCatalogue
from helpers.command import run
from helpers.places import ROOT
from helpers.serve_process import PLAIN
from helpers.stores import copied, rows
from recsys.errors import DataError
from recsys.recommender import Recommender
from recsys.serving.context import OPEN
from recsys.store.duckdb_tables import FILE
from recsys.store.generation import Store
from recsys.util.progress import Bars
from recsys.v1 import recommender_pb2 as pb
from recsys.v1.recommender_pb2_grpc import RecommenderStub


def shell(*arguments: object) -> subprocess.CompletedProcess:
    """Run `recsys …` as a shell would."""
    command = [sys.executable, "-W", "error", "-m", "recsys", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


# ---- the whole path ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scanned(audio_catalogue: AudioCatalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scanned table of the clips, listens by the scanned ids, and a store built from them."""
    folder = tmp_path_factory.mktemp("scanned")
    scan = run("scan", audio_catalogue.folder / "music", "--out", folder / "tracks.parquet")
    assert (scan.status, scan.out) == (0, "")
    assert f"8 tracks -> {folder}/tracks.parquet" in scan.err.replace("\n", " ")
    ids = pl.read_parquet(folder / "tracks.parquet")["track_id"].to_list()
    assert [name.rpartition("-")[0] for name in ids] == [f"s{n}" for n in range(8)]
    listens = ["user_id,tracks_id", *(f'w{user},"[{ids[user]}, {ids[user + 2]}, {ids[user]}]"' for user in range(5))]
    (folder / "listens.csv").write_text("\n".join(listens))
    (folder / "tags.csv").write_text("track_id,tag\n" + "".join(f"{name},tag {n % 3}\n" for n, name in enumerate(ids)))
    built = run(
        *("build", "--tracks", folder / "tracks.parquet", "--listens", folder / "listens.csv"),
        *("--tags", folder / "tags.csv", "--store", folder / "store"),
        *("--config", audio_catalogue.folder / "quick.toml"),
    )
    assert (built.status, built.out) == (0, "")
    summary = " ".join(built.err.split())
    assert "8 tracks (1 never played, 8 with a sound vector), 5 users, 10 pairs" in summary
    assert "problems" not in summary
    names = [line.split()[0] for line in built.err.splitlines()]
    stages = ["read", "lyrics", "als", "audio", "metadata", "blend", "hybrid", "lists", "publish"]
    assert names == [*stages, "generation", "next:"], "a line a stage, with what came out, and no other"
    assert "8 clips -> vectors" in summary
    return folder


def test_details_are_shown_where_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By every command that makes something; what is made is not looked at here."""

    def report(*arguments: object, **named: object) -> None:
        for progress in (*arguments, *named.values()):
            if isinstance(progress, Bars):
                progress.detail("a part of a stage")
        raise DataError("far enough")

    for place in ("build.build", "evaluate.evaluate_files", "tune.tune_files", "demo.demo"):
        monkeypatch.setattr(f"pipelines.{place}", report)
    tables, out = ("--tracks", "t.csv", "--listens", "l.csv"), ("--out", tmp_path / "out")
    commands = [["build", *tables, "--store", tmp_path], ["evaluate", *tables, *out], ["tune", *tables, *out], ["demo"]]
    for command in commands:
        assert run(*command).err == "recsys: far enough\n"
        assert run(*command, "--verbose").err == "a part of a stage\nrecsys: far enough\n"


@pytest.mark.slow
def test_a_server_and_sql_at_the_same_time(scanned: Path) -> None:
    """The tables are readable by any DuckDB client while a server runs, and the server answers as they say."""
    store = scanned / "store"
    command = [sys.executable, "-c", PLAIN, "serve", "--store", str(store), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline()
            assert line.startswith(f"serving generation {Store(store).current().name} on 127.0.0.1:"), line
            with grpc.insecure_channel(line.split(" on ")[1].split()[0]) as channel:
                stub = RecommenderStub(channel)
                answer = stub.Recommend(pb.RecommendRequest(user_id="w1", k=3), timeout=10)
                stored = rows(store, "SELECT track_id, score, reason_track_id FROM recommendations "
                                     "WHERE user_id = 'w1' ORDER BY rank LIMIT 3")  # fmt: skip
                assert [(t.track_id, t.score, t.reason_track_id) for t in answer.tracks] == stored
                assert (answer.source, answer.generation) == ("personal", Store(store).current().name)
                assert stub.Recommend(pb.RecommendRequest(user_id="nobody"), timeout=10).source == "popular"
                near = stub.SimilarTracks(pb.SimilarTracksRequest(track_id=stored[0][0], k=2), timeout=10)
                assert [t.track_id for t in near.tracks] == [
                    t.track_id for t in Recommender.open(store).similar(stored[0][0], 2).tracks
                ]
            sql = shell("sql", "SELECT count(*) AS n FROM recommendations", "--store", store)
            assert (sql.returncode, sql.stderr) == (0, "")
            assert str(rows(store, "SELECT count(*) FROM recommendations")[0][0]) in sql.stdout
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=10) == 0
            assert server.stderr.read() == f"{OPEN}\n"


def test_status(scanned: Path) -> None:
    told = dict(line.split(None, 1) for line in run("status", "--store", scanned / "store").out.splitlines())
    counts = ("8", "5", "15", "0")
    assert (told["n_tracks"], told["n_users"], told["n_listens"], told["n_uploads"]) == counts
    assert told["spaces"] == "sound, content, taste, hybrid"


# ---- lists ---------------------------------------------------------------------------------------------------


def test_json_is_one_object_a_line(tiny_store: Path) -> None:
    ran = run("recommend", "u4", "--store", tiny_store, "-k", "3", "--json")
    assert (ran.status, ran.err) == (0, "")
    found = [json.loads(line) for line in ran.out.splitlines()]
    expected = Recommender.open(tiny_store).recommend("u4", 3)
    for line, track in zip(found, expected.tracks, strict=True):
        assert {name: line[name] for name in ("track_id", "score", "rank", "reason_track_id")} == {
            "track_id": track.track_id, "score": track.score, "rank": track.rank,
            "reason_track_id": track.reason_track_id,
        }  # fmt: skip
        assert line["title"] == f"Title {track.track_id[1:]}"
        assert line["genres"] == [TinyCatalogue.genre_of(track.track_id)]
        assert line["year"] == 1980 + int(track.track_id[1:])
        assert "album" not in line, "only what is known"


@pytest.mark.parametrize("space", ["content", "taste", "hybrid"])
def test_similar_in_each_space(tiny_store: Path, space: str) -> None:
    ran = run("similar", "t4", "--store", tiny_store, "--space", space, "--json", "-k", "5")
    assert (ran.status, ran.err) == (0, "")
    found = [json.loads(line) for line in ran.out.splitlines()]
    assert [line["rank"] for line in found] == [1, 2, 3, 4, 5]
    assert "t4" not in [line["track_id"] for line in found]


def test_tables_for_people(tiny_store: Path) -> None:
    ran = run("recommend", "u4", "--store", tiny_store, "-k", "2")
    top = Recommender.open(tiny_store).recommend("u4", 2).tracks
    assert ran.status == 0
    assert all(text in ran.out for track in top for text in (track.track_id, track.about["title"]))
    assert "like t4, by hybrid" in run("similar", "t4", "--store", tiny_store).out


def test_an_unknown_user_gets_popular_tracks_and_is_told_so(tiny_store: Path) -> None:
    ran = run("recommend", "stranger", "--store", tiny_store, "--json")
    assert ran.status == 0
    assert len(ran.out.splitlines()) == 20
    assert "popular tracks" in ran.err
    plays = dict(rows(tiny_store, "SELECT track_id, plays FROM tracks"))
    assert plays[json.loads(ran.out.splitlines()[0])["track_id"]] == max(plays.values())


def test_at_most_so_many_of_an_artist(tiny_store: Path) -> None:
    ran = run("recommend", "u4", "--store", tiny_store, "--max-per-artist", "1", "--json")
    artists = [json.loads(line)["artist"] for line in ran.out.splitlines()]
    assert len(artists) == len(set(artists)) == 6


@pytest.mark.parametrize(
    "odd", ["[/b]", "[red]x", ":fire:", "🎵", "a b", "007", "-", "%s", "\N{RIGHT-TO-LEFT MARK}", ""]
)
def test_odd_ids_are_printed_as_they_are(tiny_store: Path, odd: str) -> None:
    ran = run("recommend", "--store", tiny_store, "--", odd)
    assert ran.status == 0
    assert f"for {odd}" in ran.out
    assert repr(odd) in ran.err
    assert repr(odd) in run("similar", "--store", tiny_store, "--", odd).complaint


@pytest.mark.slow
def test_odd_texts_of_tracks_are_printed_as_they_are(tmp_path: Path) -> None:
    odd = ["[/x]", ":fire:", "[bold]loud[/bold]", "a\x1b[31mb"]
    folder = tmp_path / "[/b] :fire:"
    folder.mkdir(parents=True)
    table = "".join(f'"{text}","{text}",1\n' for text in odd)
    (folder / "tracks.csv").write_text(f"track_id,title,genre\n{table}bad,,2\nbad,[/y],2\n")
    built = run("build", "--tracks", folder / "tracks.csv", "--store", folder / "store")
    assert built.status == 0, built.err
    assert "[/b] :fire:" in built.err
    shown = run("similar", "[/x]", "--store", folder / "store").out
    assert all(text in shown for text in (":fire:", "[bold]loud[/bold]"))
    assert "\x1b" not in shown, "a title must not drive the terminal"
    asked = run("sql", "SELECT track_id FROM tracks", "--store", folder / "store").out
    assert all(text in asked for text in ("[/x]", ":fire:", "[bold]loud[/bold]"))


# ---- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "status", "told"),
    [
        (["recommend", "u1", "-k", "0"], 2, "k is 0, expected 1 to 200"),
        (["recommend", "u1", "-k", "201"], 2, "k is 201, expected 1 to 200"),
        (["similar", "t1", "-k", "-1"], 2, "k is -1, expected 1 to 200"),
        (["similar", "t999"], 3, "'t999'"),
        (["similar", "t1", "--space", "sound"], 3, "no space 'sound'; it has content, taste, hybrid"),
        (["similar", "t39", "--space", "taste"], 3, "track 't39' has no vector in the space 'taste'"),
        (["sql", "SELECT * FROM nothing"], 2, "nothing"),
        (["sql", "DELETE FROM tracks"], 2, "read-only"),
        (["serve", "--listen", "nonsense"], 2, "expected HOST:PORT"),
        (["add", "missing.mp3"], 2, "there is no audio file missing.mp3"),
    ],
)
def test_refusals_are_one_line_and_a_status(tiny_store: Path, command: list[str], status: int, told: str) -> None:
    ran = run(*command, "--store", tiny_store)
    assert (ran.status, ran.out) == (status, "")
    assert told in ran.complaint


@pytest.mark.parametrize(
    "command",
    [
        ["recommend", "u1"], ["similar", "t1"], ["sql", "SELECT 1"], ["status"], ["serve", "--listen", "127.0.0.1:0"],
        ["add", __file__],
    ],
)  # fmt: skip
def test_no_store_is_status_4(tmp_path: Path, command: list[str]) -> None:
    ran = run(*command, "--store", tmp_path / "none")
    assert ran.status == 4
    assert "holds no published generation" in ran.complaint
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["recommend"], ["recommend", "u1"], ["nonsense"], ["similar", "t1", "--store", "s", "--space", "smell"],
        ["recommend", "u1", "--store", "s", "-k", "many"], ["recommend", "u1", "--store", "s", "--max-per-artist", "0"],
        ["build", "--store", "s"], ["serve", "--store", "s", "--workers", "0"],
        ["add", "a.mp3", "--store", "s", "--year", "99"],
    ],
)  # fmt: skip
def test_wrong_usage_is_status_2(command: list[str]) -> None:
    ran = run(*command)
    assert (ran.status, ran.out) == (2, "")
    assert "Usage: " in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[hybrid.als]\nfactors = 3\n", "setting hybrid.als.factors"),
        ("[hybird]\n", "setting hybird"),
        ("[neighbours]\ndepth = 'deep'\n", "setting neighbours.depth"),
        ("[store]\nkeep_generations = 0\n", "setting store.keep_generations"),
        ("[store\n", "is not valid TOML"),
        (None, "there is no settings file"),
    ],
)
def test_bad_settings(tiny_catalogue: TinyCatalogue, tmp_path: Path, text: str | None, told: str) -> None:
    config = tmp_path / "config.toml"
    if text is not None:
        config.write_text(text)
    ran = run("build", "--tracks", tiny_catalogue.tracks, "--store", tmp_path / "store", "--config", config)
    assert ran.status == 2
    assert told in ran.complaint
    assert not (tmp_path / "store").exists()


def test_a_settings_file_that_is_a_folder(tiny_catalogue: TinyCatalogue, tmp_path: Path) -> None:
    ran = run("build", "--tracks", tiny_catalogue.tracks, "--store", tmp_path / "store", "--config", tmp_path)
    assert ran.status == 2
    assert str(tmp_path) in ran.complaint


def test_a_folder_without_music(tmp_path: Path) -> None:
    assert "holds no audio files" in run("scan", tmp_path, "--out", tmp_path / "t.parquet").complaint
    assert run("scan", tmp_path / "none", "--out", tmp_path / "t.parquet").status == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("table", ["tracks.csv", "folder", "tracks.xlsx"])
def test_a_table_that_cannot_be_read(tmp_path: Path, table: str) -> None:
    (tmp_path / "folder").mkdir()
    ran = run("build", "--tracks", tmp_path / table, "--store", tmp_path / "store")
    assert ran.status == 2
    assert table in ran.complaint
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_text_that_is_not_utf8_on_the_command_line(tiny_store: Path) -> None:
    assert run("similar", "t\udcff", "--store", tiny_store).status == 3
    ran = run("sql", "SELECT '\udcff'", "--store", tiny_store)
    assert (ran.status, "is not UTF-8" in ran.complaint) == (2, True)
    command = [sys.executable, "-m", "recsys", "recommend", b"u\xff", "--store", str(tiny_store)]
    shell_ran = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert b"Traceback" not in shell_ran.stderr, shell_ran.stderr
    assert shell_ran.returncode in (0, 2), "printed as the bytes it was, or refused where the terminal cannot"


@pytest.mark.slow
def test_a_closed_pipe_is_no_traceback(tiny_store: Path) -> None:
    command = f"'{sys.executable}' -m recsys sql 'SELECT * FROM track_neighbours' --store '{tiny_store}' | head -1"
    ran = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in ran.stderr, ran.stderr


@pytest.mark.slow
def test_output_is_clean_in_a_process_of_its_own(tiny_store: Path) -> None:
    ran = shell("recommend", "u4", "--store", tiny_store, "--json", "-k", "1")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout)["rank"] == 1
    ran = shell("similar", "t999", "--store", tiny_store)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (3, "", 1)


@pytest.mark.slow
def test_serving_and_asking_load_no_torch(tiny_store: Path) -> None:
    script = (
        "import sys; from recsys.recommender import Recommender; import recsys.serving.workers; "
        f"r = Recommender.open({str(tiny_store)!r}); r.recommend('u1'); r.similar('t1', 60); "
        "r.similar('t1', 3, 'taste'); r.recommend_from_tracks(['t1']); "
        "print([m for m in ('torch', 'faiss', 'implicit', 'lightfm') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")


# ---- damage --------------------------------------------------------------------------------------------------


def damaged_files(store: Path) -> Iterator[Path]:
    generation = Store(store).current()
    yield from sorted((generation / "arrays").iterdir())
    yield generation / "meta.json"
    yield generation / FILE


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["gone", "empty", "cut"])
def test_a_damaged_generation_is_status_4(tiny_store: Path, tmp_path: Path, damage: str) -> None:
    store = copied(tiny_store, tmp_path)
    files, others = list(damaged_files(store)), [["recommend", "u1"], ["similar", "t1"], ["status"]]
    assert len(files) > 20
    for n, file in enumerate(files, ["gone", "empty", "cut"].index(damage)):  # in turn: each meets each file once
        whole = file.read_bytes()
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(whole[: 0 if damage == "empty" else len(whole) // 2])
        for command in (others[n % 3], ["recommend", "nobody"]):
            ran = run(*command, "--store", store)
            if ran.status:
                assert (ran.status, file.name in ran.err or "arrays" in ran.err) == (4, True), (file.name, ran.err)
                assert ran.complaint
        assert ran.status == 4 or damage != "empty", f"{file.name}: a whole file is missing and nobody noticed"
        file.write_bytes(whole)
    assert run("recommend", "u1", "--store", store).status == 0


def test_current_points_nowhere(tiny_store: Path, tmp_path: Path) -> None:
    store = copied(tiny_store, tmp_path)
    shutil.rmtree(Store(store).current())
    ran = run("recommend", "u1", "--store", store)
    assert ran.status == 4
    assert "build again" in ran.complaint


def test_a_reader_does_not_hinder_others(tiny_store: Path) -> None:
    """A second process reads what this one has open."""
    recommender = Recommender.open(tiny_store)
    file = str(Store(tiny_store).current() / FILE)
    asked = "execute('SELECT count(*) FROM tracks').fetchone()"
    script = f"import duckdb; print(duckdb.connect({file!r}, read_only=True).{asked})"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.stdout.strip() == "(40,)", ran.stderr
    with duckdb.connect(Store(tiny_store).current() / FILE, read_only=True) as here:
        assert here.execute("SELECT count(*) FROM tracks").fetchone() == (40,)
    recommender.close()
