"""A Board's counts as Prometheus reads them; prometheus_client writes the text."""

from collections.abc import Iterator
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
        told = "Time from a call's arrival to its end, of calls that were let in."
        family = HistogramMetricFamily("recsys_call_seconds", told, labels=("method", "path"))
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
        told = "Uploads that were not taken in, those that were turned away included."
        family = CounterMetricFamily("recsys_upload_failures", told)
        family.add_metric((), sum(failed.values()))
        return family

    def _workers(self) -> Iterator[Metric]:
        serving = sum(self._board.abouts(SERVING))
        yield GaugeMetricFamily("recsys_workers", "Worker processes that serve.", serving)
        if built_at := self._board.abouts(BUILT_AT):
            told = "Age of the oldest generation that a worker answers from."
            yield GaugeMetricFamily("recsys_generation_age_seconds", told, age_s(built_at))
        if backlog := self._board.abouts(BACKLOG):
            told = "Entries of the live log that the generation was built without."
            yield GaugeMetricFamily("recsys_live_backlog_entries", told, max(backlog))
        if lists := self._board.abouts(LISTS_BEHIND):
            told = "Entries of the live log that lists do not take in yet."
            yield GaugeMetricFamily("recsys_lists_behind", told, max(lists))
        if failed := self._board.abouts(FAILED_LOOKUPS):
            told = "Looks into stored lists that failed, and were tried again or answered another way."
            family = CounterMetricFamily("recsys_failed_lookups", told)
            family.add_metric((), sum(failed))
            yield family
        if values := self._board.abouts(DAMAGED_VALUES):
            told = "Stored values that workers met and that do not match their checksum."
            family = CounterMetricFamily("recsys_damaged_values", told)
            family.add_metric((), sum(values))
            yield family
        if files := self._board.abouts(DAMAGED_FILES):
            told = "Files of the generation that answers that are not as they were published."
            yield GaugeMetricFamily("recsys_damaged_files", told, max(files))
        if behind := self._board.abouts(BEHIND):
            told = "Workers that answer from another generation than the current one."
            yield GaugeMetricFamily("recsys_workers_behind", told, sum(behind))
