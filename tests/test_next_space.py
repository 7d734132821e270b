"""The space "next": what tends to be played next after a track, the same over SQL, LMDB, bytes and the wire."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import grpc
import numpy as np
import polars as pl
import pytest

from helpers import streams
from helpers.catalogues import quick_settings
from helpers.command import run
from helpers.live_store import opened
from helpers.stores import copied, rows
from pipelines import rows as table_rows
from pipelines.build import Inputs, build
from recsys.errors import NoSpaceError
from recsys.eventlog.events import Upload
from recsys.live.service import LiveUpdater
from recsys.live.thresholds import bars_file
from recsys.recommender import open_store
from recsys.serving.fast_path import FastPath, ServingState
from recsys.serving.reload import open_answers
from recsys.serving.server import METHODS, create_server
from recsys.store.generation import Store
from recsys.util.progress import Silent
from recsys.v1 import recommender_pb2 as pb
from recsys.v1.recommender_pb2_grpc import RecommenderStub

pytestmark = pytest.mark.slow

GAP_S, WINDOW = 1800, 10
LINES = "SELECT track_id, neighbour_id, score FROM track_neighbours WHERE space = 'next'"
LONE, FIRST, SECOND, UNPLAYED = "lone", "z-0", "z-1", "z-2"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """The stream of artists' tracks in their order, and a user who alone played z-0 and then z-1; nobody played z-2."""
    folder = tmp_path_factory.mktemp("stream")
    more = pl.DataFrame({"track_id": [FIRST, SECOND, UNPLAYED], "artist": ["z"] * 3})
    pl.concat([streams.tracks().frame.select("track_id", "artist"), more]).write_csv(folder / "tracks.csv")
    plays = [(LONE, FIRST, streams.START), (LONE, SECOND, streams.START + timedelta(seconds=200))]
    lone = pl.DataFrame(plays, schema=["user_id", "track_id", "listened_at"], orient="row")
    listens = streams.listens().frame.select("user_id", "track_id", "listened_at")
    pl.concat([listens, lone.cast(listens.schema)]).write_csv(folder / "listens.csv")
    return Inputs(folder / "tracks.csv", folder / "listens.csv")


@pytest.fixture(scope="module")
def store(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("next") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_rows, "BLOCK", 67)  # of 135 tracks, so that the last one, which has no list, is a block
        build(inputs, folder, quick_settings(), Silent(), strict=True)
    return folder


@pytest.fixture
def own(store: Path, tmp_path: Path) -> Path:
    return copied(store, tmp_path)


def counted(inputs: Inputs) -> dict[str, dict[str, float]]:
    """Scores by hand: 0.6 times the share of plays that the other came right after, 0.4 times the cosine within 10."""
    assert inputs.listens is not None
    frame = pl.read_csv(inputs.listens, try_parse_dates=True).sort("user_id", "listened_at")
    events = [(user, track, at.timestamp()) for user, track, at in frame.iter_rows()]
    follows: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    together: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    plays: dict[str, int] = defaultdict(int)
    for at, (user, track, began) in enumerate(events):
        plays[track] += 1
        before = began
        for lag, (other_user, other, then) in enumerate(events[at + 1 : at + 1 + WINDOW], 1):
            if other_user != user or then - before > GAP_S:
                break
            before = then
            if other != track:
                follows[track][other] += lag == 1
                together[track][other] += 1
                together[other][track] += 1
    scores: dict[str, dict[str, float]] = {}
    for track, near in together.items():
        n_next = max(sum(follows[track].values()), 1)
        scores[track] = {
            other: 0.6 * follows[track][other] / n_next + 0.4 * min(n / np.sqrt(plays[track] * plays[other]), 1)
            for other, n in near.items()
        }
    return scores


def asked(answers: FastPath, track: str, k: int) -> list[tuple[str, float]] | None:
    """What stored bytes say, None where they do not."""
    request = pb.SimilarTracksRequest(track_id=track, space="next", k=k)
    found = answers.similar_tracks(request.SerializeToString())
    if found is None:
        return None
    response = pb.SimilarTracksResponse.FromString(found[0])
    assert (response.generation, response.source) == (answers.generation, "neighbours")
    return [(line.track_id, line.score) for line in response.tracks]


@pytest.fixture
def answers(own: Path) -> Iterator[FastPath]:
    with closing(open_answers(own)) as found:
        yield found


def test_it_is_what_was_played_next_and_the_same_whoever_answers(inputs: Inputs, own: Path, answers: FastPath) -> None:
    expected, n_short = counted(inputs), 0
    track_ids = [track for (track,) in rows(own, "SELECT track_id FROM tracks")]
    stored: dict[str, list[tuple[str, float]]] = {track: [] for track in track_ids}
    for track, other, score in rows(own, f"{LINES} ORDER BY track_id, rank"):
        stored[track].append((other, score))
    place = {track: at for at, track in enumerate(answers.recommender.model.items.all())}
    with closing(open_store(own)) as by_sql, closing(open_store(own, "lmdb")) as by_key:
        for track in track_ids:
            lines = stored[track]
            assert dict(lines) == pytest.approx(expected.get(track, {}), abs=1e-6)
            assert lines == sorted(lines, key=lambda line: (-line[1], place[line[0]]))
            for k in (1, 4, 200):
                found = by_sql.similar(track, k, "next")
                assert [(line.track_id, line.score) for line in found.tracks] == lines[:k]
                assert (by_key.similar(track, k, "next"), found.source) == (found, "neighbours")
                assert by_key.tables.neighbours(track, "next")[:k] == by_sql.tables.neighbours(track, "next")[:k]
                assert asked(answers, track, k) == (lines[:k] or None)
                n_short += len(lines) < k
    assert answers.recommender.similar("a7-2", 3, "next").tracks[0].track_id == "a7-3"
    assert n_short > len(track_ids) / 2, "a short list is stored bytes as well"


