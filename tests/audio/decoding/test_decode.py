import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soxr

from helpers.audio_files import RATE, encoded, encoded_by_ffmpeg, melody, tone, without_info_frame
from recsys.audio.decoding.containers import missing_tail
from recsys.audio.decoding.decode import Decoded, decode
from recsys.audio.settings import DecodeSettings
from recsys.errors import DataError

SETTINGS = DecodeSettings(clip_s=4.0)  # of the 10 s below: from 3 s to 7 s
TEN = melody(10.0)
MIDDLE = soxr.resample(TEN[3 * RATE : 7 * RATE].mean(axis=1), RATE, 16_000)


def of(content: bytes, settings: DecodeSettings = SETTINGS) -> Decoded:
    return decode(io.BytesIO(content), settings)


def kinds(decoded: Decoded) -> list[str]:
    return [problem.kind for problem in decoded.problems]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(
    ("content", "format_", "least"),
    [
        (lambda: encoded(TEN, "WAV", "FLOAT"), "wav", 0.999999),
        (lambda: encoded(TEN, "FLAC", "PCM_16"), "flac", 0.9999),
        (lambda: encoded(TEN, "AIFF", "PCM_16"), "aiff", 0.9999),
        (lambda: encoded(TEN, "MP3", "MPEG_LAYER_III"), "mp3", 0.99),
        (lambda: encoded(TEN, "OGG", "VORBIS"), "ogg", 0.99),
        (lambda: encoded_by_ffmpeg(TEN, "mp4", "aac"), "mp4", 0.99),
        (lambda: encoded_by_ffmpeg(TEN, "matroska", "flac"), "matroska", 0.9999),
    ],
    ids=["wav", "flac", "aiff", "mp3", "ogg", "m4a", "mkv"],
)
def test_every_format_gives_the_same_middle_stretch(content: Callable[[], bytes], format_: str, least: float) -> None:
    decoded = of(content())
    assert (decoded.format, decoded.problems) == (format_, ())
    assert decoded.clip.samples.shape == (64_000,)
    assert decoded.clip.samples.dtype == np.float32
    assert decoded.clip.sample_rate == 16_000
    assert decoded.clip.duration_s == pytest.approx(10.0, abs=0.06)
    assert cosine(decoded.clip.samples, MIDDLE) > least


@pytest.mark.parametrize("container", ["WAV", "FLAC", "m4a"])
def test_several_stretches_are_spread_over_the_recording(container: str) -> None:
    thirds = np.concatenate([tone(hz, 3.0) for hz in (500, 1000, 2000)])
    stereo = np.stack([thirds, thirds], axis=1)
    content = encoded_by_ffmpeg(stereo, "mp4", "aac") if container == "m4a" else encoded(stereo, container)
    samples = of(content, DecodeSettings(clip_s=3.0, n_stretches=3)).clip.samples
    assert len(samples) == 48_000
    for place, hz in enumerate((500, 1000, 2000)):  # each second from the middle of a third, 1 s from its ends
        spectrum = np.abs(np.fft.rfft(samples[place * 16_000 + 1600 : (place + 1) * 16_000 - 1600]))
        assert spectrum.argmax() * 16_000 / 12_800 == pytest.approx(hz, abs=2)
    short = of(encoded(stereo[: 2 * RATE], "WAV"), DecodeSettings(clip_s=3.0, n_stretches=3)).clip.samples
    assert len(short) == 32_000, "what is shorter is taken whole"


def test_short_recordings_are_taken_whole() -> None:
    clip = of(encoded(TEN[: 2 * RATE], "WAV")).clip
    assert len(clip.samples) == 32_000
    assert clip.duration_s == 2.0


def test_samples_stay_within_full_scale() -> None:
    samples = of(encoded(TEN * 10, "WAV", "FLOAT")).clip.samples
    assert float(np.abs(samples).max()) == 1.0


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


@cache
def ogg() -> bytes:
    return encoded(TEN, "OGG")


@cache
def constant_mp3() -> bytes:
    return without_info_frame(encoded_by_ffmpeg(TEN, "mp3", "libmp3lame"))


