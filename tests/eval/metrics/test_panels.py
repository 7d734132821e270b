"""Panels and segments: who is judged on what, worked by hand."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from eval.metrics.beyond_accuracy import ItemFacts, traits_of
from eval.metrics.panels import Panel, panels_of
from eval.metrics.segments import ACTIVITY, ARTIST, POPULARITY, segments_of, thirds
from eval.splitting.protocols import cold_track, cold_user, splits
from eval.splitting.split import Split, SplitSettings
from recsys.catalogue.listens import plays_of
from recsys.errors import DataError
from recsys.types import LISTENS_SCHEMA, TRACKS_SCHEMA, Listens, Plays, Tracks

TRACKS = [f"t{n}" for n in range(9)]


def listens_of(rows: list[tuple[str, str, float]]) -> Listens:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    full = [
        (user, track, plays, start + timedelta(hours=n), False, False) for n, (user, track, plays) in enumerate(rows)
    ]
    return Listens(pl.DataFrame(full, schema=LISTENS_SCHEMA, orient="row"))


def split_of(train: Listens, held_out: Listens, cold: list[str] | None = None) -> Split:
    nothing = Listens(pl.DataFrame(schema=LISTENS_SCHEMA))
    return Split("warm" if cold is None else "cold-track", 0, train, held_out, nothing, cold, "")


def attributes(plays: Plays, artists: pl.DataFrame | None = None) -> ItemFacts:
    return traits_of(plays, artists, (np.zeros(0, np.int32), np.zeros((0, 1), np.float32)))


def pairs_of(panel: Panel, held_out: object = None) -> set[tuple[str, str]]:
    matrix = panel.held_out if held_out is None else held_out
    return {(panel.user_ids[row], panel.heard.track_ids[item]) for row, item in zip(*matrix.nonzero(), strict=True)}


def test_cold_users_begin_with_the_first_and_are_judged_on_the_rest() -> None:
    rows = [("ann", track, 1.0 + n) for n, track in enumerate(("t4", "t2", "t7", "t1"))]
    rows += [("bob", "t4", 1.0), ("bob", "t8", 1.0)]
    others = [(f"u{n}", f"t{n}", 1.0) for n in range(9)]
    listens = listens_of([*rows, *others])
    split = cold_user(listens, SplitSettings(held_out_share=0.99, fold_in_tracks=(1, 3, 7)), seed=0)
    plays = plays_of(split.train, TRACKS)
    one, three = panels_of(split, plays, 100)  # nobody has more than seven tracks
    assert (one.name, three.name) == ("cold-user-1", "cold-user-3")
    assert one.user_ids == ["ann", "bob"]
    assert pairs_of(one) == {("ann", "t2"), ("ann", "t7"), ("ann", "t1"), ("bob", "t8")}
    assert one.heard.counts.toarray()[:, [4]].tolist() == [[1], [1]]
    assert one.heard.counts.nnz == 2
    assert three.user_ids == ["ann"]
    assert pairs_of(three) == {("ann", "t1")}
    assert three.heard.counts.toarray()[0, [4, 2, 7]].tolist() == [1, 2, 3]
    assert one.candidates is None
    assert one.is_folded
    assert one.heard.track_ids == plays.track_ids


def test_cold_users_of_too_few_tracks_are_said() -> None:
    listens = listens_of([("ann", "t4", 1.0), ("ann", "t2", 1.0), ("bob", "t4", 1.0)])
    split = cold_user(listens, SplitSettings(held_out_share=0.9, fold_in_tracks=(2, 3)), seed=0)
    with pytest.raises(DataError, match="no cold user has more than 2 tracks"):
        panels_of(split, plays_of(split.train, TRACKS), 100)


def test_cold_tracks_are_judged_twice() -> None:
    listens = listens_of([(user, track, 1.0) for user in "abc" for track in TRACKS])
    split = cold_track(listens, SplitSettings(), seed=1)
    alone, among_all = panels_of(split, plays_of(split.train, TRACKS), 2)
    assert [TRACKS[item] for item in alone.candidates] == split.cold_track_ids
    assert (alone.n_candidates, among_all.n_candidates) == (2, 9)
    assert alone.user_ids == among_all.user_ids
    assert len(alone.user_ids) == 2


def test_segments_by_activity_and_popularity() -> None:
    # listeners: t0 4, t1 2, t2 1, t3 1; plays: a 1, b 2, c 3, d 9
    train = [("a", "t0", 1.0), ("b", "t0", 1.0), ("b", "t1", 1.0), ("c", "t0", 1.0), ("c", "t1", 1.0), ("c", "t2", 1.0)]
    train += [("d", "t0", 4.0), ("d", "t3", 5.0)]
    held_out = [("a", "t1", 1.0), ("a", "t2", 1.0), ("b", "t3", 1.0), ("c", "t3", 1.0), ("d", "t1", 1.0)]
    held_out += [("e", "t0", 1.0)]
    plays = plays_of(listens_of([*train, ("e", "t5", 7.0)]), TRACKS)
    (panel,) = panels_of(split_of(listens_of(train), listens_of(held_out)), plays, 100)
    segments = {name: pairs_of(panel, part) for name, part in segments_of(panel, attributes(plays)).items()}
    assert set(segments) == {*ACTIVITY, *POPULARITY}
    # plays 1, 2, 3, 7, 9: terciles at 2.33 and 5.67
    assert {user for user, _ in segments["activity-low"]} == {"a", "b"}
    assert {user for user, _ in segments["activity-middle"]} == {"c"}
    assert {user for user, _ in segments["activity-high"]} == {"d", "e"}
    # listeners of the held-out pairs 1, 1, 1, 2, 2, 4: terciles at 1.67 (of 1 and 2) and 2
    assert segments["popularity-low"] == {("a", "t2"), ("b", "t3"), ("c", "t3")}
    assert segments["popularity-middle"] == {("a", "t1"), ("d", "t1")}
    assert segments["popularity-high"] == {("e", "t0")}


def test_segments_by_artist_of_cold_tracks() -> None:
    artists = {"t0": "x", "t1": "x", "t2": "y", "t3": "y", "t4": "z"}
    empty = {name: [None] * len(TRACKS) for name in TRACKS_SCHEMA.names()}
    columns = {**empty, "track_id": TRACKS, "artist": [artists.get(track) for track in TRACKS]}
    tracks = Tracks(pl.DataFrame(columns, TRACKS_SCHEMA))
    listens = listens_of([(user, track, 1.0) for user in "abcd" for track in TRACKS[:7]])
    seen = set()
    for split in splits(listens, "cold-track", SplitSettings(held_out_share=0.5, n_splits=8), tracks):
        plays = plays_of(split.train, TRACKS)
        panel, _ = panels_of(split, plays, 100)
        segments = segments_of(panel, attributes(plays, split.artists))
        assert set(segments) == {*ACTIVITY, *ARTIST}
        known, unknown = (pairs_of(panel, segments[name]) for name in ARTIST)
        met = {artists[track] for track in set(split.train.frame["track_id"]) & set(artists)}
        assert known == {(user, track) for user, track in pairs_of(panel) if artists.get(track) in met}
        assert unknown == pairs_of(panel) - known
        seen.add((bool(known), bool(unknown)))
    assert (True, True) in seen


@given(st.lists(st.integers(0, 6), max_size=30))
@hypothesis_settings(max_examples=80, deadline=None)
def test_thirds_keep_equal_values_together_and_rise(values: list[int]) -> None:
    found = thirds(np.array(values))
    assert len(found) == len(values)
    by_value = {value: set(found[np.array(values) == value].tolist()) for value in values}
    assert all(len(group) == 1 for group in by_value.values())
    if len(set(values)) <= 1:
        assert set(found.tolist()) <= {-1}
    else:
        rising = [by_value[value].pop() for value in sorted(by_value)]
        assert rising == sorted(rising)
        assert rising[0] == 0
        assert (found == 0).mean() >= 1 / 3 - 1e-9
    if len(set(values)) == len(values) > 2:
        assert np.ptp(np.bincount(found, minlength=3)) <= 1
