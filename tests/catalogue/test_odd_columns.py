"""Every reader on columns of every type, known ones and unknown ones: a table, or one sentence; never anything else."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.catalogue.listens import ListensSettings, read_listens
from recsys.catalogue.problems import Problems
from recsys.catalogue.tracks import read_tags, read_tracks
from recsys.errors import DataError
from recsys.types import Listens, Tags, Tracks

NOW = datetime(2020, 2, 3, 4, 5, 6, 789)
Read = Callable[[Path, Problems], Tracks | Listens | Tags]
IDS = pl.Series(["a", "b"])
READERS: dict[str, tuple[Read, dict[str, list[str]], tuple[str, ...]]] = {
    "tracks": (
        read_tracks, {"track_id": ["a", "b"]},
        ("track_id", "tracks_id", "path", "file", "title", "artist", "album", "year", "lyrics", "lyrics_path", "genre",
         "genres", "vector"),
    ),
    "listens": (
        lambda path, problems: read_listens(path, IDS, problems, ListensSettings()),
        {"user_id": ["u", "v"], "track_id": ["a", "b"]},
        ("user_id", "track_id", "track_ids", "tracks_id", "plays", "listened_at", "ms_played", "rating", "liked",
         "disliked"),
    ),
    "tags": (
        lambda path, problems: read_tags(path, IDS, problems), {"track_id": ["a", "b"], "tag": ["x", "y"]},
        ("track_id", "tag", "weight"),
    ),
}  # fmt: skip


def types() -> dict[str, pl.Series]:
    """Two values of each type, the second of some null."""
    typed: dict[str, tuple[Any, list[Any]]] = {}
    for kind in (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Int128, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64):
        typed[f"{kind}"] = (kind, [1, None])
    typed["UInt64 large"] = (pl.UInt64, [2**64 - 1, 2**64 - 2])
    typed["Int128 large"] = (pl.Int128, [2**100, -(2**100)])
    for kind in (pl.Float16, pl.Float32, pl.Float64):
        typed[f"{kind}"] = (kind, [1.5, None])
        typed[f"{kind} not finite"] = (kind, [float("nan"), float("inf")])
        typed[f"{kind} large"] = (kind, [6e4, -6e4])
    for precision, scale in ((5, 0), (10, 2), (38, 0), (38, 37)):
        typed[f"Decimal({precision}, {scale})"] = (pl.Decimal(precision, scale), [Decimal(1), None])
    for unit in ("ms", "us", "ns"):
        typed[f"Duration {unit}"] = (pl.Duration(unit), [timedelta(minutes=3, seconds=20), timedelta(-1)])
        typed[f"List of Duration {unit}"] = (pl.List(pl.Duration(unit)), [[timedelta(1)], None])
        typed[f"Datetime {unit}"] = (pl.Datetime(unit), [NOW, None])
        for zone in ("UTC", "Asia/Kathmandu", "America/St_Johns", "Etc/GMT+12", "Europe/London"):
            typed[f"Datetime {unit} {zone}"] = (pl.Datetime(unit, zone), [NOW.replace(tzinfo=UTC), None])
    typed |= {
        "Datetime at its ends": (pl.Datetime("us"), [datetime(1, 1, 1), datetime(9999, 12, 31)]),
        "Date": (pl.Date, [date(2004, 5, 1), None]),
        "Date at its ends": (pl.Date, [date(1, 1, 1), date(9999, 12, 31)]),
        "Time": (pl.Time, [time(1, 2, 3), None]),
        "Boolean": (pl.Boolean, [True, False]),
        "String": (pl.String, ["a", "b"]),
        "String odd": (pl.String, ["\x1b[2J\0", "\u202e\U000e0001"]),
        "String of years": (pl.String, ["٢٠٠٤", "２００４"]),
        "String of lists": (pl.String, ["[[1]]", "[1, 2"]),
        "String empty": (pl.String, ["", " "]),
        "Binary": (pl.Binary, [b"a", b"\xff\xfe"]),
        "Binary large": (pl.Binary, [b"\0" * 9999, None]),
        "Categorical": (pl.Categorical, ["a", "b"]),
        "Enum": (pl.Enum(["a", "b"]), ["a", None]),
        "Null": (pl.Null, [None, None]),
        "List of String": (pl.List(pl.String), [["a"], ["b", None]]),
        "List of Int64": (pl.List(pl.Int64), [[1, 2], []]),
        "List of Float64": (pl.List(pl.Float64), [[1.5, 2.0], [float("nan")]]),
        "List of Float32": (pl.List(pl.Float32), [[1.5, 2.0], [3.0, 4.0]]),
        "List of Boolean": (pl.List(pl.Boolean), [[True], None]),
        "List of Date": (pl.List(pl.Date), [[date(2004, 1, 1)], None]),
        "List of Datetime": (pl.List(pl.Datetime("ns", "UTC")), [[NOW.replace(tzinfo=UTC)], None]),
        "List of Time": (pl.List(pl.Time), [[time(1)], None]),
        "List of Decimal": (pl.List(pl.Decimal(10, 2)), [[Decimal(1)], None]),
        "List of Binary": (pl.List(pl.Binary), [[b"\xff"], [b"a"]]),
        "List of Categorical": (pl.List(pl.Categorical), [["a"], None]),
        "List of Null": (pl.List(pl.Null), [[None], []]),
        "List of List": (pl.List(pl.List(pl.String)), [[["rock", "pop"]], [[], None]]),
        "List of List of List": (pl.List(pl.List(pl.List(pl.Int8))), [[[[1]]], None]),
        "List of Struct": (pl.List(pl.Struct({"name": pl.String})), [[{"name": "a"}], None]),
        "List of Array": (pl.List(pl.Array(pl.Float32, 2)), [[[1.0, 2.0]], None]),
        "Array of Float32": (pl.Array(pl.Float32, 2), [[1.0, 2.0], None]),
        "Array of String": (pl.Array(pl.String, 2), [["a", "b"], None]),
        "Array of Duration": (pl.Array(pl.Duration("us"), 1), [[timedelta(1)], None]),
        "Array of Array": (pl.Array(pl.Array(pl.Int8, 2), 1), [[[1, 2]], None]),
        "Array of List": (pl.Array(pl.List(pl.Int8), 1), [[[1, 2, 3]], None]),
        "Struct": (pl.Struct({"a": pl.Int8, "b": pl.Duration("us")}), [{"a": 1, "b": timedelta(1)}, None]),
        "Struct of List": (pl.Struct({"a": pl.List(pl.String)}), [{"a": ["x"]}, None]),
    }
    return {name: pl.Series("odd", values, dtype=kind, strict=False) for name, (kind, values) in typed.items()}


TYPES = types()


def written(frame: pl.DataFrame, folder: Path) -> list[Path]:
    """Write a table in the two forms that have types."""
    frame.write_parquet(folder / "t.parquet")
    # JSON has no form for bytes, and only text for most of what is not nested
    if "Binary" in str(frame.schema) or not any(kind.is_nested() or kind.is_float() for kind in frame.dtypes):
        return [folder / "t.parquet"]
    try:
        frame.write_ndjson(folder / "t.jsonl")
    except pl.exceptions.PolarsError:
        return [folder / "t.parquet"]
    return [folder / "t.parquet", folder / "t.jsonl"]


def outcome(read: Read, path: Path, problems: Problems) -> str:
    """Read a table; gives the sentence that it cannot be read with, or nothing."""
    try:
        read(path, problems)
    except DataError as error:
        return str(error)
    return ""


def test_there_are_enough_types() -> None:
    assert len(TYPES) >= 80


def family(kind: str) -> str:
    """What a type is one of many of: the sizes of numbers, and the units and zones of times."""
    name, inner = kind.split("(", maxsplit=1)[0], kind.startswith("List of ")
    families = ("Datetime ", "Duration ", "UInt", "Int", "Float")
    for whole, part in ((part.strip(), part) for part in families):
        if name.startswith(part) and not inner and "ends" not in name:
            return whole + " with a zone" * ("/" in name) + " large" * ("large" in name) + " odd" * ("not" in name)
    return "List of Duration" if name.startswith("List of Duration") else name


ONE_OF_EACH = set({family(kind): kind for kind in TYPES}.values())
READ_ALIKE = {"tracks_id", "file", "artist", "album", "lyrics"}  # as track_id, path and title are


@pytest.mark.parametrize("reader", READERS)
def test_columns_that_are_not_known_do_not_matter(reader: str, tmp_path: Path) -> None:
    """All types at once, each in a column of its own; where it fails, the columns are tried one by one to name them."""
    read, columns, _ = READERS[reader]
    plain = pl.DataFrame(columns)
    plain.write_parquet(tmp_path / "plain.parquet")
    wanted = read(tmp_path / "plain.parquet", Problems()).frame

    def matter(kinds: list[str]) -> bool:
        odd = [TYPES[kind].alias(f"odd {kind}") for kind in kinds]
        problems = Problems()
        return any(outcome(read, path, problems) or len(problems) or not read(path, problems).frame.equals(wanted)
                   for path in written(plain.with_columns(odd), tmp_path))  # fmt: skip

    in_json = [kind for kind, values in TYPES.items() if values.dtype.is_nested() and "Binary" not in kind]
    for kinds in (list(TYPES), in_json, [kind for kind in TYPES if TYPES[kind].dtype.is_float()]):
        assert not matter(kinds), [kind for kind in kinds if matter([kind])]


@pytest.mark.parametrize(
    ("kind", "whole"),
    [(kind, False) for kind in TYPES if kind in ONE_OF_EACH][::3]
    + [pytest.param(kind, True, marks=pytest.mark.slow) for kind in TYPES],
)
def test_a_known_column_is_used_or_told(
    kind: str, whole: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of columns that are read alike an ordinary run tries one, and a third of the families of types."""
    for read, columns, known in READERS.values():
        for name in known if whole else (name for name in known if name not in READ_ALIKE):
            for path in written(pl.DataFrame({**columns, name: TYPES[kind].alias(name)}), tmp_path):
                problems = Problems()
                told = outcome(read, path, problems)
                assert told == "" or (str(path) in told and told.isprintable()), told
                assert all(value.isprintable() for value in problems.frame()["value"].drop_nulls())
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["Duration us", "List of List", "Struct", "List of Duration us"])
def test_a_column_that_has_no_text_is_one_sentence(kind: str, tmp_path: Path) -> None:
    pl.DataFrame({"track_id": ["a", "b"], "title": TYPES[kind]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet has .* in the column 'title', expected one value a row"):
        read_tracks(tmp_path / "t.parquet", Problems())


@pytest.mark.parametrize("kind", [pl.Float64, pl.Float32, pl.Float16])
def test_float_ids_that_are_merged_already_are_refused(kind: type[pl.DataType], tmp_path: Path) -> None:
    limit = {pl.Float64: 2**53, pl.Float32: 2**24, pl.Float16: 2**11}[kind]
    for value, fits in ((limit - 1, True), (limit, False), (-limit, False)):
        ids = pl.Series([float(value), 7.0], dtype=kind)
        pl.DataFrame({"track_id": ids}).write_parquet(tmp_path / "t.parquet")
        pl.DataFrame({"user_id": ids, "track_id": ["a", "b"]}).write_parquet(tmp_path / "u.parquet")
        lists = pl.Series([[1.0, float(value)]], dtype=pl.List(kind))
        pl.DataFrame({"user_id": ["u"], "track_ids": lists}).write_parquet(tmp_path / "l.parquet")
        if fits:
            assert read_tracks(tmp_path / "t.parquet", Problems()).frame["track_id"].to_list() == [str(value), "7"]
            continue
        told = rf"as floating-point numbers, such as -?{limit}: from {limit} on"
        with pytest.raises(DataError, match=f"'track_id' {told}"):
            read_tracks(tmp_path / "t.parquet", Problems())
        with pytest.raises(DataError, match=f"'user_id' {told}"):
            read_listens(tmp_path / "u.parquet", IDS, Problems(), ListensSettings())
    with pytest.raises(DataError, match="'track_ids' as floating-point numbers"):
        read_listens(tmp_path / "l.parquet", IDS, Problems(), ListensSettings())


def test_ids_are_exact_in_every_form(tmp_path: Path) -> None:
    ids = [2**64 - 1, 2**64 - 2, 2**53 + 1, 2**53 + 2]
    want = [str(number) for number in ids]
    (tmp_path / "t.csv").write_text("track_id\n" + "\n".join(want))
    (tmp_path / "t.jsonl").write_text("\n".join(f'{{"track_id": {number}}}' for number in ids))
    pl.DataFrame({"track_id": pl.Series(ids, dtype=pl.UInt64)}).write_parquet(tmp_path / "t.parquet")
    for form in ("csv", "jsonl", "parquet"):
        assert read_tracks(tmp_path / f"t.{form}", Problems()).frame["track_id"].to_list() == want
    (tmp_path / "t.csv").write_text("track_id\n9007199254740992.0\n1.8446744073709552e+19\n")
    with pytest.raises(DataError, match="as floating-point numbers"):
        read_tracks(tmp_path / "t.csv", Problems())
    (tmp_path / "t.jsonl").write_text('{"track_id": 9007199254740993}\n{"track_id": 1.5}\n')
    with pytest.raises(DataError, match="as floating-point numbers"):
        read_tracks(tmp_path / "t.jsonl", Problems())
