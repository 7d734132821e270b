"""What this process met of damaged values: told in the log, and counted for the figures.

    DamagedError, what goes on from where  ->  met  ->  one line in the log, n_met() + 1

One flipped bit may be met by every call of a user, so the log has a line every few seconds at most.
"""

import logging
import threading
import time

from recsys.errors import ArtefactError

TELL_S = 5.0  # between two lines of the log

_LOG = logging.getLogger(__name__)
_GUARD = threading.Lock()
_MET = {"count": 0.0, "told_at": -TELL_S}


def met(error: ArtefactError, instead: str) -> None:
    """Count a damaged value; ``instead`` says what happens now."""
    with _GUARD:
        _MET["count"] += 1
        now = time.monotonic()
        is_told = now - _MET["told_at"] >= TELL_S
        if is_told:
            _MET["told_at"] = now
    if is_told:
        _LOG.error("%s; %s; check the disk and the memory of this machine", error, instead)


def n_met() -> int:
    """How many were met since this process began."""
    return int(_MET["count"])
