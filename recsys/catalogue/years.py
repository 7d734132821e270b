"""The year of a recording, however somebody wrote it down.

    "2004 (remaster)", "20040501", "May 2004", digits of any script  ->  year_in  ->  2004

For tables and for the tags inside files alike. Of several years the first counts, so that ``1998/1999`` is 1998 and
``1973 (2011 remaster)`` 1973. Two digits are no year: nobody knows of which century.
"""

import re
import unicodedata
from datetime import UTC, datetime

FIRST_YEAR = 1000  # earlier years are typing errors, not recordings nor works
LONGEST = 200  # characters that are looked at

_NUMBER = re.compile(r"[-+\u2212]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?")
_WHOLE = re.compile(r"([0-9]{4})(?:\.0*)?")
_RUN = re.compile(r"[0-9]+")
# a date in one run of digits, its time after it or not; 00 is a month or day that nobody knows
_DATE = re.compile(r"([0-9]{4})(?:0[0-9]|1[0-2])(?:[0-2][0-9]|3[01])(?:[0-9]{6})?")


def last_year() -> int:
    """The last year that a recording can be of: releases are announced ahead."""
    return datetime.now(UTC).year + 1


def year_in(text: str) -> int | None:
    """Find the year in a text; None where there is none, or none from ``FIRST_YEAR`` to ``last_year``.

    Digits may be those of any script. A number is a year by itself or not at all: ``1999.5``, ``-1999``, ``19999``
    and ``99`` are none; a date in one run of digits, ``20040501``, has one.
    """
    text = _ascii_digits(text[:LONGEST]).strip()
    last = last_year()
    if _NUMBER.fullmatch(text) and not text.isdigit():
        whole = _WHOLE.fullmatch(text)
        return _within(whole[1], last) if whole else None
    for run in _RUN.findall(text):
        if len(run) == 4:
            year = _within(run, last)
        else:
            date = _DATE.fullmatch(run)
            year = _within(date[1], last) if date else None
        if year is not None:
            return year
    return None


def _within(digits: str, last: int) -> int | None:
    year = int(digits)
    return year if FIRST_YEAR <= year <= last else None


def _ascii_digits(text: str) -> str:
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)
