import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.places import DATA
from recsys.catalogue.listens import ListensSettings, plays_of, read_listens
from recsys.catalogue.problems import Problems
from recsys.catalogue.tracks import read_tracks
from recsys.errors import ConfigError, DataError
from recsys.types import LISTENS_SCHEMA, Listens

TRACKS = pl.Series(["11", "23", "1000", "a", "b"])


def listens_of(tmp_path: Path, text: str, name: str = "l.csv", **settings: float) -> tuple[pl.DataFrame, Problems]:
    (tmp_path / name).write_text(text, encoding="utf-8")
    problems = Problems()
    chosen = ListensSettings.model_validate(settings)
    return read_listens(tmp_path / name, TRACKS, problems, chosen).frame, problems


def kinds(problems: Problems) -> list[tuple[str, int | None, str | None]]:
    return problems.frame().select("kind", "row", "value").rows()


def pairs(frame: pl.DataFrame) -> list[tuple[str, str, float]]:
    return frame.select("user_id", "track_id", "plays").rows()


def test_an_event_a_row(tmp_path: Path) -> None:
    frame, problems = listens_of(tmp_path, "user_id,track_id\nu,a\nu,a\nv,11\n")
    assert frame.schema == LISTENS_SCHEMA
    assert frame.rows() == [
        ("u", "a", 1.0, None, False, False),
        ("u", "a", 1.0, None, False, False),
        ("v", "11", 1.0, None, False, False),
    ]
    assert len(problems) == 0


@pytest.mark.parametrize("column", ["track_ids", "tracks_id"])
def test_a_user_a_row(tmp_path: Path, column: str) -> None:
    lists = 'u,"[1000, 11, 23, 23]"\nv,"[""a"", \'b\']"\n,[11]\nw,11\nx,[]\ny,"[11, 99]"\nz,[7]\n'
    text = f"user_id,{column}\n{lists}"
    frame, problems = listens_of(tmp_path, text)
    assert pairs(frame) == [
        ("u", "1000", 1.0), ("u", "11", 1.0), ("u", "23", 1.0), ("u", "23", 1.0),
        ("v", "a", 1.0), ("v", "b", 1.0), ("y", "11", 1.0),
    ]  # fmt: skip
    assert kinds(problems) == [
        ("empty-id", 3, None), ("bad-list", 4, "11"), ("bad-list", 5, "[]"),
        ("unknown-track", 6, "99"), ("unknown-track", 7, "7"),
    ]  # fmt: skip


def test_native_lists(tmp_path: Path) -> None:
    want = [("1", "11", 1.0), ("1", "23", 1.0)]
    frame, problems = listens_of(tmp_path, '{"user_id": 1, "tracks_id": [11, 23]}', "l.jsonl")
    assert (pairs(frame), len(problems)) == (want, 0)
    for name, lists in {"track_ids": [[11.0, 23.0], None], "track_id": [["11", "23"], [""]]}.items():
        pl.DataFrame({"user_id": [1, 2], name: lists}).write_parquet(tmp_path / "l.parquet")
        problems = Problems()
        read = read_listens(tmp_path / "l.parquet", TRACKS, problems, ListensSettings()).frame
        assert pairs(read) == want
        assert problems.frame()["row"].to_list() == [2]
    with pytest.raises(DataError, match="expected lists of ids"):
        listens_of(tmp_path, '{"user_id": 1, "track_ids": [[1], [2]]}', "l.jsonl")


@pytest.mark.slow
@settings(max_examples=20)
@given(st.lists(st.lists(st.sampled_from(TRACKS.to_list()), min_size=1, max_size=5), max_size=4))
def test_any_way_to_write_a_list_says_the_same(lists: list[list[str]]) -> None:
    frames = []
    for write in (json.dumps, repr, lambda ids: f"[{', '.join(ids)}]"):
        with tempfile.TemporaryDirectory() as folder:
            table = pl.DataFrame({"user_id": range(len(lists)), "track_ids": [write(ids) for ids in lists]})
            table.cast(pl.String).write_csv(Path(folder, "l.csv"))
            frames.append(read_listens(Path(folder, "l.csv"), TRACKS, Problems(), ListensSettings()).frame)
    assert pairs(frames[0]) == [(str(user), track, 1.0) for user, ids in enumerate(lists) for track in ids]
    assert frames[0].equals(frames[1])
    assert frames[0].equals(frames[2])


