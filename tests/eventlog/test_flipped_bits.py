"""A flipped bit in any database of live.lmdb: no answer is wrong, nothing is held up for ever, others are served on."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.flipping import flipped
from helpers.live_store import heard, new_track
from helpers.neighbours import stored_answer, whole_pass
from helpers.stores import copied
from recsys.errors import ArtefactError, DamagedError, NewerError
from recsys.eventlog.events import FORMAT, KINDS, Listened, Upload, decoded, encoded
from recsys.eventlog.lmdb_env import DATABASES
from recsys.eventlog.replay import happened_since, read_live
from recsys.eventlog.store import open_live
from recsys.eventlog.transactions import USER, seq_key, user_key
from recsys.live.catchup import catch_up
from recsys.live.neighbour_insert import near_key
from recsys.serving import server
from recsys.serving.fast_path import FastPath
from recsys.serving.reload import open_answers
from recsys.store.generation import Store
from recsys.store.record import Record, is_whole
from recsys.store.sealed import sealed
from recsys.types import ANONYMOUS_ID, VECTOR_SPACES
from recsys.v1 import recommender_pb2 as pb

USERS = (*(f"u{n}" for n in range(30)), "fresh", "nobody")
PLACES = (0.01, 0.35, 0.97)  # of a value, where a bit is flipped
EMPTY = ("uploads", "of_user")  # databases whose keys are all that they say


def made(store: Path, track_id: str, genre: str, code: str) -> tuple[Upload, dict[str, np.ndarray]]:
    upload, vectors = new_track(store, track_id, genre, code)
    return replace(upload, genres=[genre]), vectors


@pytest.fixture(scope="module")
def written(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, tuple]]:
    """A store in which everything has happened once, and uploads that may come; not to be written to."""
    store = Store(copied(tiny_store, tmp_path_factory.mktemp("written")))
    store.uploads.mkdir(exist_ok=True)
    coming = {name: made(store.folder, name, "jazz", name) for name in ("a", "b", "c", "d")}
    with closing(open_answers(store.folder)) as answers:
        live = answers.live
        assert live is not None
        live.record([*heard("u0", "t2", "t5"), *heard("fresh", "t1"), Listened("u3", "t4", event_id="e 1")])
        for name in ("a", "b"):
            assert live.add(*coming[name]) > 0
        live.record(heard("u5", "t7", "a"))
        live.delete_track("t8")
        live.delete_user("u4")
        live.settle()
    return store, coming


@pytest.fixture
def store(written: tuple[Store, dict[str, tuple]], tmp_path: Path) -> Store:
    return Store(Path(shutil.copytree(written[0].folder, tmp_path / "store", copy_function=shutil.copy)))


def answered(answers: FastPath, name: str, request: bytes) -> bytes:
    """Answer as a worker does: at once, or on a thread."""
    quick = server._at_once(SimpleCurrent(answers), name)(request)
    return server._working(name)(answers, request) if quick is None else quick[0]


class SimpleCurrent:
    def __init__(self, answers: FastPath) -> None:
        self.answers = answers


def asked(answers: FastPath, user: str) -> list[str] | None:
    """A user's list; None where it is UNAVAILABLE. Whatever else is raised fails the test."""
    try:
        found = answered(answers, "Recommend", pb.RecommendRequest(user_id=user, k=20).SerializeToString())
    except ArtefactError as error:
        return None if server._refusal(error, "Recommend")[0].name == "UNAVAILABLE" else ["refused otherwise"]
    return [track.track_id for track in pb.RecommendResponse.FromString(found).tracks]


def near(answers: FastPath, track: str) -> list[str]:
    request = pb.SimilarTracksRequest(track_id=track, k=10).SerializeToString()
    return [t.track_id for t in pb.SimilarTracksResponse.FromString(answered(answers, "SimilarTracks", request)).tracks]


def everything(answers: FastPath) -> dict[str, list[str] | None]:
    found = {user: asked(answers, user) for user in USERS}
    return found | {f"near {track}": near(answers, track) for track in ("t1", "t2", "t30")}


def values(store: Store, database: str) -> list[tuple[bytes, bytes]]:
    with open_live(store.live) as live, live.reading() as reading:
        return list(reading.pairs(database))


def put(store: Store, database: str, key: bytes, value: bytes) -> None:
    with open_live(store.live, write=True) as live, live.writing() as writing:
        writing.put(database, key, value)


