"""A process as in ``recsys.catalogue.tags.worker``, whose reader does what the file's first word says."""

import os
import signal
import time
from typing import BinaryIO

from recsys.catalogue.tags.fields import Inside
from recsys.catalogue.tags.read import read_tags
from recsys.catalogue.tags.worker import main


def read(file: BinaryIO) -> Inside:
    match file.read(6).decode(errors="replace").strip():
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(60)
        case "bug":
            raise KeyError("a bug in a reader")
        case "swell":
            bytearray(2**30)
        case "flood":
            return Inside({"title": "x" * 2**23})
        case "lies":
            return Inside({"title": "x" * 5000, "path": "/etc/passwd"}, tuple("y" * 500 for _ in range(50)))
        case "exit":
            os._exit(0)
        case "write":
            with open(f"/tmp/recsys-{os.getpid()}", "wb") as out:
                out.write(b"x" * 100_000)
    return read_tags(file)


if __name__ == "__main__":
    main(read)
