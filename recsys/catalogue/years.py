"""The year that a text names, where that is sure.

    "2004", "2004-05-01", "20040501", "2004 (remaster)", "c. 1998", "May 2004"  ->  2004 or 1998

Only the standard library is imported: tags are read in processes that start quickly.
"""

import re
import unicodedata
from datetime import UTC, datetime

FIRST_YEAR = 1000  # earlier years are typing errors, not recordings nor works
_MAX_CHARS = 100  # of a text that is looked into
_YEAR = re.compile(r"(?<![0-9])([12][0-9]{3})(?:(?![0-9])|(?=(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?![0-9])))")


def year_in(text: str) -> int | None:
    """Give the first year in a text, in digits of any script; None where there is none that a recording can be of."""
    digits = "".join(str(unicodedata.decimal(c, c)) for c in text[:_MAX_CHARS])
    found = _YEAR.search(digits)
    year = int(found[1]) if found else 0
    return year if FIRST_YEAR <= year <= datetime.now(UTC).year + 1 else None
