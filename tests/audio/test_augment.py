"""Each distortion against what its units promise, and chains that follow their generator."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from helpers.audio_files import melody, tone
from recsys.audio.augment import (
    amplified,
    as_mp3,
    augmented,
    band_passed,
    equalised,
    masked,
    shifted,
    with_noise,
)
from recsys.audio.settings import AugmentSettings, MaskSettings
from recsys.errors import DataError
from recsys.types import Float32

RATE = 16_000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def music(seconds: float = 3.0) -> Float32:
    """A melody at 16 kHz: every 44.1 kHz sample's third is near enough for sounds below 3 kHz."""
    return np.ascontiguousarray(melody(seconds * 3)[::3, 0][: round(seconds * RATE)])


def level_db(samples: Float32) -> float:
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64))))


def test_a_shift_drops_the_beginning() -> None:
    samples = music()
    np.testing.assert_array_equal(shifted(samples, RATE, 0.5), samples[8000:])
    np.testing.assert_array_equal(shifted(samples, RATE, 0), samples)
    for seconds in (3.0, -0.1):
        with pytest.raises(DataError, match=r"3\.00 s cannot start"):
            shifted(samples, RATE, seconds)


@pytest.mark.parametrize("snr_db", [20.0, 10.0, 0.0])
def test_noise_has_the_power_it_says(snr_db: float) -> None:
    samples = tone(440, 3, RATE) / 2
    noise = with_noise(samples, snr_db, rng()) - samples
    assert level_db(samples) - level_db(noise) == pytest.approx(snr_db, abs=0.1)
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    low, high = np.split(spectrum[: len(spectrum) // 2 * 2], 2)
    assert low.mean() == pytest.approx(high.mean(), rel=0.05), "white: as much above 4 kHz as below"
    assert not with_noise(np.zeros(100, np.float32), snr_db, rng()).any()


def test_gain_is_in_decibels_of_amplitude_and_clips() -> None:
    sine = tone(1000, 1, RATE) / 4  # a peak of 1/8
    assert np.abs(amplified(sine, 6.0206)).max() == pytest.approx(0.25, rel=1e-3)
    assert np.abs(amplified(sine, -20)).max() == pytest.approx(0.0125, rel=1e-3)
    loud = amplified(tone(1000, 1, RATE), 12)  # a peak of 2
    assert np.abs(loud).max() == 1
    assert (np.abs(loud) == 1).mean() == pytest.approx(2 / 3, abs=0.05), "a sine is above half its peak 2/3 of the time"


@pytest.mark.parametrize(("hz", "least_db", "most_db"), [(1000, -0.2, 0.1), (300, -3.5, -2.5), (3400, -3.5, -2.5),
                                                         (75, -99, -45), (6800, -99, -24)])  # fmt: skip
def test_a_band_pass_keeps_its_band(hz: float, least_db: float, most_db: float) -> None:
    sine = tone(hz, 2, RATE)
    through = band_passed(sine, RATE, 300, 3400)
    assert len(through) == len(sine)
    assert least_db <= level_db(through[RATE:]) - level_db(sine[RATE:]) <= most_db


def test_a_band_needs_room() -> None:
    for low_hz, high_hz in ((300, 8000), (500, 400), (0, 400)):
        with pytest.raises(DataError, match="expected ends that rise between 0 and 8000 Hz"):
            band_passed(music(), RATE, low_hz, high_hz)


def test_the_equaliser_is_a_smooth_curve_within_its_range() -> None:
    impulse = np.zeros(8000, np.float32)
    impulse[4000] = 0.1
    answer = equalised(impulse, RATE, 6, rng(3))
    gains_db = 20 * np.log10(np.abs(np.fft.rfft(answer)) / 0.1)
    assert gains_db.min() > -6.5
    assert gains_db.max() < 6.5
    knobs = rng(3).uniform(-6, 6, 8)  # 62.5 Hz to 8 kHz
    for octave, knob_db in enumerate(knobs[2:7], start=2):
        assert gains_db[round(62.5 * 2**octave / 2)] == pytest.approx(knob_db, abs=0.3)  # bins of 2 Hz
    assert int(np.argmax(np.abs(answer))) == 4000, "no delay"
    np.testing.assert_allclose(equalised(music(), RATE, 0, rng()), music(), atol=1e-6)


@pytest.mark.parametrize(("rate", "kbit_s"), [(16_000, 32), (16_000, 64), (8_000, 16), (44_100, 48)])
def test_an_mp3_is_aligned_and_of_the_same_length(rate: int, kbit_s: float) -> None:
    samples = music(2.0)[:-37]
    back = as_mp3(samples, rate, kbit_s)
    assert (len(back), back.dtype) == (len(samples), np.float32)
    likeness = np.fft.irfft(np.fft.rfft(back, 2**17) * np.conj(np.fft.rfft(samples, 2**17)))
    assert int(np.argmax(likeness)) == 0
    assert 0.9 < np.corrcoef(back, samples)[0, 1] < 0.99999


def test_fewer_bits_lose_more() -> None:
    noise = rng().standard_normal(RATE).astype(np.float32) * np.float32(0.1)
    errors = [level_db(as_mp3(noise, RATE, kbit_s) - noise) for kbit_s in (160, 64, 16)]
    assert errors == sorted(errors)


def test_what_mp3_cannot_do_is_said() -> None:
    with pytest.raises(DataError, match=r"4 kbit/s, expected 8-160 at 16000 Hz"):
        as_mp3(music(), RATE, 4)
    with pytest.raises(DataError, match=r"no sample rate of 17000 Hz"):
        as_mp3(music(), 17_000, 32)


def test_masks_are_stripes_of_silence_and_leave_the_rest() -> None:
    spectrograms = 1 + torch.rand(6, 96, 187)
    before = spectrograms.clone()
    settings = MaskSettings(n_time=1, time_frames=40, n_mel=2, mel_bands=16)
    made = masked(spectrograms, settings, rng())
    assert torch.equal(spectrograms, before)
    silent = made == 0
    assert torch.equal(made[~silent], before[~silent])
    frames, bands = silent.all(dim=1), silent.all(dim=2)
    assert torch.equal(silent, frames[:, None] | bands[:, :, None])
    assert int(frames.sum(dim=1).max()) <= 40
    assert int(bands.sum(dim=1).max()) <= 32
    assert len({tuple(row.tolist()) for row in frames}) == 6, "each spectrogram has masks of its own"
    assert torch.equal(masked(spectrograms, MaskSettings(n_time=0, n_mel=0), rng()), before)


def test_a_mask_wider_than_the_spectrogram_is_cut() -> None:
    settings = MaskSettings(n_time=3, time_frames=500, n_mel=3, mel_bands=500)
    assert masked(torch.ones(2, 4, 5), settings, rng()).shape == (2, 4, 5)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32), seconds=st.floats(0.2, 1.0))
