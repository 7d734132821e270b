"""Stores that earlier code wrote open, serve, take writes, roll back and rebuild, with nothing lost.

``golden/make_store.py`` says what is in them; each was packed by the code whose formats it has, and is not made again.
"""

import json
import tarfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from golden.make_store import add, clip, heard, opened, plays_of, rebuild
from helpers.places import GOLDEN
from helpers.serve_process import stub_of
from helpers.served import served
from helpers.upload_service import CALL_S, pieces
from recsys.errors import NoSpaceError
from recsys.eventlog.archive import read_archive
from recsys.eventlog.replay import read_live
from recsys.eventlog.store import open_live
from recsys.eventlog.transactions import TRACK, USER
from recsys.live.add_track import NewTrack, add_track
from recsys.live.rollback import rollback
from recsys.recommender import Recommender, open_store
from recsys.store.generation import Store
from recsys.store.manifest import read_facts
from recsys.v1 import recommender_pb2 as pb

PACKED = sorted((GOLDEN).glob("store-*.tar.xz"))


@dataclass(frozen=True)
class Golden:
    """An unpacked one, and what is so of it."""

    folder: Path
    facts: dict[str, Any]

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")


@pytest.fixture(params=PACKED, ids=lambda file: file.name.partition(".")[0])
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Golden:
    with tarfile.open(request.param) as packed:
        packed.extractall(tmp_path, filter="data")
    return Golden(tmp_path, json.loads((tmp_path / "expected.json").read_text()))


def same_lists(found: dict[str, list[list[Any]]], expected: dict[str, list[list[Any]]]) -> None:
    """The same tracks and reasons in the same order, and scores that differ by rounding alone."""
    for user, lines in expected.items():
        assert [line[::2] for line in found[user]] == [line[::2] for line in lines], user
        assert [line[1] for line in found[user]] == pytest.approx([line[1] for line in lines], abs=1e-5)


def test_there_is_one_of_the_first_format() -> None:
    assert [file.name for file in PACKED][:1] == ["store-1.tar.xz"]
    assert all(file.stat().st_size < 1_000_000 for file in PACKED)


@pytest.mark.parametrize("backend", ["duckdb", "lmdb"])
def test_it_opens_and_says_what_it_said(golden: Golden, backend: Any) -> None:
    assert golden.store.names() == golden.facts["generations"]
    with closing(open_store(golden.store.folder, backend)) as recommender:
        status = recommender.status()
        assert {name: status[name] for name in golden.facts["status"]} == golden.facts["status"]
        for track, lines in golden.facts["near"].items():
            found = recommender.similar(track, 10).tracks
            assert [t.track_id for t in found] == [line[0] for line in lines]
            assert [t.score for t in found] == pytest.approx([line[1] for line in lines], abs=1e-5)
            with pytest.raises(NoSpaceError, match="no space 'next'"):
                recommender.similar(track, 10, "next")
        found = {user: recommender.recommend(user, 20).tracks for user in golden.facts["lists"]}
        assert recommender.track("s0")["path"].endswith("music/s0.wav")
        known = {t.track_id for user in found for t in recommender.recommend(user, 200).tracks}
    same_lists({u: [[t.track_id, t.score, t.reason_track_id] for t in ts] for u, ts in found.items()},
               golden.facts["lists"])  # fmt: skip
    assert not known & set(golden.facts["never"])


def test_the_log_and_the_journal_say_what_they_said(golden: Golden) -> None:
    log, store = golden.facts["log"], golden.store
    with open_live(store.live) as live, live.reading() as reading:
        assert (reading.last_seq(), reading.moved_up_to()) == (log["last_number"], log["moved_up_to"])
        assert [[number, type(event).__name__] for number, event in reading.events()] == log["entries"]
        uploads = {u.track_id: [number, u.content_hash, u.file] for number, u in reading.uploads()}
        assert uploads == log["uploads"]
        assert (reading.gone(TRACK), reading.gone(USER)) == (log["gone_tracks"], log["gone_users"])
        assert all(reading.recorded(event) for event in golden.facts["events"])
        assert not reading.recorded("u0 t2 9")
        assert len(read_archive(store, reading))
    taken = read_live(store)
    found = {"listens": len(taken.listens), "last_number": taken.last_seq}
    assert found | {"uploads": [u.track_id for u in taken.uploads]} == golden.facts["taken"]
    assert {n: read_facts(store.generation(n))["last_live_number"] for n in store.names()} == golden.facts["taken_in"]
    assert sorted(file.name for file in store.uploads.iterdir()) == golden.facts["uploaded_files"]


