"""Every kind of bad input: one row of `build_problems` that says what, where and why; the rest is used."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from helpers.audio_files import encoded, melody
from helpers.catalogues import CLIPS, QUICK, AudioCatalogue, clip
from helpers.command import run
from helpers.stores import copied, rows
from recsys.recommender import Recommender
from recsys.store.generation import Store


def built(folder: Path, *more: object) -> None:
    """Build `folder/tracks.*` and what else is there, by the command; check the summary's counts."""
    [tracks] = folder.glob("tracks.*")
    listens, tags = sorted(folder.glob("listens.*")), sorted(folder.glob("tags.*"))
    (folder / "quick.toml").write_text(QUICK)
    ran = run(
        *("build", "--tracks", tracks, "--store", folder / "store", "--config", folder / "quick.toml", *more),
        *(["--listens", *listens] if listens else []),
        *(["--tags", *tags] if tags else []),
    )
    assert (ran.status, ran.out) == (0, ""), ran.err
    counts = rows(folder / "store", "SELECT kind, count(*) FROM build_problems GROUP BY ALL ORDER BY ALL")
    if counts:
        told = ", ".join(f"{n} {kind}" for kind, n in counts)
        assert f"problems in the input (the rest is used): {told}\n" in ran.err
        assert f"--store {folder}/store" in ran.err, "where to see all of them"
    else:
        assert "problem" not in ran.err


def problems(folder: Path) -> list[tuple]:
    """Kind, file, row and value of each problem; every one has a reason."""
    found = rows(folder / "store", "SELECT kind, source, row, value, reason FROM build_problems ORDER BY ALL")
    assert all(reason and "\n" not in reason for *_, reason in found)
    return [(kind, str(Path(source).relative_to(folder)), row, value) for kind, source, row, value, _ in found]


@pytest.mark.slow
def test_bad_audio(tmp_path: Path) -> None:
    """Tracks with bad audio stay, without a sound vector; those with damaged but usable audio keep theirs."""
    whole, mp3 = encoded(melody(2.0, 1), "WAV", "PCM_16"), clip("x.mp3", 2)
    files = {
        "good.wav": clip("good.wav", 0),
        "noise.mp3": os.urandom(5000),
        "text.flac": b"these are words, not music\n" * 50,
        "empty.ogg": b"",
        "cut.wav": whole[: int(len(whole) * 0.75)],
        "stub.mp3": mp3[:100],
        "liar.wav": clip("liar.mp3", 3),
        "short.wav": encoded(melody(0.2, 4), "WAV", "PCM_16"),
        "silent.wav": encoded(np.zeros((88_200, 2), np.float32), "WAV", "PCM_16"),
    }
    (tmp_path / "music").mkdir()
    for name, content in files.items():
        (tmp_path / "music" / name).write_bytes(content)
    (tmp_path / "music" / "folder.mp3").mkdir()
    names = [*files, "folder.mp3", "missing.mp3", ".."]
    lines = [f"{name.split('.')[0] or 'up'},music/{name},g{n % 2}" for n, name in enumerate(names)]
    # a repeated id before the others: rows of problems must not shift
    (tmp_path / "tracks.csv").write_text("\n".join(["track_id,path,genre", "good,music/good.wav,g0", *lines, ""]))
    built(tmp_path)
    assert problems(tmp_path) == [
        ("bad-audio", "music/..", None, "up"),
        ("bad-audio", "music/empty.ogg", None, "empty"),
        ("bad-audio", "music/folder.mp3", None, "folder"),
        ("bad-audio", "music/noise.mp3", None, "noise"),
        ("bad-audio", "music/short.wav", None, "short"),
        ("bad-audio", "music/stub.mp3", None, "stub"),
        ("bad-audio", "music/text.flac", None, "text"),
        ("duplicate-id", "tracks.csv", 2, "good"),
        ("mislabelled-audio", "music/liar.wav", None, "liar"),
        ("missing-file", "music/missing.mp3", None, "missing"),
        ("silent-audio", "music/silent.wav", None, "silent"),
        ("truncated-audio", "music/cut.wav", None, "cut"),
    ]
    store = tmp_path / "store"
    assert rows(store, "SELECT count(*) FROM tracks") == [(12,)]
    sound = "SELECT track_id FROM track_vectors WHERE space = 'sound' ORDER BY ALL"
    assert [track for (track,) in rows(store, sound)] == ["cut", "good", "liar"]
    assert len(Recommender.open(store).recommend("nobody").tracks) == 12
    built(tmp_path)  # from the cache this time
    assert len(problems(tmp_path)) == 12


