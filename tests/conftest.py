"""What several test files share: a small catalogue with planted tastes, and a store built from it."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipelines.build import Inputs, build
from recsys.config import RunSettings
from recsys.progress import Silent

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


def quick_settings() -> RunSettings:
    """Settings of every step, cut down to what a test can wait for."""
    return RunSettings.model_validate(
        {
            "hybrid": {
                "als": {"n_factors": 8, "epochs": 5, "l2": 1.0},
                "lightfm": {"n_factors": 8, "epochs": 5},
                "content": {"epochs": 8, "fusion": {"dim": 16, "tower": 8, "hidden": 32}},
            },
            "audio": {"train": {"epochs": 3}, "network": {"width": 16, "dim": 16}},
        }
    )


@pytest.fixture(scope="session")
def tiny_catalogue(tmp_path_factory: pytest.TempPathFactory) -> TinyCatalogue:
    return write_tiny_catalogue(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_store(tiny_catalogue: TinyCatalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store built from the tiny catalogue; not to be written to (copy it first)."""
    folder = tmp_path_factory.mktemp("store") / "store"
    build(Inputs(tiny_catalogue.tracks, tiny_catalogue.listens), folder, quick_settings(), Silent())
    return folder
