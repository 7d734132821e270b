"""What the last plays are followed by, worked out by hand."""

import numpy as np
import pytest

from helpers.made_blend import joined
from recsys.hybrid.following import (
    FEATURES,
    SIGNALS,
    STRENGTH,
    UNHEARD,
    Following,
    Surroundings,
    latest,
)
from recsys.hybrid.next_tracks import NextTracks
from recsys.types import Float32, Int32

# tracks 0 1 2 of artist 0, 3 4 of artist 1, 5 of nobody; 0 is followed by 1 and 3, 1 by 3
TRACKS = NextTracks(
    np.array([0, 2, 3, 3, 3, 3, 3], np.int64),
    np.array([1, 3, 3], np.int32),
    np.array([0.75, 0.25, 1.0], np.float32),
    np.array([0.5, 0.1, 0.2], np.float32),
)
ARTISTS = np.array([0, 0, 0, 1, 1, -1], np.int32)
LISTENERS = np.array([3, 1, 0, 7, 0, 2], np.int32)
ALL = np.arange(6, dtype=np.int32)


@pytest.fixture
def near() -> Surroundings:
    return Surroundings.of(TRACKS, ARTISTS, LISTENERS)


def rows(*items: int) -> Int32:
    return np.array(items, np.int32)


def of(near: Surroundings, signal: str, recent: Int32) -> list[float]:
    return near.signals(recent, ALL)[SIGNALS.index(signal)].tolist()


def test_what_followed_the_last_plays_counts_less_the_older_they_are(near: Surroundings) -> None:
    assert of(near, "follows", rows(0)) == pytest.approx([0, 0.75, 0, 0.25, 0, 0])
    both = np.array([0, 0.75 * 2**-1.0, 0, 1.0 + 0.25 * 2**-1.0, 0, 0])
    assert of(near, "follows", rows(1, 0)) == pytest.approx((both / 1.5).tolist()), "a mean by weight"
    both = np.array([0, 0.5 * 2 ** (-1 / 3), 0, 0.2 + 0.1 * 2 ** (-1 / 3), 0, 0])
    assert of(near, "together", rows(1, 0)) == pytest.approx((both / (1 + 2 ** (-1 / 3))).tolist())


def test_tracks_of_the_same_artist_count_the_more_the_better_known(near: Surroundings) -> None:
    middle = UNHEARD + (1 - UNHEARD) * np.log1p(1) / np.log1p(3)
    assert of(near, "artist", rows(0)) == pytest.approx([1, middle, UNHEARD, 0, 0, 0])
    assert of(near, "artist", rows(5)) == [0] * 6, "nobody's tracks have no artist in common"


def test_artists_whose_tracks_were_heard_together_are_near(near: Surroundings) -> None:
    # all that leads from one of these two artists to others leads to the other one, whichever way was kept
    assert of(near, "near artist", rows(0)) == pytest.approx([0, 0, 0, 1, UNHEARD, 0])
    middle = UNHEARD + (1 - UNHEARD) * np.log1p(1) / np.log1p(3)
    assert of(near, "near artist", rows(3)) == pytest.approx([1, middle, UNHEARD, 0, 0, 0])
    assert of(near, "near artist", rows(5)) == [0] * 6


def test_what_lies_near_is_a_candidate(near: Surroundings) -> None:
    assert near.candidates(rows(1)).tolist() == [0, 1, 2, 3, 4]
    assert near.candidates(rows(3)).tolist() == [0, 1, 2, 3, 4]
    assert near.candidates(rows(5)).tolist() == []
    assert near.by_artist.rows.tolist() == [0, 1, 2, 3, 4], "the best known of an artist first"


def test_a_run_is_how_much_a_listener_stays_with_an_artist(near: Surroundings) -> None:
    one = near.run(rows(0))
    assert one == pytest.approx(0.3)
    assert near.run(rows(0, 0, 0)) > one > near.run(rows(1, 0, 1))
    assert near.run(rows(0, 0, 1)) > near.run(rows(1, 0, 0)), "the latest counts most"
    assert near.run(rows(-1, -1)) < one, "two tracks of nobody are not by one artist"


def test_features_are_strengths_and_what_they_are_worth_where(near: Surroundings) -> None:
    new = np.array([False, False, True, False, True, False])
    there = near.features(rows(0), ALL, new, in_session=True)
    gone = near.features(rows(0), ALL, new, in_session=False)
    assert there.shape == (len(FEATURES), 6)
    by_name = dict(zip(FEATURES, there, strict=True))
    strength = np.log1p(STRENGTH * np.array(of(near, "artist", rows(0)))) / np.log1p(STRENGTH)
    assert by_name["artist"] == pytest.approx(strength)
    assert by_name["artist run"] == pytest.approx(strength * 0.3)
    assert by_name["artist new"] == pytest.approx(strength * new)
    session = [name.endswith("session") for name in FEATURES]
    assert np.array_equal(there[session], there[: len(SIGNALS)])
    assert not gone[session].any()
    assert np.array_equal(there[~np.array(session)], gone[~np.array(session)])


def test_uploads_are_known_by_their_artist(near: Surroundings) -> None:
    def artists_of(items: Int32) -> Int32:
        return np.where(items == 6, 0, -1).astype(np.int32) if (items > 5).any() else ARTISTS[items]

    signals = near.signals(rows(0), rows(6), artists_of)
    assert signals[SIGNALS.index("artist")].tolist() == pytest.approx([UNHEARD])
    assert not signals[:2].any()
    assert near.signals(rows(6), ALL, lambda items: np.where(items == 6, 0, ARTISTS[items % 6]).astype(np.int32))[
        SIGNALS.index("artist"), :3
    ].all()


def test_the_last_plays_come_latest_first() -> None:
    assert latest(np.arange(23, dtype=np.int32)).tolist() == list(range(22, 12, -1))


def test_a_query_weighs_both_vectors() -> None:
    blend, _, items = joined()
    width = items.shape[1]
    following = Following(1.0, 0.5, 2.0, 3.0, 7.0, dict.fromkeys(FEATURES, 0.0), 1800)
    long: Float32 = np.ones(width, np.float32)
    short: Float32 = np.full(width, 10, np.float32)
    query = following.query(long, short, blend)
    for part in blend.parts:
        right = 0.5 + 2.0 * part.weight * 10 if part.personal else 3.0 * 10
        assert query[part.start : part.stop] == pytest.approx(right)
