import gzip
import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.catalogue.problems import Problems
from recsys.catalogue.tables import read_table, read_text, require, split_list, text_column
from recsys.errors import DataError

IDS = st.text(st.characters(codec="utf-8"), min_size=1).map(str.strip).filter(bool)


def read(tmp_path: Path, name: str, data: bytes | str) -> tuple[pl.DataFrame, Problems]:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    problems = Problems()
    return read_table(path, problems), problems


def kinds(problems: Problems) -> list[tuple[str, int | None]]:
    return problems.frame().select("kind", "row").rows()


def test_scalars_are_text_trimmed_and_numbered(tmp_path: Path) -> None:
    frame, problems = read(tmp_path, "t.csv", '\ufeff Track_ID ,Year,x\n007, 1999,\n" a ",,"p,q\nr"\n')
    assert frame.columns == ["track_id", "year", "x", "row"]
    assert frame.rows() == [("007", "1999", None, 1), ("a", None, "p,q\nr", 2)]
    assert len(problems) == 0


def test_all_forms_read_alike(tmp_path: Path) -> None:
    want = [("7", "é, x", 1), ("008", None, 2)]
    lines = [{"tracks_id": "7", "file": "é, x"}, {"tracks_id": "008"}]
    text = "\n".join(map(json.dumps, lines))
    forms: dict[str, bytes] = {
        "t.csv": 'tracks_id,file\n7,"é, x"\n008,\n'.encode(),
        "mac.csv": 'tracks_id,file\r7,"é, x"\r008,'.encode(),
        "dos.CSV": 'tracks_id,file\r\n7,"é, x"\r\n008,\r\n'.encode(),
        "sheet.tsv": "tracks_id\tfile\n7\té, x\n008\t\n".encode("utf-16"),
        "t.jsonl": text.encode(),
        "t.json": text.encode(),
        "t.jsonl.gz": gzip.compress(text.encode()),
        "t.csv.gz": gzip.compress('tracks_id,file\n7,"é, x"\n008,\n'.encode()),
    }
    for name, data in forms.items():
        frame, problems = read(tmp_path, name, data)
        assert (name, frame.select("track_id", "path", "row").rows()) == (name, want)
        assert len(problems) == 0
    pl.DataFrame(lines).write_parquet(tmp_path / "t.parquet")
    frame = read_table(tmp_path / "t.parquet", Problems())
    assert frame.select("track_id", "path", "row").rows() == want


def test_numbers_of_typed_files_become_text(tmp_path: Path) -> None:
    typed = pl.DataFrame(
        {
            "user_id": [7.0, float("nan"), 2.5],
            "track_id": [1, None, 2**62],
            "liked": [True, False, None],
            "vector": pl.Series([[1.0, 2.0], [3.0, 4.0], None], dtype=pl.Array(pl.Float32, 2)),
            "raw": [b"ok", b"\xff", None],
        }
    )
    typed.write_parquet(tmp_path / "t.parquet")
    problems = Problems()
    frame = read_table(tmp_path / "t.parquet", problems)
    assert frame["user_id"].to_list() == ["7", None, "2.5"]
    assert frame["track_id"].to_list() == ["1", None, str(2**62)]
    assert frame["liked"].to_list() == ["true", "false", None]
    assert frame.schema["vector"] == pl.List(pl.Float32)
    assert frame["raw"].to_list() == ["ok", None, None]
    assert kinds(problems) == [("bad-text", 2)]


def test_of_parquet_what_nobody_asks_for_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read, asked = tmp_path / "t.parquet", pl.read_parquet, []
    pl.DataFrame({"Track_ID": ["a"], "plays": [1], "odd": [b"\xff"]}).write_parquet(path)
    monkeypatch.setattr(pl, "read_parquet", lambda *a, **named: asked.append(named["columns"]) or read(*a, **named))
    assert read_table(path, Problems(), ("track_id", "year")).columns == ["track_id", "row"]
    assert asked == [["Track_ID"]]


def test_ragged_rows_are_reported_and_the_rest_is_used(tmp_path: Path) -> None:
    text = 'track_id,title,year\na,"x,\ny",1\nb,2\n\nc,z,3,4\nd,w,\n'
    frame, problems = read(tmp_path, "t.csv", text)
    assert frame.rows() == [("a", "x,\ny", "1", 1), ("d", "w", None, 5)]
    assert kinds(problems) == [("ragged-row", 2), ("ragged-row", 4)]
    assert problems.frame()["value"].to_list() == ["b,2", "c,z,3,4"]
    assert problems.frame()["reason"][0] == "the row has 2 fields, expected 3"


@pytest.mark.parametrize("short", ["b,2", "b", '"b,,"'])
def test_a_row_that_polars_would_fill_up_is_found(tmp_path: Path, short: str) -> None:
    frame, problems = read(tmp_path, "t.csv", f'track_id,title,year\na,"p,q",1\n{short}\nd,w,\n')
    assert frame["track_id"].to_list() == ["a", "d"]
    assert kinds(problems) == [("ragged-row", 2)]