def test_a_chain_follows_its_generator(seed: int, seconds: float) -> None:
    samples, settings = music(seconds), AugmentSettings()
    before = samples.copy()
    one, other = (augmented(samples, RATE, settings, rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(samples, before)
    assert one.dtype == np.float32
    assert len(samples) // 2 <= len(one) <= len(samples)
    assert np.abs(one).max() <= 1


def test_shares_say_what_is_done() -> None:
    none = AugmentSettings(**{f"{step}_share": 0 for step in ("shift", "equalise", "band", "gain", "noise", "mp3")})
    np.testing.assert_array_equal(augmented(music(), RATE, none, rng()), music())
    only = none.model_copy(update={"gain_share": 1.0, "gain_db": (-6.0, -6.0)})
    np.testing.assert_array_equal(augmented(music(), RATE, only, rng()), amplified(music(), -6))
    half = none.model_copy(update={"gain_share": 0.5, "gain_db": (-6.0, -6.0)})
    generator = rng()
    n_changed = sum(not np.array_equal(augmented(music(0.1), RATE, half, generator), music(0.1)) for _ in range(200))
    assert 70 < n_changed < 130


def test_ranges_that_make_no_sense_are_refused() -> None:
    wrongs = ({"shift_s": (3, 1)}, {"mp3_kbit_s": (0, 8)}, {"band_low_hz": (50, 4000)}, {"gain_share": 2})
    for wrong in wrongs:
        with pytest.raises(ValidationError):
            AugmentSettings(**wrong)
