"""Tables in another encoding or with another separator than their suffix means: read, or named for what they are."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.catalogue.notation import separated, text_of
from recsys.catalogue.problems import Problems
from recsys.catalogue.tracks import read_tracks
from recsys.errors import DataError

ROWS = [("track_id", "title", "year"), ("7", "é; x", "1999"), ("008", "a, b\tc", "")]


def table(separator: str) -> str:
    quoted = [[f'"{text}"' if separator in text else text for text in row] for row in ROWS]
    return "\r\n".join(separator.join(row) for row in quoted) + "\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("said", [None, "sep={}\r\n", '"sep={}"\n'])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_every_encoding_and_separator(
    encoding: str, separator: str, said: str | None, name: str, tmp_path: Path
) -> None:
    text = table(separator) if said is None else said.format(separator) + table(separator)
    (tmp_path / name).write_bytes(text.encode(encoding))
    problems = Problems()
    frame = read_tracks(tmp_path / name, problems).frame
    assert frame.select("track_id", "title", "year").rows() == [("7", "é; x", 1999), ("008", "a, b\tc", None)]
    assert len(problems) == 0


def test_problems_have_the_rows_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sep=;\ntrack_id;title;year\na;x;1\nb;y\nc;z;1999\n")
    problems = Problems()
    assert read_tracks(tmp_path / "t.csv", problems).frame["track_id"].to_list() == ["a", "c"]
    assert sorted(problems.frame().select("row", "kind").rows()) == [(1, "bad-year"), (2, "ragged-row")]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"PAR1xxxx", "is a Parquet file"), (b"PK\x03\x04xx", "is a spreadsheet"), (b"\x1f\x8b\x08xx", "is gzipped"),
        (b"SQLite format 3\0", "an SQLite database"), (b"%PDF-1.4", "a PDF"), (b"<!DOCTYPE html>", "a web page"),
        (b"\xd0\xcf\x11\xe0\xa1", "old spreadsheet"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_named(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(DataError, match=rf"t\.csv .*{said}"):
        read_tracks(tmp_path / "t.csv", Problems())


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_a_json_array_is_one_sentence(indent: int | None, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(json.dumps([{"track_id": 1}, {"track_id": 2}], indent=indent))
    problems = Problems()
    with pytest.raises(DataError, match="one JSON array, expected one object on each line"):
        read_tracks(tmp_path / name, problems)
    (tmp_path / name).write_text('[\n{"track_id": 1},\n{"track_id": 2}\n]\n')
    with pytest.raises(DataError, match="one JSON array"):
        read_tracks(tmp_path / name, problems)
    assert len(problems) == 0


def test_the_usual_separator_stays_where_another_finds_no_more_columns() -> None:
    for header in (b"track_id,title;year\n", b"track_id\n", b"id;x\n", b"", b'"track_id;title",year\n'):
        assert separated(header, ",", ("track_id", "title", "year")) == (header, ",")


@given(st.binary(max_size=300))
def test_any_bytes_are_text_or_refused(data: bytes) -> None:
    try:
        text = text_of(data, Path("t.csv"))
    except DataError:
        return
    separated(text, ",", ("track_id",))
