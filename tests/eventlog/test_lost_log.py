"""A live log that lacks what a generation was built with: lists are served, nothing is written, and it says why."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from helpers.catalogues import TinyCatalogue, quick_settings
from helpers.command import run
from helpers.live_store import heard, opened
from helpers.serve_process import eventually, serve, stub_of
from helpers.stores import copied
from pipelines.build import Inputs, build
from recsys.errors import ArtefactError, LogLostError
from recsys.eventlog import archive
from recsys.eventlog.events import Listened
from recsys.eventlog.replay import read_live
from recsys.eventlog.restart import restart_log
from recsys.eventlog.store import open_live
from recsys.recommender import Recommender
from recsys.serving.reload import open_answers
from recsys.store.generation import Store
from recsys.util.progress import Silent
from recsys.v1 import recommender_pb2 as pb


def rebuilt(catalogue: TinyCatalogue, store: Path) -> None:
    build(Inputs(catalogue.tracks, catalogue.listens), store, quick_settings(), Silent())


@pytest.fixture(scope="module")
def made_older(
    tiny_store: Path, tiny_catalogue: TinyCatalogue, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The folder of ``older``, made once; not to be written to."""
    folder = tmp_path_factory.mktemp("older")
    store = copied(tiny_store, folder)
    with opened(store) as live:
        live.record(heard("u0", "t2", "t5", "t8"))
    copy = shutil.copy(Store(store).live, folder / "older.lmdb")
    with opened(store) as live:
        live.record(heard("u1", "t2", "t5"))
        live.delete_user("u3")
        live.record(heard("u2", "t3"))
    rebuilt(tiny_catalogue, store)
    return store, Path(copy)


