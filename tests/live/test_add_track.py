"""A track uploaded a second ago: there for good, in every list at once, once only."""

import json
import os
import resource
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mutagen.id3 import ID3, TCON, TDRC, TIT2, TPE1, USLT

from helpers import made_tags
from helpers.audio_files import encoded
from helpers.catalogues import CLIPS, AudioCatalogue, clip, quick_settings
from helpers.command import run
from helpers.stores import copied, rows
from pipelines import build as building
from pipelines.build import Inputs, build
from recsys.audio.decoding import worker
from recsys.catalogue.tags import read
from recsys.errors import DataError
from recsys.eventlog.store import open_live
from recsys.live import add_track as uploading
from recsys.live.add_track import NewTrack, add_track
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.util.progress import Silent

pytestmark = pytest.mark.usefixtures("decoded_here")


@pytest.fixture
def store(audio_store: Path, tmp_path: Path) -> Path:
    return copied(audio_store, tmp_path)


@pytest.fixture
def song(tmp_path: Path) -> Path:
    file = tmp_path / "New Song.mp3"
    file.write_bytes(clip(file.name, 50))
    return file


def rebuilt(catalogue: AudioCatalogue, store: Path, **options: bool) -> None:
    build(catalogue.inputs, store, quick_settings(), Silent(), **options)


def kept(store: Path) -> list[str]:
    return sorted(path.name for path in (store / "uploads").iterdir()) if (store / "uploads").exists() else []


@pytest.mark.slow
@pytest.mark.usefixtures("apart")
def test_it_is_there_for_whoever_opens_the_store(store: Path, song: Path) -> None:
    before = Recommender.open(store)
    added = add_track(store, song, NewTrack("new", "A Title", "Band 1", None, "jazz; metal", 2020, "la la"))
    assert (added.track_id, added.known, added.has_sound, added.notes) == ("new", False, True, ())
    song.unlink()  # the store has its own copy
    after = Recommender.open(store)
    assert (before.status()["n_tracks"], after.status()["n_tracks"], after.status()["n_uploads"]) == (8, 9, 1)
    about = after.track("new")
    assert {name: about[name] for name in ("title", "artist", "album", "genres", "year", "plays", "is_cold")} == {
        "title": "A Title", "artist": "Band 1", "album": None, "genres": ["jazz", "metal"], "year": 2020,
        "plays": 0.0, "is_cold": True,
    }  # fmt: skip
    assert about["duration_s"] == pytest.approx(2.0, abs=0.1)
    assert Path(about["path"]).read_bytes() == clip(song.name, 50)
    for space in ("hybrid", "sound", "content"):
        near = after.similar("new", 8, space).tracks
        assert sorted(t.track_id for t in near) == [f"s{n}" for n in range(8)]
        assert "new" in [t.track_id for t in after.similar("s3", 8, space).tracks]
    for user in ("v0", "v4", "stranger"):
        found = {t.track_id: t for t in after.recommend(user).tracks}
        assert found["new"].rank == [*found].index("new") + 1
        if user != "stranger":
            assert found["new"].score == pytest.approx(float(after.score([user], ["new"])[0, 0]), abs=1e-4)
            assert found["new"].reason_track_id is not None
        scores = [t.score for t in found.values()]
        assert scores == sorted(scores, reverse=True) or user == "stranger"
    assert {user for user, _ in after.audience("new")} == {f"v{n}" for n in range(5)} or not after.audience("new")
    assert after.recommend_from_tracks(["new", "s1"], 3).tracks
    assert before.recommend("v0").tracks, "one that was open goes on with what it knew"


def test_same_sound_same_vector(store: Path, audio_catalogue: AudioCatalogue, tmp_path: Path) -> None:
    """The same samples in another container: no file of the catalogue has these bytes, but one has this sound."""
    samples, rate = soundfile.read(audio_catalogue.folder / "music" / "s0.wav", dtype="float32")
    (tmp_path / "twin.flac").write_bytes(encoded(samples, "FLAC", "PCM_16", rate))
    add_track(store, tmp_path / "twin.flac", NewTrack("twin"))
    best = Recommender.open(store).similar("twin", 1, "sound").tracks[0]
    assert best.track_id == "s0"
    assert best.score == pytest.approx(1.0, abs=1e-3)


