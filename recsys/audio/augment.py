"""A clip in, the same music as another recorder or radio would have given it: distorted, but to be known again.

    samples (n,), rng  ->  augmented  ->  samples (m,), m <= n: shift, equalise, band-pass, gain, noise, mp3
    log-mel (n, n_mels, n_frames)  ->  masked  ->  the same shape, with stripes of silence (SpecAugment)

Each step is a pure function of samples at a sample rate, mono float32 in [-1, 1] in and out, and may be used alone:
training draws them at random, evaluation takes each by itself. All randomness comes from the generator that is
given. SpecAugment is Park et al., Interspeech 2019, without its time warp. Nothing is decoded from files here.
"""

import io
from functools import lru_cache

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt
from torch import Tensor

from recsys.audio.settings import AugmentSettings, MaskSettings
from recsys.errors import DataError
from recsys.types import Float32

_LOWEST_BAND_HZ = 62.5  # the equaliser's first knob; the others follow an octave apart
_BAND_ORDER = 4  # of the Butterworth filter: its slopes fall by 24 dB an octave
_MP3_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_MOST_DELAY = 4_096  # samples; LAME's encoder and mpg123's decoder add 1,105 together
_BLOCK_SAMPLES = 65_536  # that libsndfile's encoder gets at a time


def augmented(samples: Float32, sample_rate: int, settings: AugmentSettings, rng: np.random.Generator) -> Float32:
    """Draw a chain of distortions and pass a clip through it; the same generator state gives the same chain.

    The order is that of a recording on its way: where it starts, the room, the level, the noise, the encoder. A shift
    drops half of the clip at the most. A band that reaches above half of the sample rate is left out.

    Args:
        samples: (n,) float32. sample_rate: in Hz. settings: shares and ranges. rng: advanced by the draws.

    Returns:
        (m,) float32, m <= n.
    """

    def taken(share: float) -> bool:
        return bool(rng.random() < share)

    if taken(settings.shift_share):
        samples = shifted(samples, sample_rate, min(rng.uniform(*settings.shift_s), len(samples) / sample_rate / 2))
    if taken(settings.equalise_share):
        samples = equalised(samples, sample_rate, settings.equalise_db, rng)
    if taken(settings.band_share):
        low_hz, high_hz = rng.uniform(*settings.band_low_hz), rng.uniform(*settings.band_high_hz)
        samples = band_passed(samples, sample_rate, low_hz, high_hz) if high_hz < sample_rate / 2 else samples
    if taken(settings.gain_share):
        samples = amplified(samples, rng.uniform(*settings.gain_db))
    if taken(settings.noise_share):
        samples = with_noise(samples, rng.uniform(*settings.noise_snr_db), rng)
    if taken(settings.mp3_share):
        samples = as_mp3(samples, sample_rate, rng.uniform(*settings.mp3_kbit_s))
    return samples


def shifted(samples: Float32, sample_rate: int, seconds: float) -> Float32:
    """Start ``seconds`` (>= 0) later: the beginning is dropped, so the clip gets shorter.

    Raises:
        DataError: nothing would be left.
    """
    first = round(seconds * sample_rate)
    if not 0 <= first < len(samples):
        length_s = len(samples) / sample_rate
        raise DataError(
            f"a clip of {length_s:.2f} s cannot start {seconds:g} s later; shift it by less than its length"
        )
    return samples[first:]


def with_noise(samples: Float32, snr_db: float, rng: np.random.Generator) -> Float32:
    """Add white Gaussian noise, ``snr_db`` below the clip's mean power; a silent clip stays silent.

    What then lies outside [-1, 1] is clipped.
    """
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    noise = rng.standard_normal(len(samples), dtype=np.float32)
    scale = np.sqrt(power / 10 ** (snr_db / 10))
    return _clipped(samples + noise * np.float32(scale))


def amplified(samples: Float32, gain_db: float) -> Float32:
    """Multiply by 10^(gain_db / 20) and clip to [-1, 1], as a recorder with a wrong level does."""
    return _clipped(samples * np.float32(10 ** (gain_db / 20)))


def equalised(samples: Float32, sample_rate: int, most_db: float, rng: np.random.Generator) -> Float32:
    """Turn an octave equaliser's knobs at random, each uniform between -``most_db`` and ``most_db``.

    The knobs stand an octave apart from 62.5 Hz; between them the gain in dB is linear in log frequency. No phase is
    turned (the filter is applied to the whole clip's spectrum). Clipped to [-1, 1].
    """
    n_knobs = max(1, 1 + int(np.log2(sample_rate / 2 / _LOWEST_BAND_HZ)))
    knobs_db = rng.uniform(-most_db, most_db, n_knobs)
    frequencies = np.fft.rfftfreq(2 * len(samples), 1 / sample_rate)  # padded, so that the end does not wrap around
    octaves = np.log2(np.maximum(frequencies, _LOWEST_BAND_HZ) / _LOWEST_BAND_HZ)
    gains = 10 ** (np.interp(octaves, np.arange(n_knobs), knobs_db) / 20)
    filtered = np.fft.irfft(np.fft.rfft(samples, 2 * len(samples)) * gains, 2 * len(samples))
    return _clipped(filtered[: len(samples)])


