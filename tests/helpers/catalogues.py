"""Small catalogues, one of them with audio, and settings that fit them in seconds."""

import csv
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # they load torch, which the tests of most modules do without
    from pipelines.build import Inputs
    from recsys.config import RunSettings

GENRES = ("ambient", "metal", "jazz")


@dataclass(frozen=True)
class TinyCatalogue:
    """40 tracks t0..t39 of three genres and 30 users u0..u29, each of whom plays one genre.

    Track t39 is cold; u29 only dislikes t0; u28 has a like and a dislike of t1, and the dislike counts.
    """

    tracks: Path
    listens: Path

    @staticmethod
    def genre_of(track_id: str) -> str:
        return GENRES[int(track_id[1:]) % 3]

    @staticmethod
    def taste_of(user_id: str) -> str:
        return GENRES[int(user_id[1:]) % 3]


def write_tiny_catalogue(folder: Path) -> TinyCatalogue:
    rng = np.random.default_rng(7)
    with (folder / "tracks.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["track_id", "title", "artist", "genre", "year"])
        for n in range(40):
            rows.writerow([f"t{n}", f"Title {n}", f"Artist {n % 3}-{n % 2}", GENRES[n % 3], 1980 + n])
    with (folder / "listens.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user_id", "track_id", "listened_at", "liked", "disliked"])
        for user in range(28):
            own = [n for n in range(39) if n % 3 == user % 3]
            for time, n in enumerate(rng.choice(own, size=6, replace=False)):
                rows.writerow([f"u{user}", f"t{n}", 1_400_000_000 + 1000 * user + time, 0, 0])
        rows.writerow(["u28", "t1", "", 1, 0])
        rows.writerow(["u28", "t1", "", 0, 1])
        rows.writerow(["u28", "t4", "", 0, 0])
        rows.writerow(["u29", "t0", "", 0, 1])
    return TinyCatalogue(folder / "tracks.csv", folder / "listens.csv")


QUICK = """
[hybrid.als]
n_factors = 8
epochs = 5
l2 = 1.0
[hybrid.lightfm]
n_factors = 8
epochs = 5
[hybrid.content]
epochs = 8
fusion = { dim = 16, tower = 8, hidden = 32, lyrics = { n_pieces = 512 } }
[audio]
batch_clips = 2
train = { epochs = 3 }
network = { name = "conv1d", start = "random", width = 8, dim = 12 }
workers = { n_workers = 1 }
"""


def quick_settings() -> "RunSettings":
    """Settings of every step, cut down to what a test can wait for."""
    from recsys.config import RunSettings

    return RunSettings.model_validate(tomllib.loads(QUICK))


@dataclass(frozen=True)
class AudioCatalogue:
    """Eight clips s0..s7 of 2 s as wav, mp3, flac and ogg, of three genres and four artists, and five users v0..v4.

    A user plays the tracks of one parity; nobody plays s7.
    """

    folder: Path

    @property
    def inputs(self) -> "Inputs":
        from pipelines.build import Inputs

        return Inputs(self.folder / "tracks.csv", self.folder / "listens.csv")


CLIPS = ("s0.wav", "s1.mp3", "s2.flac", "s3.ogg", "s4.wav", "s5.mp3", "s6.flac", "s7.wav")


def clip(name: str, seed: int) -> bytes:
    """Two seconds of a melody in the format that the name says."""
    from helpers.audio_files import encoded, melody

    kind = name.rpartition(".")[2]
    subtype = {"mp3": "MPEG_LAYER_III", "ogg": "VORBIS"}.get(kind, "PCM_16")
    return encoded(melody(2.0, seed), kind.upper(), subtype)


def write_audio_catalogue(folder: Path) -> AudioCatalogue:
    (folder / "music").mkdir()
    tracks = ["track_id,path,title,artist,genre,year,lyrics"]
    for n, name in enumerate(CLIPS):
        (folder / "music" / name).write_bytes(clip(name, n))
        words = f"oh number {n} my number" if n % 2 else ""
        tracks.append(f"s{n},music/{name},Song {n},Band {n % 4},{GENRES[n % 3]},{1990 + n},{words}")
    listens = [f"v{user},s{n}" for user in range(5) for n in range(7) if n % 2 == user % 2 and n != user]
    (folder / "tracks.csv").write_text("\n".join(tracks) + "\n")
    (folder / "listens.csv").write_text("\n".join(["user_id,track_id", *listens]) + "\n")
    (folder / "quick.toml").write_text(QUICK)
    return AudioCatalogue(folder)
