"""The synthesiser: notes and drum strokes in, samples out.

    Voice, pitch, length  ->  tone  ->  samples          Drum  ->  stroke  ->  samples
    layers  ->  master  ->  (n_samples,) float32 in [-1, 1]

Wavetable oscillators limited to the harmonics below half the sample rate, phase modulation for bells and
electric pianos (Chowning 1973), clipped saws for fuzz, shaped noise for drums, convolution with decaying
noise for a room. It knows nothing of keys, bars or genres.
"""

import numpy as np
from scipy.signal import fftconvolve

from pipelines.synth.genres import Drum, Voice
from recsys.types import Float32

_TABLE_BITS = 11
_TABLE_SIZE = 1 << _TABLE_BITS  # without interpolation its noise lies near -60 dB, below what 64 kbit/s keeps
_MAX_HARMONICS = 48
_DRAWBARS = (1, 2, 3, 4, 6, 8)
_VIBRATO_HZ = 5.5
_TILT_PER_BRIGHTNESS = 0.35  # one unit of brightness flattens the harmonic series by this exponent
_LEVEL = 0.18  # root mean square of every song, -15 dB
_CEILING = 0.891  # -1 dB, so that mp3 decoders do not clip


def hertz(midi: float) -> float:
    """Convert a midi note number (69 is A at 440 Hz) to Hz."""
    return float(440.0 * 2.0 ** ((midi - 69.0) / 12.0))


