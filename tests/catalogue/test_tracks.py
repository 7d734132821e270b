import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from helpers.places import DATA
from recsys.catalogue.problems import Problems
from recsys.catalogue.tracks import read_tags, read_tracks
from recsys.errors import DataError
from recsys.types import TAGS_SCHEMA, TRACKS_SCHEMA


def tracks_of(tmp_path: Path, text: str, name: str = "tracks.csv") -> tuple[pl.DataFrame, Problems]:
    (tmp_path / name).write_text(text, encoding="utf-8")
    problems = Problems()
    return read_tracks(tmp_path / name, problems).frame, problems


def kinds(problems: Problems) -> list[tuple[str, int | None, str | None]]:
    return problems.frame().select("kind", "row", "value").rows()


def test_a_full_row(tmp_path: Path) -> None:
    text = (
        "tracks_id,file,title,artist,album,genre,year,lyrics,vector,extra\n"
        '007,a/b.mp3,T,A,B," Rock; pop ;ROCK;",1999,la la,"[1, -2.5e0]",x\n'
        "8,,,,,,,,,\n"
    )
    frame, problems = tracks_of(tmp_path, text)
    assert frame.schema == TRACKS_SCHEMA
    path = str(tmp_path / "a/b.mp3")
    assert frame.rows() == [
        ("007", path, "T", "A", "B", ["Rock", "pop"], 1999, "la la", [1.0, -2.5]),
        ("8", None, None, None, None, [], None, None, None),
    ]
    assert len(problems) == 0


def test_ids_alone_are_a_catalogue(tmp_path: Path) -> None:
    frame, problems = tracks_of(tmp_path, "track_id\n1\n2\n")
    assert frame["track_id"].to_list() == ["1", "2"]
    assert frame["genres"].to_list() == [[], []]
    assert len(problems) == 0
    frame, problems = tracks_of(tmp_path, "track_id,path,lyrics_path,vector,genre,year\n")
    assert (len(frame), frame.schema, len(problems)) == (0, TRACKS_SCHEMA, 0)


def test_no_track_id_column_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'track_id'"):
        tracks_of(tmp_path, "id,title\n1,x\n")


def test_the_first_of_duplicate_ids_wins_and_empty_ids_go(tmp_path: Path) -> None:
    frame, problems = tracks_of(tmp_path, "track_id,title\na,first\n ,none\nb,x\na,second\na,third\n")
    assert frame.select("track_id", "title").rows() == [("a", "first"), ("b", "x")]
    assert kinds(problems) == [("empty-id", 2, None), ("duplicate-id", 4, "a"), ("duplicate-id", 5, "a")]


def test_years(tmp_path: Path) -> None:
    now = datetime.now(UTC).year
    good = {
        "1000": 1000, "1999.0": 1999, "1999-05-01": 1999, "1999-05": 1999, "1999-05-01T10:00:00": 1999,
        str(now + 1): now + 1, " 2000 ": 2000, "２００４": 2004, "٢٠٠٤-05-01": 2004, "2004 (remaster)": 2004,
        "20040501": 2004, "c. 1998": 1998, "May 2004": 2004,
    }  # fmt: skip
    bad = ["999", "0999", "0", "-1999", "99", "1999.5", "next", "NaN", "19991501", "12345", str(now + 2), "٢٠", "²⁰⁰⁴"]
    text = "track_id,year\n" + "".join(f"t{at},{year}\n" for at, year in enumerate([*good, *bad]))
    frame, problems = tracks_of(tmp_path, text)
    assert frame["year"].to_list() == [*good.values()] + [None] * len(bad)
    assert kinds(problems) == [("bad-year", len(good) + at, year) for at, year in enumerate(bad, 1)]


def test_typed_years_and_genre_lists(tmp_path: Path) -> None:
    typed = pl.DataFrame(
        {
            "track_id": [1, 2, 3],
            "year": [1999.0, None, float("nan")],
            "genres": [["Rock", " rock", "Jazz "], [], None],
            "genre": ["Folk;jazz", None, "x"],
        }
    )
    typed.write_parquet(tmp_path / "t.parquet")
    problems = Problems()
    frame = read_tracks(tmp_path / "t.parquet", problems).frame
    assert frame["year"].to_list() == [1999, None, None]
    assert frame["genres"].to_list() == [["Folk", "jazz", "Rock"], [], ["x"]]
    assert len(problems) == 0


