"""What was wrong with the input: bad rows and files are gathered here, and everything else is used.

    a bad row or file  ->  Problems  ->  the table ``build_problems`` and the counts in the summary

Tables report in bulk: an expression marks the bad rows, and no Python loop sees the good ones. What many rows have in
common is one problem that counts them. Text is kept as it can be shown: controls and what is invisible are escaped.
Whether a problem is fatal (``--strict``) is not decided here.
"""

from collections import Counter
from typing import Any

import polars as pl

from recsys.util.printable import shown, shown_values

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
EXAMPLES = 5  # of a kind, in a summary
MAX_FORMS = 50  # of bad values of one column that are told one by one


class Problems:
    """A growing list of problems; ``row`` counts data rows from 1, and is null when a whole file is meant."""

    def __init__(self) -> None:
        self._single: list[tuple[str, str, int | None, str | None, str]] = []
        self._bulk: list[pl.DataFrame] = []
        self._left_out: Counter[str] = Counter()

    def add(self, kind: str, source: str, row: int | None, value: object, reason: str) -> None:
        """Report one; ``kind`` is a short hyphenated word, ``source`` the file as the user named it."""
        text = None if value is None else shown(str(value)[:MAX_VALUE_CHARS])
        self._single.append((kind, shown(source), row, text, shown(reason)))

    def extend(self, frame: pl.DataFrame) -> None:
        """Report many at once: a frame with the columns of ``PROBLEMS_SCHEMA``, in any order."""
        if len(frame):
            cut = pl.col("value").cast(pl.String).str.slice(0, MAX_VALUE_CHARS)
            frame = frame.with_columns(cut).select(PROBLEMS_SCHEMA.names()).cast(PROBLEMS_SCHEMA)
            self._bulk.append(frame.with_columns(shown_values(frame[name]) for name in ("source", "value", "reason")))

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

    def report_forms(
        self, frame: pl.DataFrame, bad: pl.Expr, kind: str, source: str, *, value: str, reason: str
    ) -> None:
        """Report the rows where ``bad`` is true once for each form that their values have, such as 99.99.9999.

        The first row of a form stands for all, which are counted in the reason.
        """
        rows = frame.filter(bad).select("row", pl.col(value).str.slice(0, MAX_VALUE_CHARS).alias("value"))
        if rows.is_empty():
            return
        text = pl.col("value").str.replace_all(r"[0-9]", "9").str.replace_all(r"\p{L}+", "a")
        forms = rows.group_by(text.alias("form"), maintain_order=True).agg(
            pl.col("row").first(), pl.col("value").first(), pl.len()
        )
        for row, example, n in forms.head(MAX_FORMS).select("row", "value", "len").iter_rows():
            so_many = f"; {n:,} values are written so" if n > 1 else ""
            self.add(kind, source, row, example, f"{reason}, not {example}{so_many}")
        if len(forms) > MAX_FORMS:
            rest = forms.slice(MAX_FORMS)
            n, more = int(rest["len"].sum()), f"; {len(rest):,} more forms, as this one, are not listed"
            self.add(kind, source, rest["row"][0], rest["value"][0], f"{reason}{more}: {n:,} values")

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

    def examples(self) -> list[tuple[Any, ...]]:
        """Rows of ``PROBLEMS_SCHEMA``: of each kind the first problem, and the first ones with other reasons."""
        distinct = self.frame().unique(["kind", "reason"], keep="first", maintain_order=True)
        return distinct.group_by("kind", maintain_order=True).head(EXAMPLES).select(PROBLEMS_SCHEMA.names()).rows()

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
