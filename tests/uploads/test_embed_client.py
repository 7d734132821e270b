"""The embedding process as the server's parent holds it: it starts, dies, comes again and ends with its parent."""

import asyncio
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from multiprocessing import connection
from pathlib import Path

import grpc
import pytest

from helpers.catalogues import clip
from helpers.stores import copied
from helpers.upload_service import CALL_S, pieces, serving, settings, upload_server
from recsys.errors import ArtefactError
from recsys.eventlog.store import open_live
from recsys.serving.upload_handler import TrackUploads
from recsys.store.generation import Store
from recsys.uploads.embed_client import MAX_FAILED_STARTS, Embedder, EmbeddingProcess, can_embed
from recsys.uploads.metadata import NewTrack

pytestmark = pytest.mark.slow

KILLS = 10


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, limit_s=30.0):
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < limit_s, "it did not come to that in time"
        time.sleep(0.02)


def test_it_ends_with_its_parent_however_that_ends(audio_store: Path, tmp_path: Path) -> None:
    program = f"""
        import os, signal
        from pathlib import Path
        from recsys.uploads.embed_client import EmbeddingProcess
        from recsys.uploads.settings import UploadSettings
        process = EmbeddingProcess(Path({str(audio_store)!r}), UploadSettings())
        process.start()
        process.wait_until_warm()
        print(process.process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert parent.returncode == -9
    pid = int(parent.stdout)
    until(lambda: not alive(pid))


def test_parents_own_is_what_keeps_it_alive(tmp_path: Path) -> None:
    """A forked worker that closes these does not keep the process from ending with its parent."""
    with EmbeddingProcess(tmp_path, settings()) as process:
        for held in process.parents_own:
            held.close()
        process.process.wait(timeout=30)


def test_what_cannot_start_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr("recsys.uploads.embed_client.sys.executable", "/bin/false")
    process = EmbeddingProcess(tmp_path, settings())
    process.start()
    for started in range(MAX_FAILED_STARTS):
        assert connection.wait([process.sentinel], 10) == [process.sentinel]
        assert process.revive() == (started < MAX_FAILED_STARTS - 1)
    assert caplog.text.count("starting another") == MAX_FAILED_STARTS - 1
    with pytest.raises(ArtefactError):
        process.wait_until_warm(1)
    assert not process.address.parent.exists()
    assert process.sentinel is None


def test_what_is_asked_before_it_starts_waits_for_it(audio_store: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(clip("a.wav", 70))
    process = EmbeddingProcess(audio_store, settings())
    try:
        embedder, generation = Embedder(process.address, settings()), Store(audio_store).current().name
        later = threading.Timer(0.3, process.start)
        later.start()
        assert asyncio.run(embedder.embed(tmp_path / "a.wav", NewTrack(), generation)).has_sound
        later.join()
    finally:
        process.close()


def test_nobody_else_may_enter_the_folder_of_its_socket(tmp_path: Path) -> None:
    with EmbeddingProcess(tmp_path, settings()) as process:
        assert process.address.parent.stat().st_mode & 0o777 == 0o700


def test_it_starts_without_a_store_that_can_be_read(tmp_path: Path) -> None:
    with EmbeddingProcess(tmp_path, settings()) as process:
        process.wait_until_warm()


def test_the_build_extra_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_embed()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else object())
    assert not can_embed()


def test_asking_needs_no_torch() -> None:
    """A server's workers import this; torch in each of them would cost 200 MB."""
    heavy = "[m for m in ('torch', 'soundfile', 'av') if m in sys.modules]"
    heavy = f"import sys, recsys.serving.upload_handler; print({heavy})"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    said = subprocess.run([sys.executable, "-c", heavy], env=environment, capture_output=True, text=True)
    assert said.stdout.strip() == "[]", said.stderr


@pytest.mark.slow
def test_killed_at_random_it_loses_nothing_that_was_acknowledged(audio_store: Path, tmp_path: Path) -> None:
    store, rng, acknowledged, refused, n = copied(audio_store, tmp_path), random.Random(3), [], 0, 0
    killed, stop = threading.Event(), threading.Event()
    with serving(store) as now, EmbeddingProcess(store, settings()) as process:

        def look_after() -> None:
            while not stop.is_set():
                if connection.wait([process.sentinel], 0.05) and not stop.is_set():
                    assert process.revive()

        def kill() -> None:
            for _ in range(KILLS):
                time.sleep(rng.uniform(0.0, 0.5))
                if rng.random() < 0.7:  # else perhaps while it is starting
                    process.wait_until_warm()
                    time.sleep(rng.uniform(0.0, 0.3))
                process.process.kill()
            killed.set()

        threads = [threading.Thread(target=work) for work in (look_after, kill)]
        uploads = TrackUploads(Store(store), Embedder(process.address, settings()), lambda: now, settings())
        with upload_server(uploads) as stub:
            for thread in threads:
                thread.start()
            try:
                while not killed.is_set() or not acknowledged:
                    n += 1
                    try:
                        answer = stub.UploadTrack(pieces(clip("a.wav", 100 + n)), timeout=CALL_S)
                        acknowledged.append(answer.track_id)
                    except grpc.RpcError as error:
                        refused += error.code() == grpc.StatusCode.UNAVAILABLE
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
    assert len(acknowledged) + refused == n
    assert refused, "no kill ever met an upload"
    with open_live(store / "live.lmdb") as live:
        logged = {upload.track_id: upload.file for _, upload in live.uploads()}
    assert logged.keys() == set(acknowledged)
    assert {path.name for path in (store / "uploads").iterdir()} == set(logged.values())
