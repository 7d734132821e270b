"""A decoding process, seen from inside: takes paths, answers with samples, until its parent hangs up.

    python -m recsys.audio.decoding.worker DESCRIPTOR MEMORY_MB  <-  {"task": "decode", "path": ..., ...}
                                                        ->  {"problems": [...], ...}, then the samples as bytes

It reads files that may have been made to harm: it limits its own memory, writes no file, dumps no core and
opens no network. What goes back is JSON and float32, which cannot carry code. With ``confined`` as a third argument
it also gives up the rights that it was started with, and is handed open files instead of paths, so that it needs none.
``recsys.audio.decoding.pool`` is the other end.
"""

import codecs
import hashlib
import io
import json
import os
import signal
import stat
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any, BinaryIO

from recsys.audio.decoding.containers import declares_length
from recsys.audio.decoding.decode import Decoded, decode
from recsys.audio.settings import DecodeSettings
from recsys.catalogue.tags.read import read_tags
from recsys.errors import DataError
from recsys.util.limited_process import CONFINED, READY, give_up_rights, limit_this_process

Reply = tuple[dict[str, Any], memoryview]


def serve(descriptor: int, read: Callable[[Path, DecodeSettings], Decoded] = decode) -> None:
    """Answer requests until the other end is closed.

    Args:
        descriptor: an open socket to the parent.
        read: what a path is decoded with; tests put in things that crash.
    """
    with Connection(descriptor) as parent:
        parent.send_bytes(READY)
        while True:
            try:
                request = json.loads(parent.recv_bytes())
            except (EOFError, ConnectionError):
                return
            signal.alarm(request["alarm_s"])  # the parent stops a slow worker; this is for when there is none
            if request["task"] == "listen":
                with _handed(parent) as file:
                    reply, samples = _listened(file, request)
            else:
                reply, samples = _reply(request, read)
            parent.send_bytes(json.dumps(reply).encode())
            _send(descriptor, samples)
            signal.alarm(0)


def _reply(request: dict[str, Any], read: Callable[[Path, DecodeSettings], Decoded]) -> Reply:
    path = Path(request["path"])
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            return _failure("bad-audio", "this is not a regular file")
        if request["task"] == "hash":
            return {"content_hash": content_hash(path)}, memoryview(b"")
        if request["task"] == "look":
            with path.open("rb") as file:
                return {"declares_length": declares_length(file)}, memoryview(b"")
        return _decoded(read(path, DecodeSettings.model_validate(request["settings"])))
    except (FileNotFoundError, NotADirectoryError):
        return _failure("missing-file", "there is no such file")
    except DataError as error:
        return _failure("bad-audio", str(error))
    except MemoryError:
        return _failure("bad-audio", "decoding it needs more memory than a worker may have")
    except (OSError, ValueError) as error:  # no access, a name too long or with a zero in it
        return _failure("bad-audio", f"the file cannot be read: {error}")


def _handed(parent: Connection) -> BinaryIO:
    """Take an open file from the parent."""
    return io.BufferedReader(io.FileIO(recv_handle(parent), "rb"))


def _listened(file: BinaryIO, request: dict[str, Any]) -> Reply:
    """Decode an open file, and read the tags inside it."""
    try:
        reply, samples = _decoded(decode(file, DecodeSettings.model_validate(request["settings"])))
    except DataError as error:
        return _failure("bad-audio", str(error))
    except MemoryError:
        return _failure("bad-audio", "decoding it needs more memory than a worker may have")
    except (OSError, ValueError) as error:
        return _failure("bad-audio", f"the file cannot be read: {error}")
    inside = read_tags(file)
    reply["problems"] = [*reply["problems"], *(("bad-tags", note) for note in inside.notes)]
    return reply | {"tags": dict(inside.tags)}, samples


def _decoded(decoded: Decoded) -> Reply:
    clip = decoded.clip
    reply = {"duration_s": clip.duration_s, "format": decoded.format, "problems": decoded.problems}
    return reply | {"n_samples": len(clip.samples)}, clip.samples.data.cast("B")


def _failure(kind: str, reason: str) -> Reply:
    return {"kind": kind, "reason": reason}, memoryview(b"")


def _send(descriptor: int, samples: memoryview) -> None:
    while samples:  # as they lie in memory: a message of a ``Connection`` would be copied three times
        samples = samples[os.write(descriptor, samples) :]


def content_hash(path: Path) -> str:
    """Hash a file's bytes: 32 hexadecimal digits of BLAKE2b.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _import_all() -> None:
    """Import now what is otherwise imported late: nobody may have no access to where it lies."""
    import av  # noqa: F401

    for encoding in ("cp1252", "latin-1", "utf-8", "utf-16", "utf-16-le", "utf-16-be"):  # Python does so with these
        codecs.lookup(encoding)


def main(read: Callable[[Path, DecodeSettings], Decoded] = decode) -> None:
    """Run as a process: the arguments are the descriptor, the memory limit in MB, and perhaps ``confined``."""
    descriptor, memory_mb = map(int, sys.argv[1:3])
    confined = sys.argv[3:] == [CONFINED]
    if confined:
        _import_all()
    limit_this_process(memory_mb * 2**20)
    if confined:
        give_up_rights()  # last, for it also closes /proc/self
    serve(descriptor, read)
    os._exit(0)  # at once: damaged input may have left a decoder that cannot be torn down


if __name__ == "__main__":
    main()
