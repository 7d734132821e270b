"""What a server acknowledged is there, once, whichever of its processes are killed at whatever moment."""

import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from helpers.audio_files import encoded, melody
from helpers.serve_process import Serve, eventually, stub_of
from helpers.stores import copied
from helpers.upload_service import pieces
from recsys.eventlog.events import Listened
from recsys.eventlog.store import open_live
from recsys.store.generation import Store
from recsys.v1 import recommender_pb2 as pb
from recsys.v1.recommender_pb2_grpc import RecommenderStub

CALL_S = 20.0
N_CLIENTS, N_UPLOADING = 3, 2
BROKEN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
# uploads that wait for an embedding process that was killed hold their places, of which one client has all but one
BROKEN.add(grpc.StatusCode.RESOURCE_EXHAUSTED)


class Client:
    """Writes one thing after another, each as often as it takes until it is acknowledged."""

    def __init__(self, address: str, write: Callable[[RecommenderStub, int], None]) -> None:
        self.acknowledged = 0  # all numbers below it
        self.n_broken = 0  # calls that ended without an answer
        self._stop, pool = threading.Event(), ThreadPoolExecutor(1)
        self._future = pool.submit(self._run, address, write)
        pool.shutdown(wait=False)  # its thread ends with this work

    def _run(self, address: str, write: Callable[[RecommenderStub, int], None]) -> None:
        for number in itertools.count():
            while not self._written(address, write, number):
                if self._stop.is_set():
                    return
            self.acknowledged = number + 1
            if self._stop.is_set():
                return

    def _written(self, address: str, write: Callable[[RecommenderStub, int], None], number: int) -> bool:
        with stub_of(address) as stub:  # a connection each, so that both workers are written to
            try:
                write(stub, number)
            except grpc.RpcError as error:
                if error.code() not in BROKEN:
                    raise
                self.n_broken += 1
                time.sleep(0.02)
                return False
        return True

    @property
    def ended(self) -> bool:
        """Whether it has given up."""
        return self._future.done()

    def end(self) -> None:
        """Let it finish the call that it is at; raises what it failed of, if anything."""
        self._stop.set()
        self._future.result()


def listening(name: str) -> Callable[[RecommenderStub, int], None]:
    """What records a listen of that client."""

    def write(stub: RecommenderStub, number: int) -> None:
        event = pb.Listen(user_id=f"{name}-{number % 5}", track_id=f"s{number % 7}", event_id=f"{name}/{number}")
        done = stub.RecordListens(pb.RecordListensRequest(listens=[event]), timeout=CALL_S, wait_for_ready=True)
        assert done.recorded + done.repeated == 1, done

    return write


def uploading(name: str, first_seed: int) -> Callable[[RecommenderStub, int], None]:
    """What uploads a second of sound that no other number of any client has."""

    def write(stub: RecommenderStub, number: int) -> None:
        audio, about = (
            encoded(melody(1.2, first_seed + number), "WAV", "PCM_16"),
            pb.NewTrack(track_id=f"{name}-{number}"),
        )
        done = stub.UploadTrack(pieces(audio, about), timeout=CALL_S, wait_for_ready=True)
        assert done.track_id == about.track_id, done

    return write


class Victim:
    """A server that is killed, in whole or in part, and comes back."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._server = Serve(store, embed=True)
        assert self._server.address, self._server.log
        self.address = self._server.address

    def kill(self, what: str) -> None:
        """Kill a worker, the embedding process, or everything, and wait until what was killed is there again."""
        if what == "everything":
            self._server.kill()
            self._server = Serve(self._store, listen=self.address, embed=True)
            assert self._server.address, self._server.log
            return
        before = self._server.workers()
        if what == "embedder":
            os.kill(self._server.embedder(), signal.SIGKILL)
            return
        killed = random.choice(before)
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: len(now := self._server.workers()) == 2 and killed not in now), self._server.log

    def close(self) -> None:
        self._server.kill()


def check_listens(store: Path, clients: dict[str, Client]) -> None:
    """Every acknowledged event is in the log, and none is there twice."""
    with open_live(Store(store).live) as live, live.reading() as reading:
        numbered = list(reading.events())
        assert [number for number, _ in numbered] == list(range(1, len(numbered) + 1))
        times = Counter(event.event_id for _, event in numbered if isinstance(event, Listened))
        assert set(times.values()) == {1}
    assert sum(client.n_broken for client in clients.values()), "calls were under way when something was killed"
    for name, client in clients.items():
        assert client.acknowledged > 0
        assert {f"{name}/{number}" for number in range(client.acknowledged)} <= set(times)
        own = sum(event_id.startswith(f"{name}/") for event_id in times)
        assert own - client.acknowledged in {0, 1}, "one was on its way at the end"


def killed_under_writes(victim: Victim, kinds: list[str], pause_s: float, n_uploading: int = 0) -> dict[str, Client]:
    """Have clients write while the kinds are killed one after the other; gives the clients, at their end."""
    clients = {f"c{n}": Client(victim.address, listening(f"c{n}")) for n in range(N_CLIENTS)}
    clients |= {f"up{n}": Client(victim.address, uploading(f"up{n}", 1000 * (n + 1))) for n in range(n_uploading)}
    try:
        for kind in kinds:
            time.sleep(random.uniform(0.1, pause_s))
            victim.kill(kind)
        known = [client.acknowledged for client in clients.values()]
        assert eventually(
            lambda: all(c.ended or c.acknowledged > n for c, n in zip(clients.values(), known, strict=True)), 60
        )
    finally:
        for client in clients.values():
            client.end()
    return clients


@pytest.fixture
def victim(audio_store: Path, tmp_path: Path) -> Iterator[tuple[Victim, Path]]:
    store = copied(audio_store, tmp_path)
    with closing(Victim(store)) as victim:
        yield victim, store


@pytest.mark.slow
def test_five_kills_lose_no_listen_and_double_none(victim: tuple[Victim, Path]) -> None:
    server, store = victim
    clients = killed_under_writes(server, ["worker", "everything", "embedder", "worker", "everything"], pause_s=0.8)
    server.close()
    check_listens(store, clients)


@pytest.mark.long
def test_fifty_kills_lose_nothing_acknowledged(victim: tuple[Victim, Path]) -> None:
    server, store = victim
    kinds = [*28 * ["worker"], *10 * ["embedder"], *12 * ["everything"]]
    random.shuffle(kinds)
    clients = killed_under_writes(server, kinds, pause_s=1.6, n_uploading=N_UPLOADING)
    uploaded = [
        f"{name}-{number}"
        for name in [name for name in clients if name.startswith("up")]
        for number in range(clients.pop(name).acknowledged)
    ]
    assert len(uploaded) > 2, "on a busy machine few come between two kills"
    with stub_of(server.address) as stub:
        for track_id in uploaded:
            track = stub.GetTrack(pb.GetTrackRequest(track_id=track_id), timeout=CALL_S).track
            assert track.track_id == track_id
    server.close()
    check_listens(store, clients)
    kept = {file.suffix for file in (store / "uploads").iterdir() if not file.name.startswith(".")}
    assert kept == {""}, "whole files, under the hash of what is in them"
