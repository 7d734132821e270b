"""Lists of who listens: they follow the last plays, in whatever order these arrive, as long as a session goes on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from helpers import streams
from helpers.live_store import heard, touched
from helpers.stores import copied
from pipelines.publish import publish
from recsys.catalogue.problems import Problems
from recsys.config import RunSettings
from recsys.eventlog.events import Listened, Upload
from recsys.eventlog.snapshot import SinceBuild
from recsys.eventlog.transactions import user_key
from recsys.eventlog.user_state import FORMAT, UserHistory, second_of
from recsys.fit import fit
from recsys.live import user_update
from recsys.live.service import LiveUpdater
from recsys.live.user_update import UserUpdate
from recsys.ranking.next_lists import rank_after
from recsys.recommender import Recommender, open_store
from recsys.serving.fast_path import FastPath
from recsys.serving.server import METHODS
from recsys.store.generation import Store
from recsys.store.lmdb_lookup import Lookup
from recsys.store.record import Record, good_until
from recsys.store.sealed import sealed
from recsys.types import HISTORY, Histories
from recsys.util.progress import Silent
from recsys.v1 import recommender_pb2 as pb

SHORT = {
    "als": {"n_factors": 8, "epochs": 3},
    "choice": {"enabled": False},
    "lightfm": {"n_factors": 4, "epochs": 2},
    "content": {"epochs": 3, "fusion": {"dim": 8, "tower": 4, "hidden": 8, "lyrics": {"n_pieces": 512}}},
}
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GAP = timedelta(seconds=1800)


class Clock:
    """A clock that stands."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now.timestamp()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose users' listens have an order that tells something."""
    settings = RunSettings.model_validate({"hybrid": SHORT})
    recommender = fit(streams.tracks(), streams.listens(), None, settings)
    order = recommender.model.order
    assert order is not None
    # stored lists follow by the same weights, as if the last plays told what comes days later
    model = replace(recommender.model, order=replace(order, stored=order.following))
    recommender = Recommender(replace(recommender.fitted, model=model))
    store = Store(tmp_path_factory.mktemp("streams") / "store")
    publish(recommender, store, settings, {}, Problems(), 0, Silent())
    return store.folder


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    return copied(built, tmp_path)


@contextmanager
def opened(store: Path, clock: Clock) -> Iterator[LiveUpdater]:
    live = LiveUpdater(Store(store), open_store(store, "lmdb"), clock)
    try:
        yield live
    finally:
        live.close()


def at(user: str, minutes_ago: float, *tracks: str) -> list[Listened]:
    """Tracks a minute apart, the last one so many minutes ago."""
    first = NOW - timedelta(minutes=minutes_ago + len(tracks) - 1)
    return [Listened(user, track, at=(first + timedelta(minutes=n)).isoformat()) for n, track in enumerate(tracks)]


def record_of(live: LiveUpdater, user: str) -> Record:
    record = live.list_of(user)
    assert record is not None
    return Record(record)


def listed(live: LiveUpdater, user: str) -> list[str]:
    return [track for track, _, _ in record_of(live, user).found()]


def last_of(live: LiveUpdater, user: str) -> list[str]:
    recent = touched(live, user).recent
    assert recent is not None
    return live._stored.model.items.ids(recent)


def test_the_list_follows_what_was_heard_last(store: Path) -> None:
    """The plays are the same, and so is the list of who knows no order."""
    with opened(store, Clock()) as live:
        live.record(at("one", 1, "a7-0", "a7-1", "a3-4", "a3-5"))
        live.record(at("two", 1, "a3-4", "a3-5", "a7-0", "a7-1"))
        one, two = listed(live, "one"), listed(live, "two")
        assert (one[0], two[0]) == ("a3-6", "a7-2")
        assert one.index("a3-7") < two.index("a3-7")
        reasons = [reason for _, _, reason in record_of(live, "one").found()]
        assert reasons[0] in {"a3-4", "a3-5"}
        assert set(reasons) <= {"a7-0", "a7-1", "a3-4", "a3-5"}


