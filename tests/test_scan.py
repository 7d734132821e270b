import os
from pathlib import Path

import av
import mutagen
import numpy as np
import polars as pl
import pytest
import soundfile
from mutagen import asf, flac, id3, mp3, mp4, oggopus, oggvorbis, wave

from recsys.catalogue.problems import Problems
from recsys.catalogue.scan import SCAN_SCHEMA, file_tags, scan, track_id_of, write_table
from recsys.catalogue.tracks import read_tracks
from recsys.errors import DataError
from recsys.progress import Silent

DATA = Path(__file__).parents[2] / "shared" / "data"
WANT = ("Títle", "Artist; Second", "Album", "Rock;Pop", "1999", "la la\nlá")
DATE = "1999-05-01"
SOUND = np.zeros(16_000, np.float32)


def write_audio(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    codecs = {".m4a": "aac", ".wma": "wmav2"}
    if path.suffix in codecs:
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codecs[path.suffix], rate=44_100, layout="mono")
            stream.bit_rate = 64_000
            frame = av.AudioFrame.from_ndarray(SOUND[None, :1024], format="fltp", layout="mono")
            frame.sample_rate = 44_100
            out.mux([*stream.encode(frame), *stream.encode(None)])
    elif path.suffix == ".opus":
        soundfile.write(path, SOUND, 16_000, format="OGG", subtype="OPUS")
    else:
        soundfile.write(path, SOUND, 16_000)
    return path


def tag_id3(audio: mp3.MP3 | wave.WAVE) -> None:
    audio.add_tags()
    title, artist, album, _, _, lyrics = WANT
    audio.tags.add(id3.TIT2(encoding=3, text=title))
    audio.tags.add(id3.TPE1(encoding=3, text=artist.split("; ")))
    audio.tags.add(id3.TALB(encoding=3, text=album))
    audio.tags.add(id3.TCON(encoding=3, text=["(17)", "Pop"]))  # 17 is Rock in the numbered list of genres
    audio.tags.add(id3.TDRC(encoding=3, text=DATE))
    audio.tags.add(id3.USLT(encoding=3, lang="eng", desc="x", text=lyrics))
    audio.tags.add(id3.APIC(encoding=3, mime="image/png", type=3, desc="", data=b"\0" * 9))
    audio.save()


def tag_with(audio: mutagen.FileType, names: tuple[str, ...]) -> None:
    if audio.tags is None:
        audio.add_tags()
    title, artist, album, genre, _, lyrics = WANT
    values = ([title], artist.split("; "), [album], genre.split(";"), [DATE], [lyrics])
    for name, texts in zip(names, values, strict=True):
        audio.tags[name] = texts
    audio.save()


