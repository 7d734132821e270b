"""UploadTrack alone on a real server, over uploads as they were before there was a live service."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc

from recsys.live.upload_settings import UploadSettings
from recsys.serving.server import SERVICE, _refusal
from recsys.serving.uploading import Serving, TrackUploads, upload_handler
from recsys.store.generation import Store
from recsys.store.live import open_live
from recsys.store.opened import open_store
from recsys.store.tables import FILE, StoredTables
from recsys.v1 import recommender_pb2 as pb
from recsys.v1.recommender_pb2_grpc import RecommenderStub

CALL_S = 60.0
REACHED = 3


class PlainLive:
    """Opens all anew for each question; says that every upload reached three users."""

    def __init__(self, store, generation):
        self.store, self.generation = store, generation
        self.fault = None

    def add(self, upload, vectors):
        if self.fault is not None:
            raise self.fault
        with self.store.live_lock(), open_live(self.store.live, write=True) as live:
            live.append(upload, self.generation, vectors)
        return REACHED

    def track_of_audio(self, content_hash):
        with open_live(self.store.live) as live:
            found = None if live is None else live.track_of_audio(content_hash)
        if found is None:
            with closing(StoredTables(self.store.generations / self.generation / FILE)) as tables:
                found = tables.track_of_audio(content_hash)
        return found

    def knows(self, track_id):
        recommender = open_store(self.store.folder)
        with closing(recommender):
            return track_id in {recommender._catalogue.id(row) for row in range(len(recommender._catalogue))}

    def similar(self, track_id, k):
        with closing(open_store(self.store.folder)) as recommender:
            return recommender.similar(track_id, k).tracks


def serving(store: Path):
    """What ``now`` gives for a store's current generation."""
    generation = Store(store).current().name
    live = PlainLive(Store(store), generation)
    return Serving(generation, live, live.similar)


@contextmanager
def upload_server(uploads: TrackUploads | None) -> Iterator[RecommenderStub]:
    """A started server, on a loop in a thread of its own; gives a stub."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def started():
        server = grpc.aio.server()
        handlers = {"UploadTrack": upload_handler(uploads, _refusal)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    def on_loop(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(CALL_S)

    try:
        server, port = on_loop(started())
        with closing(grpc.insecure_channel(f"127.0.0.1:{port}")) as channel:
            yield RecommenderStub(channel)
        on_loop(server.stop(None))
    finally:
        on_loop(loop.shutdown_default_executor())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def pieces(audio, about=None, chunk=10_000):
    """A stream: what is known, then the bytes."""
    yield pb.UploadTrackRequest(about=about or pb.NewTrack())
    for start in range(0, len(audio), chunk):
        yield pb.UploadTrackRequest(chunk=audio[start : start + chunk])


def settings(**changes):
    return UploadSettings(**changes)
