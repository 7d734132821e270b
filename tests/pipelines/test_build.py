"""The build, from files to a published generation: what is in the tables, and what a second build keeps."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.audio_files import counted_calls
from helpers.catalogues import CLIPS, GENRES, QUICK, AudioCatalogue, TinyCatalogue, clip, quick_settings
from helpers.command import run
from helpers.made_onnx import wave_model
from helpers.made_onnx import written as onnx_written
from helpers.stores import copied, rows, tables
from pipelines.build import Inputs, build
from recsys import fit as fitting
from recsys.audio.decoding.pool import DecodeWorkers
from recsys.config import RunSettings, load_settings
from recsys.errors import DataError
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.store.weights import load_sound_model
from recsys.util.progress import Silent

pytestmark = pytest.mark.usefixtures("decoded_here")


def built(inputs: Inputs, store: Path, settings: RunSettings | None = None, **options: bool) -> Path:
    build(inputs, store, settings or quick_settings(), Silent(), **options)
    return store


def write(file: Path, *lines: str) -> Path:
    file.write_text("\n".join(lines) + "\n")
    return file


def network(store: Path) -> str:
    model = load_sound_model(Store(store).current() / "models")
    assert model is not None
    return model.version


# ---- what is in the tables -----------------------------------------------------------------------------------


def test_every_user_has_a_full_list_without_what_they_know(tiny_store: Path) -> None:
    heard = {
        (user, track) for user, track in rows(tiny_store, "SELECT user_id, track_id FROM users CROSS JOIN tracks")
    } - {(user, track) for user, track in rows(tiny_store, "SELECT user_id, track_id FROM recommendations")}
    recommender = Recommender.open(tiny_store)
    plays = recommender.plays
    expected = {
        (plays.user_ids[user], plays.track_ids[item])
        for pairs in (plays.counts, plays.barred)
        for user, item in zip(*pairs.nonzero(), strict=True)
    }
    assert heard == expected, "exactly the heard and disliked tracks are left out"
    assert {("u28", "t1"), ("u28", "t4"), ("u29", "t0")} <= heard
    assert len(heard) == 28 * 6 + 3


def test_ranks_scores_and_reasons(tiny_store: Path) -> None:
    recommender = Recommender.open(tiny_store)
    plays = recommender.plays
    for user in ("u0", "u17", "u28", "u29"):
        found = rows(tiny_store, f"SELECT rank, track_id, score, reason_track_id FROM recommendations "
                                 f"WHERE user_id = '{user}' ORDER BY rank")  # fmt: skip
        ranks, track_ids, scores, reasons = zip(*found, strict=True)
        assert list(ranks) == list(range(1, len(found) + 1))
        assert list(scores) == sorted(scores, reverse=True) or user == "u29", "of users without plays, by variety"
        np.testing.assert_allclose(recommender.score([user], track_ids)[0], scores, rtol=1e-5, atol=1e-5)
        row = plays.counts[plays.user_ids.index(user)]
        heard = {plays.track_ids[item] for item in row.indices}
        assert set(reasons) <= (heard or {None}), "a reason is a track that the user played"


def test_planted_tastes_are_found(tiny_store: Path) -> None:
    own = [
        (TinyCatalogue.genre_of(track) == TinyCatalogue.taste_of(user))
        for user, track in rows(tiny_store, "SELECT user_id, track_id FROM recommendations WHERE rank <= 5")
        if user not in ("u28", "u29")
    ]
    assert np.mean(own) > 0.9
    cold = dict(rows(tiny_store, "SELECT user_id, rank FROM recommendations WHERE track_id = 't39'"))
    fans = [rank for user, rank in cold.items() if TinyCatalogue.taste_of(user) == TinyCatalogue.genre_of("t39")]
    others = [rank for user, rank in cold.items() if TinyCatalogue.taste_of(user) != TinyCatalogue.genre_of("t39")]
    assert np.mean(fans) < np.mean(others), "the track that nobody has played goes to those who like its genre"


def test_neighbours(tiny_store: Path) -> None:
    found = rows(tiny_store, "SELECT space, track_id, list(rank ORDER BY rank), list(neighbour_id), max(score), "
                             "min(score) FROM track_neighbours GROUP BY ALL")  # fmt: skip
    assert {space for space, *_ in found} == {"content", "taste", "hybrid"}
    assert len([1 for space, *_ in found if space == "hybrid"]) == 40
    sizes = dict(rows(tiny_store, "SELECT space, count(*) FROM track_vectors GROUP BY space"))
    for space, track, ranks, neighbours, most, least in found:
        n_in_space = sizes[space]
        assert track not in neighbours
        assert len(set(neighbours)) == len(ranks) == n_in_space - 1
        assert ranks == list(range(1, n_in_space))
        assert -1.001 <= least <= most <= 1.001
    assert not any(track == "t39" for space, track, *_ in found if space == "taste"), "nobody has played it"


def test_tracks_and_users(tiny_store: Path) -> None:
    found = rows(tiny_store, "SELECT track_id, title, artist, album, genres, year, path, is_cold FROM tracks")
    assert len(found) == 40
    assert ("t4", "Title 4", "Artist 1-0", None, ["metal"], 1984, None, False) in found
    assert [track for track, *_, cold in found if cold] == [
        track for (track,) in rows(tiny_store, "SELECT track_id FROM tracks WHERE plays = 0")
    ]
    assert [cold for track, *_, cold in found if track == "t39"] == [True]
    users = {user: rest for user, *rest in rows(tiny_store, "SELECT user_id, plays, distinct_tracks, "
                                                           "epoch(last_listened_at) FROM users")}  # fmt: skip
    assert len(users) == 30
    assert users["u3"] == [6.0, 6, 1_400_003_005]
    assert users["u28"] == [1.0, 1, None], "a dislike beats a like"
    assert users["u29"] == [0.0, 0, None]


def test_a_user_with_only_dislikes_gets_popular_tracks(tiny_store: Path) -> None:
    recommender = Recommender.open(tiny_store)
    found = recommender.recommend("u29", 30)
    strangers = recommender.recommend("nobody", 40)
    assert (found.source, strangers.source) == ("popular", "popular")
    assert {t.track_id for t in found.tracks} <= {t.track_id for t in strangers.tracks} - {"t0"}


def test_sound_and_durations(audio_store: Path) -> None:
    assert rows(audio_store, "SELECT count(*), min(len(vector)), max(len(vector)) FROM track_vectors "
                             "WHERE space = 'sound'") == [(8, 12, 12)]  # fmt: skip
    durations = [duration for (duration,) in rows(audio_store, "SELECT duration_s FROM tracks")]
    assert durations == [pytest.approx(2.0, abs=0.1)] * 8
    assert rows(audio_store, "SELECT count(DISTINCT content_hash) FROM track_audio") == [(8,)]
    assert rows(audio_store, "SELECT * FROM build_problems") == []


def test_the_build_row(audio_store: Path, audio_catalogue: AudioCatalogue) -> None:
    [(generation, at, settings, versions, counts, durations, inputs)] = rows(audio_store, "SELECT * FROM build")
    assert generation == Store(audio_store).current().name
    assert at.utcoffset().total_seconds() == 0
    assert RunSettings.model_validate(json.loads(settings)) == quick_settings()
    assert {"recsys", "torch", "duckdb"} <= set(json.loads(versions))
    assert json.loads(versions)["sound_model"] == network(audio_store)
    assert json.loads(versions)["sound_network"] == "conv1d, random start"
    assert json.loads(versions)["sound_weights"] == {}
    counts = json.loads(counts)
    assert (counts["tracks"], counts["users"], counts["cold_tracks"], counts["sound_vectors"]) == (8, 5, 1, 8)
    assert {"als", "audio", "hybrid"} <= set(json.loads(durations))
    assert json.loads(inputs)["tracks"]["path"] == str(audio_catalogue.folder / "tracks.csv")


# ---- forms of input ------------------------------------------------------------------------------------------

HEARD = {"007": ["11", "007", "23", "23"], "7": ["4"], "x y": ["11", "4", "4"]}


@pytest.fixture(scope="module")
def odd_tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forms")
    lines = (f"{track},g{n % 2},a{n}" for n, track in enumerate(("007", "7", "11", "23", "4", "1000")))
    return write(folder / "tracks.csv", "tracks_id,genre,artist", *lines)


def listens_of(form: str, folder: Path) -> Path:
    if form == "events":
        events = [f"{user},{track}" for user, heard in HEARD.items() for track in heard]
        return write(folder / "listens.csv", "user_id,track_id", *events)
    if form == "pairs":
        pairs = {(user, track): heard.count(track) for user, heard in HEARD.items() for track in heard}
        lines = [f"{user}\t{track}\t{n}" for (user, track), n in pairs.items()]
        return write(folder / "listens.tsv", "user_id\ttrack_id\tplays", *lines)
    if form == "lists":
        lines = [json.dumps({"user_id": user, "tracks_id": heard}) for user, heard in HEARD.items()]
        return write(folder / "listens.jsonl", *lines)
    return write(
        folder / "listens.csv",
        "user_id,track_ids",
        *(f'"{user}","[{", ".join(heard)}]"' for user, heard in HEARD.items()),
    )


@pytest.mark.slow
@pytest.mark.parametrize("form", ["events", "pairs", "lists", "lists as text"])
def test_three_forms_of_listens_are_one(form: str, odd_tracks: Path, tmp_path: Path) -> None:
    store = built(Inputs(odd_tracks, listens_of(form, tmp_path)), tmp_path / "store")
    assert rows(store, "SELECT user_id, plays, distinct_tracks FROM users ORDER BY ALL") == [
        ("007", 4.0, 3), ("7", 1.0, 1), ("x y", 3.0, 2)
    ]  # fmt: skip
    assert rows(store, "SELECT track_id, plays FROM tracks ORDER BY ALL") == [
        ("007", 1.0), ("1000", 0.0), ("11", 2.0), ("23", 2.0), ("4", 3.0), ("7", 0.0)
    ]  # fmt: skip
    left = "SELECT list(track_id ORDER BY track_id) FROM recommendations WHERE user_id = '{}'"
    assert rows(store, left.format("007")) == [(["1000", "4", "7"],)]
    assert rows(store, left.format("7")) == [(["007", "1000", "11", "23", "7"],)]
    assert Recommender.open(store).recommend("007").source == "personal"
    assert Recommender.open(store).recommend("07").source == "popular"


@pytest.mark.slow
def test_catalogues_of_every_scarcity(tmp_path: Path) -> None:
    """One track, no listens, only listens, only tags, only vectors: each is served with what it has."""
    one = write(tmp_path / "one.csv", "track_id,genre", "a,x")
    bare = write(tmp_path / "bare.csv", "track_id", "a", "b", "c")
    vectors = write(tmp_path / "vectors.csv", "track_id,vector", 'a,"[1, 0]"', "b,", 'c,"[0.9, 0.1]"')
    listens = write(tmp_path / "l.csv", "user_id,track_id", "u,a", "v,b", "v,a")
    tags = write(tmp_path / "tags.csv", "track_id,tag", "a,slow", "c,slow", "b,fast")
    for n, (inputs, n_users, spaces) in enumerate(
        [
            (Inputs(one), 0, ["content", "hybrid"]),
            (Inputs(one, write(tmp_path / "l1.csv", "user_id,track_id", "u,a")), 1, ["content", "taste", "hybrid"]),
            (Inputs(bare, listens), 2, ["taste", "hybrid"]),
            (Inputs(bare, tags=tags), 0, ["content", "hybrid"]),
            (Inputs(vectors), 0, ["sound", "content", "hybrid"]),
            (Inputs(vectors, listens, tags), 2, ["sound", "content", "taste", "hybrid"]),
        ]
    ):
        recommender = Recommender.open(built(inputs, tmp_path / f"store{n}"))
        assert (recommender.status()["n_users"], recommender.spaces) == (n_users, spaces)
        everything = len(recommender.recommend("nobody").tracks)
        assert everything == recommender.status()["n_tracks"]
        if everything > 1:
            assert recommender.similar("a").tracks[0].track_id in ("b", "c")
        recommender.close()


def test_nothing_usable_is_one_line_and_no_store(tmp_path: Path) -> None:
    tracks = write(tmp_path / "tracks.csv", "track_id,title", "a,One", "b,Two")
    dislikes = write(tmp_path / "listens.csv", "user_id,track_id,disliked", "u,a,1")
    for more in ([], ["--listens", dislikes]):
        ran = run("build", "--tracks", tracks, *more, "--store", tmp_path / "store")
        assert ran.status == 2
        assert ran.complaint.startswith("recsys: nothing usable in 2 tracks")
        assert not (tmp_path / "store").exists()


def test_a_table_without_tracks_is_nothing_usable(tmp_path: Path) -> None:
    ran = run("build", "--tracks", write(tmp_path / "tracks.csv", "track_id,genre"), "--store", tmp_path / "store")
    assert ran.status == 2
    assert ran.complaint
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("apart")
def test_only_bad_audio_is_nothing_usable_and_says_why(tmp_path: Path) -> None:
    tracks = write(tmp_path / "tracks.csv", "track_id,path", "a,none.mp3", "b,noise.mp3")
    (tmp_path / "noise.mp3").write_bytes(b"noise" * 500)
    ran = run("build", "--tracks", tracks, "--store", tmp_path / "store")
    assert ran.status == 2
    assert "recsys: nothing usable in 2 tracks" in ran.err.splitlines()[-1]
    assert "1 bad-audio" in ran.err
    assert "1 missing-file" in ran.err
    assert not (tmp_path / "store").exists()


def test_nothing_usable_leaves_an_older_generation(tiny_store: Path, tmp_path: Path) -> None:
    store = copied(tiny_store, tmp_path)
    before = Store(store).current()
    with pytest.raises(DataError, match="nothing usable"):
        built(Inputs(write(tmp_path / "tracks.csv", "track_id", "a")), store)
    assert Store(store).current() == before
    assert Recommender.open(store).recommend("u1").tracks


# ---- again ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_same_inputs_same_seed_same_tables(audio_store: Path, audio_catalogue: AudioCatalogue, tmp_path: Path) -> None:
    again = tables(built(audio_catalogue.inputs, tmp_path / "store"))
    for name, expected in tables(audio_store).items():
        assert again[name] == expected, name


@pytest.mark.slow
def test_a_later_build_keeps_the_network_and_hears_only_new_audio(
    audio_store: Path, audio_catalogue: AudioCatalogue, tmp_path: Path
) -> None:
    store = copied(audio_store, tmp_path)
    folder = Path(shutil.copytree(audio_catalogue.folder, tmp_path / "catalogue"))
    (folder / "music" / "new.flac").write_bytes(clip("new.flac", 77))
    (folder / "music" / "s2.flac").write_bytes(clip("s2.flac", 78))  # another recording in the place of the old
    with (folder / "tracks.csv").open("a") as file:
        file.write("new,music/new.flac,New,Band 1,jazz,2001,\n")
    catalogue = AudioCatalogue(folder)
    with counted_calls(DecodeWorkers, "_decode") as decoded:
        built(catalogue.inputs, store)
    assert sorted(Path(str(path)).name for path in decoded) == ["new.flac", "s2.flac"]
    assert network(store) == network(audio_store)
    sound = "SELECT track_id, vector FROM track_vectors WHERE space = 'sound' AND track_id <> 's2' ORDER BY 1"
    before, after = dict(rows(audio_store, sound)), dict(rows(store, sound))
    assert set(after) - set(before) == {"new"}
    assert {track: after[track] for track in before} == before, "vectors stay comparable"
    assert {folder.name for folder in Store(store).generations.iterdir()} > {Store(audio_store).current().name}


@pytest.mark.slow
def test_what_trains_the_network_anew(
    audio_store: Path, audio_catalogue: AudioCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, trained = copied(audio_store, tmp_path), []
    train = fitting.train_sound_model
    monkeypatch.setattr(fitting, "train_sound_model", lambda *all_: (trained.append(1), train(*all_))[1])
    settings = quick_settings()
    workers = settings.audio.workers.model_copy(update={"n_workers": 2, "time_limit_s": 30.0})
    other_run = settings.audio.model_copy(update={"workers": workers, "batch_clips": 5})
    built(audio_catalogue.inputs, store, settings.model_copy(update={"audio": other_run}))
    assert not trained, "how many processes there are says nothing of the vectors"
    built(audio_catalogue.inputs, store, settings, retrain=True)
    assert len(trained) == 1
    train_longer = settings.audio.train.model_copy(update={"epochs": 4})
    audio = settings.audio.model_copy(update={"train": train_longer})
    changed = settings.model_copy(update={"audio": audio, "seed": 5})
    built(audio_catalogue.inputs, store, changed)
    assert len(trained) == 2
    assert network(store) != network(audio_store)
    assert len(list(Store(store).generations.iterdir())) == 3, "older ones go"


@pytest.mark.slow
def test_audio_root_and_paths(audio_catalogue: AudioCatalogue, tmp_path: Path) -> None:
    table = (audio_catalogue.folder / "tracks.csv").read_text().replace("music/", "")
    tracks = write(tmp_path / "tracks.csv", *table.splitlines())
    ran = run(
        *("build", "--tracks", tracks, "--audio-root", audio_catalogue.folder / "music", "--store", tmp_path / "store"),
        *("--config", write(tmp_path / "quick.toml", QUICK)),
    )
    assert ran.status == 0, ran.err
    assert re.search(r"8 tracks \(8 never played, 8 with a sound vector\), 0 users", ran.err)
    paths = [path for (path,) in rows(tmp_path / "store", "SELECT path FROM tracks ORDER BY track_id")]
    assert paths == [str(audio_catalogue.folder / "music" / name) for name in CLIPS]
    assert rows(tmp_path / "store", "SELECT DISTINCT unnest(genres) FROM tracks ORDER BY 1") == [
        (genre,) for genre in sorted(GENRES)
    ]


# ---- a network of one's own ----------------------------------------------------------------------------------


def with_onnx(folder: Path, **changes: str) -> tuple[Path, Path]:
    """Write a model and settings that name it: both files."""
    path, digest = onnx_written(folder, wave_model())
    own = {"name": "'onnx'", "model": f"'{path}'", "sha256": f"'{digest}'", "outputs": "['squares', 'frames']"}
    own |= {"window_s": "0.25", "hop_s": "0.25", "beside": "'none'"} | changes
    lines = [line for line in QUICK.splitlines() if not line.startswith("network = ")]
    text = ["[audio.network]", *(f"{name} = {value}" for name, value in own.items()), "[audio.head]", "min_clips = 6"]
    return Path(path), write(folder / "onnx.toml", *lines, *text)


@pytest.mark.slow
def test_a_build_and_an_upload_hear_by_a_network_of_ones_own(audio_catalogue: AudioCatalogue, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model, config = with_onnx(tmp_path)
    store = built(audio_catalogue.inputs, tmp_path / "store", load_settings(config))
    ((name, weights),) = rows(store, "SELECT versions->>'sound_network', versions->>'sound_weights' FROM build")
    assert (name[:5], name[17:], json.loads(weights)) == (
        "onnx ",
        ", fitted head",
        {"onnx": hashlib.sha256(wave_model()).hexdigest()},
    )
    assert rows(store, "SELECT count(*) FROM track_vectors WHERE space = 'sound'") == [(8,)]
    model.unlink()  # the generation has its own
    song = tmp_path / "song.wav"
    song.write_bytes((audio_catalogue.folder / "music" / "s0.wav").read_bytes() + b"\0\0")
    assert run("add", song, "--store", store, "--track-id", "new").status == 0
    near = Recommender.open(store).similar("new", 1, "sound")
    assert [track.track_id for track in near.tracks] == ["s0"], "it is the same sound, heard by the same network"
    assert near.tracks[0].score > 0.999
    with counted_calls(DecodeWorkers, "_decode") as decoded:
        built(audio_catalogue.inputs, store, load_settings(config))
    assert [Path(str(path)).parent.name for path in decoded] == ["uploads"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "'/nowhere/clap.onnx'"}, "audio.network.model /nowhere/clap.onnx cannot be read"),
        ({"sha256": f"'{'0' * 64}'"}, "it is another file"),
        ({"outputs": "['tags']"}, "no output 'tags'"),
    ],
)
def test_what_is_wrong_with_it_is_said_before_all_else(
    changes: dict[str, str], said: str, audio_catalogue: AudioCatalogue, tmp_path: Path
) -> None:
    if "tags" in said:
        pytest.importorskip("onnxruntime")
    _, config = with_onnx(tmp_path, **changes)
    tables = ("--tracks", audio_catalogue.inputs.tracks, "--listens", audio_catalogue.inputs.listens)
    done = run("build", *tables, "--store", tmp_path / "store", "--config", config)
    assert done.status == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1, "no stage was begun"
    assert not (tmp_path / "store").exists()
