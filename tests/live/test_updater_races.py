"""Two who derive lists at once, and what is changed while one is computed."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from helpers.live_store import heard, new_track
from helpers.waiting import answered
from recsys.eventlog.events import UserDeleted
from recsys.live import updater
from recsys.live.updater import USERS_AT_ONCE
from recsys.serving.fast_path import FastPath
from recsys.serving.reload import open_answers


@contextmanager
def before_writing(answers: FastPath, happens: Callable[[], object]) -> Iterator[None]:
    """Let something happen, once, between the computing of lists and their writing; nobody else derives meanwhile."""
    written, done = updater.ListUpdater._write, list[bool]()

    def meanwhile(self: updater.ListUpdater, *release: object) -> dict[int, int]:
        if self is answers.live._list_updater and not done:
            done.append(True)
            happens()
        return written(self, *release)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updater.ListUpdater, "_write", meanwhile)
        answers.live.retire()
        yield
    assert done


def test_a_user_deleted_while_a_list_is_computed_has_no_list(answers: FastPath, store: Path) -> None:
    with closing(open_answers(store)) as other:
        other.live.retire()
        with before_writing(answers, lambda: other.live.delete_user("u0")):
            answers.live.record(heard("u0", "t2"))
        answers.live.settle()
        assert answers.live.list_of("u0") is None
        assert answered(answers, "u0") == answered(answers, "nobody")


@pytest.mark.parametrize("listens_too", [True, False])
def test_a_listen_and_an_upload_while_a_list_is_computed_are_both_in_it(
    answers: FastPath, store: Path, listens_too: bool
) -> None:
    upload, vectors = new_track(store, "new", "ambient")
    with closing(open_answers(store)) as other:
        other.live.retire()

        def others() -> None:
            other.live.add(upload, vectors)
            if listens_too:
                other.live.record(heard("u0", "t5"))

        with before_writing(answers, others):
            answers.live.record(heard("u0", "t2"))
        answers.live.settle()
        found = answered(answers, "u0", 36)
        assert "new" in found
        assert "t2" not in found
        assert ("t5" in found) == (not listens_too)


def test_an_upload_comes_into_no_list_of_who_has_heard_it_by_then(
    answers: FastPath, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, vectors = new_track(store, "new", "ambient")
    answers.live.retire()
    with monkeypatch.context() as patch:
        patch.setattr(updater.ListUpdater, "uploads", lambda *_: 0)
        answers.live.add(upload, vectors)
    answers.live.record(heard("u0", "new"))  # whose list is made ahead of the others
    answers.live.settle()
    assert "new" not in answered(answers, "u0", 36)
    assert any("new" in answered(answers, f"u{n}", 36) for n in range(1, 28))


def test_what_is_left_to_the_thread_that_derives_wakes_it(answers: FastPath, monkeypatch: pytest.MonkeyPatch) -> None:
    woken = list[bool]()
    monkeypatch.setattr(updater.UpdateThread, "wake", lambda _: woken.append(True))
    answers.live.record([listen for n in range(USERS_AT_ONCE) for listen in heard(f"x{n}", "t1")])
    assert woken == []
    answers.live.record([listen for n in range(USERS_AT_ONCE + 1) for listen in heard(f"x{n}", "t2")])
    assert woken == [True]


def test_who_closes_waits_for_what_is_derived(store: Path) -> None:
    answers = open_answers(store)
    update_thread = answers.live._update_thread
    assert update_thread is not None
    answers.close()
    assert not update_thread._thread.is_alive()


def test_lists_that_are_to_be_made_again_meanwhile_are_not_said_to_be_made(
    answers: FastPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, written = answers.live, updater.ListUpdater._write
    live.retire()
    live.record(heard("u0", "t2"))
    with monkeypatch.context() as patch:
        patch.setattr(updater.ListUpdater, "users", lambda *_: None)
        live.record(heard("u1", "t2"))

    def meanwhile(self: updater.ListUpdater, *release: object) -> dict[int, int]:
        with live._live.writing() as writing:  # as for uploads that get their vectors late
            writing.set_applied(live.generation, 0)
        return written(self, *release)

    with monkeypatch.context() as patch:
        patch.setattr(updater.ListUpdater, "_write", meanwhile)
        assert live._list_updater.step()
    assert live.behind() == 2
    live.settle()
    assert live.behind() == 0


@pytest.mark.parametrize("changed", ["nothing", "lists", "heard", "deletion"])
def test_a_list_is_written_where_all_that_it_follows_from_is_as_it_was(answers: FastPath, changed: str) -> None:
    live = answers.live
    live.retire()
    live.record(heard("u0", "t2"))
    with live._live.reading() as reading:
        [derived] = live._list_updater._derived(reading, ["u0"])
    with live._live.writing() as writing:
        if changed == "deletion":
            writing.append(UserDeleted("u0", "2024-05-06"))
        elif changed != "nothing":
            writing.put(changed, derived.key, b"of another process")
        assert derived.write(writing) == (changed == "nothing")
