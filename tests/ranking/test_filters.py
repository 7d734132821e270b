"""Filters: what a list may hold, from the stored list where that is enough and from the whole catalogue where not."""

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.catalogues import quick_settings
from pipelines.build import Inputs, build
from recsys.errors import ArtefactError
from recsys.ranking.attributes import TrackAttributes
from recsys.ranking.filters import NO_FILTERS, Filters, first_places
from recsys.ranking.uploaded_tracks import Fresh, UploadedTracks
from recsys.recommender import Recommender, open_store
from recsys.store.generation import Store
from recsys.types import RankedList
from recsys.util.progress import Silent

N = 320  # more than a stored list holds
ARTISTS = [None if n % 10 == 9 else f"Artist {n % 23}" for n in range(N)]
GENRES = [[["Rock", "pop"], ["jazz"], [], ["POP"]][n % 4] for n in range(N)]
YEARS = [None if n % 7 == 0 else 1960 + n % 61 for n in range(N)]
UNHEARD = range(300, N)
NOTHING = np.zeros(0, dtype=np.int32)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filtered")
    pl.DataFrame({"track_id": [f"t{n}" for n in range(N)], "artist": ARTISTS, "year": YEARS,
                  "genre": [";".join(genres) for genres in GENRES]}).write_csv(folder / "tracks.csv")  # fmt: skip
    rng = np.random.default_rng(0)
    heard = [(f"u{user}", f"t{track}") for user in range(12) for track in rng.choice(300, 40, replace=False)]
    pl.DataFrame(heard, schema=["user_id", "track_id"], orient="row").write_csv(folder / "listens.csv")
    build(Inputs(folder / "tracks.csv", folder / "listens.csv"), folder / "store", quick_settings(), Silent())
    return folder / "store"


@pytest.fixture(scope="module", params=["duckdb", "lmdb"])
def recommender(request: pytest.FixtureRequest, store: Path) -> Recommender:
    return open_store(store, request.param)


def numbers(ranked: RankedList) -> list[int]:
    return [int(track.track_id[1:]) for track in ranked.tracks]


def expected(recommender: Recommender, user: str, k: int, passes: list[bool], cap: int | None = None) -> list[int]:
    """The slow way: score everything, drop what may not be there, cut."""
    scores = recommender.score([user], [f"t{n}" for n in range(N)])[0]
    row = int(recommender.model.users.find([user])[0])
    heard = set(recommender.model.heard(row).tolist())
    order = [n for n in np.lexsort((np.arange(N), -scores)) if passes[n] and n not in heard]
    seen: dict[str, int] = {}
    kept = []
    for n in order:
        artist = ARTISTS[n]
        if artist is not None and cap is not None:
            seen[artist] = seen.get(artist, 0) + 1
            if seen[artist] > cap:
                continue
        kept.append(int(n))
    return kept[:k]


