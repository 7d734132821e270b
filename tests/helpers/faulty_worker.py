"""A decoding process as in ``recsys.audio.decoding.worker``, whose decoder does what the file's first word says."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from recsys.audio.decoding.decode import Decoded, decode
from recsys.audio.decoding.worker import main
from recsys.audio.settings import DecodeSettings
from recsys.types import Clip


def read(path: Path, settings: DecodeSettings) -> Decoded:
    match path.read_bytes()[:6].decode(errors="replace").strip():
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crash":
            os.abort()
        case "hang":
            time.sleep(60)
        case "noisy":
            os.write(2, b"a decoder's own warning\n")
        case "swell":
            np.ones(2**29, np.uint8)
        case "write":
            Path(str(path) + ".out").write_bytes(b"x" * 100_000)
        case "bug":
            raise KeyError("a bug in a decoder")
        case "flood":
            return Decoded(Clip(np.zeros(10**7, np.float32), 16_000, 1.0), "wav")
        case "exit":
            sys.exit(3)
    return decode(path, settings)


if __name__ == "__main__":
    main(read)
