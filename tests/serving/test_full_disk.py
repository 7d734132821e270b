"""A disk that is full, and a store that may only be read, under a server that runs: reads go on, writes are refused."""

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import lmdb
import pytest

from helpers.catalogues import clip
from helpers.live_store import heard, opened
from helpers.serve_process import serve, stub_of
from helpers.stores import copied
from helpers.upload_service import pieces
from recsys.errors import ArtefactError
from recsys.eventlog.events import Listened
from recsys.eventlog.store import LiveStore, open_live
from recsys.store.generation import Store
from recsys.v1 import recommender_pb2 as pb
from recsys.v1.recommender_pb2_grpc import RecommenderStub

CALL_S = 60.0


def recorded(stub: RecommenderStub, user: str, track: str, n: int = 1) -> int:
    """Record listens of a user, or of many."""
    listens = [pb.Listen(user_id=f"{user}{place or ''}", track_id=track) for place in range(n)]
    return stub.RecordListens(pb.RecordListensRequest(listens=listens), timeout=CALL_S).recorded


def refused(call: Callable[[], object]) -> tuple[str, str]:
    """Status and sentence of a call that is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


def check_reads(stub: RecommenderStub, touched: str) -> None:
    """Every way to read answers, for users whose lists are stored, live, and not there."""
    for user in ("u1", touched, "nobody"):
        for request in (pb.RecommendRequest(user_id=user, k=5), pb.RecommendRequest(user_id=user, k=3, diversity=0.3)):
            assert stub.Recommend(request, timeout=CALL_S).tracks
    assert stub.SimilarTracks(pb.SimilarTracksRequest(track_id="t3", k=5), timeout=CALL_S).tracks
    assert stub.RecommendFromTracks(pb.RecommendFromTracksRequest(track_ids=["t3"]), timeout=CALL_S).tracks
    assert stub.GetTrack(pb.GetTrackRequest(track_id="t3"), timeout=CALL_S).track.track_id == "t3"
    assert stub.AudienceOf(pb.AudienceOfRequest(track_id="t3"), timeout=CALL_S).users
    assert stub.GetStatus(pb.GetStatusRequest(), timeout=CALL_S).n_tracks == 40


def check_writes_refused(stub: RecommenderStub) -> None:
    """No write is taken in, each is refused with a sentence that says what may help, and names no file."""
    for write in (
        lambda: recorded(stub, "w", "t3", 300),
        lambda: stub.DeleteTrack(pb.DeleteTrackRequest(track_id="t9"), timeout=CALL_S),
        lambda: stub.DeleteUser(pb.DeleteUserRequest(user_id="u9"), timeout=CALL_S),
        lambda: stub.UploadTrack(pieces(clip("a.wav", 3)), timeout=CALL_S),
    ):
        status, sentence = refused(write)
        assert status == "UNAVAILABLE", sentence
        assert sentence.endswith("try again later")
        assert "/" not in sentence


@pytest.mark.slow
def test_a_server_whose_disk_is_full(tiny_store: Path, tmp_path: Path) -> None:
    """The workers may write no byte more to any file, as where the disk is full or has become read-only."""
    store = copied(tiny_store, tmp_path)
    with serve(store, workers=2, embed=True) as server, stub_of(server.address) as stub:
        assert recorded(stub, "u2", "t1") == 1
        none, usual = (0, resource.RLIM_INFINITY), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        for worker in server.workers():
            resource.prlimit(worker, resource.RLIMIT_FSIZE, none)
        for _ in range(3):  # connections, so that both workers are asked
            with stub_of(server.address) as other:
                check_reads(other, "u2")
                check_writes_refused(other)
                check_reads(other, "u2")
        workers = server.workers()
        for worker in workers:
            resource.prlimit(worker, resource.RLIMIT_FSIZE, usual)
        assert recorded(stub, "u2", "t2") == 1, "and goes on when there is room"
        assert list(Store(store).uploads.iterdir()) == []
        answer = stub.Recommend(pb.RecommendRequest(user_id="u2", k=40), timeout=CALL_S)
        assert not {"t1", "t2"} & {track.track_id for track in answer.tracks}
        assert server.workers() == workers


@pytest.mark.slow
def test_a_real_disk_that_is_full(tiny_store: Path, tmp_path: Path, small_disk: Callable[[int], Path]) -> None:
    store = copied(tiny_store, tmp_path / "disk")
    with serve(store, workers=1, embed=True) as server, stub_of(server.address) as stub:
        assert recorded(stub, "u2", "t1") == 1
        filler = small_disk(0) / "filler"
        check_reads(stub, "u2")
        check_writes_refused(stub)
        check_reads(stub, "u2")
        filler.unlink()
        assert recorded(stub, "u2", "t2") == 1


# As root, only without this capability do a file's rights count.
WITHOUT_OVERRIDE = (
    "import ctypes, os, sys; CAPBSET_DROP, DAC_OVERRIDE = 24, 1; "
    "ctypes.CDLL(None).prctl(CAPBSET_DROP, DAC_OVERRIDE); os.execv(sys.argv[1], sys.argv[1:])"
)
LIMITED = (sys.executable, "-c", WITHOUT_OVERRIDE)


@pytest.fixture
def read_only(tiny_store: Path, tmp_path: Path) -> Iterator[Path]:
    """A store that may be read and not written, in which something was heard."""
    store = copied(tiny_store, tmp_path)
    with opened(store) as live:
        live.record(heard("u2", "t1"))
    paths = [store, *store.rglob("*")]
    modes = [path.stat().st_mode for path in paths]
    for path, mode in zip(paths, modes, strict=True):
        path.chmod(mode & ~0o222)
    touch = [*LIMITED, sys.executable, "-c", "import sys; open(sys.argv[1], 'a')", str(store / "live.lmdb")]
    if subprocess.run(touch, capture_output=True).returncode == 0:
        pytest.skip("this user may write whatever the rights of a file say")
    yield store
    for path, mode in zip(paths, modes, strict=True):
        path.chmod(mode)


@pytest.mark.slow
def test_a_store_that_may_only_be_read(read_only: Path) -> None:
    with serve(read_only, workers=1, before=LIMITED, embed=True) as server, stub_of(server.address) as stub:
        check_reads(stub, "u2")
        answer = stub.Recommend(pb.RecommendRequest(user_id="u2", k=40), timeout=CALL_S)
        assert "t1" not in {track.track_id for track in answer.tracks}
        check_writes_refused(stub)
        check_reads(stub, "u2")


def test_a_disk_that_becomes_read_only_in_the_middle_of_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB may not come back from that without opening its file anew, which can then only be for reading."""
    real = lmdb.open

    def fail(live: LiveStore) -> None:
        with live.writing() as writing:
            writing.append(Listened("b", "t"))
            raise lmdb.PanicError("mdb_txn_commit: MDB_PANIC")

    def read_only(path: str, **options: object) -> lmdb.Environment:
        if not options.get("readonly"):
            raise lmdb.Error(f"{path}: Read-only file system")
        return real(path, **options)

    with open_live(tmp_path / "live.lmdb", write=True) as live:
        with live.writing() as writing:
            writing.append(Listened("a", "t"))
        monkeypatch.setattr(lmdb, "open", read_only)
        with pytest.raises(ArtefactError, match="nothing was changed"):
            fail(live)
        assert live.last_seq() == 1
        assert live.get("log", (1).to_bytes(8, "big")) is not None
        with pytest.raises(ArtefactError, match="nothing was changed"):
            fail(live)
        assert live.last_seq() == 1
        monkeypatch.undo()
        with live.writing() as writing:
            assert writing.append(Listened("b", "t")) == 2, "and goes on when it may be written again"