@pytest.mark.parametrize("minutes_ago", [1, 120], ids=["in a session", "after it"])
def test_it_is_what_the_generation_says_of_that_moment(store: Path, minutes_ago: float) -> None:
    tracks = ["a7-0", "a7-1", "a3-4", "a3-5"]
    model, recommender = open_store(store, "lmdb").model, open_store(store, "lmdb")
    with opened(store, Clock()) as live:
        live.record(at("somebody", minutes_ago, *tracks))
        found = record_of(live, "somebody").found()
    rows = model.items.rows(tracks)
    counts = csr_matrix((np.ones(4, np.float32), (np.zeros(4, int), rows)), shape=(1, len(model.items)))
    seconds = np.array([second_of(one) for one in at("somebody", minutes_ago, *tracks)], np.uint32)
    histories = Histories(np.array([0, 4]), rows, seconds)
    ranked = recommender.rank_at(counts, histories, np.array([int(NOW.timestamp())]), 100)
    assert [track for track, _, _ in found[:100]] == model.items.ids(ranked.items[0])
    assert [score for _, score, _ in found[:100]] == pytest.approx(ranked.scores[0].tolist(), rel=1e-4, abs=1e-5)


def test_a_users_own_plays_of_the_build_come_before_those_of_now(store: Path) -> None:
    with opened(store, Clock()) as live:
        model = live._stored.model
        assert model.order is not None
        items, _ = model.order.histories.of(model.users.row("u5"))
        assert len(items) == 20
        live.record(at("u5", 1, "a3-4"))
        assert last_of(live, "u5") == [*model.items.ids(items), "a3-4"]


@pytest.mark.parametrize("order", list(permutations(range(4)))[::5])
def test_any_order_of_arrival_gives_the_same(store: Path, order: tuple[int, ...]) -> None:
    """Also where each comes alone, a track comes twice, and one is disliked early or late."""
    events = at("u1", 2, "a7-0", "a3-4", "a7-0", "a3-5")
    events[1] = Listened("u1", "a3-5", at=events[1].at, disliked=True)
    with opened(store, Clock()) as live:
        live.record(events)
        right, last = listed(live, "u1"), last_of(live, "u1")
        assert last[-2:] == ["a7-0", "a7-0"]
    for name in ("live.lmdb", "live.lmdb-lock"):
        (store / name).unlink(missing_ok=True)
    with opened(store, Clock()) as live:
        for place in order:
            live.record([events[place]])
        assert last_of(live, "u1") == last
        assert listed(live, "u1") == right


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_last_plays_are_those_of_the_log_in_order_of_time(data: st.DataObject, built: Path) -> None:
    """More than are kept, some at the same second, some of tracks that are disliked at any time."""
    n = data.draw(st.integers(1, 90))
    tracks = data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    minutes = data.draw(st.lists(st.integers(0, 60), min_size=n, max_size=n))
    dislikes = data.draw(st.lists(st.booleans() if n < 10 else st.just(False), min_size=n, max_size=n))
    some = data.draw(st.sets(st.integers(0, n - 1), max_size=2))
    listens = [
        Listened("x", str(track), at=(NOW - timedelta(minutes=minute)).isoformat(), disliked=bad or place in some)
        for place, (track, minute, bad) in enumerate(zip(tracks, minutes, dislikes, strict=True))
    ]
    rows = np.array(tracks, np.int32)
    barred = {int(one.track_id) for one in listens if one.disliked}
    right = [
        place
        for place, _ in sorted(enumerate(listens), key=lambda one: second_of(one[1]))
        if tracks[place] not in barred
    ][-HISTORY:]
    nothing = UserHistory(np.zeros(0, np.int32), np.zeros(0, np.float32), 0)
    known = nothing
    for place, listen in enumerate(listens):
        if known.loses_plays([listen], rows[[place]]):
            known = nothing.with_listens(listens[: place + 1], rows[: place + 1], place)
        else:
            known = known.with_listens([listen], rows[[place]], place)
        known = UserHistory.read(known.packed())
    assert known.last is not None
    assert known.last.items.tolist() == [tracks[place] for place in right]
    assert known.last.seconds.tolist() == [second_of(listens[place]) for place in right]


