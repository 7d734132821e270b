"""serving.lmdb says what the DuckDB tables say, row for row, whatever the ids look like."""

import json
from pathlib import Path

import lmdb
import numpy as np
import polars as pl
import pytest

from helpers.catalogues import quick_settings
from helpers.stores import copied, rows
from pipelines.build import Inputs, build
from recsys.errors import ArtefactError
from recsys.recommender import Recommender
from recsys.store.duckdb_tables import StoredTables
from recsys.store.generation import Store
from recsys.store.keys import LONGEST, key_of
from recsys.store.lmdb_compile import _records, compile_lookup
from recsys.store.lmdb_lookup import FILE, Lookup, open_lookup
from recsys.store.record import Record, head_of, pack, track_bytes
from recsys.types import SPACES
from recsys.util.progress import Silent
from recsys.v1 import recommender_pb2 as pb

ODD = ["007", "ü" * 300, "x" * 2000, "with space", "a\nb", "🎵", "t'quote\"", "0", "é" * 199]


@pytest.fixture(scope="module")
def odd_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue whose ids are long, empty-looking or strange; one user has only disliked, two tracks are new."""
    folder = tmp_path_factory.mktemp("odd")
    rng = np.random.default_rng(0)
    tracks = [*ODD, *(f"t{n}" for n in range(60))]
    artists = [f"A{n % 9}" for n in range(len(tracks))]
    pl.DataFrame({"track_id": tracks, "artist": artists, "genre": [f"g{n % 4}" for n in range(len(tracks))],
                  "year": [1990 + n % 30 for n in range(len(tracks))]}).write_csv(folder / "tracks.csv")  # fmt: skip
    heard = [(user, tracks[t], 5) for user in [*ODD, "u1", "u2"] for t in rng.choice(67, 9, replace=False)]
    frame = pl.DataFrame([*heard, ("grudge", "t3", 1)], schema=["user_id", "track_id", "rating"], orient="row")
    frame.write_csv(folder / "listens.csv")
    build(Inputs(folder / "tracks.csv", folder / "listens.csv"), folder / "store", quick_settings(), Silent())
    return folder / "store"


def opened(store: Path) -> tuple[Lookup, StoredTables]:
    generation = Store(store).current()
    return open_lookup(generation / FILE), StoredTables(generation / "recommendations.duckdb")


@pytest.mark.parametrize("which", ["tiny", "odd"])
def test_every_list_and_track_is_the_same_in_both(which: str, tiny_store: Path, odd_store: Path) -> None:
    store = tiny_store if which == "tiny" else odd_store
    lookup, tables = opened(store)
    users = [user for (user,) in rows(store, "SELECT user_id FROM users")]
    assert len(users) > 10
    for user in users:
        assert lookup.recommended(user) == tables.recommended(user) != []
    track_ids = [track for (track,) in rows(store, "SELECT track_id FROM tracks")]
    assert lookup.about(track_ids) == tables.about(track_ids)
    n_neighbours = 0
    for track_id in track_ids:
        for space in SPACES:
            found = lookup.neighbours(track_id, space)
            assert found == tables.neighbours(track_id, space)
            n_neighbours += len(found)
    assert n_neighbours == rows(store, "SELECT count(*) FROM track_neighbours")[0][0] > 0


def test_answers_tell_generation_source_and_rows(odd_store: Path) -> None:
    lookup, _ = opened(odd_store)
    recommender = Recommender.open(odd_store)
    for user, source in (("007", "personal"), ("x" * 2000, "personal"), ("grudge", "popular")):
        record = Record(lookup.list_of(user) or b"")
        response = pb.RecommendResponse.FromString(record.first(7))
        assert (response.generation, response.source, len(response.tracks)) == (recommender.generation, source, 7)
        assert record.rows.tolist() == recommender.model.items.rows([t for t, _, _ in record.found()]).tolist()
        assert [t.track_id for t in response.tracks] == [t.track_id for t in recommender.recommend(user, 7).tracks]
    nobody = pb.RecommendResponse.FromString(Record(lookup.popular).first(200))
    expected = recommender.recommend("nobody knows them", 200)
    assert [t.track_id for t in nobody.tracks] == [t.track_id for t in expected.tracks]
    assert (nobody.source, nobody.generation) == ("popular", expected.generation)
    assert lookup.list_of("nobody knows them") is None
    assert [lookup.row(t) for t in ("007", "t59", "no track")] == [0, len(ODD) + 59, -1]


def test_lists_packed_all_at_once_are_those_packed_one_by_one() -> None:
    rng = np.random.default_rng(1)
    names = [f"{'ü' * int(n)}{place}" for place, n in enumerate(rng.integers(0, 12, 50))]
    lists = [[names[i] for i in rng.choice(50, n, replace=False)] for n in (0, 5, 50, 1)]
    scores = [[float(np.float32(x)) for x in rng.choice([0.0, -0.0, 1.5, -3.25], len(one))] for one in lists]
    reasons = [[str(rng.choice(names)) if rng.random() < 0.7 else None for _ in one] for one in lists]
    block = pl.DataFrame(
        {
            "key": list("abcd"),
            "ids": lists,
            "scores": scores,
            "reasons": reasons,
            "personal": [True, False, True, True],
        },
        schema_overrides={"ids": pl.List(pl.String), "scores": pl.List(pl.Float32), "reasons": pl.List(pl.String)},
    )
    row_of = {name: row for row, name in enumerate(names)}
    row_frame = pl.DataFrame({"track_id": names, "row": list(range(50))}, schema_overrides={"row": pl.Int32})
    found = _records(block, head_of("g", "personal"), head_of("g", "popular"), row_frame)
    for place, source in enumerate(["personal", "popular", "personal", "personal"]):
        lines = [track_bytes(one) for one in zip(lists[place], scores[place], reasons[place], strict=True)]
        assert found[place] == pack(head_of("g", source), lines, [row_of[name] for name in lists[place]])


@pytest.mark.parametrize("length", [1, LONGEST, LONGEST + 1, 5000])
def test_keys_fit_into_lmdb_and_differ(length: int) -> None:
    keys = {key_of("a" * length), key_of("b" * length), key_of("é" * length), key_of("")}
    assert len(keys) == 4
    assert all(0 < len(key) <= LONGEST for key in keys)


# ---- damage ------------------------------------------------------------------------------------------------------


def damaged(store: Path, to: Path, how: str) -> Path:
    file = Store(copied(store, to)).current() / FILE
    if how == "missing":
        file.unlink()
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "noise":
        file.write_bytes(np.random.default_rng(0).bytes(65536))
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:5000])
    elif how == "another format":
        with lmdb.open(str(file), subdir=False, max_dbs=8, map_size=1 << 30) as environment:
            meta = environment.open_db(b"meta")
            with environment.begin(write=True, db=meta) as transaction:
                transaction.put(b"meta", json.dumps({"format": 99, "generation": "g"}).encode())
    return file


@pytest.mark.parametrize("how", ["missing", "empty", "noise", "truncated", "another format"])
def test_a_damaged_file_is_told_in_a_sentence(how: str, odd_store: Path, tmp_path: Path) -> None:
    file = damaged(odd_store, tmp_path, how)
    with pytest.raises(ArtefactError, match="build again"):
        Lookup(file)


def test_a_disk_that_is_full_is_an_oserror(odd_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = copied(odd_store, tmp_path)
    generation, recommender = Store(store).current(), Recommender.open(store)
    (generation / FILE).unlink()
    real = lmdb.open
    monkeypatch.setattr(lmdb, "open", lambda *args, **named: real(*args, **{**named, "map_size": 1 << 16}))
    with pytest.raises(OSError, match=FILE):
        compile_lookup(generation, "g", recommender.model.items.all(), recommender.popular(), Silent())
    assert not (generation / "lists.parquet").exists()
