"""Tags of every kind, whole, damaged, several beside each other, and made to harm."""

import io
import subprocess
import sys
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from helpers.audio_files import encoded, encoded_by_ffmpeg, melody
from helpers.made_tags import (
    MP3,
    aiff,
    ape,
    atom,
    caf,
    chunk,
    element,
    flac,
    frame,
    id3,
    id3v1,
    info,
    matroska,
    mp4,
    simple_tag,
    text_frame,
    wav,
)
from recsys.catalogue.tags import read as reading
from recsys.catalogue.tags.fields import MAX_CHARS, MAX_LYRICS_CHARS, Inside, checked, with_sure_year
from recsys.catalogue.tags.read import read_tags

WORDS = {"title": "Tïtle", "artist": "Someone", "year": "1999"}
ID3_NAMES = {2: ("TT2", "TP1", "TYE"), 3: ("TIT2", "TPE1", "TYER"), 4: ("TIT2", "TPE1", "TDRC")}


def read(data: bytes) -> Inside:
    return read_tags(io.BytesIO(data))


def tags(data: bytes) -> dict[str, str]:
    """The tags, of which nothing is to be told."""
    inside = read(data)
    assert inside.notes == ()
    return dict(inside.tags)


def words_in_id3(version: int, encoding: int = 1) -> bytes:
    frames = (
        text_frame(name, text, version, encoding) for name, text in zip(ID3_NAMES[version], WORDS.values(), strict=True)
    )
    return id3(*frames, version=version)


@pytest.mark.parametrize(("version", "encoding"), list(product((2, 3, 4), (0, 1, 2, 3))))
def test_id3_of_each_version_and_encoding(version: int, encoding: int) -> None:
    assert tags(words_in_id3(version, encoding) + MP3) == WORDS


def test_id3_before_and_in_other_containers() -> None:
    words = words_in_id3(4)
    adts = bytes.fromhex("fff15040013ffc") + bytes(3)
    for data in (words + adts, words + b"TTA1" + bytes(18), words + b"\x0b\x77" + bytes(20)):
        assert tags(data) == WORDS
    assert tags(wav(chunk(b"id3 ", words))) == tags(wav(chunk(b"ID3 ", words))) == WORDS
    assert tags(aiff(chunk(b"ID3 ", words, ">"))) == WORDS
    head = b"DSD " + (28).to_bytes(8, "little") + bytes(8) + (92).to_bytes(8, "little")
    assert tags(head + bytes(64) + words) == WORDS


def test_own_tags_of_containers_without_a_library() -> None:
    said = {key: text.encode() for key, text in zip((b"INAM", b"IART", b"ICRD"), WORDS.values(), strict=True)}
    assert tags(wav(info(said))) == WORDS
    assert tags(wav(info(said, ">"), mark=b"RIFX")) == WORDS
    assert tags(wav(info({b"INAM": "Tïtle".encode("cp1252")}))) == {"title": "Tïtle"}, "no encoding is declared"
    assert tags(aiff(chunk(b"NAME", "Tïtle".encode(), ">"), chunk(b"AUTH", b"Me", ">"))) == {
        "title": "Tïtle", "artist": "Me",
    }  # fmt: skip
    assert tags(caf({"title": "Tïtle", "artist": "Someone", "recorded date": "1999-01-02"})) == WORDS
    assert tags(mp4({b"\xa9nam": "Tïtle".encode(), b"\xa9ART": b"Someone", b"\xa9day": b"1999"})) == WORDS
    about_track = element(0x7373, simple_tag("ARTIST", "Someone"), simple_tag("DATE_RECORDED", "1999"))
    album = element(0x7373, element(0x63C0, element(0x68CA, b"\x32")), simple_tag("TITLE", "An album"))
    assert tags(matroska("Tïtle", album, about_track)) == {**WORDS, "album": "An album"}
    assert tags(matroska("A file", element(0x7373, simple_tag("TITLE", "Tïtle")))) == {"title": "Tïtle"}


def test_rf64_whose_sizes_are_in_a_chunk_of_their_own() -> None:
    sizes = chunk(b"ds64", bytes(8) + (3201).to_bytes(8, "little") + bytes(12))
    data = b"data" + b"\xff" * 4 + bytes(3202)
    assert tags(b"RF64" + b"\xff" * 4 + b"WAVE" + sizes + data + info({b"INAM": b"Long"})) == {"title": "Long"}