TRACKS = b"""track_id,title,artist,genre,year,lyrics_path,vector
a,One,Ann,x,1999,,"[1, 0, 0.5]"
b,Two,Bob,x,19999,,"[NaN, 1, 0]"
a,Again,Eve,y,2001,,"[0, 0, 1]"
 ,Nameless,Ann,y,2001,,"[0, 1, 0]"
c,T\xefm\xe9,Bob,y,last year,,"[0, 1]"
d,Four,Bob,y,2024-05-01,words.txt,"[0, one, 1]"
e,Five,Bob,y,,gone.txt,"[0.5, 0.5, 0]"
f,Six,Bob,y,-5,,"[]"
g,Seven,Bob,y
h,Eight,Bob,y,1985,,"[1, 2, 3, 4]"
i,Nine,Ann,z,0,,"[0, 0.2, 0.9]"
"""
LISTENS = b"""user_id,track_id,plays,listened_at,liked,disliked
u1,a,3,1400000000,,
u1,b,0,,,
u1,c,-2,,,
u2,nowhere,1,,,
,a,1,,,
u2,,1,,,
u2,e,many,,,
u3,f,nan,,,
u3,d,2,yesterday,,
u3,i,1,2014-02-30,,
u4,e,1,1400000000000,perhaps,
u4,a,1e400,,,
u\xff,a,1,,,
u5,b,1
u5,h,,,0,1
u5,h,1,,1,0
"""
TAGS = b"track_id,tag,weight\na,slow,1\nnowhere,slow,1\nb,,1\n,slow,1\nb,fast,-1\nc,fast,\nd,fast,2\n"


@pytest.fixture(scope="module")
def bad_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "tracks.csv").write_bytes(TRACKS)
    (folder / "listens.csv").write_bytes(LISTENS)
    (folder / "tags.csv").write_bytes(TAGS)
    (folder / "words.txt").write_bytes(b"caf\xe9 on the corner")
    built(folder)
    return folder


def test_bad_rows_are_one_problem_each(bad_tables: Path) -> None:
    assert [problem for problem in problems(bad_tables) if problem[1] == "tracks.csv"] == [
        ("bad-text", "tracks.csv", 5, "T\\udcefm\\udce9"),
        ("bad-text", "tracks.csv", 6, str(bad_tables / "words.txt")),
        ("bad-vector", "tracks.csv", 2, "[NaN, 1, 0]"),
        ("bad-vector", "tracks.csv", 5, "[0, 1]"),
        ("bad-vector", "tracks.csv", 6, "[0, one, 1]"),
        ("bad-vector", "tracks.csv", 8, "[]"),
        ("bad-vector", "tracks.csv", 10, "[1, 2, 3, 4]"),
        ("bad-year", "tracks.csv", 2, "19999"),
        ("bad-year", "tracks.csv", 5, "last year"),
        ("bad-year", "tracks.csv", 8, "-5"),
        ("bad-year", "tracks.csv", 11, "0"),
        ("duplicate-id", "tracks.csv", 3, "a"),
        ("empty-id", "tracks.csv", 4, None),
        ("missing-file", "tracks.csv", 7, str(bad_tables / "gone.txt")),
        ("ragged-row", "tracks.csv", 9, "g,Seven,Bob,y"),
    ]
    assert [problem for problem in problems(bad_tables) if problem[1] == "listens.csv"] == [
        ("bad-flag", "listens.csv", 11, "perhaps"),
        ("bad-plays", "listens.csv", 2, "0"),
        ("bad-plays", "listens.csv", 3, "-2"),
        ("bad-plays", "listens.csv", 7, "many"),
        ("bad-plays", "listens.csv", 8, "nan"),
        ("bad-plays", "listens.csv", 12, "1e400"),
        ("bad-text", "listens.csv", 13, "u\\udcff"),
        ("bad-time", "listens.csv", 9, "yesterday"),
        ("bad-time", "listens.csv", 10, "2014-02-30"),
        ("empty-id", "listens.csv", 5, None),
        ("empty-id", "listens.csv", 6, "u2"),
        ("ragged-row", "listens.csv", 14, "u5,b,1"),
        ("unknown-track", "listens.csv", 4, "nowhere"),
    ]
    assert [problem for problem in problems(bad_tables) if problem[1] == "tags.csv"] == [
        ("bad-weight", "tags.csv", 5, "-1"),
        ("bad-weight", "tags.csv", 6, None),
        ("empty-id", "tags.csv", 4, None),
        ("empty-tag", "tags.csv", 3, None),
        ("unknown-track", "tags.csv", 2, "nowhere"),
    ]


