"""Neighbours with uploads and deletions among them: from stored bytes as by a whole pass over the space."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from helpers.catalogues import quick_settings
from helpers.neighbours import stored_answer, whole_pass
from helpers.stores import copied, with_facts
from pipelines.build import Inputs, build
from recsys.eventlog.events import Listened, TrackDeleted, Upload
from recsys.eventlog.snapshot import Snapshot
from recsys.eventlog.store import LiveStore, open_live
from recsys.live import neighbour_insert
from recsys.live.catchup import catch_up, forget_generations
from recsys.live.service import LiveUpdater
from recsys.live.stored_lists import StoredLists
from recsys.live.thresholds import bar_of, bars_file
from recsys.ranking.neighbours import NeighbourSettings
from recsys.recommender import Recommender, open_store
from recsys.serving import call_context
from recsys.serving.fast_path import FastPath
from recsys.serving.reload import open_answers
from recsys.store.generation import Store
from recsys.store.record import Record, head_of, pack, track_bytes
from recsys.types import VECTOR_SPACES
from recsys.util.progress import Silent
from recsys.v1 import recommender_pb2 as pb

N, DEPTH = 70, 9


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of 9 of 70 tracks; 60 have a vector, some of them the same, and so few in 'taste' that no list is full."""
    folder, rng = tmp_path_factory.mktemp("near"), np.random.default_rng(5)
    vectors = rng.normal(size=(N, 6)).round(1)
    vectors[10:16] = vectors[10]
    pl.DataFrame({
        "track_id": [f"t{n}" for n in range(N)], "artist": [f"Artist {n % 9}" for n in range(N)],
        "genre": [f"genre {n % 4}" for n in range(N)], "year": [1980 + n % 30 for n in range(N)],
        "vector": [None if n % 7 == 6 else vectors[n].tolist() for n in range(N)],
    }).write_parquet(folder / "tracks.parquet")  # fmt: skip
    heard = [(f"u{user}", f"t{t}") for user in range(9) for t in rng.choice(8, 4, replace=False)]
    pl.DataFrame(heard, schema=["user_id", "track_id"], orient="row").write_csv(folder / "listens.csv")
    settings = quick_settings().model_copy(update={"neighbours": NeighbourSettings(depth=DEPTH)})
    build(Inputs(folder / "tracks.parquet", folder / "listens.csv"), folder / "store", settings, Silent())
    return folder / "store"


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    return copied(built, tmp_path)


@pytest.fixture
def answers(store: Path) -> Iterator[FastPath]:
    opened = open_answers(store)
    yield opened
    opened.close()


def live_of(answers: FastPath) -> LiveUpdater:
    assert answers.live is not None
    return answers.live


class Made:
    """Makes uploads, some of which are the same as a track of the catalogue in all that is known."""

    def __init__(self, recommender: Recommender, seed: int = 0) -> None:
        self._model, self._rng, self.n = recommender.model, np.random.default_rng(seed), 0

    def __call__(self, track_id: str | None = None) -> tuple[Upload, dict[str, np.ndarray]]:
        rng, self.n = self._rng, self.n + 1
        name = track_id or f"new{self.n}"
        upload = Upload(name, f"hash {name}", f"{name}.mp3", None, "New", None, [], 2026, None, 9.0, "2026-01-01")
        row, vectors = int(rng.integers(N)), dict[str, np.ndarray]()
        same = rng.random() < 0.4
        for space in VECTOR_SPACES:
            known = self._model.spaces.get(space)
            if space == "hybrid":
                vectors[space] = np.array(self._model.item_vectors[row])
            elif known is not None and space != "taste" and (place := known.place(row)) is not None:
                vectors[space] = np.array(known.vectors[place])
        if not same:
            for space, vector in vectors.items():
                vectors[space] = vector + rng.normal(size=len(vector)).astype(np.float32) * 0.2 * np.abs(vector).max()
        if rng.random() < 0.1:
            vectors["content"][:] = 0  # nothing is known of it there
        return upload, vectors


