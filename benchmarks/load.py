"""Load on a gRPC server, from one connection or several, at a few microseconds of processor time a request.

    requests as bytes  ->  Load.peak     ->  as many at once as are allowed, as fast as they are answered
                       ->  Load.steady   ->  so many a second, whether or not earlier ones were answered; latencies

A gRPC client in Python takes as long for a call as the server does, and on few cores would measure itself. This one
speaks just enough HTTP/2 for unary calls: the frames of a request are joined bytes, and of an answer only the ends of
streams are looked at, and that the trailers say grpc-status 0. As any client, it keeps to the number of calls at a time
that the server allows a connection, and sends again what was refused before anybody looked at it (RFC 9113, 8.7): the
latency of what had to wait counts from when it was due.
"""

import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0x0, 0x1, 0x4, 0x6, 0x7, 0x8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_MOST_STREAMS = 0x3  # of the settings: how many the server allows at a time
_LARGE = (1 << 31) - 1
_FIRST_WINDOW = 65535
_REFUSED = struct.pack(">I", 0x7)  # before anybody looked at it
_OK = b"grpc-status\x010"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of it: answers, failures among them, seconds, and each answer's latency in seconds."""

    n: int
    n_failed: int
    seconds: float
    latencies: list[float]

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.n / self.seconds

    def latency(self, share: float) -> float:
        """The latency that this share of the answers kept to."""
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header that is in no table, uncompressed (RFC 7541, 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Load:
    """One connection to a server, for calls of one method after another."""

    def __init__(self, host: str, port: int) -> None:
        """Connect and agree on large windows and no table of headers, so that trailers can be read as they are."""
        self._authority = f"{host}:{port}".encode()
        self._socket = socket.create_connection((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = struct.pack(">HIHI", 1, 0, 4, _LARGE)
        window = _frame(_WINDOW, 0, 0, struct.pack(">I", _LARGE - _FIRST_WINDOW))
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + window)
        self._next, self._window, self._buffer = 1, _FIRST_WINDOW, b""
        self._out = b""
        self._most: int | None = None  # calls at a time, until the server has said
        while self._most is None:
            self._exchange()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def peak(self, method: str, request: Callable[[int], bytes], seconds: float, at_once: int = 64) -> Loaded:
        """Keep ``at_once`` calls of a method running; ``request(n)`` gives the n-th message."""
        begun = perf_counter()
        return self._run(method, request, lambda now, sent, open_: at_once - open_ if now - begun < seconds else 0)

    def steady(self, method: str, request: Callable[[int], bytes], seconds: float, rate: float) -> Loaded:
        """Begin ``rate`` calls a second; a latency counts from when a call was due."""
        begun = perf_counter()
        total = int(seconds * rate)

        def due(now: float, sent: int, _open: int) -> int:
            return min(int((now - begun) * rate) + 1, total) - sent

        return self._run(method, request, due, lambda n: begun + n / rate, total)

    def _run(
        self,
        method: str,
        request: Callable[[int], bytes],
        n_due: Callable[[float, int, int], int],
        due_at: Callable[[int], float] | None = None,
        total: int | None = None,
    ) -> Loaded:
        headers = b"\x83\x86" + b"\x04" + bytes([len(method)]) + method.encode()  # POST, http, the path
        headers += b"\x01" + bytes([len(self._authority)]) + self._authority
        headers += b"\x0f\x10\x10application/grpc" + _literal(b"te", b"trailers")
        begun: dict[int, tuple[float, bytes]] = {}
        refused: list[tuple[float, bytes]] = []
        latencies: list[float] = []
        n_sent = n_failed = 0
        start = perf_counter()
        while True:
            now = perf_counter()
            n_open = len(begun) + len(refused)
            for _ in range(min(n_due(now, n_sent, n_open) + len(refused), (self._most or 0) - len(begun))):
                if refused:
                    due, message = refused.pop()
                else:
                    due, message = now if due_at is None else due_at(n_sent), request(n_sent)
                    n_sent += 1
                body = b"\x00" + struct.pack(">I", len(message)) + message
                if len(body) > self._window:
                    refused.append((due, message))
                    break
                self._window -= len(body)
                stream, self._next = self._next, self._next + 2
                self._out += _frame(_HEADERS, _END_HEADERS, stream, headers)
                self._out += _frame(_DATA, _END_STREAM, stream, body)
                begun[stream] = due, message
            finished = n_sent == total if total is not None else n_due(perf_counter(), n_sent, len(begun)) <= 0
            if not begun and not refused and finished:
                break
            for stream, is_good in self._exchange():
                if stream not in begun:
                    continue
                due, message = begun.pop(stream)
                if is_good is None:
                    refused.append((due, message))
                else:
                    latencies.append(perf_counter() - due)
                    n_failed += not is_good
        return Loaded(len(latencies), n_failed, perf_counter() - start, latencies)

    def _exchange(self) -> list[tuple[int, bool | None]]:
        """Send what is to be sent, read what is there, and give the streams that ended, with whether well.

        None stands for a call that was refused before the server began it.
        """
        readable, writable, _ = select.select([self._socket], [self._socket] if self._out else [], [], 0.0005)
        if writable:
            self._out = self._out[self._socket.send(self._out) :]
        if not readable:
            return []
        received = self._socket.recv(1 << 18)
        if not received:
            raise ConnectionError("the server hung up")
        return self._frames(self._buffer + received)

    def _frames(self, buffer: bytes) -> list[tuple[int, bool | None]]:
        ended: list[tuple[int, bool | None]] = []
        at = 0
        while len(buffer) - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) - at - 9 < length:
                break
            kind, flags, stream = struct.unpack_from(">BBI", buffer, at + 3)
            payload = buffer[at + 9 : at + 9 + length]
            at += 9 + length
            if kind in (_HEADERS, _DATA):
                if flags & _END_STREAM:
                    ended.append((stream, _OK in payload))
            elif kind == 0x3:  # the stream was reset
                ended.append((stream, None if payload == _REFUSED else False))
            elif kind == _WINDOW and stream == 0:
                self._window += int.from_bytes(payload, "big")
            elif kind in (_SETTINGS, _PING) and not flags & _ACK:
                if kind == _SETTINGS:
                    told = dict(struct.iter_unpack(">HI", payload))
                    self._most = told.get(_MOST_STREAMS, self._most or _LARGE)
                self._out += _frame(kind, _ACK, 0, payload if kind == _PING else b"")
            elif kind == _GOAWAY:
                raise ConnectionError("the server sends its clients away")
        self._buffer = buffer[at:]
        return ended