def test_paths_start_from_the_table_or_the_audio_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "t.csv").write_text("track_id,path\n1,a.mp3\n2,/x/b.mp3\n3,../c.mp3\n")
    monkeypatch.chdir(tmp_path)
    frame = read_tracks(Path("in/t.csv"), Problems()).frame
    assert frame["path"].to_list() == [f"{tmp_path}/in/a.mp3", "/x/b.mp3", f"{tmp_path}/in/../c.mp3"]
    frame = read_tracks(Path("in/t.csv"), Problems(), Path("music/")).frame
    assert frame["path"].to_list() == [f"{tmp_path}/music/a.mp3", "/x/b.mp3", f"{tmp_path}/music/../c.mp3"]


def test_lyrics_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffla lá\nla\n".encode())
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    text = "track_id,lyrics,lyrics_path\n1,,a.txt\n2,given,gone.txt\n3,,gone.txt\n4,,b.txt\n5,,\n"
    frame, problems = tracks_of(tmp_path, text)
    assert frame["lyrics"].to_list() == ["la lá\nla", "given", None, "caf\ufffd", None]
    assert kinds(problems) == [
        ("missing-file", 3, str(tmp_path / "gone.txt")),
        ("bad-text", 4, str(tmp_path / "b.txt")),
    ]


def test_vectors_as_text(tmp_path: Path) -> None:
    good = {1: "[1, 2]", 6: " [-1e3,2.5] ", 8: "[1,2]"}
    bad = {
        2: "[1, NaN]", 3: "[1, x]", 4: "[1, 2, 3]", 5: "[]", 7: "1, 2", 9: "[1, 1e39]",
        10: "[1,,2]", 11: "[inf, 1]",
    }  # fmt: skip
    rows = dict(sorted((good | bad).items()))
    text = "track_id\tvector\n" + "".join(f"t{row}\t{vector}\n" for row, vector in rows.items())
    frame, problems = tracks_of(tmp_path, text, "t.tsv")
    got = {row: vector for row, vector in enumerate(frame["vector"].to_list(), 1) if vector is not None}
    assert got == {1: [1.0, 2.0], 6: [-1000.0, 2.5], 8: [1.0, 2.0]}
    assert len(frame) == len(rows)
    assert sorted(problems.frame()["row"].to_list()) == sorted(bad)
    assert problems.counts() == {"bad-vector": len(bad)}


def test_vectors_as_lists_and_arrays(tmp_path: Path) -> None:
    rows = [[1.5, 2], [3, 4], [1], [5, float("nan")], None]
    pl.DataFrame({"track_id": list("abcde"), "vector": rows}, strict=False).write_parquet(tmp_path / "t.parquet")
    problems = Problems()
    frame = read_tracks(tmp_path / "t.parquet", problems).frame
    assert frame["vector"].to_list() == [[1.5, 2.0], [3.0, 4.0], None, None, None]
    assert sorted(problems.frame()["row"].to_list()) == [3, 4]
    array = pl.Series([[1.0, 2.0, 3.0]], dtype=pl.Array(pl.Float64, 3))
    pl.DataFrame({"track_id": ["a"], "vector": array}).write_parquet(tmp_path / "t.parquet")
    assert read_tracks(tmp_path / "t.parquet", Problems()).frame["vector"].to_list() == [[1.0, 2.0, 3.0]]
    lines = "\n".join(json.dumps({"track_id": n, "vector": [[n], [2]]}) for n in (1, 2))
    with pytest.raises(DataError, match="none of the 2 values of the column 'vector' fits"):
        tracks_of(tmp_path, lines, "t.jsonl")


