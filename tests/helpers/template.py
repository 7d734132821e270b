"""A process that has imported what serves, and is forked for each server that a test starts (``helpers.forked``)."""

import json
import os
import signal
import socket
import sys
import warnings


def served_from(descriptor: int) -> str | None:
    """Fork when asked to; return the script to run in each process that was forked, and None where nobody asks on."""
    os.environ["GRPC_VERBOSITY"] = "NONE"  # as `serve` sets it before it imports what reads it
    import recsys.cli.main
    import recsys.recommender
    import recsys.serving.workers  # noqa: F401 - the parent of a server forks its workers after the same imports

    asks = socket.socket(fileno=descriptor)
    while True:
        message, files, _, _ = socket.recv_fds(asks, 1 << 20, 2)
        if not message:
            return None
        asked = json.loads(message)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            asks.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        process = os.fork()
        if not process:
            asks.close()
            _become(asked, files)
            return str(asked["script"])
        for file in files:
            os.close(file)
        asks.send(str(process).encode())


def _become(asked: dict, files: list[int]) -> None:
    """Be a process that was started: with a session, an environment, arguments and outputs of its own."""
    os.setsid()
    for file, number in zip(files, (1, 2), strict=True):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = asked["argv"]
    if asked["strict"]:
        warnings.simplefilter("error")
