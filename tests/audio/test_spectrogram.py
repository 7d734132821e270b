"""What the picture of a file shows, where, and what the command says when it cannot be drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from helpers.audio_files import encoded, tone
from helpers.command import run
from recsys.audio.logmel import log_mel
from recsys.audio.settings import AudioSettings, DecodeSettings, LogMelSettings, WorkerSettings
from recsys.audio.spectrogram import band_of, draw_spectrogram
from recsys.errors import DataError
from recsys.util.figures import printable, save_picture

pytestmark = pytest.mark.usefixtures("decoded_here")

HOP_S = 256 / 16_000


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds: 1 kHz, and from the sixth second on 4 kHz."""
    path = tmp_path_factory.mktemp("song") / "two $tones$.wav"
    path.write_bytes(encoded(np.concatenate([tone(1000, 6), tone(4000, 4)]), "WAV"))
    return path


def settings(clip_s: float = 30.0, **log_mel: int) -> AudioSettings:
    return AudioSettings(
        decode=DecodeSettings(clip_s=clip_s),
        log_mel=LogMelSettings(**log_mel),
        workers=WorkerSettings(n_workers=1),
    )


@pytest.mark.parametrize("hz", [300.0, 1000.0, 2500.0, 6000.0])
def test_frequencies_are_labelled_where_they_sound(hz: float) -> None:
    spectrogram = log_mel(torch.from_numpy(tone(hz, 1, 16_000))[None], LogMelSettings())[0]
    loudest = int(spectrogram.mean(dim=1).argmax())
    assert band_of(hz, LogMelSettings()) == pytest.approx(loudest, abs=0.8)


def test_the_ends_of_the_scale() -> None:
    assert band_of(0, LogMelSettings()) == -1  # the edge of the lowest band, of which 0 is the middle
    assert band_of(8000, LogMelSettings()) == pytest.approx(96)


def test_times_frequencies_and_patches(song: Path) -> None:
    figure = draw_spectrogram(song, settings())
    lanes, picture, bar = figure.axes
    (image,) = picture.images
    left, right, bottom, top = image.get_extent()
    values = np.asarray(image.get_array())
    assert values.shape == (96, 626)
    assert (left, bottom, top) == (-HOP_S / 2, -0.5, 95.5)
    assert right == pytest.approx(10.0, abs=HOP_S)
    assert (values[:, 100].argmax(), values[:, 500].argmax()) == (
        round(band_of(1000, LogMelSettings())),
        round(band_of(4000, LogMelSettings())),
    )
    ticks = dict(zip((text.get_text() for text in picture.get_yticklabels()), picture.get_yticks(), strict=True))
    assert ticks["4,000"] == pytest.approx(band_of(4000, LogMelSettings()))
    assert list(ticks)[-1] == "8,000", "nothing above half of the sample rate"
    assert [(box.get_x(), box.get_width()) for box in lanes.patches] == [
        (pytest.approx(n * 187 * HOP_S), pytest.approx(187 * HOP_S)) for n in range(3)
    ]
    assert [text.get_text() for text in lanes.texts] == ["1", "2", "3"]
    assert "1.04 s, shaded, are in no patch" in picture.get_xlabel()
    assert "two $tones$.wav: 10.0 s of wav, all of it\n16 kHz mono" in lanes.get_title(loc="left")
    assert "log10" in bar.get_ylabel()


def test_times_are_those_of_the_recording(song: Path) -> None:
    figure = draw_spectrogram(song, settings(clip_s=4.0, patch_hop_frames=60))
    lanes, picture, _ = figure.axes
    assert picture.images[0].get_extent()[0] == pytest.approx(3.0, abs=HOP_S)
    assert [box.get_x() for box in lanes.patches] == [pytest.approx(3.0), pytest.approx(3.0 + 60 * HOP_S)]
    assert {box.get_y() for box in lanes.patches} == {-0.4, -1.4}, "patches that overlap lie in lanes of their own"
    assert "4.0 s from the middle" in lanes.get_title(loc="left")


def test_several_stretches_are_seen_side_by_side(song: Path) -> None:
    asked = settings(clip_s=8.0)
    asked = asked.model_copy(update={"decode": asked.decode.model_copy(update={"n_stretches": 2})})
    lanes, picture, _ = draw_spectrogram(song, asked).axes
    of_stretch = 1 + 4 * 16_000 // 256
    assert picture.images[0].get_array().shape == (96, 2 * of_stretch)
    assert [box.get_x() for box in lanes.patches] == [0, pytest.approx(of_stretch * HOP_S)]
    assert "time in the clip, 2 stretches of the recording (s); 2.05 s, shaded" in picture.get_xlabel()
    assert "8.0 s in 2 stretches" in lanes.get_title(loc="left")


def test_less_than_a_patch_is_said_to_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "short.wav").write_bytes(encoded(tone(1000, 2), "WAV"))
    lanes, picture, _ = draw_spectrogram(tmp_path / "short.wav", settings()).axes
    assert "1 patch of 2.99 s, repeated to fill it" in lanes.get_title(loc="left")
    assert "shaded" not in picture.get_xlabel()


@pytest.mark.parametrize("suffix", [".png", ".svg", ".PNG"])
def test_the_command_writes_a_picture(song: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"song{suffix}"
    ran = run("spectrogram", song, "--out", out)
    assert (ran.status, ran.out) == (0, "")
    assert list(tmp_path.iterdir()) == [out]
    if suffix == ".svg":
        assert "<svg" in out.read_text(encoding="utf-8")
    else:
        assert imread(out).std() > 0.1


@pytest.mark.slow
@pytest.mark.usefixtures("apart")
def test_errors_are_one_line(song: Path, tmp_path: Path) -> None:
    (tmp_path / "no-audio.mp3").write_text("words")
    (tmp_path / "folder.png").mkdir()
    cases = (
        (tmp_path / "no-audio.mp3", tmp_path / "out.png", "no-audio.mp3 cannot be drawn: no decoder knows"),
        (tmp_path / "missing.mp3", tmp_path / "out.png", "missing.mp3 cannot be drawn: there is no such file"),
        (song, tmp_path / "out.gif", "out.gif is no known form of picture; use one of .png .svg"),
        (song, tmp_path / "nowhere" / "out.png", "there is no folder"),
        (song, tmp_path / "folder.png", "is a folder"),
        (song, tmp_path / f"{'long' * 70}.png", "cannot be written (File name too long)"),
    )
    for audio, out, reason in cases:
        ran = run("spectrogram", audio, "--out", out)
        assert ran.status == 2
        assert reason in ran.complaint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "no-audio.mp3"]


def test_nothing_is_left_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match="No space left"):
        save_picture(Figure(), tmp_path / "out.png")
    assert not list(tmp_path.iterdir())


def test_names_from_outside_are_drawn_as_they_are(tmp_path: Path) -> None:
    assert printable("a\nb\x1b\udcff", 80) == "a?b??"
    assert printable("x" * 90, 10) == "x" * 9 + "…"
    figure = Figure()
    figure.suptitle(printable("日本 $\\frac{$"))
    save_picture(figure, tmp_path / "out.png")
    with pytest.raises(DataError, match="no known form"):
        save_picture(figure, tmp_path / "out")
