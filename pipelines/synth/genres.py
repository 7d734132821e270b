"""The eight simulated genres as data: who plays what, how fast, in which scale.

A pattern is a bar of sixteen sixteenths, ``.`` is a rest. Chord patterns name chord tones (``0`` the root,
``1`` the next, …; ``x`` all at once), bass patterns ``r`` root, ``t`` third, ``f`` fifth, ``o`` octave.
Nothing here makes sound: ``pipelines.synth.sound`` plays the voices, ``pipelines.synth.music`` the
patterns. The genres are caricatures, and share scales, voices and tempi with their neighbours on purpose:
what one number sorts would test nothing.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Voice:
    """A timbre: a harmonic series that starts bright and darkens, under an attack-decay envelope."""

    harmonics: Literal["all", "odd", "organ"]
    tilt: float  # amplitude of harmonic h is h ** -tilt: 1 a saw (or, with odd ones, a square), 2 mellow
    attack_s: float
    decay_s: float  # to 1/e of the amplitude
    darken_s: float  # to 1/e of the brightness
    release_s: float = 0.05
    unison_cents: float = 0.0  # half the width of three detuned copies; 0 is one copy
    vibrato_cents: float = 0.0
    fm_ratio: float = 0.0  # frequency of the phase modulator over the note's own
    fm_index: float = 0.0  # its depth in radians when the note starts
    drive: float = 0.0  # how hard the layer is clipped


VOICES: dict[str, Voice] = {
    "supersaw": Voice("all", 1.0, 0.005, 0.5, 0.25, unison_cents=14),
    "square": Voice("odd", 1.0, 0.004, 0.6, 2.0, vibrato_cents=6),
    "chip": Voice("odd", 0.9, 0.001, 0.35, 9.0, release_s=0.01),
    "fuzz": Voice("all", 0.9, 0.003, 0.9, 2.0, unison_cents=7, drive=4.0),
    "scream": Voice("all", 1.1, 0.02, 1.5, 3.0, vibrato_cents=25, drive=2.5),
    "nylon": Voice("all", 1.4, 0.002, 0.45, 0.15, release_s=0.2),
    "steel": Voice("all", 1.0, 0.001, 0.6, 0.2, release_s=0.25),
    "fiddle": Voice("all", 1.2, 0.05, 3.0, 3.0, release_s=0.1, vibrato_cents=18),
    "whistle": Voice("odd", 2.6, 0.03, 3.0, 3.0, release_s=0.08, vibrato_cents=14),
    "sax": Voice("all", 1.3, 0.03, 2.0, 0.8, vibrato_cents=16, drive=0.8),
    "epiano": Voice("all", 3.0, 0.003, 0.9, 0.3, release_s=0.15, fm_ratio=1.0, fm_index=1.4),
    "bell": Voice("all", 4.0, 0.002, 1.6, 0.7, release_s=0.6, fm_ratio=3.5, fm_index=1.8),
    "organ": Voice("organ", 0.6, 0.006, 2.0, 4.0),
    "reed": Voice("odd", 1.2, 0.03, 2.0, 3.0, vibrato_cents=10),
    "pad": Voice("all", 1.6, 0.9, 9.0, 6.0, release_s=0.9, unison_cents=10),
    "glass": Voice("odd", 2.0, 0.5, 6.0, 5.0, release_s=0.9, unison_cents=6, fm_ratio=2.0, fm_index=0.5),
    "sub": Voice("odd", 3.0, 0.004, 0.6, 0.5, drive=0.6),
    "upright": Voice("all", 2.0, 0.004, 0.4, 0.12, release_s=0.08),
    "growl": Voice("all", 1.2, 0.004, 0.5, 0.15, drive=1.0),
    "chipbass": Voice("odd", 1.3, 0.001, 0.3, 9.0, release_s=0.01),
    "drone": Voice("odd", 2.4, 0.6, 9.0, 9.0, release_s=0.8),
}

SCALES: dict[str, tuple[int, ...]] = {  # semitones above the key note
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
VOICINGS: dict[str, tuple[int, ...]] = {  # scale steps above the chord's root
    "power": (0, 4, 7),
    "triad": (0, 2, 4),
    "seventh": (0, 2, 4, 6),
    "open": (0, 4, 8),
}

Drum = Literal["kick", "snare", "clap", "hat", "ride", "shaker"]


@dataclass(frozen=True, slots=True)
class Genre:
    """One genre: tempo, harmony, rhythm, instruments, and how common it is."""

    name: str
    bpm: tuple[float, float]
    swing: float  # how late the off-beats are, in sixteenths
    scale: str
    progressions: tuple[tuple[int, ...], ...]  # chord roots as scale steps, one a bar
    voicing: str
    drums: dict[Drum, str]
    bass: str
    bass_voice: str
    chords: str
    chord_voices: tuple[str, ...]
    lead_voices: tuple[str, ...]
    lead_density: float  # chance of a note on an eighth
    reverb: float  # share of reverberated sound
    popularity: float  # relative weight among listeners
    sung: float  # share of songs with words


GENRES: tuple[Genre, ...] = (
    Genre(
        name="house",
        bpm=(116, 130),
        swing=0.1,
        scale="minor",
        progressions=((0, 5, 2, 6), (0, 3, 5, 4)),
        voicing="triad",
        drums={"kick": "x...x...x...x...", "clap": "....x.......x...", "hat": "..x...x...x...x."},
        bass="..r...r...r...ro",
        bass_voice="growl",
        chords="x..x..x...x..x..",
        chord_voices=("supersaw", "organ"),
        lead_voices=("supersaw", "square", "bell"),
        lead_density=0.25,
        reverb=0.2,
        popularity=1.5,
        sung=0.7,
    ),
    Genre(
        name="metal",
        bpm=(140, 184),
        swing=0.0,
        scale="phrygian",
        progressions=((0, 0, 1, 0), (0, 5, 6, 1), (0, 1, 3, 1)),
        voicing="power",
        drums={"kick": "x.xxx.xxx.xxx.xx", "snare": "....x.......x...", "ride": "x...x...x...x..."},
        bass="r.rrr.rrr.rrr.rr",
        bass_voice="growl",
        chords="x.xxx.x.x.xxx.x.",
        chord_voices=("fuzz",),
        lead_voices=("scream", "fuzz"),
        lead_density=0.35,
        reverb=0.08,
        popularity=0.9,
        sung=0.85,
    ),
    Genre(
        name="folk",
        bpm=(84, 122),
        swing=0.0,
        scale="major",
        progressions=((0, 4, 5, 3), (0, 3, 0, 4), (5, 3, 0, 4)),
        voicing="triad",
        drums={"shaker": "x.x.x.x.x.x.x.x."},
        bass="r.......f.......",
        bass_voice="upright",
        chords="0.2.1.2.0.2.1.2.",
        chord_voices=("nylon", "steel"),
        lead_voices=("fiddle", "whistle", "nylon"),
        lead_density=0.35,
        reverb=0.15,
        popularity=1.0,
        sung=0.95,
    ),
    Genre(
        name="jazz",
        bpm=(108, 156),
        swing=0.33,
        scale="dorian",
        progressions=((1, 4, 0, 5), (0, 3, 1, 4)),
        voicing="seventh",
        drums={"ride": "x...x.x.x...x.x.", "snare": "......x......x..", "kick": "x.......x......."},
        bass="r...t...f...o...",
        bass_voice="upright",
        chords="..x...x......x..",
        chord_voices=("epiano", "nylon"),
        lead_voices=("sax", "epiano", "whistle"),
        lead_density=0.5,
        reverb=0.15,
        popularity=0.7,
        sung=0.4,
    ),
    Genre(
        name="ambient",
        bpm=(56, 80),
        swing=0.0,
        scale="lydian",
        progressions=((0, 1, 5, 4), (0, 4, 1, 2)),
        voicing="open",
        drums={},
        bass="r...............",
        bass_voice="drone",
        chords="x...............",
        chord_voices=("pad", "glass"),
        lead_voices=("bell", "glass", "whistle"),
        lead_density=0.15,
        reverb=0.5,
        popularity=0.6,
        sung=0.1,
    ),
    Genre(
        name="hip hop",
        bpm=(78, 98),
        swing=0.18,
        scale="minor",
        progressions=((0, 0, 5, 4), (0, 3, 0, 6)),
        voicing="seventh",
        drums={"kick": "x.....x...x.....", "snare": "....x.......x...", "hat": "x.x.x.x.x.x.x.xx"},
        bass="r.....r...f.....",
        bass_voice="sub",
        chords="x......x........",
        chord_voices=("epiano", "nylon", "pad"),
        lead_voices=("bell", "square", "epiano"),
        lead_density=0.2,
        reverb=0.12,
        popularity=1.6,
        sung=0.95,
    ),
    Genre(
        name="reggae",
        bpm=(66, 88),
        swing=0.15,
        scale="mixolydian",
        progressions=((0, 3, 0, 4), (0, 6, 3, 0)),
        voicing="triad",
        drums={"kick": "........x.......", "snare": "........x.......", "hat": "x.x.x.x.x.x.x.x."},
        bass="r..r..f...o.f.t.",
        bass_voice="sub",
        chords="..x...x...x...x.",
        chord_voices=("organ", "steel"),
        lead_voices=("reed", "organ", "sax"),
        lead_density=0.25,
        reverb=0.22,
        popularity=0.8,
        sung=0.9,
    ),
    Genre(
        name="chiptune",
        bpm=(126, 164),
        swing=0.0,
        scale="major",
        progressions=((0, 4, 5, 3), (5, 3, 0, 4), (0, 3, 4, 4)),
        voicing="triad",
        drums={"kick": "x.......x.x.....", "snare": "....x.......x...", "hat": "x.x.x.x.x.x.x.x."},
        bass="r.o.r.o.r.o.r.o.",
        bass_voice="chipbass",
        chords="0120120120120120",
        chord_voices=("chip",),
        lead_voices=("chip", "square"),
        lead_density=0.6,
        reverb=0.04,
        popularity=0.6,
        sung=0.15,
    ),
)
GENRE_NAMES: tuple[str, ...] = tuple(genre.name for genre in GENRES)