def test_bad_ids_cost_their_rows(tmp_path: Path) -> None:
    frame, problems = listens_of(tmp_path, "user_id,track_id\nu,a\n,a\nv,\nw,zz\n,\n")
    assert pairs(frame) == [("u", "a", 1.0)]
    assert sorted(kinds(problems), key=lambda problem: problem[1] or 0) == [
        ("empty-id", 2, None), ("empty-id", 3, "v"), ("unknown-track", 4, "zz"), ("empty-id", 5, None)
    ]  # fmt: skip


def test_missing_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'user_id'"):
        listens_of(tmp_path, "track_id\na\n")
    with pytest.raises(DataError, match="no column 'track_id'"):
        listens_of(tmp_path, "user_id\na\n")
    with pytest.raises(DataError, match="no column 'user_id'"):
        listens_of(tmp_path, "track_ids\n[11]\n")


def test_play_counts(tmp_path: Path) -> None:
    bad = ["0", "-2", "NaN", "many", "inf", ""]
    text = "user_id,track_id,plays\nu,a,13883\nv,b,2.0\n" + "".join(f"w,a,{plays}\n" for plays in bad)
    frame, problems = listens_of(tmp_path, text)
    assert pairs(frame) == [("u", "a", 13883.0), ("v", "b", 2.0)]
    assert kinds(problems) == [("bad-plays", row, plays or None) for row, plays in enumerate(bad, 3)]


def test_likes_and_dislikes(tmp_path: Path) -> None:
    text = "user_id,track_id,liked,disliked\n" + "u,a,1,0\nu,b,no,false\nu,11,,\nv,a,0,Yes\nv,b,TRUE,true\nw,a,maybe,\n"
    frame, problems = listens_of(tmp_path, text, liked_plays=5.0)
    assert frame.select("user_id", "track_id", "plays", "liked", "disliked").rows() == [
        ("u", "a", 5.0, True, False),
        ("u", "b", 1.0, False, False),
        ("u", "11", 1.0, False, False),
        ("v", "a", 0.0, False, True),
        ("v", "b", 0.0, False, True),
        ("w", "a", 1.0, False, False),
    ]
    assert kinds(problems) == [("bad-flag", 6, "maybe")]


def test_plays_beside_likes(tmp_path: Path) -> None:
    text = (
        "user_id,track_id,plays,liked,disliked\nu,a,4,1,0\nu,b,0,1,0\nv,a,0,0,1\n" + "v,b,7,1,1\nw,a,,1,\nw,b,-1,1,\n"
    )
    frame, problems = listens_of(tmp_path, text)
    assert frame["plays"].to_list() == [6.0, 3.0, 0.0, 0.0, 3.0]  # one of the four plays counts as three
    assert kinds(problems) == [("bad-plays", 6, "-1")]


@pytest.mark.parametrize(
    ("ratings", "liked", "disliked"),
    [
        ("0 0.25 0.3 0.75 1", [3, 4], [0, 1]),
        ("1 2 3 4 5", [3, 4], [0, 1]),
        ("0.5 1 1.5 3.5 4", [4], [0, 1]),
        ("0 2.5 3 7.5 10", [3, 4], [0, 1]),
        ("0 25 50 75 100", [3, 4], [0, 1]),
        ("-1 -0.5 0 0.5 1", [3, 4], [0, 1]),
    ],
)
def test_ratings_are_placed_on_their_scale(tmp_path: Path, ratings: str, liked: list[int], disliked: list[int]) -> None:
    rows = "".join(f"u{at},a,{rating}\n" for at, rating in enumerate(ratings.split()))
    frame, problems = listens_of(tmp_path, "user_id,track_id,rating\n" + rows)
    assert frame["liked"].arg_true().to_list() == liked
    assert frame["disliked"].arg_true().to_list() == disliked
    assert frame["plays"].to_list() == [3.0 if at in liked else 0.0 if at in disliked else 1.0 for at in range(5)]
    assert len(problems) == 0


