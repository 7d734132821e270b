"""What follows what, counted by hand."""

import numpy as np
import pytest

from recsys.catalogue.histories import Ordered
from recsys.hybrid.next_tracks import DEPTH, NextSettings, NextTracks, count_next

GAP = NextSettings().session_gap_s


def ordered(*plays: tuple[int, int, int]) -> Ordered:
    users, items, seconds = zip(*plays, strict=True)
    return Ordered(np.array(users, np.int32), np.array(items, np.int32), np.array(seconds, np.int64))


def told(counted: NextTracks, item: int) -> dict[int, tuple[float, float]]:
    here = counted.of(item)
    pairs = zip(counted.follows[here].tolist(), counted.together[here].tolist(), strict=True)
    return dict(zip(counted.items[here].tolist(), pairs, strict=True))


def test_what_came_next_and_what_was_near() -> None:
    # user 0: 1 2 3; user 4: 1 3 and, after a pause, 2
    plays = ordered((0, 1, 0), (0, 2, 10), (0, 3, 20), (4, 1, 0), (4, 3, GAP), (4, 2, 2 * GAP + 1))
    counted = count_next(plays, 5, NextSettings())
    assert told(counted, 1) == {3: (0.5, pytest.approx(2 / 2)), 2: (0.5, pytest.approx(1 / 2))}
    assert told(counted, 2) == {3: (1.0, pytest.approx(1 / 2)), 1: (0.0, pytest.approx(1 / 2))}
    assert told(counted, 3) == {1: (0.0, pytest.approx(1.0)), 2: (0.0, pytest.approx(1 / 2))}
    assert told(counted, 0) == told(counted, 4) == {}
    assert counted.items[counted.of(1)].tolist() == [3, 2], "the strongest first"


def test_a_window_is_so_many_plays_wide() -> None:
    plays = ordered(*((0, item, item) for item in range(5)))
    assert set(told(count_next(plays, 5, NextSettings(window=2)), 0)) == {1, 2}
    assert set(told(count_next(plays, 5, NextSettings()), 0)) == {1, 2, 3, 4}


def test_a_track_does_not_follow_itself() -> None:
    counted = count_next(ordered((0, 1, 0), (0, 1, 1), (0, 0, 2), (0, 1, 3)), 2, NextSettings())
    assert told(counted, 1) == {0: (1.0, pytest.approx(1.0))}
    assert told(counted, 0)[1][0] == 1.0


def test_users_are_not_joined() -> None:
    assert told(count_next(ordered((0, 1, 0), (1, 2, 1)), 4, NextSettings()), 1) == {}


def test_only_the_strongest_are_kept() -> None:
    n = DEPTH + 7
    plays = []
    for other in range(1, n + 1):  # track 0 is followed by each, by later ones more often
        for _ in range(1 + (other > 7)):
            plays += [(len(plays), 0, 0), (len(plays), other, 1)]
    counted = count_next(ordered(*plays), n + 1, NextSettings())
    assert sorted(counted.items[counted.of(0)].tolist()) == list(range(8, n + 1))
    assert counted.follows[counted.of(0)].sum() == pytest.approx(2 * DEPTH / (2 * DEPTH + 7))


def test_lists_are_by_a_mix_of_both_strengths() -> None:
    # kept by the sum: 4, then 2 and 5, then 3; what follows counts 0.6, what is near 0.4
    starts, items = np.array([0, 0, 4, 4, 6]), np.array([4, 2, 5, 3, 5, 0], np.int32)
    follows, together = np.array([[0.2, 0.5, 0.0, 0.5, 1, 0], [0.8, 0.3, 0.8, 0.2, 1, 0.25]], np.float32)
    counted = NextTracks(starts, items, follows, together)
    rows, scores = counted.best(1)
    assert rows.tolist() == [4, 2, 3, 5]
    assert scores.tolist() == pytest.approx([0.44, 0.42, 0.38, 0.32])
    lengths, rows, scores = counted.listed(0, 4)
    assert lengths.tolist() == [0, 4, 0, 2]
    assert rows.tolist() == [4, 2, 3, 5, 5, 0]
    assert scores[4:].tolist() == pytest.approx([1.0, 0.1])
    assert scores.dtype == np.float32
    assert float(scores.max()) <= 1
    for nothing in (0, 2, 4, 99):  # the last two are uploads
        assert [len(part) for part in counted.best(nothing)] == [0, 0]


def test_of_equal_scores_the_lower_row_comes_first() -> None:
    equal = np.full(3, 0.5, np.float32)
    counted = NextTracks(np.array([0, 3, 3, 3, 3]), np.array([3, 1, 2], np.int32), equal, equal)
    assert counted.best(0)[0].tolist() == [1, 2, 3]


def test_nothing_to_count() -> None:
    empty = Ordered(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int64))
    assert told(count_next(empty, 3, NextSettings()), 2) == {}
    assert told(NextTracks.none(3), 9) == {}, "an upload follows nothing"
