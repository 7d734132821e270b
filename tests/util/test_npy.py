"""Arrays on disk: mapped as they were saved, damage told of, and others let go first where that is asked for."""

import time
from pathlib import Path

import numpy as np
import pytest

from recsys.util.npy import giving_way, mapped, read

KINDS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.asfortranarray(np.arange(12, dtype=np.int64).reshape(3, 4)),
    np.array([True, False]),
    np.array(7.5),
    np.zeros((0, 5), dtype=np.int16),
]


@pytest.mark.parametrize("array", KINDS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_what_is_saved_is_mapped_and_read(array: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    np.save(file, array)
    for found in (mapped(file), read(file)):
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)
    if array.size:
        assert not mapped(file).flags.writeable


def test_what_is_mapped_is_what_lies_on_disk(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    np.save(file, np.zeros(4, dtype=np.float32))
    found = mapped(file)
    np.load(file, mmap_mode="r+")[2] = 5.0
    assert found.tolist() == [0, 0, 5, 0]


def test_damage_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    with pytest.raises(FileNotFoundError):
        mapped(file)
    np.save(file, np.zeros(100, dtype=np.float32))
    whole = file.read_bytes()
    for damaged, told in [
        (whole[:-1], "has 527 bytes, expected 528"),
        (whole[:50], "array header"),
        (b"", "magic string"),
        (b"x" * 600, "magic string"),
        (whole.replace(b"NUMPY\x01", b"NUMPY\x02"), "another version"),
    ]:
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=told):
            mapped(file)
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for open_ in (mapped, read):
        with pytest.raises(ValueError, match=r"objects|Object"):
            open_(file)


def test_others_go_first_before_each_file_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, waits = tmp_path / "a.npy", list[float]()
    np.save(file, np.zeros(1))
    monkeypatch.setattr(time, "sleep", waits.append)
    with giving_way(0.25):
        mapped(file)
        read(file)
    mapped(file)
    assert waits == [0.25, 0.25]
    with pytest.raises(KeyError), giving_way(0.5):
        raise KeyError
    read(file)
    assert waits == [0.25, 0.25]
