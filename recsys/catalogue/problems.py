"""What was wrong with the input: bad rows and files are gathered here, and everything else is used.

    a bad row or file  ->  Problems  ->  the table ``build_problems`` and the counts in the summary

Tables report in bulk: an expression marks the bad rows, and no Python loop sees the good ones. Whether a
problem is fatal (``--strict``) is not decided here.
"""

from collections import Counter

import polars as pl

PROBLEMS_SCHEMA = pl.Schema(
    {
        "kind": pl.String(),
        "source": pl.String(),
        "row": pl.Int64(),
        "value": pl.String(),
        "reason": pl.String(),
    }
)
MAX_VALUE_CHARS = 200  # of a bad value; enough to find it, and a swallowed file does not fill the table


class Problems:
    """A growing list of problems; ``row`` counts data rows from 1, and is null when a whole file is meant."""

    def __init__(self) -> None:
        self._single: list[tuple[str, str, int | None, str | None, str]] = []
        self._bulk: list[pl.DataFrame] = []
        self._left_out: Counter[str] = Counter()

    def add(self, kind: str, source: str, row: int | None, value: object, reason: str) -> None:
        """Report one; ``kind`` is a short hyphenated word, ``source`` the file as the user named it."""
        text = None if value is None else _printable(str(value))[:MAX_VALUE_CHARS]
        self._single.append((kind, _printable(source), row, text, reason))

    def extend(self, frame: pl.DataFrame) -> None:
        """Report many at once: a frame with the columns of ``PROBLEMS_SCHEMA``, in any order."""
        if len(frame):
            cut = pl.col("value").cast(pl.String).str.slice(0, MAX_VALUE_CHARS)
            self._bulk.append(frame.with_columns(cut).select(PROBLEMS_SCHEMA.names()).cast(PROBLEMS_SCHEMA))

    def report(self, frame: pl.DataFrame, bad: pl.Expr, kind: str, source: str, *, value: str, reason: str) -> None:
        """Report the rows of ``frame`` where ``bad`` is true; they stay in it.

        Args:
            frame: any frame with a column ``row``.
            bad: marks the bad rows; null counts as not bad.
            kind: as in ``add``.
            source: as in ``add``.
            value: the column that holds the bad value, scalar or list.
            reason: one clause that says what was expected.
        """
        rows = frame.filter(bad)
        if len(rows):
            self.extend(
                rows.select(
                    pl.lit(kind).alias("kind"),
                    pl.lit(source).alias("source"),
                    pl.col("row"),
                    _shown(rows.schema[value], value).alias("value"),
                    pl.lit(reason).alias("reason"),
                )
            )

    def drop(
        self, frame: pl.DataFrame, bad: pl.Expr, kind: str, source: str, *, value: str, reason: str
    ) -> pl.DataFrame:
        """Report the bad rows as ``report`` does, and return the others."""
        self.report(frame, bad, kind, source, value=value, reason=reason)
        return frame.filter(~bad.fill_null(False))

    def leave_out(self, what: str, n: int) -> None:
        """Count rows that a setting leaves out; that is no problem, but it is not kept silent either."""
        if n:
            self._left_out[what] += n

    @property
    def left_out(self) -> dict[str, int]:
        """Rows left out by a setting, by what they are."""
        return dict(self._left_out)

    def frame(self) -> pl.DataFrame:
        """All problems in ``PROBLEMS_SCHEMA``: those found in bulk, then the single ones, each in order."""
        single = pl.DataFrame(self._single, schema=PROBLEMS_SCHEMA, orient="row")
        return pl.concat([*self._bulk, single])

    def counts(self) -> dict[str, int]:
        """Problems by kind, in alphabetical order."""
        counts = Counter(kind for kind, *_ in self._single)
        for frame in self._bulk:
            counts.update(dict(frame["kind"].value_counts().iter_rows()))
        return dict(sorted(counts.items()))

    def __len__(self) -> int:
        return len(self._single) + sum(map(len, self._bulk))


def _shown(dtype: pl.DataType, column: str) -> pl.Expr:
    """Make text of a bad value for the reader."""
    if isinstance(dtype, pl.List) and dtype.inner.is_nested():
        return pl.lit("[[…]]")
    if isinstance(dtype, pl.List):
        shown = pl.col(column).list.slice(0, MAX_VALUE_CHARS).cast(pl.List(pl.String))
        return pl.format("[{}]", shown.list.eval(pl.element().fill_null("null")).list.join(", "))
    return pl.col(column).cast(pl.String)


def _printable(text: str) -> str:
    """Escape what is not valid text, such as a file name in an unknown encoding."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
