"""What a worker answers from: stored bytes and the recommender say the same, and a swap fails and mixes no answer."""

import asyncio
import logging
from pathlib import Path

import grpc
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.catalogues import quick_settings
from helpers.stores import copied
from pipelines.build import Inputs, build
from recsys.errors import ConfigError
from recsys.recommender import Recommender
from recsys.serving import convert
from recsys.serving.fast_path import FastPath, ServingState
from recsys.serving.reload import open_answers, watch
from recsys.serving.server import METHODS, create_server
from recsys.store.generation import Store
from recsys.store.keys import key_of
from recsys.store.lmdb_lookup import FILE
from recsys.util.progress import Silent
from recsys.v1 import recommender_pb2 as pb
from recsys.v1.recommender_pb2_grpc import RecommenderStub

N = 260


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More tracks than a list is deep; user u0 heard two, u6 many; two generations, so that one may be swapped."""
    folder = tmp_path_factory.mktemp("answers")
    rng = np.random.default_rng(3)
    pl.DataFrame({"track_id": [f"t{n}" for n in range(N)], "artist": [f"Artist {n % 40}" for n in range(N)],
                  "genre": [f"genre {n % 5}" for n in range(N)], "year": [1970 + n % 47 for n in range(N)],
                  }).write_csv(folder / "tracks.csv")  # fmt: skip
    heard = [(f"u{user}", f"t{t}") for user in range(7) for t in rng.choice(250, 12 + user, replace=False)]
    pl.DataFrame(heard, schema=["user_id", "track_id"], orient="row").write_csv(folder / "listens.csv")
    build(Inputs(folder / "tracks.csv", folder / "listens.csv"), folder / "store", quick_settings(), Silent())
    return folder / "store"


@pytest.fixture(scope="module")
def answers(store: Path) -> FastPath:
    return open_answers(store)


def computed(store: Path, method: str, request: object) -> object:
    """The answer of the recommender over the DuckDB tables."""
    answer, _ = METHODS[method]
    return answer(Recommender.open(store), request)


PLAIN = [
    pb.RecommendRequest(user_id="u0"),
    pb.RecommendRequest(user_id="u6", k=1),
    pb.RecommendRequest(user_id="u3", k=200),
    pb.RecommendRequest(user_id="nobody", k=7),
]
FILTERED = [
    pb.RecommendRequest(user_id="u1", k=5, only_new=True),
    pb.RecommendRequest(user_id="u1", k=20, genres=["GENRE 2", "genre 3"]),
    pb.RecommendRequest(user_id="u1", k=9, artists=["artist 7", "artist 8"]),
    pb.RecommendRequest(user_id="u2", k=30, max_per_artist=1),
    pb.RecommendRequest(user_id="u2", k=30, min_year=1990, max_year=2005, max_per_artist=2),
    pb.RecommendRequest(user_id="u4", k=50, exclude_track_ids=[f"t{n}" for n in range(0, 200, 2)] + ["unknown"]),
]
SLOW = [
    pb.RecommendRequest(user_id="u1", k=150, genres=["genre 2"]),
    pb.RecommendRequest(user_id="u1", k=20, diversity=0.5),
    pb.RecommendRequest(user_id="u1", k=20, include_heard=True),
    pb.RecommendRequest(user_id="u1", k=200, only_new=True),
    pb.RecommendRequest(user_id="nobody", k=20, genres=["genre 1"]),
]


@pytest.mark.parametrize("request_", [*PLAIN, *FILTERED], ids=str)
def test_stored_bytes_say_what_the_recommender_says(
    answers: FastPath, store: Path, request_: pb.RecommendRequest
) -> None:
    quick = answers.recommend
    found = quick(request_.SerializeToString())
    assert found is not None, "what is stored is enough"
    assert pb.RecommendResponse.FromString(found[0]) == computed(store, "Recommend", request_)


@pytest.mark.parametrize("request_", SLOW, ids=str)
def test_what_the_stored_list_cannot_answer_is_left_to_the_recommender(
    answers: FastPath, store: Path, request_: pb.RecommendRequest
) -> None:
    quick = answers.recommend
    assert quick(request_.SerializeToString()) is None
    found = computed(store, "Recommend", request_)
    assert bool(found.note) == (len(found.tracks) < (request_.k or 20))


@pytest.mark.parametrize("space", ["", "content", "taste"])
@pytest.mark.parametrize("k", [0, 50])
def test_stored_neighbours_say_what_the_recommender_says(answers: FastPath, store: Path, space: str, k: int) -> None:
    quick = answers.similar_tracks
    track_id = "t0" if Recommender.open(store).plays.n_listeners[0] else "t1"
    request = pb.SimilarTracksRequest(track_id=track_id, k=k, space=space)
    found = quick(request.SerializeToString())
    assert found is not None
    assert pb.SimilarTracksResponse.FromString(found[0]) == computed(store, "SimilarTracks", request)
    beyond = pb.SimilarTracksRequest(track_id="t0", k=51)
    assert quick(beyond.SerializeToString()) is None
    assert quick(pb.SimilarTracksRequest(track_id="no track").SerializeToString()) is None


def test_what_is_wrong_is_refused_whoever_answers(answers: FastPath) -> None:
    quick = answers.recommend
    for wrong in (pb.RecommendRequest(), pb.RecommendRequest(user_id="u0", k=201),
                  pb.RecommendRequest(user_id="u0", max_per_artist=0), pb.RecommendRequest(user_id="u0", diversity=2),
                  pb.RecommendRequest(user_id="u0", exclude_track_ids=["x"] * 1001)):  # fmt: skip
        with pytest.raises(ConfigError):
            quick(wrong.SerializeToString())


def test_over_duckdb_nothing_is_quick_and_the_answers_are_the_same(store: Path) -> None:
    by_sql = open_answers(store, "duckdb")
    assert by_sql.recommend(pb.RecommendRequest(user_id="u0", k=5).SerializeToString()) is None
    assert by_sql.similar_tracks(pb.SimilarTracksRequest(track_id="t0", k=5).SerializeToString()) is None


TEXTS = st.text(max_size=200) | st.text(st.characters(max_codepoint=127), max_size=130)


@given(TEXTS, st.integers(0, 300), st.booleans(), st.binary(max_size=4))
def test_a_plain_request_is_read_without_a_message_as_with_one(user: str, k: int, heard: bool, more: bytes) -> None:
    request = pb.RecommendRequest(user_id=user, k=k, include_heard=heard).SerializeToString() + more
    found = convert.plain(request)
    if found is not None:
        asked = pb.RecommendRequest.FromString(request)
        assert found == (key_of(asked.user_id), convert.list_length(asked.k))
        assert convert.is_plain(asked)


@given(st.binary(max_size=12))
def test_random_bytes_are_plain_only_where_they_are_a_plain_request(request_: bytes) -> None:
    found = convert.plain(request_)
    if found is not None:
        asked = pb.RecommendRequest.FromString(request_)
        assert found == (key_of(asked.user_id), convert.list_length(asked.k))
        assert asked.user_id
        assert convert.is_plain(asked)


def test_nearly_every_call_is_plain() -> None:
    for user, k in (("anna", 0), ("listener-0001", 20), ("x" * 127, 127)):
        request = pb.RecommendRequest(user_id=user, k=k).SerializeToString()
        assert convert.plain(request) == (user.encode(), k or 20)


# ---- swaps -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_swap_under_load_fails_no_call_and_mixes_no_answer(store: Path, tmp_path: Path) -> None:
    moving = Store(copied(store, tmp_path))
    first = moving.current().name
    build(Inputs(store.parent / "tracks.csv", store.parent / "listens.csv"), moving.folder,
          quick_settings().model_copy(update={"seed": 5}), Silent())  # fmt: skip
    second = moving.current().name
    (moving.folder / "CURRENT").write_text(first)
    of = {name: lists_of(moving, name) for name in (first, second)}
    assert of[first] != of[second]
    answered = asyncio.run(under_load(moving, [second, first, second]))
    assert {generation for generation, _ in answered} == {first, second}
    assert len(answered) > 100
    assert all(tracks == of[generation] for generation, tracks in answered)


def lists_of(store: Store, generation: str) -> tuple[str, ...]:
    (store.folder / "CURRENT").write_text(generation)
    found = tuple(t.track_id for t in Recommender.open(store.folder).recommend("u3", 50).tracks)
    (store.folder / "CURRENT").write_text(store.names()[0])
    return found


async def under_load(store: Store, generations: list[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Ask all the time while CURRENT changes."""
    current = ServingState(open_answers(store.folder))
    server, port = await create_server(current, "127.0.0.1:0")
    await server.start()
    following = asyncio.create_task(watch(current, store.folder, "lmdb", every_s=0.02))
    found, done = [], asyncio.Event()

    async def ask() -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = RecommenderStub(channel)
            while not done.is_set():
                answer = await stub.Recommend(pb.RecommendRequest(user_id="u3", k=50), timeout=20)
                found.append((answer.generation, tuple(track.track_id for track in answer.tracks)))

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    for generation in generations:
        await asyncio.sleep(0.3)
        (store.folder / "CURRENT").write_text(generation)
        for _ in range(200):
            if current.answers.recommender.generation == generation:
                break
            await asyncio.sleep(0.05)
        assert current.answers.recommender.generation == generation
    await asyncio.sleep(0.2)
    done.set()
    await asyncio.gather(*asking)
    following.cancel()
    await server.stop(None)
    return found


def test_a_damaged_generation_is_told_of_once_and_the_old_one_goes_on(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moving = Store(copied(store, tmp_path))
    whole = moving.current()
    damaged = moving.generations / "20990101T000000.000000Z"
    damaged.mkdir()
    for file in whole.iterdir():
        if file.name != FILE:
            (damaged / file.name).symlink_to(file)
    (damaged / FILE).write_bytes((whole / FILE).read_bytes()[:4096])
    current = ServingState(open_answers(moving.folder))

    async def get() -> None:
        following = asyncio.create_task(watch(current, moving.folder, "lmdb", every_s=0.01))
        (moving.folder / "CURRENT").write_text(damaged.name)
        await asyncio.sleep(0.3)
        (moving.folder / "CURRENT").unlink()
        await asyncio.sleep(0.1)
        assert not following.done()
        following.cancel()

    with caplog.at_level(logging.ERROR):
        asyncio.run(get())
    assert current.answers.recommender.generation == whole.name
    told = [record.getMessage() for record in caplog.records if record.name == "recsys.serving.reload"]
    assert len(told) == 1
    assert whole.name in told[0]