def write(golden: Golden) -> int:
    """Write every kind of entry but uploads; gives how many there are."""
    with opened(golden.folder) as live:
        again = live.record([*heard("u0", "t14", day=5), *heard("u0", "t19", "up-mid", day=9)])
        assert (again.recorded, again.repeated, again.refused) == (2, 1, []), "an event of before counts once"
        refused = live.record([*heard("u0", "t7", "up-gone", "up-brief", day=9)]).refused
        assert [place for place, _ in refused] == [0, 1, 2], "what was deleted stays so"
        live.record([*heard("fresh", "t1", "up-new", day=9), *heard("u2", "t20", day=9, disliked=True)])
        live.delete_user("new")
        live.delete_user("late")
        live.record(heard("late", "s4", day=10))
        live.delete_track("t16")
        live.delete_track("up-old")
    return 10


def seen(store: Path) -> dict[str, list[str]]:
    """Ids of everybody's whole list."""
    with closing(Recommender.open(store)) as recommender:
        users = ("u0", "u1", "u2", "new", "late", "fresh", "nobody")
        return {user: [track.track_id for track in recommender.recommend(user, 200).tracks] for user in users}


def check_writes_hold(golden: Golden) -> None:
    lists = seen(golden.store.folder)
    never = {*golden.facts["never"], "t16", "up-old"}
    assert all(lists.values())
    assert not never & {track for listed in lists.values() for track in listed}
    assert not {"t19", "up-mid", "t14", "up-new"} & set(lists["u0"])
    assert not {"t1", "up-new"} & set(lists["fresh"])
    assert "t20" not in lists["u2"]
    assert "t13" not in lists["u1"]
    assert "s4" not in lists["late"]
    assert lists["new"] == lists["nobody"]


def test_it_takes_writes(golden: Golden) -> None:
    n = write(golden)
    with open_live(golden.store.live) as live, live.reading() as reading:
        assert reading.last_seq() == golden.facts["log"]["last_number"] + n, "numbers go on from those of before"
        assert reading.track_gone("up-old")
    assert not (golden.store.uploads / golden.facts["log"]["uploads"]["up-old"][2]).exists()
    check_writes_hold(golden)


def test_uploads_go_on(golden: Golden) -> None:
    store = golden.store
    number, _, file = golden.facts["log"]["uploads"]["up-old"]
    assert add_track(store.folder, store.uploads / file, NewTrack()).known, "its audio is known"
    add(golden.folder, "up-golden", 70, genre="jazz")
    with open_live(store.live) as live, live.reading() as reading:
        assert reading.upload_seq("up-golden") == golden.facts["log"]["last_number"] + 1
        assert reading.upload_seq("up-old") == number
    assert any("up-golden" in listed for listed in seen(store.folder).values())