def test_stray_quotes_swallow_no_rows(tmp_path: Path) -> None:
    text = 'track_id,title\na,12" mix\nb,"open\nc,plain\nd,"say "hi" there"\ne,7" single\n'
    frame, problems = read(tmp_path, "t.csv", text)
    assert frame["track_id"].to_list() == ["a", "b", "c", "d", "e"]
    assert frame["title"][0] == '12" mix'
    assert frame["title"][2] == "plain"
    assert len(problems) == 0


def test_a_quote_that_never_closes_costs_its_row(tmp_path: Path) -> None:
    frame, problems = read(tmp_path, "t.csv", 'track_id,title\na,x\n"b,y\nc,z\n')
    assert frame["track_id"].to_list() == ["a", "c"]
    assert kinds(problems) == [("ragged-row", 2)]
    long = 'track_id,title\n"b,y\n' + "c,z\n" * 40_000  # the quote runs beyond the limit of a field
    frame, problems = read(tmp_path, "t.csv", long)
    assert (len(frame), kinds(problems)) == (40_000, [("ragged-row", 1)])


def test_undecodable_text_is_null_and_in_an_id_costs_the_row(tmp_path: Path) -> None:
    frame, problems = read(tmp_path, "t.csv", b"track_id,title\na,caf\xe9\n\xe9,x\nc,caf\xc3\xa9\n")
    assert frame.rows() == [("a", None, 1), ("c", "café", 3)]
    assert kinds(problems) == [("bad-text", 1), ("bad-text", 2)]
    assert problems.frame()["value"].to_list() == ["caf\\udce9", "\\udce9"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "mac-roman"])
@pytest.mark.parametrize("form", ["t.csv", "t.jsonl"])
def test_a_file_in_another_encoding_is_told_once_a_column(tmp_path: Path, encoding: str, form: str) -> None:
    titles, n = [f"Söng {n}" for n in range(40)], 40
    lines = [f'{{"track_id": "{n}", "title": "{title}"}}' for n, title in enumerate(titles)]
    if form == "t.csv":
        lines = ["track_id,title", *(f"{n},{title}" for n, title in enumerate(titles))]
    frame, problems = read(tmp_path, form, "\n".join(lines).encode(encoding))
    assert (len(frame), frame["title"].null_count()) == (n, n)
    assert kinds(problems) == [("bad-text", 1)]
    assert "40 values of the column title are not UTF-8" in problems.frame()["reason"][0]
    assert "save the file as UTF-8" in problems.frame()["reason"][0]


def test_ids_in_another_encoding_say_how_many_rows_they_cost(tmp_path: Path) -> None:
    lines = ["user_id,track_id", *(f"ü{n},t" for n in range(40)), "u,t"]
    frame, problems = read(tmp_path, "t.csv", "\n".join(lines).encode("latin-1"))
    assert frame.rows() == [("u", "t", 41)]
    assert kinds(problems) == [("bad-text", 1)]
    assert "40 rows have no id and are left out" in problems.frame()["reason"][0]


def test_bytes_that_are_no_text_are_told_once_a_column(tmp_path: Path) -> None:
    pl.DataFrame({"track_id": list("abcdefgh"), "title": [b"\xff\xfe"] * 8}).write_parquet(tmp_path / "t.parquet")
    problems = Problems()
    assert read_table(tmp_path / "t.parquet", problems)["title"].null_count() == 8
    assert kinds(problems) == [("bad-text", 1)]


@pytest.mark.parametrize("row", ["t{n},Song {n},rock,", "t{n},So, ng {n},rock", "t{n},Song {n}"])
def test_rows_none_of_which_fits_the_header_are_one_error(tmp_path: Path, row: str) -> None:
    lines = ["track_id,title,genre", *(row.format(n=n) for n in range(30))]
    with pytest.raises(DataError, match=r"none of the 30 rows has the 3 fields of the header; row 1 has \d \('t0,"):
        read(tmp_path, "t.csv", "\n".join(lines) + "\n")


def test_bad_json_lines_are_reported(tmp_path: Path) -> None:
    lines = [
        b'{"track_id": 7, "vector": [1, NaN]}',
        b"{broken",
        b"[1, 2]",
        b"",
        b'{"track_id": "\xff"}',
        b'{"track_id": "8", "title": "\xff", "vector": [2, 3]}',
        b'{"track_id": "9"} {"track_id": "10"}',
    ]
    frame, problems = read(tmp_path, "t.jsonl", b"\n".join(lines))
    assert frame.select("track_id", "title", "row").rows() == [("7", None, 1), ("8", None, 6)]
    assert frame["vector"].to_list() == [["1", "NaN"], ["2", "3"]]
    assert sorted(kinds(problems)) == [
        ("bad-json", 2), ("bad-json", 3), ("bad-json", 7), ("bad-text", 5), ("bad-text", 6)
    ]  # fmt: skip


def test_blank_lines_and_byte_order_marks_do_no_harm(tmp_path: Path) -> None:
    lines = '\ufeff{"track_id": 1}\n\n{"track_id": 2}\n\n'
    frame, problems = read(tmp_path, "t.jsonl", lines)
    assert (frame.rows(), len(problems)) == ([("1", 1), ("2", 3)], 0)
    frame, problems = read(tmp_path, "t.csv", "\ufefftrack_id,year\n1,2\n\n3,4\n5\n")
    assert frame.select("track_id", "row").rows() == [("1", 1), ("3", 3)]
    assert kinds(problems) == [("ragged-row", 4)]