def test_the_same_audio_twice_is_the_same_track(store: Path, song: Path, audio_catalogue: AudioCatalogue) -> None:
    first = add_track(store, song, NewTrack(title="One"))
    assert first.track_id.startswith("upload-")
    renamed = song.with_name("renamed.mp3")
    shutil.copy(song, renamed)
    second = add_track(store, renamed, NewTrack(track_id="another", title="Two"))
    assert (second.track_id, second.known) == (first.track_id, True)
    told = f"this audio was here already, as {first.track_id!r}: what was said of it (track_id 'another', title) was"
    assert second.notes == (f"{told} ignored",)
    assert add_track(store, song, NewTrack()).notes == add_track(store, song, NewTrack(first.track_id)).notes == ()
    in_catalogue = add_track(store, audio_catalogue.folder / "music" / CLIPS[3], NewTrack(track_id="third"))
    assert (in_catalogue.track_id, in_catalogue.known) == ("s3", True)
    recommender = Recommender.open(store)
    assert recommender.status()["n_uploads"] == 1
    assert recommender.track(first.track_id)["title"] == "One"
    assert len(kept(store)) == 1


def test_a_taken_id_is_refused(store: Path, song: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(clip(other.name, 51))
    ran = run("add", song, "--store", store, "--track-id", "s2")
    assert (ran.status, ran.out) == (2, "")
    assert "'s2' belongs to another track" in ran.complaint
    add_track(store, song, NewTrack("mine"))
    with pytest.raises(DataError, match="'mine' belongs to another track"):
        add_track(store, other, NewTrack("mine"))
    assert len(kept(store)) == 1


@pytest.mark.parametrize("content", [b"", b"these are words" * 100, clip("x.wav", 1)[:300]])
def test_what_cannot_be_decoded_leaves_nothing(store: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.mp3").write_bytes(content)
    ran = run("add", tmp_path / "bad.mp3", "--store", store)
    assert (ran.status, ran.out) == (2, "")
    assert str(tmp_path / "bad.mp3") in ran.complaint
    assert "/uploads/" not in ran.complaint, "the user knows nothing of the copy"
    assert kept(store) == []
    assert Recommender.open(store).status()["n_uploads"] == 0


def test_the_command(store: Path, song: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("oh number one my number\n")
    ran = run(*("add", song, "--store", store, "--track-id", "new", "--title", "Ti[/b]tle", "--artist", "Band 1"),
              *("--genre", "jazz", "--genre", "polka;swing", "--year", 2001),
              *("--lyrics-file", tmp_path / "words.txt", "--json"))  # fmt: skip
    assert (ran.status, ran.err) == (0, "")
    told = json.loads(ran.out)
    assert (told["track_id"], told["known"], len(told["similar"])) == ("new", False, 5)
    again = run("add", song, "--store", store)
    assert again.status == 0
    assert "new was here already" in again.out
    again = run("add", song, "--store", store, "--track-id", "newer", "--genre", "polka")
    assert "note: this audio was here already, as 'new': what was said of it (track_id 'newer', genre)" in again.err
    shown = run("similar", "s1", "--store", store).out
    assert "Ti[/b]tle" in shown
    missing = run("add", song, "--store", store, "--lyrics-file", tmp_path / "none.txt")
    assert (missing.status, "none.txt" in missing.complaint) == (2, True)
    with open_live(store / "live.lmdb") as live:
        [upload] = [upload for _, upload in live.uploads()]
    assert (upload.lyrics, upload.genres) == ("oh number one my number", ["jazz", "polka", "swing"])


def test_a_mislabelled_file_is_taken_with_a_note(store: Path, tmp_path: Path) -> None:
    (tmp_path / "liar.wav").write_bytes(clip("x.mp3", 52))
    ran = run("add", tmp_path / "liar.wav", "--store", store)
    assert ran.status == 0
    assert "note: the name says wav, the content is mp3" in ran.err


def test_tags_inside_the_file_are_believed_where_nothing_is_said(store: Path, song: Path) -> None:
    tags = ID3()
    for frame in (TIT2(3, ["Inside"]), TPE1(3, ["Band 2"]), TCON(3, ["metal"]), TDRC(3, ["0099"]),
                  USLT(3, "eng", "", "oh my")):  # fmt: skip
        tags.add(frame)
    tags.save(song)
    added = add_track(store, song, NewTrack(artist="Band 3"))
    about = Recommender.open(store).track(added.track_id)
    assert (about["title"], about["artist"], about["genres"]) == ("Inside", "Band 3", ["metal"])
    assert about["year"] is None, "nothing was recorded in the year 99"


def test_a_file_whose_name_is_not_utf8(store: Path, song: Path) -> None:
    odd = os.fsencode(song.parent) + b"/caf\xe9.mp3"
    Path(os.fsdecode(odd)).write_bytes(song.read_bytes())
    ran = run("add", os.fsdecode(odd), "--store", store)
    assert ran.status == 0, ran.err
    Recommender.open(store).recommend("v0")


@pytest.mark.slow
def test_the_next_build_takes_it_in_once(store: Path, song: Path, audio_catalogue: AudioCatalogue) -> None:
    added = add_track(store, song, NewTrack("new", artist="Band 1", genre="jazz"))
    *_, (_, uploaded) = Recommender.open(store)._catalogue.space("sound", 1000)
    [vector] = uploaded
    for _ in range(2):  # every later build, not only the next
        rebuilt(audio_catalogue, store)
        recommender = Recommender.open(store)
        assert (recommender.status()["n_tracks"], recommender.status()["n_uploads"]) == (9, 0)
        assert rows(store, "SELECT artist, genres, plays, is_cold FROM tracks WHERE track_id = 'new'") == [
            ("Band 1", ["jazz"], 0.0, True)
        ]
        assert rows(store, "SELECT count(*) FROM build_problems") == [(0,)]
        assert [t.track_id for t in recommender.recommend("v0").tracks].count("new") == 1
        assert [t.track_id for t in recommender.similar("s3", 9).tracks].count("new") == 1
        stored = rows(store, "SELECT vector FROM track_vectors WHERE space = 'sound' AND track_id = 'new'")[0][0]
        np.testing.assert_allclose(stored, vector, atol=1e-5)
        again = add_track(store, song, NewTrack("other"))
        assert (again.track_id, again.known) == (added.track_id, True)


@pytest.mark.slow
def test_it_comes_while_a_build_runs(
    store: Path, song: Path, audio_catalogue: AudioCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fit did not know it; the generation that the build makes answers with it all the same."""
    publish = building.publish

    def meanwhile(*all_: object) -> object:
        add_track(store, song, NewTrack("new", genre="jazz"))
        return publish(*all_)

    monkeypatch.setattr(building, "publish", meanwhile)
    before = Store(store).current()
    rebuilt(audio_catalogue, store, retrain=True)
    recommender = Recommender.open(store)
    assert recommender.generation != before.name
    assert recommender.status()["n_uploads"] == 1
    assert "new" in [t.track_id for t in recommender.recommend("v1").tracks]
    assert "new" in [t.track_id for t in recommender.similar("s0", 8, "sound").tracks]
    monkeypatch.setattr(building, "publish", publish)
    rebuilt(audio_catalogue, store)
    assert rows(store, "SELECT count(*) FROM tracks WHERE track_id = 'new'") == [(1,)]


@pytest.mark.slow
def test_a_build_ends_while_it_is_heard(
    store: Path, song: Path, audio_catalogue: AudioCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its vector must come from the network of the generation that it will be seen under."""
    embedded = uploading._embedded

    def meanwhile(*all_: object) -> object:
        heard = embedded(*all_)
        monkeypatch.setattr(uploading, "_embedded", embedded)
        changed = quick_settings().model_copy(update={"seed": 9})
        build(audio_catalogue.inputs, store, changed, Silent(), retrain=True)
        return heard

    monkeypatch.setattr(uploading, "_embedded", meanwhile)
    add_track(store, song, NewTrack("new"))
    generation = Store(store).current()
    with open_live(store / "live.lmdb") as live:
        found = live.vectors(generation.name, 1)["sound"]
    np.testing.assert_allclose(found, embedded(song, NewTrack(), generation).vectors["sound"], atol=1e-5)


@pytest.mark.slow
def test_a_table_that_has_the_id_wins(store: Path, song: Path, audio_catalogue: AudioCatalogue, tmp_path: Path) -> None:
    add_track(store, song, NewTrack("late", title="Uploaded"))
    folder = Path(shutil.copytree(audio_catalogue.folder, tmp_path / "catalogue"))
    with (folder / "tracks.csv").open("a") as file:
        file.write("late,music/s0.wav,From the table,Band 9,jazz,2001,\n")
    ran = run(*("build", "--tracks", folder / "tracks.csv", "--store", store, "--config", folder / "quick.toml"))
    assert "1 uploads have ids that the tracks table has too: its rows are used" in " ".join(ran.err.split())
    assert rows(store, "SELECT title FROM tracks WHERE track_id = 'late'") == [("From the table",)]
    assert Recommender.open(store).status()["n_uploads"] == 0


@pytest.mark.slow
def test_a_catalogue_of_given_vectors(song: Path, tmp_path: Path) -> None:
    """It has no audio network: the track has no sound, but its genre places it."""
    tracks = tmp_path / "tracks.csv"
    lines = [f't{n},{"jazz" if n % 3 else "metal"},"[{n}, {n % 2}, 1]"' for n in range(12)]
    tracks.write_text("\n".join(["track_id,genre,vector", *lines]))
    (tmp_path / "listens.csv").write_text("user_id,track_id\nu,t1\nu,t2\nw,t0\nw,t3\n")
    store = tmp_path / "store"
    inputs = Inputs(tracks, tmp_path / "listens.csv")
    build(inputs, store, quick_settings(), Silent())
    added = add_track(store, song, NewTrack("new", genre="jazz"))
    assert (added.has_sound, len(added.notes)) == (False, 1)
    ran = run("similar", "new", "--store", store, "--space", "sound")
    assert ran.status == 3
    assert "'new' has no vector in the space 'sound'" in ran.complaint
    recommender = Recommender.open(store)
    near = recommender.similar("new", 3).tracks
    assert [t.about["genres"] for t in near] == [["jazz"]] * 3
    assert "new" in [t.track_id for t in recommender.recommend("u").tracks]
    assert add_track(store, song, NewTrack("again")).known
    (tmp_path / "text.mp3").write_text("no music")
    with pytest.raises(DataError, match=r"text\.mp3 cannot be used"):
        add_track(store, tmp_path / "text.mp3", NewTrack("bad"))
    build(inputs, store, quick_settings(), Silent())
    assert rows(store, "SELECT count(*) FROM tracks WHERE track_id = 'new'") == [(1,)]
    assert rows(store, "SELECT kind FROM build_problems") == []
    assert add_track(store, song, NewTrack("again")).track_id == "new"


@pytest.mark.parametrize("limit_kb", [0, 4, 12, 40])
def test_a_full_disk_is_one_line_and_nothing_left(store: Path, song: Path, limit_kb: int) -> None:
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_kb * 1024, former[1]))
    try:
        ran = run("add", song, "--store", store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert ran.status == 4
    assert ran.complaint
    assert kept(store) == []
    assert Recommender.open(store).status()["n_uploads"] == 0
    assert run("add", song, "--store", store).status == 0


@pytest.mark.slow
@pytest.mark.usefixtures("apart")
def test_tags_that_are_made_to_harm_are_cut_and_told(store: Path, song: Path) -> None:
    """They are read in a limited process, the same as those of a server's uploads."""
    large = zlib.compress(b"\x03" + b"A" * 50_000_000, 9)
    song.write_bytes(
        made_tags.id3(made_tags.frame("TIT2", bytes(4) + large, 3, 0x80), made_tags.text_frame("TYER", "c. 1998"))
        + song.read_bytes()
    )
    ran = run("add", song, "--store", store, "--track-id", "odd")
    assert ran.status == 0
    assert "note: title: more than 1,000 characters, cut there" in ran.err
    about = Recommender.open(store).track("odd")
    assert (about["title"], about["year"]) == ("A" * 1000, 1998)


@pytest.mark.slow
@pytest.mark.usefixtures("apart")
def test_tags_are_not_parsed_by_whoever_adds(store: Path, song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(file: object) -> None:
        pytest.fail("tags were parsed in this process")

    monkeypatch.setattr(read, "read_tags", parse)
    monkeypatch.setattr(worker, "read_tags", parse)
    song.write_bytes(made_tags.id3(made_tags.text_frame("TIT2", "Inside")) + song.read_bytes())
    add_track(store, song, NewTrack("new"))
    assert Recommender.open(store).track("new")["title"] == "Inside"