def test_rating_limits_can_be_set(tmp_path: Path) -> None:
    text = "user_id,track_id,rating\nu,a,-7\nu,b,300\nv,a,x\nv,b,\nw,a,2\n"
    with pytest.raises(DataError, match="-7 to 300"):
        listens_of(tmp_path, text)
    frame, problems = listens_of(tmp_path, text, rating_liked_from=2.0, rating_disliked_to=-7.0)
    assert frame["plays"].to_list() == [0.0, 3.0, 1.0, 1.0, 3.0]
    assert kinds(problems) == [("bad-rating", 3, "x")]
    frame, _ = listens_of(tmp_path, "user_id,track_id,rating\nu,a,5\nv,b,3\nv,a,2\n", rating_liked_from=2.5)
    assert frame["plays"].to_list() == [3.0, 3.0, 0.0]


def test_times(tmp_path: Path) -> None:
    start = datetime(2014, 1, 30, 13, 46, 48, tzinfo=UTC)
    half = start.replace(microsecond=500_000)
    good = {
        "1391089608": start, "1391089608000": start, "1391089608.5": half, "1391089608500": half,
        "1.391089608e9": start, "2014-01-30T13:46:48Z": start, "2014-01-30 13:46:48": start,
        "2014-01-30T14:46:48.5+01:00": half, "2014-01-30T08:16:48-0530": start,
        "2014-01-30T14:46:48+01": start, "20140130T134648Z": start,
        "2014-01-30 13:46:48 UTC": start, "2014-01-30T13:46": start.replace(second=0),
        "2014-01-30": datetime(2014, 1, 30, tzinfo=UTC), "": None, "1391089608000000": start,
        "1391089608000000000": start, "2014-01-30T13:46:48.123456789Z": start.replace(microsecond=123456),
        "2014/01/30 13:46": start.replace(second=0), "20140130": datetime(2014, 1, 30, tzinfo=UTC),
        "20140130134648": start,
    }  # fmt: skip
    forms = [
        "yesterday",
        "2014-13-01",
        "2014-01-30T25:00:00Z",
        "NaN",
        "30/01/2014",
        "30.01.2014 13:46",
        "2014-01-30 24:00",
    ]
    again = ["tomorrow", "2014-02-30", "31/12/2014", "31/01/2014"]  # in forms that were told already
    impossible = ["0", "1", "-5", "1969-12-31", "2002-09-30", "4000000000", "4000000000000", "2999-01-01", "1e30"]
    every = [*good, *forms, *again, *impossible]
    text = "user_id,track_id,listened_at\n" + "".join(f"u{at},a,{time}\n" for at, time in enumerate(every))
    frame, problems = listens_of(tmp_path, text)
    times = frame["listened_at"].to_list()
    assert dict(zip(good, times, strict=False)) == good
    assert times[len(good) :] == [None] * (len(every) - len(good))
    told = [*(("bad-time", row, time) for row, time in enumerate(forms, len(good) + 1) if time != "NaN")]
    assert kinds(problems) == [*told, ("unknown-time", len(every) - len(impossible) + 1, "0")]
    reasons = problems.frame()["reason"].to_list()
    assert [reason.split("; ")[1] for reason in reasons[:-1] if ";" in reason] == [
        "3 values are written so", "2 values are written so", "3 values are written so"
    ]  # fmt: skip
    assert reasons[-1].startswith(f"{len(impossible)} times lie before 2002-10-01 or in the future")


