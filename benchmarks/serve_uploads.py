"""What an upload costs beside decoding: a three-minute mp3 over gRPC, embedded, in the live store and among its likes.

    python -m benchmarks.serve_uploads [--network conv1d|musicnn]  ->  a table with the ratio that is to be reached

A small store is built with the network; a real server takes the uploads from a real client, its embedding process warm.
Each upload is held against the time that the fastest decoder we know needs for its stretch alone, in turns.
"""

import asyncio
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Literal

import grpc
import typer
from mutagen.id3 import ID3, TIT2
from rich.console import Console

from benchmarks import sounds
from benchmarks.decoding import fastest
from benchmarks.table import Row, table
from pipelines.build import Inputs, build
from recsys.audio.settings import AudioSettings, NetworkSettings
from recsys.config import RunSettings
from recsys.errors import DataError
from recsys.live.service import LiveUpdater
from recsys.recommender import open_store
from recsys.serving.server import SERVICE, _refusal
from recsys.serving.upload_handler import Serving, TrackUploads, upload_handler
from recsys.store.generation import Store
from recsys.store.weights import load_sound_model
from recsys.types import RankedTrack
from recsys.uploads.embed_client import Embedder, EmbeddingProcess
from recsys.uploads.settings import UploadSettings
from recsys.util.progress import Bars, Progress, Silent
from recsys.v1 import recommender_pb2 as pb

Network = Literal["conv1d", "musicnn"]
AT_MOST: dict[Network, float] = {"conv1d": 4.0, "musicnn": 16.0}  # times decoding the stretch
RECORDING_S = 180.0
_CHUNK_BYTES = 2**20
_N_CLIPS = 32  # of the catalogue: a musicnn's head is fitted to 30 or more
_CALL_S = 120.0


def measure_uploads(network: Network, folder: Path, tries: int, progress: Progress) -> list[Row]:
    """Measure uploads with one network.

    Args:
        network: that the store is built with.
        folder: for the store and the recordings.
        tries: uploads, each of audio that was not there before.
        progress: shows them.
    """
    store, settings = _built(folder, network), UploadSettings()
    files = _recordings(folder, tries + 1)
    decoding, uploading = list[float](), list[float]()
    with (
        EmbeddingProcess(store, settings) as process,
        _serving(store) as serving,
        _served(TrackUploads(Store(store), Embedder(process.address, settings), lambda: serving, settings)) as upload,
        progress.bar(f"{network}: uploads", len(files), "uploads") as bar,
    ):
        process.wait_until_warm()
        for file in files:
            start = perf_counter()
            fastest(file)
            decoding.append(perf_counter() - start)
            content = file.read_bytes()
            start = perf_counter()
            answer = upload(_pieces(file.name, content), timeout=_CALL_S)
            uploading.append(perf_counter() - start)
            near = serving.similar(answer.neighbours[0].track_id, 50)
            if not answer.has_sound or answer.track_id not in [track.track_id for track in near]:
                raise DataError(f"{answer.track_id} was acknowledged, and is not among its neighbour's neighbours")
            bar.advance()
    alone, whole = median(decoding[1:]), median(uploading[1:])  # the first of each is not warm
    most = AT_MOST[network]
    what = f"{network}: upload of {RECORDING_S:.0f} s of mp3, p50, times decoding its stretch"
    row = Row(what, f"{whole / alone:.2f}", f"<= {most:g}", whole / alone <= most)
    worst = f"{1000 * alone:.1f} ms, {1000 * whole:.1f} ms, {1000 * max(uploading[1:]):.1f} ms"
    sound = load_sound_model(Store(store).current() / "models")
    label = "" if sound is None else sound.label
    return [row, Row("  decoding p50, upload p50, slowest upload", worst), Row("  network", label)]


