"""Numbers written as text, in whichever notation a whole column is.

    "2.5" or, in all of a column, "2,5"  ->  read_numbers  ->  2.5; NaN and infinity for the caller to judge

A comma is read as a decimal one only where a column has no decimal point and it cannot part thousands: ``1,000`` alone
is a thousand to some and one to others, and is named instead.
"""

import polars as pl

from recsys.catalogue.problems import Problems

COMMA = r"^[+-]?[0-9]+,[0-9]+$"
_THOUSANDS = r"^[+-]?[0-9]{1,3}(?:,[0-9]{3})+$"
_POINT = r"^[+-]?[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?$"


def read_numbers(texts: pl.Series) -> pl.Series:
    """Read a column of text as float64; what is no number is null."""
    commas = texts.str.contains(COMMA)
    points, thousands = texts.str.contains(_POINT), texts.filter(commas).str.contains(_THOUSANDS)
    if commas.any() and not points.any() and not thousands.all():
        texts = texts.zip_with(~commas.fill_null(False), texts.str.replace(",", ".", literal=True))
    return texts.cast(pl.Float64, strict=False)


def report_numbers(
    frame: pl.DataFrame, bad: pl.Expr, problems: Problems, kind: str, source: str, *, value: str, reason: str
) -> None:
    """Report what is bad in a column of numbers: those with a comma once, the others one by one."""
    comma = pl.col(value).str.contains(COMMA).fill_null(False)
    problems.report(frame, bad & ~comma, kind, source, value=value, reason=reason)
    expected = (
        f"{reason}, its decimals after a point; this column has commas and points, or commas that may part thousands"
    )
    problems.report_forms(frame, bad & comma, kind, source, value=value, reason=expected)
