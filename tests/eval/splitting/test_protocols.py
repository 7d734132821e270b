"""Splits: what trains, what is held out, what is neither."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from eval.splitting.protocols import cold_track, cold_user, splits, validation_split, warm_at_random
from eval.splitting.split import PROTOCOLS, Split, SplitSettings, heard_pairs
from eval.splitting.temporal import cold_by_time, warm_by_time
from helpers.places import DATA
from recsys.catalogue.listens import has_times
from recsys.errors import DataError
from recsys.types import LISTENS_SCHEMA, TRACKS_SCHEMA, Listens, Tracks

START = datetime(2024, 5, 1, tzinfo=UTC)
TWEETS = DATA / "listening-tweets" / "listens.csv"


def hours(n: float) -> datetime:
    return START + timedelta(hours=n)


def listens_of(rows: list[tuple[str, str, float, datetime | None, bool]]) -> Listens:
    """Rows of user, track, plays, time, disliked."""
    full = [(user, track, plays, at, False, disliked) for user, track, plays, at, disliked in rows]
    return Listens(pl.DataFrame(full, schema=LISTENS_SCHEMA, orient="row"))


def pairs(listens: Listens) -> set[tuple[str, str]]:
    return set(listens.frame.select("user_id", "track_id").rows())


def library(n_users: int, n_tracks: int) -> Listens:
    """Every user played every track once, the first track twice, and disliked one more."""
    rows = [(f"u{user}", f"t{track}", 1.0, None, False) for user in range(n_users) for track in range(n_tracks)]
    rows += [(f"u{user}", "t0", 1.0, None, False) for user in range(n_users)]
    rows += [(f"u{user}", "bad", 0.0, None, True) for user in range(n_users)]
    return listens_of(rows)


@st.composite
def any_listens(draw: st.DrawFn) -> Listens:
    """A few rows of few users and tracks, so that pairs repeat and likes contradict dislikes."""
    row = st.tuples(
        st.sampled_from("abcd"),
        st.sampled_from("123456789"),
        st.sampled_from([1.0, 2.5]),
        st.one_of(st.none(), st.integers(0, 30).map(hours)),
        st.sampled_from([False, False, False, True]),
    )
    rows = draw(st.lists(row, min_size=5, max_size=60))
    return listens_of([(u, t, 0.0 if bad else plays, at, bad) for u, t, plays, at, bad in rows])


def by_artist(listens: Listens) -> Tracks:
    """Tracks 1 to 3 are of one artist, 4 to 6 of another, the others of nobody that is known."""
    ids = listens.frame["track_id"].unique().sort().to_list()
    artists = {**dict.fromkeys("123", "x"), **dict.fromkeys("456", "y")}
    empty = {name: [None] * len(ids) for name in TRACKS_SCHEMA.names()}
    return Tracks(pl.DataFrame({**empty, "track_id": ids, "artist": [artists.get(n) for n in ids]}, TRACKS_SCHEMA))


def check_parts(split: Split, listens: Listens) -> None:
    """Nothing in two parts, nothing lost, and each protocol's own promise."""
    parts = [split.train, split.held_out, split.unused]
    assert sorted(str(row) for part in parts for row in part.frame.rows()) == sorted(map(str, listens.frame.rows()))
    assert len(split.held_out)
    assert pairs(split.held_out).isdisjoint(pairs(split.train))
    assert (split.held_out.frame["plays"] > 0).all()
    trained = set(split.train.frame.filter(pl.col("plays") > 0)["user_id"])
    if split.protocol == "cold-user":
        assert set(split.held_out.frame["user_id"]).isdisjoint(split.train.frame["user_id"])
        assert set(split.first_tracks.select("user_id", "track_id").rows()) == pairs(split.held_out)
        return
    assert set(split.held_out.frame["user_id"]) <= trained
    if split.protocol == "cold-track":
        cold = set(split.cold_track_ids)
        assert set(split.held_out.frame["track_id"]) <= cold
        assert cold.isdisjoint(split.train.frame["track_id"])
        if split.cut_at is None:
            return
    if split.cut_at is not None:
        assert split.train.frame["listened_at"].max() < split.cut_at <= split.held_out.frame["listened_at"].min()
        assert split.train.frame["listened_at"].null_count() == 0
        if split.protocol == "warm":
            known = set(split.train.frame.filter(pl.col("plays") > 0)["track_id"])
            assert set(split.held_out.frame["track_id"]) <= known
    else:
        assert not len(split.unused)


