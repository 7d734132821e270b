"""The call that is being answered, as far as metrics and logs care: which way its answer was found.

A handler says ``calls.path("plain")``; where it says nothing, the answer counts as computed. It may say so on a
thread as well, as long as the thread was given the call's context (``asyncio.to_thread`` does that).
"""

from contextvars import ContextVar
from typing import Literal

Path = Literal["plain", "filtered", "live", "computed"]
PATHS: tuple[Path, ...] = ("plain", "filtered", "live", "computed")
_PLACES = {path: place for place, path in enumerate(PATHS)}
COMPUTED = _PLACES["computed"]


class Call:
    """One call, mutable so that what a thread notes down is seen on the loop."""

    __slots__ = ("client", "method", "path")

    def __init__(self, method: str) -> None:
        self.method = method
        self.path = COMPUTED  # place in PATHS
        self.client = ""  # the name of the token that it came with


CALL: ContextVar[Call | None] = ContextVar("call", default=None)


def path(name: Path) -> None:
    """Say how the answer to the call at hand is found; outside of a call nothing happens."""
    call = CALL.get()
    if call is not None:
        call.path = _PLACES[name]
