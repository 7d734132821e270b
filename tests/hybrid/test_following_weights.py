"""Weights of what was just played: learned where order tells something, on nothing that comes later than it should."""

from dataclasses import replace

import numpy as np
import pytest

from helpers import streams
from recsys.catalogue.histories import Ordered, in_order
from recsys.catalogue.listens import plays_of
from recsys.config import RunSettings
from recsys.fit import fit
from recsys.hybrid.following import FEATURES, Following
from recsys.hybrid.following_weights import (
    HALF_LIVES,
    OWN,
    _Case,
    _fitted,
    _judged,
    _level,
    _ndcg,
    events_of,
    events_untold,
    sampled,
)
from recsys.ranking.next_lists import rank_after
from recsys.recommender import Recommender
from recsys.types import HISTORY, Listens, Plays, Tracks

SHORT = {
    "als": {"n_factors": 8, "epochs": 3},
    "choice": {"enabled": False},
    "lightfm": {"n_factors": 4, "epochs": 2},
    "content": {"epochs": 3, "fusion": {"dim": 8, "tower": 4, "hidden": 8, "lyrics": {"n_pieces": 512}}},
}


def fitted(listens: Listens, **settings: object) -> Recommender:
    return fit(streams.tracks(), listens, None, RunSettings.model_validate({"hybrid": SHORT, **settings}))


