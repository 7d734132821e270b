"""The embedding process, seen from inside: it holds torch and the models, and turns a file into vectors.

    python -m recsys.uploads.embed_server LISTENING_DESCRIPTOR STORE SETTINGS
        <-  {"path": ..., "about": {...}, "generation": ...}
        ->  {"content_hash": ..., "duration_s": ..., "notes": [...], "inside": {...}}, vectors by space

One a server, shared by its workers, which have no torch. It is warm before it takes the first request, and loads a
generation's models when a request first names it. Bytes of strangers are decoded, and the tags among them read, only
in the limited processes of ``recsys.audio.decoding.pool``, which have no rights. It ends when its standard input does,
so that it never outlives the server. ``recsys.uploads.embed_client`` is the other end.
"""

import os
import socket
import sys
import tempfile
import threading
import wave
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

from recsys.audio.decoding.pool import DecodeWorkers
from recsys.audio.settings import DecodeSettings, WorkerSettings
from recsys.errors import ArtefactError, DataError, RecsysError
from recsys.store.generation import Store
from recsys.uploads.embed_client import WARM_FOLDER
from recsys.uploads.metadata import NewTrack
from recsys.uploads.settings import UploadSettings
from recsys.uploads.vectors import UploadModels, embed_upload
from recsys.uploads.wire import packed, receive
from recsys.util.threads import n_cores

_KEPT = 2  # generations: the current one, and the one before for requests that are on their way
_HUNG = 70  # exit status of a process in which a request took too long


class Embedding:
    """Answers requests; from several threads at once, of which as many work as there are cores."""

    def __init__(self, store: Store, settings: UploadSettings) -> None:
        self._store, self._settings = store, settings
        n_workers = min(settings.at_once, n_cores())
        limits = WorkerSettings(n_workers=n_workers, time_limit_s=settings.time_limit_s, memory_mb=settings.memory_mb)
        self._workers = DecodeWorkers(DecodeSettings(), limits, confined=True)
        self._places = threading.Semaphore(n_workers)
        self._models: OrderedDict[str, UploadModels] = OrderedDict()
        self._loading = threading.Lock()

    def warm(self) -> None:
        """Load the current generation and embed two seconds of a tone, so that nothing is done for the first time."""
        with tempfile.TemporaryDirectory(prefix=WARM_FOLDER) as folder:
            path = Path(folder) / "warm.wav"
            with wave.open(str(path), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(16_000)
                file.writeframes(b"\0\x20\0\xe0" * 16_000)  # silence would not be embedded
            self.answer({"path": str(path), "about": {}, "generation": self._store.current().name})

    def answer(self, request: dict[str, Any]) -> bytes:
        """Embed a file; an error that was raised on purpose is an answer too."""
        with self._places:
            # a thread that hangs in native code cannot be stopped: then the process ends, and another takes over
            watch = threading.Timer(self._settings.answer_s, os._exit, [_HUNG])
            watch.start()
            try:
                return self._embedded(Path(request["path"]), NewTrack(**request["about"]), request["generation"])
            except RecsysError as error:
                return packed({"error": "data" if isinstance(error, DataError) else "artefact", "sentence": str(error)})
            finally:
                watch.cancel()

    def _embedded(self, path: Path, about: NewTrack, generation: str) -> bytes:
        models = self._models_of(generation)
        found = embed_upload(path, about, models, self._workers, self._settings.max_length_s)
        facts = {"content_hash": found.content_hash, "duration_s": found.duration_s, "notes": list(found.notes)}
        return packed(facts | {"inside": found.inside}, found.vectors)

    def _models_of(self, generation: str) -> UploadModels:
        with self._loading:
            if generation not in self._models:
                folder = self._store.generations / Path(generation).name
                if not folder.is_dir():
                    raise ArtefactError(f"the generation {generation} is gone")
                self._models[generation] = UploadModels.of(folder)
                while len(self._models) > _KEPT:
                    self._models.popitem(last=False)
            self._models.move_to_end(generation)
            return self._models[generation]


def _converse(connection: socket.socket, embedding: Embedding) -> None:
    with connection:
        try:
            request, _ = receive(connection)
        except (EOFError, OSError, ValueError, KeyError):
            return
        reply = packed({}) if "path" not in request else embedding.answer(request)  # without: are you there?
        with suppress(OSError):  # the worker that asked has gone
            connection.sendall(reply)


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(0)


def main() -> None:
    """Run as a process: the arguments are a listening socket's descriptor, the store, and the settings as JSON."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    embedding = Embedding(Store(Path(sys.argv[2])), UploadSettings.model_validate_json(sys.argv[3]))
    with suppress(ArtefactError):  # a store that cannot be read now may be mended before an upload comes
        embedding.warm()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_converse, args=(connection, embedding), daemon=True).start()


if __name__ == "__main__":
    main()
