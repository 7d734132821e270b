"""How long a recording is where its header does not say: counted, never guessed, so the same stretch is heard."""

import io
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache

import numpy as np
import pytest
import soundfile

from helpers.audio_files import (
    RATE,
    bare_mp3,
    encoded,
    encoded_by_ffmpeg,
    melody,
    musepack,
    of_unknown_length,
    packed,
    with_cover,
)
from recsys.audio.decoding import streams
from recsys.audio.decoding.containers import declares_length, look
from recsys.audio.decoding.decode import Decoded, decode
from recsys.audio.decoding.file_view import view
from recsys.audio.decoding.readers import FramedReader, Reader, open_other, open_reader
from recsys.audio.decoding.streams import count, find_stream
from recsys.audio.settings import DecodeSettings

SETTINGS = DecodeSettings(clip_s=4.0)
SONG = melody(20.0)
QUIET_START = np.concatenate([0.001 * SONG[: 8 * RATE], SONG[8 * RATE :]])  # few bytes, and then many
ID3V1 = b"TAG" + bytes(125)
APE = b"APETAGEX" + (2000).to_bytes(4, "little") + (32).to_bytes(4, "little") + bytes(16)
APE += b"Title\0Song" + bytes(18) + APE


@cache
def song_as(container: str, codec: str, **options: str | bool) -> bytes:
    """The song as FFmpeg writes it; encoded when a test asks for it, not when the file is read."""
    return packed(SONG, container, codec, **options)


@cache
def constant() -> bytes:
    return packed(SONG, "mp3", "libmp3lame")


@cache
def variable() -> bytes:
    return encoded(QUIET_START, "MP3", "MPEG_LAYER_III")


@cache
def middle() -> np.ndarray:
    """The four seconds in the middle of the song, as they are decoded from what loses nothing."""
    return decode(io.BytesIO(encoded(SONG, "WAV")), SETTINGS).clip.samples


def of(content: bytes, settings: DecodeSettings = SETTINGS) -> Decoded:
    return decode(io.BytesIO(content), settings)


def alike(a: np.ndarray, b: np.ndarray, most_apart: int = 800) -> float:
    """Cosine at the lag where two clips are most alike, of at most 50 ms: what encoders and decoders delay."""
    n = len(a) - 2 * most_apart
    kept = a[most_apart : most_apart + n]
    best = max(range(2 * most_apart), key=lambda lag: float(kept @ b[lag : lag + n]))
    return float(kept @ b[best : best + n] / np.linalg.norm(kept) / np.linalg.norm(b[best : best + n]))


UNDECLARED: dict[str, Callable[[], bytes]] = {
    "mp3": lambda: bare_mp3(constant()),
    "mp3, ID3v1": lambda: bare_mp3(constant()) + ID3V1,
    "mp3, APEv2": lambda: bare_mp3(constant()) + APE,
    "mp3, a cover": lambda: with_cover(bare_mp3(constant())),
    "mp3, a cover and tails": lambda: with_cover(bare_mp3(constant())) + APE + ID3V1,
    "mp3, two tags in front": lambda: with_cover(with_cover(bare_mp3(constant()), 300), 100_000),
    "mp3 in WAV": lambda: song_as("wav", "libmp3lame"),
    "mp3 in Matroska from a pipe": lambda: song_as("matroska", "libmp3lame", seekable=False),
    "mp3 in AVI from a pipe": lambda: song_as("avi", "libmp3lame", seekable=False),
    "mp2": lambda: song_as("mp2", "mp2"),
    "ADTS": lambda: song_as("adts", "aac"),
    "ADTS, a cover": lambda: with_cover(song_as("adts", "aac")),
    "AC-3": lambda: song_as("ac3", "ac3"),
    "WMA from a pipe": lambda: song_as("asf", "wmav2", seekable=False),
    "MP4 from a pipe": lambda: song_as("mp4", "aac", seekable=False, movflags="frag_keyframe+empty_moov"),
    "FLAC from a pipe": lambda: of_unknown_length(encoded(SONG, "FLAC")),
    "FLAC from a pipe, by FFmpeg": lambda: song_as("flac", "flac", seekable=False),
    "WavPack from a pipe": lambda: song_as("wv", "wavpack", seekable=False),
}