def kept(n_plays: int = 2) -> Plays:
    """User 0 heard items 1 and 2, at 100 and 200 s; user 1 item 3, at 50; user 2 nothing."""
    import polars as pl

    from recsys.types import LISTENS_SCHEMA

    seconds = [("u", "b", 100), ("u", "c", 200), ("v", "d", 50)][: n_plays + 1]
    rows = [(user, track, 1.0, pl.lit(at), False, False) for user, track, at in seconds]
    frame = pl.DataFrame(
        {
            "user_id": [row[0] for row in rows],
            "track_id": [row[1] for row in rows],
            "plays": [1.0] * len(rows),
            "listened_at": pl.Series([row[2] for row in seconds]).cast(pl.Int64) * 1_000_000,
            "liked": [False] * len(rows),
            "disliked": [False] * len(rows),
        }
    )
    frame = frame.with_columns(pl.col("listened_at").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
    return plays_of(Listens(frame.cast(dict(LISTENS_SCHEMA))), list("abcdef"), ["u", "v", "w"])


def later(*plays: tuple[int, int, int]) -> Ordered:
    users, items, seconds = zip(*plays, strict=True)
    return Ordered(np.array(users, np.int32), np.array(items, np.int32), np.array(seconds, np.int64))


def test_an_event_knows_what_was_heard_before_it_and_nothing_else() -> None:
    events = list(events_of(kept(), later((0, 0, 300), (0, 1, 310), (0, 4, 320), (0, 0, 330), (1, 5, 60), (2, 2, 5))))
    assert [(e.user, e.wanted, e.seconds, e.last_seconds) for e in events] == [
        (0, 0, 300, 200),
        (0, 4, 320, 310),
        (1, 5, 60, 50),
    ], "neither what was heard before, nor of a user without a history"
    first, second, third = events
    assert (first.items.tolist(), first.recent.tolist()) == ([1, 2], [1, 2])
    assert dict(zip(second.items.tolist(), second.plays.tolist(), strict=True)) == {1: 2.0, 2: 1.0, 0: 1.0}
    assert second.recent.tolist() == [1, 2, 0, 1]
    assert third.recent.tolist() == [3]
    assert all(event.wanted not in event.items for event in events)


def test_an_event_that_is_not_told_knows_what_was_kept_and_comes_when_no_session_goes_on() -> None:
    """What goes on with the last session that was kept, by pauses of at most 30 s, is none; a replay begins another."""
    plays = later(
        *((0, 5, 220), (0, 3, 245), (0, 1, 300), (0, 0, 310), (0, 5, 320), (0, 4, 330), (0, 0, 340)),
        *((1, 5, 90), (2, 2, 5)),
    )
    events = list(events_untold(kept(), plays, 30))
    assert [(e.user, e.wanted, e.last_seconds) for e in events] == [(0, 0, 200), (0, 5, 200), (0, 4, 200), (1, 5, 50)]
    assert all(e.seconds - e.last_seconds > 10**9 for e in events)
    assert [(e.items.tolist(), e.recent.tolist()) for e in events] == [([1, 2], [1, 2])] * 3 + [([3], [3])]


def test_a_history_stays_short() -> None:
    many = later(*((0, 0, 300 + n) for n in range(HISTORY + 5)), (0, 5, 900))
    assert len(list(events_of(kept(), many))[-1].recent) == HISTORY


def test_events_are_drawn_in_their_order() -> None:
    events = list(events_of(kept(), later((0, 0, 300), (0, 3, 310), (0, 4, 320), (0, 5, 330))))
    some = sampled(events, 2, seed=3)
    assert [event.wanted for event in some] == sorted(event.wanted for event in some)
    assert len(some) == 2
    assert sampled(events, 2, seed=3) == some
    assert sampled(events, 9, seed=3) == events


def case(strength: float, n_new: int, wanted: int) -> _Case:
    """Six candidates of which the first ones are new; the wanted one has a feature of its own."""
    values = np.zeros((len(HALF_LIVES), len(OWN) + len(FEATURES), 6), np.float32)
    values[:, len(OWN), wanted] = strength
    values[:, OWN.index("new"), :n_new] = 1
    return _Case(wanted, values, values[0, 0], np.arange(6) < n_new, wanted)


def test_what_wanted_tracks_have_gets_weight() -> None:
    weights = _fitted([case(1.0, 2, wanted) for wanted in range(6)], 0, times=1.0)
    assert weights[len(OWN)] > 1
    assert np.abs(np.delete(weights, [len(OWN), OWN.index("new")])).max() == 0, "what does not differ has none"


def test_new_tracks_that_nobody_will_play_lower_the_level() -> None:
    cases = [case(0.0, 3, wanted) for wanted in (0, 1, 3, 4)]
    alone, crowded = (_fitted(cases, 0, times)[OWN.index("new")] for times in (1.0, 4.0))
    assert alone == pytest.approx(0, abs=0.02), "as many new as played ones were wanted, of as many"
    assert crowded == pytest.approx(-np.log(4), abs=0.1)


def test_where_nothing_wanted_is_a_candidate_nothing_has_weight() -> None:
    none = [case(1.0, 2, wanted=-1) for _ in range(3)]
    assert not _fitted(none, 0, times=1.0).any()


def test_halves_of_users_are_never_empty_and_judge_each_other() -> None:
    """Rows of users that are all even, say: each half teaches the other one that the feature is what counts."""
    cases = [replace(case(1.0, 2, wanted), user=user) for user in (4, 8) for wanted in range(6)]
    assert _judged(cases, 0, times=1.0).tolist() == [1.0] * 12
    silent = [replace(one, wanted=-1) if one.user == 4 else one for one in cases]
    assert _judged(silent, 0, times=1.0)[6:].max() < 1.0, "the other half taught nothing"


def test_ndcg_has_ties_in_the_middle_and_counts_the_crowd() -> None:
    one = case(0.0, 2, wanted=3)
    scores = np.array([2, 0, 0, 1, 1, 0], np.float32)
    assert _ndcg(one, scores, times=1.0) == pytest.approx(1 / np.log2(1.5 + 2))
    assert _ndcg(one, scores, times=4.0) == pytest.approx(1 / np.log2(4.5 + 2))
    assert _ndcg(case(0.0, 2, wanted=-1), scores, times=1.0) == 0


@pytest.fixture(scope="module")
def follower() -> Recommender:
    return fitted(streams.listens())


def test_a_planted_order_is_learned(follower: Recommender) -> None:
    order = follower.model.order
    assert order is not None
    assert isinstance(order.following, Following)
    hits = 0
    for artist in range(streams.N_ARTISTS):
        listed = follower.recommend_from_tracks([f"a{artist}-{n}" for n in (2, 3, 4)], 3, ordered=True).tracks
        hits += f"a{artist}-5" in [track.track_id for track in listed]
        assert len({f"a{artist}-{n}" for n in (2, 3, 4)} & {track.track_id for track in listed}) == 0
    assert hits >= 0.8 * streams.N_ARTISTS


def test_the_order_decides(follower: Recommender) -> None:
    there = follower.recommend_from_tracks(["a1-2", "a1-3", "a1-4", "a7-1", "a7-2", "a7-3"], 5, ordered=True)
    back = follower.recommend_from_tracks(["a7-1", "a7-2", "a7-3", "a1-2", "a1-3", "a1-4"], 5, ordered=True)
    assert there.tracks[0].track_id.startswith("a7-")
    assert back.tracks[0].track_id.startswith("a1-")
    assert back.tracks[0].reason_track_id == "a1-4", "the track that was just played"
    plain = [follower.recommend_from_tracks(names, 5).tracks for names in (["a1-2", "a7-3"], ["a7-3", "a1-2"])]
    assert plain[0] == plain[1]


@pytest.mark.slow
def test_where_order_tells_nothing_nothing_is_learned() -> None:
    assert fitted(streams.listens(in_order=False)).model.order is None


def test_it_can_be_switched_off_and_changes_no_other_list(follower: Recommender) -> None:
    without = fitted(streams.listens(), next={"enabled": False})
    assert without.model.order is None
    asked = ["a1-2", "a1-3"]
    ordered = without.recommend_from_tracks(asked, 9, ordered=True)
    assert ordered.tracks == without.recommend_from_tracks(asked, 9).tracks
    everybody = np.arange(len(follower.model.users), dtype=np.int32)
    for ranked in (without.rank(follower.model.users.all(), 20), follower.ranking.rank(everybody, 20)):
        assert ranked.items.tolist() == without.ranking.rank(everybody, 20).items.tolist()


def test_new_tracks_that_no_play_is_of_keep_their_share_of_places() -> None:
    """That nobody played what nobody was shown does not say that nobody would: without the rule they are all gone."""
    import polars as pl

    old = streams.tracks().frame
    ids = [f"a{artist}-new{n}" for artist in range(streams.N_ARTISTS) for n in range(3)]
    new = old.head(len(ids)).with_columns(
        track_id=pl.Series(ids), artist=pl.Series([track.split("-")[0] for track in ids])
    )
    settings = RunSettings.model_validate({"hybrid": SHORT, "blend": {"share_of_new": 0.2}})
    model = fit(Tracks(pl.concat([old, new])), streams.listens(), None, settings)
    assert model.model.order is not None
    users = np.arange(len(model.model.users), dtype=np.int32)
    by_all = model.ranking.rank(users, 20).items
    now = np.full(len(users), 2**40)
    after = model.rank_at(model.model.counts, model.model.order.histories, now, 20).items
    shares = [float(model.ranking.unplayed[items].mean()) for items in (by_all, after)]
    assert 0.1 < shares[0] < 0.3
    assert shares[0] / 2 < shares[1] < shares[0] * 2, "as learned on some users, before the last plays"


def test_a_level_gives_the_places_that_are_asked_for() -> None:
    """Of 25 old candidates and 10 new ones, which have four of the first 20 places by all plays; three events."""
    rng = np.random.default_rng(0)
    cases = []
    for user in range(3):
        is_new = np.arange(35) >= 25
        values = rng.normal(size=(len(HALF_LIVES), len(OWN) + len(FEATURES), 35)).astype(np.float32)
        values[:, OWN.index("new")] = is_new * 2.0
        today = np.where(is_new, -100.0, rng.normal(size=35)).astype(np.float32)
        today[25:29] = 100
        cases.append(_Case(user, values, today, is_new, 0))
    weights = rng.normal(size=len(OWN) + len(FEATURES))
    weights[OWN.index("new")] = 0
    weights[OWN.index("new")] = _level(cases, 1, weights)
    first = [np.argsort(-(weights @ case.values[1]))[:20] for case in cases]
    assert sum(int(case.is_new[places].sum()) for case, places in zip(cases, first, strict=True)) == 12
    few = [_Case(0, cases[0].values[:, :, 15:], cases[0].today[15:], cases[0].is_new[15:], 0)]
    assert np.isfinite(_level(few, 1, weights)), "fewer candidates than places"
    none = [_Case(0, cases[0].values[:, :, :25], cases[0].today[:25], cases[0].is_new[:25], 0)]
    assert _level(none, 1, weights) == 0.0


def test_stored_lists_follow_where_the_last_plays_tell_what_comes_days_later(follower: Recommender) -> None:
    """If they are asked to: where taste drifts, they name the artist of now."""
    assert follower.model.order is not None
    assert follower.model.order.stored is None
    drifting = fitted(streams.listens(drift=True), next={"stored_lists": True})
    assert drifting.model.order is not None
    assert drifting.model.order.stored is not None
    users = np.arange(len(drifting.model.users), dtype=np.int32)
    stored, by_all = rank_after(drifting.ranking, users, 3), drifting.ranking.rank(users, 3)
    last = np.array([drifting.model.order.histories.of(user)[0][-1] for user in users.tolist()])
    artists = drifting.attributes.artists
    of_now = [float((artists[ranked.items] == artists[last][:, None]).mean()) for ranked in (stored, by_all)]
    assert of_now[0] > of_now[1] + 0.1


@pytest.mark.slow
def test_without_times_nothing_is_learned_and_lists_are_the_same() -> None:
    listens = streams.listens()
    import polars as pl

    undated = Listens(listens.frame.with_columns(listened_at=pl.lit(None, pl.Datetime("us", "UTC"))))
    on, off = (fitted(undated, next={"enabled": enabled}) for enabled in (True, False))
    assert on.model.order is None
    assert on.recommend("u3", 30).tracks == off.recommend("u3", 30).tracks


@pytest.mark.slow
def test_the_same_seed_learns_the_same(follower: Recommender) -> None:
    again = fitted(streams.listens()).model.order
    assert again is not None
    assert follower.model.order is not None
    assert again.following == follower.model.order.following


def test_histories_are_kept(follower: Recommender) -> None:
    order = follower.model.order
    assert order is not None
    plays = in_order(streams.listens(), follower.plays.user_ids, follower.plays.track_ids)
    assert order.histories.of(3)[0].tolist() == plays.items[plays.users == 3][-HISTORY:].tolist()