def test_a_dislike_gives_older_plays_their_places_back(store: Path) -> None:
    with opened(store, Clock()) as live:
        live.record(at("x", 200, "a1-1"))
        live.record(at("x", 1, *(["a7-0"] * HISTORY)))
        assert last_of(live, "x") == ["a7-0"] * HISTORY
        live.record([Listened("x", "a7-0", disliked=True)])
        assert last_of(live, "x") == ["a1-1"]
        assert "a7-0" not in listed(live, "x")


def test_a_time_to_come_counts_as_arrival(store: Path) -> None:
    with opened(store, Clock()) as live:
        live.record([Listened("x", "a7-0", at="2999-01-01T00:00:00Z")])
        live.record(at("x", 0, "a3-4"))
        assert last_of(live, "x") == ["a7-0", "a3-4"]


def test_a_list_ends_with_its_session(store: Path) -> None:
    """Bytes say until when they are good; then a thread writes other ones, and once."""
    clock = Clock()
    with opened(store, clock) as live:
        live.record(at("x", 10, "a7-0", "a3-4"))
        recommender = live._stored._recommender
        assert isinstance(recommender.tables, Lookup)
        answers = FastPath(recommender, recommender.tables, live, clock)
        request = pb.RecommendRequest(user_id="x", k=20)
        plain = request.SerializeToString()
        varied = pb.RecommendRequest(user_id="x", k=20, exclude_track_ids=["a0-0"]).SerializeToString()
        ends = int((NOW - timedelta(minutes=10) + GAP).timestamp()) + 1
        quick = answers.recommend(plain)
        assert quick is not None
        assert pb.RecommendResponse.FromString(quick[0]).good_until == ends
        assert good_until(record_of(live, "x").head) == ends
        first, version = listed(live, "x"), live.version()
        clock.now = datetime.fromtimestamp(ends - 1, UTC)
        answers.refresh("x")
        assert live.version() == version, "it is good still"
        assert answers.recommend(plain) is not None
        clock.now = datetime.fromtimestamp(ends, UTC)
        assert answers.recommend(plain) is None, "another list answers, from a thread"
        assert answers.recommend(varied) is None
        answers.refresh("x")
        again = answers.recommend(plain)
        assert again is not None
        later = pb.RecommendResponse.FromString(again[0])
        assert later.good_until == 0
        assert [line.track_id for line in later.tracks] == listed(live, "x")[:20]
        assert set(listed(live, "x")) == set(first)
        version = live.version()
        answers.refresh("x")
        answers.refresh("nobody")
        assert live.version() == version
        live.record(at("x", -60, "a3-5"))
        assert good_until(record_of(live, "x").head) is not None


