"""How much one client may ask for, and how many uploads go on at once, over all worker processes.

What is counted lies in memory that is made before the fork and shared by the workers. It is written without a lock:
two workers that count in the same nanosecond may let one call more through, which is no harm.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

BURST_S = 1.0  # so many seconds' worth of calls may come at once
_SETS, _WAYS = 1 << 13, 8  # places for 65,536 clients at a time, in 1 MiB; a client has its place in one set


def shared_floats(n: int) -> "memoryview[float]":
    """Make ``n`` numbers, all 0, that processes forked from here on share."""
    return memoryview(mmap.mmap(-1, 8 * n)).cast("d")


def shared_ints(n: int) -> "memoryview[int]":
    """The same of whole numbers of 63 bits."""
    return memoryview(mmap.mmap(-1, 8 * n)).cast("q")


class Rates:
    """A token bucket a client: ``rate`` calls a second, a second's worth of them at once.

    A bucket is one number, the time at which it will be full again (the generic cell rate algorithm). A bucket that is
    full says nothing, so its place is free for another client: memory stays the same however many clients there are.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._step_s = 1 / rate
        self._slack_s = max(BURST_S - self._step_s, 0.0) + 0.01 * self._step_s  # a hundredth for what rounding takes
        self._clients = shared_ints(_SETS * _WAYS)
        self._full_at = shared_floats(_SETS * _WAYS)

    def wait_s(self, client: int, now: float) -> float:
        """Count a call of a client (a number above 0): 0.0 if it may go on, else how long until one may."""
        place = self._place(client)
        full_at = max(self._full_at[place], now)
        wait_s = full_at - now - self._slack_s
        if wait_s > 0:
            return wait_s
        self._full_at[place] = full_at + self._step_s
        return 0.0

    def _place(self, client: int) -> int:
        clients, first = self._clients, (client >> 1) % _SETS * _WAYS  # the last bit is always 1
        if clients[first] == client:
            return first
        ways = range(first, first + _WAYS)
        for place in ways:
            if clients[place] == client:
                return place
        # The one nearest to full; where none is full, two clients share what is left of it.
        place = min(ways, key=self._full_at.__getitem__)
        clients[place] = client
        return place


class UploadSlots:
    """Places for uploads that go on at once; each worker has its own row, so that one that dies can be counted out.

    One client (a number above 0, as in ``Rates``) has all places but one at most, so that it keeps nobody out, however
    slowly it sends.
    """

    def __init__(self, limit: int, n_workers: int) -> None:
        self.limit, self.share = limit, max(limit - 1, 1)
        self._clients = shared_ints(n_workers * limit)  # who has a place, 0 where nobody has
        self._worker = 0

    def enter(self, worker: int) -> None:
        """Be this worker from here on, in the place of one that may have died in the middle of an upload."""
        self._worker = worker
        for place in self._own:
            self._clients[place] = 0

    @property
    def _own(self) -> range:
        return range(self._worker * self.limit, (self._worker + 1) * self.limit)

    @property
    def going_on(self) -> int:
        """How many places are taken, over all workers."""
        return sum(map(bool, self._clients))

    def refusal(self, client: int) -> str:
        """Say why a client may not have a place, nothing where it may."""
        if self.going_on >= self.limit:
            return f"{self.limit} uploads are being taken in, which is the most; try again soon"
        if self._clients.tolist().count(client) >= self.share:
            return f"{self.share} uploads of this client are being taken in, which is the most; try again soon"
        return ""

    @contextmanager
    def place(self, client: int = 1) -> Iterator[str]:
        """Hold a place as long as the block runs; what it is given says why there is none, or nothing."""
        refusal = self.refusal(client)
        if refusal:
            yield refusal
            return
        place = next(place for place in self._own if not self._clients[place])
        self._clients[place] = client
        try:
            yield ""
        finally:
            self._clients[place] = 0
