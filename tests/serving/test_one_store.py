"""Two servers, a build and a DuckDB reader on one store, all at once: none of them is in another's way."""

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from helpers.catalogues import AudioCatalogue, TinyCatalogue, clip, quick_settings
from helpers.serve_process import ROOT, eventually, serve, stub_of
from helpers.stores import copied, rows
from helpers.upload_service import pieces
from pipelines.build import Inputs, build
from recsys.eventlog.events import Listened
from recsys.eventlog.store import open_live
from recsys.store.duckdb_tables import FILE
from recsys.store.generation import Store
from recsys.util.progress import Silent
from recsys.v1 import recommender_pb2 as pb

pytestmark = pytest.mark.slow

CALL_S = 20.0


class Repeated:
    """Does something over and over on a thread, until it fails or is told to end."""

    def __init__(self, once: Callable[[int], None]) -> None:
        self.n = 0
        self._stop, pool = threading.Event(), ThreadPoolExecutor(1)
        self.future = pool.submit(self._run, once)
        pool.shutdown(wait=False)  # its thread ends with this work

    def _run(self, once: Callable[[int], None]) -> None:
        for number in itertools.count():
            if self._stop.wait(0.005):
                return
            once(number)
            self.n = number + 1

    def end(self) -> None:
        self._stop.set()
        wait([self.future])


@contextmanager
def meanwhile(*once: Callable[[int], None]) -> Iterator[list[Repeated]]:
    """Repeat these while the block runs; what one of them fails of is raised."""
    all_ = [Repeated(each) for each in once]
    try:
        yield all_
    finally:
        for each in all_:
            each.end()
    for each in all_:
        each.future.result()


def test_two_servers_a_build_and_a_reader(tiny_store: Path, tiny_catalogue: TinyCatalogue, tmp_path: Path) -> None:
    folder = copied(tiny_store, tmp_path)
    store = Store(folder)
    first = store.current()
    with (
        serve(folder, workers=1) as one,
        serve(folder, workers=1) as two,
        stub_of(one.address) as left,
        stub_of(two.address) as right,
        duckdb.connect(first / FILE, read_only=True) as held,
    ):
        expected = held.execute("SELECT count(*) FROM recommendations").fetchone()

        def write(stub, name: str) -> Callable[[int], None]:
            def once(number: int) -> None:
                event = pb.Listen(user_id=f"{name}{number % 5}", track_id=f"t{number % 9}", event_id=f"{name}/{number}")
                done = stub.RecordListens(pb.RecordListensRequest(listens=[event]), timeout=CALL_S)
                assert (done.recorded, len(done.refused)) == (1, 0)
                time.sleep(0.02)

            return once

        def read(stub) -> Callable[[int], None]:
            def once(number: int) -> None:
                answer = stub.Recommend(pb.RecommendRequest(user_id=f"u{number % 28}", k=5), timeout=CALL_S)
                assert (len(answer.tracks), answer.source) == (5, "personal")

            return once

        def query(_: int) -> None:
            assert held.execute("SELECT count(*) FROM recommendations").fetchone() == expected
            assert rows(folder, "SELECT count(*) FROM tracks") == [(40,)]
            time.sleep(0.05)

        with meanwhile(write(left, "left"), write(right, "right"), read(left), read(right), query) as others:
            assert eventually(lambda: all(other.n > 5 or other.future.done() for other in others))
            before = [other.n for other in others]
            build(Inputs(tiny_catalogue.tracks, tiny_catalogue.listens), folder, quick_settings(), Silent())
            during = [other.n - n for other, n in zip(others, before, strict=True)]
            second = store.current().name
            assert second != first.name

            def all_moved() -> bool:
                return all(stub.GetStatus(pb.GetStatusRequest()).generation == second for stub in (left, right))

            assert eventually(all_moved), "both servers notice the new generation"
        assert min(during) > 5, during
        n_written = {"left": others[0].n, "right": others[1].n}
        for stub in (left, right):
            for name, n_own in n_written.items():
                for user in range(5):
                    heard = {f"t{number % 9}" for number in range(n_own) if number % 5 == user}
                    answer = stub.Recommend(pb.RecommendRequest(user_id=f"{name}{user}", k=40), timeout=CALL_S)
                    assert answer.generation == second
                    assert not heard & {track.track_id for track in answer.tracks}
        with open_live(store.live) as live, live.reading() as reading:
            names = [event.event_id for _, event in reading.events() if isinstance(event, Listened)]
        assert sorted(names) == sorted(f"{name}/{n}" for name, n_own in n_written.items() for n in range(n_own))
        for server in (one, two):
            assert "Traceback" not in server.log
            assert "lag behind" not in server.log
            assert len(server.workers()) == 1
    build(Inputs(tiny_catalogue.tracks, tiny_catalogue.listens), folder, quick_settings(), Silent())
    heard = {(f"{name}{n % 5}", f"t{n % 9}") for name, n_own in n_written.items() for n in range(n_own)}
    kept = rows(folder, "SELECT user_id, track_id FROM recommendations")
    assert {user for user, _ in heard} <= {user for user, _ in kept}
    assert not heard & set(kept), "the next build has it all in its tables"


@pytest.mark.slow
def test_an_upload_during_a_build(audio_store: Path, audio_catalogue: AudioCatalogue, tmp_path: Path) -> None:
    folder = copied(audio_store, tmp_path)
    store, n_uploads = Store(folder), 0
    inputs = audio_catalogue.inputs
    command = [sys.executable, "-m", "recsys", "build", "--store", str(folder)]
    command += ["--tracks", str(inputs.tracks), "--listens", str(inputs.listens)]
    with (
        serve(folder, workers=1, embed=True) as one,
        serve(folder, workers=1, embed=True) as two,
        stub_of(one.address) as left,
        stub_of(two.address) as right,
    ):
        for stub in (left, right):  # the first one waits until the embedding process is warm
            stub.UploadTrack(pieces(clip("a.wav", 90 + n_uploads), pb.NewTrack(track_id=f"n{n_uploads}")), timeout=30)
            n_uploads += 1
        building = subprocess.Popen([*command, "--config", str(audio_catalogue.folder / "quick.toml")], cwd=ROOT)
        while building.poll() is None:
            stub = (left, right)[n_uploads % 2]
            stub.UploadTrack(pieces(clip("a.wav", 90 + n_uploads), pb.NewTrack(track_id=f"n{n_uploads}")), timeout=30)
            n_uploads += 1
        assert building.returncode == 0
        assert n_uploads > 3, "some came while it was built"
        second = store.current().name
        for stub in (left, right):
            assert eventually(lambda stub=stub: stub.GetStatus(pb.GetStatusRequest()).generation == second)
            for n in range(n_uploads):
                assert stub.GetTrack(pb.GetTrackRequest(track_id=f"n{n}"), timeout=60).track.track_id == f"n{n}"
                assert stub.SimilarTracks(pb.SimilarTracksRequest(track_id=f"n{n}", k=3), timeout=60).tracks
        for server in (one, two):
            assert "Traceback" not in server.log
    build(audio_catalogue.inputs, folder, quick_settings(), Silent())
    kept = rows(folder, "SELECT track_id FROM tracks WHERE track_id LIKE 'n%'")
    assert {track_id for (track_id,) in kept} == {f"n{n}" for n in range(n_uploads)}