def test_times_in_32_bits_are_used_and_told(tmp_path: Path) -> None:
    path, problems = tmp_path / "listens.parquet", Problems()
    rows = pl.DataFrame({"user_id": ["u", "v"], "track_id": ["a", "a"], "listened_at": [1.7e9, None]})
    rows.with_columns(pl.col("listened_at").cast(pl.Float32)).write_parquet(path)
    frame = read_listens(path, pl.Series(["a"]), problems, ListensSettings()).frame
    assert frame["listened_at"][0] is not None
    assert kinds(problems) == [("rounded-time", None, "listened_at")]
    rows.write_parquet(path)
    problems = Problems()
    read_listens(path, pl.Series(["a"]), problems, ListensSettings())
    assert kinds(problems) == []


def test_times_of_which_none_can_be_read_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 2 values of the column 'listened_at' fits \('12\.04\.2020"):
        listens_of(tmp_path, "user_id,track_id,listened_at\nu,a,12.04.2020 03:58\nv,a,13.04.2020 04:58\n")
    frame, _ = listens_of(tmp_path, "user_id,track_id,listened_at\nu,a,0\nv,a,1\n")  # in no wrong form
    assert frame["listened_at"].to_list() == [None, None]


def test_rows_that_say_an_event_again_count_once(tmp_path: Path) -> None:
    head = "user_id,track_id,listened_at,disliked\n"
    rows = ["u,a,1391089608,", "u,b,1391089608,", "u,a,1391089608,", "v,a,1391089608,", "u,a,1391089609,",
            "u,a,1391089608,1", "u,a,,", "u,a,,", "u,a,2014-01-30T13:46:48Z,"]  # fmt: skip
    frame, problems = listens_of(tmp_path, head + "\n".join(rows))
    assert len(frame) == 7
    assert kinds(problems) == [("repeated-listen", 3, "a")]
    assert problems.frame()["reason"][0].startswith("2 rows say again")
    frame, problems = listens_of(tmp_path, head + "\n".join(rows), keep_repeats=True)
    assert (len(frame), len(problems)) == (9, 0)
    for whole in ("2014-01-30", "2014-01-30T13:46", "2014-01-30 13:46:00"):  # two of a day may be two
        frame, problems = listens_of(tmp_path, head + f"u,a,{whole},\nu,a,{whole},\n")
        assert (len(frame), len(problems)) == (2, 0)
    frame, _ = listens_of(tmp_path, "user_id,track_id,listened_at,plays\nu,a,1391089608,1\nu,a,1391089608,2\n")
    assert len(frame) == 2


def test_a_whole_table_of_unknown_tracks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"none of the 2 rows names a track .* 'spotify:a' in row 1; .* '11', '23', '1000'"
    ):
        listens_of(tmp_path, "user_id,track_id\nu,spotify:a\nu,spotify:b\n")


