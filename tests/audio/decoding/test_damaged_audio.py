"""Damaged files: where one decoder gives less than there should be the other tries, and it is told."""

import io
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache

import numpy as np
import pytest

from helpers.audio_files import RATE, bare_mp3, encoded, encoded_by_ffmpeg, melody, of_unknown_length, packed
from recsys.audio.decoding import decode as decoding
from recsys.audio.decoding.containers import look
from recsys.audio.decoding.decode import Decoded, decode
from recsys.audio.decoding.readers import AvReader, FramedReader, SndfileReader, open_other
from recsys.audio.settings import DecodeSettings

SETTINGS = DecodeSettings(clip_s=10.0)
SONG = melody(30.0)
SEVERAL = (0.08, 0.3, 0.45, 0.52, 0.85)


@cache
def song_as(container: str, codec: str) -> bytes:
    """The song as FFmpeg writes it; encoded when a test asks for it, not when the file is read."""
    return packed(SONG, container, codec)


def mp3() -> bytes:
    return song_as("mp3", "libmp3lame")


@cache
def flac() -> bytes:
    return encoded(SONG, "FLAC")


@cache
def middle() -> np.ndarray:
    """The ten seconds in the middle of the song, as they are decoded from what loses nothing."""
    return decode(io.BytesIO(encoded(SONG, "WAV")), SETTINGS).clip.samples


def of(content: bytes) -> Decoded:
    return decode(io.BytesIO(content), SETTINGS)


def flipped(content: bytes, *places: float) -> bytes:
    """Flip a bit at some shares of a file."""
    damaged = bytearray(content)
    for place in places:
        damaged[int(len(content) * place)] ^= 0x10
    return bytes(damaged)


def overwritten(content: bytes, n_bytes: int, *places: float, seed: int | None = 1) -> bytes:
    """Write noise, or zeros, over some places of a file."""
    rng, damaged = np.random.default_rng(seed), bytearray(content)
    for place in places:
        at = int(len(content) * place)
        damaged[at : at + n_bytes] = bytes(n_bytes) if seed is None else rng.bytes(n_bytes)
    return bytes(damaged)


def kinds(decoded: Decoded) -> list[str]:
    return [problem.kind for problem in decoded.problems]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "least_s"),
    [
        (lambda: flipped(flac(), 0.5), 29.9),
        (lambda: flipped(flac(), *SEVERAL), 29.5),
        (lambda: overwritten(flac(), 3000, *SEVERAL), 29.0),
        (lambda: flipped(of_unknown_length(flac()), 0.5), 29.9),
        (lambda: overwritten(of_unknown_length(flac()), 3000, 0.4, 0.5), 29.0),
        (lambda: overwritten(mp3(), 3000, 0.5), 29.5),
        (lambda: overwritten(mp3(), 3000, *SEVERAL), 28.5),
        (lambda: overwritten(mp3(), 60_000, 0.4, seed=None), 25.0),
        (lambda: overwritten(bare_mp3(mp3()), 3000, 0.5), 29.0),
        (lambda: overwritten(bare_mp3(mp3()), 3000, *SEVERAL, seed=None), 28.5),
        (lambda: overwritten(song_as("wav", "libmp3lame"), 3000, *SEVERAL), 28.5),
        (lambda: overwritten(song_as("adts", "aac"), 3000, *SEVERAL), 28.5),
    ],
    ids=[
        "flac-bit", "flac-bits", "flac", "flac-piped-bit", "flac-piped", "mp3", "mp3-several", "mp3-hole",
        "mp3-bare", "mp3-bare-holes", "mp3-in-wav", "adts",
    ],
)  # fmt: skip
def test_what_lies_behind_an_error_is_heard(content: Callable[[], bytes], least_s: float) -> None:
    decoded = of(content())
    assert kinds(decoded) == ["damaged-audio"]
    assert least_s <= decoded.clip.duration_s <= 30.1
    assert len(decoded.clip.samples) == 160_000
    level = np.abs(decoded.clip.samples.reshape(-1, 16_000)).max(axis=1)
    assert (level > 0.05).sum() >= 7, "there is sound in nearly every second of it"


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        lambda: overwritten(encoded(SONG, "OGG"), 3000, *SEVERAL),
        lambda: overwritten(packed(SONG, "ogg", "libopus", rate=48_000), 3000, *SEVERAL),
        lambda: overwritten(encoded_by_ffmpeg(SONG, "mp4", "aac"), 2000, 0.3, 0.5, 0.6),
        lambda: overwritten(song_as("matroska", "libmp3lame"), 3000, 0.3, 0.5, 0.6),
    ],
    ids=["ogg", "opus", "m4a", "mka"],
)
def test_a_packet_that_does_not_decode_costs_only_itself(content: Callable[[], bytes]) -> None:
    decoded = of(content())
    assert decoded.clip.duration_s >= 27.0
    assert len(decoded.clip.samples) == 160_000
    assert set(kinds(decoded)) <= {"damaged-audio"}


