"""Moments: what is known of a user just before each event, by hand and against the log; no event sees itself."""

from dataclasses import replace

import numpy as np
import pytest

from eval.splitting.leakage import assert_no_foresight
from eval.splitting.live import live_by_time
from eval.splitting.moments import Moments, first_held_out, replayed
from eval.splitting.split import Split, SplitSettings
from recsys.catalogue.listens import plays_of
from recsys.errors import DataError
from recsys.types import HISTORY, Histories, Listens

from .test_live import log
from .test_protocols import hours, listens_of

TRACKS = ["5", "1", "2", "3", "4"]  # 1 is row 1
HALF = SplitSettings(held_out_share=0.5, max_user_plays=100)


def second(n: float) -> int:
    return int(hours(n).timestamp())


def of_a() -> Split:
    """After the cut a hears 1 again, then the new 3, 4 and 5; 4 is disliked between."""
    rows = [
        ("a", "1", 2.0, hours(0), False),
        ("b", "2", 1.0, hours(1), False),
        ("a", "2", 1.0, hours(2), False),
        ("b", "1", 1.0, hours(2.5), False),
        ("a", "1", 1.0, hours(3), False),
        ("a", "3", 1.0, hours(4), False),
        ("a", "2", 0.0, hours(5), True),
        ("a", "4", 1.0, hours(6), False),
    ]
    return live_by_time(listens_of(rows), HALF)


def test_each_moment_has_the_plays_until_then_in_their_order() -> None:
    replay = replayed(of_a(), TRACKS)
    assert replay.user_ids == ["a", "a"]
    assert replay.items.tolist() == [3, 4]
    assert replay.moments.now.tolist() == [second(4), second(6)]
    assert replay.moments.counts.toarray().tolist() == [[0, 3, 1, 0, 0], [0, 3, 0, 1, 0]]  # 2 was disliked by then
    first, then = (replay.moments.histories.of(row) for row in (0, 1))
    assert first[0].tolist() == [1, 2, 1]
    assert first[1].tolist() == [second(0), second(2), second(3)]
    assert then[0].tolist() == [1, 1, 3]


def test_the_very_first_play_of_a_user_is_told_and_not_asked_for() -> None:
    split = live_by_time(log(), HALF)
    replay = replayed(split, TRACKS)
    assert replay.n_first == 1
    assert replay.user_ids == ["a"]


def test_a_history_has_the_last_plays_alone() -> None:
    rows = [("a", f"t{n}", 1.0, hours(n), False) for n in range(2 * HISTORY)]
    split = live_by_time(listens_of(rows), SplitSettings(held_out_share=0.2))
    replay = replayed(split, [f"t{n}" for n in range(2 * HISTORY)])
    for row in range(len(replay.items)):
        items, _ = replay.moments.histories.of(row)
        assert items.tolist() == list(range(replay.items[row] - HISTORY, replay.items[row]))
        assert replay.moments.counts[[row]].nnz == replay.items[row]


def random_split() -> tuple[Split, list[str]]:
    rng = np.random.default_rng(3)
    rows = [
        (f"u{rng.integers(5)}", f"t{rng.integers(40)}", 1.0, hours(float(rng.integers(40)) / 2), False)
        for _ in range(200)
    ]
    return live_by_time(listens_of(rows), HALF), [f"t{n}" for n in range(40)]


def test_moments_are_what_the_log_says() -> None:
    """Plays strictly before an event are all there; of those at the same second some may be."""
    split, tracks = random_split()
    replay = replayed(split, tracks)
    rows = [(u, t, at) for part in (split.train, split.held_out, split.unused) for u, t, at in columns(part)]
    assert len(replay.items) > 20
    for row, (user, item) in enumerate(zip(replay.user_ids, replay.items, strict=True)):
        now, counts = replay.moments.now[row], replay.moments.counts[[row]].toarray()[0]
        mine = [(t, int(at.timestamp())) for u, t, at in rows if u == user]
        before = np.bincount([tracks.index(t) for t, at in mine if at < now], minlength=40)
        until = np.bincount([tracks.index(t) for t, at in mine if at <= now], minlength=40)
        assert (before <= counts).all()
        assert (counts <= until).all()
        assert counts[item] == 0
        assert len(replay.moments.histories.of(row)[0]) == min(HISTORY, counts.sum())


