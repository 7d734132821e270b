"""A store of a test's own, and what answers from it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from helpers.stores import copied
from recsys.serving.fast_path import FastPath
from recsys.serving.reload import open_answers


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    return copied(tiny_store, tmp_path)


@pytest.fixture
def answers(store: Path) -> Iterator[FastPath]:
    with closing(open_answers(store)) as answers:
        answers.live.settle()
        yield answers