ONE_OF_EACH = {"mp3", "mp3, a cover and tails", "mp3 in WAV", "mp3 in AVI from a pipe", "ADTS", "WMA from a pipe",
               "FLAC from a pipe"}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ONE_OF_EACH else pytest.mark.slow) for name in UNDECLARED]
)
def test_a_length_that_no_header_gives_is_counted(name: str) -> None:
    content = UNDECLARED[name]()
    decoded = of(content)
    assert not declares_length(io.BytesIO(content))
    assert decoded.problems == ()
    assert decoded.clip.duration_s == pytest.approx(20.0, abs=0.07)  # encoders add a frame or two
    assert alike(decoded.clip.samples, middle()) > 0.9, "the middle is heard"


@pytest.mark.parametrize("in_front", [200_000, 1_000_000])
def test_a_cover_changes_nothing_that_is_heard(in_front: int) -> None:
    for bare in (bare_mp3(constant()), bare_mp3(variable()), song_as("adts", "aac")):
        plain, covered = of(bare), of(with_cover(bare, in_front) + ID3V1)
        assert covered.clip.duration_s == plain.clip.duration_s
        np.testing.assert_array_equal(covered.clip.samples, plain.clip.samples)


def test_variable_frames_without_a_header_are_as_long_as_with_one() -> None:
    with_header, without = of(variable()), of(bare_mp3(variable()))
    estimate = soundfile.SoundFile(io.BytesIO(bare_mp3(variable()))).frames / RATE
    assert abs(estimate - 20.0) > 5.0, "what the library says is far off"
    assert without.clip.duration_s == pytest.approx(with_header.clip.duration_s, abs=0.06)
    assert alike(without.clip.samples, with_header.clip.samples) > 0.9
    assert without.problems == with_header.problems == ()