def columns(part: Listens) -> list[tuple[str, str, object]]:
    return part.frame.select("user_id", "track_id", "listened_at").rows()


def test_the_honest_replay_has_no_foresight_and_planted_ones_are_caught() -> None:
    split, tracks = random_split()
    replay = replayed(split, tracks)
    assert_no_foresight(replay, split, tracks)
    n, moments = len(replay.items), replay.moments
    itself = moments.counts.tolil()
    itself[5, replay.items[5]] = 1
    planted = replace(replay, moments=Moments(itself.tocsr(), moments.histories, moments.now))
    with pytest.raises(DataError, match=r"1 of .* events .* 1 see themselves"):
        assert_no_foresight(planted, split, tracks)
    later = moments.histories.seconds.copy()
    later[moments.histories.starts[4] - 1] += 10**6
    histories = Histories(moments.histories.starts, moments.histories.items, later)
    planted = replace(replay, moments=replace(moments, histories=histories))
    with pytest.raises(DataError, match="1 a later time"):
        assert_no_foresight(planted, split, tracks)
    last = {user: row for row, user in enumerate(replay.user_ids)}
    ahead = np.array([last[user] if row == 2 else row for row, user in enumerate(replay.user_ids)])
    counts = moments.counts[ahead].tolil()
    counts[2, replay.items[2]] = 0
    planted = replace(replay, moments=Moments(counts.tocsr(), moments.histories, moments.now))
    with pytest.raises(DataError, match="more plays than there"):
        assert_no_foresight(planted, split, tracks)
    assert n == len(moments)


def test_an_event_that_is_told_before_it_is_asked_for_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault of a server that learns of a play before it answers."""
    from eval.splitting import moments as module

    split, tracks = random_split()
    real = module._told

    def told_twice(*given: object) -> object:
        rows = real(*given)  # type: ignore[arg-type]
        first = rows.with_columns(asked=False)
        import polars as pl

        return pl.concat([first, rows]).sort("listened_at", "user_id", "asked", maintain_order=True)

    monkeypatch.setattr(module, "_told", told_twice)
    with pytest.raises(DataError, match="see themselves"):
        assert_no_foresight(replayed(split, tracks), split, tracks)


def test_rows_of_histories_and_moments_go_together() -> None:
    histories = Histories(np.array([0, 2, 2, 5]), np.arange(5, dtype=np.int32), np.arange(10, 15).astype(np.uint32))
    some = histories.rows(np.array([2, 1, 0, 2]))
    assert [some.of(row)[0].tolist() for row in range(4)] == [[2, 3, 4], [], [0, 1], [2, 3, 4]]
    with pytest.raises(DataError, match="expected 1 each"):
        Moments(replayed(of_a(), TRACKS).moments.counts[[0]], histories, np.zeros(1, np.int64))


def test_a_split_without_a_cut_cannot_be_played_and_unknown_tracks_are_an_error() -> None:
    split = of_a()
    with pytest.raises(DataError, match="no cut in time"):
        replayed(replace(split, cut_at=None), TRACKS)
    with pytest.raises(DataError, match="tracks that the fit does not know"):
        replayed(split, TRACKS[:3])


def test_users_of_a_static_split_ask_at_their_first_held_out_play() -> None:
    split = of_a()
    plays = plays_of(split.train, TRACKS)
    moments = first_held_out(split, plays)
    assert dict(zip(plays.user_ids, moments.now.tolist(), strict=True)) == {"a": second(4), "b": second(2.5)}
    assert (moments.counts != plays.counts).nnz == 0