def test_nested_arrays_in_json_do_not_end_the_build(tmp_path: Path) -> None:
    deep = b'{"track_id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    frame, problems = read(tmp_path, "t.jsonl", b'{"track_id": "a"}\n' + deep)
    assert frame["track_id"].to_list() == ["a"]
    assert kinds(problems) == [("bad-json", 2)]


def test_odd_headers(tmp_path: Path) -> None:
    frame, _ = read(tmp_path, "t.csv", "track_id,row,*,^x$,,TRACK_ID\na,b,c,d,e,f\n")
    assert frame.rows() == [("a", 1)]
    frame, problems = read(tmp_path, "t.csv", "track_id,title,title\na,b,c\nd,e\n")
    assert frame.select("track_id", "title").rows() == [("a", "b")]
    assert len(problems) == 1
    frame, _ = read(tmp_path, "t.csv", "tracks_id,track_id\na,b\n")
    assert frame["track_id"].to_list() == ["b"]


def test_tracks_id_with_lists_is_track_ids(tmp_path: Path) -> None:
    frame, _ = read(tmp_path, "t.csv", 'user_id,tracks_id\n1,"[2, 3]"\n4,oops\n5,[6]\n')
    assert frame.columns == ["user_id", "track_ids", "row"]
    frame, _ = read(tmp_path, "t.jsonl", '{"user_id": 1, "tracks_id": [2, 3]}')
    assert frame["track_ids"].to_list() == [[2, 3]]
    frame, _ = read(tmp_path, "t.csv", "user_id,tracks_id\n1,2\n4,[untitled]\n5,6\n")
    assert frame["track_id"].to_list() == ["2", "[untitled]", "6"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("t.xlsx", b"x", "no known form"),
        ("t", b"x", "no known form"),
        ("t.csv", b"", "is empty"),
        ("t.csv", b" \n\n", "is empty"),
        ("t.jsonl", b"\n", "is empty"),
        ("t.jsonl", b"nonsense\n", "no JSON object"),
        ("t.jsonl", b'[{"a": 1}]', "no JSON object"),
        ("t.parquet", b"", "cannot be read as Parquet"),
        ("t.parquet", b"PAR1 nonsense PAR1", "cannot be read as Parquet"),
        ("t.csv.gz", b"not gzip", "cannot be read"),
        ("t.csv.gz", gzip.compress(b"a,b\n" * 99, mtime=0)[:-9], "cannot be read"),
    ],
)
def test_what_is_no_table_is_one_sentence(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path, name, data)
    assert "\n" not in str(caught.value)


def test_missing_file_folder_and_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_table(tmp_path / "none.csv", Problems())
    (tmp_path / "dir.csv").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "dir.csv", Problems())
    frame, _ = read(tmp_path, "t.jsonl", '{"a": [1], "b": "x"}')
    with pytest.raises(DataError, match="has no column 'track_id', only a, b"):
        require(frame, tmp_path / "t.jsonl", "b", "track_id")
    with pytest.raises(DataError, match="lists in the column 'a'"):
        text_column(frame, tmp_path / "t.jsonl", "a")
    assert frame.select(text_column(frame, tmp_path, "c")).rows() == [(None,)]


def test_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeff lá\nla \n".encode())
    assert read_text(tmp_path / "a.txt") == "lá\nla"
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 3\)"):
        read_text(tmp_path / "b.txt")
    with pytest.raises(DataError, match="cannot be read"):
        read_text(tmp_path / "none.txt")


def test_lists_written_as_text() -> None:
    texts = [
        "[1000, 007, 23, 23]",
        '["a", "b,c"]',
        "['a', \"it's\"]",
        " [ ] ",
        "[x",
        "a, b",
        None,
        "[1,,2]",
        "[[1]]",
    ]
    assert split_list(pl.Series(texts)).to_list() == [
        ["1000", "007", "23", "23"], ["a", "b,c"], ["a", "it's"], [], None, None, None, None, None
    ]  # fmt: skip
    escaped = [r'["\u00e9\n1", "\\"]', r"['it\'s', '\x41']", r'["\q"]', r'["\ud800"]']
    assert split_list(pl.Series(escaped)).to_list() == [["é\n1", "\\"], ["it's", "A"], [None], [None]]


@given(st.lists(st.lists(IDS, max_size=4), max_size=4))
def test_lists_round_trip(lists: list[list[str]]) -> None:
    for write in (json.dumps, repr, lambda ids: json.dumps(ids, ensure_ascii=False)):
        assert split_list(pl.Series(map(write, lists), dtype=pl.String)).to_list() == lists


@given(st.lists(st.integers(0, 10**9), max_size=5))
def test_bare_numbers_round_trip(ids: list[int]) -> None:
    assert split_list(pl.Series([str(ids)])).to_list() == [[str(number) for number in ids]]
