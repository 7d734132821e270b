"""Silence is told and has no vector; where only the middle is silent, another stretch is heard."""

import io
from pathlib import Path

import numpy as np
import pytest

from helpers.audio_files import RATE, encoded, encoded_by_ffmpeg, melody, tone, write_all
from helpers.command import run
from helpers.stores import copied
from recsys.audio.decoding.decode import Decoded, decode
from recsys.audio.sample import read_sample
from recsys.audio.settings import AudioSettings, DecodeSettings, WorkerSettings
from recsys.live.add_track import NewTrack, add_track
from recsys.recommender import Recommender
from recsys.util.progress import Silent

pytestmark = pytest.mark.usefixtures("decoded_here")

SETTINGS = DecodeSettings(clip_s=4.0)
NOTHING = np.zeros(40 * RATE, np.float32)
SILENCE = encoded(NOTHING[: 3 * RATE], "WAV")


def of(samples: np.ndarray, settings: DecodeSettings = SETTINGS) -> Decoded:
    return decode(io.BytesIO(encoded(samples, "WAV", "FLOAT")), settings)


@pytest.mark.parametrize(("peak_db", "is_silent"), [(-69.5, False), (-70.5, True), (-75.0, True), (-200.0, True)])
def test_what_is_below_70_db_is_silence(peak_db: float, is_silent: bool) -> None:
    decoded = of(2 * tone(440, 6.0) * np.float32(10 ** (peak_db / 20)))
    assert decoded.is_silent == is_silent
    assert [problem.kind for problem in decoded.problems] == ["silent-audio"] * is_silent


def test_what_lies_below_zero_alone_is_heard_too() -> None:
    assert not of(-np.abs(tone(440, 6.0))).is_silent


@pytest.mark.parametrize("at_s", [0.0, 4.0, 9.0, 27.0, 36.0])
def test_another_stretch_is_heard_where_the_middle_is_silent(at_s: float) -> None:
    samples = NOTHING.copy()
    samples[round(at_s * RATE) : round((at_s + 4.0) * RATE)] = tone(440, 4.0)
    decoded = of(samples)
    assert decoded.problems == ()
    assert len(decoded.clip.samples) == 64_000
    assert float(np.abs(decoded.clip.samples).max()) > 0.4
    assert decoded.clip.duration_s == 40.0


@pytest.mark.slow
@pytest.mark.parametrize("container", ["FLAC", "OGG", "MP3", "m4a"])
def test_so_in_every_container(container: str) -> None:
    samples = np.concatenate([NOTHING, melody(6.0)[:, 0]])
    stereo = np.stack([samples, samples], axis=1)
    content = encoded_by_ffmpeg(stereo, "mp4", "aac") if container == "m4a" else encoded(stereo, container)
    decoded = decode(io.BytesIO(content), SETTINGS)
    assert decoded.problems == ()
    assert float(np.abs(decoded.clip.samples).max()) > 0.1


def test_several_stretches_move_together() -> None:
    samples = NOTHING.copy()
    samples[:RATE] = tone(440, 1.0)
    decoded = of(samples, DecodeSettings(clip_s=4.0, n_stretches=2))
    assert not decoded.is_silent
    assert float(np.abs(decoded.clip.samples[:16_000]).max()) > 0.4


def test_nothing_is_learned_from_silence(tmp_path: Path) -> None:
    paths = write_all(tmp_path, {"a.wav": SILENCE, "b.wav": encoded(melody(3.0), "WAV")})
    settings = AudioSettings(decode=SETTINGS, workers=WorkerSettings(n_workers=1))
    with (tmp_path / "scratch").open("w+b") as scratch:
        found, clips = read_sample([(3, paths[0]), (7, paths[1])], settings, scratch, Silent())
        assert (found.tolist(), len(clips)) == ([7], 1)


@pytest.fixture
def store(audio_store: Path, tmp_path: Path) -> Path:
    return copied(audio_store, tmp_path)


def test_an_upload_of_silence_is_a_track_without_sound(store: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing.wav").write_bytes(SILENCE)
    added = add_track(store, tmp_path / "nothing.wav", NewTrack("new", genre="jazz"))
    assert (added.track_id, added.known, added.has_sound) == ("new", False, False)
    assert [note for note in added.notes if "-70 dB" in note] == list(added.notes) != []
    opened = Recommender.open(store)
    assert opened.track("new")["duration_s"] == pytest.approx(3.0)
    assert opened.similar("new", 3, "content").tracks, "its genre places it"
    ran = run("similar", "new", "--store", store, "--space", "sound")
    assert "'new' has no vector in the space 'sound'" in ran.complaint
