import os
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import av
import mutagen
import numpy as np
import polars as pl
import pytest
import soundfile
from mutagen import asf, flac, id3, mp3, mp4, oggopus, oggvorbis, wave

from helpers import made_tags
from helpers.places import DATA
from recsys.catalogue.problems import Problems
from recsys.catalogue.scan import AUDIO_SUFFIXES, SCAN_SCHEMA, scan, track_id_of, write_table
from recsys.catalogue.tracks import read_tracks
from recsys.errors import DataError
from recsys.util.progress import Silent

pytestmark = pytest.mark.usefixtures("decoded_here")

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


@pytest.mark.usefixtures("apart")
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


@pytest.mark.usefixtures("apart")
def test_pipes_are_told_and_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x.mp3", "no-suffix"):
        os.mkfifo(tmp_path / name)
    write_audio(tmp_path / "a.wav")
    opening = Path.open

    def careful(self: Path, *how: Any) -> Any:
        assert self.name not in ("x.mp3", "no-suffix"), "it would wait for ever"
        return opening(self, *how)

    monkeypatch.setattr(Path, "open", careful)
    problems = Problems()
    assert scan(tmp_path, problems, Silent())["title"].to_list() == ["a"]
    assert problems.frame().select("kind", "reason").rows() == [("missing-file", "this is not a regular file")]


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


def test_a_year_is_read_and_what_is_none_is_left_for_the_build_to_report(tmp_path: Path) -> None:
    for name, date in (
        ("a.flac", "c. 1999"),
        ("b.flac", "20040501"),
        ("c.flac", "\u0662\u0660\u0660\u0664"),
        ("d.flac", "old"),
    ):
        audio = flac.FLAC(write_audio(tmp_path / name))
        audio["DATE"] = date
        audio.save()
    assert scan(tmp_path, Problems(), Silent())["year"].to_list() == ["1999", "2004", "2004", "old"]


@pytest.mark.usefixtures("apart")
def test_one_file_that_is_made_to_harm_costs_its_own_tags(tmp_path: Path) -> None:
    """216 kB that inflate to 200 MB, and 30,000 frames: each is told, and the memory of this process does not grow."""
    large = zlib.compress(b"\x03" + b"A" * 50_000_000, 9)
    packed = made_tags.id3(made_tags.frame("TIT2", bytes(4) + large, 3, 0x80))
    frames = made_tags.id3(*[made_tags.text_frame("TIT2", "x")] * 30_000)
    for name, tags in (("packed.mp3", packed), ("frames.mp3", frames), ("good.mp3", made_tags.id3())):
        (tmp_path / name).write_bytes(tags + made_tags.MP3)
    tracemalloc.start()
    problems = Problems()
    frame = scan(tmp_path, problems, Silent())
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frame["title"].to_list() == ["x", "good", "A" * 1000]
    assert [(kind, Path(source).name) for kind, source in problems.frame().select("kind", "source").rows()] == [
        ("bad-tags", "frames.mp3"), ("bad-tags", "packed.mp3")
    ]  # fmt: skip
    assert most < 20_000_000


def encoded_with(path: Path, codec: str, format_: str | None = None) -> None:
    rate = 48_000 if "opus" in codec else 44_100
    with av.open(str(path), "w", format=format_) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        out.metadata["title"] = "Inside"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        graph = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate, frame_size=960)
        for part in graph.resample(frame):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("suffix", "codec", "title"),
    [
        (".wv", "wavpack", "Inside"), (".tta", "tta", "Inside"), (".mka", "flac", "Inside"),
        (".webm", "libopus", "Inside"),
        (".mp2", "mp2", None), (".ac3", "ac3", None), (".eac3", "eac3", None), (".au", "pcm_s16be", None),
        (".caf", "pcm_s16be", "Inside"), (".w64", "pcm_s16le", None), (".aifc", "pcm_s16be", None),
    ],
)  # fmt: skip
def test_kinds_that_decode_are_found(tmp_path: Path, suffix: str, codec: str, title: str | None) -> None:
    encoded_with(tmp_path / f"Song{suffix}", codec, {".aifc": "aiff"}.get(suffix))
    problems = Problems()
    frame = scan(tmp_path, problems, Silent())
    assert frame["title"].to_list() == [title or ("Inside" if suffix == ".aifc" else "Song")]
    assert len(problems) == 0


def test_suffixes_of_what_decodes() -> None:
    assert {
        f".{kind}"
        for kind in ("wv", "tta", "dsf", "mka", "mp2", "ac3", "au", "caf", "w64", "webm", "spx", "ape", "mpc", "mp3")
    } <= AUDIO_SUFFIXES


class Saying(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)


def test_what_is_passed_over_is_told_by_suffix(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    saying = Saying()
    scan(tmp_path, Problems(), saying)
    assert saying.lines == []
    for name in ("cover.jpg", "b/cover.JPG", "notes", "odd.\x1b[2J"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".hidden.jpg").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "film.mkv").write_bytes(b"\x1aE\xdf\xa3" + bytes(99))
    write_audio(tmp_path / "c.flac").rename(tmp_path / "c.audio")
    write_audio(tmp_path / "d.mp3").rename(tmp_path / "d")
    (tmp_path / "d").write_bytes(b"ID3" + bytes(20))
    frame = scan(tmp_path, Problems(), saying)
    assert frame["title"].to_list() == ["a"]
    assert saying.lines == [
        "passed over, though it begins as audio does (rename it to be read): 1 .audio, 1 without a suffix",
        "passed over: 3 .jpg, 1 .mkv, 1 without a suffix, 1 .?[2j",
    ]
    for n in range(12):
        (tmp_path / f"x.s{n:02}").write_bytes(b"x")
    scan(tmp_path, Problems(), saying)
    assert saying.lines[-1].endswith(", 8 others")


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
