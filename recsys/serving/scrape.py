"""The port that Prometheus asks, served by the parent of the workers in its own loop, without a thread.

    Scrapes.sockets -> the parent waits on them beside its workers -> Scrapes.answer(ready)

A thread would be there when the next worker is forked; a process more would need looking after. A caller that
connects and says nothing, or too little, holds up nobody, and gives way to the next ones.
"""

import socket
from collections.abc import Callable, Collection
from contextlib import suppress

from recsys.serving.sockets import is_loopback, text_of

MAX_CALLERS = 16  # connected at once, before the one that has been silent longest is let go
MAX_REQUEST = 8192  # bytes that are read of a request; what matters is its first line
SEND_S = 1.0  # the kernel takes the whole answer at once unless the caller has stopped reading


class Scrapes:
    """A bound socket that answers GET /metrics."""

    def __init__(self, listener: socket.socket, text: Callable[[], bytes], content_type: str) -> None:
        self._listener = listener
        self._text = text
        self._content_type = content_type
        self._callers: list[socket.socket] = []
        listener.listen()
        listener.setblocking(False)

    @property
    def sockets(self) -> list[socket.socket]:
        """What to wait on."""
        return [self._listener, *self._callers]

    @property
    def where(self) -> str:
        """The address that is listened on."""
        return text_of(self._listener)

    @property
    def is_loopback(self) -> bool:
        """Whether nobody on another machine can ask."""
        return is_loopback(self._listener.getsockname()[0])

    def answer(self, ready: Collection[object]) -> None:
        """Answer those of the sockets that have something to say."""
        for caller in [caller for caller in self._callers if caller in ready]:
            self._callers.remove(caller)
            with caller, suppress(OSError):  # a caller that has left
                caller.settimeout(SEND_S)
                caller.sendall(self._response(caller.recv(MAX_REQUEST)))
        if self._listener in ready:
            with suppress(OSError):  # it has left before it was met
                self._callers.append(self._listener.accept()[0])
            if len(self._callers) > MAX_CALLERS:
                self._callers.pop(0).close()

    def _response(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path not in (b"/metrics", b"/") or method not in (b"GET", b"HEAD"):
            status, kind, body = "404 Not Found", "text/plain", b"GET /metrics is all there is\n"
        else:
            status, kind, body = "200 OK", self._content_type, self._text()
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + (b"" if method == b"HEAD" else body)

    def close(self) -> None:
        """Let go of the port and of those that are connected."""
        for held in self.sockets:
            held.close()
