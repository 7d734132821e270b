"""The call that is being answered, as far as metrics and logs care: what it is, whose, which way its answer was found.

``CALL`` is set while a call is computed, on threads too that were given its context (``asyncio.to_thread`` does that).
What is answered at once is over before anything could ask, so it goes without.
"""

from contextvars import ContextVar
from typing import Literal

Path = Literal["plain", "filtered", "live", "computed"]
PATHS: tuple[Path, ...] = ("plain", "filtered", "live", "computed")
PLAIN, FILTERED, LIVE, COMPUTED = range(len(PATHS))


class Call:
    """One call, as access control knows it."""

    __slots__ = ("client", "method", "path")

    def __init__(self, method: str) -> None:
        self.method = method
        self.path = COMPUTED  # place in PATHS
        self.client = ""  # the name of the token that it came with


CALL: ContextVar[Call | None] = ContextVar("call", default=None)
