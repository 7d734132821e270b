"""The order and times of plays: each user's last fifty, whatever the order in which rows come."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.catalogue.listens import plays_of
from recsys.errors import DataError
from recsys.types import HISTORY, LISTENS_SCHEMA, Histories, Listens, Plays

START = datetime(2020, 1, 1, tzinfo=UTC)
TRACKS = ["a", "b", "c", "d"]
Row = tuple[str, str, float, int | None, bool]  # user, track, plays, seconds after START, disliked


def listens(rows: list[Row]) -> Listens:
    columns = {
        "user_id": [row[0] for row in rows],
        "track_id": [row[1] for row in rows],
        "plays": [row[2] for row in rows],
        "listened_at": [None if row[3] is None else START + timedelta(seconds=row[3]) for row in rows],
        "liked": [False] * len(rows),
        "disliked": [row[4] for row in rows],
    }
    return Listens(pl.DataFrame(columns, schema=LISTENS_SCHEMA))


def told(plays: Plays) -> dict[str, list[tuple[str, int]]]:
    """Each user's history: tracks, and seconds after START."""
    assert plays.histories is not None
    found = {}
    for row, user in enumerate(plays.user_ids):
        items, seconds = plays.histories.of(row)
        after = (seconds - int(START.timestamp())).tolist()
        found[user] = [(plays.track_ids[item], at) for item, at in zip(items.tolist(), after, strict=True)]
    return found


def test_plays_stand_in_the_order_of_their_times() -> None:
    rows: list[Row] = [
        ("u", "b", 1.0, 30, False),
        ("v", "a", 1.0, 5, False),
        ("u", "a", 2.0, 10, False),
        ("u", "b", 1.0, 20, False),
        ("u", "other", 1.0, 25, False),
    ]
    assert told(plays_of(listens(rows), TRACKS)) == {"u": [("a", 10), ("b", 20), ("b", 30)], "v": [("a", 5)]}


def test_of_one_second_the_later_row_is_the_later_play() -> None:
    rows: list[Row] = [("u", "c", 1.0, 7, False), ("u", "a", 1.0, 7, False), ("u", "b", 1.0, 7, False)]
    assert told(plays_of(listens(rows), TRACKS)) == {"u": [("c", 7), ("a", 7), ("b", 7)]}


def test_what_was_disliked_at_any_time_is_not_there() -> None:
    rows: list[Row] = [
        ("u", "a", 1.0, 1, False),
        ("u", "b", 1.0, 2, False),
        ("u", "a", 0.0, None, True),
        ("v", "a", 1.0, 3, False),
    ]
    assert told(plays_of(listens(rows), TRACKS)) == {"u": [("b", 2)], "v": [("a", 3)]}


def test_plays_without_a_time_count_and_have_no_place() -> None:
    plays = plays_of(listens([("u", "a", 1.0, None, False), ("u", "b", 1.0, 9, False)]), TRACKS)
    assert told(plays) == {"u": [("b", 9)]}
    assert plays.counts.nnz == 2
    assert told(plays_of(listens([("u", "a", 1.0, None, False)]), TRACKS)) == {"u": []}


def test_users_and_tracks_that_are_not_asked_for_are_left_out() -> None:
    rows: list[Row] = [("u", "a", 1.0, 1, False), ("v", "b", 1.0, 2, False), ("v", "d", 1.0, 3, False)]
    assert told(plays_of(listens(rows), ["d", "b"], ["x", "v"])) == {"x": [], "v": [("b", 2), ("d", 3)]}


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(st.sampled_from("uvw"), st.sampled_from(TRACKS), st.just(1.0), st.integers(0, 10**6), st.just(False)),
        min_size=1,
        max_size=3 * HISTORY,
        unique_by=lambda row: (row[0], row[3]),
    ),
    st.randoms(),
)
def test_any_order_of_arrival_gives_the_same_and_the_last_fifty(rows: list[Row], random: object) -> None:
    mixed = list(rows)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    right: dict[str, list[tuple[str, int]]] = {}
    for user, track, _, at, _ in sorted(rows, key=lambda row: row[3] or 0):
        right.setdefault(user, []).append((track, at or 0))
    found = told(plays_of(listens(mixed), TRACKS))
    assert found == {user: history[-HISTORY:] for user, history in right.items()}


def test_times_fit_in_four_bytes() -> None:
    frame = listens([("u", "a", 1.0, 0, False), ("u", "b", 1.0, 0, False)]).frame
    far = pl.Series(
        [datetime(1960, 1, 1, tzinfo=UTC), datetime(2900, 1, 1, tzinfo=UTC)], dtype=pl.Datetime("us", "UTC")
    )
    histories = plays_of(Listens(frame.with_columns(listened_at=far)), TRACKS).histories
    assert histories is not None
    assert histories.seconds.tolist() == [0, 2**32 - 1]


def test_shapes_are_checked() -> None:
    starts, items = np.array([0, 2], np.int64), np.zeros(3, np.int32)
    with pytest.raises(DataError, match="3 items and 3 seconds, expected 2"):
        Histories(starts, items, np.zeros(3, np.uint32))
    empty = plays_of(listens([("u", "a", 1.0, 0, False)]), TRACKS)
    with pytest.raises(DataError, match="histories of 2 users, expected 1"):
        Plays(empty.counts, empty.barred, empty.user_ids, empty.track_ids, Histories.none(2))
