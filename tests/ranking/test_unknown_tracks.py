"""Tracks of which nothing at all is known: never placed by chance, only where nothing else is left."""

from pathlib import Path

import numpy as np
import pytest

from helpers.catalogues import quick_settings
from helpers.command import run
from helpers.stores import copied, rows
from pipelines.build import Inputs, build
from recsys.ranking.diversity import Source, Variety, choose
from recsys.ranking.filters import Filters
from recsys.ranking.model import Model
from recsys.ranking.uploaded_tracks import UploadedTracks
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.types import RankedList
from recsys.util.progress import Silent
from recsys.util.topk import top_k

UNKNOWN = ["x0", "x1", "x2"]  # one of them has a title, which says nothing that could be learned from
KNOWN = [f"t{n}" for n in range(11)]
USERS = [f"u{n}" for n in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue whose unknown tracks stand first in the table, below a folder that reads as a partition."""
    folder = tmp_path_factory.mktemp("unknown") / "user=me" / "generation=2"
    folder.mkdir(parents=True)
    lines = ["track_id,title,artist,genre", "x0,,,", "x1,Untitled,,", "t0,A,Ann,rock"]
    lines += [f"t{n},A,{('Ann', 'Bob', 'Ann')[n % 3]},{('rock', 'jazz')[n % 2]}" for n in range(1, 11)]
    (folder / "tracks.csv").write_text("\n".join([*lines, "x2,,,"]) + "\n")
    heard = [f"u{user},t{(user * 2 + n) % 10},{1_400_000_000 + user * 100 + n}" for user in range(6) for n in range(4)]
    (folder / "listens.csv").write_text("\n".join(["user_id,track_id,listened_at", *heard]) + "\n")
    build(Inputs(folder / "tracks.csv", folder / "listens.csv"), folder / "store", quick_settings(), Silent())
    return folder


@pytest.fixture(scope="module")
def recommender(folder: Path) -> Recommender:
    return Recommender.open(folder / "store")


def ids(found: RankedList) -> list[str]:
    return [track.track_id for track in found.tracks]


def check(found: RankedList, n_known: int) -> None:
    """All that is known comes first, then what is not; nothing is missing."""
    assert set(ids(found)[n_known:]) == set(UNKNOWN)
    assert set(UNKNOWN).isdisjoint(ids(found)[:n_known])
    assert len(ids(found)) == n_known + len(UNKNOWN)


def test_a_store_below_folders_that_read_as_partitions_can_be_built(folder: Path) -> None:
    store = folder / "store"
    assert rows(store, "SELECT count(*) FROM tracks") == [(14,)]
    assert rows(store, "SELECT count(DISTINCT user_id) FROM recommendations") == [(6,)]


@pytest.mark.parametrize("user", [*USERS, "nobody"])
def test_lists_have_them_last(recommender: Recommender, user: str) -> None:
    n_known = 11 if user == "nobody" else 7
    check(recommender.recommend(user, 200), n_known)
    check(recommender.recommend(user, 200, diversity=0.9), n_known)
    check(recommender.recommend(user, 200, filters=Filters(exclude_track_ids=("t10",))), n_known - 1)
    assert set(UNKNOWN).isdisjoint(ids(recommender.recommend(user, n_known)))
    scores = [track.score for track in recommender.recommend(user, 200, max_per_artist=200, diversity=0).tracks]
    assert scores == sorted(scores, reverse=True)


def test_lists_from_tracks_and_of_parts_have_them_last(recommender: Recommender) -> None:
    check(recommender.recommend_from_tracks(["t0", "t1"], 200), 9)
    for part in (None, *recommender.parts):
        ranked = recommender.rank(USERS, 14, part=part).items
        places = np.isin(ranked, recommender.model.unknown)
        assert [row.tolist() for row in places[:, 7:10]] == [[True] * 3] * 6
        assert not places[:, :7].any()
        folded = recommender.rank_folded(recommender.model.counts[:3], 14, part=part).items
        places = np.isin(folded, recommender.model.unknown)
        assert [row.tolist() for row in places[:, 7:10]] == [[True] * 3] * 3, "and of somebody who is no user"
        assert not places[:, :7].any()


def test_lists_that_follow_a_listen_have_them_last(folder: Path, tmp_path: Path) -> None:
    from recsys.eventlog.events import Listened
    from recsys.live.service import LiveUpdater

    store = copied(folder / "store", tmp_path / "key=value")
    live = LiveUpdater(Store(store), Recommender.open(store))
    live.record([Listened("u0", "t10"), Listened("new", "t3")])
    live.close()
    check(Recommender.open(store).recommend("u0", 200), 6)
    check(Recommender.open(store).recommend("new", 200), 10)


def test_only_what_no_space_knows_and_nobody_played_is_unknown(recommender: Recommender) -> None:
    model = recommender.model
    assert model.items.ids(model.unknown) == UNKNOWN
    spaces = {name: vectors for name, vectors in model.spaces.items() if name == "taste"}
    fields = (model.users, model.items, model.blend, model.user_vectors, model.item_vectors, model.counts, model.barred)
    assert set(Model(*fields, spaces).items.ids(Model(*fields, spaces).unknown)) == {*UNKNOWN, "t10"}
    assert len(Model(*fields, {}).unknown) == 0, "where nothing was kept there is nothing to tell them by"


def test_the_last_rows_of_a_ranking_fill_what_the_others_leave() -> None:
    vectors = np.array([[9.0], [1.0], [8.0], [2.0], [3.0]], dtype=np.float32)
    queries, last = np.array([[1.0], [-1.0]], dtype=np.float32), np.array([0, 2], dtype=np.int32)
    found = top_k(queries, vectors, 6, last=last)
    assert found.items.tolist() == [[4, 3, 1, 0, 2, -1], [1, 3, 4, 2, 0, -1]]
    assert found.scores.tolist() == [[3, 2, 1, 1, 1, -np.inf], [-1, -2, -3, -8, -9, -np.inf]]
    assert top_k(queries, vectors, 2, last=last).items.tolist() == [[4, 3], [1, 3]]
    among = top_k(queries, vectors, 3, candidates=np.array([0, 4], np.int32), last=last)
    assert among.items.tolist() == [[4, 0, -1], [4, 0, -1]]
    assert top_k(queries, vectors, 3, candidates=np.array([0, 2], np.int32), last=last).items[0].tolist() == [0, 2, -1]


def test_variety_leaves_unknown_tracks_last() -> None:
    """An unknown track is like no other, which diversity alone would praise."""
    alike = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=np.float32)
    source = Source(
        lambda depth: (np.arange(4, dtype=np.int32)[:depth], np.array([3, 2, 1, 0], np.float32)[:depth]),
        lambda items: [None] * len(items), lambda items: alike[items], lambda items: items == 3,
    )  # fmt: skip
    assert choose(source, 4, Variety(diversity=0.9))[0].tolist() == [0, 1, 2, 3]


# ---- somebody unknown who filters ----------------------------------------------------------------------------


def test_filters_leave_the_popular_list_as_long_as_it_can_be(recommender: Recommender) -> None:
    """The cap of popular lists was not asked for, so it gives way; the note says only what is true."""
    found = recommender.recommend("nobody", 5, filters=Filters(genres=("rock",)))
    assert (len(found.tracks), found.note, found.source) == (5, "", "popular")
    artists = [track.about["artist"] for track in found.tracks]
    assert max(map(artists[:4].count, artists[:4])) == 2, "it holds as long as there are others"
    everything = recommender.recommend("nobody", 14, filters=Filters(exclude_track_ids=("nowhere",)))
    assert ids(everything) == ids(recommender.recommend("nobody", 14))
    found = recommender.recommend("nobody", 9, filters=Filters(genres=("rock",)))
    assert (len(found.tracks), found.note) == (6, "6 of 9 tracks: the catalogue has no more that may be in this list")
    found = recommender.recommend("nobody", 11, diversity=0.5)
    assert (len(found.tracks), found.note) == (11, "")
    for asked in (2, 1):  # a cap that was asked for stays, be it the usual one
        for filters in (Filters(), Filters(exclude_track_ids=("nowhere",))):
            found = recommender.recommend("nobody", 9, max_per_artist=asked, filters=filters)
            known = [track.about["artist"] for track in found.tracks if "artist" in track.about]
            assert sorted(known) == ["Ann"] * asked + ["Bob"] * asked


def test_a_list_that_deletions_left_short_is_filled_again(folder: Path, tmp_path: Path) -> None:
    from recsys.live.service import LiveUpdater

    store = copied(folder / "store", tmp_path)
    live = LiveUpdater(Store(store), Recommender.open(store))
    live.delete_track("t10")
    live.close()
    for user in ("u0", "nobody"):
        found = Recommender.open(store).recommend(user, 6)
        assert (len(found.tracks), found.note, "t10" in ids(found)) == (6, "", False)


def test_a_full_list_that_deletions_left_short_is_filled_from_all_tracks(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of 200 among more tracks: what is left of it is not all that there is."""
    stored, model = recommender.tables.recommended, recommender.model
    monkeypatch.setattr(recommender.tables, "recommended", lambda user: stored(user)[:5])
    before = ids(recommender.recommend("u0", 5))
    none = UploadedTracks.none(model.item_vectors.shape[1], len(model.items))
    shorter = recommender.with_uploads(none.with_hidden(model.items.find(before[1:3]).tolist()))
    found = shorter.recommend("u0", 5)
    assert (len(found.tracks), found.note) == (5, "")
    assert set(before) - set(ids(found)) == set(before[1:3])
    assert set(UNKNOWN).isdisjoint(ids(found))


# ---- what is said --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_control_characters_never_reach_the_terminal(tmp_path: Path) -> None:
    odd = "\x1b[31mred\x9b1m\u202e\x07"
    (tmp_path / "tracks.csv").write_text(
        f"track_id,title,genre,year\na{odd},{odd},rock,{odd}\nb,y,rock,1999\nc,{odd},jazz,2000\n", encoding="utf-8"
    )
    (tmp_path / "listens.csv").write_text(f"user_id,track_id\nu{odd},b\nv,a{odd}\nv,{odd}\n", encoding="utf-8")
    (tmp_path / "quick.toml").write_text("[hybrid.content]\nepochs = 1\n[hybrid.lightfm]\nepochs = 1\n")
    store = tmp_path / "store"
    tables = ("--tracks", tmp_path / "tracks.csv", "--listens", tmp_path / "listens.csv")
    ran = run("build", *tables, "--store", store, "--config", tmp_path / "quick.toml")
    assert ran.status == 0, ran.err
    said = [ran.err]
    assert f"e.g. bad-year: {tmp_path}/tracks.csv row 1 ('\\x1b[31mred\\x9b1m\\u202e\\x07'): a year is" in ran.err
    assert f"e.g. unknown-track: {tmp_path}/listens.csv row 3 ('\\x1b[31mred" in ran.err
    for command in (("recommend", "v"), ("recommend", "v", "--json"), ("similar", f"a{odd}"), ("similar", f"b{odd}"),
                    ("similar", "b", "--json"), ("recommend", f"u{odd}"), ("status",),
                    ("sql", "SELECT * FROM build_problems"), ("sql", "SELECT * FROM tracks")):  # fmt: skip
        ran = run(*command, "--store", store)
        said += [ran.out, ran.err]
    ran = run("build", "--tracks", tmp_path / f"none{odd}.csv", "--store", store)
    assert ran.status == 2
    said += [ran.err]
    for text in said:
        assert set(text) & {"\x1b", "\x9b", "\x07", "\u202e"} == set(), text
    strict = run("build", *tables, "--store", tmp_path / "other", "--strict")
    assert "row 1 ('\\x1b[31mred" in strict.complaint
