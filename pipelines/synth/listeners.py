"""Simulated listeners with planted tastes: who would like what, and a year of listens that follow it.

    SynthSettings  ->  tastes  ->  Tastes          Tastes, songs  ->  affinity  ->  (n_users, n_songs)
    scanned tracks, SynthSettings  ->  write_listens  ->  user_id, track_id, listened_at as CSV

A listener has a mixture of genres, a place in tempo and brightness that can be heard but is written in no
tag, and a few favourite artists. Popularity has a long tail over artists and songs, and so has how much
people listen. New releases have no listens. The chance of a listen is affinity x popularity x favour;
affinity alone is the planted truth to judge by. A matrix of users by songs is made: this is for a demo's
hundreds, not for a catalogue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.synth.genres import GENRE_NAMES, GENRES
from pipelines.synth.plan import Song, SynthSettings, plan
from recsys.errors import ConfigError, DataError

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_YEAR_STARTS = datetime(2024, 7, 1, tzinfo=UTC)  # fixed and past, so that no machine's clock calls it the future
_DAYS = 365
_GENRE_SPREAD = 1.2  # sum of the Dirichlet's parameters: most listeners have one to three genres
_CURIOSITY = 0.01  # share of a genre that a listener has no taste for
_SOUND_WIDTH = 0.9  # how far, in units of spread, tempo and brightness may be from what a listener likes
_FAVOURITES, _FAVOUR = 4, 4.0  # artists a listener comes back to, and how much more often
_SESSION = 6  # listens in one sitting
_FAN_SHARE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Tastes:
    """Planted tastes: ``genres`` (n_users, n_genres), rows sum to 1, in the order of ``GENRE_NAMES``.

    ``sound`` (n_users, 2) is the tempo and brightness that a listener likes, in the units of ``_sound``.
    """

    user_ids: tuple[str, ...]
    genres: Float64
    sound: Float64


def tastes(settings: SynthSettings) -> Tastes:
    """Draw what each listener likes; the same settings, the same tastes."""
    rng = np.random.default_rng([settings.seed, 4])
    popularity = np.array([genre.popularity for genre in GENRES])
    return Tastes(
        user_ids=tuple(f"listener-{user:04d}" for user in range(1, settings.n_users + 1)),
        genres=rng.dirichlet(_GENRE_SPREAD * popularity / popularity.sum(), size=settings.n_users),
        sound=rng.normal(0.0, 0.8, size=(settings.n_users, 2)),
    )


def affinity(tastes: Tastes, songs: Sequence[Song]) -> Float64:
    """How much each listener likes each song by its sound and genre alone, (n_users, n_songs), above 0.

    Share of liked genres in the song x closeness of its tempo within its genre and of its brightness.
    """
    shares = np.array([[song.genre_share().get(name, 0.0) for name in GENRE_NAMES] for song in songs])
    liked = _CURIOSITY + tastes.genres @ shares.T
    sound = np.array([_sound(song) for song in songs])
    distance = ((tastes.sound[:, None, :] - sound[None, :, :]) ** 2).sum(axis=2)
    return np.asarray(liked * np.exp(-distance / (2 * _SOUND_WIDTH**2)))


def fans(settings: SynthSettings) -> tuple[str, ...]:
    """Name the listeners who would like the uploaded clip.

    A fan's affinity for it is above that for nine tenths of the catalogue. Nothing else was planted for it:
    it has no listens, and its artist is nobody's favourite.
    """
    planned = plan(settings)
    who = tastes(settings)
    bar = np.quantile(affinity(who, planned.songs), 1 - _FAN_SHARE, axis=1)
    likes = affinity(who, [planned.upload])[:, 0] > bar
    return tuple(user_id for user_id, like in zip(who.user_ids, likes, strict=True) if like)


def write_listens(tracks: pl.DataFrame, out: Path, settings: SynthSettings) -> pl.DataFrame:
    """Simulate a year of listening to the composed catalogue and write it to the CSV file ``out``.

    Args:
        tracks: what ``recsys scan`` found: track_id and path, which ends in ``artist/title.mp3``.
        out: the file to write.
        settings: those that the catalogue was composed with.

    Returns:
        The listens: user_id, track_id, listened_at (ISO 8601, UTC), sorted by time.

    Raises:
        DataError: a song is not among ``tracks``.
        ConfigError: every song is new, or users outnumber listens.
    """
    songs = plan(settings).songs
    n_released = sum(not song.is_new for song in songs)
    if not n_released or settings.n_listens < settings.n_users:
        raise ConfigError(
            f"{settings.n_users} users cannot have {settings.n_listens} listens of {n_released} old songs; "
            "raise n_listens or lower new_share"
        )
    track_ids = _track_ids(tracks, songs)
    rng = np.random.default_rng([settings.seed, 5])
    n_each = _activity(settings, rng)
    who = tastes(settings)
    heard = _choose(_chances(who, songs, rng), n_each, rng)
    users = np.repeat(np.arange(settings.n_users), n_each)
    listens = (
        pl.DataFrame({"user": users, "song": heard, "at": _times(n_each, rng)})
        .sort("at", "user", "song")
        .select(
            pl.col("user").replace_strict(dict(enumerate(who.user_ids))).alias("user_id"),
            pl.col("song").replace_strict(dict(enumerate(track_ids))).alias("track_id"),
            pl.from_epoch("at", time_unit="s").dt.strftime("%Y-%m-%dT%H:%M:%SZ").alias("listened_at"),
        )
    )
    listens.write_csv(out)
    return listens


def _track_ids(tracks: pl.DataFrame, songs: Sequence[Song]) -> list[str]:
    """Find each song's track id by the last two parts of its path."""
    ends = tracks["path"].str.replace_all("\\", "/", literal=True).str.split("/").list.tail(2).list.join("/")
    by_path = dict(zip(ends, tracks["track_id"], strict=True))
    missing = [song.path for song in songs if song.path not in by_path]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(songs)} songs are not in the scanned tracks, the first is {missing[0]}; "
            "scan the folder that compose wrote with the same settings"
        )
    return [by_path[song.path] for song in songs]


