"""A planned song played: genre patterns, the artist's instruments, chance within the style.

    Song  ->  perform  ->  (n_samples,) float32 in [-1, 1]

Four layers (drums, bass, chords, lead) on a grid of sixteenths, one chord a bar. Each layer is played as
the artist's genre would, or as the genre it is borrowed from; key and scale stay the song's own. Samples
are made in ``pipelines.synth.sound``; files are written in ``pipelines.synth.files``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from pipelines.synth.genres import SCALES, VOICES, VOICINGS, Genre, Voice
from pipelines.synth.plan import Song
from pipelines.synth.sound import clipped, hertz, master, place, stroke, tone
from recsys.types import Float32

_STEPS = 16  # sixteenths in a bar
_BASS_STEPS = {"r": 0, "t": 2, "f": 4, "o": 7}  # scale steps above the chord's root
_GAINS = {"drums": 0.9, "bass": 0.42, "chords": 0.3, "lead": 0.34}
_DRUM_GAINS = {"kick": 1.0, "snare": 0.6, "clap": 0.6, "hat": 0.3, "ride": 0.3, "shaker": 0.35}
_LOWEST_BASS, _LOWEST_CHORD, _LOWEST_LEAD = 28, 48, 62  # midi notes that the key's lowest octave starts above


_Hit = tuple[float, Float32, float]  # when it starts in seconds, its samples, its gain


@dataclass(frozen=True, slots=True)
class _Score:
    """A song on its grid: when each sixteenth sounds, in which chord it stands, how scale steps are tuned."""

    song: Song
    progression: tuple[int, ...]
    step_s: float
    n_bars: int
    sample_rate: int
    rng: np.random.Generator

    def time(self, bar: int, step: int) -> float:
        """Start of a step in seconds; off-beats are late by the swing."""
        late = 2.0 if step % 4 == 2 else float(step % 2)
        return (bar * _STEPS + step + self.song.artist.genre.swing * late) * self.step_s

    def root(self, bar: int) -> int:
        """Scale step of the bar's chord."""
        return self.progression[bar % len(self.progression)]

    def note(self, voice: Voice, scale_step: int, lowest: int, n_steps: float) -> Float32:
        """Play a scale step above the first key note at or above the midi note ``lowest``."""
        artist = self.song.artist
        scale = SCALES[artist.genre.scale]
        octave, degree = divmod(scale_step, len(scale))
        key = lowest + (artist.key - lowest) % 12
        hz = hertz(key + 12 * octave + scale[degree] + artist.detune_cents / 100)
        return tone(voice, hz, n_steps * self.step_s, self.song.brightness, self.sample_rate)


def perform(song: Song, clip_s: float, sample_rate: int) -> Float32:
    """Play ``clip_s`` seconds of a song; the same song, the same samples."""
    rng = np.random.default_rng([*song.seed, 3])
    artist = song.artist
    step_s = 60.0 / song.bpm / 4
    progression = artist.genre.progressions[int(rng.integers(len(artist.genre.progressions)))]
    n_bars = int(np.ceil(clip_s / (_STEPS * step_s)))
    score = _Score(song, progression, step_s, n_bars, sample_rate, rng)
    styles = {name: artist.influence if name in song.borrowed else artist.genre for name in _GAINS}
    lead = artist.lead_voice if "lead" not in song.borrowed else artist.influence.lead_voices[0]
    bass_voice, chord_voice, lead_voice = (
        VOICES[styles["bass"].bass_voice],
        VOICES[artist.chord_voice],
        VOICES[lead],
    )
    layers: tuple[tuple[str, Iterator[_Hit], float], ...] = (
        ("drums", _drums(score, styles["drums"]), 0.0),
        ("bass", _bass(score, styles["bass"], bass_voice), bass_voice.drive),
        ("chords", _chords(score, styles["chords"], chord_voice), chord_voice.drive),
        ("lead", _lead(score, styles["lead"], lead_voice), lead_voice.drive),
    )
    mix = np.zeros(int(clip_s * sample_rate), dtype=np.float32)
    for name, hits, drive in layers:
        layer = np.zeros_like(mix)
        for start_s, samples, gain in hits:
            place(layer, samples, start_s, gain, sample_rate)
        mix += np.float32(_GAINS[name]) * clipped(layer, drive)
    return master(clipped(mix, artist.drive), artist.reverb, song.brightness, sample_rate, rng)


def _drums(score: _Score, style: Genre) -> Iterator[_Hit]:
    rng = score.rng
    for drum, pattern in style.drums.items():
        samples = stroke(drum, score.song.brightness, score.sample_rate, rng)
        for bar, (step, mark) in product(range(score.n_bars), enumerate(pattern)):
            ghost = mark == "." and rng.uniform() < 0.03
            if ghost or (mark == "x" and rng.uniform() < 0.97):
                strength = 0.4 if ghost else rng.uniform(0.8, 1.0)
                yield score.time(bar, step), samples, _DRUM_GAINS[drum] * strength


def _bass(score: _Score, style: Genre, voice: Voice) -> Iterator[_Hit]:
    for bar, (step, n_steps, mark) in product(range(score.n_bars), _strokes(style.bass)):
        samples = score.note(voice, score.root(bar) + _BASS_STEPS[mark], _LOWEST_BASS, 0.9 * n_steps)
        yield score.time(bar, step), samples, score.rng.uniform(0.85, 1.0)


def _chords(score: _Score, style: Genre, voice: Voice) -> Iterator[_Hit]:
    voicing = VOICINGS[style.voicing]
    for bar, (step, n_steps, mark) in product(range(score.n_bars), _strokes(style.chords)):
        picked = voicing if mark == "x" else (voicing[int(mark)],)
        for above in picked:
            samples = score.note(voice, score.root(bar) + above, _LOWEST_CHORD, 0.8 * n_steps)
            yield score.time(bar, step), samples, score.rng.uniform(0.8, 1.0) / len(picked) ** 0.5


def _lead(score: _Score, style: Genre, voice: Voice) -> Iterator[_Hit]:
    """Play a motif of two bars, moved to each bar's chord; it walks by scale steps and seldom leaps."""
    heard = score.rng.uniform(size=(2, _STEPS // 2)) < style.lead_density  # on eighths
    heard[0, 0] = True
    walk = np.cumsum(score.rng.choice([-2, -1, -1, 0, 1, 1, 2, 4], size=heard.size))
    melody = np.clip(walk, -4, 7).reshape(heard.shape)
    for bar in range(score.n_bars):
        half = bar % 2
        pattern = "".join("x." if on else ".." for on in heard[half])
        for step, n_steps, _ in _strokes(pattern):
            scale_step = score.root(bar) + int(melody[half, step // 2])
            samples = score.note(voice, scale_step, _LOWEST_LEAD, 0.9 * min(n_steps, 6))
            yield score.time(bar, step), samples, score.rng.uniform(0.7, 1.0)


def _strokes(pattern: str) -> Iterator[tuple[int, int, str]]:
    """Walk over a pattern's marks: step, steps until the next mark or the end of the bar, mark."""
    steps = [step for step, mark in enumerate(pattern) if mark != "."]
    for step, following in pairwise([*steps, len(pattern)]):
        yield step, following - step, pattern[step]
