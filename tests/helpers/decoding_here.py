"""Decoding and reading tags in this process, where a test is of something else: starting a process costs a second.

What the processes do is done by the same functions, and what passes between goes through JSON as it does on the wire.
``tests/audio/decoding/test_pool.py`` and ``tests/catalogue/tags/test_pool.py`` hold what the processes themselves do.
"""

import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, BinaryIO

import numpy as np
import pytest

from recsys.audio.decoding import worker
from recsys.audio.decoding.decode import decode
from recsys.audio.decoding.pool import DecodeFailure, DecodeWorkers
from recsys.audio.settings import DecodeSettings
from recsys.catalogue.tags import read
from recsys.catalogue.tags.fields import Inside, checked
from recsys.catalogue.tags.pool import TagReaders


def decode_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no process be started by what decodes and by what reads tags."""
    monkeypatch.setattr(DecodeWorkers, "_ask", _decoded)
    monkeypatch.setattr(TagReaders, "_ask", _read)
    monkeypatch.setattr(read, "cpu_limit", lambda _: nullcontext())  # it needs a main thread, as the process has


def _decoded(
    pool: DecodeWorkers, request: dict[str, Any], settings: DecodeSettings | None = None, file: BinaryIO | None = None
) -> tuple[dict[str, Any], np.ndarray] | DecodeFailure:
    asked = json.loads(json.dumps(request))
    reply, samples = worker._reply(asked, decode) if file is None else worker._listened(file, asked)
    told = json.loads(json.dumps(reply))
    return DecodeFailure(told["kind"], told["reason"]) if "kind" in told else (told, np.frombuffer(samples, np.float32))


def _read(pool: TagReaders, opened: Sequence[int | Inside]) -> list[Inside]:
    found = []
    for file in opened:
        if isinstance(file, int):
            with open(os.dup(file), "rb") as source:
                inside = read.read_tags(source)
            told = json.loads(json.dumps({"tags": dict(inside.tags), "notes": inside.notes}))
            found.append(Inside(checked(told["tags"]), tuple(told["notes"])))
        else:
            found.append(file)
    return found
