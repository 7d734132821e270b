"""Each user's own last part: whole sessions, or at a play."""

import pytest

from eval.splitting.last import warm_last
from eval.splitting.protocols import splits, validation_split
from eval.splitting.split import SplitSettings
from recsys.errors import DataError
from recsys.types import Listens

from .test_protocols import hours, library, listens_of, pairs

LAST = SplitSettings(warm_split="last", min_user_plays=5, held_out_share=0.2)
PLAYS = LAST.model_copy(update={"warm_split": "last-plays"})


def evenings(user: str, sizes: list[int], start: float) -> list[tuple[str, str, float, object, bool]]:
    """Sessions of so many plays three minutes apart, five hours apart; every track is another one."""
    rows, n = [], 0
    for evening, size in enumerate(sizes):
        for place in range(size):
            rows.append((user, f"t{n}", 1.0, hours(start + 5 * evening + place / 20), False))
            n += 1
    return rows


def log() -> Listens:
    """a: the sessions 6, 1, 3; b: one session; c: too few; d: the boundary nearest to four fifths is at 7 of 10."""
    rows = evenings("a", [6, 1, 3], 0) + evenings("b", [9], 2) + evenings("c", [2, 2], 0) + evenings("d", [4, 3, 3], 90)
    return listens_of(rows)


def test_whole_sessions_are_held_out_by_each_users_own_order() -> None:
    split = warm_last(log(), LAST)
    assert pairs(split.held_out) == {(user, f"t{n}") for user in "ad" for n in (7, 8, 9)}
    assert {user for user, _ in pairs(split.train)} == set("abcd")
    assert (split.name, split.protocol) == ("warm-last", "warm")
    assert sum(map(len, (split.train, split.held_out, split.unused))) == len(log())


def test_a_cut_at_a_play_goes_through_sessions() -> None:
    split = warm_last(log(), PLAYS)
    assert pairs(split.held_out) == {("a", "t8"), ("a", "t9"), ("b", "t7"), ("b", "t8"), ("d", "t8"), ("d", "t9")}
    assert split.name == "warm-last-plays"


def test_at_most_half_of_a_users_plays_are_held_out() -> None:
    rows = evenings("a", [2, 8], 0) + evenings("b", [5, 5], 0)
    assert {user for user, _ in pairs(warm_last(listens_of(rows), LAST).held_out)} == {"b"}


def test_a_track_heard_before_by_the_user_is_not_held_out() -> None:
    rows = [*evenings("a", [5, 2], 0), ("a", "t0", 1.0, hours(5.2), False)]
    assert pairs(warm_last(listens_of(rows), LAST).held_out) == {("a", "t5"), ("a", "t6")}


def test_the_protocol_and_its_validation() -> None:
    (split,) = splits(log(), "warm", LAST)
    assert split.name == "warm-last"
    inner = validation_split(split, PLAYS)
    assert not pairs(inner.held_out) & pairs(split.held_out)
    assert pairs(inner.held_out) <= pairs(split.train)


def test_without_times_nobody_has_an_order() -> None:
    with pytest.raises(DataError, match="say when they were heard"):
        warm_last(library(3, 8), LAST)