def test_a_column_none_of_whose_values_fits_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: none of the 3 values of the column 'year' fits \('soon' in row 2\)"):
        tracks_of(tmp_path, "track_id,year\na,\nb,soon\nc,later\nd,n/a\n", "t.csv")
    frame, problems = tracks_of(tmp_path, "track_id,year\na,\nb,soon\n")  # one value may be a slip
    assert (frame["year"].to_list(), problems.counts()) == ([None, None], {"bad-year": 1})
    frame, problems = tracks_of(tmp_path, "track_id,year\na,0\nb,0\n")  # which is how many write that they do not know
    assert (frame["year"].to_list(), problems.counts()) == ([None, None], {"bad-year": 2})


def test_genres_however_they_are_written(tmp_path: Path) -> None:
    frame, problems = tracks_of(tmp_path, "track_id,genre\na,Mu\u0301sica;M\u00daSICA; jazz\nb,rock\0pop\nc,\n")
    assert frame["genres"].to_list() == [["Mu\u0301sica", "jazz"], ["rock", "pop"], []]
    assert len(problems) == 0
    pl.DataFrame({"track_id": ["a", "b"], "genre": [[["rock", "pop"], ["jazz"]], None]}).write_parquet(
        tmp_path / "t.parquet"
    )
    frame = read_tracks(tmp_path / "t.parquet", problems).frame
    assert frame["genres"].to_list() == [["rock", "pop", "jazz"], []]
    assert kinds(problems) == [("bad-genre", None, "genre")]


def test_ids_that_look_alike_are_told_and_stay_apart(tmp_path: Path) -> None:
    ids = ["Mot\u00f6rhead", "t05", "Moto\u0308rhead", "t05\u200b", "\u00a0t05", "t06", "\u00e9"]
    frame, problems = tracks_of(tmp_path, "track_id\n" + "\n".join(ids))
    assert frame["track_id"].to_list() == ids
    told = {3: "Moto\\u0308rhead", 4: "t05\\u200b", 5: "\\xa0t05"}
    assert kinds(problems) == [("ids-look-alike", row, value) for row, value in told.items()]
    assert "looks like 'Mot\u00f6rhead'" in problems.frame()["reason"][0]


def test_a_column_of_lists_where_one_value_is_meant(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lists in the column 'title'"):
        tracks_of(tmp_path, '{"track_id": 1, "title": ["a"]}', "t.jsonl")


def test_tags(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text(
        "track_id,tag,weight,user_id\n7, Rock ,2,u\n8,pop,1,u\n7,rock,0.5,v\n,x,1,v\n9,x,1,v\n7,,1,v\n"
        "7,a,0,v\n7,b,-1,v\n7,c,NaN,v\n7,d,x,v\n7,e,,v\n7,f,inf,v\n"
    )
    problems = Problems()
    tags = read_tags(tmp_path / "g.csv", pl.Series(["7", "8"]), problems).frame
    assert tags.schema == TAGS_SCHEMA
    assert tags.rows() == [("7", "rock", 2.5), ("8", "pop", 1.0)]
    assert problems.counts() == {"bad-weight": 6, "empty-id": 1, "empty-tag": 1, "unknown-track": 1}
    (tmp_path / "c.csv").write_text("track_id;tag;weight\n7;a;0,5\n7;b;2\n")
    assert read_tags(tmp_path / "c.csv", pl.Series(["7"]), problems).frame["weight"].to_list() == [0.5, 2.0]
    (tmp_path / "h.csv").write_text("track_id,tag\n7,A\n7,a\n")
    tags = read_tags(tmp_path / "h.csv", pl.Series(["7"]), problems).frame
    assert tags.rows() == [("7", "a", 2.0)]


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not beside the repository")
def test_the_real_catalogues_read_without_a_problem() -> None:
    problems = Problems()
    sizes = {}
    for name in ("emotify", "hetrec-lastfm", "hetrec-spotify", "listening-tweets"):
        tracks = read_tracks(DATA / name / "tracks.csv", problems)
        sizes[name] = len(tracks)
        if (DATA / name / "tags.csv").exists():
            tags = read_tags(DATA / name / "tags.csv", tracks.frame["track_id"], problems)
            assert tags.frame["weight"].min() == 1.0
    assert sizes == {
        "emotify": 297, "hetrec-lastfm": 17_632, "hetrec-spotify": 4_663, "listening-tweets": 30_874
    }  # fmt: skip
    assert problems.counts() == {}