def test_the_rest_is_used(bad_tables: Path) -> None:
    store = bad_tables / "store"
    assert rows(store, "SELECT track_id, title, artist, genres, year FROM tracks ORDER BY track_id") == [
        ("a", "One", "Ann", ["x"], 1999),  # the first of the two
        ("b", "Two", "Bob", ["x"], None),
        ("c", None, "Bob", ["y"], None),
        ("d", "Four", "Bob", ["y"], 2024),
        ("e", "Five", "Bob", ["y"], None),
        ("f", "Six", "Bob", ["y"], None),
        ("h", "Eight", "Bob", ["y"], 1985),
        ("i", "Nine", "Ann", ["z"], None),
    ]
    sound = "SELECT track_id, vector FROM track_vectors WHERE space = 'sound' ORDER BY ALL"
    assert rows(store, sound) == [
        ("a", [1, 0, 0.5]), ("e", [0.5, 0.5, 0]), ("i", [0, pytest.approx(0.2), pytest.approx(0.9)])
    ]  # fmt: skip
    # u2's rows were all bad; u5's like of h contradicts the dislike, which wins
    assert rows(store, "SELECT user_id, plays, distinct_tracks, epoch(last_listened_at) FROM users ORDER BY ALL") == [
        ("u1", 3, 1, 1_400_000_000), ("u3", 3, 2, None), ("u4", 1, 1, 1_400_000_000), ("u5", 0, 0, None)
    ]  # fmt: skip
    assert {user for (user,) in rows(store, "SELECT DISTINCT user_id FROM recommendations")} == {"u1", "u3", "u4", "u5"}
    assert rows(store, "SELECT count(*) FROM recommendations WHERE user_id = 'u5' AND track_id = 'h'") == [(0,)]


def test_vectors_as_lists_and_arrays(tmp_path: Path) -> None:
    """Parquet: NaN in a list, ragged lists, a null; a catalogue of fixed arrays has no ragged ones."""
    vectors = [[1.0, 0.0], [float("nan"), 1.0], [0.5, 0.5, 0.5], None, [0.0, 1.0], [float("inf"), 0.0], [0.2, 0.3]]
    frame = pl.DataFrame({"track_id": [7, 8, 9, 10, 11, 12, 13], "vector": vectors})
    frame.write_parquet(tmp_path / "tracks.parquet")
    built(tmp_path)
    assert [(kind, row) for kind, _, row, _ in problems(tmp_path)] == [
        ("bad-vector", 2), ("bad-vector", 3), ("bad-vector", 6)
    ]  # fmt: skip
    sound = "SELECT track_id FROM track_vectors WHERE space = 'sound' ORDER BY ALL"
    assert rows(tmp_path / "store", sound) == [("11",), ("13",), ("7",)]