@pytest.mark.slow
@given(
    any_listens(),
    st.sampled_from(PROTOCOLS),
    st.sampled_from(["track", "artist", "time"]),
    st.sampled_from([1, 3]),
    st.integers(0, 3),
    st.sampled_from([0.2, 0.5]),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_nothing_in_two_parts_and_nothing_lost(
    listens: Listens, protocol: str, cold_by: str, n_cuts: int, seed: int, share: float
) -> None:
    settings = SplitSettings(
        held_out_share=share,
        n_splits=1,
        n_cuts=n_cuts,
        cold_by=cold_by,
        min_user_tracks=2,
        min_user_plays=0,
        seed=seed,
    )
    try:
        found = list(splits(listens, protocol, settings, by_artist(listens)))
    except DataError:
        assume(False)
    assert len({split.seed for split in found}) == len(found)
    by_time = has_times(listens) and (protocol == "warm" or (protocol == "cold-track" and cold_by == "time"))
    assert len(found) == (n_cuts if by_time else 1)
    for split in found:
        assert (split.cut_at is not None) == by_time
        check_parts(split, listens)
    if by_time:  # a window ends where the next begins
        for early, late in pairwise(found):
            assert early.cut_at <= late.cut_at
            assert early.held_out.frame["listened_at"].max() < late.cut_at


@pytest.mark.slow
@given(any_listens(), st.sampled_from(PROTOCOLS), st.sampled_from(["track", "artist", "time"]), st.integers(0, 3))
@hypothesis_settings(max_examples=60, deadline=None)
def test_validation_parts_the_training_rows_and_no_others(
    listens: Listens, protocol: str, cold_by: str, seed: int
) -> None:
    settings = SplitSettings(
        held_out_share=0.3, n_splits=1, n_cuts=2, cold_by=cold_by, min_user_tracks=2, min_user_plays=0, seed=seed
    )
    try:
        outer = next(splits(listens, protocol, settings, by_artist(listens)))
        inner = validation_split(outer, settings)
    except DataError:
        assume(False)
    assert inner.protocol == protocol
    assert (inner.cut_at is None) == (outer.cut_at is None)
    check_parts(inner, outer.train)
    seen = pairs(inner.train) | pairs(inner.held_out) | pairs(inner.unused)
    assert seen.isdisjoint(pairs(outer.held_out))
    if protocol == "cold-track" and cold_by == "artist":
        cold = set(inner.cold_track_ids)
        for artist in ({"1", "2", "3"}, {"4", "5", "6"}):
            heard = artist & {track for _, track in heard_pairs(outer.train.frame).rows()}
            assert heard <= cold or heard.isdisjoint(cold)


def test_a_cut_in_time_holds_out_only_what_can_be_judged() -> None:
    early = [("ann", "x", 1.0, hours(0), False), ("ann", "y", 1.0, hours(1), False)]
    early += [("ann", "bad", 0.0, hours(2), True), ("bob", "x", 1.0, hours(3), False)]
    early += [("bob", "z", 1.0, hours(4), False), ("ann", "z2", 0.0, hours(5), True)]
    early += [("bob", "bad", 1.0, hours(6), False), ("bob", "shunned", 0.0, hours(7), True)]
    late = [
        ("ann", "z", 1.0, hours(8), False),  # the one pair that is new, known and of a known user
        ("ann", "x", 1.0, hours(9), False),  # heard before
    ]
    listens = listens_of([*early, *late])
    split = warm_by_time(listens, SplitSettings(min_user_plays=0))
    assert pairs(split.held_out) == {("ann", "z")}
    assert pairs(split.unused) == {("ann", "x")}
    assert len(split.train) == 8

    more = [
        ("ann", "fresh", 1.0, hours(9), False),  # a track unknown before the cut
        ("ann", "shunned", 1.0, hours(9), False),  # a track that nobody heard before the cut
        ("cy", "x", 1.0, hours(9), False),  # a user unknown before the cut
        ("ann", "bad", 1.0, hours(9), False),  # disliked before the cut
        ("bob", "y", 1.0, hours(9), False),  # disliked after the cut
        ("bob", "y", 0.0, hours(9), True),
        ("ann", "y", 1.0, None, False),  # no time
    ]
    share = 8 / 16  # of the rows with a time, so that the cut stays where it was
    split = warm_by_time(listens_of([*early, *late, *more]), SplitSettings(min_user_plays=0, held_out_share=share))
    assert len(split.train) == 8
    assert pairs(split.held_out) == {("ann", "z")}
    assert len(split.unused) == len(more) + 1
    assert "1 rows without a time" in split.note


@pytest.mark.parametrize(("bounds", "judged"), [((0, 500), {"few", "many"}), ((4, 500), {"many"}), ((0, 3), {"few"})])
def test_users_outside_the_bounds_of_plays_only_train(bounds: tuple[float, float], judged: set[str]) -> None:
    rows = [("many", f"t{n}", 1.0, hours(n), False) for n in range(6)]
    rows += [("few", "t0", 1.0, hours(5), False), ("few", "t5", 1.0, hours(5), False)]
    rows += [("few", "t3", 1.0, hours(9), False), ("many", "t5", 1.0, hours(9), False)]
    rows = [row for row in rows if row[:2] != ("many", "t5") or row[3] == hours(9)]
    listens = listens_of(rows)
    low, high = bounds
    split = warm_by_time(listens, SplitSettings(min_user_plays=low, max_user_plays=high))
    assert set(split.held_out.frame["user_id"]) == judged
    assert set(split.train.frame["user_id"]) == {"few", "many"}


@pytest.mark.parametrize(("n_tracks", "n_held_out"), [(4, 0), (5, 1), (12, 2), (13, 3)])
def test_a_fifth_of_each_users_tracks_is_held_out(n_tracks: int, n_held_out: int) -> None:
    listens = Listens(pl.concat([library(2, n_tracks).frame, library(1, 20).frame.with_columns(user_id=pl.lit("big"))]))
    split = warm_at_random(listens, SplitSettings(), seed=1)
    held_out = split.held_out.frame.unique(["user_id", "track_id"])["user_id"].value_counts()
    by_user = dict(held_out.rows())
    assert by_user.get("u0", 0) == by_user.get("u1", 0) == n_held_out
    assert by_user["big"] == 4


def test_a_pair_was_heard_if_it_was_played_and_never_disliked() -> None:
    rows = [("u", "yes", 1.0, None, False), ("u", "yes", 2.0, None, False), ("u", "none", 0.0, None, False)]
    rows += [("u", "no", 1.0, None, False), ("u", "no", 0.0, None, True), ("v", "no", 1.0, None, False)]
    assert sorted(heard_pairs(listens_of(rows).frame).rows()) == [("u", "yes"), ("v", "no")]


def test_dislikes_stay_in_training_and_bar_a_play() -> None:
    contradiction = listens_of([("u0", "t1", 1.0, None, False), ("u0", "t1", 0.0, None, True)])
    listens = Listens(pl.concat([library(1, 5).frame, contradiction.frame]))
    for seed in range(20):
        split = warm_at_random(listens, SplitSettings(held_out_share=0.9, min_user_tracks=2), seed)
        assert ("u0", "t1") in pairs(split.train)
        assert ("u0", "bad") in pairs(split.train)
        assert len(split.unused) == 0


def test_a_cold_track_loses_every_row() -> None:
    listens = library(3, 10)
    rare = listens_of([("lone", "t1", 1.0, None, False), ("lone", "t2", 1.0, None, False)])
    split = cold_track(Listens(pl.concat([listens.frame, rare.frame])), SplitSettings(), seed=4)
    assert split.cold_track_ids is not None
    assert len(split.cold_track_ids) == 2  # a fifth of the ten that were heard; 'bad' was not
    assert "bad" not in split.cold_track_ids
    assert set(split.train.frame["track_id"]).isdisjoint(split.cold_track_ids)
    assert pairs(split.held_out) >= {(f"u{user}", track) for user in range(3) for track in split.cold_track_ids}


def test_a_listener_of_cold_tracks_alone_is_not_judged() -> None:
    listens = library(3, 10)
    for seed in range(10):
        cold = cold_track(listens, SplitSettings(), seed).cold_track_ids or []
        lone = listens_of([("lone", track, 1.0, None, False) for track in cold])
        split = cold_track(Listens(pl.concat([listens.frame, lone.frame])), SplitSettings(), seed)
        assert split.cold_track_ids == cold
        assert "lone" not in set(split.held_out.frame["user_id"])
        assert pairs(split.unused) == {("lone", track) for track in cold}


def test_the_choice_depends_on_seed_and_rows_but_not_on_their_order() -> None:
    listens = library(4, 15)
    turned = Listens(listens.frame.reverse())

    def held_out(listens: Listens, protocol: str, seed: int) -> set[tuple[str, str]]:
        (split,) = splits(listens, protocol, SplitSettings(n_splits=1, seed=seed))
        return pairs(split.held_out)

    for protocol in PROTOCOLS:
        (one,), (other,) = (list(splits(rows, protocol, SplitSettings(n_splits=1))) for rows in (listens, turned))
        if one.first_tracks is not None:
            assert one.first_tracks.sort(pl.all()).equals(other.first_tracks.sort(pl.all()))
        assert held_out(listens, protocol, 0) == held_out(turned, protocol, 0)
        assert held_out(listens, protocol, 0) != held_out(listens, protocol, 1)


def test_random_splits_come_once_a_seed_and_a_cut_in_time_once() -> None:
    settings = SplitSettings(n_splits=3, seed=7, min_user_plays=0)
    assert [split.seed for split in splits(library(2, 9), "warm", settings)] == [7, 8, 9]
    timed = listens_of([("u", f"t{n}", 1.0, hours(n), False) for n in range(8)])
    timed = Listens(pl.concat([timed.frame, listens_of([("v", "t1", 1.0, hours(0), False)]).frame]))
    timed = Listens(pl.concat([timed.frame, listens_of([("v", "t2", 1.0, hours(8), False)]).frame]))
    assert len(list(splits(timed, "warm", settings))) == 1
    assert len(list(splits(timed, "cold-track", settings))) == 3


def test_cuts_roll_over_the_last_events() -> None:
    """Sixty events: cuts at 42, 48 and 54, each tested on the six hours up to the next."""
    rows = [("ann", f"t{n}", 1.0, hours(n), False) for n in range(30)]
    known = [("cy", f"t{n}", 1.0, hours(-40 + n), False) for n in range(30)]
    settings = SplitSettings(n_cuts=3, min_user_plays=0)
    found = list(splits(listens_of(rows + known), "warm", settings))
    assert [split.seed for split in found] == [0, 1, 2]
    assert [sorted(int(track[1:]) for _, track in pairs(split.held_out)) for split in found] == [
        [12, 13, 14, 15, 16, 17],
        [18, 19, 20, 21, 22, 23],
        [24, 25, 26, 27, 28, 29],
    ]
    assert [len(split.train) for split in found] == [42, 48, 54]
    assert "until 2024-05-01 18:00:00 for users" in found[0].note
    assert SplitSettings().windows() == [(0.8, 1.0)]
    with pytest.raises(ValidationError, match="nothing before the first cut"):
        SplitSettings(n_cuts=10)


def test_validation_in_time_ends_at_the_cut() -> None:
    rows = [("ann", f"t{n}", 1.0, hours(n), False) for n in range(50)]
    known = [("cy", f"t{n}", 1.0, hours(-60 + n), False) for n in range(50)]
    settings = SplitSettings(min_user_plays=0)
    (outer,) = splits(listens_of(rows + known), "warm", settings)
    inner = validation_split(outer, settings)
    assert (outer.cut_at, inner.cut_at) == (hours(30), hours(14))  # at 80 of 100 events, then at 64 of those 80
    assert inner.held_out.frame["listened_at"].max() == hours(29)


def test_what_is_first_met_after_the_cut_is_cold() -> None:
    early = [
        ("ann", "x", 1.0, hours(0), False),
        ("bob", "y", 1.0, hours(1), False),
        ("bob", "met", 0.0, hours(2), True),
        ("ann", "z", 1.0, hours(3), False),
        ("bob", "x", 1.0, hours(4), False),
        ("ann", "w", 1.0, hours(5), False),
    ]
    late = [
        ("ann", "new", 1.0, hours(8), False),  # the two pairs of known users and a track that nobody had met
        ("bob", "new", 2.0, hours(9), False),
        ("ann", "y", 1.0, hours(9), False),  # a track known by then
        ("ann", "met", 1.0, hours(9), False),  # a track that bob disliked by then: not new
        ("cy", "only", 1.0, hours(9), False),  # a user unknown before the cut; the track is cold all the same
        ("ann", "bad", 1.0, hours(9), False),  # disliked after the cut, and heard by nobody else
        ("ann", "bad", 0.0, hours(9), True),
        ("bob", "dim", 1.0, None, False),  # no time
    ]
    listens = listens_of([*early, *late])
    split = cold_by_time(listens, SplitSettings(min_user_plays=0, held_out_share=7 / 13, seed=4))
    assert split.cut_at == hours(8)
    assert (split.protocol, split.seed) == ("cold-track", 4)
    assert pairs(split.train) == {row[:2] for row in early}
    assert pairs(split.held_out) == {("ann", "new"), ("bob", "new")}
    assert split.cold_track_ids == ["new", "only"]
    assert len(split.unused) == 6
    assert "2 tracks that nobody had met" in split.note
    assert "1 rows without a time" in split.note
    bounded = cold_by_time(listens, SplitSettings(min_user_plays=5, max_user_plays=6, held_out_share=7 / 13))
    assert pairs(bounded.held_out) == {("bob", "new")}  # 6 plays in all against 7 of ann
    assert bounded.cold_track_ids == split.cold_track_ids


def test_new_tracks_of_rolling_cuts_and_of_validation_are_those_of_their_own_time() -> None:
    """A track an hour: each is new in the one test that its hour falls in, and in no other."""
    rows = [(f"u{n % 2}", f"t{n}", 1.0, hours(n), False) for n in range(100)]
    settings = SplitSettings(min_user_plays=0, cold_by="time")
    (outer,) = splits(listens_of(rows), "cold-track", settings)
    assert sorted(outer.cold_track_ids) == sorted(f"t{n}" for n in range(80, 100))
    inner = validation_split(outer, settings)
    assert (outer.cut_at, inner.cut_at) == (hours(80), hours(64))
    assert sorted(inner.cold_track_ids) == sorted(f"t{n}" for n in range(64, 80))
    assert inner.train.frame["listened_at"].max() == hours(63)
    rolling = list(splits(listens_of(rows), "cold-track", settings.model_copy(update={"n_cuts": 2})))
    assert [sorted(split.cold_track_ids) for split in rolling] == [
        [f"t{n}" for n in range(80, 90)],
        [f"t{n}" for n in range(90, 100)],
    ]
    assert [split.seed for split in rolling] == [0, 1]


def test_cold_by_time_needs_times() -> None:
    some = [("u", f"t{n}", 1.0, hours(n) if n < 4 else None, False) for n in range(8)]
    with pytest.raises(DataError, match=r"4 of 8 listens say when .* more than half; give listened_at, or .*--cold-by"):
        next(splits(listens_of(some), "cold-track", SplitSettings(cold_by="time", min_user_plays=0)))


def test_cold_artists_lose_every_row_of_every_track() -> None:
    rows = [(user, track, 1.0, None, False) for user in "abcd" for track in "12345678"]
    rows += [("e", track, 0.0, None, True) for track in "13"]
    listens = listens_of(rows)
    settings = SplitSettings(cold_by="artist", held_out_share=0.5, n_splits=12)
    drawn = set()
    for split in splits(listens, "cold-track", settings, by_artist(listens)):
        cold = frozenset(split.cold_track_ids)
        drawn.add(cold)
        assert cold.isdisjoint(split.train.frame["track_id"])
        for artist in ("123", "456"):
            assert cold.issuperset(artist) or cold.isdisjoint(artist)
        assert "2 of 4 artists" in split.note
    assert len(drawn) > 3
    # a dislike of another track by a cold artist goes too, though nobody heard that track
    unheard = listens_of([*[(user, "1", 1.0, None, False) for user in "ab"], ("a", "2", 0.0, None, True)])
    kept = listens_of([(user, "9", 1.0, None, False) for user in "ab"])
    both = Listens(pl.concat([unheard.frame, kept.frame]))
    for split in splits(both, "cold-track", settings, by_artist(both)):
        if split.cold_track_ids == ["1"]:
            assert pairs(split.train) == {("a", "9"), ("b", "9")}
            assert pairs(split.unused) == {("a", "2")}


def test_cold_users_come_in_the_order_of_time() -> None:
    rows = [("ann", "late", 1.0, hours(9), False), ("ann", "early", 1.0, hours(3), False)]
    rows += [("ann", "early", 2.0, hours(11), False), ("ann", "middle", 1.0, hours(5), False)]
    rows += [("ann", "never", 1.0, None, False), ("ann", "bad", 0.0, hours(1), True)]
    listens = listens_of([*rows, *[(f"u{n}", "early", 1.0, hours(n), False) for n in range(4)]])
    split = cold_user(listens, SplitSettings(held_out_share=0.9), seed=0)
    assert split.first_tracks.rows() == [
        ("ann", "early", 3.0, 1),
        ("ann", "middle", 1.0, 2),
        ("ann", "late", 1.0, 3),
        ("ann", "never", 1.0, 4),
    ]
    assert set(split.train.frame["user_id"]) == {"u0", "u1", "u2", "u3"}  # of one track each: nothing to judge
    assert pairs(split.unused) == {("ann", "bad")}


def test_without_times_cold_users_come_in_a_random_order() -> None:
    split = cold_user(library(40, 6), SplitSettings(), seed=1)
    by_user = split.first_tracks.sort("user_id", "place").group_by("user_id").agg("track_id", "place")
    assert len(by_user) == 8
    assert by_user["place"].to_list() == [[1, 2, 3, 4, 5, 6]] * 8
    assert by_user["track_id"].n_unique() > 5
    with pytest.raises(ValidationError, match="rising whole numbers"):
        SplitSettings(fold_in_tracks=(3, 1))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_to_hold_out_is_said(protocol: str) -> None:
    only = listens_of([("u", "t", 1.0, None, False), ("v", "t", 0.0, None, True)])
    with pytest.raises(DataError, match=f"{protocol} protocol can hold nothing out of 2 listens of 2 users"):
        list(splits(only, protocol, SplitSettings()))


@pytest.mark.skipif(not TWEETS.exists(), reason="the shared listening-tweets data is not here")
def test_real_listens_are_cut_at_four_fifths() -> None:
    raw = pl.read_csv(TWEETS, infer_schema=False).with_columns(
        pl.from_epoch(pl.col("listened_at").cast(pl.Int64)).dt.cast_time_unit("us").dt.replace_time_zone("UTC"),
        plays=pl.lit(1.0),
        liked=pl.lit(False),
        disliked=pl.lit(False),
    )
    listens = Listens(raw.select(LISTENS_SCHEMA.names()))
    split: Split = warm_by_time(listens, SplitSettings())
    assert len(split.train) / len(raw) == pytest.approx(0.8, abs=1e-3)
    assert split.held_out.frame["user_id"].n_unique() == 470
    assert len(pairs(split.held_out)) == 1282
    new = cold_by_time(listens, SplitSettings())
    assert (new.cut_at, len(new.train)) == (split.cut_at, len(split.train))
    assert (len(new.cold_track_ids), len(pairs(new.held_out))) == (5454, 3503)
    assert new.held_out.frame["user_id"].n_unique() == 536
