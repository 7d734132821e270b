"""What is learned from and what is judged: no artist in two folds, nothing lost, whatever the order of the table."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from eval.representation.folds import artist_folds, draw_tracks, labels_of
from eval.representation.settings import RepresentationSettings
from helpers.made import made_tags, made_tracks
from recsys.errors import DataError
from recsys.types import Tracks

SETTINGS = RepresentationSettings()


def turned_around(tracks: Tracks) -> Tracks:
    return Tracks(tracks.frame[list(range(len(tracks)))[::-1]])


artists = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "", None]), min_size=12, max_size=60)


@hypothesis_settings(max_examples=40)
@given(names=artists, n_folds=st.integers(2, 4), seed=st.integers(0, 99))
def test_no_artist_is_in_two_folds_and_no_track_is_lost(names: list[str | None], n_folds: int, seed: int) -> None:
    tracks = made_tracks(len(names), artist=names)
    labels = labels_of(tracks, None, SETTINGS)
    if len(set(labels.groups.tolist())) < n_folds:
        with pytest.raises(DataError, match="folds that share no artist"):
            artist_folds(labels, n_folds, seed)
        return
    folds = artist_folds(labels, n_folds, seed)
    assert folds.shape == (len(names),)
    assert set(folds.tolist()) == set(range(n_folds))
    for name in "abcde":
        assert len({fold for fold, own in zip(folds.tolist(), names, strict=True) if own == name}) <= 1


def test_tracks_without_an_artist_are_groups_of_their_own() -> None:
    labels = labels_of(made_tracks(5, artist=["x", None, "", "x", "track t1"]), None, SETTINGS)
    assert len(set(labels.groups.tolist())) == 4
    assert labels.groups[0] == labels.groups[3]
    assert labels.has_artist.tolist() == [True, False, False, True, True]


def test_folds_do_not_depend_on_the_order_of_the_table() -> None:
    names = [f"artist {n % 9}" for n in range(30)]
    tracks = made_tracks(30, artist=names)
    turned = turned_around(tracks)
    one, other = (artist_folds(labels_of(each, None, SETTINGS), 3, 1) for each in (tracks, turned))
    np.testing.assert_array_equal(one, other[::-1])
    assert artist_folds(labels_of(tracks, None, SETTINGS), 3, 2).tolist() != one.tolist()


def test_of_a_large_catalogue_whole_artists_are_drawn() -> None:
    sizes = [7, 1, 5, 3, 6, 2, 4, 8, 5, 9]
    names = [f"artist {n}" for n, size in enumerate(sizes) for _ in range(size)]
    tracks = made_tracks(len(names), artist=names)
    rows = draw_tracks(tracks, 20, seed=3)
    drawn = tracks.frame[rows]
    assert 10 <= len(rows) <= 20
    counts = dict(drawn.group_by("artist").len().rows())
    assert all(counts[f"artist {n}"] == size for n, size in enumerate(sizes) if f"artist {n}" in counts)
    turned = turned_around(tracks)
    assert turned.frame[draw_tracks(turned, 20, 3)]["track_id"].to_list() == drawn["track_id"].to_list()
    everything = draw_tracks(tracks, 100, seed=3)
    assert sorted(everything.tolist()) == list(range(50))
    assert everything.tolist() != list(range(50)), "in a random order"


def test_one_artist_above_the_cap_is_drawn_whole() -> None:
    assert len(draw_tracks(made_tracks(30, artist=["one"] * 30), 10, 0)) == 30


def test_labels_are_the_first_genre_and_the_frequent_tags() -> None:
    tracks = made_tracks(4, genres=[["rock", "pop"], ["", "pop"], [], ["jazz"]])
    tags = [(f"t{n}", "calm", 1.0) for n in (0, 1, 3)] + [("t2", "loud", 1.0), ("t3", "loud", 2.0), ("t0", "rare", 1.0)]
    labels = labels_of(tracks, made_tags(tags), RepresentationSettings(min_tag_tracks=2, max_tags=5))
    assert [None if g < 0 else labels.genre_names[g] for g in labels.genres] == ["rock", None, None, "jazz"]
    assert labels.tag_names == ("calm", "loud")
    assert labels.tags.tolist() == [[True, False], [True, False], [False, True], [True, True]]
    assert labels_of(tracks, made_tags(tags), RepresentationSettings(max_tags=0)).tags.shape == (4, 0)
    only = pl.DataFrame({"tag": labels_of(tracks, made_tags(tags), RepresentationSettings(min_tag_tracks=3)).tag_names})
    assert only["tag"].to_list() == ["calm"]
