"""What the server says on standard error: a line a thing, for people or as JSON, without what was said in confidence.

    logging -> to_stderr(style) -> "worker 7 was killed by signal 9 (Killed); starting another"
                                   {"at": "…", "level": "warning", "message": "worker 7 …", "process": 12}

Refusals and faults have a line each, other calls only if asked for. No line holds a token, a lyric or a user's id:
of a fault its kind and its place in the code are told, but not its words, which may quote a request. Words are kept
where they are of this machine (files, sockets), and everywhere if details are asked for.
"""

import json
import logging
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from recsys.errors import ArtefactError
from recsys.serving.call_context import CALL
from recsys.serving.settings import ServeSettings

LINES_S = 20  # refusals that a process tells in a second: a flood of them must not become one of lines
OF_THIS_MACHINE = (ArtefactError, OSError)

_LOG = logging.getLogger(__name__)
_OWN = ("recsys", "grpc")  # loggers whose messages quote no request


class _ToStderr(logging.StreamHandler[Any]):
    """Writes to what is standard error when it writes; the stream is never flushed away or closed."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)  # not StreamHandler's own, which would fix the stream

    @property
    def stream(self) -> Any:
        return sys.stderr


class _Lines(logging.Formatter):
    """Turns what is logged into lines, by the style that the settings name."""

    def __init__(self, as_json: bool, details: bool) -> None:
        super().__init__()
        self._as_json = as_json
        self._details = details

    def format(self, record: logging.LogRecord) -> str:
        message, fields = self._message(record), _fields(record)
        fault = record.exc_info[1] if record.exc_info else None
        told = None if fault is None else self._fault(fault)
        if self._as_json:
            at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
            line = {"at": at, "level": record.levelname.lower(), "message": message, "process": record.process}
            return json.dumps({**line, **fields, **({} if told is None else {"fault": told})}, ensure_ascii=False)
        if fields:
            message += f" ({', '.join(f'{name} {value}' for name, value in fields.items())})"
        return message if told is None else "\n".join([message, *(f"  {line}" for line in told)])

    def _message(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if self._details or record.name.partition(".")[0] in _OWN:
            return message
        return message.partition("\n")[0].partition("(")[0]  # asyncio puts arguments behind these

    def _fault(self, fault: BaseException | None) -> list[str]:
        """The frames and kinds of an exception and of those that led to it, the first one first."""
        if fault is None:
            return []
        told = self._fault(fault.__cause__ or (None if fault.__suppress_context__ else fault.__context__))
        told += [
            f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(fault.__traceback__)
        ]
        words = f": {fault}" if self._details or isinstance(fault, OF_THIS_MACHINE) else ""
        return [*told, f"{type(fault).__name__}{words}"]


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    """What is known of the call that a line is about."""
    given: Mapping[str, Any] | None = getattr(record, "call", None)
    call = CALL.get()
    if given is not None or call is None:
        return given or {}
    return {"method": call.method, **({"token": call.client} if call.client else {})}


@contextmanager
def to_stderr(settings: ServeSettings) -> Iterator[None]:
    """Write what is logged to standard error as long as the block runs, in processes forked inside it as well."""
    root, own = logging.getLogger(), logging.getLogger("recsys")
    handler, level = _ToStderr(), own.level
    handler.setFormatter(_Lines(settings.log == "json", settings.log_details))
    root.addHandler(handler)
    own.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        own.setLevel(level)


class CallLog:
    """Lines about calls: some of those that were turned away, ``LINES_S`` a second at most, and all if asked for."""

    def __init__(self, every_call: bool = False) -> None:
        self.every_call = every_call
        self._second = 0
        self._written = 0
        self._left_out = 0

    def refused(self, method: str, status: str, sentence: str, **about: object) -> None:
        """Say that a call was refused by access control."""
        if self._may_write():
            _LOG.warning("%s refused: %s", method, sentence, extra={"call": {"status": status, **about}})

    def answered(self, method: str, status: str, seconds: float, **about: object) -> None:
        """Say how a call ended, if every call is to be told."""
        if self.every_call:
            fields = {"status": status, "ms": round(1000 * seconds, 3), **about}
            _LOG.info("%s answered", method, extra={"call": fields})

    def _may_write(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            if self._left_out:
                _LOG.warning("%d more refusals were not told one by one", self._left_out, extra={"call": {}})
            self._second, self._written, self._left_out = second, 0, 0
        self._written += 1
        self._left_out += self._written > LINES_S
        return self._written <= LINES_S
