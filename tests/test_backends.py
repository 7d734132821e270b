"""Whoever asks, and over whichever files, is told the same, whatever happened since the build."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from helpers.live_store import with_reach
from helpers.stores import copied
from recsys.eventlog.events import Listened, Upload
from recsys.live.service import LiveUpdater
from recsys.ranking import lists
from recsys.ranking.diversity import Source, choose
from recsys.ranking.filters import Filters, artists_of
from recsys.recommender import Recommender, open_store
from recsys.serving.reload import open_answers
from recsys.serving.server import METHODS
from recsys.store.generation import Store
from recsys.store.record import Record
from recsys.types import MAX_K
from recsys.v1 import recommender_pb2 as pb

USERS = [*(f"u{n}" for n in range(28)), "newcomer", "nobody"]
ASKED = [
    {"k": 8},
    {"k": 20, "max_per_artist": 2},
    {"k": 5, "diversity": 0.5},
    {"k": 5, "min_year": 2000},
    {"k": 3, "genres": ["jazz"], "include_heard": True},
]


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    return copied(tiny_store, tmp_path)


@contextmanager
def opened(store: Path) -> Iterator[LiveUpdater]:
    with closing(open_store(store)) as recommender, closing(LiveUpdater(Store(store), recommender)) as live:
        yield live


def put_in(live: LiveUpdater, recommender: Recommender, track_id: str, vector: np.ndarray, artist: str = "New") -> int:
    upload = Upload(
        track_id, f"hash of {track_id}", "x.mp3", None, artist, None, ["jazz"], 2026, None, 9.0, "2026-01-01"
    )
    return live.add(upload, {"hybrid": vector.astype(np.float32)})


def popular_vector(recommender: Recommender, times: float = 1.0) -> np.ndarray:
    """One that somebody of whom nothing is known would be shown first: the best of the popular list, ``times`` over."""
    first = recommender.popular()[0][0]
    return times * np.array(recommender.model.item_vectors[recommender.model.items.row(first)])


def happen(store: Path, seed: int) -> None:
    """Let a few dozen things happen."""
    rng = np.random.default_rng(seed)
    with closing(open_store(store)) as recommender, opened(store) as live:
        tracks = recommender.model.items.all()
        for n in range(6):
            like = recommender.model.item_vectors[int(rng.integers(len(tracks)))]
            put_in(live, recommender, f"new{n}", like * rng.uniform(0.8, 1.2), f"Artist {n % 2}")
            users, heard = rng.choice(USERS[:-1], 3).tolist(), rng.choice([*tracks, f"new{n}"], 3).tolist()
            disliked = (rng.random(3) < 0.2).tolist()
            live.record([Listened(*one, disliked=no) for *one, no in zip(users, heard, disliked, strict=True)])
        put_in(live, recommender, "hit", popular_vector(recommender, 1.1))
        live.delete_track(str(rng.choice(tracks)))
        live.delete_track("new1")
        live.delete_user("u7")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_over_lmdb_over_duckdb_and_from_bytes_it_is_the_same(store: Path, seed: int) -> None:
    with_reach(store, 5)  # or else all of them would have a list of now
    happen(store, seed)
    with (
        closing(open_store(store)) as by_sql,
        closing(open_store(store, "lmdb")) as by_key,
        closing(open_answers(store)) as answers,
    ):
        quick = answers.recommend
        n_quick = 0
        for user in USERS:
            for more in ASKED:
                request = pb.RecommendRequest(user_id=user, **more)
                told = METHODS["Recommend"][0](by_sql, request)
                assert told == METHODS["Recommend"][0](by_key, request)
                sent = quick(request.SerializeToString())
                if sent is not None:
                    n_quick += 1
                    found = pb.RecommendResponse.FromString(sent[0])
                    assert found.tracks == told.tracks[: request.k], (user, more)
                    assert found.source == told.source
        assert n_quick > len(USERS)
        for track in ("t0", "new0", "hit"):
            assert by_sql.similar(track, 10) == by_key.similar(track, 10)


def test_a_new_track_that_anybody_would_like_is_in_the_popular_list_at_once(store: Path) -> None:
    with closing(open_store(store)) as recommender, opened(store) as live:
        before = [track for track, _, _ in recommender.popular()]
        put_in(live, recommender, "hit", popular_vector(recommender, 1.1))
        put_in(live, recommender, "flop", popular_vector(recommender, -5.0))
    with closing(open_answers(store)) as answers:
        quick = answers.recommend
        sent = quick(pb.RecommendRequest(user_id="nobody", k=5).SerializeToString())
        assert sent is not None
        found = pb.RecommendResponse.FromString(sent[0])
        assert (found.source, found.tracks[0].track_id, found.tracks[0].reason_track_id) == ("popular", "hit", "")
        assert [line[0] for line in answers.recommender.popular()] == before, "that of the build stays what it is"


def test_the_popular_list_is_that_of_a_build_with_these_tracks(store: Path) -> None:
    with closing(open_store(store)) as recommender, opened(store) as live:
        for n in range(3):  # of one artist, of whom it takes two
            put_in(live, recommender, f"hit{n}", popular_vector(recommender, 1.3 - 0.1 * n))
        model, attributes, uploads, now = recommender.model, recommender.attributes, live.uploads(), live.list_of("")
        vectors = np.vstack([model.item_vectors, uploads.item_vectors])
        scores = vectors @ recommender.ranking.nobody[0]
        ranked = np.argsort(-scores, kind="stable").astype(np.int32)
        source = Source(
            lambda depth: (ranked[:depth], scores[ranked[:depth]]),
            lambda rows: artists_of(rows, attributes, uploads),
            lambda rows: model.blend.likeness(vectors[rows]),
        )
        rows, _ = choose(source, MAX_K, recommender.lists.popular, fill=True)
        assert now is not None
        assert Record(now).rows.tolist() == rows.tolist()
        first = [track for track, _, _ in Record(now).found()][:10]
        assert {"hit0", "hit1"} <= set(first)
        assert "hit2" not in first


def test_popular_lists_follow_after_a_rollback_of_lists_and_for_whoever_only_dislikes(store: Path) -> None:
    with closing(open_store(store)) as recommender, opened(store) as live:
        put_in(live, recommender, "hit", popular_vector(recommender, 1.1))
        live.record([Listened("hater", recommender.popular()[0][0], disliked=True)])
        record = live.list_of("hater")
        assert record is not None
        assert Record(record).found()[0][0] == "hit"
        live.delete_track("hit")
    with closing(open_store(store)) as recommender:
        assert "hit" not in [track.track_id for track in recommender.recommend("nobody", MAX_K).tracks]


@pytest.mark.parametrize("block", [1, 3, 7, 1000])
def test_a_catalogue_looked_through_in_blocks_gives_the_same(
    store: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    happen(store, 0)
    with closing(open_store(store)) as recommender:
        model, uploads = recommender.model, recommender._catalogue.uploads
        every = model.blend.likeness(np.vstack([model.item_vectors, uploads.item_vectors]))
        ids = np.array([*model.items.all(), *uploads.track_ids])
        shown = np.setdiff1d(np.arange(len(ids)), recommender._catalogue.hidden)
        monkeypatch.setattr(lists, "BLOCK", block)
        for track in ("hit", "new0"):
            cosines = every[shown] @ every[ids.tolist().index(track)]
            expected = {
                str(one): score for one, score in zip(ids[shown], cosines.tolist(), strict=True) if one != track
            }
            found = {one.track_id: one.score for one in recommender.similar(track, 30).tracks}
            assert found == pytest.approx({one: expected[one] for one in found}, abs=1e-6)
            assert min(found.values()) >= sorted(expected.values())[-30] - 1e-6
            assert len(found) == 30
        filtered = recommender.recommend("u3", 30, filters=Filters(include_heard=True))
    with closing(open_store(store)) as recommender:
        monkeypatch.undo()
        assert recommender.recommend("u3", 30, filters=Filters(include_heard=True)) == filtered
