"""What is acknowledged is shown before lists follow, which are then those of events taken in their order."""

import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from helpers.live_store import heard, new_track
from helpers.stores import copied
from helpers.waiting import answered, quick
from recsys.eventlog.events import Listened
from recsys.live import neighbour_insert, updater
from recsys.live.updater import USERS_AT_ONCE
from recsys.serving.fast_path import FastPath
from recsys.serving.reload import open_answers
from recsys.serving.server import METHODS
from recsys.v1 import recommender_pb2 as pb


@pytest.fixture
def behind(answers: FastPath, monkeypatch: pytest.MonkeyPatch) -> FastPath:
    """Lists that nobody derives, as between the commit of a large batch and its lists, or after a kill there."""
    answers.live.retire()
    monkeypatch.setattr(updater.ListUpdater, "users", lambda *_: None)
    monkeypatch.setattr(updater.ListUpdater, "uploads", lambda *_: 0)
    return answers


@pytest.mark.parametrize("user", ["u0", "somebody"])
def test_what_was_heard_or_barred_is_not_shown_before_the_list_follows(
    behind: FastPath, store: Path, user: str
) -> None:
    with closing(open_answers(store)) as other:  # another worker
        other.live.retire()
        before = answered(other, user)
        behind.live.record([*heard(user, before[0]), *heard(user, before[1])])
        behind.live.record([Listened(user, before[2], disliked=True)])
        for one in (behind, other):
            assert quick(one, user) is None, "the stored bytes would show them"
            assert answered(one, user, 17) == before[3:20]
            assert quick(one, "u1") is not None, "others are answered from bytes"
        asked = {"genres": ["ambient", "jazz", "rock", "folk", "metal"], "k": 30}
        for more in ({}, {"include_heard": True}, {"diversity": 0.5}, {"max_per_artist": 2}):
            request = pb.RecommendRequest(user_id=user, **{**asked, **more})
            found = {track.track_id for track in METHODS["Recommend"][0](other.recommender, request).tracks}
            assert before[2] not in found
            assert ("include_heard" in more) == (before[0] in found), more
        other.live.settle()
        found = quick(other, user)
        assert found is not None
        assert not set(before[:3]) & {track.track_id for track in found.tracks}


def test_who_has_just_heard_a_track_is_not_among_its_audience(behind: FastPath) -> None:
    audience = [user for user, _ in behind.recommender.audience("t3", 10)]
    behind.live.record([*heard(audience[0], "t3"), Listened(audience[1], "t3", disliked=True)])
    assert [user for user, _ in behind.recommender.audience("t3", 8)] == audience[2:]


def test_a_deleted_user_and_a_deleted_track_are_shown_by_no_worker(behind: FastPath, store: Path) -> None:
    with closing(open_answers(store)) as other:
        other.live.retire()
        nobody, own = answered(other, "nobody"), answered(other, "u0")
        assert own != nobody
        behind.live.delete_user("u0")
        for one in (behind, other):
            assert answered(one, "u0") == nobody
        victim = nobody[0]
        behind.live.delete_track(victim)
        for one in (behind, other):
            for user in ("u0", "u1", "u2", "nobody"):
                assert victim not in answered(one, user, 30)
            assert quick(one, "u1") is not None, "known by now, so that bytes answer again"


def test_an_upload_that_is_in_no_list_yet_is_deleted_before_it_comes_into_one(behind: FastPath, store: Path) -> None:
    upload, vectors = new_track(store, "new", "ambient")
    behind.live.add(upload, vectors)
    behind.live.delete_track("new")
    behind.live.settle()
    for user in ("u0", "u3", "nobody"):
        assert "new" not in answered(behind, user, 30)
    assert {behind.live.list_of(f"u{n}") for n in range(28)} == {None}


def test_what_was_heard_since_the_list_of_now_is_not_shown(answers: FastPath, monkeypatch: pytest.MonkeyPatch) -> None:
    answers.live.record(heard("u0", "t2"))
    answers.live.retire()
    before = answered(answers, "u0")
    monkeypatch.setattr(updater.ListUpdater, "users", lambda *_: None)
    answers.live.record(heard("u0", before[0]))
    assert quick(answers, "u0") is None
    assert answered(answers, "u0", 17) == before[1:18]


