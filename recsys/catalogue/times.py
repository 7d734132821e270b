"""When something was heard, however a table says it: text in, UTC times out.

    "1391089608", "2014-01-30T14:46:48+01:00", "2014/01/30 13:46", "20140130"  ->  read_times  ->  Datetime("us", "UTC")

Epochs are seconds, milliseconds, microseconds or nanoseconds, by their size; no zone means UTC. Forms that two
countries read differently, such as 04/12/2020, are told and not guessed. A time from before anybody logged listens, or
still to come, says only that the time is not known.
"""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import polars as pl

from recsys.catalogue.cells import check_fits
from recsys.catalogue.problems import Problems

FIRST = datetime(2002, 10, 1, tzinfo=UTC)  # the first service that logged what was heard began that autumn
TOLERANCE = timedelta(days=1)  # a clock may be wrong by a time zone
# an epoch this large is in ms, in µs, in ns: as seconds 1e11 lies in the year 5138, as ms in 1973
UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (float("inf"), 1e9))
EXPECTED = "expected epoch seconds or milliseconds, or ISO 8601 such as 2014-01-30T13:46:48Z"

# the date, hours and minutes, seconds, and zone of an ISO 8601 time; all but the date may be missing
_TIME = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]([0-9]{2}:[0-9]{2})(:[0-9]{2}(?:[.,][0-9]+)?)?"
    r"\s*([Zz]|UTC|[+-][0-9]{2}(?::?[0-9]{2})?)?)?$"
)
_BASIC_TIME = r"^([0-9]{4})([0-9]{2})([0-9]{2})[Tt]([0-9]{2})([0-9]{2})([0-9]{2})"  # without dashes and colons
# a whole date, or one with minutes or seconds, in one run of digits: as an epoch it would be of before 1974 or to come
_RUN = r"^((?:19|20)[0-9]{2})(0[1-9]|1[0-2])([0-2][0-9]|3[01])(?:([0-2][0-9])([0-5][0-9])([0-5][0-9])?)?$"
_YEAR_FIRST = r"^([0-9]{4})[/.]([0-9]{2})[/.]([0-9]{2})"


def read_times(frame: pl.DataFrame, source: str, problems: Problems) -> pl.DataFrame:
    """Read the column ``listened_at`` of text; what cannot be read is told once for each form that it has.

    Raises:
        DataError: there are times, and none of them can be read.
    """
    frame = frame.with_columns(time=_times(frame["listened_at"]))
    readable = pl.col("time").is_not_null()
    given = pl.col("listened_at").is_not_null()
    check_fits(frame, readable, source, "listened_at", EXPECTED)
    problems.report_forms(frame, given & ~readable, "bad-time", source, value="listened_at", reason=EXPECTED)
    possible = pl.col("time").is_between(FIRST, datetime.now(UTC) + TOLERANCE)
    unknown = frame.filter(readable & ~possible)
    if len(unknown):
        problems.add(
            "unknown-time", source, unknown["row"][0], unknown["listened_at"][0],
            f"{len(unknown):,} times lie before {FIRST:%Y-%m-%d} or in the future; these listens count, their time is "
            "not known",
        )  # fmt: skip
    return frame.with_columns(listened_at=pl.when(possible).then("time")).drop("time")


def to_the_second(times: pl.Series) -> bool:
    """Whether any of some times is not at a full minute, as dates and rounded times are."""
    return bool(((times.dt.second() != 0) | (times.dt.microsecond() != 0)).any())


def _times(texts: pl.Series) -> pl.Series:
    """Read times, null where they are no times; beyond the years that can be counted they lie at an end."""
    number = texts.cast(pl.Float64, strict=False)
    value = pl.col("number")
    seconds: pl.Expr = pl.when(value.is_finite()).then(value)
    for (start, _), (end, unit) in pairwise(UNITS):
        seconds = pl.when((value.abs() >= start) & (value.abs() < end)).then(value / unit).otherwise(seconds)
    micros = (seconds.clip(-2e11, 2e11) * 1e6).round().cast(pl.Int64, strict=False).cast(pl.Datetime("us", "UTC"))
    times = pl.DataFrame({"number": number}).select(time=micros)["time"]
    others = (texts.is_not_null() & (number.is_null() | _may_be_date(texts))).fill_null(False).arg_true()
    if len(others):
        dated = texts.gather(others).str.replace(_RUN, "$1-$2-${3}T$4:$5:$6").str.replace(r"T::$", "")
        dates = dated.str.replace(r":$", "").to_frame("text").select(time=_date(pl.col("text")))["time"]
        is_number = dated.cast(pl.Float64, strict=False).is_not_null()
        times = times.scatter(others, dates.zip_with(~is_number, times.gather(others)))
    return times


def _may_be_date(texts: pl.Series) -> pl.Series:
    """Mark what is as long as a date in one run of digits, of which there may be none in millions of epochs."""
    return texts.str.len_bytes().is_in([8, 12, 14])


def _date(text: pl.Expr) -> pl.Expr:
    plain = text.str.replace(_BASIC_TIME, "$1-$2-${3}T$4:$5:$6").str.replace(_YEAR_FIRST, "$1-$2-$3")
    day, minutes, rest, zone = (plain.str.extract(_TIME, part) for part in (1, 2, 3, 4))
    zone = zone.str.to_uppercase().replace("UTC", "Z").str.replace(r"^([+-][0-9]{2})$", "$1:00")
    clock = pl.concat_str(minutes.fill_null("00:00"), rest.str.replace(",", ".").str.slice(0, 10).fill_null(":00"))
    iso = pl.concat_str(day, pl.lit("T"), clock, zone.fill_null("Z"))
    return iso.str.to_datetime("%+", strict=False, time_unit="us", time_zone="UTC")
