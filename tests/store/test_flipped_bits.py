"""One bit is another one, anywhere: the answer is right or it is an error on our side, and never a wrong list.

What is flipped here: each bit of a record and of the small values, bits of every file of a generation before it is
opened, and bits of what serving.lmdb and live.lmdb hold while they are served.
"""

import asyncio
import json
import logging
import shutil
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.message import DecodeError

from helpers.catalogues import TinyCatalogue, quick_settings
from helpers.command import run
from helpers.flipping import flip, flipped
from helpers.live_store import heard, listed, opened
from helpers.stores import copied, with_facts
from pipelines.build import Inputs, build
from recsys.errors import ArtefactError, ChangedError, DamagedError, NewerError
from recsys.eventlog.store import open_live
from recsys.eventlog.transactions import user_key
from recsys.eventlog.user_state import LastPlays, UserHistory, UserState, UserStates, query_of
from recsys.recommender import Recommender, open_store
from recsys.serving import server
from recsys.serving.fast_path import FastPath, ServingState
from recsys.serving.integrity import Checker, Findings
from recsys.serving.reload import open_answers, open_serving, watch
from recsys.store import checksums
from recsys.store.duckdb_tables import FILE as TABLES
from recsys.store.duckdb_tables import query
from recsys.store.generation import Store
from recsys.store.manifest import read_facts
from recsys.store.record import FIRST, Record, first_of, head_of, pack, track_bytes
from recsys.store.sealed import sealed, unsealed
from recsys.util.progress import Silent
from recsys.v1 import recommender_pb2 as pb

KEY = b"somebody"
FOUND = [(f"track {n}", 9.0 - n, f"why {n}" if n % 3 else None) for n in range(70)]
ROWS = np.arange(70, dtype=np.int32) * 3


def flips(value: bytes, step: int = 1) -> Iterator[tuple[int, bytes]]:
    """Give a value with each bit in turn flipped, and the place of the bit."""
    for bit in range(0, 8 * len(value), step):
        yield bit, flipped(value, bit)


def of_format_1(found: list[tuple[str, float, str | None]], rows: np.ndarray, head: bytes) -> bytes:
    lines = [track_bytes(one) for one in found]
    ends = np.cumsum([len(line) for line in lines], dtype="<u4")
    return b"".join([struct.pack("<II", len(rows), len(head)), ends.tobytes(), rows.tobytes(), head, *lines])


# ---- values ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record() -> bytes:
    return pack(head_of("g", "personal"), [track_bytes(one) for one in FOUND], ROWS, key=KEY)


def test_any_bit_of_a_record_is_noticed_by_whoever_looks_there(record: bytes) -> None:
    right = {k: first_of(record, k, KEY) for k in (1, 20, FIRST, 60, 70)}
    whole = Record(record, KEY)
    n_noticed = 0
    for bit, other in flips(record, step=3):
        for k, expected in right.items():
            try:
                assert first_of(memoryview(other), k, KEY) == expected, (bit, k)
            except DamagedError:
                n_noticed += k <= FIRST
            except NewerError:
                assert bit // 8 == 3, "the format"
        try:
            assert (Record(other, KEY).found(), Record(other, KEY).rows.tolist()) == (whole.found(), ROWS.tolist())
            assert 8 <= bit // 8 < 16, "nothing but numbers that only readers of the one part or the other look at"
        except (DamagedError, NewerError):
            pass
    assert n_noticed > 3 * len(record) // 3, "the first part is most of it"


def test_a_record_of_another_key_or_cut_off_is_none(record: bytes) -> None:
    with pytest.raises(DamagedError):
        first_of(record, 20, b"somebody else")
    with pytest.raises(DamagedError):
        Record(record, b"somebody else")
    for length in (*range(0, 200), len(record) - 1):
        with pytest.raises(DamagedError):
            Record(record[:length], KEY).found()


def test_records_of_format_1_are_read_and_nonsense_in_them_is_our_fault() -> None:
    head = head_of("g", "personal")
    old, new = of_format_1(FOUND, ROWS, head), pack(head, [track_bytes(one) for one in FOUND], ROWS)
    assert Record(old).found() == Record(new).found()
    assert all(first_of(old, k, KEY) == first_of(new, k) for k in (1, 20, 60, 70))
    assert (first_of(old, 71), Record(old).rows.tolist(), Record(old).is_personal) == (None, ROWS.tolist(), True)
    assert Record(old).picked([3, 1]) == Record(new).picked([3, 1])
    for _, other in flips(old, step=7):
        try:
            Record(other).found()
        except ArtefactError:
            continue
    future = b"\0\0\xa5\3" + bytes(40)
    with pytest.raises(NewerError, match="format 3"):
        first_of(future, 1)


