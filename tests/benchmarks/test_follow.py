"""The benchmark of lists that follow runs, and its figures are of the lists that it asks."""

from pathlib import Path

import pytest

from benchmarks import follow
from benchmarks.follow import Found, Measured, lines
from helpers import streams
from pipelines.build import Inputs
from recsys.config import RunSettings
from recsys.errors import DataError
from recsys.util.progress import Silent

SHORT = {
    "als": {"n_factors": 8, "epochs": 3},
    "choice": {"enabled": False},
    "lightfm": {"n_factors": 4, "epochs": 2},
    "content": {"epochs": 3, "fusion": {"dim": 8, "tower": 4, "hidden": 8, "lyrics": {"n_pieces": 512}}},
}


def written(folder: Path) -> Inputs:
    streams.tracks().frame.select("track_id", "artist").write_csv(folder / "tracks.csv")
    streams.listens().frame.select("user_id", "track_id", "listened_at").write_csv(folder / "listens.csv")
    return Inputs(folder / "tracks.csv", folder / "listens.csv")


@pytest.mark.slow
def test_lists_that_follow_find_what_is_planted(tmp_path: Path) -> None:
    settings = RunSettings.model_validate({"hybrid": SHORT})
    measured = follow.measure(written(tmp_path), 1.0, 20, settings, tmp_path / "store", Silent())
    n_events = len(measured.played.places)
    assert n_events > 40
    assert len(measured.seconds) >= n_events
    hits = [sum(0 <= place < 20 for place in places) for places in (measured.played.places, measured.played.stored)]
    assert hits[0] > 1.5 * hits[1], "the next track of the artist who is played"


def test_figures_are_of_places() -> None:
    played = Found([0, 19, 20, -1], [-1, -1, 3, -1])
    assert list(lines(Measured(played))) == [
        ("played", "4", f"0.500, {(1 + 1 / 20 + 1 / 21) / 4:.3f}", "0.250, 0.062"),
        ("unplayed", "0", "nan, nan", "nan, nan"),
        ("both", "4", f"0.500, {(1 + 1 / 20 + 1 / 21) / 4:.3f}", "0.250, 0.062"),
    ]


@pytest.mark.parametrize(("days", "told"), [(1000.0, "all plays are of the last 1000 days")])
def test_a_cut_needs_plays_on_both_sides(tmp_path: Path, days: float, told: str) -> None:
    with pytest.raises(DataError, match=told):
        follow.measure(written(tmp_path), days, 5, RunSettings(), tmp_path / "store", Silent())