def test_tags_of_every_format(tmp_path: Path) -> None:
    vorbis = ("TITLE", "artist", "ALBUM", "GENRE", "DATE", "LYRICS")
    tag_id3(mp3.MP3(write_audio(tmp_path / "a.mp3")))
    tag_id3(wave.WAVE(write_audio(tmp_path / "b.wav")))
    audio = wave.WAVE(tmp_path / "b.wav")
    audio.tags.delall("USLT")
    audio.tags.add(id3.TXXX(encoding=3, desc="LYRICS", text=WANT[5]))
    audio.save()
    tag_with(flac.FLAC(write_audio(tmp_path / "c.flac")), vorbis)
    tag_with(oggvorbis.OggVorbis(write_audio(tmp_path / "d.ogg")), (*vorbis[:5], "UNSYNCEDLYRICS"))
    tag_with(oggopus.OggOpus(write_audio(tmp_path / "e.opus")), vorbis)
    apple = ("\xa9nam", "\xa9ART", "\xa9alb", "\xa9gen", "\xa9day", "\xa9lyr")
    tag_with(mp4.MP4(write_audio(tmp_path / "f.m4a")), apple)
    windows = ("Title", "Author", "WM/AlbumTitle", "WM/Genre", "WM/Year", "WM/Lyrics")
    tag_with(asf.ASF(write_audio(tmp_path / "g.wma")), windows)
    problems = Problems()
    frame = scan(tmp_path, problems, Silent())
    assert frame.schema == SCAN_SCHEMA
    assert [Path(path).name[0] for path in frame["path"]] == list("abcdefg")
    assert frame.drop("track_id", "path").rows() == [WANT] * 7
    assert len(problems) == 0


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.tsv", "t.jsonl"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    music = tmp_path / "music"
    tag_id3(mp3.MP3(write_audio(music / "x" / "a.mp3")))
    write_audio(music / "plain, old.wav")
    frame = scan(music, Problems(), Silent())
    write_table(frame, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["music", name]
    problems = Problems()
    tracks = read_tracks(tmp_path / name, problems).frame
    assert tracks["path"].to_list() == [str(music / "plain, old.wav"), str(music / "x" / "a.mp3")]
    assert tracks.drop("track_id", "path", "vector").rows() == [
        ("plain, old", None, None, [], None, None),
        (WANT[0], WANT[1], WANT[2], ["Rock", "Pop"], 1999, WANT[5]),
    ]
    assert len(problems) == 0


def test_table_and_music_move_together_or_apart(tmp_path: Path) -> None:
    write_audio(tmp_path / "one" / "music" / "a.wav")
    frame = scan(tmp_path / "one" / "music", Problems(), Silent())
    (tmp_path / "apart").mkdir()
    write_table(frame, tmp_path / "one" / "t.csv")
    write_table(frame, tmp_path / "apart" / "t.csv")
    assert pl.read_csv(tmp_path / "one" / "t.csv")["path"].to_list() == ["music/a.wav"]
    assert pl.read_csv(tmp_path / "apart" / "t.csv")["path"].to_list() == [str(tmp_path / "one/music/a.wav")]
    (tmp_path / "one").rename(tmp_path / "two")
    tracks = read_tracks(tmp_path / "two" / "t.csv", Problems())
    assert tracks.frame["path"].to_list() == [str(tmp_path / "two" / "music" / "a.wav")]


def test_track_ids_stay_when_the_folder_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("B/Song.wav", "a/Song.wav", "a/Song.flac", "Été à.wav", "!.wav"):
        write_audio(tmp_path / "one" / name)
    before = scan(tmp_path / "one", Problems(), Silent())
    (tmp_path / "one").rename(tmp_path / "two")
    monkeypatch.chdir(tmp_path)
    after = scan(Path("two"), Problems(), Silent())
    assert before["track_id"].to_list() == after["track_id"].to_list()
    assert after["track_id"].n_unique() == 5
    assert [os.path.relpath(path, tmp_path / "two") for path in after["path"]] == [
        "!.wav", "Été à.wav", "B/Song.wav", "a/Song.flac", "a/Song.wav"
    ]  # fmt: skip
    assert after["track_id"][2].startswith("song-")
    assert track_id_of("E\u0301te\u0301/x.mp3") == track_id_of("Été/x.mp3") != track_id_of("Ete/x.mp3")
    assert track_id_of("a/Teardrop (Live).mp3") == "teardrop-live-fc59abdb0891"


def test_what_is_passed_over(tmp_path: Path) -> None:
    write_audio(tmp_path / "m" / "a" / "Song.wav")
    write_audio(tmp_path / "m" / ".hidden" / "x.wav")
    write_audio(tmp_path / "m" / "._Song.wav")
    (tmp_path / "m" / "cover.jpg").write_bytes(b"x")
    write_audio(tmp_path / "elsewhere" / "b.wav")
    (tmp_path / "m" / "a" / "loop").symlink_to(tmp_path / "m")
    (tmp_path / "m" / "z").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "m" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "m" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    problems = Problems()
    frame = scan(tmp_path / "m", problems, Silent())
    assert [os.path.relpath(path, tmp_path / "m") for path in frame["path"]] == ["a/Song.wav", "again/b.wav"]
    assert problems.counts() == {"missing-file": 1}


def test_damaged_files_are_kept_by_their_names(tmp_path: Path) -> None:
    tag_id3(mp3.MP3(write_audio(tmp_path / "a.mp3")))
    whole = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "b.mp3").write_bytes(b"nonsense")
    (tmp_path / "c.flac").write_bytes(b"")
    (tmp_path / "d.m4a").write_bytes(whole)  # mislabelled: what it is decides
    rng = np.random.default_rng(7)
    for at in range(60):
        damaged = bytearray(whole[: rng.integers(1, 400)])
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        (tmp_path / f"x{at}.mp3").write_bytes(damaged)
    problems = Problems()
    frame = scan(tmp_path, problems, Silent())
    assert len(frame) == 64
    assert frame["title"].to_list()[:4] == [WANT[0], "b", "c", WANT[0]]
    assert frame["title"].null_count() == 0
    found = problems.frame()
    assert set(found["kind"]) == {"bad-tags"}
    assert {str(tmp_path / "b.mp3"), str(tmp_path / "c.flac")} <= set(found["source"])


