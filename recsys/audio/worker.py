"""A decoding process, seen from inside: takes paths, answers with samples, until its parent hangs up.

    python -m recsys.audio.worker DESCRIPTOR  <-  {"task": "decode", "path": ..., ...}
                                              ->  {"problems": [...], ...}, then the samples as bytes

It reads files that may have been made to harm: it limits its own memory, writes no file, dumps no core and
opens no network. What goes back is JSON and float32, which cannot carry code. ``recsys.audio.workers`` is the
other end.
"""

import hashlib
import json
import os
import resource
import signal
import stat
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from recsys.audio.decode import Decoded, decode
from recsys.audio.settings import DecodeSettings
from recsys.errors import DataError

Reply = tuple[dict[str, Any], memoryview]


def serve(descriptor: int, read: Callable[[Path, DecodeSettings], Decoded] = decode) -> None:
    """Answer requests until the other end is closed.

    Args:
        descriptor: an open socket to the parent.
        read: what a path is decoded with; tests put in things that crash.
    """
    with Connection(descriptor) as parent:
        parent.send_bytes(b"ready")
        while True:
            try:
                request = json.loads(parent.recv_bytes())
            except (EOFError, ConnectionError):
                return
            signal.alarm(request["alarm_s"])  # the parent stops a slow worker; this is for when there is none
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
        decoded = read(path, DecodeSettings.model_validate(request["settings"]))
    except (FileNotFoundError, NotADirectoryError):
        return _failure("missing-file", "there is no such file")
    except DataError as error:
        return _failure("bad-audio", str(error))
    except MemoryError:
        return _failure("bad-audio", "decoding it needs more memory than a worker may have")
    except (OSError, ValueError) as error:  # no access, a name too long or with a zero in it
        return _failure("bad-audio", f"the file cannot be read: {error}")
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


def limit_this_process(memory_bytes: int) -> None:
    """Cap what this process may take from now on; address space only where Linux enforces it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        n_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = n_pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main(read: Callable[[Path, DecodeSettings], Decoded] = decode) -> None:
    """Run as a process: the arguments are the descriptor and the memory limit in MB."""
    descriptor, memory_mb = map(int, sys.argv[1:])
    limit_this_process(memory_mb * 2**20)
    serve(descriptor, read)
    os._exit(0)  # at once: damaged input may have left a decoder that cannot be torn down


if __name__ == "__main__":
    main()
