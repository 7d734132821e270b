"""What one transaction finds and writes, in a file of its own: pieces, older files, and values that are damaged."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from recsys.eventlog.events import Event, Listened, Removed, TrackDeleted, Upload, UserDeleted, encoded
from recsys.eventlog.store import LiveStore, open_live
from recsys.eventlog.transactions import TRACK, USER, WriteTxn, near_mark, seq_key, user_key
from recsys.store.keys import key_of

AT = "2026-01-02T03:04:05"


def upload(track_id: str, code: str) -> Upload:
    return Upload(track_id, code, f"{code}.mp3", None, None, None, [], None, None, 2.5, AT)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveStore]:
    with open_live(tmp_path / "live.lmdb", write=True) as live:
        yield live


def write(live: LiveStore, *events: Event) -> None:
    with live.writing() as writing:
        for event in events:
            writing.append(event)


def removed(writing: WriteTxn, *seqs: int) -> None:
    """Damage entries as far as a reader can tell: what they said is no more."""
    for seq in seqs:
        writing.put("log", seq_key(seq), encoded(Removed()))


# ---- the log -------------------------------------------------------------------------------------------------------


def test_listens_leave_the_log_in_pieces_and_everything_else_stays(live: LiveStore) -> None:
    write(live, Listened("u", "a"), upload("n", "11"), Listened("v", "b"), UserDeleted("w", AT), Listened("u", "c"))
    done = list[int]()
    for _ in range(3):
        with live.writing() as writing:
            done.append(writing.let_go(4, 2))
            assert writing.moved_up_to() == done[-1]
    assert done == [2, 4, 4]
    with live.reading() as reading:
        assert [seq for seq, _ in reading.events()] == [2, 4, 5]
        assert (reading.numbers_of_user("u"), reading.numbers_of_user("v")) == ([5], [])
        assert reading.entry(1) == Removed()
        assert reading.last_seq() == 5


def test_a_piece_that_reaches_the_end_of_the_log_is_done(live: LiveStore) -> None:
    write(live, Listened("u", "a"), Listened("u", "b"), Listened("u", "c"))
    with live.writing() as writing:
        removed(writing, 2)  # of a user who was deleted
        assert writing.let_go(3, 100) == 3
        assert list(writing.events()) == []
        assert writing.let_go(9, 100) == 9, "there is nothing more"


def test_a_log_that_is_begun_anew_goes_on_from_its_base(live: LiveStore) -> None:
    with live.writing() as writing:
        version = writing.version()
        writing.begin_above(7)
        assert (writing.last_seq(), writing.version()) == (7, version + 1)
        assert writing.append(Listened("u", "a")) == 8
        assert writing.last_seq() == 8


def test_a_store_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    with LiveStore.absent(tmp_path / "live.lmdb").reading() as reading:
        assert (reading.last_seq(), reading.last_upload(), reading.last_deletion(), reading.version()) == (0, 0, 0, 0)
        assert (reading.upload("a"), reading.upload_seq("a"), reading.track_of_audio("11")) == (None, 0, None)
        assert list(reading.pairs("log")) == reading.deleted_tracks() == reading.gone(USER) == []
        assert reading.has_all_neighbours("g1", 0)


# ---- audio and uploads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [b"b", b"nothing", b"\xff\xfe"])
def test_audio_whose_track_is_damaged_is_found_in_the_log(live: LiveStore, wrong: bytes) -> None:
    write(live, upload("a", "11"), upload("b", "22"), upload("again", "11"))
    with live.writing() as writing:
        writing.put("hashes", b"11", wrong)
        assert writing.track_of_audio("11") == "again", "the last one"
        removed(writing, 1, 3)
        assert writing.track_of_audio("11") is None
        assert [one.is_lost for _, one in writing.uploads()] == [True, False, True]
        assert writing.upload("a") is None


def test_a_file_without_uploads_in_it_has_its_newest_in_the_log(live: LiveStore) -> None:
    write(live, upload("a", "11"), Listened("u", "a"), upload("b", "22"), Listened("u", "b"))
    with live.reading() as reading:
        assert reading.last_upload() == 3
        reading.databases = {**reading.databases, "uploads": None, "of_track": None}  # as an older version left it
        assert (reading.last_upload(), reading.upload_seq("b"), reading.upload_seq("c")) == (3, 3, 0)
        assert [reading.has_all_neighbours("g1", seq) for seq in (2, 3)] == [False, True]


def test_neighbours_are_whole_where_they_were_begun(live: LiveStore) -> None:
    write(live, upload("a", "11"))
    with live.writing() as writing:
        assert not writing.has_all_neighbours("g1", 0)
        writing.put("state", near_mark("g1"), seq_key(1))
        assert writing.has_all_neighbours("g1", 0)
        assert not writing.has_all_neighbours("g2", 0)


def test_a_vector_of_before_whose_length_cannot_be_is_left_out(live: LiveStore) -> None:
    with live.writing() as writing:
        writing.set_vectors("g1", 1, {"sound": np.array([1.0, 2.0], dtype=np.float32)})
        writing.put("vectors", b"g1/1/taste", np.array([3.0], dtype="<f4").tobytes())  # a format that has no seal
        assert {name: vector.tolist() for name, vector in writing.vectors("g1", 1).items()} == {
            "sound": [1, 2],
            "taste": [3],
        }
        for length in (5, 6, 7):  # five, as four and the seal, has a checksum that is wrong
            writing.put("vectors", b"g1/1/taste", bytes(length))
            assert writing.vectors("g1", 1) == {}


# ---- deletions -----------------------------------------------------------------------------------------------------


def test_the_id_of_a_deleted_track_that_is_damaged_is_read_in_the_log(live: LiveStore) -> None:
    write(live, TrackDeleted("a", AT), TrackDeleted("b", AT), TrackDeleted("c", AT))
    with live.writing() as writing:
        writing.put("deletions", seq_key(1), b"x")
        writing.put("deletions", seq_key(2), b"c")  # of another one
        assert writing.deleted_tracks() == [(1, "a"), (2, "b"), (3, "c")]
        removed(writing, 2, 3)
        assert writing.deleted_tracks() == [(1, "a"), (3, "c")], "one of the two is enough"


def test_deletions_of_an_older_program_are_completed_by_the_next_write(live: LiveStore) -> None:
    write(live, TrackDeleted("a", AT), TrackDeleted("b", AT))
    with live.writing() as writing:
        seq = writing.append(Listened("u", "a"))
        removed(writing, seq)
        writing.put("log", seq_key(seq), encoded(TrackDeleted("c", AT)))  # without its line among the deletions
        writing.put("gone", TRACK + key_of("c"), seq_key(seq))
        writing.put("state", b"deleted", seq_key(seq))
        assert writing.deleted_tracks(1) == [(2, "b"), (3, "c")]
        assert writing.get("deletions", seq_key(seq)) is None
    with live.writing() as writing:
        assert writing.get("deletions", seq_key(seq)) == b"c"
        assert writing.last_deletion() == seq


def test_who_is_gone_is_told_by_what_the_log_still_says(live: LiveStore) -> None:
    write(live, UserDeleted("u", AT), TrackDeleted("a", AT), UserDeleted("v", AT), UserDeleted("w", AT))
    with live.writing() as writing:
        assert (sorted(writing.gone(USER)), writing.gone(USER, 3), writing.gone(TRACK)) == (
            ["u", "v", "w"],
            ["w"],
            ["a"],
        )
        removed(writing, 3)
        assert sorted(writing.gone(USER)) == ["u", "w"]
        assert writing.last_user_gone() == 4
        writing.delete("state", b"forgotten")  # an older version kept no such number
        assert writing.last_user_gone() == 4
        assert (writing.user_gone("v"), writing.user_gone("x")) == (3, 0)


def test_a_generation_is_forgotten_in_pieces_and_no_other_with_it(live: LiveStore) -> None:
    with live.writing() as writing:
        for generation in ("g1", "g12"):
            for user in ("u", "v", "w"):
                writing.put_list(generation, user, b"a record")
            writing.set_vectors(generation, 1, {"sound": np.zeros(2, dtype=np.float32)})
            writing.set_applied(generation, 5)
            writing.put("state", near_mark(generation), seq_key(5))
    pieces = list[bool]()
    while not pieces or not pieces[-1]:
        with live.writing() as writing:
            pieces.append(writing.forget_generation("g1", 2))
            assert pieces[-1] or writing.generations() == ["g1", "g12"], "it is known until all of it is gone"
    assert pieces == [False, True], "four values in pieces of two"
    with live.reading() as reading:
        assert (reading.generations(), reading.applied("g1"), reading.near_up_to("g1")) == (["g12"], None, None)
        assert list(reading.pairs("lists", prefix=user_key("g1", None))) == []
        assert len(list(reading.pairs("lists", prefix=user_key("g12", None)))) == 3
        assert (reading.vectors("g1", 1), list(reading.vectors("g12", 1))) == ({}, ["sound"])
        assert (reading.applied("g12"), reading.near_up_to("g12")) == (None, None), "beyond the end of the log"
