"""Tracks since a generation as values that share what grows: none changes, and the next one costs what is new alone."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.catalogue.ids import IdMap
from recsys.eventlog.events import Listened, TrackDeleted, Upload
from recsys.eventlog.snapshot import Snapshot
from recsys.eventlog.store import LiveStore
from recsys.eventlog.transactions import TRACK, ReadTxn, seq_key
from recsys.ranking.uploaded_tracks import Fresh, UploadedTracks
from recsys.store.keys import key_of
from recsys.util.topk import unit_rows

pytestmark = pytest.mark.usefixtures("decoded_here")

N_BUILT, DIM = 7, 3


def fresh(number: int, *spaces: str) -> Fresh:
    rng = np.random.default_rng(number)
    vectors = {space: unit_rows(rng.normal(size=(1, 4)).astype(np.float32))[0] for space in spaces}
    return Fresh({"track_id": f"n{number}", "title": f"Title {number}"}, np.full(DIM, number, np.float32), vectors)


def seen(uploads: UploadedTracks) -> dict[str, Any]:
    """All that a value says."""
    return {
        "ids": list(uploads.track_ids), "n": len(uploads.track_ids), "about": dict(uploads.about),
        "items": uploads.item_vectors.tolist(), "hidden": set(uploads.hidden), "gone": set(uploads.gone),
        "rows": set(uploads.hidden_rows), "array": uploads.hidden_array.tolist(), "shown": uploads.n_shown,
        "counts": (len(uploads.hidden), len(uploads.gone), uploads.nothing),
        "spaces": [(space, *(part.tolist() for part in uploads.vectors_in(space))) for space in ("sound", "content")],
        "places": [uploads.place_of(f"n{n}") for n in range(60)],
        "contains": [row in uploads.hidden_rows for row in range(70)],
    }  # fmt: skip


steps = st.lists(
    st.tuples(st.just("add"), st.integers(1, 3)) | st.tuples(st.just("hide"), st.integers(0, N_BUILT + 20)), max_size=30
)


@pytest.mark.slow
@given(steps, st.data())
def test_a_value_never_changes_whatever_is_made_of_it(wanted: list[tuple[str, int]], data: st.DataObject) -> None:
    values, known, next_ = [UploadedTracks.none(DIM, N_BUILT)], [], 0
    known.append(seen(values[0]))
    for what, number in wanted:
        base = values[data.draw(st.integers(0, len(values) - 1))]  # mostly an older one: lines part
        if what == "add":
            tracks = [fresh(next_ + n, *(["sound"] if n else ["sound", "content"])) for n in range(number)]
            next_ += number
            values.append(base.with_tracks(tracks))
            assert list(values[-1].track_ids) == [*base.track_ids, *(track.track_id for track in tracks)]
            assert values[-1].item_vectors[base.n :].tolist() == [track.item_vector.tolist() for track in tracks]
            assert [values[-1].track_ids.index(t.track_id) for t in tracks] == [
                values[-1].place_of(t.track_id) for t in tracks
            ]
        else:
            values.append(base.with_hidden([number, number]))
            assert set(values[-1].hidden_rows) == {*base.hidden_rows, number}
            assert set(values[-1].hidden) == {r - N_BUILT for r in values[-1].hidden_rows if r >= N_BUILT}
            assert set(values[-1].gone) == {row for row in values[-1].hidden_rows if row < N_BUILT}
        known.append(seen(values[-1]))
        assert [seen(value) for value in values] == known


def test_who_goes_on_from_the_same_value_in_the_same_way_shares_it() -> None:
    """As two threads that read one log do; who says something else, after a transaction that failed, has copies."""
    base = UploadedTracks.none(DIM, N_BUILT).with_tracks([fresh(n, "sound") for n in range(20)])
    one, other = (base.with_tracks([fresh(20, "sound")]).with_hidden([3]) for _ in range(2))
    assert np.shares_memory(one.item_vectors, other.item_vectors)
    apart = base.with_tracks([fresh(21)])
    assert not np.shares_memory(one.item_vectors, apart.item_vectors)
    assert apart.place_of("n20") == -1
    with pytest.raises(KeyError):
        apart.about["n20"]
    with pytest.raises(KeyError):
        base.about["n20"]
    with pytest.raises(ValueError, match="read-only"):
        base.item_vectors[0] = 1


def test_older_values_see_nothing_of_what_a_thread_adds() -> None:
    value, done, wrong = UploadedTracks.none(DIM, N_BUILT), threading.Event(), list[str]()
    values = [value]

    def look() -> None:
        while not done.is_set():
            for old in (values[0], values[len(values) // 2], values[-1]):
                places, vectors = old.vectors_in("sound")
                ids, n = list(old.track_ids), old.n
                counts = {len(ids), len(old.item_vectors), len(places), len(vectors), len(list(old.about))}
                if counts != {n} or (n and int(old.item_vectors[-1, 0]) != n - 1) or old.place_of(f"n{n}") != -1:
                    wrong.append(f"{counts} for {n}")
                if len(list(old.hidden_rows)) != old.n_hidden:
                    wrong.append("rows")

    threads = [threading.Thread(target=look) for _ in range(3)]
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for n in range(400):
            value = value.with_tracks([fresh(n, "sound")]).with_hidden([N_BUILT + n] if n % 3 == 0 else [])
            values.append(value)
    finally:
        done.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(switching)
    assert wrong == []


def test_one_more_upload_moves_nothing_that_was_there() -> None:
    """But where an array has no more room, which is once in so many uploads as there are."""
    value = UploadedTracks.none(DIM, N_BUILT).with_tracks([fresh(n, "sound") for n in range(600)])
    for n in range(600, 700):
        later = value.with_tracks([fresh(n, "sound")])
        assert np.shares_memory(value.item_vectors, later.item_vectors)
        assert np.shares_memory(value.vectors_in("sound")[1], later.vectors_in("sound")[1])
        value = later


# ---- snapshots of a log ------------------------------------------------------------------------------------------


def model_of_ids(*track_ids: str) -> Any:
    blend = SimpleNamespace(likeness=unit_rows)
    items = IdMap.of(list(track_ids), what="track")
    return SimpleNamespace(items=items, item_vectors=np.ones((len(items), DIM), np.float32), blend=blend, spaces={})


def upload(track_id: str) -> Upload:
    return Upload(track_id, f"hash {track_id}", "x.mp3", track_id, None, None, [], None, None, 1.0, "2026-01-01")


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveStore]:
    store = LiveStore.open(tmp_path / "live.lmdb")
    yield store
    store.close()


def added(live: LiveStore, track_id: str, *, known: bool = True) -> None:
    with live.writing() as writing:
        number = writing.append(upload(track_id))
        if known:
            writing.set_vectors("g", number, {"hybrid": np.arange(DIM, dtype=np.float32) + number})


def deleted(live: LiveStore, track_id: str) -> None:
    with live.writing() as writing:
        writing.append(TrackDeleted(track_id, "2026-01-01"))


class Counting(ReadTxn):
    """Counts the values and pairs that are read."""

    n_read = 0

    def get(self, database: str, key: bytes) -> bytes | None:
        self.n_read += 1
        return super().get(database, key)

    def pairs(self, database: str, start: bytes = b"", prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        for pair in super().pairs(database, start, prefix):
            self.n_read += 1
            yield pair


def extended(snapshot: Snapshot, live: LiveStore) -> tuple[Snapshot, int]:
    with live.reading() as reading:
        counting = Counting(reading.transaction, reading.databases)
        return snapshot.extended(counting), counting.n_read


def test_a_snapshot_reads_what_is_new_alone(live: LiveStore, tmp_path: Path) -> None:
    """Deletions ever made, and uploads, as many as there are."""
    snapshot, reads = Snapshot.at(model_of_ids("a", "b", "c"), "g", tmp_path, 0), []
    for n in range(1, 61):
        added(live, f"n{n}")
        if n % 2:
            deleted(live, f"n{n}")
        snapshot, n_read = extended(snapshot, live)
        reads.append(n_read)
    assert set(snapshot.uploads.hidden) == set(range(0, 60, 2))
    assert max(reads[1::2]) == min(reads[1::2]), "the last upload is read at what the first was"
    assert max(reads[::2]) == min(reads[::2]), "and so is the last deletion"
    assert max(reads) < 15


def test_step_by_step_and_at_once_are_the_same(live: LiveStore, tmp_path: Path) -> None:
    start = Snapshot.at(model_of_ids("a", "b", "c"), "g", tmp_path, 0)
    steps: list[Any] = [
        lambda: added(live, "n1"), lambda: added(live, "b"), lambda: deleted(live, "c"),
        lambda: added(live, "n2", known=False), lambda: deleted(live, "n1"), lambda: added(live, "n3"),
        lambda: deleted(live, "b"), lambda: deleted(live, "of whom nothing is known"),
    ]  # fmt: skip
    snapshot = start
    for step in steps:
        step()
        snapshot, _ = extended(snapshot, live)
    whole, _ = extended(start, live)
    assert list(whole.uploads.hidden_rows) == list(snapshot.uploads.hidden_rows) == [4, 2, 5, 3, 1]
    assert set(whole.uploads.gone) == {1, 2}
    assert set(whole.uploads.hidden) == {0, 1, 2}
    assert list(whole.uploads.track_ids) == ["n1", "b", "n2", "n3"] == list(snapshot.uploads.track_ids)
    assert np.shares_memory(whole.uploads.item_vectors, snapshot.uploads.item_vectors)
    assert snapshot.catalogue.find("n3") == 6
    assert [snapshot.catalogue.find(name) for name in ("n1", "b", "c", "n2", "a")] == [-1, -1, -1, -1, 0]
    assert start.uploads.nothing
    assert whole.catalogue.uploads_in("hybrid")[0].tolist() == [6]


def test_deletions_before_the_generation_are_taken_in_once(live: LiveStore, tmp_path: Path) -> None:
    """They are of tracks that it lacks; were it to have one, it would not be shown."""
    deleted(live, "a")
    with live.reading() as reading:
        last = reading.last_seq()
    snapshot, _ = extended(Snapshot.at(model_of_ids("a", "b"), "g", tmp_path, last), live)
    assert set(snapshot.uploads.gone) == {0}
    again, _ = extended(snapshot, live)
    assert again is snapshot


# ---- files of an older version ------------------------------------------------------------------------------------


def without_deletions(live: LiveStore) -> None:
    """Bring a file to what an older version would have written."""
    with live.writing() as writing:
        for key, _ in list(writing.pairs("deletions")):
            writing.delete("deletions", key)
        writing.delete("state", b"deletions")


def test_a_file_of_an_older_version_is_read_and_completed_once(live: LiveStore) -> None:
    added(live, "n1")
    deleted(live, "n1")
    deleted(live, "a" * 900)  # the key of which is a hash
    without_deletions(live)
    with live.reading() as reading:
        assert reading.deleted_tracks() == [(2, "n1"), (3, "a" * 900)]
        assert reading.deleted_tracks(2) == [(3, "a" * 900)]
        assert list(reading.pairs("deletions")) == []
    with live.writing() as writing:
        assert [key for key, _ in writing.pairs("deletions")] == [seq_key(2), seq_key(3)]
        writing.append(Listened("u", "t"))
    with live.reading() as reading:
        counting = Counting(reading.transaction, reading.databases)
        assert counting.deleted_tracks(2) == [(3, "a" * 900)]
        assert counting.n_read < 8, "not every deletion, let alone every entry"


def test_what_an_older_program_deletes_in_a_newer_file_is_not_missed(live: LiveStore) -> None:
    deleted(live, "a")
    with live.writing() as writing:  # as the older one does it
        number = writing.append(TrackDeleted("b", "2026-01-01"))
        writing.delete("deletions", seq_key(number))
        assert writing.get("gone", TRACK + key_of("b")) == seq_key(number)
    with live.reading() as reading:
        assert reading.deleted_tracks() == [(1, "a"), (2, "b")]
    deleted(live, "c")
    with live.reading() as reading:
        assert reading.deleted_tracks() == [(1, "a"), (2, "b"), (3, "c")]
        assert len(list(reading.pairs("deletions"))) == 3
