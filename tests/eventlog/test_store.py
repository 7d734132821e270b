from pathlib import Path

import numpy as np
import pytest

from recsys.errors import ArtefactError
from recsys.eventlog.store import Upload, open_live


def upload(track_id: str, code: str = "aa") -> Upload:
    return Upload(
        track_id, code, f"{code}.mp3", "Tîtle", None, None, ["x", "y"], 1999, None, 2.5, "2026-01-02T03:04:05"
    )


def vector(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=np.float32)


def test_what_was_appended_is_there_after_reopening(tmp_path: Path) -> None:
    file = tmp_path / "live.lmdb"
    with open_live(file, write=True) as live:
        assert (live.last_seq(), list(live.uploads())) == (0, [])
        assert live.append(upload("a", "11"), "g1", {"sound": vector(1, 2), "hybrid": vector(3)}) == 1
        assert live.append(upload("b", "22"), "g1", {}) == 2
    with open_live(file) as live:
        assert list(live.uploads()) == [(1, upload("a", "11")), (2, upload("b", "22"))]
        assert list(live.uploads(after=1)) == [(2, upload("b", "22"))]
        assert list(live.uploads(after=2)) == []
        assert live.last_seq() == 2
        assert (live.track_of_audio("22"), live.track_of_audio("33")) == ("b", None)
        found = live.vectors("g1", 1)
        assert list(found) == ["hybrid", "sound"]
        np.testing.assert_array_equal(found["sound"], vector(1, 2))
        assert live.vectors("g1", 2) == {}


def test_vectors_belong_to_one_generation_and_number(tmp_path: Path) -> None:
    with open_live(tmp_path / "live.lmdb", write=True) as live:
        for n in range(12):
            live.append(upload(f"t{n}", str(n)), "g1", {"sound": vector(n)})
        live.set_vectors("g12", 1, {"sound": vector(100)})
        live.set_vectors("g1", 2, {"content": vector(200)})
        assert [float(live.vectors("g1", n)["sound"][0]) for n in (1, 11, 12)] == [0, 10, 11]
        assert sorted(live.vectors("g1", 2)) == ["content", "sound"]
        assert list(live.vectors("g12", 1)) == ["sound"]
        assert (live.vectors("g", 1), live.vectors("g12", 11)) == ({}, {})


def test_reading_where_nothing_was_ever_uploaded_makes_nothing(tmp_path: Path) -> None:
    with open_live(tmp_path / "live.lmdb") as live:
        assert live is None
    assert list(tmp_path.iterdir()) == []


def test_a_failed_append_leaves_nothing(tmp_path: Path) -> None:
    with open_live(tmp_path / "live.lmdb", write=True) as live:
        live.append(upload("a"), "g1", {})
        with pytest.raises(ValueError, match="could not convert"):
            live.append(upload("b", "22"), "g1", {"sound": np.array(["x"])})
        assert [number for number, _ in live.uploads()] == [1]
        assert live.track_of_audio("22") is None


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "live.lmdb").write_bytes(b"this is no LMDB file" * 1000)
    for write in (False, True):
        with pytest.raises(ArtefactError, match="cannot open the live store"), open_live(tmp_path / "live.lmdb", write):
            pass