def test_lists_of_tracks_and_broken_json(tmp_path: Path) -> None:
    (tmp_path / "tracks.csv").write_text("track_id,genre\n007,x\n11,y\n23,x\n")
    lines = [
        json.dumps({"user_id": "u1", "track_ids": ["007", "99", "11"]}),
        "{not json",
        json.dumps({"user_id": "u2", "track_ids": []}),
        json.dumps({"user_id": None, "track_ids": ["11"]}),
        json.dumps({"user_id": "u3", "track_ids": ["23", "23"]}),
    ]
    (tmp_path / "listens.jsonl").write_text("\n".join(lines))
    built(tmp_path)
    assert [(kind, row, value) for kind, _, row, value in problems(tmp_path)] == [
        ("bad-json", 2, "{not json"),
        ("bad-list", 3, "[]"),
        ("empty-id", 4, None),
        ("unknown-track", 1, "99"),
    ]
    assert rows(tmp_path / "store", "SELECT user_id, plays FROM users ORDER BY ALL") == [("u1", 2), ("u3", 2)]


def test_a_file_beyond_reading_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tracks.csv").write_text("track_id,genre\na,x\n")
    for name, content, told in (
        ("listens.parquet", b"PAR1 not really", "cannot be read as Parquet"),
        ("listens.csv", b"", "is empty"),
        ("listens.jsonl", b"no json at all\n", "holds no JSON object"),
        ("listens.csv", b"user,track\nu,a\n", "has no column 'user_id'"),
        ("listens.csv.gz", b"\x1f\x8b broken", "cannot be read"),
    ):
        (tmp_path / name).write_bytes(content)
        ran = run(*("build", "--tracks", tmp_path / "tracks.csv", "--listens", tmp_path / name),
                  *("--store", tmp_path / "store"))  # fmt: skip
        assert (ran.status, told in ran.complaint) == (2, True), ran.err
        assert not (tmp_path / "store").exists()


# ---- --strict ------------------------------------------------------------------------------------------------


def test_strict_refuses_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "tracks.csv").write_text("track_id,genre,year\na,x,1999\nb,y,99999\na,x,1\n")
    ran = run("build", "--tracks", tmp_path / "tracks.csv", "--store", tmp_path / "store", "--strict")
    assert ran.status == 2
    assert re.search(r"--strict: 2 problems; the first is .* in .*tracks\.csv row \d", ran.complaint)
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("decoded_here")
def test_strict_refuses_bad_audio_and_keeps_what_was_embedded(
    audio_catalogue: AudioCatalogue, audio_store: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(audio_catalogue.folder, tmp_path / "catalogue"))
    (folder / "music" / CLIPS[4]).write_bytes(b"no sound")
    build = ["build", "--tracks", folder / "tracks.csv", "--config", folder / "quick.toml", "--strict"]
    ran = run(*build, "--store", tmp_path / "fresh")
    assert ran.status == 2
    assert "--strict: 1 problems; the first is bad-audio in" in ran.err.splitlines()[-1]
    assert not (tmp_path / "fresh" / "CURRENT").exists()
    assert (tmp_path / "fresh" / "cache").exists(), "finished vectors are not thrown away"
    store = copied(audio_store, tmp_path)
    before = Store(store).current()
    assert run(*build, "--store", store).status == 2
    assert Store(store).current() == before
    assert sorted(path.name for path in Store(store).generations.iterdir()) == [before.name]


@pytest.mark.usefixtures("decoded_here")
def test_strict_passes_what_is_clean(audio_catalogue: AudioCatalogue, audio_store: Path, tmp_path: Path) -> None:
    store = copied(audio_store, tmp_path)
    ran = run("build", "--tracks", audio_catalogue.folder / "tracks.csv", "--store", store, "--strict",
              "--config", audio_catalogue.folder / "quick.toml")  # fmt: skip
    assert ran.status == 0, ran.err
    assert Store(store).current() != Store(audio_store).current()