def test_a_track_that_nothing_followed_has_an_empty_list(own: Path, answers: FastPath) -> None:
    assert asked(answers, UNPLAYED, 5) is None, "which is left to the recommender"
    request = pb.SimilarTracksRequest(track_id=UNPLAYED, space="next")
    told = METHODS["SimilarTracks"][0](answers.recommender, request)
    assert told == pb.SimilarTracksResponse(generation=answers.generation, source="neighbours")
    assert answers.recommender.similar(SECOND, 5, "next").tracks[0].track_id == FIRST, "they were heard together"


def test_over_the_wire_and_by_command(own: Path, answers: FastPath) -> None:
    async def call() -> None:
        server, port = await create_server(ServingState(answers), "127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = RecommenderStub(channel)
            found = await stub.SimilarTracks(pb.SimilarTracksRequest(track_id="a7-2", k=50, space="next"), timeout=20)
            assert [(line.track_id, line.score) for line in found.tracks] == asked(answers, "a7-2", 50)
            none = await stub.SimilarTracks(pb.SimilarTracksRequest(track_id=UNPLAYED, space="next"), timeout=20)
            assert (len(none.tracks), none.source) == (0, "neighbours")
            status = await stub.GetStatus(pb.GetStatusRequest(), timeout=20)
            assert list(status.spaces) == ["content", "taste", "hybrid", "next"]
        await server.stop(None)

    asyncio.run(call())
    assert "a7-3" in run("similar", "a7-2", "--store", own, "--space", "next", "-k", "2").out


def test_it_has_no_vectors_and_no_bars(own: Path) -> None:
    spaces = rows(own, "SELECT DISTINCT space FROM track_vectors ORDER BY space")
    assert spaces == [("content",), ("hybrid",), ("taste",)]
    arrays = Store(own).current() / "arrays"
    assert bars_file(arrays, "hybrid").exists()
    assert not bars_file(arrays, "next").exists()
    with closing(open_store(own)) as recommender:
        assert not recommender.has_vector("a7-2", "next")
        assert recommender.has_vector("a7-2", "taste")


def test_deleted_tracks_drop_out_and_uploads_are_in_no_list(own: Path, answers: FastPath) -> None:
    before = asked(answers, "a7-2", 50)
    assert before is not None
    live = answers.live
    assert live is not None
    put_in(live, "new", "a7-2", answers)
    after = asked(answers, "a7-2", 50)
    assert after == before, "an upload that is the same in all vectors comes into no such list"
    assert answers.recommender.similar("new", 5).tracks[0].track_id == "a7-2"
    assert answers.recommender.similar("new", 5, "next").tracks == []
    live.delete_track(before[1][0])
    left = [before[0], *before[2:]]
    request = pb.SimilarTracksRequest(track_id="a7-2", k=50, space="next")
    for k in (1, 2, len(left), 200):
        assert asked(answers, "a7-2", k) == left[:k]
        for backend in ("duckdb", "lmdb"):
            with closing(open_store(own, backend)) as opened_:  # type: ignore[arg-type]
                assert [(line.track_id, line.score) for line in opened_.similar("a7-2", k, "next").tracks] == left[:k]
    assert METHODS["SimilarTracks"][0](answers.recommender, request).tracks[0].track_id == left[0][0]
    live.delete_track("new")
    live.delete_track(FIRST)
    assert asked(answers, SECOND, 5) == [], "what is left is nothing"


def put_in(live: LiveUpdater, track_id: str, like: str, answers: FastPath) -> None:
    upload = Upload(track_id, f"hash of {track_id}", "x.mp3", None, "a7", None, [], 2026, None, 9.0, "2026-01-01")
    model = answers.recommender.model
    row, vectors = model.items.row(like), {"hybrid": np.array(model.item_vectors[model.items.row(like)])}
    content = model.spaces["content"]
    place = content.place(row)
    assert place is not None
    vectors["content"] = np.array(content.vectors[place])
    live.add(upload, vectors)


def test_the_next_build_forgets_a_deleted_users_transitions(inputs: Inputs, own: Path) -> None:
    with closing(open_store(own)) as recommender:
        assert [line.track_id for line in recommender.similar(FIRST, 5, "next").tracks] == [SECOND]
        others = recommender.similar("a7-2", 50, "next").tracks
    with opened(own) as live:
        live.delete_user(LONE)
    build(inputs, own, quick_settings(), Silent(), strict=True)
    with closing(open_store(own)) as recommender:
        assert "next" in recommender.spaces
        assert recommender.similar(FIRST, 5, "next").tracks == recommender.similar(SECOND, 5, "next").tracks == []
        assert recommender.similar("a7-2", 50, "next").tracks == others
    assert rows(own, f"{LINES} AND track_id = '{FIRST}'") == []


def test_where_no_order_is_known_there_is_no_such_space(tiny_store: Path, tmp_path: Path) -> None:
    store = copied(tiny_store, tmp_path)
    with closing(open_answers(store)) as answers:
        assert asked(answers, "t0", 5) is None
        with pytest.raises(NoSpaceError) as told:
            answers.recommender.similar("t0", 5, "next")
        assert str(told.value) == "this catalogue has no space 'next'; it has content, taste, hybrid"
    assert rows(store, LINES) == []
    ran = run("similar", "t0", "--store", store, "--space", "next")
    assert (ran.status, "no space 'next'" in ran.complaint) == (3, True)
