import mmap
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.catalogue import ids as ids_module
from recsys.catalogue.ids import IdMap
from recsys.errors import ArtefactError, DataError, NotFoundError

ANY_IDS = st.lists(st.text(max_size=8), unique=True, max_size=30)


@given(ANY_IDS, st.lists(st.text(max_size=8), max_size=5))
def test_any_ids_there_and_back(ids: list[str], others: list[str]) -> None:
    id_map = IdMap.of(ids)
    assert len(id_map) == len(ids)
    assert id_map.all() == ids
    assert [id_map.id(row) for row in range(len(ids))] == ids
    assert id_map.rows(ids[::-1]).tolist() == list(range(len(ids)))[::-1]
    assert id_map.find(others).tolist() == [ids.index(text) if text in ids else -1 for text in others]
    assert id_map.ids(id_map.rows(ids[1:])) == ids[1:]


@settings(max_examples=40)
@given(ANY_IDS)
def test_saved_and_loaded_is_the_same(ids: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        IdMap.of(ids, what="track").save(Path(folder), "tracks")
        loaded = IdMap.load(Path(folder), "tracks")
        assert loaded.all() == ids
        assert loaded.what == "track"
        assert loaded.rows(ids).tolist() == list(range(len(ids)))
        with pytest.raises(NotFoundError, match="no track"):
            loaded.row("".join(ids) + "x")


@given(ANY_IDS)
def test_collisions_cost_time_and_nothing_else(ids: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids_module, "_hash", lambda text: sum(text) % 3)
        id_map = IdMap.of(ids)
        assert id_map.rows(ids).tolist() == list(range(len(ids)))
        assert id_map.find(["no such id of eight"]).tolist() == [-1]
        if ids:
            with pytest.raises(DataError, match="twice"):
                IdMap.of([*ids, ids[0]])


def test_the_first_unknown_id_is_named() -> None:
    id_map = IdMap.of(["a", "bé", "007"], what="user")
    assert id_map.row("007") == 2
    assert id_map.rows([]).dtype == id_map.find([]).dtype == np.int32
    with pytest.raises(NotFoundError, match="no user '7' among the 3 known"):
        id_map.rows(["a", "7", "8"])
    with pytest.raises(NotFoundError, match="no user 'A'"):
        id_map.row("A")
    with pytest.raises(NotFoundError, match=r"no user '\\udcff'"):
        id_map.row("\udcff")
    for row in (-1, 3):
        with pytest.raises(IndexError, match="3 rows"):
            id_map.id(row)


def test_repeated_ids_are_refused() -> None:
    with pytest.raises(DataError, match="track id 'b' is there twice"):
        IdMap.of(["a", "b", "c", "b"], what="track")


def test_the_hash_is_the_same_in_every_process() -> None:
    # printf 007 | b2sum -l 64
    assert ids_module._hash(b"007").to_bytes(8, "little").hex() == "492a8021fcec81bd"


def test_arrays_are_mapped_and_narrow(tmp_path: Path) -> None:
    IdMap.of(["x", "yy", ""]).save(tmp_path, "m")
    loaded = IdMap.load(tmp_path, "m")
    assert isinstance(loaded.text.base, mmap.mmap)
    assert [loaded.text.dtype, loaded.offsets.dtype, loaded.hashes.dtype, loaded.order.dtype] == [
        np.uint8, np.int64, np.uint64, np.int32
    ]  # fmt: skip
    assert loaded.offsets.tolist() == [0, 1, 3, 3]


@pytest.mark.parametrize("part", ["text", "offsets", "hashes", "order", "what"])
def test_damaged_files_are_errors(tmp_path: Path, part: str) -> None:
    file = tmp_path / f"m.{part}.npy"
    IdMap.of(["x", "yy", "zzz"]).save(tmp_path, "m")
    whole = file.read_bytes()
    for damage in (whole[:-1], b"", b"nonsense", None):
        if damage is None:
            file.unlink()
        else:
            file.write_bytes(damage)
        with pytest.raises(ArtefactError, match="id map 'm'"):
            IdMap.load(tmp_path, "m")
    if part != "what":
        for other in (np.zeros(1, np.float32), np.zeros((2, 3), whole and ids_module._PARTS[part])):
            np.save(file, other)
            with pytest.raises(ArtefactError, match="expected 1-d"):
                IdMap.load(tmp_path, "m")
        np.save(file, np.zeros(9, ids_module._PARTS[part]))
        with pytest.raises(ArtefactError, match="disagree"):
            IdMap.load(tmp_path, "m")