def check(answers: FastPath, store: Path, gone: Sequence[str], most_computed: int) -> int:
    """Hold stored bytes of all tracks against a whole pass; gives how many lists were not full enough for them."""
    fresh, n_computed = Recommender.open(store), 0
    tracks = [*fresh.model.items.all(), *fresh._lists.catalogue.uploads.track_ids]
    for space in VECTOR_SPACES:
        for track in tracks:
            for k in (1, DEPTH):
                found, expected = stored_answer(answers, track, space, k), whole_pass(fresh, track, space, k)
                if found is None:
                    # too short a list by nature, or one that lost tracks
                    n_computed += expected is not None and len(expected) == k
                    continue
                assert found == expected, (space, track, k)
                computed = fresh.similar(track, k, space, describe=False)
                assert found == [(line.track_id, line.score) for line in computed.tracks], (
                    "and so says the computed way"
                )
                assert not {name for name, _ in found} & set(gone)
    assert n_computed <= most_computed
    return n_computed


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_uploads_and_deletions_are_in_stored_lists_as_in_a_whole_pass(
    answers: FastPath, store: Path, seed: int
) -> None:
    rng, made, live, gone = np.random.default_rng(seed), Made(answers.recommender, seed), live_of(answers), list[str]()
    for n in range(30):
        live.add(*made())
        if rng.random() < 0.3:
            victim = f"t{rng.integers(N)}" if rng.random() < 0.5 else f"new{rng.integers(made.n) + 1}"
            if victim not in gone:
                live.delete_track(victim)
                gone.append(victim)
        assert answers.recommender is not None  # a thread has seen it
        if n in (0, 12):
            check(answers, store, gone, most_computed=500 if gone else 0)
    assert gone
    assert check(answers, store, gone, most_computed=10_000) > 0, "lists that lost tracks are left to the whole pass"


@pytest.mark.slow
def test_without_deletions_every_list_is_stored(answers: FastPath, store: Path) -> None:
    made, live = Made(answers.recommender), live_of(answers)
    for _ in range(25):
        live.add(*made())
    check(answers, store, [], most_computed=0)
    request = pb.SimilarTracksRequest(track_id="new3", k=5).SerializeToString()
    found = answers.similar_tracks(request)
    assert found is not None
    assert call_context.PATHS[found[1]] == "live", "an upload's own list is a look-up too"


def test_one_upload_leaves_the_others_on_stored_bytes(answers: FastPath) -> None:
    paths, made = {}, Made(answers.recommender)
    for when in ("before", "after"):
        ways = [answers.similar_tracks(pb.SimilarTracksRequest(track_id=f"t{n}", k=DEPTH).SerializeToString())
                for n in range(N)]  # fmt: skip
        paths[when] = [call_context.PATHS[way[1]] if way else "computed" for way in ways]
        live_of(answers).add(*made())
    assert set(paths["before"]) == {"plain"}
    assert set(paths["after"]) == {"plain", "live"}
    assert paths["after"].count("plain") > N // 2, "most do not have it among their best"


def test_a_deletion_leaves_lists_without_the_track_on_stored_bytes(answers: FastPath) -> None:
    live_of(answers).delete_track("t3")
    request = pb.SimilarTracksRequest(track_id="t4", k=DEPTH)
    assert answers.similar_tracks(request.SerializeToString()) is not None or _has(answers, "t4", "t3")
    ways = [stored_answer(answers, f"t{n}", "hybrid", DEPTH) for n in range(N) if n != 3]
    lost = [n for n in range(N) if n != 3 and _has(answers, f"t{n}", "t3")]
    assert [n for n, way in zip([n for n in range(N) if n != 3], ways, strict=True) if way is None] == lost
    assert all(stored_answer(answers, f"t{n}", "hybrid", DEPTH - 1) for n in lost), "one track less is there"
    assert stored_answer(answers, "t3", "hybrid", 3) is None


def _has(answers: FastPath, track: str, other: str) -> bool:
    return other in [name for name, _ in answers.recommender.tables.neighbours(track, "hybrid") or []]


def test_what_another_process_deleted_is_left_to_a_thread_until_it_is_known(answers: FastPath, store: Path) -> None:
    assert stored_answer(answers, "t1", "hybrid", 5)
    victim = stored_answer(answers, "t1", "hybrid", 5)[0][0]
    with opened(store) as other:
        other.delete_track(victim)
    assert stored_answer(answers, "t1", "hybrid", 5) is None, "which this worker does not know yet"
    assert victim not in [t.track_id for t in answers.recommender.similar("t1", 5).tracks]
    found = stored_answer(answers, "t1", "hybrid", 5)
    assert found is not None
    assert victim not in [name for name, _ in found]