def test_accents_are_matched_and_what_looks_alike_is_named(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(
        "user_id,track_id\nu,Moto\u0308rhead\nv,Moto\u0308rhead\nu,t05\u00a0\nu,\u200bt05\nu,T05\nu,1.2E+11\nu,x\n"
        "u,e\u0301\n",
        encoding="utf-8",
    )
    catalogue = pl.Series(["Mot\u00f6rhead", "t05", "y", "\u00e9", "\u0065\u0301\u200b"])
    problems = Problems()
    frame = read_listens(tmp_path / "l.csv", catalogue, problems, ListensSettings()).frame
    assert frame["track_id"].to_list() == ["Mot\u00f6rhead", "Mot\u00f6rhead", "\u00e9"]  # as the catalogue spells them
    told = {(kind, row, value): reason for kind, _, row, value, reason in problems.frame().rows()}
    assert told == {
        ("unknown-track", 3, "t05\\xa0"): "no such id in the tracks table, but 't05' looks the same",
        ("unknown-track", 4, "\\u200bt05"): "no such id in the tracks table, but 't05' looks the same",
        ("unknown-track", 5, "T05"): "no such id in the tracks table, but 't05' looks the same",
        (
            "unknown-track",
            6,
            "1.2E+11",
        ): "no such id in the tracks table; a spreadsheet may have shortened a number to this",
        ("unknown-track", 7, "x"): "no such id in the tracks table",
        (
            "id-accents",
            1,
            "Moto\\u0308rhead",
        ): "taken for 'Mot\u00f6rhead', which differs only in how accents are stored (2 rows)",
        ("id-accents", 8, "e\\u0301"): "taken for '\u00e9', which differs only in how accents are stored (1 rows)",
    }
    two = pl.Series(["\u212b", "\u00c5", "y"])  # both are composed to one, so that neither is meant
    (tmp_path / "l.csv").write_text("user_id,track_id\nu,A\u030a\nu,y\n", encoding="utf-8")
    assert read_listens(tmp_path / "l.csv", two, problems, ListensSettings()).frame["track_id"].to_list() == ["y"]


def test_numbers_with_a_decimal_comma(tmp_path: Path) -> None:
    frame, problems = listens_of(tmp_path, 'user_id,track_id,rating\nu,a,"0,5"\nu,b,3\nv,a,"4,5"\n')
    assert frame.select("liked", "disliked").rows() == [(False, True), (False, False), (True, False)]
    assert len(problems) == 0
    frame, problems = listens_of(tmp_path, "user_id;track_id;plays\nu;a;3,25\nv;a;1,5\nw;a;x\n")
    assert frame["plays"].to_list() == [3.25, 1.5]
    assert kinds(problems) == [("bad-plays", 3, "x")]
    mixed = '"3,5"', "2.5", "1", '"4,5"', '"1,000"'
    text = "user_id,track_id,plays\n" + "".join(f"u,a,{plays}\n" for plays in mixed)
    frame, problems = listens_of(tmp_path, text)
    assert frame["plays"].to_list() == [2.5, 1.0]
    assert kinds(problems) == [("bad-plays", 1, "3,5"), ("bad-plays", 5, "1,000")]
    with pytest.raises(DataError, match="none of the 2 values of the column 'plays' fits"):
        listens_of(tmp_path, 'user_id,track_id,plays\nu,a,"1,000"\nv,a,"2,000"\n')  # thousands, or one and two


@pytest.mark.parametrize(
    ("column", "values"),
    [("plays", "0 -1 NaN"), ("rating", "good bad"), ("ms_played", "3:20 4:10"), ("liked", "maybe perhaps")],
)
def test_a_column_none_of_whose_values_fits_is_an_error(tmp_path: Path, column: str, values: str) -> None:
    rows = "".join(f"u{at},a,{value}\n" for at, value in enumerate(values.split()))
    with pytest.raises(DataError, match=f"of the column {column!r} fits"):
        listens_of(tmp_path, f"user_id,track_id,{column}\n{rows}")


def test_typed_times(tmp_path: Path) -> None:
    time = pl.Series([datetime(2014, 1, 30, 13, 46, 48, tzinfo=UTC), None], dtype=pl.Datetime("ms", "UTC"))
    typed = pl.DataFrame({"user_id": [1, 2], "track_id": ["a", "b"], "listened_at": time})
    for column in (time, time.dt.convert_time_zone("Europe/Paris"), time.dt.replace_time_zone(None)):
        typed.with_columns(column.alias("listened_at")).write_parquet(tmp_path / "l.parquet")
        problems = Problems()
        read = read_listens(tmp_path / "l.parquet", TRACKS, problems, ListensSettings())
        assert read.frame["listened_at"].to_list() == time.to_list()
        assert len(problems) == 0


def test_short_listens_are_counted_not_reported(tmp_path: Path) -> None:
    text = (
        "user_id,track_id,ms_played,liked,disliked\n"
        + "u,a,29999,,\nu,b,30000,,\nv,a,x,,\nv,b,-1,,\nw,a,5,,1\nw,b,,,\n"
    )
    frame, problems = listens_of(tmp_path, text, min_ms_played=30_000)
    assert pairs(frame) == [
        ("u", "b", 1.0),
        ("v", "a", 1.0),
        ("v", "b", 1.0),
        ("w", "a", 0.0),
        ("w", "b", 1.0),
    ]
    assert kinds(problems) == [("bad-ms-played", 3, "x"), ("bad-ms-played", 4, "-1")]
    assert problems.left_out == {"short-listen": 1}


def test_settings_are_checked() -> None:
    for wrong in ({"liked_plays": 0}, {"min_ms_played": -1}, {"likes": 2}):
        with pytest.raises((ValueError, ConfigError)):
            ListensSettings.model_validate(wrong)


def a_listens(rows: list[tuple[str, str, float, bool]]) -> Listens:
    return Listens(
        pl.DataFrame(
            [(user, track, plays, None, False, disliked) for user, track, plays, disliked in rows],
            schema=LISTENS_SCHEMA,
            orient="row",
        )
    )


def test_plays_add_up_and_dislikes_bar() -> None:
    listens = a_listens(
        [
            ("v", "b", 2.0, False),
            ("u", "a", 1.0, False),
            ("v", "b", 3.5, False),
            ("v", "a", 9.0, False),
            ("v", "a", 0.0, True),
            ("w", "c", 0.0, True),
            ("u", "gone", 5.0, False),
        ]
    )
    plays = plays_of(listens, ["a", "b", "c", "d"])
    assert plays.user_ids == ["v", "u", "w"]  # as they first appear
    assert plays.counts.toarray().tolist() == [[0, 5.5, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert plays.barred.toarray().tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert (plays.counts.dtype, plays.counts.nnz, plays.barred.dtype) == (np.float32, 2, np.bool_)
    assert plays.counts.has_sorted_indices
    assert plays.counts.indices.dtype == np.int32
    chosen = plays_of(listens, ["b", "a"], ["u", "x", "v"])
    assert chosen.counts.toarray().tolist() == [[0, 1], [0, 0], [5.5, 0]]
    assert chosen.barred.toarray().tolist() == [[0, 0], [0, 0], [0, 1]]


def test_plays_of_nothing_and_of_extremes() -> None:
    empty = plays_of(a_listens([]), ["a", "b"])
    assert (empty.counts.shape, empty.user_ids) == ((0, 2), [])
    extreme = plays_of(a_listens([("u", "a", 1e-300, False), ("u", "b", 1e300, False)]), ["a", "b"])
    assert np.isfinite(extreme.counts.data).all()
    assert extreme.counts.nnz == 2


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["u", "v", "w"]),
            st.sampled_from(["a", "b"]),
            st.integers(0, 5).map(float),
            st.booleans(),
        )
    )
)
def test_plays_agree_with_a_dictionary(rows: list[tuple[str, str, float, bool]]) -> None:
    plays = plays_of(a_listens(rows), ["b", "x", "a"])
    want: dict[tuple[str, str], float] = {}
    disliked = {(user, track) for user, track, _, dislike in rows if dislike}
    for user, track, count, _ in rows:
        want[user, track] = want.get((user, track), 0.0) + count
    for user_row, user in enumerate(plays.user_ids):
        for item, track in enumerate(plays.track_ids):
            barred = (user, track) in disliked
            assert bool(plays.barred[user_row, item]) == barred
            assert plays.counts[user_row, item] == (0.0 if barred else want.get((user, track), 0.0))
    assert plays.user_ids == list(dict.fromkeys(user for user, *_ in rows))


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not beside the repository")
def test_the_real_listens_read_without_a_problem() -> None:
    problems = Problems()
    sizes = {}
    for name in ("emotify", "hetrec-lastfm", "hetrec-spotify", "listening-tweets"):
        ids = read_tracks(DATA / name / "tracks.csv", problems).frame["track_id"]
        listens = read_listens(DATA / name / "listens.csv", ids, problems, ListensSettings())
        sizes[name] = (len(listens), plays_of(listens, ids.to_list()).counts.shape[0])
    assert sizes == {
        "emotify": (6_180, 453), "hetrec-lastfm": (92_834, 1_892), "hetrec-spotify": (64_031, 1_881),
        "listening-tweets": (55_531, 10_833),
    }  # fmt: skip
    assert problems.counts() == {}
