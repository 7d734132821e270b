"""Uploads to `recsys serve` as others run it: two workers, one embedding process, which comes back when it dies."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest
from conftest import clip, copied
from upload_service import CALL_S, pieces

from recsys.v1 import recommender_pb2 as pb
from recsys.v1.recommender_pb2_grpc import RecommenderStub

pytestmark = pytest.mark.slow

SONG = clip("new.mp3", 80)


@contextmanager
def served(store: Path, workers: int = 2):
    """A running server and its address."""
    command = [sys.executable, "-m", "recsys", "serve", "--store", str(store), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen([*command, "--workers", str(workers)], stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        yield process, line.split(" on ")[1].split()[0]
    finally:
        process.kill()
        process.communicate()


@contextmanager
def stub_of(address: str):
    """A connection of its own, which the kernel gives to either worker."""
    with closing(grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])) as channel:
        yield RecommenderStub(channel)


def embedder_of(process: subprocess.Popen, limit_s: float = 30.0) -> int:
    start = time.monotonic()
    while True:
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            if "recsys.live.embedder" in Path(f"/proc/{child}/cmdline").read_text():
                return int(child)
        assert time.monotonic() - start < limit_s, "there is no embedding process"
        time.sleep(0.05)


def ended(pid: int, limit_s: float = 20.0) -> bool:
    start = time.monotonic()
    while time.monotonic() - start < limit_s:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def store(audio_store: Path, tmp_path: Path) -> Path:
    return copied(audio_store, tmp_path)


def test_an_upload_is_seen_by_all_workers_when_it_is_acknowledged(store: Path) -> None:
    with served(store) as (process, address):
        with stub_of(address) as stub:  # the first one waits until the process is warm
            answer = stub.UploadTrack(pieces(SONG, pb.NewTrack(track_id="new", title="New")), timeout=CALL_S)
        assert (answer.track_id, answer.known, answer.has_sound, len(answer.neighbours)) == ("new", False, True, 8)
        for _ in range(8):
            with stub_of(address) as stub:
                assert stub.GetTrack(pb.GetTrackRequest(track_id="new"), timeout=CALL_S).track.title == "New"
                near = stub.SimilarTracks(pb.SimilarTracksRequest(track_id="s3", k=8), timeout=CALL_S).tracks
                assert "new" in [track.track_id for track in near]
                again = stub.UploadTrack(pieces(SONG), timeout=CALL_S)
                assert (again.known, again.track_id) == (True, "new")
        embedder = embedder_of(process)
        os.kill(embedder, signal.SIGKILL)
        with stub_of(address) as stub:
            answer = stub.UploadTrack(pieces(clip("b.wav", 81), pb.NewTrack(track_id="b")), timeout=CALL_S)
            assert (answer.track_id, answer.known) == ("b", False)
        embedder = embedder_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        assert ended(embedder)


def test_nothing_outlives_a_server_that_is_killed(store: Path) -> None:
    with served(store) as (process, address):
        with stub_of(address) as stub:
            stub.UploadTrack(pieces(SONG), timeout=CALL_S)
        embedder = embedder_of(process)
        process.kill()
        assert ended(embedder)
