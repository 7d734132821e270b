"""One place among a server's workers: the process that has it now, what that process said, and why it ended.

``recsys.serving.workers`` looks after the places.
"""

import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess

from recsys.errors import RecsysError

QUICK_DEATH_S = 1.0  # a worker that served for less than this died quickly
# What a signal means where more can be said of it than its name.
MEANINGS: dict[int, str] = {
    signal.SIGBUS: "most likely a file of the store was shortened under the server, or its disk failed"
}


@dataclass(slots=True)
class WorkerProcess:
    """One place among the workers, and the process that has it now."""

    process: ForkProcess
    report: Connection  # what the process says: its generation once it serves, or the error that kept it from it
    quick_deaths: int = 0  # in a row, of the processes that had this place before
    generation: str | None = None
    serving_since: float = 0.0
    failure: RecsysError | None = None

    def hear(self) -> None:
        """Take in what the process has said; one that died without a word has only closed its end."""
        try:
            said = self.report.recv()
        except EOFError:
            return
        finally:
            self.report.close()
        if isinstance(said, RecsysError):
            self.failure = said
        else:
            self.generation, self.serving_since = str(said), time.monotonic()

    @property
    def died_quickly(self) -> bool:
        """Whether the process ended before it had served for long."""
        return self.generation is None or time.monotonic() - self.serving_since < QUICK_DEATH_S

    @property
    def cause(self) -> str:
        """Why the process ended, in words."""
        code = self.process.exitcode or 0
        ended = f"ended with exit status {code}"
        if code < 0:
            ended = f"was killed by signal {-code} ({signal.strsignal(-code)})"
            ended += f": {MEANINGS[-code]}" if -code in MEANINGS else ""
        return f"{ended} ({self.failure})" if self.failure else ended
