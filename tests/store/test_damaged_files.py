"""Files that are missing, cut off or overwritten: a sentence at the start, and never the end of a server that runs."""

import asyncio
import itertools
import logging
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import grpc
import lmdb
import numpy as np
import pytest

from helpers.catalogues import clip
from helpers.live_store import heard, opened
from helpers.serve_process import Serve, eventually, refused_start, serve, stub_of
from helpers.stores import copied, with_facts
from helpers.upload_service import pieces
from recsys.errors import ArtefactError, NotFoundError
from recsys.eventlog.events import GenerationMovedError, Upload
from recsys.recommender import Backend
from recsys.serving import reload
from recsys.serving.fast_path import FastPath, ServingState
from recsys.serving.reload import open_answers, open_serving, watch
from recsys.serving.upload_handler import NOT_NOW
from recsys.store.generation import Store
from recsys.v1 import recommender_pb2 as pb

CALL_S = 10.0
WARM_S = 240.0  # the embedding process imports torch first, which takes minutes on a machine that is busy otherwise
NEXT = "20990101T000000.000000Z"


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Store:
    return Store(copied(tiny_store, tmp_path))


def cut(file: Path, share: float = 0.5) -> None:
    os.truncate(file, int(file.stat().st_size * share))


def overwrite(file: Path, start: int, n_bytes: int, seed: int = 1) -> None:
    """Write random bytes over a part of a file, which keeps its length."""
    with file.open("r+b") as stream:
        stream.seek(start)
        stream.write(random.Random(seed).randbytes(max(0, min(n_bytes, file.stat().st_size - start))))


# what is done to a store, and what the sentence names
DAMAGES: dict[str, tuple[Callable[[Store, Path], None], str]] = {
    "no CURRENT": (lambda store, _: (store.folder / "CURRENT").unlink(), "holds no published generation"),
    "no name": (lambda store, _: (store.folder / "CURRENT").write_bytes(b""), "CURRENT names the generation ''"),
    "not a text": (lambda store, _: (store.folder / "CURRENT").write_bytes(b"\xff\xfe\0"), "CURRENT names"),
    "a path": (lambda store, _: (store.folder / "CURRENT").write_text("../.."), "CURRENT names the generation '../..'"),
    "no generation": (lambda _, generation: shutil.rmtree(generation), "CURRENT names"),
    "no facts": (lambda _, generation: (generation / "meta.json").unlink(), "meta.json"),
    "half the facts": (lambda _, generation: cut(generation / "meta.json"), "meta.json"),
    "other facts": (lambda _, generation: (generation / "meta.json").write_text("[]"), "meta.json does not say"),
    "too few facts": (lambda _, generation: (generation / "meta.json").write_text("{}"), "meta.json does not say"),
    "no tables": (lambda _, generation: (generation / "recommendations.duckdb").unlink(), "recommendations.duckdb"),
    "half the tables": (lambda _, generation: cut(generation / "recommendations.duckdb"), "recommendations.duckdb"),
    "no lists": (lambda _, generation: (generation / "serving.lmdb").unlink(), "serving.lmdb is missing"),
    "half the lists": (lambda _, generation: cut(generation / "serving.lmdb"), "serving.lmdb"),
    "other lists": (lambda _, generation: overwrite(generation / "serving.lmdb", 0, 8192), "serving.lmdb"),
    "no model": (lambda _, generation: shutil.rmtree(generation / "models"), "models/"),
    "no vectors": (lambda _, generation: (generation / "arrays" / "item_vectors.npy").unlink(), "item_vectors.npy"),
    "half the vectors": (lambda _, generation: cut(generation / "arrays" / "item_vectors.npy"), "item_vectors.npy"),
    "other vectors": (lambda _, generation: overwrite(generation / "arrays" / "item_vectors.npy", 0, 64), "arrays"),
    "half the live store": (lambda store, _: cut(store.live), "live.lmdb"),
    "another live store": (lambda store, _: overwrite(store.live, 0, 8192), "live.lmdb"),
    "no live store at all": (lambda store, _: store.live.write_bytes(b"no database\n" * 1000), "live.lmdb"),
}
LIVE = [name for name in DAMAGES if "live" in name]
NAMED = [name for name, (_, sentence) in DAMAGES.items() if "CURRENT" in sentence or "published" in sentence]


def damaged(store: Store, name: str) -> str:
    """Damage a store; gives what the sentence names."""
    if name in LIVE:
        with opened(store.folder) as live:
            live.record([listen for n in range(30) for listen in heard(f"x{n}", "t1", "t2", "t3")])
    damage, expected = DAMAGES[name]
    damage(store, store.current())
    return expected


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_named_in_one_sentence(store: Store, name: str) -> None:
    expected = damaged(store, name)
    with pytest.raises(ArtefactError) as caught:
        open_answers(store.folder)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["too few facts", "half the lists", "another live store"])
