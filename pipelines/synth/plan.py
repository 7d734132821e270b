"""What will be composed, before a note sounds: simulated artists and songs.

    SynthSettings  ->  plan  ->  Plan(songs, upload)

An artist is a persistent variation of a genre: place in the tempo range, key, detune, brightness, room,
instruments, words, and a second genre that some layers of some songs are borrowed from. A song varies
around its artist. The plan is a function of the settings alone, so listeners, demo and tests read the
planted truth from it and store nothing. No sound is made here.
"""

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipelines.synth import words
from pipelines.synth.genres import GENRES, Genre
from recsys.errors import ConfigError
from recsys.util.settings import Settings

Float64 = NDArray[np.float64]

LAYERS = ("drums", "bass", "lead")  # what a song can borrow; chords and tempo are always the artist's own
_LAST_YEAR = 2025  # of release; the simulated year of listening ends in it


class SynthSettings(Settings):
    """The simulated catalogue and its listeners."""

    n_tracks: int = Field(default=400, ge=1)
    n_artists: int = Field(default=60, ge=1)
    clip_s: float = Field(default=12.0, ge=1.0, le=600.0)  # seconds of every clip
    sample_rate: int = Field(default=22_050, ge=16_000, le=48_000)  # Hz
    new_share: float = Field(default=0.1, ge=0.0, le=0.9)  # share of tracks that nobody has heard yet
    n_users: int = Field(default=800, ge=1)
    n_listens: int = Field(default=25_000, ge=1)  # each user has at least one
    seed: int = Field(default=0, ge=0)
    n_workers: int | None = Field(default=None, ge=1)  # processes that compose; None is one a core


@dataclass(frozen=True, slots=True)
class Artist:
    """One simulated artist; ``brightness`` -1.5 to 1.5, ``bpm_at`` 0 to 1 in the genre's range of tempo."""

    name: str
    genre: Genre
    influence: Genre
    borrowing: float  # chance of borrowing a layer from the influence
    bpm_at: float
    key: int  # semitones above C
    brightness: float
    detune_cents: float
    reverb: float
    drive: float
    chord_voice: str
    lead_voice: str
    words: tuple[str, ...]
    first_year: int


@dataclass(frozen=True, slots=True)
class Song:
    """One simulated song. ``borrowed`` are the layers that the artist's influence plays."""

    title: str
    artist: Artist
    album: str
    year: int
    lyrics: str | None
    bpm: float
    brightness: float
    borrowed: tuple[str, ...]
    popularity: float  # relative weight among listeners
    is_new: bool  # released after the listens: nobody has heard it
    seed: tuple[int, int]

    @property
    def path(self) -> str:
        """Where the clip lies in the folder of audio: ``artist/title.mp3``."""
        return f"{slug(self.artist.name)}/{slug(self.title)}.mp3"

    def genre_share(self) -> dict[str, float]:
        """How much of the song each genre plays, summing to 1; a borrowed layer counts a quarter."""
        share = len(self.borrowed) / (len(LAYERS) + 1)
        shares = {self.artist.genre.name: 1.0 - share}
        if share:
            shares[self.artist.influence.name] = share
        return shares


@dataclass(frozen=True, slots=True)
class Plan:
    """The catalogue to be, and one song by a new artist that is uploaded after everything was built."""

    songs: tuple[Song, ...]
    upload: Song


def slug(text: str) -> str:
    """Turn a name into a file name: lower case, hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def plan(settings: SynthSettings) -> Plan:
    """Plan the catalogue; the same settings, the same plan.

    Raises:
        ConfigError: there are more artists than tracks.
    """
    if settings.n_artists > settings.n_tracks:
        raise ConfigError(
            f"{settings.n_artists} artists cannot share {settings.n_tracks} tracks; raise n_tracks or lower n_artists"
        )
    rng = np.random.default_rng([settings.seed, 1])
    names = words.artist_names(settings.n_artists + 1, rng)
    order = rng.permutation(len(GENRES))
    artists = [_artist(name, GENRES[order[i % len(order)]], rng) for i, name in enumerate(names[:-1])]
    fame = rng.permutation(np.arange(1, len(artists) + 1) ** -0.7)  # a few artists have most of the listeners
    owners = np.concatenate(
        [
            np.arange(len(artists)),  # everybody has a song
            rng.choice(len(artists), size=settings.n_tracks - len(artists), p=_tempered(fame)),
        ]
    )
    new = np.zeros(settings.n_tracks, dtype=bool)
    new[rng.choice(settings.n_tracks, size=round(settings.new_share * settings.n_tracks), replace=False)] = True
    taken: dict[str, set[str]] = {}
    songs = [
        _song(artists[owner], float(fame[owner]), bool(new[i]), (settings.seed, 1000 + i), taken)
        for i, owner in enumerate(owners)
    ]
    newcomer = _artist(names[-1], GENRES[int(rng.integers(len(GENRES)))], rng)
    # typical of its genre: an odd song could have hardly any fans, and the upload is to show an audience
    newcomer = replace(newcomer, borrowing=0.0, bpm_at=0.5, brightness=0.0)
    return Plan(tuple(songs), _song(newcomer, 1.0, True, (settings.seed, 999), taken))


def _tempered(fame: Float64) -> Float64:
    share = np.sqrt(fame)  # famous artists have more songs too, but not in proportion
    return np.asarray(share / share.sum())


def _artist(name: str, genre: Genre, rng: np.random.Generator) -> Artist:
    others = [other for other in GENRES if other is not genre]
    influence = others[int(rng.integers(len(others)))]
    return Artist(
        name=name,
        genre=genre,
        influence=influence,
        borrowing=float(rng.uniform(0.0, 0.35)),
        bpm_at=float(rng.uniform(0.1, 0.9)),
        key=int(rng.integers(12)),
        brightness=float(np.clip(rng.normal(0.0, 0.7), -1.5, 1.5)),
        detune_cents=float(rng.uniform(-35, 35)),
        reverb=float(np.clip(genre.reverb * rng.uniform(0.6, 1.6), 0.0, 0.7)),
        drive=float(rng.uniform(0.0, 0.8)),
        chord_voice=str(rng.choice(genre.chord_voices)),
        lead_voice=str(rng.choice(genre.lead_voices)),
        words=words.vocabulary(genre.name, influence.name, rng),
        first_year=int(rng.integers(1975, _LAST_YEAR - 4)),
    )


def _song(artist: Artist, fame: float, is_new: bool, seed: tuple[int, int], taken: dict[str, set[str]]) -> Song:
    rng = np.random.default_rng([*seed, 2])
    genre = artist.genre
    title = words.title(artist.words, taken.setdefault(artist.name, set()), rng)
    taken[artist.name].add(title)
    low, high = genre.bpm
    sung = rng.uniform() < genre.sung
    year = _LAST_YEAR if is_new else int(rng.integers(artist.first_year, min(artist.first_year + 15, _LAST_YEAR)))
    return Song(
        title=title,
        artist=artist,
        album=f"{artist.words[year % 5]} {year}".title(),
        year=year,
        lyrics=words.lyrics(artist.words, title, rng) if sung else None,
        bpm=float((low + artist.bpm_at * (high - low)) * np.exp(rng.normal(0.0, 0.03))),
        brightness=float(np.clip(artist.brightness + rng.normal(0.0, 0.35), -2.0, 2.0)),
        borrowed=tuple(layer for layer in LAYERS if rng.uniform() < artist.borrowing),
        popularity=float(fame * np.exp(rng.normal(0.0, 0.7))),
        is_new=is_new,
        seed=seed,
    )