@pytest.mark.parametrize("channels", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rate", [48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000])
def test_windows_of_bare_frames_hold_the_samples_of_the_whole(rate: int, channels: int) -> None:
    """MPEG-1, 2 and 2.5: what is cut out decodes, sample by sample, as it does on the way from the start, by either."""
    song = SONG[: 8 * rate] if channels == 2 else np.ascontiguousarray(SONG[: 8 * rate, 0])
    bare = bare_mp3(packed(song, "mp3", "libmp3lame", rate=rate, bit_rate=64_000 if rate > 16_000 else 24_000))
    expected = soundfile.read(io.BytesIO(bare), dtype="float32", always_2d=True)[0].mean(axis=1)
    with ExitStack() as stack:
        file = io.BytesIO(bare)
        first = open_reader(file, look(file), stack)
        other = open_other(file, look(file), first, stack)
        assert isinstance(first, FramedReader)
        assert other is not None
        for reader in (first, other):
            assert (reader.sample_rate, reader.n_frames, reader.format) == (rate, len(expected), "mp3")
            for start in (0, 4 * rate + 123, len(expected) - rate):
                found = taken(reader, start, rate)
                np.testing.assert_allclose(found, expected[start : start + rate], atol=2e-5)


def taken(reader: Reader, start: int, n_frames: int) -> np.ndarray:
    return np.concatenate(list(reader.blocks(start, n_frames)))[:n_frames]


def test_a_long_mp3_is_counted_by_its_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five hours: nothing but the stretch is decoded, and what is remembered does not grow with each frame."""
    bare = bare_mp3(constant()) * 900
    n_decoded = 0
    read = soundfile.SoundFile.read

    def counted(self: soundfile.SoundFile, *arguments: object, **others: object) -> np.ndarray:
        nonlocal n_decoded
        block = read(self, *arguments, **others)
        n_decoded += len(block)
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    decoded = of(bare)
    assert decoded.clip.duration_s == pytest.approx(900 * of(bare_mp3(constant())).clip.duration_s, abs=0.1)
    assert decoded.clip.duration_s > 18_000
    assert n_decoded < 3 * 10 * RATE
    stream = find_stream(io.BytesIO(bare), 0, len(bare))
    assert stream is not None
    frames = count(io.BytesIO(bare), stream)
    assert frames is not None
    assert len(frames.marks) <= frames.n / 32 + 1


def test_of_a_long_flac_from_a_pipe_the_stretch_alone_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    minutes = np.tile(SONG[:RATE], (120, 1))
    n_decoded = 0
    read = soundfile.SoundFile.read

    def counted(self: soundfile.SoundFile, *arguments: object, **others: object) -> np.ndarray:
        nonlocal n_decoded
        block = read(self, *arguments, **others)
        n_decoded += len(block)
        return block

    content = of_unknown_length(encoded(minutes, "FLAC"))
    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    decoded = of(content)
    assert (decoded.problems, decoded.clip.duration_s) == ((), 120.0)
    assert 4 * RATE <= n_decoded < 6 * RATE, "its last frame tells the length, and is not decoded"


def test_what_looks_like_a_frame_of_a_flac_is_none_without_its_checksum() -> None:
    like_one = b"\xff\xf8\xc9\x18\x7f\x01" + bytes(10)  # the 128th of a song of 43
    decoded = of(of_unknown_length(encoded(SONG[: 4 * RATE], "FLAC")) + like_one)
    assert (decoded.clip.duration_s, decoded.problems) == (4.0, ())


def test_counting_has_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = bare_mp3(constant())
    broken = bare[:100_000] + b"\xff\xfb" * 20_000 + bare[100_000:]  # each pair looks like a header
    stream = find_stream(io.BytesIO(broken), 0, len(broken))
    assert stream is not None
    assert count(io.BytesIO(broken), stream) is not None
    monkeypatch.setattr(streams, "_MOST_CANDIDATES", 1000)
    assert count(io.BytesIO(broken), stream) is None
    monkeypatch.setattr(streams, "_MOST_BYTES", 1000)
    assert count(io.BytesIO(bare), stream) is None
    assert of(bare).clip.duration_s == pytest.approx(20.0, abs=0.1), "then it is decoded to its end"


def test_free_format_is_no_stream_that_is_counted() -> None:
    free = bytearray(bare_mp3(constant()))
    for at in range(0, len(free) - 4):
        if free[at] == 0xFF and free[at + 1] == 0xFB and free[at + 2] & 0xFC == 0x90:
            free[at + 2] &= 0x0F
    assert look(io.BytesIO(bytes(free))).stream is None


def vbri(mp3: bytes) -> bytes:
    """Put a VBRI header before bare frames, as Fraunhofer's encoder does."""
    bare = bare_mp3(mp3)
    stream = look(io.BytesIO(mp3)).stream
    assert stream is not None
    n_frames = stream.declared or 0
    about = b"VBRI\0\1\0\0\0\x4b" + (len(bare) + 417).to_bytes(4, "big") + n_frames.to_bytes(4, "big")
    return (bare[:3] + bytes([bare[3]]) + bytes(32) + about).ljust(417, b"\0") + bare


def test_a_header_by_fraunhofer_is_no_sound() -> None:
    decoded = of(vbri(constant()))
    assert decoded.problems == ()
    assert decoded.clip.duration_s == pytest.approx(20.0, abs=0.07)


def test_a_header_frame_without_a_count_is_none() -> None:
    at = constant().find(b"Info")
    silent_on_frames = constant()[: at + 7] + b"\0" + constant()[at + 8 :]
    assert not declares_length(io.BytesIO(silent_on_frames))
    assert of(silent_on_frames).clip.duration_s == pytest.approx(20.0, abs=0.07)


def test_a_tag_that_is_wrong_about_its_length_hides_nothing() -> None:
    bare = bare_mp3(constant())
    wrong = b"ID3\3\0\0\0\0\x7f\x7f" + b"TIT2\0\0\0\6\0\0\0Title" + bare
    decoded = of(wrong)
    assert decoded.problems == ()
    assert decoded.clip.duration_s == of(bare).clip.duration_s


def test_joined_mp3s_are_as_long_as_both() -> None:
    """The header of the first counts its own frames alone."""
    other = packed(melody(12.0, 3), "mp3", "libmp3lame")
    for joined in (constant() + other, with_cover(constant()) + ID3V1 + with_cover(other, 5000) + ID3V1):
        decoded = of(joined)
        assert decoded.problems == ()
        assert decoded.clip.duration_s == pytest.approx(32.0, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["libopus", "flac", "vorbis"])
def test_a_chain_of_oggs_is_as_long_as_all_of_them(codec: str) -> None:
    """As what is recorded from the radio: a song behind the other."""

    def ogg(samples: np.ndarray) -> bytes:
        rate = 48_000 if codec == "libopus" else RATE
        return encoded(samples, "OGG") if codec == "vorbis" else packed(samples, "ogg", codec, rate=rate)

    songs = [melody(seconds, seed) for seconds, seed in ((5.0, 1), (8.0, 2), (3.0, 3))]
    parts = [of(ogg(song), DecodeSettings(clip_s=60.0)).clip for song in songs]
    chained = of(b"".join(ogg(song) for song in songs), DecodeSettings(clip_s=60.0))
    assert chained.problems == ()
    assert chained.clip.duration_s == pytest.approx(sum(part.duration_s for part in parts), abs=0.01)
    whole = np.concatenate([part.samples for part in parts])
    assert len(chained.clip.samples) == pytest.approx(len(whole), abs=400)
    at = len(parts[0].samples)
    assert alike(chained.clip.samples[at : at + 32_000], whole[at : at + 32_000]) > 0.99
    middle = of(b"".join(ogg(song) for song in songs)).clip.samples
    assert len(middle) == 64_000
    start = round((chained.clip.duration_s - 4) / 2 * 16_000)
    assert alike(middle, whole[start : start + 64_000]) > 0.98


def test_of_a_chain_what_has_another_rate_is_passed_over() -> None:
    parts = [packed(melody(seconds, seed), "ogg", "flac", rate=rate) for seconds, seed, rate in
             ((2.0, 1, RATE), (3.0, 2, 22_050), (1.0, 3, RATE))]  # fmt: skip
    decoded = of(b"".join(parts), DecodeSettings(clip_s=60.0))
    whole = [of(parts[at], DecodeSettings(clip_s=60.0)).clip for at in (0, 2)]
    assert decoded.clip.duration_s == pytest.approx(sum(part.duration_s for part in whole), abs=0.01)


def test_musepack_is_decoded_though_it_cannot_be_sought_in() -> None:
    decoded = of(musepack(300))
    assert decoded.problems == ()
    assert decoded.clip.duration_s == pytest.approx(300 * 1152 / RATE, abs=0.01)
    assert len(decoded.clip.samples) == 64_000
    whole = of(musepack(300), DecodeSettings(clip_s=30.0)).clip.samples
    start = round((300 * 1152 / RATE - 4) / 2 * 16_000)
    assert alike(decoded.clip.samples, whole[start : start + 64_000]) > 0.9, "the middle, not the start"


DECLARED: dict[str, Callable[[], bytes]] = {
    "wav": lambda: encoded(SONG, "WAV"),
    "flac": lambda: encoded(SONG, "FLAC"),
    "ogg": lambda: encoded(SONG, "OGG"),
    "aiff": lambda: encoded(SONG, "AIFF"),
    "mp3": constant,
    "mp3-vbr": variable,
    "m4a": lambda: encoded_by_ffmpeg(SONG, "mp4", "aac"),
    "mka": lambda: song_as("matroska", "aac"),
    "wma": lambda: song_as("asf", "wmav2"),
    "wv": lambda: song_as("wv", "wavpack"),
}


@pytest.mark.parametrize("name", DECLARED)
def test_declared_lengths_are_believed_without_counting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = DECLARED[name]()
    assert declares_length(io.BytesIO(content))
    monkeypatch.setattr("recsys.audio.decoding.readers.count", None)
    monkeypatch.setattr("recsys.audio.decoding.readers.AvReader._counted_frames", None)
    decoded = of(content)
    assert decoded.problems == ()
    assert decoded.clip.duration_s == pytest.approx(20.0, abs=0.07)


def test_views_are_files_of_their_own() -> None:
    file = io.BytesIO(bytes(range(100)))
    one, other = view(file, 10, 20, b"front"), view(file, 50)
    assert (one.read(3), other.read(2), one.read(4)) == (b"fro", bytes([50, 51]), b"nt" + bytes([10, 11]))
    assert one.seek(0, io.SEEK_END) == 15
    assert one.read(5) == b""
    assert one.seek(-2, io.SEEK_CUR) == 13
    assert one.read() == bytes([18, 19])
