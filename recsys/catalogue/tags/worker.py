"""A process that reads tags, seen from inside: takes open files, answers with texts, until its parent hangs up.

    python -m recsys.catalogue.tags.worker DESCRIPTOR MEMORY_MB confined
        <-  {"n_files": n, "alarm_s": ...}, then n open files
        ->  {"tags": {...}, "notes": [...]}, n times

It reads files that may have been made to harm: it limits its own memory, writes no file, dumps no core, opens no
network and gives up the rights that it was started with. What goes back is JSON, which cannot carry code. No decoder
is needed.
``recsys.catalogue.tags.pool`` is the other end.
"""

import codecs
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import BinaryIO

from recsys.catalogue.tags.fields import Inside
from recsys.catalogue.tags.read import read_tags
from recsys.util.limited_process import CONFINED, READY, give_up_rights, limit_this_process

MAX_FILES = 200  # a message; the kernel hands over no more than 253 at once
_ENCODINGS = ("cp1252", "latin-1", "utf-8", "utf-16", "utf-16-le", "utf-16-be")


def serve(descriptor: int, read: Callable[[BinaryIO], Inside] = read_tags) -> None:
    """Answer requests until the other end is closed.

    Args:
        descriptor: an open socket to the parent.
        read: what a file is read with; tests put in things that crash.
    """
    with Connection(descriptor) as parent, socket.socket(fileno=os.dup(descriptor)) as files:
        parent.send_bytes(READY)
        while True:
            try:
                request = json.loads(parent.recv_bytes())
                _, handed, _, _ = socket.recv_fds(files, 1, MAX_FILES)
            except (EOFError, ConnectionError):
                return
            signal.alarm(request["alarm_s"])  # the parent stops a slow process; this is for when there is none
            for number in handed:
                with open(number, "rb") as file:
                    found = read(file)
                parent.send_bytes(json.dumps({"tags": dict(found.tags), "notes": found.notes}).encode())
            signal.alarm(0)


def main(read: Callable[[BinaryIO], Inside] = read_tags) -> None:
    """Run as a process: the arguments are the descriptor, the memory limit in MB, and perhaps ``confined``."""
    descriptor, memory_mb = map(int, sys.argv[1:3])
    for encoding in _ENCODINGS:  # Python looks for them when they are first used, and nobody may have no access
        codecs.lookup(encoding)
    limit_this_process(memory_mb * 2**20)
    if sys.argv[3:] == [CONFINED]:
        give_up_rights()  # last, for it also closes /proc/self
    serve(descriptor, read)
    os._exit(0)  # at once: nothing is left to be done


if __name__ == "__main__":
    main()
