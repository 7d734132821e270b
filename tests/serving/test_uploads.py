"""Uploads to `recsys serve` as others run it: two workers, one embedding process, which comes back when it dies."""

import os
import signal
from pathlib import Path

import grpc
import pytest

from helpers.catalogues import clip
from helpers.serve_process import ended, serve, stub_of
from helpers.stores import copied
from helpers.upload_service import CALL_S, pieces
from recsys.v1 import recommender_pb2 as pb

pytestmark = pytest.mark.slow

SONG = clip("new.mp3", 80)


@pytest.fixture
def store(audio_store: Path, tmp_path: Path) -> Path:
    return copied(audio_store, tmp_path)


def test_an_upload_is_seen_by_all_workers_when_it_is_acknowledged(store: Path) -> None:
    with serve(store, embed=True) as server:
        with stub_of(server.address) as stub:  # the first one waits until the process is warm
            answer = stub.UploadTrack(pieces(SONG, pb.NewTrack(track_id="new", title="New")), timeout=CALL_S)
        assert (answer.track_id, answer.known, answer.has_sound, len(answer.neighbours)) == ("new", False, True, 8)
        for _ in range(8):
            with stub_of(server.address) as stub:
                assert stub.GetTrack(pb.GetTrackRequest(track_id="new"), timeout=CALL_S).track.title == "New"
                near = stub.SimilarTracks(pb.SimilarTracksRequest(track_id="s3", k=8), timeout=CALL_S).tracks
                assert "new" in [track.track_id for track in near]
                again = stub.UploadTrack(pieces(SONG), timeout=CALL_S)
                assert (again.known, again.track_id) == (True, "new")
        os.kill(server.embedder(), signal.SIGKILL)
        with stub_of(server.address) as stub:
            answer = stub.UploadTrack(pieces(clip("b.wav", 81), pb.NewTrack(track_id="b")), timeout=CALL_S)
            assert (answer.track_id, answer.known) == ("b", False)
        embedder = server.embedder()
        assert server.stop() == 0
        assert ended(embedder)


def test_nothing_outlives_a_server_that_is_killed(store: Path) -> None:
    with serve(store, embed=True) as server:
        with stub_of(server.address) as stub:
            stub.UploadTrack(pieces(SONG), timeout=CALL_S)
        embedder = server.embedder()
        server.process.kill()
        assert ended(embedder)


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        (["--max-upload-size", "0.002"], "RESOURCE_EXHAUSTED", "the file is larger than"),
        (["--max-upload-length", "1"], "INVALID_ARGUMENT", "1 s"),
    ],
)
def test_limits_are_those_that_were_given(store: Path, options: list[str], status: str, told: str) -> None:
    with serve(store, options=options, embed=True) as server, stub_of(server.address) as stub:
        with pytest.raises(grpc.RpcError) as caught:
            stub.UploadTrack(pieces(SONG, chunk=1000), timeout=CALL_S)
        assert caught.value.code().name == status
        assert told in caught.value.details()