def test_a_server_does_not_start_on_it(store: Store, name: str) -> None:
    expected = damaged(store, name)
    status, told = refused_start(store.folder)
    assert status == 4
    assert told.count("\n") == 1, told
    assert told.startswith("recsys: ")
    assert expected in told


@pytest.mark.parametrize("n_pages", [pytest.param(3, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.long)])
@pytest.mark.parametrize("file", ["serving.lmdb", "live.lmdb"])
def test_any_page_may_be_overwritten(store: Store, file: str, n_pages: int) -> None:
    """The server says so and ends, or serves and refuses what is on that page; it neither hangs nor gives traces."""
    with opened(store.folder) as live:
        live.record([listen for n in range(30) for listen in heard(f"x{n}", "t1", "t2", "t3")])
    whole = store.folder / "live.lmdb" if file == "live.lmdb" else store.current() / file
    kept, rng = whole.read_bytes(), random.Random(7)
    for seed in range(n_pages):
        whole.write_bytes(kept)
        overwrite(whole, 4096 * rng.randrange(2, len(kept) // 4096), 4096, seed)
        server = Serve(store.folder, workers=1)
        if server.address:
            with stub_of(server.address) as stub:
                for n in range(30):
                    for user in (f"u{n}", f"x{n}"):
                        answer = stub.Recommend.future(pb.RecommendRequest(user_id=user, k=5), timeout=CALL_S)
                        code = answer.code().name
                        assert code in {"OK", "UNAVAILABLE"}, (seed, user, code, answer.details(), server.log)
            server.stop()
        else:
            assert server.stop() == 4, server.log
            assert server.log.splitlines()[-1].startswith("recsys: "), server.log
            assert "Traceback" not in server.log


def test_a_page_that_cannot_be_read_spoils_no_other(store: Store) -> None:
    """LMDB does not go on with a transaction that met one; the next look-up has another."""
    answers = open_answers(store.folder)
    lookup = answers._lookup
    assert lookup.list_of("u0")
    real = lookup._threads.transaction

    class Broken:
        def get(self, *_: object, **__: object) -> None:
            real.abort()
            raise lmdb.CorruptedError("mdb_get: MDB_CORRUPTED")

    lookup._threads.transaction = Broken()
    with pytest.raises(ArtefactError, match="CORRUPTED"):
        lookup.list_of("u1")
    assert lookup.list_of("u0")
    answers.close()


# ---- a server that runs ------------------------------------------------------------------------------------------


def published(
    store: Store, damage: Callable[[Store, Path], None] | None = None, name: str = NEXT, of: str | None = None
) -> str:
    """Make a copy of a generation, by default the current one, current, with a damage to it."""
    fresh = shutil.copytree(store.current() if of is None else store.generation(of), store.generations / name)
    with_facts(fresh, generation=name)
    if damage is not None:
        damage(store, fresh)
    (store.folder / "CURRENT").write_text(name + "\n")
    return name


@pytest.mark.parametrize("name", [name for name in DAMAGES if name not in {*LIVE, *NAMED}])
def test_the_old_generation_goes_on(store: Store, name: str, caplog: pytest.LogCaptureFixture) -> None:
    current, old = ServingState(open_answers(store.folder)), store.current().name

    async def look() -> None:
        following = asyncio.create_task(watch(current, store.folder, "lmdb", every_s=0.01))
        published(store, DAMAGES[name][0])
        for _ in range(500):
            await asyncio.sleep(0.02)
            if caplog.records:
                break
        assert not following.done()
        assert current.answers.generation == old
        (store.folder / "CURRENT").write_bytes(b"\xff")
        await asyncio.sleep(0.05)
        assert not following.done()
        following.cancel()

    with caplog.at_level(logging.ERROR, logger=reload.__name__):
        asyncio.run(look())
    assert current.answers.recommend(pb.RecommendRequest(user_id="u1").SerializeToString())
    [told] = caplog.records
    assert told.exc_info is None, "a sentence is enough"
    current.answers.close()


def test_a_generation_that_could_not_be_opened_is_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the disk is full while its lists catch up. Whatever goes wrong, it is looked for on."""
    current, errors = ServingState(open_answers(store.folder)), [ArtefactError("full"), OSError("full"), KeyError("x")]

    def failing(*arguments: object) -> FastPath:
        if errors:
            raise errors.pop()
        return open_answers(*arguments)

    monkeypatch.setattr(reload, "open_answers", failing)
    monkeypatch.setattr(reload, "AGAIN_S", 0.05)

    async def look() -> None:
        following = asyncio.create_task(watch(current, store.folder, "lmdb", every_s=0.01))
        published(store)
        for _ in range(200):
            await asyncio.sleep(0.02)
            if current.answers.generation == NEXT:
                break
        assert not following.done()
        following.cancel()

    with caplog.at_level(logging.ERROR, logger=reload.__name__):
        asyncio.run(look())
    assert current.answers.generation == NEXT
    assert not errors
    assert len(caplog.records) == 1, "told once"
    current.answers.close()


# ---- an earlier generation answers -------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["lmdb", "duckdb"])
@pytest.mark.parametrize("name", [name for name in DAMAGES if name not in {*LIVE, *NAMED} or name == "no generation"])
def test_an_earlier_generation_answers_where_the_current_one_cannot(
    store: Store, name: str, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    old = store.current().name
    published(store, DAMAGES[name][0])
    expected = DAMAGES[name][1]
    answers, refused = open_serving(store.folder, backend)
    if backend == "duckdb" and "lists" in name:  # it does without that file
        assert (answers.generation, refused) == (NEXT, "")
        answers.close()
        return
    assert (answers.generation, refused) == (old, NEXT)
    [told] = caplog.records
    assert (told.levelname, told.exc_info) == ("ERROR", None)
    assert expected in told.getMessage()
    assert f"the earlier one {old} answers" in told.getMessage()
    assert len(answers.recommender.recommend("u1", 5).tracks) == 5
    assert answers.live is not None
    assert answers.live.record(heard("u1", "t1")).recorded == 1
    with pytest.raises(GenerationMovedError if name != "no generation" else ArtefactError):
        answers.live.add(Upload("new", "0" * 64, "0.mp3", "New", None, None, [], None, None, 1.0, ""), {})
    answers.close()


def test_an_upload_that_an_earlier_generation_has_no_vectors_of_is_heard_and_deleted_there(store: Store) -> None:
    published(store)
    with opened(store.folder) as live:
        vectors = {"hybrid": np.load(store.current() / "arrays" / "item_vectors.npy")[4]}
        store.uploads.mkdir(exist_ok=True)
        live.add(Upload("new", "0" * 64, "0.mp3", "New", None, None, [], None, None, 1.0, ""), vectors)
    cut(store.current() / "serving.lmdb")
    answers, _ = open_serving(store.folder)
    with pytest.raises(NotFoundError, match="no track 'new'"):
        answers.recommender.track("new")
    assert answers.live is not None
    assert answers.live.record(heard("u1", "new")).refused == []
    assert len(answers.recommender.recommend("u1", 5).tracks) == 5
    assert answers.live.track_of_audio("0" * 64) == "new"
    answers.live.delete_track("new")
    answers.close()


def test_of_earlier_generations_the_newest_that_is_whole(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    first = store.current()
    for name in ("20980101T000000.000000Z", "20980102T000000.000000Z"):
        shutil.copytree(first, store.generations / name)
    cut(store.generations / "20980102T000000.000000Z" / "arrays" / "edges.npy")
    (store.generations / "20980101T000000.000000Z" / "meta.json").write_text("[]")
    published(store, lambda _, fresh: cut(fresh / "serving.lmdb"))
    shutil.copytree(first, store.generations / "20990102T000000.000000Z")  # newer than the current one: never asked
    answers, refused = open_serving(store.folder)
    assert (answers.generation, refused) == (first.name, NEXT)
    answers.close()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "ERROR"]
    (first / "meta.json").unlink()
    with pytest.raises(ArtefactError, match=f"{NEXT}/serving.lmdb has"):
        open_serving(store.folder)


@pytest.mark.parametrize("name", [name for name in NAMED if name != "no generation"])
def test_where_current_names_nothing_none_is_chosen(store: Store, name: str) -> None:
    DAMAGES[name][0](store, store.current())
    with pytest.raises(ArtefactError, match=re.escape(DAMAGES[name][1])):
        open_serving(store.folder)


def test_the_current_generation_answers_once_it_can_be_opened(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = store.current()
    published(store, lambda _, fresh: cut(fresh / "serving.lmdb"))
    answers, refused = open_serving(store.folder)
    current, told = ServingState(answers), len(caplog.records)
    monkeypatch.setattr(reload, "AGAIN_S", 0.1)

    async def look() -> None:
        following = asyncio.create_task(watch(current, store.folder, "lmdb", every_s=0.01, refused=refused))
        await asyncio.sleep(0.25)
        assert current.answers.generation == old.name
        shutil.copy(old / "serving.lmdb", store.generations / NEXT / "serving.lmdb")
        for _ in range(200):
            await asyncio.sleep(0.02)
            if current.answers.generation == NEXT:
                break
        following.cancel()

    asyncio.run(look())
    assert current.answers.generation == NEXT
    assert [record.levelname for record in caplog.records[told:]] in ([], ["INFO"]), "it was told at the start"
    current.answers.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "n_bytes"), [("serving.lmdb", 4096), ("serving.lmdb", 0), ("arrays/item_vectors.npy", 64)]
)
def test_a_server_outlives_a_file_that_is_shortened_under_it(store: Store, file: str, n_bytes: int) -> None:
    old = store.current().name
    published(store)
    with serve(store.folder, options=["--metrics", "127.0.0.1:0"]) as server:
        figures = re.search(r"http://\S+/metrics", server.log)[0]
        with stub_of(server.address) as stub:
            assert stub.GetStatus(pb.GetStatusRequest(), timeout=CALL_S).generation == NEXT
        os.truncate(store.generations / NEXT / file, n_bytes)

        def generation(user: int) -> str:
            try:
                with stub_of(server.address) as stub:
                    stub.RecommendFromTracks(pb.RecommendFromTracksRequest(track_ids=["t4"], k=3), timeout=CALL_S)
                    stub.SimilarTracks(pb.SimilarTracksRequest(track_id="t4", k=3), timeout=CALL_S)
                    stub.Recommend(pb.RecommendRequest(user_id=f"u{user}", k=5), timeout=CALL_S)
                    return stub.GetStatus(pb.GetStatusRequest(), timeout=CALL_S).generation
            except grpc.RpcError as error:
                return error.code().name

        users = itertools.cycle(range(28))
        assert eventually(lambda: {generation(next(users)) for _ in range(12)} == {old})
        assert "(Bus error): most likely a file of the store was shortened" in server.log
        assert f"the earlier one {old} answers" in server.log
        assert len(server.workers()) == 2
        assert eventually(lambda: "recsys_workers_behind 2.0" in urlopen(figures).read().decode())
        with stub_of(server.address) as stub:
            listens = [pb.Listen(user_id="somebody", track_id=track) for track in ("t1", "t4")]
            assert stub.RecordListens(pb.RecordListensRequest(listens=listens), timeout=CALL_S).recorded == 2
            assert stub.Recommend(pb.RecommendRequest(user_id="somebody", k=5), timeout=CALL_S).source == "personal"
        newer = "20990102T000000.000000Z"
        published(store, name=newer, of=old)
        assert eventually(lambda: {generation(next(users)) for _ in range(6)} == {newer})
        assert eventually(lambda: "recsys_workers_behind 0.0" in urlopen(figures).read().decode())


@pytest.mark.slow
def test_a_server_starts_on_an_earlier_generation_and_takes_no_uploads_there(audio_store: Path, tmp_path: Path) -> None:
    store = Store(copied(audio_store, tmp_path))
    old = store.current().name
    published(store, lambda _, fresh: cut(fresh / "serving.lmdb"))
    with serve(store.folder, workers=1, embed=True) as server, stub_of(server.address) as stub:
        assert f"the earlier one {old} answers" in server.log
        assert stub.GetStatus(pb.GetStatusRequest(), timeout=CALL_S).generation == old
        server.embedder()
        with pytest.raises(grpc.RpcError) as caught:
            stub.UploadTrack(pieces(clip("a.wav", 80)), timeout=WARM_S)
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, NOT_NOW)
        assert list(store.uploads.iterdir()) == []
        (store.folder / "CURRENT").write_text(old + "\n")  # as a rollback does
        assert stub.UploadTrack(pieces(clip("a.wav", 80)), timeout=WARM_S).has_sound


# ---- what is open stays open -------------------------------------------------------------------------------------


def test_a_running_server_outlives_damage(store: Store) -> None:
    old = store.current()
    with serve(store.folder, workers=1) as server, stub_of(server.address) as stub:

        def generation() -> str:
            answer = stub.Recommend(pb.RecommendRequest(user_id="u1", k=5), timeout=CALL_S)
            assert len(answer.tracks) == 5
            return answer.generation

        assert generation() == old.name
        published(store, lambda _, fresh: cut(fresh / "serving.lmdb"))
        assert eventually(lambda: "goes on answering" in server.log)
        assert generation() == old.name
        assert "serving.lmdb" in server.log
        shutil.rmtree(store.generations / NEXT)
        for file in old.rglob("*"):  # what is open stays open
            if file.is_file() and "models" not in file.parts:
                file.unlink()
        assert generation() == old.name
        listen = pb.Listen(user_id="u1", track_id="t1", event_id="e")
        assert stub.RecordListens(pb.RecordListensRequest(listens=[listen]), timeout=CALL_S).recorded == 1
        assert "Traceback" not in server.log
        assert len(server.workers()) == 1
