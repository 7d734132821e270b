"""Metadata to columns: the names chosen, how tracks are encoded by them, and what counts as unknown."""

import json

import numpy as np
import pytest

from helpers.made import made_tags, made_tracks
from recsys.content.metadata import (
    MetadataSettings,
    Vocabulary,
    encode,
    learn_vocabulary,
    one_hot,
    sparse_features,
)
from recsys.types import Tags, Tracks

SETTINGS = MetadataSettings(year_bucket=5)
TAGS = [("t0", "live", 1.0), ("t0", "slow", 30.0), ("t2", "live", 2.0), ("t4", "live", 1.0), ("t4", "Live", 7.0)]


def catalogue() -> Tracks:
    return made_tracks(
        6,
        genres=[["Rock", "folk"], ["rock "], [], ["Jazz"], ["folk"], None],
        artist=["Ann", " ann", "Bo", None, "Cy", "BO"],
        year=[1981, 1985, 1986, None, 1999, 1981],
    )


def learned() -> Vocabulary:
    return learn_vocabulary(catalogue(), made_tags(TAGS), SETTINGS)


def test_names_are_the_most_frequent_ones_ties_by_alphabet() -> None:
    vocabulary = learned()
    assert vocabulary.genres == ["folk", "rock", "jazz"]
    assert vocabulary.tags == ["live", "Live", "slow"]
    assert vocabulary.artists == ["ann", "bo"]  # Cy has one track, which tells nothing about any other
    assert (vocabulary.first_year, vocabulary.year_bucket, vocabulary.n_year_buckets) == (1981, 5, 4)


def test_names_are_capped() -> None:
    settings = MetadataSettings(max_genres=1, max_tags=2, max_artists=1, min_artist_tracks=1)
    vocabulary = learn_vocabulary(catalogue(), made_tags(TAGS), settings)
    assert (vocabulary.genres, vocabulary.tags, vocabulary.artists) == (["folk"], ["live", "Live"], ["ann"])


def test_tracks_are_encoded_by_their_names_without_case_and_outer_blanks() -> None:
    found = encode(catalogue(), made_tags(TAGS), learned())
    assert found.genres.toarray().tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert found.artist.tolist() == [0, 0, 1, -1, -1, 1]
    assert found.genres.dtype == np.float32


@pytest.mark.parametrize(
    ("year", "bucket"), [(1981, 0), (1985, 0), (1986, 1), (1999, 3), (2000, 3), (2001, -1), (1980, -1), (None, -1)]
)
def test_years_fall_into_buckets_from_the_first_year_on(year: int | None, bucket: int) -> None:
    assert encode(made_tracks(1, year=[year]), None, learned()).year.tolist() == [bucket]


def test_tag_weights_enter_by_their_logarithm() -> None:
    found = encode(catalogue(), made_tags(TAGS), learned()).tags.toarray()
    expected = np.zeros((6, 3))
    expected[0], expected[2], expected[4] = (np.log(2), 0, np.log(31)), (np.log(3), 0, 0), (np.log(2), np.log(8), 0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_upload_is_encoded_as_its_catalogue_was() -> None:
    upload = made_tracks(
        3, genres=[["polka", "JAZZ", "jazz"], ["polka"], []], artist=["Nobody", "ANN ", "Cy"], year=[1990, 3000, None]
    )
    vocabulary = learned()
    tags = made_tags([("t1", "unheard of", 4.0), ("t2", "slow", 1.0), ("t9", "slow", 1.0)])
    found = encode(upload, tags, vocabulary)
    assert found.genres.toarray().tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(found.tags.toarray(), [[0, 0, 0], [0, 0, 0], [0, 0, np.log(2)]], rtol=1e-6)
    assert found.artist.tolist() == [-1, 0, -1]
    assert found.year.tolist() == [1, -1, -1]
    again = encode(upload, tags, Vocabulary(**json.loads(json.dumps(vocabulary.to_json()))))
    assert again.genres.toarray().tolist() == found.genres.toarray().tolist()


@pytest.mark.parametrize("tags", [None, made_tags([])])
def test_a_catalogue_of_ids_alone_has_no_columns(tags: Tags | None) -> None:
    bare = made_tracks(4)
    vocabulary = learn_vocabulary(bare, tags, SETTINGS)
    assert (vocabulary.genres, vocabulary.tags, vocabulary.artists, vocabulary.n_year_buckets) == ([], [], [], 0)
    found = encode(bare, tags, vocabulary)
    assert sparse_features(found, vocabulary, artists=True).shape == (4, 0)
    assert found.artist.tolist() == found.year.tolist() == [-1] * 4
    late = encode(made_tracks(2, year=[1999, -5], genres=[["jazz"], []]), None, vocabulary)
    assert late.year.tolist() == [-1, -1]


def test_features_join_genres_tags_years_and_if_asked_artists() -> None:
    vocabulary = learned()
    metadata = encode(catalogue(), made_tags(TAGS), vocabulary)
    without, with_artists = (sparse_features(metadata, vocabulary, artists) for artists in (False, True))
    assert without.shape == (6, 3 + 3 + 4)
    assert with_artists.shape == (6, 3 + 3 + 4 + 2)
    assert np.array_equal(with_artists[:, :10].toarray(), without.toarray())
    assert without[1].toarray()[0].tolist() == [0, 1, 0, 0, 0, 0, 1, 0, 0, 0]
    assert with_artists[:, 10:].toarray().tolist() == [[1, 0], [1, 0], [0, 1], [0, 0], [0, 0], [0, 1]]


def test_one_hot_leaves_the_unknown_empty() -> None:
    assert one_hot(np.array([2, -1, 0]), 3).toarray().tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_rows_are_taken_in_the_order_asked_for() -> None:
    metadata = encode(catalogue(), made_tags(TAGS), learned())
    taken = metadata.take(np.array([4, 0]))
    assert taken.genres.toarray().tolist() == [[1, 0, 0], [1, 1, 0]]
    assert (taken.artist.tolist(), taken.year.tolist()) == ([-1, 0], [3, 0])
    assert taken.tags[0].nnz == 2
