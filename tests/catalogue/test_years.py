from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.catalogue.years import FIRST_YEAR, last_year, year_in

NOW = datetime.now(UTC).year


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("1999", 1999), (" 1999.0 ", 1999), ("2004-05-01T10:00:00Z", 2004), ("2004/05", 2004), ("01.05.2004", 2004),
        ("２００４", 2004), ("٢٠٠٤-05-01", 2004), ("২০০৪", 2004), ("2004年", 2004), ("2004 (remaster)", 2004),
        ("20040501", 2004), ("20040000", 2004), ("20040501T101010", 2004), ("20040501101010", 2004),
        ("c. 1998", 1998), ("©1998", 1998), ("May 2004", 2004), ("1990s", 1990),
        ("1998/1999", 1998), ("1973 (2011 remaster)", 1973), ("9999, no: 2004", 2004),
        (str(NOW + 1), NOW + 1), (str(FIRST_YEAR), FIRST_YEAR),
        ("", None), ("next", None), ("99", None), ("'98", None), ("999", None), ("0999", None), ("0", None),
        ("-1999", None), ("1999.5", None), ("1.999", None), ("1,999", None), ("1e3", None), ("1.999e3", None),
        ("19999", None), ("20041301", None), ("20040532", None), ("1086048000", None), (str(NOW + 2), None),
        ("²⁰⁰⁴", None), ("MMIV", None), ("NaN", None), ("x" * 300 + "2004", None),
    ],
)  # fmt: skip
def test_the_year_in_a_text(text: str, year: int | None) -> None:
    assert year_in(text) == year


@given(st.text())
def test_any_text_has_a_year_in_range_or_none(text: str) -> None:
    year = year_in(text)
    assert year is None or FIRST_YEAR <= year <= last_year() == NOW + 1


@given(st.integers(FIRST_YEAR, 1900 + 100), st.sampled_from(["{}", "{}.0", "c. {}", "{} (x)", "{}-01-02", "{}0102"]))
def test_a_year_is_found_however_it_is_written(year: int, written: str) -> None:
    assert year_in(written.format(year)) == year
