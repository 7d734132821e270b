import polars as pl

from recsys.catalogue.problems import PROBLEMS_SCHEMA, Problems


def test_single_and_bulk_reports_stand_in_one_frame() -> None:
    problems = Problems()
    problems.add("missing-file", "a.csv", None, "gone.mp3", "not there")
    problems.add("bad-year", "a.csv", 3, 12.5, "no year")
    frame = pl.DataFrame({"row": [7, 8, 9], "year": ["x", "2001", None]})
    kept = problems.drop(frame, pl.col("year") == "x", "bad-year", "b.csv", value="year", reason="no year")
    assert kept["row"].to_list() == [8, 9]  # a null condition is no problem
    assert problems.frame().schema == PROBLEMS_SCHEMA
    assert problems.frame().rows() == [
        ("bad-year", "b.csv", 7, "x", "no year"),
        ("missing-file", "a.csv", None, "gone.mp3", "not there"),
        ("bad-year", "a.csv", 3, "12.5", "no year"),
    ]
    assert problems.counts() == {"bad-year": 2, "missing-file": 1}
    assert len(problems) == 3


def test_values_are_cut_and_made_printable() -> None:
    problems = Problems()
    problems.add("bad-text", "caf\udce9.csv", 1, "x" * 300, "long")
    frame = pl.DataFrame({"row": [2, 3], "v": ["y" * 300, "z"], "n": [[1.0, None], [2.5]]})
    problems.report(frame, pl.col("row") == 2, "bad-text", "b", value="v", reason="long")
    problems.report(frame, pl.col("row") == 2, "bad-vector", "b", value="n", reason="null")
    values = problems.frame()["value"].to_list()
    assert values == ["y" * 200, "[1.0, null]", "x" * 200]
    assert problems.frame()["source"].to_list()[-1] == "caf\\udce9.csv"


def test_no_problems_is_an_empty_frame() -> None:
    problems = Problems()
    problems.leave_out("short-listen", 0)
    assert problems.frame().schema == PROBLEMS_SCHEMA
    assert (len(problems), problems.counts(), problems.left_out) == (0, {}, {})


def test_what_a_setting_leaves_out_is_counted_but_no_problem() -> None:
    problems = Problems()
    problems.leave_out("short-listen", 2)
    problems.leave_out("short-listen", 3)
    assert problems.left_out == {"short-listen": 5}
    assert len(problems) == 0
