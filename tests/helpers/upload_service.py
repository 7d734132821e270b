"""UploadTrack alone on a real server, over a real live store, for tests."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc

from recsys.live.service import LiveUpdater
from recsys.recommender import open_store
from recsys.serving.server import SERVICE, _refusal
from recsys.serving.upload_handler import Serving, TrackUploads, upload_handler
from recsys.store.generation import Store
from recsys.uploads.settings import UploadSettings
from recsys.v1 import recommender_pb2 as pb
from recsys.v1.recommender_pb2_grpc import RecommenderStub

CALL_S = 60.0


@contextmanager
def serving(store: Path) -> Iterator[Serving]:
    """What a worker answers with, of a store's current generation."""
    with closing(open_store(store)) as recommender, closing(LiveUpdater(Store(store), recommender)) as live:

        def similar(track_id, k):
            return recommender.with_uploads(live.uploads()).similar(track_id, k, describe=False).tracks

        def has_sound(track_id):
            return recommender.with_uploads(live.uploads()).has_vector(track_id, "sound")

        yield Serving(recommender.generation, live, similar, has_sound)


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
