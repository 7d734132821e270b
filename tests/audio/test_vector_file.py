from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.audio import vector_file
from recsys.audio.cache import CachedSound
from recsys.audio.decoding.decode import DECODER, AudioProblem
from recsys.audio.vector_file import SCHEMA, StoredSound, read_vectors, write_vectors
from recsys.catalogue.problems import Problems
from recsys.errors import DataError

MODEL, OTHER = "1f" * 16, "2e" * 16
TOLD = (AudioProblem("truncated-audio", "60 s are declared"),)


def stored(n: int, model: str = MODEL, **changes: object) -> StoredSound:
    vector = np.random.default_rng(n).normal(size=5).astype(np.float32)
    sound = CachedSound(vector / np.linalg.norm(vector), 1.5 + n, "mp3", TOLD if n % 2 else (), 1 + n % DECODER)
    about = {"network": "musicnn, as published", "track_id": f"t{n}", "path": f"/music/{n}.mp3"} | changes
    return StoredSound(model, f"{n:032x}", sound, **about)


def read(file: Path) -> tuple[list[StoredSound], list[tuple[object, ...]]]:
    problems = Problems()
    found = [row for block in read_vectors(file, problems) for row in block]
    return found, problems.frame().select("kind", "row", "value", "reason").rows()


def as_written(row: StoredSound) -> tuple[object, ...]:
    sound = row.sound
    facts = (sound.duration_s, sound.format, sound.problems, sound.decoder, sound.vector.dtype)
    return row.model, row.content_hash, row.network, row.track_id, row.path, *facts, *sound.vector.tolist()


def test_what_is_written_is_read_over_several_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_file, "_ROWS", 3)
    rows = [stored(n, OTHER if n == 4 else MODEL) for n in range(8)] + [stored(8, network=None, track_id=None)]
    assert write_vectors(tmp_path / "v.parquet", iter(rows)) == 9
    assert pl.read_parquet_schema(tmp_path / "v.parquet") == dict(SCHEMA)
    found, told = read(tmp_path / "v.parquet")
    assert [as_written(row) for row in found] == [as_written(row) for row in rows]
    assert told == []


def test_only_what_names_a_vector_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "v.parquet"
    write_vectors(file, [stored(1)])
    frame = pl.read_parquet(file).select("content_hash", "model", pl.col("vector").cast(pl.List(pl.Float64)))
    frame.write_parquet(file)
    (found,), told = read(file)
    assert (found.sound.duration_s, found.sound.format, found.sound.problems, found.sound.decoder) == (0.0, "", (), 1)
    np.testing.assert_array_equal(found.sound.vector, stored(1).sound.vector)
    assert told == []


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("content_hash", "../etc", "content_hash is '../etc', expected 32 hexadecimal digits"),
        ("content_hash", "AB" * 16, "expected 32 hexadecimal digits"),
        ("model", None, "model is None"),
        ("vector", None, "there is no vector"),
        ("vector", [], "there is no vector"),
        ("vector", [1.0, None], "a number of it is missing"),
        ("vector", [1.0, 0.0, 0.0, 0.0, 0.0], "the checksum is another one"),
        ("duration_s", float("nan"), "duration_s is nan"),
        ("duration_s", -1.0, "duration_s is -1"),
        ("decoder", DECODER + 1, "a newer version of recsys"),
        ("model", OTHER, "the checksum is another one"),
    ],
)
def test_a_damaged_row_is_told_and_the_others_are_used(column: str, value: object, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "v.parquet"
    write_vectors(file, [stored(n) for n in range(3)])
    frame = pl.read_parquet(file)
    values = [value if n == 1 else one for n, one in enumerate(frame[column].to_list())]
    frame.with_columns(pl.Series(column, values, SCHEMA[column])).write_parquet(file)
    found, ((kind, row, told, said),) = read(file)
    assert [one.track_id for one in found] == ["t0", "t2"]
    assert (kind, row) == ("bad-vector", 2)
    assert told == (value if column == "content_hash" else f"{1:032x}")
    assert reason in said


@pytest.mark.parametrize("vector", [[3.0, 4.0], [0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_without_a_checksum_a_vector_is_of_unit_length_or_not_used(vector: list[float], tmp_path: Path) -> None:
    rows = {"content_hash": ["ab" * 16, "cd" * 16], "model": [MODEL] * 2, "vector": [vector, [0.6, -0.8]]}
    pl.DataFrame(rows, schema_overrides={"vector": pl.List(pl.Float32)}).write_parquet(tmp_path / "v.parquet")
    found, ((_, row, _, said),) = read(tmp_path / "v.parquet")
    assert [one.content_hash for one in found] == ["cd" * 16]
    assert (row, "expected 1" in said) == (1, True)


def test_a_block_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_file, "_ROWS", 2)
    file = tmp_path / "v.parquet"
    write_vectors(file, [stored(n) for n in range(6)])
    data = file.read_bytes()
    start = data.index(b"\x28\xb5\x2f\xfd", len(data) // 3)  # a page of a later row group, compressed by zstd
    file.write_bytes(data[:start] + b"\xff" * 20 + data[start + 20 :])
    found, told = read(file)
    ((kind, row, _, reason),) = told
    assert (kind, row in (3, 5)) == ("bad-vector", True)
    assert [row.track_id for row in found] == [f"t{n}" for n in range(6) if n + 1 not in (row, row + 1)]
    assert reason.startswith(f"rows up to {row + 1} cannot be read")


def test_a_file_that_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "gone.parquet")
    (tmp_path / "song.parquet").write_bytes(b"RIFF" * 10)
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read(tmp_path / "song.parquet")
    pl.DataFrame({"content_hash": ["ab" * 16], "vector": [[1.0]]}).write_parquet(tmp_path / "v.parquet")
    with pytest.raises(DataError, match="has no column model"):
        read(tmp_path / "v.parquet")
    pl.DataFrame({"content_hash": ["ab"], "model": ["x"], "vector": ["0.6,0.8"]}).write_parquet(tmp_path / "v.parquet")
    found, told = read(tmp_path / "v.parquet")
    assert (found, len(told)) == ([], 1)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        write_vectors(tmp_path / "gone" / "v.parquet", [stored(1)])