def test_deletions_before_the_build_leave_stored_bytes(built: Path, tmp_path: Path) -> None:
    folder = copied(built, tmp_path)
    with open_live(Store(folder).live, write=True) as bare, bare.writing() as writing:
        number = writing.append(TrackDeleted("of another time", "2026-01-01"))
    with_facts(Store(folder).current(), last_live_number=number)
    answers = open_answers(folder)
    try:
        assert stored_answer(answers, "t1", "hybrid", 5)
    finally:
        answers.close()


def test_another_process_sees_an_upload_at_once(answers: FastPath, store: Path) -> None:
    upload, vectors = Made(answers.recommender)()
    vectors["hybrid"] = np.array(answers.recommender.model.item_vectors[1])
    with opened(store, "duckdb") as other:
        other.add(upload, vectors)
        found = stored_answer(answers, "t1", "hybrid", 3)
        assert found is not None
        assert "new1" in [name for name, _ in found]
        assert stored_answer(answers, "new1", "hybrid", 3)


def test_no_look_waits_for_who_writes(answers: FastPath) -> None:
    """Neither for LMDB's lock, which a process may hold for long, nor for one of this process."""
    live, found = live_of(answers), list[Any]()
    live.add(*Made(answers.recommender)())
    with live._live.writing():
        asking = threading.Thread(target=lambda: found.append(stored_answer(answers, "t1", "hybrid", 5)), daemon=True)
        asking.start()
        asking.join(60)
    assert found
    assert found[0]
    live.release()


# ---- plans -------------------------------------------------------------------------------------------------------


@contextmanager
def opened(store: Path, backend: Any = "lmdb") -> Iterator[LiveUpdater]:
    live = LiveUpdater(Store(store), open_store(store, backend))
    try:
        yield live
    finally:
        live.close()


def records(live: LiveStore, generation: str) -> dict[bytes, list[tuple[str, float, None]]]:
    with live.reading() as reading:
        found = list(reading.pairs("near", prefix=f"{generation}/".encode()))
        return {key: Record(value).found() for key, value in found}


class Bench:
    """A live store with uploads that are in no list yet, and what merges them."""

    def __init__(self, folder: Path, n: int) -> None:
        self.recommender = open_store(folder, "lmdb")
        self.stored = StoredLists(self.recommender, Store(folder).current())
        self.generation, self.live = self.stored.generation, LiveStore.open(Store(folder).live)
        self.made = Made(self.recommender, 9)
        self.start = Snapshot.at(self.stored.model, self.generation, folder, self.stored.applied_seq)
        self.append(n)

    def append(self, n: int) -> None:
        for _ in range(n):
            self.live.append(*_placed(self.made(), self.generation))

    def snapshot(self) -> Snapshot:
        with self.live.reading() as reading:
            return self.start.extended(reading)

    def plan(self, at_most: int = neighbour_insert.TOGETHER) -> tuple[neighbour_insert.Plan, Snapshot]:
        with self.live.reading() as reading:
            snapshot = self.start.extended(reading)
            plan = neighbour_insert.planned(reading, self.stored, snapshot, at_most)
        assert plan is not None
        return plan, snapshot

    def write(self, plan: neighbour_insert.Plan, snapshot: Snapshot, start: int, n: int) -> int:
        with self.live.writing() as writing:
            return neighbour_insert.write(writing, self.stored, snapshot, plan, start, n)

    def follow(self) -> None:
        neighbour_insert.follow(self.live, self.stored, self.start.extended)

    def records(self) -> dict[bytes, list[tuple[str, float, None]]]:
        return records(self.live, self.generation)


def _placed(made: tuple[Upload, dict[str, np.ndarray]], generation: str) -> tuple[Upload, str, dict[str, np.ndarray]]:
    return made[0], generation, made[1]


