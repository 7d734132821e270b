"""Variety in lists, on candidates whose answers can be worked out by hand, and as a store keeps it."""

from pathlib import Path

import numpy as np
import pytest

from helpers.catalogues import TinyCatalogue, quick_settings
from helpers.made import made_listens, made_tracks
from pipelines.build import Inputs, build, read_catalogue
from recsys.catalogue.problems import Problems
from recsys.fit import fit
from recsys.ranking.diversity import POOL, ListSettings, Source, Variety, cap_per_artist, choose, mmr
from recsys.recommender import Recommender
from recsys.types import Float32, Int32
from recsys.util.progress import Silent

N = 2000


def made(n_artists: int, asked: list[int] | None = None) -> Source:
    """N candidates in the order of their rows; the first 500 are all by artist 0, then ``n_artists`` take turns."""

    def best(depth: int) -> tuple[Int32, Float32]:
        if asked is not None:
            asked.append(depth)
        items = np.arange(min(depth, N), dtype=np.int32)
        return items, (N - items).astype(np.float32)

    def artists(items: Int32) -> list[str | None]:
        return [f"a{0 if item < 500 else 1 + item % n_artists}" for item in items]

    return Source(best, artists, lambda items: np.eye(2, dtype=np.float32)[items // 2 % 2])


def test_an_artist_appears_at_most_so_often_and_unknown_ones_always() -> None:
    artists = ["a", None, "b", "a", "a", None, None, "b", "c"]
    assert cap_per_artist(artists, 1) == [0, 1, 2, 5, 6, 8]
    assert cap_per_artist(artists, 2) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert cap_per_artist([], 1) == []


def test_a_cap_that_leaves_too_few_looks_deeper() -> None:
    asked: list[int] = []
    items, scores = choose(made(50, asked), 30, Variety(max_per_artist=1))
    assert items.tolist() == [0, *range(500, 529)]
    assert scores.tolist() == [N - item for item in items.tolist()]
    assert asked == [POOL, 4 * POOL], "no deeper than it must"


def test_only_a_whole_catalogue_without_more_makes_a_short_list() -> None:
    asked: list[int] = []
    items, _ = choose(made(7, asked), 30, Variety(max_per_artist=2))
    assert items.tolist() == [0, 1, *range(500, 514)]
    assert asked[-1] > N
    filled, _ = choose(made(7), 30, Variety(max_per_artist=2), fill=True)
    assert filled.tolist() == [*items.tolist(), *range(2, 16)]


def test_mmr_by_hand() -> None:
    """Scores 1, 0.9, 0.5, 0 on the unit scale; the second is the first's twin, the third at 60 degrees, the last at 90.

    Half and half, after the first: 0.45 - 0.5, 0.25 - 0.25, 0 - 0: the third wins its tie with the last by its score.
    Then: 0.45 - 0.5 against 0 - 0.43: the twin.
    """
    scores = np.array([12, 11, 7, 2], np.float32)
    vectors = np.array([[1, 0], [1, 0], [0.5, np.sqrt(0.75)], [0, 1]], np.float32)
    assert mmr(scores, vectors, 4, 0.5).tolist() == [0, 2, 1, 3]
    assert mmr(scores, vectors, 4, 0.0).tolist() == [0, 1, 2, 3]
    assert mmr(scores, vectors, 3, 1.0).tolist() == [0, 3, 2]
    assert mmr(scores * 100 - 5, vectors, 4, 0.5).tolist() == [0, 2, 1, 3], "scores have no unit"
    assert mmr(np.zeros(0, np.float32), vectors[:0], 4, 0.5).tolist() == []
    assert mmr(np.ones(2, np.float32), vectors[:2], 4, 0.5).tolist() == [0, 1]


def test_a_shorter_varied_list_is_the_beginning_of_a_longer_one() -> None:
    variety = Variety(max_per_artist=3, diversity=0.4)
    whole = choose(made(100), 200, variety)[0].tolist()
    assert whole != sorted(whole)
    for k in (1, 3, 50):
        assert choose(made(100), k, variety)[0].tolist() == whole[:k]


def crowd(lists: ListSettings) -> Recommender:
    """Users u0-u5 played rock alone, all of which is by one artist; 600 tracks, every other of them rock."""
    n = 600
    artists = ["often" if item % 2 else f"once {item}" for item in range(n)]
    tracks = made_tracks(n, artist=artists, genres=[["rock"] if item % 2 else ["jazz"] for item in range(n)])
    listens = made_listens((f"u{user}", f"t{item}", 1) for user in range(6) for item in (1, 3, 5 + 2 * user))
    return fit(tracks, listens, None, quick_settings().model_copy(update={"lists": lists}))


@pytest.mark.slow
def test_settings_and_arguments_lead_to_the_same_full_lists() -> None:
    """The 200 best are nearly all by one artist: a capped list of 200 must look far beyond them."""
    plain, capped = crowd(ListSettings()), crowd(ListSettings(max_per_artist=2))
    artists = [track.about["artist"] for track in plain.recommend("u0", 200).tracks]
    assert artists.count("often") > 150
    found = capped.recommend("u0", 200)
    assert [track.about["artist"] for track in found.tracks].count("often") == 2
    assert len(found.tracks) == 200
    asked = plain.recommend("u0", 200, max_per_artist=2)
    assert [track.track_id for track in asked.tracks] == [track.track_id for track in found.tracks]
    from_tracks = capped.recommend_from_tracks(["t1"], 150)
    assert len(from_tracks.tracks) == 150
    assert [track.about["artist"] for track in from_tracks.tracks].count("often") == 2


@pytest.mark.slow
def test_stored_lists_keep_to_the_settings(tiny_catalogue: TinyCatalogue, tmp_path: Path) -> None:
    lists = ListSettings(max_per_artist=3, diversity=0.5, popular=Variety(max_per_artist=1))
    settings = quick_settings().model_copy(update={"lists": lists})
    inputs = Inputs(tiny_catalogue.tracks, tiny_catalogue.listens)
    build(inputs, tmp_path / "store", settings, Silent())
    read = read_catalogue(inputs, settings, Problems())
    fitted, with_store = fit(read.tracks, read.listens, read.tags, settings), Recommender.open(tmp_path / "store")
    for user in ("u0", "u3", "u29", "nobody"):
        found, expected = with_store.recommend(user, 200), fitted.recommend(user, 200)
        assert [(t.track_id, t.reason_track_id) for t in found.tracks] == [
            (t.track_id, t.reason_track_id) for t in expected.tracks
        ]
        artists = [track.about["artist"] for track in found.tracks]
        if user in ("u0", "u3"):
            assert max(map(artists.count, artists)) <= 3
            assert with_store.recommend(user, 200, max_per_artist=40, diversity=0).tracks[-1].rank > len(artists)
        else:
            assert len(set(artists[:6])) == 6
    assert np.array_equal(with_store.score_at_20, fitted.score_at_20), "edges are of the plain ranking"
    with_store.close()
