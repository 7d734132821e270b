"""The contracts, held by all that rank; and that a store answers as the fit that it was built from."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from contracts import ALL_TRACKS, ALL_USERS, N_TRACKS, Ranker, RankerContract, RecommenderContract, ids, scores
from eval.baselines.simple import Part, Popularity, Random
from recsys.ranking.model import Model
from recsys.recommender import Fitted, Recommender


@pytest.fixture(scope="module")
def opened(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recommender]:
    """The store, moved after it was built: it keeps no path of its own."""
    recommender = Recommender.open(shutil.copytree(tiny_store, tmp_path_factory.mktemp("elsewhere") / "store"))
    yield recommender
    recommender.close()


class TestInMemory(RecommenderContract):
    @pytest.fixture
    def recommender(self, tiny_fit: Recommender) -> Recommender:
        return tiny_fit


class TestOpened(RecommenderContract):
    @pytest.fixture
    def recommender(self, opened: Recommender) -> Recommender:
        return opened


class TestHybridRanker(RankerContract):
    @staticmethod
    def make(recommender: Recommender) -> Ranker:
        return Part(recommender, recommender.plays.user_ids, None)


class TestALSRanker(RankerContract):
    @staticmethod
    def make(recommender: Recommender) -> Ranker:
        return Part(recommender, recommender.plays.user_ids, "als")


class TestLightFMRanker(RankerContract):
    @staticmethod
    def make(recommender: Recommender) -> Ranker:
        return Part(recommender, recommender.plays.user_ids, "lightfm")


class TestContentRanker(RankerContract):
    @staticmethod
    def make(recommender: Recommender) -> Ranker:
        return Part(recommender, recommender.plays.user_ids, "content")


class TestPopularityRanker(RankerContract):
    @staticmethod
    def make(recommender: Recommender) -> Ranker:
        return Popularity(recommender.plays, seed=1)


class TestRandomRanker(RankerContract):
    @staticmethod
    def make(recommender: Recommender) -> Ranker:
        return Random(recommender.plays, seed=1)


@pytest.mark.slow
def test_a_store_answers_as_the_fit_that_it_was_built_from(tiny_fit: Recommender, opened: Recommender) -> None:
    for user in [*ALL_USERS, "nobody"]:
        one, other = tiny_fit.recommend(user, 200), opened.recommend(user, 200)
        assert ids(one) == ids(other)
        assert [track.reason_track_id for track in one.tracks] == [track.reason_track_id for track in other.tracks]
        assert [track.about for track in one.tracks] == [track.about for track in other.tracks]
        np.testing.assert_allclose(scores(one), scores(other), rtol=1e-5)
        assert one.source == other.source
    for track in ALL_TRACKS:
        for space in tiny_fit.spaces:
            if (track, space) != ("t39", "taste"):
                one, other = tiny_fit.similar(track, 30, space), opened.similar(track, 30, space)
                assert ids(one) == ids(other)
                np.testing.assert_allclose(scores(one), scores(other), atol=1e-5)
        assert ids(tiny_fit.recommend_from_tracks([track, "t2"], 9)) == ids(
            opened.recommend_from_tracks([track, "t2"], 9)
        )
        assert [user for user, _ in tiny_fit.audience(track)] == [user for user, _ in opened.audience(track)]
        assert tiny_fit.track(track) == opened.track(track)
    assert np.array_equal(tiny_fit.score(ALL_USERS, ALL_TRACKS), opened.score(ALL_USERS, ALL_TRACKS))
    assert tiny_fit.generation == "memory"
    assert opened.generation != "memory"


def test_folding_in_is_recommending_from_tracks(tiny_fit: Recommender) -> None:
    """Row by row what the service would give for the same tracks, with plays, candidates and parts heeded."""
    begun = np.zeros((3, N_TRACKS), dtype=np.float32)
    begun[0, [3]], begun[1, [1, 4, 7]], begun[2, [39]] = 1, (1, 2, 1), 1  # t39 is cold
    ranked = tiny_fit.rank_folded(csr_matrix(begun), 12)
    for row, given in enumerate([["t3"], ["t1", "t4", "t4", "t7"], ["t39"]]):
        found = tiny_fit.recommend_from_tracks(given, 12)
        assert [f"t{item}" for item in ranked.items[row]] == ids(found)
        np.testing.assert_allclose(ranked.scores[row], scores(found), rtol=1e-4)
    among = tiny_fit.rank_folded(csr_matrix(begun), 4, np.array([1, 2, 3, 5], np.int32))
    assert [set(row) for row in among.items.tolist()] == [{1, 2, 5, -1}, {2, 3, 5, -1}, {1, 2, 3, 5}]
    popular = tiny_fit.rank_folded(csr_matrix(begun), 5, part="popularity")
    listeners = tiny_fit.plays.n_listeners
    assert (np.diff(listeners[popular.items], axis=1) <= 0).all()
    assert tiny_fit.rank_folded(csr_matrix((0, N_TRACKS), dtype=np.float32), 5).items.shape == (0, 5)


def test_the_arrays_of_a_fit_outlive_it(tiny_fit: Recommender, tmp_path: Path) -> None:
    tiny_fit.model.save(tmp_path / "arrays")
    loaded = Recommender(Fitted(Model.load(tmp_path / "arrays"), tiny_fit.tables, attributes=tiny_fit.attributes))
    for user in ALL_USERS:
        assert ids(loaded.recommend(user, 200)) == ids(tiny_fit.recommend(user, 200))


@pytest.mark.slow
def test_nothing_that_answers_loads_torch(tiny_store: Path) -> None:
    code = (
        "import sys; from recsys.recommender import Fitted, Recommender\n"
        f"r = Recommender.open({str(tiny_store)!r})\n"
        "r.recommend('u0'); r.recommend('x'); r.similar('t0', 60); r.recommend_from_tracks(['t1']); r.audience('t39')\n"
        "r.score(['u0'], ['t0'])\n"
        "print([m for m in ('torch', 'implicit', 'lightfm', 'faiss', 'torchaudio') if m in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
