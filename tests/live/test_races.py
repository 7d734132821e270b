"""Two at once, in the one order that would do harm: forced, so that chance has no part in it."""

import fcntl
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import lmdb
import pytest

from helpers.live_store import heard, new_track, opened
from recsys.errors import ArtefactError
from recsys.eventlog import lmdb_env
from recsys.eventlog.store import open_live
from recsys.eventlog.transactions import WriteTxn
from recsys.live.service import LiveUpdater
from recsys.ranking.catalogue_view import UploadedTracks
from recsys.recommender import Recommender
from recsys.serving.reload import open_answers
from recsys.store.generation import Store


def in_thread(work: Callable[[], object]) -> None:
    """Do something on another thread, to its end."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


def test_an_opener_that_fails_leaves_the_file_that_another_has_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, opening = tmp_path / "live.lmdb", lmdb.open

    def made_meanwhile(*paths: str, **options: object) -> object:
        file.write_bytes(b"another process was here")
        raise lmdb.DiskError("no space")

    monkeypatch.setattr(lmdb_env.lmdb, "open", made_meanwhile)
    with pytest.raises(ArtefactError), open_live(file, write=True):
        pass
    assert file.read_bytes() == b"another process was here"
    monkeypatch.setattr(lmdb_env.lmdb, "open", opening)


def test_audio_that_is_uploaded_again_while_it_is_deleted_stays(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def audio(name: str) -> Path:
        file = tmp_path / name
        file.write_bytes(b"sound")
        return file

    first, vectors = new_track(store, "new", "jazz", "samebytes")
    again, _ = new_track(store, "new again", "jazz", "samebytes")
    (store / "uploads").mkdir(exist_ok=True)
    kept = store / "uploads" / first.file
    with opened(store) as live, opened(store) as other:
        live.add(first, vectors, audio("one"))
        assert kept.exists()
        forgets = LiveUpdater._forget_audio

        def meanwhile(self: LiveUpdater, upload: object) -> None:
            in_thread(lambda: other.add(again, vectors, audio("two")))  # between the commit and the audio's end
            forgets(self, upload)

        monkeypatch.setattr(LiveUpdater, "_forget_audio", meanwhile)
        live.delete_track("new")
        assert other.track_of_audio("samebytes") == "new again"
        assert kept.exists(), "an acknowledged track has its file"
        monkeypatch.setattr(LiveUpdater, "_forget_audio", forgets)
        live.delete_track("new again")
        assert not kept.exists()


def test_audio_is_deleted_under_the_lock_of_those_who_add(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else the same bytes may come between the look and the deletion."""
    upload, vectors = new_track(store, "new", "jazz", "samebytes")
    (tmp_path / "one").write_bytes(b"sound")
    (store / "uploads").mkdir(exist_ok=True)
    unlink, locked = Path.unlink, list[bool]()

    def looked(self: Path, missing_ok: bool = False) -> None:
        if self == store / "uploads" / upload.file:
            with (store / "live.lock").open("a") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    locked.append(False)
                except BlockingIOError:
                    locked.append(True)
        unlink(self, missing_ok)

    with opened(store) as live:
        live.add(upload, vectors, tmp_path / "one")
        monkeypatch.setattr(Path, "unlink", looked)
        live.delete_track("new")
    assert locked == [True]


def test_a_track_is_written_under_the_lock_of_generations(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else another generation may become current between the look and the entry, without vectors of the track."""
    upload, vectors = new_track(store, "new", "jazz", "samebytes")
    (tmp_path / "one").write_bytes(b"sound")
    (store / "uploads").mkdir(exist_ok=True)
    locked, append = list[bool](), WriteTxn.append

    def looked(self: WriteTxn, event: Any) -> int:
        with (store / "live.lock").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked.append(False)
            except BlockingIOError:
                locked.append(True)
        return append(self, event)

    with opened(store) as live:
        monkeypatch.setattr(WriteTxn, "append", looked)
        live.add(upload, vectors, tmp_path / "one")
    assert locked == [True]


class Closed:
    """An LMDB file that tells when it is closed."""

    def __init__(self, opened: Any) -> None:
        self._opened, self.is_closed = opened, False

    def close(self) -> None:
        self.is_closed = True
        self._opened.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)


def test_a_file_is_opened_anew_once_its_readers_have_ended(tmp_path: Path) -> None:
    with open_live(tmp_path / "live.lmdb", write=True) as live:
        assert live is not None
        here = live.environment
        assert here is not None
        before = here.lmdb = Closed(here.lmdb)
        again = threading.Thread(target=lambda: here.reopen(write=True))
        with live.reading() as reading:
            again.start()
            while again.is_alive() and not here._gate._waiters:  # type: ignore[attr-defined]
                pass
            assert not before.is_closed
            assert reading.last_seq() == 0
        again.join(20)
        assert before.is_closed


def test_a_thread_that_was_late_gives_no_older_catalogue(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_answers(store)) as answers, opened(store) as other:
        answers.recommender  # noqa: B018 - made once
        upload, vectors = new_track(store, "first", "jazz", "11")
        second, more = new_track(store, "second", "jazz", "22")
        other.add(upload, vectors)
        makes, entered = Recommender.with_uploads, threading.Event()
        go_on, found = threading.Event(), dict[str, Recommender]()

        def slow(self: Recommender, uploads: UploadedTracks) -> Recommender:
            if threading.current_thread().name == "late":
                entered.set()
                go_on.wait(20)
            return makes(self, uploads)

        monkeypatch.setattr(Recommender, "with_uploads", slow)
        late = threading.Thread(target=lambda: found.update(late=answers.recommender), name="late")
        late.start()
        assert entered.wait(20), "it makes the catalogue with one upload"
        other.add(second, more)
        newer = threading.Thread(target=lambda: found.update(newer=answers.recommender))
        newer.start()
        newer.join(0.3)  # it may wait for the late one, or not
        go_on.set()
        late.join(20)
        newer.join(20)
        assert found["newer"].track("second")["track_id"] == "second"
        assert answers.recommender.track("second")["track_id"] == "second"


def test_views_never_go_back(store: Path) -> None:
    with opened(store) as live, opened(store) as other, live._live.reading() as before:
        in_thread(lambda: other.add(*new_track(store, "new", "jazz")))
        newer = live.view()
        assert newer.seen == 1
        assert live._views.at(before) is newer, "an older transaction gets the newer view"


def test_audio_that_a_kill_left_of_a_deleted_upload_goes_with_the_next_build(store: Path, tmp_path: Path) -> None:
    from recsys.eventlog.replay import forget_audio, read_live

    upload, vectors = new_track(store, "new", "jazz", "aa")
    kept, _ = new_track(store, "kept", "jazz", "bb")
    (store / "uploads").mkdir(exist_ok=True)
    with opened(store) as live:
        for one in (upload, kept):
            file = tmp_path / one.track_id
            file.write_bytes(b"sound")
            live.add(one, vectors, file)
        live.delete_track("new")
        (store / "uploads" / upload.file).write_bytes(b"left by a kill")
        live.record(heard("u0", "kept"))
    forget_audio(Store(store), read_live(Store(store)))
    assert [file.name for file in (store / "uploads").iterdir()] == [kept.file]