def test_a_short_flac_with_one_bad_frame_is_whole_but_for_it() -> None:
    song = melody(12.0)
    decoded = decode(io.BytesIO(flipped(encoded(song, "FLAC"), 0.3)), DecodeSettings())
    assert kinds(decoded) == ["damaged-audio"]
    assert decoded.clip.duration_s == pytest.approx(12.0, abs=0.2)
    assert len(decoded.clip.samples) == pytest.approx(12 * 16_000, abs=3200)


@pytest.mark.slow
def test_the_end_that_is_missing_is_told_as_that() -> None:
    for content in (
        flac()[: len(flac()) // 2],
        of_unknown_length(flac())[: len(flac()) // 2],
        mp3()[: len(mp3()) // 2],
    ):
        decoded = of(content)
        assert kinds(decoded) == ["truncated-audio"]
        assert decoded.clip.duration_s == pytest.approx(15.0, abs=0.5)
    adts = song_as("adts", "aac")
    assert kinds(of(adts[: len(adts) // 2])) == ["truncated-audio"]


def test_a_flac_from_a_pipe_of_which_no_frame_is_at_the_end_is_heard_from_its_start() -> None:
    decoded = of(of_unknown_length(flac()) + bytes(1_200_000))
    assert decoded.clip.duration_s == pytest.approx(30.0, abs=0.2)
    assert alike(decoded.clip.samples)


def alike(samples: np.ndarray) -> bool:
    """Whether it is the middle of the song."""
    return float(samples @ middle() / np.linalg.norm(samples) / np.linalg.norm(middle())) > 0.9


def test_each_library_has_the_other_beside_it() -> None:
    """FFmpeg comes first where a FLAC from a pipe has lost its end."""
    with ExitStack() as stack:
        file = io.BytesIO(flac())
        first = SndfileReader(file, stack)
        other = open_other(file, look(file), first, stack)
        assert isinstance(other, AvReader)
        assert isinstance(open_other(file, look(file), other, stack), SndfileReader)
        mp4 = io.BytesIO(encoded_by_ffmpeg(SONG, "mp4", "aac"))
        assert open_other(mp4, look(mp4), AvReader(mp4, stack), stack) is None, "libsndfile does not know it"


class Longer:
    """A reader of so many frames, whatever is declared."""

    format, sample_rate = "mp3", RATE

    def __init__(self, n_frames: int, declared: int) -> None:
        self.n_frames, self._n = declared, n_frames

    def blocks(self, start: int, n_frames: int | None = None):  # type: ignore[no-untyped-def]
        end = self._n if n_frames is None else min(self._n, start + n_frames)
        yield np.full(max(0, end - start), 0.5, np.float32)


@pytest.mark.parametrize(
    ("first_s", "other_s", "heard_s"),
    [(5, 8, 8), (5, 5, 5), (8, 5, 8), (5, 11, 5)],
    ids=["the longer", "both", "the first", "made up"],
)
def test_the_longer_is_taken_unless_it_is_longer_than_the_frames(
    first_s: int, other_s: int, heard_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten seconds that there should be."""
    first, other = Longer(first_s * RATE, 10 * RATE), Longer(other_s * RATE, 10 * RATE)
    monkeypatch.setattr(decoding, "open_reader", lambda *_: first)
    monkeypatch.setattr(decoding, "open_other", lambda *_: other)
    monkeypatch.setattr(decoding, "_whole", lambda *_: None)
    decoded = of(mp3())
    assert decoded.clip.duration_s == heard_s
    assert len(decoded.clip.samples) == min(10, heard_s) * 16_000
    assert kinds(decoded) == ["damaged-audio"]


def test_whole_files_are_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other decoder costs nothing where there is nothing to mend, and neither does counting."""
    monkeypatch.setattr(decoding, "open_other", None)
    for content in (
        flac(),
        mp3(),
        bare_mp3(mp3()),
        of_unknown_length(flac()),
        encoded(SONG, "OGG"),
        song_as("adts", "aac"),
    ):
        assert of(content).problems == ()
    monkeypatch.setattr(FramedReader, "__init__", None)
    assert of(mp3()).problems == ()
