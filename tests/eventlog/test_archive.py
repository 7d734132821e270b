"""Old listens leave the live log for Parquet files, and no build misses one of them or takes one twice."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from helpers.catalogues import TinyCatalogue, quick_settings
from helpers.live_store import folded, heard, listed, opened
from helpers.stores import copied
from pipelines import publish as publishing
from pipelines.build import Inputs, build
from recsys.errors import ArtefactError
from recsys.eventlog import archive
from recsys.eventlog.archive import move_listens
from recsys.eventlog.events import Listened, TrackDeleted, Upload, UserDeleted
from recsys.eventlog.replay import ReplayedLog, read_live
from recsys.eventlog.store import open_live
from recsys.eventlog.transactions import WriteTxn
from recsys.live.rollback import rollback
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.util.progress import Silent


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@contextmanager
def writing(store: Store) -> Iterator[WriteTxn]:
    with open_live(store.live, write=True) as live:
        assert live is not None
        with live.writing() as inside:
            yield inside


def generation(store: Store, name: str, applied_seq: int) -> None:
    """Let there be a generation that knows the log up to a number."""
    folder = store.generations / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").write_text(json.dumps({"generation": name, "last_live_number": applied_seq}))


def happen(store: Store, n: int, seed: int = 0) -> None:
    """Write n entries of every kind."""
    rng = np.random.default_rng(seed)
    with writing(store) as log:
        for _ in range(n):
            number, user = log.last_seq() + 1, f"u{rng.integers(6)}"
            kind = rng.random()
            if kind < 0.8:
                time = f"2026-01-01T00:00:00.{number:06d}+02:00"
                log.append(Listened(user, f"t{rng.integers(9)}", time, 2.0, bool(kind < 0.1), f"event {number}"))
            elif kind < 0.9:
                name, code = f"new{number}", f"code{number}"
                log.append(Upload(name, code, "a.mp3", None, None, None, [], None, None, 1.0, "2026-01-01"))
            elif kind < 0.95:
                log.append(TrackDeleted(f"t{rng.integers(9)}", "2026-01-01"))
            else:
                log.forget_user(user)
                log.append(UserDeleted(user, "2026-01-01"))


def numbers_in_log(store: Store) -> list[int]:
    with open_live(store.live) as live:
        assert live is not None
        with live.reading() as reading:
            return [number for number, event in reading.events() if isinstance(event, Listened)]


def taken(store: Store) -> tuple[object, ...]:
    """All that a build takes in."""
    found: ReplayedLog = read_live(store)
    return found.uploads, found.listens.rows(), found.gone_tracks, found.gone_users, found.last_seq


@pytest.mark.slow
@pytest.mark.parametrize("in_a_file", [1, 7, 1000])
@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_a_build_takes_in_the_same_whatever_has_moved(
    store: Store, monkeypatch: pytest.MonkeyPatch, in_a_file: int, at_once: int
) -> None:
    monkeypatch.setattr(archive, "IN_A_FILE", in_a_file)
    monkeypatch.setattr(archive, "AT_ONCE", at_once)
    happen(store, 60)
    for seed, known in enumerate((0, 13, 13, 40, 70, 140)):
        generation(store, "old", known)
        generation(store, "new", known + 7)
        before, listens = taken(store), numbers_in_log(store)
        last = before[-1]
        assert isinstance(last, int)
        n_moved = move_listens(store, Silent())
        assert taken(store) == before
        assert numbers_in_log(store) == [number for number in listens if number > known or number == last]
        assert n_moved == len(listens) - len(numbers_in_log(store))
        assert move_listens(store, Silent()) == 0, "there is no more"
        happen(store, 25, seed + 1)
        assert {path.suffix for path in store.journal.glob("*")} <= {".parquet"}, "nothing half written stays"
    with duckdb.connect() as sql:  # which anyone can ask
        where = f"read_parquet('{store.journal}/*.parquet')"
        ((n, first, several),) = sql.sql(
            f"SELECT count(*), min(number), count(DISTINCT user_id) FROM {where}"
        ).fetchall()
    assert (n > 30, first >= 1, several > 2) == (True, True, True)


@pytest.mark.parametrize("pieces", range(5))
def test_a_kill_on_the_way_neither_loses_nor_doubles(
    store: Store, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    monkeypatch.setattr(archive, "IN_A_FILE", 20)
    monkeypatch.setattr(archive, "AT_ONCE", 8)
    happen(store, 60)
    generation(store, "one", 55)
    before, real, left = taken(store), WriteTxn.let_go, pieces

    def killed(self: WriteTxn, up_to: int, at_most: int) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return real(self, up_to, at_most)

    monkeypatch.setattr(WriteTxn, "let_go", killed)
    with pytest.raises(KeyboardInterrupt):
        move_listens(store, Silent())
    assert taken(store) == before
    with writing(store) as log:  # meanwhile somebody goes, of whom something may be in both
        log.forget_user("u2")
        log.append(UserDeleted("u2", "2026-01-01"))
    after = taken(store)
    assert after != before
    monkeypatch.setattr(WriteTxn, "let_go", real)
    move_listens(store, Silent())
    assert taken(store) == after
    rows = pl.concat([pl.read_parquet(file) for file in store.journal.glob("*.parquet")])
    assert rows["number"].is_unique().all()
    assert "u2" not in rows["user_id"].to_list()


def test_a_deleted_user_is_out_of_the_journal_for_builds_at_once_and_from_its_files_with_the_next(store: Store) -> None:
    with writing(store) as log:
        for n in range(9):
            log.append(Listened(f"u{n % 3}", f"t{n}", "2026-01-01"))
    generation(store, "one", 8)
    assert move_listens(store, Silent()) == 8
    with writing(store) as log:
        log.forget_user("u1")
        log.append(UserDeleted("u1", "2026-01-02"))
        log.append(Listened("u1", "t1", "2026-01-03"))
        log.append(Listened("u2", "t1", "2026-01-03"))
    listens = read_live(store).listens
    assert listens.filter(pl.col("user_id") == "u1")["track_id"].to_list() == ["t1"], "what came afterwards counts"
    [file] = store.journal.glob("*.parquet")
    generation(store, "one", 12)
    move_listens(store, Silent())
    every = pl.concat([pl.read_parquet(one) for one in store.journal.glob("*.parquet")])
    assert every.filter(pl.col("user_id") == "u1")["number"].to_list() == [11]
    assert b"u1" not in file.read_bytes()
    assert read_live(store).listens.equals(listens)


def test_what_one_generation_does_not_know_stays_and_so_does_all_if_one_is_damaged(store: Store) -> None:
    happen(store, 30)
    generation(store, "a", 5)
    generation(store, "b", 29)
    move_listens(store, Silent())
    assert min(numbers_in_log(store)) > 5
    (store.generations / "a" / "meta.json").write_text("{")
    assert move_listens(store, Silent()) == 0


def test_a_damaged_file_of_the_journal_is_named_and_nothing_is_deleted(store: Store) -> None:
    happen(store, 30)
    generation(store, "a", 20)
    move_listens(store, Silent())
    [file] = store.journal.glob("*.parquet")
    file.write_bytes(file.read_bytes()[:100])
    generation(store, "a", 29)
    listens = numbers_in_log(store)
    for work in (lambda: read_live(store), lambda: move_listens(store, Silent())):
        with pytest.raises(ArtefactError, match=file.name):
            work()
    assert numbers_in_log(store) == listens
    assert file.exists()


def test_what_does_not_read_back_stays_in_the_log(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    happen(store, 30)
    generation(store, "a", 20)
    before = taken(store)
    real = pl.DataFrame.write_parquet
    monkeypatch.setattr(pl.DataFrame, "write_parquet", lambda frame, file: real(frame.head(3), file))
    with pytest.raises(ArtefactError, match="read back"):
        move_listens(store, Silent())
    assert taken(store) == before
    assert not list(store.journal.iterdir())


# ---- in whole builds ---------------------------------------------------------------------------------------------


def rebuilt(catalogue: TinyCatalogue, folder: Path, keep: int) -> None:
    settings = quick_settings()
    settings = settings.model_copy(update={"store": settings.store.model_copy(update={"keep_generations": keep})})
    build(Inputs(catalogue.tracks, catalogue.listens), folder, settings, Silent(), strict=True)


@pytest.mark.slow
def test_builds_move_what_all_kept_generations_know_and_miss_nothing(
    tiny_store: Path, tiny_catalogue: TinyCatalogue, tmp_path: Path
) -> None:
    folder = copied(tiny_store, tmp_path)
    with opened(folder) as live:
        live.record([*heard("u0", "t2", "t5"), *heard("new", "t1", "t4"), Listened("u1", "t8", event_id="one")])
    rebuilt(tiny_catalogue, folder, 2)
    assert not Store(folder).journal.exists(), "one can still go back to a generation that does not know it"
    rebuilt(tiny_catalogue, folder, 2)
    assert len(numbers_in_log(Store(folder))) == 1, "numbers go on from the last one"
    with opened(folder) as live:
        repeated = live.record([Listened("u1", "t8", event_id="one"), *heard("new", "t7")])
        assert (repeated.recorded, repeated.repeated) == (1, 1), "an event counts once for good"
    rebuilt(tiny_catalogue, folder, 2)
    recommender = Recommender.open(folder)
    model = recommender.model
    for user, tracks in (("new", {"t1", "t4", "t7"}), ("u0", {"t2", "t5"}), ("u1", {"t8"})):
        assert tracks <= set(model.items.ids(model.heard(model.users.row(user)))), user
    rollback(folder)
    with opened(folder) as live:
        assert listed(live, "new") == folded(Recommender.open(folder), "new", "t7")


@pytest.mark.slow
def test_a_journal_that_cannot_be_written_does_not_fail_a_build(
    tiny_store: Path, tiny_catalogue: TinyCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(tiny_store, tmp_path)
    with opened(folder) as live:
        live.record(heard("u0", "t2", "t5"))

    def full(*_args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publishing, "move_listens", full)
    said = list[str]()
    monkeypatch.setattr(Silent, "log", lambda _self, line: said.append(line))
    before = Store(folder).current()
    rebuilt(tiny_catalogue, folder, 1)
    assert Store(folder).current() != before
    assert any("stay in the live log" in line for line in said)
