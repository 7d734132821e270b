"""Labels beside a chart: as near to their places as a gap between them allows."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.report.labels import apart


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.floats(0.001, 0.1))
def test_labels_are_a_gap_apart_in_order(values: list[float], gap: float) -> None:
    values = sorted(values)
    places = apart(values, gap, 0, 1)
    assert len(places) == len(values)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(places))
    assert min(places) >= 0
    assert max(places) <= 1 + 1e-9
    if all(b - a >= gap for a, b in pairwise(values)):
        assert places == pytest.approx(values)