@pytest.mark.slow
def test_many_at_once_are_as_one_after_the_other(built: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = Bench(copied(built, tmp_path / "a"), 0), Bench(copied(built, tmp_path / "b"), 40)
    for _ in range(40):
        one.append(1)
        one.follow()
    other.follow()
    assert one.records() == other.records()
    assert len(one.records()) > 40


def test_two_processes_that_do_the_same_end_with_the_same_lists(built: Path, tmp_path: Path) -> None:
    """One has a plan from before a further upload, the other one with it; they write in turns, a few lists each."""
    rng = np.random.default_rng(0)
    (tmp_path / "right").mkdir()
    right = Bench(copied(built, tmp_path / "right"), 6)
    right.append(3)
    right.follow()
    for turn in range(6):
        (tmp_path / f"{turn}").mkdir()
        bench = Bench(copied(built, tmp_path / f"{turn}"), 6)
        old = bench.plan()
        bench.append(3)
        plans, done = [old, bench.plan()], [0, 0]
        while any(at < len(plan.changes) for at, (plan, _) in zip(done, plans, strict=True)):
            which = int(rng.integers(2))
            done[which] = bench.write(*plans[which], done[which], int(rng.integers(1, 40)))
        with bench.live.reading() as reading:
            assert not neighbour_insert.is_behind(reading, bench.generation, bench.stored.applied_seq)
        assert bench.records() == right.records(), turn
        before = bench.records()
        assert bench.write(*old, 0, 10) == len(old[0].changes), "a plan that is past does nothing"
        assert bench.records() == before


def test_a_plan_that_was_broken_off_is_done_again(store: Path) -> None:
    bench = Bench(store, 5)
    plan, snapshot = bench.plan()
    bench.write(plan, snapshot, 0, len(plan.changes) // 2)
    with bench.live.reading() as reading:
        assert neighbour_insert.is_behind(reading, bench.generation, bench.stored.applied_seq)
    half = bench.records()
    bench.follow()
    whole = bench.records()
    assert len(half) < len(whole)
    bench.append(1)
    bench.follow()
    assert len(bench.records()) > len(whole)


@pytest.mark.slow
def test_what_was_taken_in_and_not_put_into_lists_is_so_when_a_worker_opens(store: Path) -> None:
    """As by an older program, or one that was killed; until then a thread answers."""
    Bench(store, 4)
    answers = open_answers(store)
    try:
        live_of(answers).settle()  # as a thread of the worker does beside its calls
        check(answers, store, [], most_computed=0)
    finally:
        answers.close()


def test_lists_that_nobody_has_begun_are_left_to_a_thread(store: Path) -> None:
    answers = open_answers(store)
    try:
        bench = Bench(store, 1)  # by an older program, say, beside this one
        assert stored_answer(answers, "t1", "hybrid", 3) is None
        bench.follow()
        assert stored_answer(answers, "t1", "hybrid", 3)
    finally:
        answers.close()


def test_uploads_that_get_vectors_late_are_put_in_then(store: Path) -> None:
    bench = Bench(store, 2)
    upload, vectors = bench.made()
    number = bench.live.append(upload, bench.generation, {})
    bench.append(1)
    bench.follow()
    assert not any(b"new3" in key for key in bench.records())
    bench.live.set_vectors(bench.generation, number, vectors)
    with bench.live.writing() as writing:
        neighbour_insert.begin_at(writing, bench.generation, number)
    bench.follow()
    assert any(b"new3" in key for key in bench.records())


def test_going_back_to_a_generation_puts_late_uploads_into_its_lists(store: Path) -> None:
    """A worker that had it open has met them before they had vectors, and went past them."""
    bench = Bench(store, 1)
    late = Upload("late", "hash", "late.mp3", None, "Artist 1", None, ["genre 1"], 2000, None, 9.0, "2026-01-01")
    bench.live.append(late, bench.generation, {})
    bench.append(1)
    bench.follow()
    assert not any(b"late" in key for key in bench.records())
    catch_up(Store(store), Store(store).current())
    assert {
        space
        for space in ("content", "hybrid")
        if neighbour_insert.near_key(bench.generation, space, "late") in bench.records()
    }


def test_lists_of_a_generation_that_is_no_more_are_taken_away(store: Path) -> None:
    bench = Bench(store, 3)
    bench.follow()
    assert bench.records()
    with bench.live.writing() as writing:
        writing.put("near", b"another/hx", b"kept")
        writing.forget_generation(bench.generation)
    assert bench.records() == {}
    with bench.live.reading() as reading:
        assert reading.get("near", b"another/hx") == b"kept"
        assert neighbour_insert.is_behind(reading, bench.generation, bench.stored.applied_seq)


def test_a_generation_is_forgotten_a_part_at_a_time(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(store, 3)
    bench.follow()
    n, commits = len(bench.records()), bench.live.environment.lmdb.info()["last_txnid"]
    assert n > 20
    monkeypatch.setattr("recsys.live.catchup.FORGOTTEN_AT_ONCE", 10)
    forget_generations(Store(store), [bench.generation])
    assert bench.records() == {}
    assert bench.live.environment.lmdb.info()["last_txnid"] - commits > n // 10
    with bench.live.reading() as reading:
        assert neighbour_insert.merged_up_to(reading, bench.generation, 0) == 0


# ---- bars --------------------------------------------------------------------------------------------------------


def test_bars_are_the_last_scores_of_full_lists(built: Path) -> None:
    recommender = Recommender.open(built)
    arrays = Store(built).current() / "arrays"
    kinds = set[str]()
    for space in ("sound", "content", "taste", "hybrid"):
        bars = np.load(bars_file(arrays, space))
        for row, track in enumerate(recommender.model.items.all()):
            scores = [score for _, score in recommender.tables.neighbours(track, space) or []]
            expected = np.inf if not scores else -np.inf if len(scores) < DEPTH else scores[-1]
            kinds.add("none" if not scores else "short" if len(scores) < DEPTH else "full")
            assert bars[row] == np.float32(expected)
    assert kinds == {"none", "short", "full"}


@pytest.mark.slow
def test_a_generation_without_the_arrays_is_asked_by_sql(store: Path) -> None:
    generation = Store(store).current()
    kept = {name: np.load(bars_file(generation / "arrays", name)) for name in VECTOR_SPACES}
    for space in VECTOR_SPACES:
        bars_file(generation / "arrays", space).unlink()
    with_facts(generation)
    answers = open_answers(store)
    try:
        bars = StoredLists(answers.recommender, generation).bars
        for space, scores in kept.items():
            rows = np.arange(N, dtype=np.int32)
            assert np.array_equal(bars.at(space, rows, lambda row: None), scores), space
        made, live = Made(answers.recommender), live_of(answers)
        for _ in range(8):
            live.add(*made())
        check(answers, store, [], most_computed=0)
    finally:
        answers.close()


def test_a_list_that_is_not_full_takes_every_track() -> None:
    lines = [track_bytes((f"t{n}", 1 - n / 8, None)) for n in range(4)]
    record = pack(head_of("g", "neighbours"), lines, range(4))
    assert [float(bar_of(record, depth)) for depth in (3, 4, 5)] == [0.75, 0.625, -np.inf]


def test_bars_of_uploads_follow_their_lists(store: Path) -> None:
    """A bar that is kept is never above what the list has: else a track would be missed."""
    bench = Bench(store, 30)
    bench.follow()
    bench.append(30)
    bench.follow()
    snapshot, bars = bench.snapshot(), bench.stored.bars
    asked = list[int]()
    for space in ("sound", "content", "hybrid"):
        rows = snapshot.catalogue.uploads_in(space)[0]
        kept = bars.at(space, rows, asked.append)
        with bench.live.reading() as reading:
            for row, bar in zip(rows.tolist(), kept.tolist(), strict=True):
                key = neighbour_insert.near_key(bench.generation, space, snapshot.catalogue.id(row))
                found = Record(reading.get("near", key) or b"").found()
                assert len(found) == DEPTH
                assert bar <= found[-1][1]


def test_listens_beside_uploads_change_no_list_of_neighbours(answers: FastPath) -> None:
    live = live_of(answers)
    live.add(*Made(answers.recommender)())
    before = [stored_answer(answers, f"t{n}", "hybrid", 5) for n in range(N)]
    live.record([Listened("u0", "new1"), Listened("somebody", "t3")])
    assert [stored_answer(answers, f"t{n}", "hybrid", 5) for n in range(N)] == before
    assert all(before)
