"""Figures as Prometheus reads them, and the port that it asks; prometheus_client writes the text.

    Board  ->  exposition  ->  text
    Scrapes.sockets  ->  their parent waits on them beside its workers, in its own loop  ->  Scrapes.answer(ready)

A thread for the port would be there when the next worker is forked; a process more would need looking after. A caller
that connects and says nothing, or too little, holds up nobody, and gives way to the next ones.
"""

import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import accumulate

from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from recsys.serving.call_context import PATHS
from recsys.serving.metrics import (
    BACKLOG,
    BEHIND,
    BOUNDS_S,
    BUILT_AT,
    DAMAGED_FILES,
    DAMAGED_VALUES,
    FAILED_LOOKUPS,
    LISTS_BEHIND,
    SERVING,
    Board,
    age_s,
)
from recsys.serving.sockets import is_loopback, text_of

MAX_CALLERS = 16  # connected at once, before the one that has been silent longest is let go
MAX_REQUEST = 8192  # bytes that are read of a request; what matters is its first line
SEND_S = 1.0  # the kernel takes the whole answer at once unless the caller has stopped reading
CONTENT_TYPE: str = CONTENT_TYPE_LATEST
UPLOAD = "UploadTrack"


def exposition(board: Board) -> bytes:
    """Write all figures, summed over the workers."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Sums(board))
    return generate_latest(registry)


class _Sums(Collector):
    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        yield self._latencies()
        yield self._calls()
        yield self._upload_failures()
        yield from self._workers()

    def _latencies(self) -> Metric:
        help_text = "Time from a call's arrival to its end, of calls that were let in."
        family = HistogramMetricFamily("recsys_call_seconds", help_text, labels=("method", "path"))
        bounds = [*map(str, BOUNDS_S), "+Inf"]
        for method in self._board.methods:
            for path in PATHS:
                counts, seconds = self._board.latencies(method, path)
                if any(counts):
                    family.add_metric((method, path), list(zip(bounds, accumulate(counts), strict=True)), seconds)
        return family

    def _calls(self) -> Metric:
        family = CounterMetricFamily("recsys_calls", "Calls by how they ended.", labels=("method", "status"))
        for method in self._board.methods:
            for status, count in self._board.calls(method).items():
                family.add_metric((method, status), count)
        return family

    def _upload_failures(self) -> Metric:
        failed = {status: count for status, count in self._board.calls(UPLOAD).items() if status != "OK"}
        help_text = "Uploads that were not taken in, those that were turned away included."
        family = CounterMetricFamily("recsys_upload_failures", help_text)
        family.add_metric((), sum(failed.values()))
        return family

    def _workers(self) -> Iterator[Metric]:
        serving = sum(self._board.abouts(SERVING))
        yield GaugeMetricFamily("recsys_workers", "Worker processes that serve.", serving)
        if built_at := self._board.abouts(BUILT_AT):
            help_text = "Age of the oldest generation that a worker answers from."
            yield GaugeMetricFamily("recsys_generation_age_seconds", help_text, age_s(built_at))
        if backlog := self._board.abouts(BACKLOG):
            help_text = "Entries of the live log that the generation was built without."
            yield GaugeMetricFamily("recsys_live_backlog_entries", help_text, max(backlog))
        if lists := self._board.abouts(LISTS_BEHIND):
            help_text = "Entries of the live log that lists do not take in yet."
            yield GaugeMetricFamily("recsys_lists_behind", help_text, max(lists))
        if failed := self._board.abouts(FAILED_LOOKUPS):
            help_text = "Looks into stored lists that failed, and were tried again or answered another way."
            family = CounterMetricFamily("recsys_failed_lookups", help_text)
            family.add_metric((), sum(failed))
            yield family
        if values := self._board.abouts(DAMAGED_VALUES):
            help_text = "Stored values that workers met and that do not match their checksum."
            family = CounterMetricFamily("recsys_damaged_values", help_text)
            family.add_metric((), sum(values))
            yield family
        if files := self._board.abouts(DAMAGED_FILES):
            help_text = "Files of the generation that answers that are not as they were published."
            yield GaugeMetricFamily("recsys_damaged_files", help_text, max(files))
        if behind := self._board.abouts(BEHIND):
            help_text = "Workers that answer from another generation than the current one."
            yield GaugeMetricFamily("recsys_workers_behind", help_text, sum(behind))


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