def test_in_a_large_catalogue_candidates_lie_near_the_last_plays(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list as it was, neighbours and what follows: all that the list of a small catalogue begins with."""
    clock = Clock()
    with opened(store, clock) as live:
        live.record(at("x", 1, "a7-0", "a7-1", "a3-4", "a3-5"))
        right = listed(live, "x")
    (store / "live.lmdb").unlink()
    monkeypatch.setattr(user_update, "EXACT_BELOW", 0)
    with opened(store, clock) as live:
        live.record(at("x", 1, "a7-0", "a7-1", "a3-4", "a3-5"))
        assert listed(live, "x")[:10] == right[:10]
        clock.now += GAP
        live.refresh("x")
        assert good_until(record_of(live, "x").head) is None
        assert listed(live, "x")[0] == "a3-6"


def test_who_cannot_write_computes_what_is_over(store: Path) -> None:
    clock = Clock()
    with opened(store, clock) as live:
        live.record(at("x", 10, "a7-0", "a3-4"))
        in_session = record_of(live, "x").found()
        recommender = reader(store, clock)
        assert tracks_of(recommender, "x") == [(track, pytest.approx(score)) for track, score, _ in in_session[:100]]
        clock.now += GAP
        computed = tracks_of(recommender, "x")
        live.refresh("x")
        assert computed == [
            (track, pytest.approx(score, rel=1e-4, abs=1e-5)) for track, score, _ in record_of(live, "x").found()[:100]
        ]
        assert [score for _, score in computed] != [score for _, score, _ in in_session]


def reader(store: Path, clock: Clock) -> Recommender:
    """Whoever opens a store, with this clock."""
    recommender = open_store(store, "lmdb")
    since = recommender.fitted.since
    assert isinstance(since, SinceBuild)
    since._clock = clock
    return recommender


def tracks_of(recommender: Recommender, user: str) -> list[tuple[str, float]]:
    return [(one.track_id, one.score) for one in recommender.recommend(user, 100).tracks]


def test_filters_and_caps_follow_too(store: Path) -> None:
    with opened(store, Clock()) as live:
        live.record(at("x", 1, "a7-0", "a7-1", "a3-4", "a3-5"))
        recommender = reader(store, Clock())
        asked = pb.RecommendRequest(user_id="x", k=5, include_heard=True)
        first = METHODS["Recommend"][0](recommender, asked).tracks
        assert first[0].track_id == "a3-6"
        assert {line.reason_track_id for line in first} <= {"a7-0", "a7-1", "a3-4", "a3-5"}
        capped = [
            track
            for track, _ in [(t.track_id, t.score) for t in recommender.recommend("x", 4, max_per_artist=1).tracks]
        ]
        assert capped[0] == "a3-6"
        assert len({track.split("-")[0] for track in capped}) == 4


def test_a_history_of_an_earlier_format_is_made_anew(store: Path) -> None:
    with opened(store, Clock()) as live:
        live.record(at("u1", 9, "a7-0", "a3-4"))
        right = last_of(live, "u1")
        key = user_key(live.generation, "u1")
        with live._live.writing() as writing:
            value = writing.get("heard", key)
            assert value is not None
            known = UserHistory.read(value)
            old = known.up_to.to_bytes(8, "little") + known.items.tobytes() + known.plays.tobytes()
            writing.put("heard", key, sealed(2, old))
        assert last_of(live, "u1") == []
        live.record(at("u1", 1, "a3-5"))
        assert last_of(live, "u1") == [*right, "a3-5"]
        with live._live.reading() as reading:
            value = reading.get("heard", key)
            assert value is not None
            assert value[0] == FORMAT
            again = UserHistory.read(value)
        played = dict(zip(again.items.tolist(), again.plays.tolist(), strict=True))
        assert (
            played[live._stored.model.items.row("a7-0")]
            == dict(zip(known.items.tolist(), known.plays.tolist(), strict=True))[live._stored.model.items.row("a7-0")]
        ), "nothing is counted twice"


def test_a_deleted_user_has_no_history(store: Path) -> None:
    with opened(store, Clock()) as live:
        live.record(at("u1", 2, "a7-0", "a3-4"))
        live.delete_user("u1")
        live.settle()
        with live._live.reading() as reading:
            assert reading.get("heard", user_key(live.generation, "u1")) is None
        live.record(at("u1", 1, "a3-5"))
        assert last_of(live, "u1") == ["a3-5"]


@pytest.mark.parametrize("minutes_ago", [1, 120])
def test_an_upload_stands_where_the_list_is_made_anew(store: Path, minutes_ago: float) -> None:
    """It is of the artist who is played, and only its place in the order of what comes next is right."""
    clock = Clock()
    with opened(store, clock) as live:
        live.record(at("x", minutes_ago, "a7-0", "a7-1", "a3-4", "a3-5"))
        before = listed(live, "x")
        model = live._stored.model
        vector = np.asarray(model.item_vectors[model.items.row("a3-6")]) * np.float32(1.01)
        upload = Upload("new", "hash", "new.wav", None, "a3", None, [], None, None, None, NOW.isoformat())
        assert live.add(upload, {"hybrid": vector}) > 0
        found = record_of(live, "x").found()
        assert [track for track, _, _ in found if track != "new"] == before
        with live._live.reading() as reading:
            snapshot = live._views.at(reading).snapshot
            anew = UserUpdate(live._stored, snapshot, clock())(reading, "x").values["lists"]
        assert anew is not None
        assert [(track, pytest.approx(score, rel=1e-4, abs=1e-5)) for track, score, _ in Record(anew).found()] == [
            (track, score) for track, score, _ in found
        ]


def test_without_an_order_the_list_is_by_all_plays(tiny_store: Path, tmp_path: Path) -> None:
    """The shared store has no times; times of now change nothing."""
    store = copied(tiny_store, tmp_path)
    with opened(store, Clock()) as live:
        assert live._stored.model.order is None
        live.record(heard("u0", "t2", "t5"))
        live.record([Listened("u1", "t2", at=NOW.isoformat()), Listened("u1", "t5", at=NOW.isoformat())])
        for user in ("u0", "u1"):
            assert good_until(record_of(live, user).head) is None


def test_a_call_does_not_wait_for_other_lists(store: Path) -> None:
    clock = Clock()
    with opened(store, clock) as live:
        live.record(at("x", 1, "a7-0"))
        clock.now += GAP
        version = live.version()
        caller = threading.Thread(target=live.refresh, args=("x",), daemon=True)
        with live._list_updater._updating:
            caller.start()
            caller.join(10)
            assert not caller.is_alive()
        assert live.version() == version
        live.refresh("x")
        assert live.version() > version


def test_stored_lists_follow_the_last_plays_of_the_build(store: Path) -> None:
    """With reasons among the last ten plays; what is computed says the same."""
    recommender = open_store(store, "lmdb")
    model = recommender.model
    assert model.order is not None
    for user in ("u5", "u17"):
        row = model.users.row(user)
        items, _ = model.order.histories.of(row)
        ranked = rank_after(recommender.ranking, np.array([row], np.int32), 60)
        found = recommender.recommend(user, 60).tracks
        assert [one.track_id for one in found] == model.items.ids(ranked.items[0])
        assert [one.score for one in found] == pytest.approx(ranked.scores[0].tolist(), rel=1e-3, abs=1e-4)
        assert {one.reason_track_id for one in found} <= set(model.items.ids(items[-10:]))
        by_all = recommender.ranking.rank(np.array([row], np.int32), 60)
        assert by_all.items[0].tolist() != ranked.items[0].tolist()
        some = [one.track_id for one in found[1::2]]
        computed = METHODS["Recommend"][0](
            recommender, pb.RecommendRequest(user_id=user, k=25, include_heard=True, exclude_track_ids=some)
        ).tracks
        heard = set(model.items.ids(model.heard(row)))
        left = [line.track_id for line in computed if line.track_id not in heard]
        assert left == [one.track_id for one in found[::2]][: len(left)], "what is computed is of the same scores"


def test_an_upload_keeps_its_distance_to_place_20_in_a_list_that_follows(store: Path) -> None:
    with opened(store, Clock()) as live:
        model = live._stored.model
        vector = np.asarray(model.item_vectors[model.items.row("a3-6")]) * np.float32(1.01)
        upload = Upload("new", "hash", "new.wav", None, "a3", None, [], None, None, None, NOW.isoformat())
        assert live.add(upload, {"hybrid": vector}) > 0
        users = np.arange(len(model.users), dtype=np.int32)
        by_all = live._stored._recommender.ranking.queries(users) @ vector
        edges = np.asarray(live._stored.score_at_20)
        n = 0
        for user in users.tolist():
            record = live.list_of(model.users.id(user))
            if record is None:
                continue
            found = Record(record).found()
            scores = [score for _, score, _ in found]
            assert scores == sorted(scores, reverse=True)
            place = [track for track, _, _ in found].index("new")
            assert (place < 20) == (by_all[user] > edges[user])
            n += 1
        assert n > 10