def test_a_numbered_genre_of_mp4() -> None:
    number = atom(b"gnre", atom(b"data", bytes(8), (18).to_bytes(2, "big")))
    meta = atom(b"meta", bytes(4), atom(b"ilst", number))
    assert tags(atom(b"ftyp", b"M4A ") + atom(b"moov", atom(b"udta", meta))) == {"genre": "Rock"}


def test_ape_alone_beside_and_before_others() -> None:
    items = {"Title": "Tïtle".encode(), "ARTIST": b"Someone", "Year": b"1999"}
    picture = {"Cover Art (Front)": bytes(70_000)}
    for data in (
        MP3 + ape(items),
        MP3 + ape(picture | items),
        MP3 + ape(items, count=99),
        MP3 + ape(items) + id3v1(),
        MP3 + ape(items) + b"LYRICSBEGIN" + b"000011LYRICS200" + id3v1(),
        b"wvpk" + bytes(40) + ape(items),
    ):
        assert tags(data) == WORDS
    assert tags(MP3 + ape({"Artist": b"One\0Two", "Genre": b"Rock\0Jazz"})) == {
        "artist": "One; Two", "genre": "Rock;Jazz",
    }  # fmt: skip


def test_the_first_kind_that_is_not_blank_speaks_for_each_field() -> None:
    of_ape, of_v1 = ape({"Title": b"Ape", "Artist": b"Ape artist"}), id3v1(b"V1", b"V1 artist", b"V1 album", b"2004", 8)
    of_v2 = id3(text_frame("TIT2", "V2"), text_frame("TPE1", "  "))
    rest = {"album": "V1 album", "genre": "Jazz", "year": "2004"}
    assert tags(of_v2 + MP3 + of_ape + of_v1) == {"title": "V2", "artist": "Ape artist", **rest}
    assert tags(MP3 + of_ape + of_v1) == {"title": "Ape", "artist": "Ape artist", **rest}
    assert tags(MP3 + of_v1) == {"title": "V1", "artist": "V1 artist", **rest}
    assert tags(of_v2 + b"MAC " + bytes(40) + of_ape)["title"] == "Ape", "there it is the container's own"
    both = wav(info({b"INAM": b"Info", b"IART": b"Info artist"}), chunk(b"id3 ", of_v2))
    assert tags(both) == {"title": "V2", "artist": "Info artist"}
    assert tags(of_v2 + flac(b"TITLE=Own"))["title"] == "Own"
    assert tags(id3(text_frame("TIT2", "One")) + id3(text_frame("TIT2", "Two"), text_frame("TPE1", "B")) + MP3) == {
        "title": "One", "artist": "B",
    }  # fmt: skip
    assert (
        tags(id3(text_frame("TPE2", "Of the album")) + MP3 + id3v1(artist=b"Of the track"))["artist"] == "Of the track"
    )


@pytest.mark.parametrize("version", [3, 4])
def test_a_damaged_byte_costs_a_character_or_a_frame_but_never_the_tag(version: int) -> None:
    """Any byte of the frame in the middle: the frames around it are read, whatever it becomes."""
    names = ID3_NAMES[version]
    first, middle, last = (
        text_frame(name, text, version) for name, text in zip(names, ("Before", "Björk", "2004"), strict=True)
    )
    told = 0
    for at, value in product(range(len(middle)), (0x00, 0x41, 0x7F, 0x80, 0xFF)):
        damaged = bytearray(middle)
        damaged[at] = value
        inside = read(id3(first, bytes(damaged), last, version=version) + MP3)
        assert inside.tags["title"] == "Before", (at, value)
        of_length = version == 3 and at in {7} and value < len(middle)  # then the rest of the frame is taken for others
        assert of_length or inside.tags.get("year") == "2004", (at, value)
        told += bool(inside.notes)
    assert told
    inside = read(id3(frame("TIT2", b"\x03Bj\xf6rk and more", version), version=version) + MP3)
    assert inside.tags == {"title": "Bj\ufffdrk and more"}
    assert "TIT2" in inside.notes[0]


@pytest.mark.parametrize(
    ("whole", "text"),
    [
        (mp4({b"\xa9nam": b"Bj\xc3\xb6rk", b"\xa9ART": b"Someone"}), b"Bj\xc3"),
        (flac(b"TITLE=Bj\xc3\xb6rk", b"ARTIST=Someone"), b"Bj\xc3"),
        (MP3 + ape({"Title": b"Bj\xc3\xb6rk", "Artist": b"Someone"}), b"Bj\xc3"),
        (matroska("Bj\u00f6rk", element(0x7373, simple_tag("ARTIST", "Someone"))), b"Bj\xc3"),
        (caf({"title": "Björk", "artist": "Someone"}), b"Bj\xc3"),
    ],
)
def test_a_damaged_character_elsewhere(whole: bytes, text: bytes) -> None:
    damaged = whole.replace(text, b"Bj\xff")
    assert damaged != whole
    found = read(damaged).tags
    assert found["title"].startswith("Bj\ufffd")
    assert found["artist"] == "Someone"