def _built(folder: Path, network: Network) -> Path:
    """Build a small store with the network: what an upload costs hardly depends on how many others there are."""
    clips, rows = folder / "clips", ["track_id,path,title,artist,genre,year"]
    clips.mkdir()
    with Silent().bar("", 1, "") as bar:
        for n, path in enumerate(sounds.clips(clips, _N_CLIPS, bar, seconds=5.0)):
            rows.append(f"t{n},{path},Song {n},Band {n % 8},genre {n % 3},{1990 + n}")
    listens = [f"u{user},t{n}" for user in range(20) for n in range(_N_CLIPS) if (n + user) % 5 == 0]
    (folder / "tracks.csv").write_text("\n".join(rows) + "\n")
    (folder / "listens.csv").write_text("\n".join(["user_id,track_id", *listens]) + "\n")
    chosen = NetworkSettings(name=network, start="random" if network == "conv1d" else "pretrained")
    settings = RunSettings(audio=AudioSettings(network=chosen))
    build(Inputs(folder / "tracks.csv", folder / "listens.csv"), folder / "store", settings, Silent())
    return folder / "store"


def _recordings(folder: Path, n: int) -> list[Path]:
    """Write copies of one recording that differ in their title: one sound, but never the same bytes."""
    first = sounds.recording(folder / "recording.mp3", RECORDING_S)
    paths = [folder / f"recording-{number}.mp3" for number in range(n)]
    for number, path in enumerate(paths):
        shutil.copyfile(first, path)
        tags = ID3()
        tags.add(TIT2(3, [f"Recording {number}"]))
        tags.save(path)
    return paths


@contextmanager
def _serving(folder: Path) -> Iterator[Serving]:
    """Open what a worker answers with, over the files that it answers from."""
    with closing(open_store(folder, "lmdb")) as recommender, closing(LiveUpdater(Store(folder), recommender)) as live:

        def similar(track_id: str, k: int) -> Sequence[RankedTrack]:
            return recommender.with_uploads(live.uploads()).similar(track_id, k, describe=False).tracks

        def has_sound(track_id: str) -> bool:
            return recommender.with_uploads(live.uploads()).has_vector(track_id, "sound")

        yield Serving(recommender.generation, live, similar, has_sound)


@contextmanager
def _served(uploads: TrackUploads) -> Iterator[grpc.StreamUnaryMultiCallable]:
    """Start a server, on a loop in a thread of its own; returns what a client calls UploadTrack by."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def started() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server()
        handlers = {"UploadTrack": upload_handler(uploads, _refusal)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    try:
        server, port = asyncio.run_coroutine_threadsafe(started(), loop).result(_CALL_S)
        with closing(grpc.insecure_channel(f"127.0.0.1:{port}")) as channel:
            serialise, parse = pb.UploadTrackRequest.SerializeToString, pb.UploadTrackResponse.FromString
            yield channel.stream_unary(f"/{SERVICE}/UploadTrack", serialise, parse)
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(_CALL_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _pieces(name: str, content: bytes) -> Iterator[pb.UploadTrackRequest]:
    yield pb.UploadTrackRequest(about=pb.NewTrack(file_name=name, artist="Band 1", genres=["genre 1"]))
    for start in range(0, len(content), _CHUNK_BYTES):
        yield pb.UploadTrackRequest(chunk=content[start : start + _CHUNK_BYTES])


def main(
    network: Annotated[str, typer.Option(help="conv1d, musicnn, or both.")] = "both",
    tries: Annotated[int, typer.Option(min=3, help="Uploads of each.")] = 21,
) -> None:
    """Measure what an upload costs beside decoding its stretch, and print a table."""
    rows = list[Row]()
    for name in AT_MOST:
        if network in {name, "both"}:
            with TemporaryDirectory() as folder:
                rows += measure_uploads(name, Path(folder), tries, Bars())
    title = f"{tries} uploads of each network, medians of one run"
    Console(width=None if sys.stdout.isatty() else 130).print(table(rows, title))


if __name__ == "__main__":
    typer.run(main)