CASES = {
    "genre": (Filters(genres=("ROCK ",)), [n % 4 == 0 for n in range(N)]),
    "two genres": (Filters(genres=("jazz", "pop")), [n % 4 != 2 for n in range(N)]),
    "unknown genre": (Filters(genres=("polka",)), [False] * N),
    "artist": (Filters(artists=("artist 3", "Artist 4")), [a in ("Artist 3", "Artist 4") for a in ARTISTS]),
    "from a year": (Filters(min_year=2000), [y is not None and y >= 2000 for y in YEARS]),
    "to a year": (Filters(max_year=1975), [y is not None and y <= 1975 for y in YEARS]),
    "one year": (Filters(min_year=1999, max_year=1999), [y == 1999 for y in YEARS]),
    "new": (Filters(only_new=True), [n in UNHEARD or None for n in range(N)]),
    "but some": (Filters(exclude_track_ids=tuple(f"t{n}" for n in range(0, N, 2))), [n % 2 == 1 for n in range(N)]),
    "all": (Filters(genres=("pop",), min_year=1970, artists=tuple(f"artist {n}" for n in range(12))),
            ["pop" in [g.lower() for g in GENRES[n]] and (YEARS[n] or 0) >= 1970 and ARTISTS[n] is not None
             and int(str(ARTISTS[n]).split()[1]) < 12 for n in range(N)]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("k", "cap"), [(5, None), (20, 2), (200, None), (60, 1)])
def test_lists_are_the_best_of_what_passes(recommender: Recommender, case: str, k: int, cap: int | None) -> None:
    filters, passes = CASES[case]
    if case == "new":
        unheard = recommender.plays.n_listeners == 0
        passes = [bool(unheard[n]) for n in range(N)]
    for user in ("u0", "u7"):
        found = recommender.recommend(user, k, filters=filters, max_per_artist=cap, describe=False)
        best = expected(recommender, user, k, passes, cap)
        assert sorted(numbers(found)) == sorted(set(numbers(found)))
        assert all(passes[n] for n in numbers(found))
        # two tracks of which the same is known tie, and rounding decides
        scores = recommender.score([user], [f"t{n}" for n in range(N)])[0]
        np.testing.assert_allclose(scores[numbers(found)], scores[best], atol=1e-5)
        assert found.source == "personal"


def test_lists_that_are_short_say_so_and_others_do_not(recommender: Recommender) -> None:
    short = recommender.recommend("u0", 20, filters=Filters(min_year=1999, max_year=1999))
    assert 0 < len(short.tracks) < 20
    assert short.note == f"{len(short.tracks)} of 20 tracks: the catalogue has no more that may be in this list"
    assert recommender.recommend("u0", 20, filters=Filters(genres=("pop",))).note == ""
    assert recommender.recommend("u0", 20).note == ""


def test_heard_tracks_may_be_asked_for(recommender: Recommender) -> None:
    heard = {recommender.model.items.id(int(row)) for row in recommender.model.heard(0)}
    found = recommender.recommend("u0", 60, filters=Filters(include_heard=True))
    assert len(heard & {t.track_id for t in found.tracks}) > 10
    assert not heard & {t.track_id for t in recommender.recommend("u0", 200).tracks}


def test_diversity_chooses_among_what_passes(recommender: Recommender) -> None:
    filters = Filters(genres=("jazz",))
    plain, varied = (numbers(recommender.recommend("u1", 15, filters=filters, diversity=d)) for d in (0.0, 0.8))
    assert plain[0] == varied[0]
    assert plain != varied
    assert all(n % 4 == 1 for n in varied)


def test_unknown_users_get_popular_tracks_that_pass(recommender: Recommender) -> None:
    found = recommender.recommend("nobody knows them", 10, filters=Filters(genres=("jazz",)))
    assert (found.source, len(found.tracks)) == ("popular", 10)
    assert all(n % 4 == 1 for n in numbers(found))


def test_excluding_what_nobody_knows_changes_nothing(recommender: Recommender) -> None:
    found = recommender.recommend("u2", 20, filters=Filters(exclude_track_ids=("no such track",)))
    assert numbers(found) == numbers(recommender.recommend("u2", 20))


def test_uploads_pass_by_what_is_said_of_them() -> None:
    said = [{"artist": "Neu", "year": 1999, "genres": ["Pop"]}, {"artist": None, "year": None, "genres": []}]
    fresh = [
        Fresh({"track_id": name, **about}, np.zeros(1, np.float32), {}) for name, about in zip("ab", said, strict=True)
    ]
    uploads = UploadedTracks.none(1, n_built=3).with_tracks(fresh)
    attributes, rows = TrackAttributes.unknown(np.ones(3, np.float32)), np.array([0, 3, 4], dtype=np.int32)
    for filters, passing in [
        (NO_FILTERS, [True, True, True]),
        (Filters(only_new=True), [False, True, True]),
        (Filters(genres=("pop",)), [False, True, False]),
        (Filters(artists=("NEU",)), [False, True, False]),
        (Filters(min_year=1999, max_year=1999), [False, True, False]),
        (Filters(max_year=1998), [False, False, False]),
    ]:
        assert filters.allowed(rows, attributes, uploads, NOTHING).tolist() == passing
    assert NO_FILTERS.allowed(rows, attributes, uploads, np.array([4], np.int32)).tolist() == [True, True, False]


@given(st.lists(st.tuples(st.booleans(), st.none() | st.integers(0, 3)), max_size=30), st.none() | st.integers(1, 3),
       st.integers(1, 12))  # fmt: skip
def test_places_are_the_first_that_pass_within_the_cap(tracks: list, cap: int | None, k: int) -> None:
    places = first_places(np.array([p for p, _ in tracks], bool), lambda at: [tracks[p][1] for p in at], cap, k)
    assert places == sorted(places)
    assert len(places) <= k
    assert all(tracks[place][0] for place in places)
    artists = [tracks[place][1] for place in places if tracks[place][1] is not None]
    counts, most = Counter(artists), cap or len(tracks) + 1
    assert all(n <= most for n in counts.values())
    might = [p for p, (passes, artist) in enumerate(tracks) if passes and p not in places]
    left = [p for p in might if tracks[p][1] is None or counts[tracks[p][1]] < most]
    assert len(places) == k or not left


def made_traits(n: int, n_genres: int, seed: int) -> tuple[TrackAttributes, list[list[str]]]:
    """Traits of n tracks with up to three of so many genres; a third has no artist, a third no year."""
    rng = np.random.default_rng(seed)
    genres = [[f"g{g}" for g in rng.integers(0, n_genres, rng.integers(0, 4))] for _ in range(n)]
    columns = {
        "artist": [f"Artist {a}" if a < 4 else None for a in rng.integers(0, 6, n)],
        "year": [int(y) if y < 2004 else None for y in rng.integers(1998, 2007, n)],
        "genres": genres,
    }
    schema = {"artist": pl.String(), "year": pl.Int32(), "genres": pl.List(pl.String())}
    return TrackAttributes.of(pl.DataFrame(columns, schema=schema), rng.integers(0, 2, n).astype(np.float32)), genres


MANY, FEW = made_traits(400, 200, 0), made_traits(400, 9, 1)


def wishes_of(rng: np.random.Generator) -> Filters:
    """A few wishes at random, often none."""
    genres = tuple(f"G{n} " for n in rng.integers(0, 10, rng.choice([0, 0, 2, 5])))
    artists = tuple(rng.choice(["artist 0", "ARTIST 3", "nobody"], rng.choice([0, 0, 2])).tolist())
    years = [None if rng.random() < 0.6 else int(year) for year in (rng.integers(1998, 2001), rng.integers(2001, 2004))]
    return Filters((), genres, artists, *years, only_new=bool(rng.random() < 0.2))


@pytest.mark.parametrize(("attributes", "genres"), [MANY, FEW], ids=["200 genres", "9 genres"])
def test_rows_have_the_genres_that_they_have(attributes: TrackAttributes, genres: list[list[str]]) -> None:
    for wanted in (["g3"], ["G3 ", "g7", "no such"], ["no such"], [f"g{n}" for n in range(0, 200, 3)]):
        names = {name.strip().lower() for name in wanted}
        expected = [not names.isdisjoint(own) for own in genres]
        assert attributes.has_genre(np.arange(400, dtype=np.int32), wanted).tolist() == expected
        assert list(map(attributes.genre_test(wanted), range(400))) == expected
    shared = [row for row, own in enumerate(genres) if own]
    assert len(shared) > 200, "or else there is little to find"


@pytest.mark.parametrize("attributes", [MANY[0], FEW[0]], ids=["200 genres", "9 genres"])
def test_one_row_after_another_finds_what_arrays_find(attributes: TrackAttributes) -> None:
    n_full = n_none = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        rows = rng.permutation(402 if seed % 3 == 0 else 400)[:200].tolist()  # above 399 are uploads
        wishes, cap, k = wishes_of(rng), [None, 1, 2][seed % 3 - 1], int(rng.integers(1, 30))
        excluded = set(rng.integers(-1, 400, 40).tolist())
        items = np.array([row for row in rows if row < 400], dtype=np.int32)
        passing = wishes.allowed(items, attributes, UploadedTracks.none(1), np.array(sorted(excluded), dtype=np.int32))
        artists = [None if number < 0 else number for number in attributes.artists[items].tolist()]
        places = first_places(passing, lambda at, artists=artists: [artists[place] for place in at], cap, k)
        expected = items[places].tolist()
        upload = next((place for place, row in enumerate(rows) if row >= 400), len(rows))
        found = wishes.first(rows, attributes, excluded, cap, k)
        if upload < len(rows) and (len(expected) < k or rows.index(expected[-1]) > upload):
            assert found is None
            n_none += 1
        else:
            assert found is not None
            assert [rows[place] for place in found] == expected
            n_full += len(found) == k
    assert n_none > 20
    assert n_full > 100


def test_a_damaged_trait_is_told_in_a_sentence(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "arrays"
    folder.mkdir()
    TrackAttributes.load(Store(store).current() / "arrays").save(folder)
    again = TrackAttributes.load(folder)
    assert again.has_artist(np.arange(N, dtype=np.int32), ["ARTIST 3"]).sum() == sum(a == "Artist 3" for a in ARTISTS)
    (folder / "trait_genre_bits.npy").unlink()  # as in generations of before there were any
    older = TrackAttributes.load(folder)
    assert older.genre_bits.tolist() == again.genre_bits.tolist()
    assert older.genre_bits.any()
    (folder / "trait_years.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ArtefactError, match="build again"):
        TrackAttributes.load(folder)
