"""An evaluation in, its figures by name out: what can be drawn, and what is ours.

    figures in FIGURES_SCHEMA  ->  Points  ->  points by model of a split, segment, metric and k

Figures that are no number are not there. Nothing is computed here but which k and which models a reader sees first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from eval.judge import HYBRID, WITHOUT

REPRESENTATION = "representation"  # the split of figures of sound vectors; no lists were judged there
OURS = HYBRID
COLD_USER = "cold-user-"
_MAIN_K = 20


class Point(NamedTuple):
    """A figure with its interval; the ends are the value itself where it has none."""

    value: float
    low: float
    high: float
    n: int

    @property
    def has_interval(self) -> bool:
        """Whether the interval says anything."""
        return self.low < self.value or self.value < self.high


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Points by (split, segment, metric, k) and then model, all in order of first appearance."""

    points: dict[tuple[str, str, str, int | None], dict[str, Point]]

    @classmethod
    def of(cls, figures: pl.DataFrame) -> "Points":
        """Read the figures that are numbers."""
        points: dict[tuple[str, str, str, int | None], dict[str, Point]] = {}
        for model, split, segment, metric, k, value, *ends, n in figures.rows():
            if value is None or not math.isfinite(value):
                continue
            low, high = (end if end is not None and math.isfinite(end) else value for end in ends)
            points.setdefault((split, segment, metric, k), {})[model] = Point(value, low, high, n or 0)
        return cls(points)

    def get(self, split: str, metric: str, k: int | None, segment: str = "all") -> dict[str, Point]:
        """Points by model; empty where there are none."""
        return self.points.get((split, segment, metric, k), {})

    def splits(self) -> list[str]:
        """Splits on which lists were judged."""
        return list(dict.fromkeys(split for split, *_ in self.points if split != REPRESENTATION))

    def ks(self, split: str) -> list[int]:
        """List lengths of a split, ascending."""
        return sorted({k for of, _, _, k in self.points if of == split and k is not None})

    def metrics(self, split: str) -> list[str]:
        """Metrics of a split over all its users or tracks."""
        found = (metric for of, segment, metric, _ in self.points if of == split and segment == "all")
        return list(dict.fromkeys(found))

    def segments(self, split: str, metric: str, k: int) -> list[str]:
        """Segments of a split that have this figure."""
        return list(dict.fromkeys(seg for of, seg, m, length in self.points if (of, m, length) == (split, metric, k)))

    def main_k(self, split: str) -> int | None:
        """The list length that is shown first: 20, or the longest."""
        ks = self.ks(split)
        return _MAIN_K if _MAIN_K in ks else max(ks, default=None)


def is_baseline(model: str) -> bool:
    """Whether a model is neither the hybrid nor made of it."""
    return model != OURS and not model.startswith((f"{OURS}/", WITHOUT))


def best(points: dict[str, Point]) -> str | None:
    """Name the model of the highest value; the first of several."""
    return max(points, key=lambda model: points[model].value) if points else None


def per_user(out: Path, found: Points) -> pl.DataFrame | None:
    """Read ``per_user.parquet`` where there is one: user_id, split, model and recall, of what was judged.

    The last column's name says at which k.

    A file of another run or form is passed over: a report without a plot is better than none.
    """
    path = out / "per_user.parquet"
    if not path.is_file() or not found.splits():
        return None
    try:
        frame = pl.read_parquet(path, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError):
        return None
    values = [name for name in frame.columns if name.startswith("recall@")]
    if not values or not {"user_id", "split", "model"} <= set(frame.columns):
        return None
    judged = {(split, model) for (split, *_), points in found.points.items() for model in points}
    keys = pl.DataFrame(sorted(judged), schema=["split", "model"], orient="row")
    frame = frame.select("user_id", "split", "model", pl.col(values[0]).cast(pl.Float64))
    frame = frame.filter(pl.col(values[0]).is_finite()).join(keys, on=["split", "model"], how="semi")
    return frame if len(frame) else None


def tests_of(about: dict[str, Any], split: str) -> dict[str, dict[str, Any]]:
    """Paired tests of a split on recall, by the model that the hybrid is held against."""
    rows: Sequence[dict[str, Any]] = about.get("tests") or ()
    return {
        row["model"]: row
        for row in rows
        if row.get("split") == split and str(row.get("metric", "")).startswith("recall") and "model" in row
    }