def damages(store: Store, database: str, most: int) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Some values of a database: key, value and the value with a flipped bit."""
    found = values(store, database)
    few = [found[int(at)] for at in np.unique(np.linspace(0, len(found) - 1, most).astype(int))]
    if database == "log":
        few = found
    for place, (key, value) in enumerate(few):
        if not (database == "state" and key == b"format"):
            share = PLACES[place % len(PLACES)]
            yield key, value, flipped(value, int(share * 8 * len(value)))


def allowed(database: str, key: bytes, name: str, right: list[str], got: list[str] | None) -> bool:
    """Whether an answer is as it must be, though one value is damaged."""
    if got is None:  # of one user alone
        return database in ("heard", "tastes") and key.endswith(b"/" + name.encode())
    if database in ("log", "vectors"):  # the upload of a damaged entry is not shown
        return [t for t in got if t in right][:10] == [t for t in right if t in got][:10] and set(right) - set(got) <= {
            "a",
            "b",
        }
    return got == right or (database == "gone" and key == USER + name.encode())


@pytest.mark.parametrize("most", [1, pytest.param(12, marks=pytest.mark.slow)])
@pytest.mark.parametrize("database", [name for name in DATABASES if name not in EMPTY])
def test_one_bit_anywhere(written: tuple[Store, dict[str, tuple]], store: Store, database: str, most: int) -> None:
    coming = written[1]
    with closing(open_answers(store.folder)) as answers:
        right = everything(answers)
    assert all(right.values())
    whole = store.live.read_bytes()
    n_tried = 0
    for key, _, other in damages(store, database, most):
        store.live.write_bytes(whole)
        put(store, database, key, other)
        told = f"{database} {key!r}"
        happened_since(store, 0)
        with closing(open_answers(store.folder)) as answers:
            live = answers.live
            assert live is not None
            live.settle()
            for name, got in everything(answers).items():
                assert allowed(database, key, name, right[name], got), f"{told}: {name} {got}, not {right[name]}"
            if database not in ("gone", "of_track"):
                assert set(live.gone_rows()) >= {int(answers._recommender.model.items.find(["t8"])[0])}, told
            assert live.record(heard("u7", "t9", "t12")).recorded == 2
            assert live.record(heard("new", "t3")).recorded == 1
            assert live.record([Listened("u3", "t4", event_id="e 1")]).repeated == 1, told
            upload, vectors = coming["c"]
            live.add(upload, vectors)
            assert live.track_of_audio("c") == "c", told
            assert near(answers, "c") == [t for t, _ in whole_pass(answers.recommender, "c", "hybrid", 10) or []], told
            live.delete_track("c")
            live.delete_track("t30")
            live.delete_user("u9")
            live.settle()
        catch_up(store, store.current())
        with closing(open_answers(store.folder)) as answers:
            live = answers.live
            assert live is not None
            live.settle()
            assert live.behind() == 0, told
            found = {user: asked(answers, user) for user in USERS}
            assert all(found[user] for user in USERS if user.encode() not in key), told
            assert not {"c", "t30"} & {track for got in found.values() for track in got or ()}, told
            assert not {"t9", "t12"} & set(found["u7"] or ()), told
            live.add(*coming["d"])
            assert near(answers, "d")
            live.record(heard("u0", "t11"))
            assert "t11" not in (asked(answers, "u0") or ()), told
        n_tried += 1
    assert n_tried >= 1


# ---- values ------------------------------------------------------------------------------------------------------


def test_entries_of_the_log_are_sealed_and_those_of_before_are_read() -> None:
    event = Listened("anna", "t1", "2026-01-01", 2.0, event_id="e")
    line = encoded(event)
    old = json.dumps({"kind": "listen", "user_id": "anna", "track_id": "t1", "at": "2026-01-01", "plays": 2.0}).encode()
    assert decoded(line) == event
    assert decoded(old) == replace(event, event_id="")
    assert list(KINDS) == ["upload", "listen", "delete_track", "delete_user", "removed"]
    for bit in range(8 * len(line)):
        with pytest.raises(DamagedError):
            decoded(flipped(line, bit))
    with pytest.raises(NewerError):
        decoded(sealed(FORMAT + 1, old))


def test_a_build_takes_no_damaged_log_in(store: Store) -> None:
    key, line = values(store, "log")[0]
    put(store, "log", key, flipped(line, 300))
    with pytest.raises(DamagedError, match="an entry of the live log does not match its checksum"):
        read_live(store)


def test_vectors_of_uploads_are_sealed_and_those_of_before_are_read(store: Store) -> None:
    found = values(store, "vectors")
    number = int(found[0][0].split(b"/")[1])
    generation = store.current().name
    with open_live(store.live) as live, live.reading() as reading:
        right = reading.vectors(generation, number)
    for key, value in found:
        put(store, "vectors", key, value[5:])
    with open_live(store.live) as live, live.reading() as reading:
        old = reading.vectors(generation, number)
    assert {name: vector.tolist() for name, vector in old.items()} == {n: v.tolist() for n, v in right.items()}
    key, value = found[0]
    for bit in range(0, 8 * len(value), 11):
        put(store, "vectors", key, flipped(value, bit))
        with open_live(store.live) as live, live.reading() as reading:
            assert reading.vectors(generation, number) == {}
    put(store, "vectors", found[-1][0], value)  # under another key
    with open_live(store.live) as live, live.reading() as reading:
        assert reading.vectors(generation, int(found[-1][0].split(b"/")[1])) == {}


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
@pytest.mark.parametrize("is_whole_elsewhere", [True, False])
def test_damaged_lists_of_neighbours_are_made_anew(
    written: tuple[Store, dict[str, tuple]], store: Store, share: float, is_whole_elsewhere: bool
) -> None:
    coming = written[1]
    for key, value in values(store, "near"):
        put(store, "near", key, flipped(value, int(share * 8 * len(value))))
    with closing(open_answers(store.folder)) as answers:
        live = answers.live
        assert live is not None
        if not is_whole_elsewhere:
            live._stored._tables = Unreadable(live._stored._tables)
        live.add(*coming["c"])
        recommender = answers.recommender
        tracks = [*recommender.model.items.all(), "a", "b", "c"]
        n_whole = 0
        with live._live.reading() as reading:
            for space in VECTOR_SPACES:
                for track in set(tracks) - {"t8"}:
                    record = reading.get("near", near_key(live.generation, space, track))
                    if record is None or not is_whole(record):
                        continue
                    found = [other for other, _, _ in Record(record).found() if other != "t8"]
                    right = whole_pass(recommender, track, space, len(found)) or []
                    assert found == [other for other, _ in right], (space, track)
                    n_whole += 1
        assert n_whole > 20
        right = whole_pass(recommender, "a", "hybrid", 10)
        assert stored_answer(answers, "a", "hybrid", 10) == right


@pytest.mark.parametrize(("database", "bit"), [("lists", 2000), ("tastes", 0), ("tastes", 1), ("tastes", 300)])
def test_an_upload_passes_damaged_lists_and_tastes_by(
    written: tuple[Store, dict[str, tuple]], store: Store, database: str, bit: int
) -> None:
    for key, value in values(store, database):
        if not key.endswith(ANONYMOUS_ID.encode()):
            put(store, database, key, flipped(value, bit))
    with closing(open_answers(store.folder)) as answers:
        assert answers.live is not None
        assert answers.live.add(*written[1]["c"]) > 0, "others are reached"
        assert answers.live.behind() == 0


class Unreadable:
    """Tables of which no list of neighbours can be read."""

    def __init__(self, tables: object) -> None:
        self._tables = tables

    def __getattr__(self, name: str) -> object:
        return getattr(self._tables, name)

    def neighbours_of(self, *_: object) -> bytes:
        return b"damaged"

    def neighbours(self, *_: object) -> list[tuple[str, float]]:
        raise DamagedError("as is this")


def test_no_track_of_another_is_deleted_with_a_damaged_number(store: Store) -> None:
    found = dict(values(store, "of_track"))
    (store.uploads / "a.mp3").write_bytes(b"a")
    (store.uploads / "b.mp3").write_bytes(b"b")
    put(store, "of_track", b"a", found[b"b"])
    with closing(open_answers(store.folder)) as answers:
        assert answers.live is not None
        answers.live.delete_track("a")
        assert "a" not in (asked(answers, "u5") or ())
        assert answers.live.track_of_audio("b") == "b"
    assert (store.uploads / "b.mp3").exists()


def test_a_damaged_popular_list_is_made_anew(store: Store) -> None:
    key = user_key(store.current().name, ANONYMOUS_ID)
    with closing(open_answers(store.folder)) as answers:
        right = asked(answers, "nobody")
        assert answers.live is not None
        for share in PLACES:
            value = dict(values(store, "lists")).get(key)
            assert value is not None, "the uploads are in it"
            put(store, "lists", key, flipped(value, int(share * 8 * len(value))))
            assert asked(answers, "nobody") == right
            assert answers.live.record([Listened(f"grudge {share}", "t3", disliked=True)]).recorded == 1
            assert asked(answers, f"grudge {share}"), "which begins with the popular list"
            put(store, "lists", key, value)


def test_numbers_beyond_the_end_of_the_log_are_not_believed(store: Store) -> None:
    generation = store.current().name
    for key in (f"applied/{generation}".encode(), f"near/{generation}".encode(), b"deleted"):
        put(store, "state", key, seq_key(1 << 40))
    with closing(open_answers(store.folder)) as answers:
        assert answers.live is not None
        answers.live.record(heard("u7", "t9"))
        answers.live.delete_track("t12")
        assert "t9" not in (asked(answers, "u7") or ())
        assert not any("t12" in (asked(answers, user) or ()) for user in USERS)
        answers.live.settle()
        assert answers.live.behind() == 0