@pytest.mark.parametrize(
    ("content", "seconds"),
    [
        (lambda: half(encoded(TEN, "WAV")), 5.0),
        (lambda: half(encoded(TEN, "AIFF")), 5.0),
        (lambda: half(encoded(TEN, "FLAC")), 4.9),
        (lambda: half(encoded(TEN, "OGG")), 5.0),
        (lambda: half(encoded(TEN, "MP3")), 5.0),
        (lambda: constant_mp3()[: len(constant_mp3()) // 2 + 7], 5.0),
        (lambda: half(encoded_by_ffmpeg(TEN, "asf", "wmav2")), 5.0),
        (lambda: encoded(TEN, "WAV")[:-200], 10.0),
        (lambda: encoded(TEN, "FLAC")[:-200], 9.8),
        (lambda: ogg()[:-200], 9.9),
        (lambda: ogg()[: ogg().rfind(b"OggS")], 9.9),
        (lambda: encoded(TEN, "MP3")[:-200], 10.0),
        (lambda: constant_mp3()[:-200], 10.0),
    ],
    ids=[
        "wav",
        "aiff",
        "flac",
        "ogg",
        "mp3",
        "mp3-bare",
        "wma",
        "wav-end",
        "flac-end",
        "ogg-end",
        "ogg-page",
        "mp3-end",
        "mp3-bare-end",
    ],
)
def test_cut_files_are_used_as_far_as_they_go(content: Callable[[], bytes], seconds: float) -> None:
    decoded = of(content())
    assert kinds(decoded) == ["truncated-audio"]
    assert decoded.clip.duration_s == pytest.approx(seconds, abs=0.5)
    assert len(decoded.clip.samples) == 64_000
    assert float(np.abs(decoded.clip.samples[-8000:]).max()) > 0.05  # the stretch is moved to where there is sound


def test_whole_files_with_something_behind_them_are_not_cut() -> None:
    tag = b"TAG" + bytes(125)
    for content in (encoded(TEN, "MP3") + tag, constant_mp3(), constant_mp3() + tag, encoded(TEN, "WAV") + b"LISTmore"):
        assert missing_tail(io.BytesIO(content)) is None
    assert missing_tail(io.BytesIO(b"")) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: b"", "the file is empty"),
        (lambda: b"These are the words of a song.\n" * 200, "no decoder knows"),
        (lambda: np.random.default_rng(3).bytes(50_000), "no decoder knows"),
        (lambda: encoded(TEN, "MP3")[:3000], "1 s are needed"),
        (lambda: half(encoded_by_ffmpeg(TEN, "mp4", "aac")), "no decoder knows"),  # its index stood at the end
        (lambda: encoded(TEN[: RATE // 2], "WAV"), "0.50 s decode, 1 s are needed"),
        (lambda: encoded(TEN[: RATE // 2], "WAV", rate=1), "sample rate of 1 Hz"),
    ],
    ids=["empty", "text", "noise", "stub", "m4a", "short", "rate"],
)
def test_what_cannot_be_used_is_refused_in_one_line(content: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        of(content())
    assert "\n" not in str(caught.value)


def test_play_lists_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "song.wav").write_bytes(encoded(TEN, "WAV"))
    for text in ("ffconcat version 1.0\nfile song.wav\n", f"#EXTM3U\n#EXTINF:9,\nfile://{tmp_path}/song.wav\n"):
        (tmp_path / "list.mp3").write_text(text)
        with pytest.raises(DataError, match="no decoder knows"):
            decode(tmp_path / "list.mp3", SETTINGS)


def test_a_wrong_suffix_is_reported_and_the_content_used(tmp_path: Path) -> None:
    (tmp_path / "wrong.mp3").write_bytes(encoded(TEN, "WAV"))
    (tmp_path / "right.wav").write_bytes(encoded(TEN, "WAV"))
    wrong, right = decode(tmp_path / "wrong.mp3", SETTINGS), decode(tmp_path / "right.wav", SETTINGS)
    assert wrong.problems == (("mislabelled-audio", "the name says mp3, the content is wav"),)
    assert right.problems == ()
    np.testing.assert_array_equal(wrong.clip.samples, right.clip.samples)


def test_samples_that_are_no_numbers_are_silence() -> None:
    samples = tone(440, 3.0)
    samples[1000:1010] = np.nan
    samples[2000] = np.inf
    decoded = of(encoded(samples, "WAV", "FLOAT"))
    assert decoded.problems == (("damaged-audio", "11 samples are not numbers, read as silence"),)
    assert np.isfinite(decoded.clip.samples).all()


def test_silence_is_usable_and_reported() -> None:
    decoded = of(encoded(np.zeros(3 * RATE, np.float32), "WAV"))
    assert kinds(decoded) == ["silent-audio"]
    assert len(decoded.clip.samples) == 48_000