def test_who_listened_before_an_upload_is_reached_once(answers: FastPath, store: Path) -> None:
    answers.live.retire()
    upload, vectors = new_track(store, "new", "ambient")
    answers.live.record([listen for n in range(12) for listen in heard(f"u{n}", "t2")])
    reached = answers.live.add(upload, vectors)
    users = answers.live._stored.model.users.all()
    assert reached == sum("new" in answered(answers, user, 39) for user in users) > 0


def test_audio_that_is_told_to_be_here_is_in_the_lists_of_neighbours(
    answers: FastPath, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever took it in may have been killed between the two."""
    live = answers.live
    live.retire()
    upload, vectors = new_track(store, "new", "ambient")
    with monkeypatch.context() as patch:
        patch.setattr(neighbour_insert, "follow", lambda *_: None)
        live.add(upload, vectors)
    assert live.behind() == 1
    assert live.track_of_audio(upload.content_hash) == "new"
    assert live.behind() == 0


def test_a_large_batch_is_acknowledged_before_its_lists_which_follow_in_pieces(
    answers: FastPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [f"x{n}" for n in range(3 * USERS_AT_ONCE + 5)]
    pieces, step = list[int](), updater.ListUpdater._write
    go_on = threading.Event()

    def slow(self: updater.ListUpdater, derived: list, *release: object) -> dict[int, int]:
        go_on.wait(60)
        pieces.append(len(derived))
        return step(self, derived, *release)

    monkeypatch.setattr(updater.ListUpdater, "_write", slow)
    assert answers.live.record([listen for user in users for listen in heard(user, "t1")]).recorded == len(users)
    assert answers.live.behind() == len(users)
    assert all("t1" not in answered(answers, user, 30) for user in users[::10])
    go_on.set()
    deadline = time.monotonic() + 120
    while answers.live.behind() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert answers.live.behind() == 0
    assert max(pieces) <= USERS_AT_ONCE
    assert sum(pieces) == len(users)
    assert all(answers.live.list_of(user) is not None for user in users)


def test_a_few_users_do_not_wait_for_a_backlog_before_them(behind: FastPath, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [listen for n in range(3 * USERS_AT_ONCE) for listen in heard(f"x{n}", "t1")]
    behind.live.record(many)
    monkeypatch.undo()
    behind.live.record(heard("u0", "t2"))
    found = quick(behind, "u0")
    assert found is not None, "the list is one of now"
    assert "t2" not in [track.track_id for track in found.tracks]
    assert behind.live.behind() == len(many) + 1, "those before it wait on"
    behind.live.settle()
    assert behind.live.behind() == 0


def test_lists_made_ahead_are_those_made_in_order(answers: FastPath, store: Path, tmp_path: Path) -> None:
    """Users, uploads and deletions in any interleaving of commits and lists come to the same lists."""
    twin = open_answers(copied(store, tmp_path / "twin"))
    upload, vectors = new_track(store, "new", "jazz")
    steps = [
        lambda live: live.record(heard("u0", "t2", "t5")),
        lambda live: live.add(upload, vectors),
        lambda live: live.record([*heard("u3", "new"), *heard("u0", "t8")]),
        lambda live: live.delete_user("u3"),
        lambda live: live.record([*heard("u3", "t1"), *heard("u2", "t3")]),
        lambda live: live.delete_track("t9"),
        lambda live: live.record(heard("u0", "t1")),
    ]
    for step in steps:
        step(answers.live)
        answers.live.settle()
    twin.live.retire()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updater.ListUpdater, "users", lambda *_: None)
        patch.setattr(updater.ListUpdater, "uploads", lambda *_: 0)
        for step in steps:
            step(twin.live)
    twin.live.settle()
    for user in ("u0", "u2", "u3", "u5", "nobody"):
        assert answered(answers, user, 38) == answered(twin, user, 38), user
    twin.close()
