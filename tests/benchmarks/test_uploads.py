"""The benchmark of uploads runs, on next to nothing; what it finds is no test's affair."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import uploads
from recsys.util.progress import Silent


@pytest.mark.slow
def test_every_measurement_gives_its_lines(tmp_path: Path) -> None:
    rows = uploads.measure(tmp_path, replace(uploads.QUICK, few=5, many=20), Silent())
    assert [row.target for row in rows if row.target] == ["<= 2", ">= 0.95", ">= 0.95"]
    assert [row.met is not None for row in rows] == [True, False] * 3
