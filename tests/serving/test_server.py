"""The gRPC server over a recommender that stands in for a store: real server, real stub, port 0."""

import asyncio
import logging
import threading
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from recsys.errors import ArtefactError, ConfigError, DataError, NoSpaceError, NotFoundError
from recsys.serving import convert
from recsys.serving.fast_path import FastPath, ServingState
from recsys.serving.server import METHODS, SERVICE, create_server
from recsys.types import RankedList, RankedTrack
from recsys.v1 import recommender_pb2 as pb
from recsys.v1.recommender_pb2_grpc import RecommenderStub

KNOWN = {"t0": "One", "t1": None, "t2": "Three"}
CALL_S = 5.0
FAULTS = {
    "missing": NotFoundError("track 'missing' is not in the catalogue"),
    "data": DataError("the vector has 3 numbers, expected 4"),
    "k": ConfigError("k is odd, expected an even one"),
    "artefact": ArtefactError("/srv/secret/store is damaged"),
    "bug": RuntimeError("the password is 1234"),
    "long": NotFoundError("ü" * 100_000),
}


class FakeRecommender:
    """Answers with what it was asked, so that a test sees what arrived."""

    generation = "g7"

    def recommend(self, user_id, k, *, max_per_artist, diversity, filters, describe):
        assert not describe, "titles are not on the wire; looking them up costs a query"
        if user_id in FAULTS:
            raise FAULTS[user_id]
        if user_id == "slow":
            time.sleep(0.4)
        tracks = [RankedTrack(f"{user_id}-{n}", 2.5 - n, n + 1, "t2" if n else None, {}) for n in range(k)]
        return RankedList(tracks, "personal" if user_id.startswith("u") else "popular", self.generation)

    def similar(self, track_id, k, space, *, describe):
        if space == "taste":
            raise NoSpaceError("this catalogue has no vectors in the space taste")
        tracks = [RankedTrack(f"{track_id}-{space}", 0.5, n + 1, None, {}) for n in range(k)]
        return RankedList(tracks, "neighbours", self.generation)

    def recommend_from_tracks(self, track_ids, k, *, ordered, describe):
        name = (">" if ordered else "+").join(track_ids)
        return RankedList([RankedTrack(name, 1.0, n + 1, None, {}) for n in range(k)], "tracks", self.generation)

    def track(self, track_id):
        if track_id not in KNOWN:
            raise NotFoundError(f"track {track_id!r} is not in the catalogue")
        known = {"track_id": track_id, "title": KNOWN[track_id], "plays": 0.0, "is_cold": True}
        if track_id != "t0":
            return known | dict.fromkeys(("artist", "album", "genres", "year", "duration_s"))
        return known | {"artist": "A", "album": "B", "genres": ["x", "y"], "year": 1999, "duration_s": 2.5}

    def status(self):
        counts = {"n_tracks": 40, "n_users": 30, "n_listens": 5_000_000_000, "n_uploads": 2}
        created_at = "2026-01-02T03:04:05+00:00"
        return {"generation": "g7", "created_at": created_at, "spaces": ["sound", "hybrid"], **counts}


@contextmanager
def running(recommender, address="127.0.0.1:0"):
    """A started server, on a loop in a thread of its own; gives the port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def on_loop(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(CALL_S)

    try:
        server, port = on_loop(create_server(ServingState(FastPath(recommender)), address))
        on_loop(server.start())
        yield port
        on_loop(server.stop(None))
    finally:
        on_loop(loop.shutdown_default_executor())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def channel():
    with (
        running(FakeRecommender()) as port,
        closing(grpc.insecure_channel(f"127.0.0.1:{port}")) as channel,
    ):
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    return RecommenderStub(channel)


def refusal(call, request, **options):
    """Status and sentence of a call that is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, **{"timeout": CALL_S, **options})
    return caught.value.code(), caught.value.details()


def test_recommend_carries_list_source_and_generation(stub):
    answer = stub.Recommend(pb.RecommendRequest(user_id="u1", k=3), timeout=CALL_S)
    got = [(track.track_id, track.score, track.reason_track_id) for track in answer.tracks]
    assert got == [("u1-0", 2.5, ""), ("u1-1", 1.5, "t2"), ("u1-2", 0.5, "t2")]
    assert (answer.source, answer.generation) == ("personal", "g7")


def test_unknown_user_gets_what_the_recommender_says_is_popular(stub):
    assert stub.Recommend(pb.RecommendRequest(user_id="nobody"), timeout=CALL_S).source == "popular"


