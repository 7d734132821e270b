"""What several test files share: small catalogues, one of them with audio, stores built from them, the command line."""

import csv
import io
import json
import os
import shutil
import sys
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
import hypothesis
import numpy as np
import pytest
import torch
from audio_files import encoded, melody

from pipelines.build import Inputs, build, read_catalogue
from recsys.catalogue.problems import Problems
from recsys.cli.main import main
from recsys.config import RunSettings
from recsys.fit import fit
from recsys.recommender import Recommender
from recsys.store.checksums import described
from recsys.store.duckdb_tables import FILE
from recsys.store.generation import Store
from recsys.util.progress import Silent

# how long an example takes, and how many are thrown away before, decides nothing; CI tries the same examples every time
hypothesis.settings.register_profile(
    "here",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much],
    derandomize="CI" in os.environ,
)
hypothesis.settings.load_profile("here")

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


def quick_settings() -> RunSettings:
    """Settings of every step, cut down to what a test can wait for."""
    return RunSettings.model_validate(tomllib.loads(QUICK))


@dataclass(frozen=True)
class AudioCatalogue:
    """Eight clips s0..s7 of 2 s as wav, mp3, flac and ogg, of three genres and four artists, and five users v0..v4.

    A user plays the tracks of one parity; nobody plays s7.
    """

    folder: Path

    @property
    def inputs(self) -> Inputs:
        return Inputs(self.folder / "tracks.csv", self.folder / "listens.csv")


CLIPS = ("s0.wav", "s1.mp3", "s2.flac", "s3.ogg", "s4.wav", "s5.mp3", "s6.flac", "s7.wav")


def clip(name: str, seed: int) -> bytes:
    """Two seconds of a melody in the format that the name says."""
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


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line of an error."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("recsys: "), self.err
        return lines[0]


def run(*arguments: object) -> Ran:
    """Run `recsys …` in this process. An exception that would be a traceback fails the test."""
    out, err = io.StringIO(), io.StringIO()
    status: Any = 0
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", ["recsys", *map(str, arguments)]):
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    return Ran(status, out.getvalue(), err.getvalue())


def rows(store: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask a store's current file as anybody would, by DuckDB alone."""
    with duckdb.connect(Store(store).current() / FILE, read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(sql).fetchall()


TABLES = ("tracks", "recommendations", "track_neighbours", "track_vectors", "users", "build_problems", "track_audio")


def tables(store: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables but `build`."""
    return {name: rows(store, f"SELECT * FROM {name} ORDER BY ALL") for name in TABLES}


def copied(store: Path, to: Path) -> Path:
    """Copy a shared store, for a test that writes to it; servers that only read leave an empty live store there."""
    copy = Path(shutil.copytree(store, to / "store", ignore=shutil.ignore_patterns("live.lmdb*")))
    for file in copy.rglob("*"):
        file.chmod(file.stat().st_mode | 0o200)  # published files are read-only, and tests damage them
    return copy


def with_facts(folder: Path, **changes: Any) -> None:
    """Write a generation's meta.json with other facts, as publishing would: with hashes and checksum of now."""
    file = folder / "meta.json"
    facts = described(folder, json.loads(file.read_text()) | changes)
    file.write_text(json.dumps(facts))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two threads on cores that others use too are many times slower than one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_catalogue(tmp_path_factory: pytest.TempPathFactory) -> TinyCatalogue:
    return write_tiny_catalogue(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_store(tiny_catalogue: TinyCatalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store built from the tiny catalogue; not to be written to (copy it first)."""
    folder = tmp_path_factory.mktemp("store") / "store"
    build(Inputs(tiny_catalogue.tracks, tiny_catalogue.listens), folder, quick_settings(), Silent())
    return folder


@pytest.fixture(scope="session")
def tiny_fit(tiny_catalogue: TinyCatalogue) -> Recommender:
    """The tiny catalogue fitted in memory, with the settings of ``tiny_store``."""
    inputs = Inputs(tiny_catalogue.tracks, tiny_catalogue.listens)
    read = read_catalogue(inputs, quick_settings(), Problems())
    return fit(read.tracks, read.listens, read.tags, quick_settings())


@pytest.fixture(scope="session")
def audio_catalogue(tmp_path_factory: pytest.TempPathFactory) -> AudioCatalogue:
    return write_audio_catalogue(tmp_path_factory.mktemp("audio"))


@pytest.fixture(scope="session")
def audio_store(audio_catalogue: AudioCatalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store built from the clips; not to be written to (copy it first)."""
    folder = tmp_path_factory.mktemp("audio-store") / "store"
    build(audio_catalogue.inputs, folder, quick_settings(), Silent())
    return folder