def band_passed(samples: Float32, sample_rate: int, low_hz: float, high_hz: float) -> Float32:
    """Keep a band by a Butterworth filter: -3 dB at both ends, 24 dB an octave outside. 300-3400 Hz is a telephone.

    Raises:
        DataError: the band is empty or reaches half of the sample rate.
    """
    if not 0 < low_hz < high_hz < sample_rate / 2:
        most_hz = sample_rate / 2
        raise DataError(f"a band of {low_hz:g}-{high_hz:g} Hz, expected ends that rise between 0 and {most_hz:g} Hz")
    sections = butter(_BAND_ORDER, (low_hz, high_hz), "bandpass", fs=sample_rate, output="sos")
    return _clipped(sosfilt(sections, samples))


def as_mp3(samples: Float32, sample_rate: int, kbit_s: float) -> Float32:
    """Encode as mp3 at a constant bit rate and decode: as long as before, and aligned with it.

    MPEG's nearest bit rate is taken: 8-160 kbit/s at 16 to 24 kHz, 32-320 above, 8-64 below.

    Raises:
        DataError: mp3 knows no such sample rate or bit rate, or the encoder failed.
    """
    least, most = _mp3_kbit_s(sample_rate)
    if not least <= kbit_s <= most:
        raise DataError(f"mp3 at {kbit_s:g} kbit/s, expected {least}-{most} at {sample_rate} Hz")
    kbit_s = round(kbit_s)  # MPEG's steps are 8 or more apart, and the delay is asked once for each
    delay = _mp3_delay(sample_rate, kbit_s)
    decoded = _through_mp3(samples, sample_rate, kbit_s)[delay : delay + len(samples)]
    if len(decoded) < len(samples):
        raise DataError(f"mp3 at {kbit_s:g} kbit/s gave back {len(decoded)} of {len(samples)} samples")
    return _clipped(decoded)


def _mp3_kbit_s(sample_rate: int) -> tuple[int, int]:
    """Least and most bit rate of the MPEG version that has this sample rate."""
    if sample_rate not in _MP3_RATES_HZ:
        raise DataError(f"mp3 has no sample rate of {sample_rate} Hz, only {', '.join(map(str, _MP3_RATES_HZ))}")
    if sample_rate >= 32_000:
        return 32, 320
    return (8, 160) if sample_rate >= 16_000 else (8, 64)


@lru_cache(maxsize=128)
def _mp3_delay(sample_rate: int, kbit_s: int) -> int:
    """Find by how many samples an mp3 comes late, on a noise burst that has no period.

    Asked, not assumed: below about 48 kbit/s a frame has no room for the header that tells the decoder what to
    drop (LAME 3.100 in libsndfile 1.2.2: 1,105 samples then, 0 above).
    """
    noise = np.random.default_rng(0).standard_normal(4 * _MOST_DELAY)
    burst = _clipped(sosfilt([[0.1, 0, 0, 1, -0.9, 0]], noise))  # mostly low, as encoders keep
    heard = _through_mp3(burst, sample_rate, kbit_s)
    n = 2 * (len(burst) + len(heard))
    likeness = np.fft.irfft(np.fft.rfft(heard, n) * np.conj(np.fft.rfft(burst, n)), n)
    return int(np.argmax(likeness[:_MOST_DELAY]))


def _through_mp3(samples: Float32, sample_rate: int, kbit_s: float) -> Float32:
    least, most = _mp3_kbit_s(sample_rate)
    level = min((most - kbit_s) / (most - least), 0.9999)  # libsndfile maps 0-1 to the highest-lowest bit rate
    file = io.BytesIO()
    try:
        with soundfile.SoundFile(
            *(file, "w", sample_rate, 1, "MPEG_LAYER_III"),
            format="MP3",
            compression_level=level,
            bitrate_mode="CONSTANT",
        ) as sound:
            for start in range(0, len(samples), _BLOCK_SAMPLES):
                sound.write(samples[start : start + _BLOCK_SAMPLES])
        file.seek(0)
        decoded, _ = soundfile.read(file, dtype="float32")
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(f"{len(samples)} samples cannot be encoded as mp3 ({error})") from error
    made: Float32 = decoded
    return made


def masked(spectrograms: Tensor, settings: MaskSettings, rng: np.random.Generator) -> Tensor:
    """Silence random stretches of time and of mel bands, each spectrogram its own (SpecAugment).

    Args:
        spectrograms: (n, n_mels, n_frames) log-mel, in which 0 is silence; not written to.
        settings: how many masks, and the most that one covers; never more than there is.
        rng: advanced by the draws.
    """
    n, n_mels, n_frames = spectrograms.shape
    kept = torch.ones_like(spectrograms, dtype=torch.bool)
    for row in range(n):
        for _ in range(settings.n_time):
            start, end = _stretch(n_frames, settings.time_frames, rng)
            kept[row, :, start:end] = False
        for _ in range(settings.n_mel):
            start, end = _stretch(n_mels, settings.mel_bands, rng)
            kept[row, start:end] = False
    return spectrograms * kept


def _stretch(n: int, most: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a width from 0 to ``most``, then where it starts in ``n``."""
    width = int(rng.integers(min(most, n) + 1))
    start = int(rng.integers(n - width + 1))
    return start, start + width


def _clipped(samples: NDArray[np.floating]) -> Float32:
    inside: Float32 = np.clip(samples, -1.0, 1.0).astype(np.float32, copy=False)
    return inside