def test_small_values_have_a_format_and_a_checksum() -> None:
    items, plays = np.array([2, 5], np.int32), np.array([1, -1], np.float32)
    last = LastPlays(np.array([5, 2, 5], np.int32), np.array([1, 2, 2**32 - 1], np.uint32))
    known, taste = UserHistory(items, plays, 77, last), UserState(3, 0.5, 0.25, np.array([1, 2, 3], np.float32))
    old_heard = struct.pack("<Q", 77) + items.tobytes() + plays.tobytes()
    old_taste = struct.pack("<iff", 3, 0.5, 0.25) + taste.query.tobytes()
    for value in (known.packed(), sealed(2, old_heard), old_heard):
        read = UserHistory.read(value)
        assert (read.items.tolist(), read.plays.tolist(), read.up_to) == ([2, 5], [1, -1], 77)
        assert (read.last is None) == (value != known.packed())
    read_last = UserHistory.read(known.packed()).last
    assert read_last is not None
    assert (read_last.items.tolist(), read_last.seconds.tolist()) == ([5, 2, 5], [1, 2, 2**32 - 1])
    many = UserStates.read([taste.packed(), old_taste], 3)
    assert (many.rows.tolist(), many.score_at_last.tolist(), many.queries.tolist()) == (
        [3, 3],
        [0.25] * 2,
        [[1, 2, 3]] * 2,
    )
    assert query_of(taste.packed()).tolist() == query_of(old_taste).tolist() == [1, 2, 3]
    values = known.packed(), sealed(2, old_heard)
    for read, value in (*((UserHistory.read, value) for value in values), (query_of, taste.packed())):
        for _, other in flips(value):
            with pytest.raises(DamagedError):
                read(other)
    for later in (sealed(4, b"12345678"), sealed(4, old_taste)):
        with pytest.raises(NewerError):
            UserHistory.read(later)
    with pytest.raises(NewerError):
        UserStates.read([sealed(3, old_taste)], 3)
    with pytest.raises(DamagedError):
        UserStates.read([taste.packed()[:-1]], 3)
    with pytest.raises(DamagedError):
        unsealed(sealed(2, b"abc", b"key"), 2, "it", b"another key")


# ---- files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Store:
    return Store(copied(tiny_store, tmp_path))


def lists(answers: FastPath) -> dict[str, list[tuple[str, float]]]:
    """Everybody's list as a server answers: at once, or on a thread."""
    found = {}
    for user in (*(f"u{n}" for n in range(30)), "nobody"):
        request = pb.RecommendRequest(user_id=user, k=10).SerializeToString()
        try:
            quick = answers.recommend(request)
        except ArtefactError:
            quick = None
        answer = server._working("Recommend")(answers, request) if quick is None else quick[0]
        found[user] = [(t.track_id, t.score) for t in pb.RecommendResponse.FromString(answer).tracks]
    return found


@pytest.mark.slow
def test_any_file_that_is_another_one_is_refused_at_the_start(store: Store) -> None:
    current = store.current()
    facts = read_facts(current)
    assert len(facts["sha256"]) > 40
    assert set(facts["sha256"]) == set(facts["files"]) - {checksums.NEWER}
    for name in sorted(facts["sha256"]):
        file = current / name
        whole = file.read_bytes()
        for share in (0.1, 0.5, 0.999) if len(whole) else ():
            flip(file, int(share * 8 * len(whole)))
            if name == TABLES:
                with closing(open_answers(store.folder)) as answers:
                    assert lists(answers)["u0"]
            else:
                with pytest.raises(ArtefactError, match=r"\.(npy|json|lmdb|safetensors|spm)"):
                    open_answers(store.folder)
            file.write_bytes(whole)
    open_answers(store.folder).close()


def test_meta_json_has_a_checksum_and_a_format(store: Store) -> None:
    file = store.current() / "meta.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps(facts | {"last_live_number": 7}))
    with pytest.raises(DamagedError, match=r"meta.json does not match its checksum"):
        open_store(store.folder)
    for name, other in (("generation", "20990101T000000.000000Z"), ("settings", facts["settings"] | {"live": {}})):
        file.write_text(json.dumps(facts | {name: other}))
        with pytest.raises(DamagedError, match=r"meta.json does not match its checksum"):
            open_store(store.folder)
    file.write_text(json.dumps(facts | {"format": 3}))
    for open_ in (Recommender.open, open_answers):
        with pytest.raises(NewerError, match="has the format 3, expected 2 or less: a newer recsys"):
            open_(store.folder)
    file.write_text(json.dumps({name: facts[name] for name in facts if name not in ("sha256", "checksum", "format")}))
    open_store(store.folder).close()