def list_calls(stub):
    return [
        lambda k: stub.Recommend(pb.RecommendRequest(user_id="u1", k=k), timeout=CALL_S),
        lambda k: stub.SimilarTracks(pb.SimilarTracksRequest(track_id="t1", k=k), timeout=CALL_S),
        lambda k: stub.RecommendFromTracks(pb.RecommendFromTracksRequest(track_ids=["t1"], k=k), timeout=CALL_S),
    ]


@pytest.mark.parametrize(("k", "n_tracks"), [(0, 20), (1, 1), (200, 200)])
def test_k_unset_is_20_and_200_is_the_most(stub, k, n_tracks):
    assert [len(call(k).tracks) for call in list_calls(stub)] == [n_tracks] * 3


@pytest.mark.parametrize("k", [201, 2**32 - 1])
def test_k_above_200_is_refused(stub, k):
    for call in list_calls(stub):
        with pytest.raises(grpc.RpcError, match=f"k is {k}, expected 1 to 200") as caught:
            call(k)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("space", "used"), [("", "hybrid"), ("hybrid", "hybrid"), ("sound", "sound"), ("content", "content")]
)
def test_space_unset_is_hybrid(stub, space, used):
    answer = stub.SimilarTracks(pb.SimilarTracksRequest(track_id="t1", space=space), timeout=CALL_S)
    assert (answer.tracks[0].track_id, answer.source) == (f"t1-{used}", "neighbours")


def test_unknown_space_is_refused_with_the_known_ones(stub):
    code, sentence = refusal(stub.SimilarTracks, pb.SimilarTracksRequest(track_id="t1", space="Sound"))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert sentence == "space is 'Sound', expected one of sound, content, taste, hybrid, next"


def test_space_without_data_is_a_failed_precondition(stub):
    code, sentence = refusal(stub.SimilarTracks, pb.SimilarTracksRequest(track_id="t1", space="taste"))
    assert (code, sentence) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "this catalogue has no vectors in the space taste",
    )


def test_given_tracks_keep_their_order_and_repeats(stub):
    request = pb.RecommendFromTracksRequest(track_ids=["t2", "t0", "t2"], k=1)
    answer = stub.RecommendFromTracks(request, timeout=CALL_S)
    assert (answer.tracks[0].track_id, answer.source) == ("t2+t0+t2", "tracks")
    request.ordered = True
    assert stub.RecommendFromTracks(request, timeout=CALL_S).tracks[0].track_id == "t2>t0>t2"


@pytest.mark.parametrize("n_ids", [0, 1001])
def test_no_or_too_many_given_tracks_are_refused(stub, n_ids):
    request = pb.RecommendFromTracksRequest(track_ids=["t1"] * n_ids)
    code, sentence = refusal(stub.RecommendFromTracks, request)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert sentence == f"track_ids holds {n_ids} ids, expected 1 to 1000"


def test_empty_ids_are_refused_by_name(stub):
    calls = [
        (stub.Recommend, pb.RecommendRequest(), "user_id is empty, expected an id"),
        (stub.SimilarTracks, pb.SimilarTracksRequest(), "track_id is empty, expected an id"),
        (stub.GetTrack, pb.GetTrackRequest(), "track_id is empty, expected an id"),
        (
            stub.RecommendFromTracks,
            pb.RecommendFromTracksRequest(track_ids=["t1", ""]),
            "track_ids[1] is empty, expected an id",
        ),
    ]
    for call, request, sentence in calls:
        assert refusal(call, request) == (grpc.StatusCode.INVALID_ARGUMENT, sentence)


def test_get_track_tells_all_that_is_known(stub):
    track = stub.GetTrack(pb.GetTrackRequest(track_id="t0"), timeout=CALL_S).track
    expected = {"track_id": "t0", "title": "One", "artist": "A", "album": "B", "genres": ["x", "y"]}
    assert track == pb.Track(**expected, year=1999, duration_s=2.5, plays=0.0, is_cold=True)


def test_get_track_leaves_unset_what_is_not_known(stub):
    track = stub.GetTrack(pb.GetTrackRequest(track_id="t1"), timeout=CALL_S).track
    assert {field.name for field, _ in track.ListFields()} == {"track_id", "plays", "is_cold"}


def test_unknown_track_is_not_found(stub):
    code, sentence = refusal(stub.GetTrack, pb.GetTrackRequest(track_id="t9"))
    assert (code, sentence) == (grpc.StatusCode.NOT_FOUND, "track 't9' is not in the catalogue")