def test_wrong_sizes() -> None:
    title = text_frame("TIT2", "Title")
    assert read(id3(title, size=16_383) + MP3).tags == {"title": "Title"}
    assert read(id3(title, size=2**28 - 1) + MP3).tags == {"title": "Title"}, "beyond the file's end"
    long = text_frame("TIT2", "T" * 300)
    eight_bits = frame("TIT2", b"\x03" + b"T" * 300, 3) + text_frame("TPE1", "A", 4)
    assert tags(id3(eight_bits, version=4) + MP3) == {"title": "T" * 300, "artist": "A"}, "as one known program writes"
    assert tags(id3(long, version=3) + MP3) == {"title": "T" * 300}
    assert tags(id3(text_frame("TIT2", "T" * 300, 4), text_frame("TPE1", "A", 4), version=4) + MP3)["artist"] == "A"


def test_flags_of_frames_and_tags() -> None:
    body = b"\x03Title"
    packed = zlib.compress(body)
    kinds = {
        "packed 2.3": id3(frame("TIT2", len(body).to_bytes(4, "big") + packed, 3, 0x80)),
        "packed 2.4": id3(frame("TIT2", bytes(3) + b"\6" + packed, 4, 0x09), version=4),
        "grouped 2.3": id3(frame("TIT2", b"\x01" + body, 3, 0x20)),
        "grouped 2.4": id3(frame("TIT2", b"\x01" + body, 4, 0x40), version=4),
        "with an extended header 2.3": id3((6).to_bytes(4, "big") + bytes(6), text_frame("TIT2", "Title"), flags=0x40),
        "with an extended header 2.4": id3(b"\0\0\0\6\1\0", text_frame("TIT2", "Title", 4), version=4, flags=0x40),
    }
    for name, data in kinds.items():
        assert tags(data + MP3) == {"title": "Title"}, name
    utf16 = b"\x01" + "Title".encode("utf-16")
    stuffed = utf16.replace(b"\xff", b"\xff\x00")
    whole = b"TIT2" + len(utf16).to_bytes(4, "big") + b"\0\0" + stuffed + text_frame("TPE1", "A")
    assert tags(id3(whole, flags=0x80) + MP3) == {"title": "Title", "artist": "A"}
    assert tags(id3(frame("TIT2", stuffed, 4, 0x02), version=4) + MP3) == {"title": "Title"}
    locked = id3(frame("TIT2", b"\x01" + body, 3, 0x40), text_frame("TPE1", "A"))
    assert tags(locked + MP3) == {"artist": "A"}


def test_lyrics_and_named_texts() -> None:
    words = frame("USLT", b"\x01eng" + "x".encode("utf-16") + b"\0\0" + "la\r\nlá\tla".encode("utf-16"))
    other = frame("USLT", b"\x03deu\0lo lo")
    assert tags(id3(words, other) + MP3) == {"lyrics": "la\nlá\tla"}
    named = frame("TXXX", b"\x03Unsynced lyrics\0la la")
    assert tags(id3(frame("TXXX", b"\x03Key\0Am"), named) + MP3) == {"lyrics": "la la"}
    assert tags(id3(frame("TXXX", b"\x03ARTISTS\0One\0Two", 4), version=4) + MP3) == {"artist": "One; Two"}
    both = id3(text_frame("TPE1", "One & Two", 4), frame("TXXX", b"\x03ARTISTS\0One\0Two", 4), version=4)
    assert tags(both + MP3) == {"artist": "One & Two"}