@pytest.mark.slow
def test_any_bit_of_meta_json_is_noticed_or_says_the_same(store: Store) -> None:
    file = store.current() / "meta.json"
    whole, right = file.read_bytes(), read_facts(store.current())
    n_refused = 0
    for bit, other in flips(whole, step=43):
        file.write_bytes(other)
        try:
            assert read_facts(store.current()) == right, bit
        except ArtefactError:
            n_refused += 1
    assert n_refused > 8 * len(whole) // 43 // 2


def test_a_build_does_not_write_to_a_store_of_a_newer_version(store: Store, tiny_catalogue: TinyCatalogue) -> None:
    file = store.current() / "meta.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 3}))
    before = store.names()
    with pytest.raises(NewerError):
        build(Inputs(tiny_catalogue.tracks, tiny_catalogue.listens), store.folder, quick_settings(), Silent())
    assert store.names() == before


def test_published_files_are_read_only(tiny_store: Path) -> None:
    folder = Store(tiny_store).current()
    assert {file.stat().st_mode & 0o777 for file in folder.rglob("*") if file.is_file()} == {0o444}


# ---- while it is served ------------------------------------------------------------------------------------------


def test_what_serving_lmdb_damages_comes_from_the_duckdb_file(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    file = store.current() / "serving.lmdb"
    with closing(open_answers(store.folder)) as answers:
        expected = lists(answers)
        near = answers.recommender.similar("t1", 5, describe=False).tracks
        about = answers.recommender.track("t1")
        whole, lookup = file.read_bytes(), answers._lookup
        assert lookup is not None
        rng = np.random.default_rng(3)
        for value in (lookup.list_of("u3"), lookup.popular, lookup.neighbours_of("t1", "hybrid")):
            start = whole.index(bytes(value))
            for _ in range(12):
                place = 8 * start + int(rng.integers(8 * len(value)))
                with file.open("r+b") as stream:
                    stream.write(flipped(whole, place))
                assert lists(answers) == expected, place
                assert answers.recommender.similar("t1", 5, describe=False).tracks == near
        for name in (b"u3", b"t1"):  # a key that is another one, which LMDB then does not find or finds twice
            at = whole.index(name + bytes(lookup._get("users" if name == b"u3" else "tracks", name))[:8])
            for bit in range(16):
                with file.open("r+b") as stream:
                    stream.write(flipped(whole, 8 * at + bit))
                assert lists(answers) == expected, bit
                assert answers.recommender.track("t1") == about
        with file.open("r+b") as stream:
            stream.write(whole)
    assert [record.levelname for record in caplog.records] == ["ERROR"], "it is told once in a while"
    assert "the DuckDB file is asked instead" in caplog.text


def test_where_the_duckdb_file_is_gone_too_a_call_fails_on_our_side(store: Store) -> None:
    file = store.current() / "serving.lmdb"
    with closing(open_answers(store.folder)) as answers:
        value = answers._lookup.list_of("u3")
        start = file.read_bytes().index(bytes(value))
        (store.current() / TABLES).unlink()
        with file.open("r+b") as stream:
            stream.seek(start + 100)
            stream.write(b"\xff")
        with pytest.raises(DamagedError) as caught:
            lists(answers)
    assert server._refusal(caught.value, "Recommend")[0] == grpc.StatusCode.UNAVAILABLE


def test_protobuf_is_the_clients_fault_in_a_request_alone() -> None:
    with pytest.raises(ValueError, match="no such request") as caught:
        server._working("GetTrack")(None, b"\xff")
    assert server._refusal(caught.value, "GetTrack")[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert server._refusal(DecodeError("Error parsing message"), "Recommend")[0] == grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("user", ["u0", "fresh"])
def test_a_damaged_list_of_now_is_computed_and_written_anew(store: Store, user: str) -> None:
    with opened(store.folder) as live:
        live.record(heard(user, "t2", "t5"))
        right = listed(live, user)
        key = user_key(live.generation, user)
    with open_live(store.live) as live, live.reading() as reading:
        whole = {name: reading.get(name, key) for name in ("lists", "heard", "tastes")}
    for name, share in [(name, share) for name in whole for share in (0.02, 0.3, 0.9)]:
        bit = int(share * 8 * len(whole[name]))
        with open_live(store.live, write=True) as live, live.writing() as writing:
            writing.put(name, key, flipped(whole[name], bit))
        with closing(open_answers(store.folder)) as answers:
            request = pb.RecommendRequest(user_id=user, k=10).SerializeToString()
            try:
                quick = answers.recommend(request)
            except ArtefactError:
                quick = None
            try:
                answer = server._working("Recommend")(answers, request) if quick is None else quick[0]
            except ArtefactError:
                assert name != "lists", "that one can be computed"
            else:
                assert [t.track_id for t in pb.RecommendResponse.FromString(answer).tracks] == right[:10]
            answers.live.record(heard(user, "t8"))
            assert "t8" not in listed(answers.live, user)
        with open_live(store.live, write=True) as live, live.writing() as writing:
            for database, value in whole.items():
                writing.put(database, key, value)


# ---- the check in the background ---------------------------------------------------------------------------------


def checked(store: Store, generation: str) -> Findings:
    findings = Findings()
    Checker(store.folder, lambda: generation, findings, pace=1e12).check(generation)
    return findings


def test_the_check_finds_a_bit_of_any_file(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    current = store.current()
    assert checked(store, current.name).count(current.name) == 0
    for name in (TABLES, "serving.lmdb", "arrays/item_vectors.npy", "models/content/fusion.safetensors"):
        whole = (current / name).read_bytes()
        flip(current / name, 4 * len(whole))
        caplog.clear()
        found = checked(store, current.name)
        assert (found.count(current.name), found.count("another")) == (1, 0)
        assert found.is_refused(current.name) == ("/" in name)
        assert name in caplog.text
        (current / name).write_bytes(whole)
    both = Findings()
    both.add("g", is_fatal=False)
    both.add("g", is_fatal=True)
    both.add("h", is_fatal=False)
    assert (both.count("g"), both.is_refused("g"), both.count("h"), both.is_refused("h")) == (2, True, 1, False)


def test_a_thread_checks_each_generation_that_is_served(store: Store) -> None:
    current, findings = store.current(), Findings()
    flip(current / "arrays" / "edges.npy", 1200)
    checker = Checker(store.folder, lambda: current.name, findings, pace=1e12)
    checker.start()
    for _ in range(400):
        if findings.is_refused(current.name):
            break
        checker._stopped.wait(0.05)
    checker.stop()
    assert findings.is_refused(current.name)


@pytest.mark.parametrize("has_earlier", [True, False])
def test_a_damaged_generation_is_left_or_answers_what_is_stored_alone(store: Store, has_earlier: bool) -> None:
    old, new = store.current().name, "20990101T000000.000000Z"
    shutil.copytree(store.current(), store.generations / new)
    with_facts(store.generations / new, generation=new)
    (store.folder / "CURRENT").write_text(new)
    answers, _ = open_serving(store.folder)
    assert answers.generation == new
    current, request = ServingState(answers), pb.RecommendRequest(user_id="u3", k=10).SerializeToString()
    is_damaged = {new} if has_earlier else {new, old}

    async def look() -> None:
        following = asyncio.create_task(watch(current, store.folder, "lmdb", 0.01, damaged=is_damaged.__contains__))
        for _ in range(300):
            await asyncio.sleep(0.02)
            if current.answers is not answers or answers.damaged:
                break
        await asyncio.sleep(0.1)
        assert not following.done()
        following.cancel()

    asyncio.run(look())
    assert current.answers.generation == (old if has_earlier else new)
    assert current.answers.recommend(request), "stored lists have checksums of their own"
    if not has_earlier:
        for name in ("RecordListens", "GetStatus"):
            with pytest.raises(ArtefactError, match="is damaged"):
                server._working(name)(current.answers, b"")
    current.answers.close()


# ---- a DuckDB file that others write to --------------------------------------------------------------------------


def test_a_held_or_changed_duckdb_file_is_named_and_done_without(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    import duckdb

    file = store.current() / TABLES
    with closing(Recommender.open(store.folder)) as recommender:
        expected = recommender.recommend("u3", 10).tracks
    with duckdb.connect(file) as client:
        client.execute("SELECT 1")
        with pytest.raises(ChangedError, match="is held by a client"):
            query(file, "SELECT 1")
        with caplog.at_level(logging.WARNING), closing(Recommender.open(store.folder)) as recommender:
            assert recommender.recommend("u3", 10).tracks == expected
            assert recommender.track("t1")["track_id"] == "t1"
        assert "is held by a client that opened it to write" in caplog.text
        assert [run(*c, "--store", store.folder).status for c in (["recommend", "u3"], ["status"])] == [0, 0]
        open_answers(store.folder).close()
        client.execute("UPDATE tracks SET title = 'x'; CREATE TABLE more AS SELECT range AS n FROM range(100000)")
    caplog.clear()
    for backend in ("duckdb", "lmdb"):
        with closing(open_store(store.folder, backend)) as recommender:
            assert recommender.recommend("u3", 10).tracks == expected
    assert caplog.text.count("was changed since it was published") == 2
    with pytest.raises(ChangedError):
        open_store(store.folder, strict=True)