@pytest.mark.slow
def test_it_rolls_back_and_rebuilds_with_nothing_lost(golden: Golden) -> None:
    store = golden.store
    earlier = [name for name in store.names() if name != golden.facts["current"]]
    write(golden)
    assert rollback(store.folder) == earlier[-1]
    check_writes_hold(golden)
    with opened(golden.folder) as live:
        assert live.uploads().n_shown == 2, "up-mid and up-new, under models that had not met them"
        live.record(heard("u9", "t18", day=11))
    rebuild(golden.folder)
    expected, found = golden.facts["rebuilt"], plays_of(store.folder)
    gone = {"t16", "up-old"}
    plays = {user: {t: n for t, n in known.items() if t not in gone} for user, known in expected["plays"].items()}
    del plays["new"]
    plays["u0"] |= {"t19": 1.0, "up-mid": 2.0}
    plays["fresh"], plays["late"] = {"t1": 1.0, "up-new": 2.0}, {"s4": 1.0}
    plays["u9"] |= {"t18": 1.0}
    assert found["plays"] == plays
    barred = {user: tracks for user, tracks in expected["barred"].items() if user != "new"} | {"fresh": []}
    assert found["barred"] == barred | {"u2": ["t20"]}
    assert found["tracks"] == [track for track in expected["tracks"] if track not in gone]
    assert read_facts(store.current())["last_live_number"] == golden.facts["log"]["last_number"] + 11
    check_writes_hold(golden)


@pytest.mark.slow
def test_a_rebuild_alone_comes_to_what_it_came_to(golden: Golden) -> None:
    rebuild(golden.folder)
    assert plays_of(golden.store.folder) == golden.facts["rebuilt"]


def test_it_is_served(golden: Golden) -> None:
    serve_it(golden, "lmdb")


@pytest.mark.slow
def test_it_is_served_from_duckdb(golden: Golden) -> None:
    serve_it(golden, "duckdb")


def serve_it(golden: Golden, backend: str) -> None:
    with served(golden.store.folder, "--backend", backend) as address, stub_of(address) as stub:
        found = {}
        for user in golden.facts["lists"]:
            answer = stub.Recommend(pb.RecommendRequest(user_id=user, k=20), timeout=CALL_S)
            assert answer.generation == golden.facts["current"]
            found[user] = [[t.track_id, t.score, t.reason_track_id or None] for t in answer.tracks]
        same_lists(found, golden.facts["lists"])
        for track, lines in golden.facts["near"].items():
            near = stub.SimilarTracks(pb.SimilarTracksRequest(track_id=track, k=10), timeout=CALL_S).tracks
            assert [t.track_id for t in near] == [line[0] for line in lines]
        listens = [
            pb.Listen(user_id="u0", track_id="t14", event_id="u0 t14 5"),
            pb.Listen(user_id="u0", track_id="t19"),
        ]
        recorded = stub.RecordListens(pb.RecordListensRequest(listens=listens), timeout=CALL_S)
        assert (recorded.recorded, recorded.repeated) == (1, 1)
        stub.DeleteTrack(pb.DeleteTrackRequest(track_id="t16"), timeout=CALL_S)
        stub.DeleteUser(pb.DeleteUserRequest(user_id="new"), timeout=CALL_S)
        for user, absent in (("u0", {"t14", "t16", "t19"}), ("nobody", {"t16"}), ("new", {"t16"})):
            listed = stub.Recommend(pb.RecommendRequest(user_id=user, k=20), timeout=CALL_S)
            assert listed.tracks
            assert not absent & {track.track_id for track in listed.tracks}, user
        with pytest.raises(grpc.RpcError) as caught:
            stub.DeleteTrack(pb.DeleteTrackRequest(track_id="t7"), timeout=CALL_S)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.slow
def test_it_takes_an_upload_through_a_server(golden: Golden) -> None:
    song = clip("new.mp3", 80)
    with served(golden.store.folder, embed=True) as address, stub_of(address) as stub:
        about = pb.NewTrack(track_id="up-served", genres=["jazz"])
        answer = stub.UploadTrack(pieces(song, about), timeout=CALL_S)
        assert (answer.track_id, answer.known, answer.has_sound) == ("up-served", False, True)
        old = (golden.store.uploads / golden.facts["log"]["uploads"]["up-mid"][2]).read_bytes()
        again = stub.UploadTrack(pieces(old), timeout=CALL_S)
        assert (again.track_id, again.known) == ("up-mid", True)
        assert stub.GetTrack(pb.GetTrackRequest(track_id="up-served"), timeout=CALL_S).track.track_id == "up-served"
    with open_live(golden.store.live) as live, live.reading() as reading:
        assert reading.upload_seq("up-served") == golden.facts["log"]["last_number"] + 1
