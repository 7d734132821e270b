"""Tables that people met, where they are there: read as they should be, or one sentence."""

from pathlib import Path

import pytest

from helpers.places import FAULTS
from recsys.catalogue.listens import ListensSettings, read_listens
from recsys.catalogue.problems import Problems
from recsys.catalogue.tracks import read_tracks
from recsys.errors import DataError
from recsys.types import Listens, Tracks

CASES = FAULTS

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the real cases are not beside the repository")


def read(tracks: str, listens: str) -> tuple[Tracks, Listens, Problems]:
    problems = Problems()
    found = read_tracks(CASES / tracks, problems)
    heard = read_listens(CASES / listens, found.frame["track_id"], problems, ListensSettings())
    return found, heard, problems


@pytest.mark.parametrize(
    "name",
    ["year-in-other-digits/tracks.csv", "year-in-other-digits/arabic.csv", "parquet-odd-columns/cover.parquet",
     "parquet-odd-columns/duration.parquet", "semicolon-csv/tracks.csv", "excel-text/a.csv", "excel-text/b.csv",
     "excel-text/b0.csv", "excel-text/c.csv", "ids-beyond-2-53/a.csv", "ids-beyond-2-53/b.parquet"],
)  # fmt: skip
def test_tracks_are_read_without_a_problem(name: str) -> None:
    problems = Problems()
    frame = read_tracks(CASES / name, problems).frame
    assert (frame["year"].null_count(), len(problems)) == (0, 0)
    assert len(frame) == (2 if name.startswith("year") else 24)


def test_what_cannot_be_used_is_told() -> None:
    problems = Problems()
    assert read_tracks(CASES / "parquet-odd-columns/nested.parquet", problems).frame["genres"][0].to_list() == [
        "rock", "pop"
    ]  # fmt: skip
    assert problems.counts() == {"bad-genre": 1}
    with pytest.raises(DataError, match="'track_id' as floating-point numbers"):
        read_tracks(CASES / "ids-beyond-2-53/c.parquet", problems)


@pytest.mark.parametrize(
    ("folder", "n_listens", "n_times", "counts"),
    [
        ("times-of-1970", 96, 26, {"unknown-time": 1}),
        ("date-forms", 96, 91, {"bad-time": 5}),
        ("ids-that-look-alike", 89, 89, {"id-accents": 1, "unknown-track": 12}),
        ("odd-plays-and-ratings", 98, 0, {"bad-plays": 6}),
    ],
)
def test_listens_are_read_and_told(folder: str, n_listens: int, n_times: int, counts: dict[str, int]) -> None:
    _, listens, problems = read(f"{folder}/tracks.csv", f"{folder}/listens.csv")
    assert (len(listens), listens.frame["listened_at"].count()) == (n_listens, n_times)
    assert problems.counts() == counts


def test_an_export_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    once = (CASES / "events-twice/listens.csv").read_text().splitlines()
    (tmp_path / "twice.csv").write_text("\n".join([*once, *once[1:]]))
    tracks, listens, _ = read("events-twice/tracks.csv", "events-twice/listens.csv")
    problems = Problems()
    again = read_listens(tmp_path / "twice.csv", tracks.frame["track_id"], problems, ListensSettings())
    assert again.frame.equals(listens.frame)
    assert problems.counts() == {"repeated-listen": 1}
    _, ratings, problems = read("odd-plays-and-ratings/tracks.csv", "odd-plays-and-ratings/ratings.csv")
    assert (len(ratings), ratings.frame["disliked"].any(), len(problems)) == (96, True, 0)