def test_the_tags_of_one_file(tmp_path: Path) -> None:
    audio = mp3.MP3(write_audio(tmp_path / "a.mp3"))
    assert file_tags(tmp_path / "a.mp3") == {}
    tag_id3(audio)
    names = ("title", "artist", "album", "genre", "year", "lyrics")
    assert file_tags(tmp_path / "a.mp3") == dict(zip(names, WANT, strict=True))
    tag_with(flac.FLAC(write_audio(tmp_path / "b.flac")), ("TITLE", "X", "ALBUM", "GENRE", "Y", "LYRICS"))
    audio = flac.FLAC(tmp_path / "b.flac")
    audio.tags["DATE"] = "c. 1999"
    audio.save()
    assert "year" not in file_tags(tmp_path / "b.flac")
    assert scan(tmp_path, Problems(), Silent())["year"].to_list() == ["1999", "c. 1999"]  # for the build to report
    (tmp_path / "c.mp3").write_bytes(b"nonsense")
    assert file_tags(tmp_path / "c.mp3") == file_tags(tmp_path / "none.mp3") == {}


def test_names_that_are_no_text_or_the_same_text(tmp_path: Path) -> None:
    for name in ("E\u0301.wav", "\u00c9.wav", "ok.wav"):
        write_audio(tmp_path / name)
    (tmp_path / "ok.wav").rename(tmp_path / "caf\udce9.wav")
    problems = Problems()
    frame = scan(tmp_path, problems, Silent())
    assert frame["title"].to_list() == ["E\u0301"]
    assert problems.counts() == {"bad-text": 1, "duplicate-id": 1}


def test_no_folder_no_audio_no_place_to_write(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        scan(tmp_path / "none", Problems(), Silent())
    with pytest.raises(DataError, match="holds no audio"):
        scan(tmp_path, Problems(), Silent())
    frame = pl.DataFrame({"track_id": ["a"]})
    with pytest.raises(DataError, match="no known form"):
        write_table(frame, tmp_path / "t.xlsx")
    with pytest.raises(DataError, match="cannot be written"):
        write_table(frame, tmp_path / "none" / "t.parquet")
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_table(frame, tmp_path / "t.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not beside the repository")
def test_the_tags_of_real_clips_are_those_of_their_table() -> None:
    problems = Problems()
    scanned = scan(DATA / "emotify" / "audio", problems, Silent())
    table = read_tracks(DATA / "emotify" / "tracks.csv", problems).frame
    both = scanned.join(table, on="path", suffix="_table")
    assert len(both) == len(scanned) == 297
    assert (both["artist"] == both["artist_table"]).mean() > 0.95
    assert len(problems) == 0