@pytest.mark.parametrize(
    ("version", "text", "genre"),
    [
        (4, "17", "Rock"),
        (3, "(17)", "Rock"),
        (3, "(52)(RX)", "Electronic;Remix"),
        (3, "(9)(138)Viking Metal", "Metal;Black Metal;Viking Metal"),
        (3, "((not a number)", "(not a number)"),
        (3, "(4)Eurodisco", "Disco;Eurodisco"),
        (3, "(17)Rock", "Rock"),
        (4, "Rock\0Jazz", "Rock;Jazz"),
        (3, "Rock/Jazz", "Rock;Jazz"),
        (3, "Rock / hip hop", "Rock;hip hop"),
        (3, "Pop/Funk", "Pop/Funk"),
        (3, "Rock/Zeuhl", "Rock/Zeuhl"),
        (4, "Rock/Jazz", "Rock/Jazz"),
        (4, "Rock; Jazz", "Rock;Jazz"),
        (4, "Rock, Jazz", "Rock;Jazz"),
        (4, "Folk, World, & Country", "Folk, World, & Country"),
        (4, r"Rock\\Jazz", "Rock;Jazz"),
        (4, "Rock\0rock\0 ROCK ", "Rock"),
        (4, "255", None),
        (4, "(255)", None),
        (4, "", None),
        (4, "1980", "1980"),
    ],
)
def test_genres_as_taggers_join_them(version: int, text: str, genre: str | None) -> None:
    found = tags(id3(text_frame("TCON", text, version), text_frame("TIT2", "x", version), version=version) + MP3)
    assert found.get("genre") == genre


def test_genres_elsewhere() -> None:
    assert tags(id3(text_frame("TCON", "Rock"), text_frame("TCON", "Jazz")) + MP3) == {"genre": "Rock;Jazz"}
    assert tags(MP3 + id3v1(b"x", genre=255)) == {"title": "x"}
    assert tags(MP3 + id3v1(b"x", genre=200)) == {"title": "x"}
    assert tags(flac(b"GENRE=Rock; Jazz", b"GENRE=rock", b"genre=(17)"))["genre"] == "Rock;Jazz"


def test_one_artist_however_accents_are_stored() -> None:
    found = {tags(id3(text_frame("TPE1", text)) + MP3)["artist"] for text in ("Bj\u00f6rk", "Bjo\u0308rk", " Björk\0")}
    assert found == {"Björk"}
    assert tags(id3(text_frame("TPE1", "AC/DC")) + MP3) == {"artist": "AC/DC"}


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("2004", "2004"),
        ("2004-05-01T10:00", "2004"),
        ("20040501", "2004"),
        ("2004 (remaster)", "2004"),
        ("c. 1998", "1998"),
        ("May 2004", "2004"),
        ("２００４", "2004"),
        ("٢٠٠٤-05-01", "2004"),
        ("ninety", "ninety"),
        ("0000", None),
        ("0", None),
    ],
)
def test_years(text: str, year: str | None) -> None:
    inside = read(id3(text_frame("TYER", text)) + MP3)
    assert inside.tags.get("year") == year
    assert with_sure_year(inside.tags).get("year") == (None if year == "ninety" else year)
    assert read(id3(text_frame("TYER", "0000"), text_frame("TDOR", "1987")) + MP3).tags == {"year": "1987"}


def test_texts_have_lengths_and_no_control_characters() -> None:
    inside = read(id3(text_frame("TIT2", "t" * 5000), text_frame("TPE1", "a\x1b[2Jb\nc\x07")) + MP3)
    assert inside.tags == {"title": "t" * MAX_CHARS, "artist": "a [2Jb c"}
    assert inside.notes == ("title: more than 1,000 characters, cut there",)
    inside = read(flac(b"LYRICS=" + b"l" * (MAX_LYRICS_CHARS + 5), *[b"GENRE=g%d" % n for n in range(200)]))
    assert len(inside.tags["lyrics"]) == MAX_LYRICS_CHARS
    assert len(inside.notes) == 2
    names = inside.tags["genre"].split(";")
    assert names == [f"g{n}" for n in range(100)]
    inside = read(flac(*[b"GENRE=" + b"%03d" % n * 50 for n in range(90)]))
    assert {len(name) for name in inside.tags["genre"].split(";")} == {150}, "whole names"
    assert len(inside.tags["genre"]) <= MAX_CHARS


def bomb(version: int) -> bytes:
    body = zlib.compress(b"\x03" + b"A" * 20_000_000, 9)
    flags = 0x09 if version == 4 else 0x80
    return id3(frame("TIT2", bytes(4) + body, version, flags), text_frame("TPE1", "After", version), version=version)


