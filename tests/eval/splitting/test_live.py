"""Live splits: what is asked for, what is only told, and who is drawn."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from eval.splitting.live import live_by_time
from eval.splitting.protocols import splits, validation_split
from eval.splitting.split import SplitSettings
from recsys.errors import DataError
from recsys.types import Listens

from .test_protocols import any_listens, hours, library, listens_of, pairs

ALL = SplitSettings(held_out_share=0.5, max_user_plays=100)


def log() -> Listens:
    """Hours 0 to 3 train, 4 to 7 are after the cut at half."""
    return listens_of(
        [
            ("a", "1", 1.0, hours(0), False),
            ("b", "2", 1.0, hours(1), False),
            ("a", "2", 1.0, hours(2), False),
            ("b", "5", 1.0, hours(3), False),
            ("a", "1", 1.0, hours(4), False),  # not new to a
            ("c", "3", 1.0, hours(5), False),  # a user who was not there before
            ("a", "3", 1.0, hours(6), False),
            ("a", "3", 1.0, hours(7), False),  # new an hour before
        ]
    )


def test_first_plays_after_the_cut_are_asked_for() -> None:
    split = live_by_time(log(), ALL)
    assert split.cut_at == hours(4)
    assert len(split.train) == 4
    asked = split.held_out.frame.select("user_id", "track_id", "listened_at").rows()
    assert asked == [("c", "3", hours(5)), ("a", "3", hours(6))]
    assert len(split.unused) == 2
    assert "2 events of 2 users" in split.note


def test_pairs_that_were_disliked_and_busy_users_are_not_asked_for() -> None:
    more = listens_of([("a", "3", 0.0, hours(9), True), ("c", "4", 50.0, hours(6), False)])
    both = Listens(log().frame.vstack(more.frame))
    split = live_by_time(both, ALL.model_copy(update={"live_days": 5 / 24}))
    assert pairs(split.held_out) == {("c", "3"), ("c", "4")}
    quiet = ALL.model_copy(update={"live_days": 5 / 24, "max_user_plays": 20})
    with pytest.raises(DataError, match="live protocol can hold nothing out"):
        live_by_time(both, quiet)


def test_the_cut_may_be_so_many_days_before_the_end() -> None:
    split = live_by_time(log(), ALL.model_copy(update={"live_days": 1.5 / 24}))
    assert split.cut_at == hours(7) - timedelta(hours=1.5)
    rolled = list(splits(log(), "live", SplitSettings(n_cuts=2, live_days=2 / 24)))
    assert [one.cut_at for one in rolled] == [hours(3), hours(5)]
    assert pairs(rolled[0].held_out) == {("b", "5")}  # up to the next cut


def test_of_many_events_those_of_drawn_users_are_asked_for() -> None:
    rows = [(f"u{user}", f"t{n}", 1.0, hours(n), False) for user in range(8) for n in range(6)]
    some = ALL.model_copy(update={"max_events": 7})
    split = live_by_time(listens_of(rows), some)
    drawn = set(split.held_out.frame["user_id"])
    assert len(split.held_out) == 6
    assert len(drawn) == 2  # each whole
    assert pairs(live_by_time(listens_of(rows), some).held_out) == pairs(split.held_out)
    others = live_by_time(listens_of(rows), some.model_copy(update={"seed": 4})).held_out
    assert set(others.frame["user_id"]) != drawn


@hypothesis_settings(max_examples=40, deadline=None)
@given(any_listens())
def test_each_row_is_in_one_part_and_nothing_of_later_trains(listens: Listens) -> None:
    try:
        split = live_by_time(listens, ALL)
    except DataError:
        return
    parts = [split.train, split.held_out, split.unused]
    assert sorted(str(row) for part in parts for row in part.frame.rows()) == sorted(map(str, listens.frame.rows()))
    assert all(at < split.cut_at for at in split.train.frame["listened_at"])
    assert all(at >= split.cut_at for at in split.held_out.frame["listened_at"])
    asked = split.held_out.frame.select("user_id", "track_id").rows()
    assert len(set(asked)) == len(asked)
    assert not set(asked) & pairs(split.train).difference(
        split.train.frame.filter(split.train.frame["plays"] == 0).select("user_id", "track_id").rows()
    )


def test_validation_is_the_part_before_the_cut() -> None:
    rows = [(f"u{n % 3}", f"t{n}", 1.0, hours(n), False) for n in range(40)]
    settings = SplitSettings(held_out_share=0.25)
    split = next(splits(listens_of(rows), "live", settings))
    inner = validation_split(split, settings)
    assert inner.protocol == "live"
    assert inner.cut_at is not None
    assert inner.cut_at < split.cut_at  # type: ignore[operator]
    assert all(at < split.cut_at for at in inner.held_out.frame["listened_at"])


def test_listens_without_times_cannot_be_played() -> None:
    with pytest.raises(DataError, match="say when they were heard"):
        live_by_time(library(3, 4), ALL)