@pytest.fixture
def older(made_older: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A store whose generation took in seven entries, and a copy of its live log from when there were three."""
    store, copy = made_older
    return Path(shutil.copytree(store, tmp_path / "store")), Path(shutil.copy(copy, tmp_path / "older.lmdb"))


def lose(store: Path, how: str, copy: Path) -> None:
    file = Store(store).live
    file.unlink()
    file.with_name(file.name + "-lock").unlink(missing_ok=True)
    if how == "emptied":
        file.touch()
    elif how == "older":
        shutil.copy(copy, file)


@pytest.mark.parametrize("how", ["lost", "emptied", "older"])
def test_lists_are_served_and_nothing_is_written(older: tuple[Path, Path], how: str) -> None:
    store, copy = older
    before = [track.track_id for track in Recommender.open(store).recommend("u0", 30).tracks]
    lose(store, how, copy)
    assert [track.track_id for track in Recommender.open(store).recommend("u0", 30).tracks] == before
    with opened(store) as live:
        assert live.get(b"u0") is not None
        for write in (
            lambda: live.record(heard("u0", "t3")),
            lambda: live.delete_user("u0"),
            lambda: live.delete_track("t3"),
        ):
            with pytest.raises(LogLostError, match=r"Restore live.lmdb .* `recsys restart-log`"):
                write()
    with pytest.raises(LogLostError, match="ends at entry"):
        read_live(Store(store))


def test_a_build_is_refused_and_the_store_stays(older: tuple[Path, Path], tiny_catalogue: TinyCatalogue) -> None:
    store, copy = older
    lose(store, "lost", copy)
    before = Store(store).current_name()
    with pytest.raises(ArtefactError, match="restart-log"):
        rebuilt(tiny_catalogue, store)
    assert Store(store).current_name() == before
    assert Store(store).names()[-1] == before


@pytest.mark.slow
def test_a_server_says_it_to_who_writes(older: tuple[Path, Path]) -> None:
    import grpc

    store, copy = older
    lose(store, "emptied", copy)
    with serve(store, workers=1) as server, stub_of(server.address) as stub:
        assert len(stub.Recommend(pb.RecommendRequest(user_id="u0"), timeout=20).tracks) == 20
        with pytest.raises(grpc.RpcError, match="restart-log") as refused:
            stub.RecordListens(pb.RecordListensRequest(listens=[pb.Listen(user_id="u0", track_id="t3")]), timeout=20)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "lost, emptied" in server.log
        restart_log(store)
        done = stub.RecordListens(pb.RecordListensRequest(listens=[pb.Listen(user_id="u0", track_id="t3")]), timeout=20)
        assert done.recorded == 1, "the server that runs goes on"
        many = [pb.Listen(user_id=f"x{n}", track_id="t3") for n in range(30)]
        assert stub.RecordListens(pb.RecordListensRequest(listens=many), timeout=20).recorded == 30
        generation = Store(store).current_name()

        def followed() -> bool:
            with open_live(Store(store).live) as live, live.reading() as reading:
                return reading.list_of(generation, "x29") is not None

        assert eventually(followed, 60), "and so do lists"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["lost", "emptied", "older"])
def test_a_log_that_is_begun_anew_goes_on_above_the_old_numbers(
    older: tuple[Path, Path], tiny_catalogue: TinyCatalogue, how: str
) -> None:
    store, copy = older
    lose(store, how, copy)
    done = run("restart-log", "--store", store)
    assert (done.status, "above entry 7" in done.err + done.out) == (0, True), done.err
    with opened(store) as live:
        assert live.record(heard("u0", "t11")).recorded == 1
        assert "t11" not in [track.track_id for track in Recommender.open(store).recommend("u0", 30).tracks]
        live.delete_track("t14")
    with open_live(Store(store).live) as live, live.reading() as reading:
        numbers = [number for number, _ in reading.events()]
        assert numbers[-2:] == [8, 9]
        assert reading.last_seq() == 9
    rebuilt(tiny_catalogue, store)
    found = [track.track_id for track in Recommender.open(store).recommend("u0", 30).tracks]
    assert not {"t11", "t14"} & set(found)
    with pytest.raises(ArtefactError, match="lacks nothing"):
        restart_log(store)


@pytest.mark.slow
def test_listens_of_the_journal_outlive_the_log_and_count_once(
    tiny_store: Path, tiny_catalogue: TinyCatalogue, tmp_path: Path
) -> None:
    store = copied(tiny_store, tmp_path)
    with opened(store) as live:
        live.record([Listened("u0", f"t{n}", at=f"2024-05-06T07:08:{n:02}+00:00", event_id=str(n)) for n in range(9)])
    copy = Path(shutil.copy(Store(store).live, tmp_path / "older.lmdb"))
    for _ in range(4):  # until no kept generation is older than the listens
        rebuilt(tiny_catalogue, store)
    assert archive.archive_files(Store(store))
    with open_live(Store(store).live) as live, live.reading() as reading:
        moved = reading.moved_up_to()
    assert moved == 8
    lose(store, "older", copy)
    with opened(store) as live:  # the copy lacks nothing by its last number, so it is no lost one: it is as it was
        assert live.backlog() == 0
    with open_live(Store(store).live, write=True) as live, live.writing() as writing:
        writing.delete("log", (9).to_bytes(8, "big"))
    assert restart_log(store) == 9
    listens = read_live(Store(store)).listens
    assert sorted(listens["track_id"].to_list()) == [f"t{n}" for n in range(8)], "each once, the ninth is given up"
    lose(store, "lost", copy)
    assert restart_log(store) == 9
    listens = read_live(Store(store)).listens
    assert sorted(listens["track_id"].to_list()) == [f"t{n}" for n in range(8)], "the journal alone has them"


def test_a_log_that_is_moved_away_under_a_server_takes_no_write(tiny_store: Path, tmp_path: Path) -> None:
    store = copied(tiny_store, tmp_path)
    with opened(store) as live:
        live.record(heard("u0", "t2"))
        aside = Store(store).live.rename(tmp_path / "aside.lmdb")
        with pytest.raises(ArtefactError, match="was moved away or replaced"):
            live.record(heard("u0", "t5"))
        assert live.list_of("u0") is not None, "reads go on"
        aside.rename(Store(store).live)
        assert live.record(heard("u0", "t5")).recorded == 1


@pytest.mark.parametrize("kind", ["gone", "older", "empty"])
@pytest.mark.parametrize("read_before", [False, True])
def test_what_is_computed_goes_on_from_the_log_that_was_moved_away(
    older: tuple[Path, Path], tmp_path: Path, kind: str, read_before: bool
) -> None:
    (store, copy), ways = older, list[dict[str, float]]([{}, {"diversity": 0.5}])
    with closing(open_answers(store)) as answers:
        assert answers.live is not None
        if read_before:
            answers.recommender.recommend("u9", 40)
        answers.live.record(heard("u9", "t7"))
        file = Store(store).live.rename(tmp_path / "aside.lmdb")
        if kind == "older":
            shutil.copy(copy, Store(store).live)
        elif kind == "empty":
            Store(store).live.touch()
        for way in ways:
            assert "t7" not in [line.track_id for line in answers.recommender.recommend("u9", 40, **way).tracks]
            assert answers.recommender.recommend("u3", 5, **way).source == "popular", "the user was deleted"
        with pytest.raises(LogLostError, match="put it back"):
            answers.live.record(heard("u9", "t8"))
        with opened(store) as again, pytest.raises(LogLostError):  # as a swap opens it
            again.delete_user("u4")
        file.replace(Store(store).live)
        assert answers.live.record(heard("u9", "t8")).recorded == 1
