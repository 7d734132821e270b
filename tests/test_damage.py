"""Files that are missing, cut off or overwritten: a sentence at the start, and never the end of a server that runs."""

import asyncio
import json
import logging
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest
from conftest import copied
from serve_process import Serve, eventually, refused_start, serve, stub_of
from test_live_lists import heard, opened

from recsys.errors import ArtefactError
from recsys.serving import swap
from recsys.serving.answers import Answers, Current
from recsys.serving.swap import follow, open_answers
from recsys.store.generation import Store
from recsys.v1 import recommender_pb2 as pb

CALL_S = 10.0
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


@pytest.mark.parametrize("name", ["too few facts", "half the lists", "another live store"])
def test_a_server_does_not_start_on_it(store: Store, name: str) -> None:
    expected = damaged(store, name)
    status, told = refused_start(store.folder)
    assert status == 4
    assert told.count("\n") == 1, told
    assert told.startswith("recsys: ")
    assert expected in told


@pytest.mark.slow
@pytest.mark.parametrize("file", ["serving.lmdb", "live.lmdb"])
def test_any_page_may_be_overwritten(store: Store, file: str) -> None:
    """The server says so and ends, or serves and refuses what is on that page; it neither hangs nor gives traces."""
    with opened(store.folder) as live:
        live.record([listen for n in range(30) for listen in heard(f"x{n}", "t1", "t2", "t3")])
    whole = store.folder / "live.lmdb" if file == "live.lmdb" else store.current() / file
    kept, rng = whole.read_bytes(), random.Random(7)
    for seed in range(8):
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


def published(store: Store, damage: Callable[[Store, Path], None] | None = None) -> str:
    """Make a copy of the current generation current, with a damage to it."""
    fresh = shutil.copytree(store.current(), store.generations / NEXT)
    facts = json.loads((fresh / "meta.json").read_text()) | {"generation": NEXT}
    (fresh / "meta.json").write_text(json.dumps(facts))
    if damage is not None:
        damage(store, fresh)
    (store.folder / "CURRENT").write_text(NEXT + "\n")
    return NEXT


@pytest.mark.parametrize("name", [name for name in DAMAGES if name not in {*LIVE, *NAMED}])
def test_the_old_generation_goes_on(store: Store, name: str, caplog: pytest.LogCaptureFixture) -> None:
    current, old = Current(open_answers(store.folder)), store.current().name

    async def look() -> None:
        following = asyncio.create_task(follow(current, store.folder, "lmdb", every_s=0.01))
        published(store, DAMAGES[name][0])
        await asyncio.sleep(0.15)
        assert not following.done()
        assert current.answers.generation == old
        (store.folder / "CURRENT").write_bytes(b"\xff")
        await asyncio.sleep(0.05)
        assert not following.done()
        following.cancel()

    with caplog.at_level(logging.ERROR, logger=swap.__name__):
        asyncio.run(look())
    assert (current.answers.quick("Recommend") or bytes)(pb.RecommendRequest(user_id="u1").SerializeToString())
    [told] = caplog.records
    assert told.exc_info is None, "a sentence is enough"
    current.answers.close()


def test_a_generation_that_could_not_be_opened_is_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the disk is full while its lists catch up. Whatever goes wrong, it is looked for on."""
    current, errors = Current(open_answers(store.folder)), [ArtefactError("full"), OSError("full"), KeyError("x")]

    def failing(*arguments: object) -> Answers:
        if errors:
            raise errors.pop()
        return open_answers(*arguments)

    monkeypatch.setattr(swap, "open_answers", failing)
    monkeypatch.setattr(swap, "AGAIN_S", 0.05)

    async def look() -> None:
        following = asyncio.create_task(follow(current, store.folder, "lmdb", every_s=0.01))
        published(store)
        for _ in range(200):
            await asyncio.sleep(0.02)
            if current.answers.generation == NEXT:
                break
        assert not following.done()
        following.cancel()

    with caplog.at_level(logging.ERROR, logger=swap.__name__):
        asyncio.run(look())
    assert current.answers.generation == NEXT
    assert not errors
    assert len(caplog.records) == 1, "told once"
    current.answers.close()


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