@pytest.mark.parametrize("version", [3, 4])
def test_a_compressed_text_is_inflated_no_further_than_it_is_read(
    version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inflated = 0

    class Counting:
        def __init__(self) -> None:
            self._inner = inner()

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal inflated
            found = self._inner.decompress(data, most)
            inflated += len(found)
            return found

    inner = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    inside = read(bomb(version) + MP3)
    assert inside.tags == {"title": "A" * MAX_CHARS, "artist": "After"}
    assert len(inside.notes) == 1
    assert 0 < inflated <= 2**20


def test_no_more_frames_or_values_than_a_limit_are_read() -> None:
    inside = read(id3(text_frame("TPE1", "A"), *[text_frame("TIT2", f"{n}") for n in range(20_000)], version=3) + MP3)
    assert inside.tags["artist"] == "A"
    assert inside.tags["title"].startswith("0; 1; 2")
    assert len(inside.tags["title"]) <= MAX_CHARS
    assert "10,000 frames" in " ".join(inside.notes)
    many = id3(
        text_frame("TPE1", "A"), *[frame("TXXX", bytes(4) + zlib.compress(b"\x03" + b"A" * 10**6), 3, 0x80)] * 20
    )
    inside = read(many + MP3)
    assert (inside.tags, len(inside.notes)) == ({"artist": "A"}, 1)
    assert "8,388,608 bytes of text" in inside.notes[0]
    assert read(id3(text_frame("TIT2", "\0".join("ab" * 300_000))) + MP3).tags == {"title": "a; b"}


def test_no_tags_and_no_audio() -> None:
    assert tags(MP3) == tags(flac()) == tags(wav()) == tags(aiff()) == {}
    assert read(b"").notes == ("the file is empty",)
    assert read(b"nonsense").notes == ("no known kind of audio",)


WHOLE = {
    "id3": words_in_id3(4) + words_in_id3(3) + MP3 + ape({"Title": b"x", "Genre": b"y"}) + id3v1(b"t"),
    "v2.2": words_in_id3(2) + MP3,
    "flac": flac(b"TITLE=x", b"ARTIST=y"),
    "wav": wav(info({b"INAM": b"x", b"IART": b"y"}), chunk(b"id3 ", words_in_id3(3))),
    "aiff": aiff(chunk(b"NAME", b"x", ">"), chunk(b"ID3 ", words_in_id3(3), ">")),
    "caf": caf({"title": "x", "artist": "y"}),
    "mp4": mp4({b"\xa9nam": b"x", b"\xa9ART": b"y"}),
    "matroska": matroska("x", element(0x7373, simple_tag("ARTIST", "y"))),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_nothing_that_is_damaged_raises(kind: str) -> None:
    rng = np.random.default_rng(5)
    whole = WHOLE[kind]
    assert read(whole).tags
    for _ in range(300):
        damaged = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for _ in range(rng.integers(1, 6)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        for text in read(bytes(damaged)).tags.values():
            text.encode()


def test_what_a_process_says_is_not_believed() -> None:
    said = {"title": "t\0\ud800" + "x" * 5000, "artist": 5, "path": "/etc/passwd", "year": "1999", "genre": " \n"}
    found = checked(said)
    assert set(found) == {"title", "year"}
    assert len(found["title"]) <= MAX_CHARS
    found["title"].encode()


def test_tags_that_take_too_long_are_given_up_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*all_: object) -> None:
        while True:
            pass

    monkeypatch.setattr(reading, "CPU_LIMIT_S", 0.05)
    monkeypatch.setattr(reading, "read_ape", endless)
    inside = read(words_in_id3(4) + MP3)
    assert inside.notes == ("the tags cannot be read: stopped after 0.05 s",)
    assert inside.tags == WORDS, "what was read by then"


def test_nothing_is_imported_late(tmp_path: Path) -> None:
    """A process that has given up its rights may not be able to read modules: all kinds are read once, and counted."""
    for name, data in WHOLE.items():
        (tmp_path / name).write_bytes(data)
    for name, kind, subtype in (("vorbis", "OGG", "VORBIS"), ("opus", "OGG", "OPUS")):
        (tmp_path / name).write_bytes(encoded(melody(1.0), kind, subtype, 48_000))
    (tmp_path / "wma").write_bytes(encoded_by_ffmpeg(melody(1.0), "asf", "wmav2"))
    code = f"""
import sys
from pathlib import Path
import recsys.catalogue.tags.worker as process
before = set(sys.modules)
for path in Path({str(tmp_path)!r}).iterdir():
    with path.open("rb") as file:
        assert process.read_tags(file).notes == (), path
print(sorted(set(sys.modules) - before - {{"encodings.cp1252", "encodings.utf_16_le", "encodings.utf_16_be"}}))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (told.stdout, told.stderr) == ("[]\n", "")
