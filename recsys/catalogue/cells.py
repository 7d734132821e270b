"""Cells of any type to text, and what to say of a column whose type, or whose values, are not what is meant.

    a column of a file  ->  as_text  ->  trimmed text, null where there is nothing

Types come from Parquet and JSON: whatever there is ends as text, as lists, or as one sentence that names the column.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from polars.datatypes import DataTypeClass

from recsys.errors import DataError
from recsys.util.printable import shown

IDS = ("user_id", "track_id", "track_ids")
FEWEST = 2  # values that do not fit before a column is at fault; a single one is a bad value
# up to here every whole number has a float of its own; from here on two ids can be the same float
_WHOLE_BELOW: dict[type[pl.DataType], float] = {pl.Float64: 2.0**53, pl.Float32: 2.0**24, pl.Float16: 2.0**11}
_BLANKS = " \t\n\r\x0b\x0c"
_FLOAT_TEXT = r"^[0-9]+\.[0-9]+(?:[eE]\+?[0-9]+)?$"


@contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """Turn what polars cannot do with a table into one sentence.

    Raises:
        DataError: of what polars raised.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = shown(str(error).strip().split("\n", maxsplit=1)[0])
        raise DataError(
            f"{path} has values that cannot be used ({reason}); write the column as text, numbers or lists of them"
        ) from error


def is_scalar(dtype: pl.DataType | DataTypeClass) -> bool:
    """Whether values of a type have a text that says what they are."""
    return dtype.is_numeric() or isinstance(
        dtype,
        (pl.String, pl.Boolean, pl.Date, pl.Datetime, pl.Time, pl.Categorical, pl.Enum, pl.Null, pl.Binary),
    )


def as_text(values: pl.Expr, dtype: pl.DataType | DataTypeClass, *, is_id: bool = False) -> pl.Expr:
    """Make text of scalars: whole numbers without a fraction (7.0 is "7"), NaN and blank text as null.

    Of ids only blanks of the keyboard are taken off; another one may tell two ids apart.
    """
    if dtype.is_float():
        whole = values.is_finite() & (values == values.round()) & (values.abs() < 2.0**63)
        integers = values.cast(pl.Float64).cast(pl.Int64, strict=False).cast(pl.String)
        return pl.when(whole).then(integers).otherwise(values.fill_nan(None).cast(pl.String))
    text = values.cast(pl.String)
    if dtype.is_decimal():
        return text.str.replace(r"\.0+$", "")
    text = text.str.strip_chars(_BLANKS) if is_id else text.str.strip_chars()
    return pl.when(text != "").then(text)


def check_ids(column: pl.Series, path: Path) -> None:
    """Refuse ids that were kept as floating-point numbers where these no longer tell whole numbers apart.

    Raises:
        DataError: there are such.
    """
    values = column.explode() if isinstance(column.dtype, (pl.List, pl.Array)) else column
    limit = _WHOLE_BELOW.get(values.dtype.base_type())
    if limit is None and values.dtype == pl.String:  # a float column that was written as text
        values = values.drop_nulls()
        if not len(values) or not values.head(100).str.contains(_FLOAT_TEXT).all():
            return
        if not values.str.contains(_FLOAT_TEXT).all():
            return
        values, limit = values.cast(pl.Float64, strict=False), _WHOLE_BELOW[pl.Float64]
    if limit is None:
        return
    merged = values.filter((values.abs() >= limit) & values.is_finite())
    if len(merged):
        raise DataError(
            f"{path} has ids in the column {column.name!r} as floating-point numbers, such as {merged[0]:.0f}: from "
            f"{limit:.0f} on different ids become the same number; write them as text or as whole numbers"
        )


def check_type(dtype: pl.DataType, path: Path, name: str) -> None:
    """Refuse a column that has no text.

    Raises:
        DataError: it holds lists, durations or the like.
    """
    if dtype == pl.String:
        return
    what = "lists" if isinstance(dtype, (pl.List, pl.Array)) else f"values of the type {dtype}"
    raise DataError(f"{path} has {what} in the column {name!r}, expected one value a row")


def check_fits(frame: pl.DataFrame, fits: pl.Expr, path: Path | str, column: str, expected: str) -> None:
    """Refuse a column none of whose values fits: it is in another notation, or another thing is meant by its name.

    Args:
        frame: with the column, as it was written, and ``row``.
        fits: marks the values that are what is meant.
        path: the file.
        column: its name.
        expected: what a value should be.

    Raises:
        DataError: there are values, and none of them fits.
    """
    given = frame.filter(pl.col(column).is_not_null())
    if len(given) < FEWEST or given.select(fits.fill_null(False).any()).item():
        return
    value, row = given[column][0], given["row"][0]
    example = "" if not isinstance(value, str) else f" ({shown(value[:200])!r} in row {row})".replace("\\\\", "\\")
    raise DataError(
        f"{path}: none of the {len(given):,} values of the column {column!r} fits{example}; {expected}. Write it so, "
        "or leave the column out"
    )


def missing(names: Collection[str], path: Path, wanted: str) -> DataError:
    """Make the sentence that a column is not there."""
    found = shown(", ".join(name for name in names if name != "row"))
    found = found if len(found) <= 300 else f"{found[:300]}…"
    return DataError(f"{path} has no column {wanted!r}, only {found}; add the column or rename the one meant")