def test_status_counts_and_dates_the_generation(stub):
    status = stub.GetStatus(pb.GetStatusRequest(), timeout=CALL_S)
    assert status.created_at.ToDatetime(UTC) == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert (status.n_tracks, status.n_users, status.n_listens, status.n_uploads) == (40, 30, 5_000_000_000, 2)
    assert (status.generation, list(status.spaces)) == ("g7", ["sound", "hybrid"])


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("missing", grpc.StatusCode.NOT_FOUND),
        ("data", grpc.StatusCode.INVALID_ARGUMENT),
        ("k", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_errors_raised_on_purpose_keep_their_sentence(stub, fault, code):
    assert refusal(stub.Recommend, pb.RecommendRequest(user_id=fault)) == (code, str(FAULTS[fault]))


@pytest.mark.parametrize(
    ("fault", "code"), [("bug", grpc.StatusCode.INTERNAL), ("artefact", grpc.StatusCode.UNAVAILABLE)]
)
def test_faults_of_the_server_are_logged_in_full_and_hidden_from_the_client(stub, caplog, fault, code):
    with caplog.at_level(logging.ERROR, "recsys"):
        got, sentence = refusal(stub.Recommend, pb.RecommendRequest(user_id=fault))
    assert got == code
    assert "1234" not in sentence
    assert "secret" not in sentence
    assert "Traceback" not in sentence
    assert str(FAULTS[fault]) in caplog.text
    assert "Recommend failed" in caplog.text
    assert "Traceback" in caplog.text


def test_a_long_sentence_still_fits_the_headers(stub):
    code, sentence = refusal(stub.Recommend, pb.RecommendRequest(user_id="long"))
    assert (code, len(sentence)) == (grpc.StatusCode.NOT_FOUND, 500)


def test_bytes_that_are_no_request_are_refused(channel):
    call = channel.unary_unary(f"/{SERVICE}/Recommend")
    code, sentence = refusal(call, b"\xff\xff\xff")
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "parsing message" in sentence


def test_unknown_method_is_unimplemented(channel):
    assert refusal(channel.unary_unary(f"/{SERVICE}/Nothing"), b"")[0] == grpc.StatusCode.UNIMPLEMENTED


def test_deadline_ends_a_slow_call_and_the_server_goes_on(stub):
    code, _ = refusal(stub.Recommend, pb.RecommendRequest(user_id="slow"), timeout=0.05)
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert len(stub.Recommend(pb.RecommendRequest(user_id="u1", k=2), timeout=CALL_S).tracks) == 2


def test_a_slow_call_does_not_hold_up_others(stub):
    slow = stub.Recommend.future(pb.RecommendRequest(user_id="slow"), timeout=CALL_S)
    stub.Recommend(pb.RecommendRequest(user_id="u1"), timeout=CALL_S)
    assert not slow.done()
    assert slow.result().source == "popular"


@pytest.mark.parametrize("service", ["", SERVICE])
def test_health_is_serving(channel, service):
    health = health_pb2_grpc.HealthStub(channel)
    answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=CALL_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_services(channel):
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    [answer] = reflection.ServerReflectionInfo(asked, timeout=CALL_S)
    names = {service.name for service in answer.list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


def test_every_method_of_the_proto_is_answered():
    service = pb.DESCRIPTOR.services_by_name["Recommender"]
    asked_with = {name: request.DESCRIPTOR for name, (_, request) in METHODS.items()}
    writing = {"UploadTrack", "RecordListens", "DeleteTrack", "DeleteUser"}
    assert asked_with == {m.name: m.input_type for m in service.methods if m.name not in writing}


def test_ipv6():
    with (
        running(FakeRecommender(), "[::1]:0") as port,
        closing(grpc.insecure_channel(f"[::1]:{port}")) as channel,
    ):
        answer = RecommenderStub(channel).Recommend(pb.RecommendRequest(user_id="u1", k=1), timeout=CALL_S)
        assert answer.tracks[0].track_id == "u1-0"


def test_a_port_in_use_is_refused():
    with running(FakeRecommender()) as port:
        taken = f"127.0.0.1:{port}"
        with pytest.raises(ConfigError, match=f"cannot listen on {taken}"), running(FakeRecommender(), taken):
            pass


def test_spaces_of_the_wire_are_those_of_the_package():
    assert [convert.space(name) for name in ("", "sound", "content", "taste", "hybrid")] == [
        "hybrid", "sound", "content", "taste", "hybrid"
    ]  # fmt: skip