def _wavetable(voice: Voice, tilt: float, hz: float, sample_rate: int) -> Float32:
    n_harmonics = max(1, min(_MAX_HARMONICS, int(0.45 * sample_rate / hz)))
    h = np.arange(1, n_harmonics + 1)
    amplitude = h.astype(np.float64) ** -max(tilt, 0.3)
    if voice.harmonics == "odd":
        amplitude[h % 2 == 0] = 0.0
    elif voice.harmonics == "organ":
        amplitude[~np.isin(h, _DRAWBARS)] = 0.0
    spectrum = np.zeros(_TABLE_SIZE // 2 + 1, dtype=np.complex128)
    spectrum[1 : n_harmonics + 1] = -1j * amplitude
    wave = np.fft.irfft(spectrum, _TABLE_SIZE)
    return np.asarray(wave / np.sqrt(np.mean(wave**2)), dtype=np.float32)


def _envelope(voice: Voice, length_s: float, t: Float32) -> Float32:
    attack = np.minimum(t / np.float32(voice.attack_s), 1.0)
    release = np.clip((np.float32(length_s + voice.release_s) - t) / np.float32(voice.release_s), 0.0, 1.0)
    return np.asarray(attack * release * np.exp(-t / np.float32(voice.decay_s)), dtype=np.float32)


def tone(voice: Voice, hz: float, length_s: float, brightness: float, sample_rate: int) -> Float32:
    """Play one note.

    Returns (n_samples,) float32 of about unit power at its loudest, ``length_s`` plus the release long.
    ``brightness`` is 0 for the voice as it is, and about -2 to 2.
    """
    n = int((length_s + voice.release_s) * sample_rate)
    t = (np.arange(n) / sample_rate).astype(np.float32)
    cycles = hz * np.arange(n) / sample_rate  # float64: float32 drifts out of tune within seconds
    if voice.vibrato_cents:
        depth = hz * (2 ** (voice.vibrato_cents / 1200) - 1) / (2 * np.pi * _VIBRATO_HZ)
        cycles += depth * np.sin(2 * np.pi * _VIBRATO_HZ * t)
    darkening = np.exp(-t / np.float32(voice.darken_s))
    if voice.fm_index:
        strength = voice.fm_index * np.exp(0.3 * brightness) / (2 * np.pi)
        cycles += strength * darkening * np.sin(2 * np.pi * ((voice.fm_ratio * cycles) % 1.0))
    tilt = voice.tilt - _TILT_PER_BRIGHTNESS * brightness
    bright = _wavetable(voice, tilt, hz, sample_rate)
    dark = _wavetable(voice, tilt + 1.2, hz, sample_rate)
    wave = np.zeros(n, dtype=np.float32)
    copies = (-1.0, 0.0, 1.0) if voice.unison_cents else (0.0,)
    for copy in copies:
        ratio = 2 ** (copy * voice.unison_cents / 1200)
        place = ((cycles * ratio + 0.37 * copy) * _TABLE_SIZE).astype(np.int64) & (_TABLE_SIZE - 1)
        wave += dark[place] + darkening * (bright[place] - dark[place])
    return np.asarray(_envelope(voice, length_s, t) * wave / np.sqrt(len(copies)), dtype=np.float32)


def stroke(drum: Drum, brightness: float, sample_rate: int, rng: np.random.Generator) -> Float32:
    """Hit one drum; returns (n_samples,) float32, at most about 1 in size."""
    seconds = {"kick": 0.3, "snare": 0.25, "clap": 0.22, "hat": 0.09, "ride": 0.5, "shaker": 0.11}[drum]
    t = np.arange(int(seconds * sample_rate)) / sample_rate
    if drum == "kick":
        sweep = 48.0 * t + 110.0 * 0.035 * (1 - np.exp(-t / 0.035))  # falls from 158 to 48 Hz
        return np.asarray(np.sin(2 * np.pi * sweep) * np.exp(-t / 0.09), dtype=np.float32)
    noise = rng.uniform(-1, 1, len(t))
    hiss = np.diff(noise, prepend=0.0)  # + 6 dB an octave
    edge = np.exp(0.25 * brightness)
    if drum == "snare":
        body = np.sin(2 * np.pi * 185 * t) * np.exp(-t / 0.06)
        shaped = 0.6 * body + 0.5 * edge * noise * np.exp(-t / 0.07)
    elif drum == "clap":
        bursts = np.exp(-(t % 0.011) / 0.004) * (t < 0.033) + np.exp(-t / 0.06) * (t >= 0.033)
        shaped = 0.6 * edge * noise * bursts
    elif drum == "ride":
        metal = sum(np.sign(np.sin(2 * np.pi * f * t)) for f in (2090.0, 3170.0, 4230.0, 5410.0))
        shaped = 0.25 * edge * (hiss + 0.25 * metal) * np.exp(-t / 0.16)
    elif drum == "shaker":
        shaped = 0.35 * edge * hiss * np.sin(np.pi * np.minimum(t / 0.1, 1.0)) ** 2
    else:
        shaped = 0.5 * edge * hiss * np.exp(-t / 0.022)
    return np.asarray(shaped, dtype=np.float32)


def place(layer: Float32, sound: Float32, start_s: float, gain: float, sample_rate: int) -> None:
    """Add ``sound`` to ``layer`` in place, starting at ``start_s``; what runs past the end is cut."""
    start = int(start_s * sample_rate)
    room = max(0, min(len(sound), len(layer) - start))
    layer[start : start + room] += np.float32(gain) * sound[:room]


def clipped(layer: Float32, drive: float) -> Float32:
    """Overdrive a layer; 0 leaves it as it is, 4 is fuzz."""
    if not drive:
        return layer
    return np.asarray(np.tanh(drive * layer) / np.tanh(max(drive, 1.0)), dtype=np.float32)


def master(mix: Float32, reverb: float, brightness: float, sample_rate: int, rng: np.random.Generator) -> Float32:
    """Put the mix into a room, fade its ends and bring it to level; (n_samples,) float32 within -1 dB."""
    seconds = 0.4 + 1.6 * reverb
    t = np.arange(int(seconds * sample_rate)) / sample_rate
    room = rng.normal(size=len(t)) * np.exp(-t / (seconds / 4))
    room = np.convolve(room, np.full(4, 0.25), mode="same")  # walls swallow treble
    room /= np.sqrt(np.sum(room**2))
    wet = fftconvolve(mix, room.astype(np.float32))[: len(mix)]
    out = (1 - reverb) * mix + reverb * wet
    emphasis = 0.12 * np.clip(brightness, -2.0, 2.0)  # a shelf of the whole mix: drums follow the song's brightness
    out = out + np.float32(emphasis) * np.diff(out, prepend=np.float32(0.0)) * 4
    fade = min(len(out) // 2, int(0.03 * sample_rate))
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    out[:fade] *= ramp
    out[len(out) - fade :] *= ramp[::-1]
    loudness = np.sqrt(np.mean(out**2)) + 1e-9
    return np.asarray(_CEILING * np.tanh(_LEVEL / loudness * out), dtype=np.float32)
