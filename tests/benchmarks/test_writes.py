from pathlib import Path

import pytest

from benchmarks.writes import QUICK, measure
from recsys.util.progress import Silent


@pytest.mark.slow
def test_it_runs_and_says_what_it_found(tmp_path: Path) -> None:
    rows = measure(tmp_path, QUICK, Silent())
    assert [row.target for row in rows] == ["<= 4", "<= 100 ms", "<= 2"]
    assert all(row.found for row in rows)