def _activity(settings: SynthSettings, rng: np.random.Generator) -> Int64:
    """Listens of each user, at least 1, ``n_listens`` in all, long-tailed."""
    weight = np.exp(rng.normal(0.0, 0.8, size=settings.n_users))
    spare = settings.n_listens - settings.n_users
    return np.asarray(1 + rng.multinomial(spare, weight / weight.sum()))


def _chances(tastes: Tastes, songs: Sequence[Song], rng: np.random.Generator) -> Float64:
    """Chance of each song at each listen, (n_users, n_songs), rows sum to 1; a new release has none."""
    chance = affinity(tastes, songs)
    names = sorted({song.artist.name for song in songs})
    owner = np.array([names.index(song.artist.name) for song in songs])
    n_songs_of = np.bincount(owner)
    by_artist = np.stack([chance[:, owner == artist].sum(axis=1) for artist in range(len(names))], axis=1)
    # Gumbel noise on logarithms draws artists without repeats in proportion to the weights
    drawn = np.log(by_artist / n_songs_of) + rng.gumbel(size=by_artist.shape)
    favourite = np.argsort(-drawn, axis=1)[:, :_FAVOURITES]
    favour = np.ones_like(by_artist)
    np.put_along_axis(favour, favourite, _FAVOUR, axis=1)
    weight = np.array([0.0 if song.is_new else song.popularity for song in songs])
    chance = chance * favour[:, owner] * weight
    return np.asarray(chance / chance.sum(axis=1, keepdims=True))


def _choose(chances: Float64, n_each: Int64, rng: np.random.Generator) -> Int64:
    """Draw ``n_each`` songs a user, users one after the other."""
    heard = [rng.choice(chances.shape[1], size=n, p=row) for row, n in zip(chances, n_each, strict=True)]
    return np.concatenate(heard)


def _times(n_each: Int64, rng: np.random.Generator) -> Int64:
    """Draw when each listen was, in seconds since 1970: sittings at the user's hour."""
    n_users = len(n_each)
    user = np.repeat(np.arange(n_users), n_each)
    nth = np.arange(n_each.sum()) - np.repeat(np.cumsum(n_each) - n_each, n_each)
    sitting = nth // _SESSION
    first_of_sitting = np.flatnonzero(nth % _SESSION == 0)
    joined = rng.uniform(0, 0.6 * _DAYS, size=n_users)
    hour = rng.normal(19.0, 2.5, size=n_users)
    day = rng.uniform(joined[user[first_of_sitting]], _DAYS - 2).astype(np.int64)
    start_s = day * 86_400 + 3_600 * (hour[user[first_of_sitting]] + rng.normal(0, 1.0, size=len(day)))
    which = np.cumsum(nth % _SESSION == 0) - 1
    song_s = 215 * (nth - sitting * _SESSION) + rng.integers(0, 30, size=len(nth))
    return np.asarray(int(_YEAR_STARTS.timestamp()) + start_s[which] + song_s).astype(np.int64)


def _sound(song: Song) -> tuple[float, float]:
    """Tempo within the genre's range (-2 slow to 2 fast) and brightness, both with a spread of about 1."""
    low, high = song.artist.genre.bpm
    return 2 * float(2 * (song.bpm - low) / (high - low) - 1), song.brightness
