"""Points by model in, HTML tables out.

    (heading, points by model), ...  ->  model_table: a row a model, the best of a column in bold, ours in colour
    networks and their figures       ->  network_table, heat_table

A cell carries its number as ``data-v``, by which ``page.js`` sorts when a heading is clicked; without scripts a table
stands in the order in which it was written, the best first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.report.figures import OURS, Point, best
from eval.report.markup import Html, element, joined


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A heading and its points by model; ``has_best`` where the highest value is the best one."""

    heading: str
    points: Mapping[str, Point]
    has_best: bool = True


def number(value: float) -> str:
    """Write a figure with three decimals, and a large one with fewer."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def model_table(columns: Sequence[Column], first: str = "model") -> Html:
    """Lay out points, a row a model, in the order of the first column from its highest value."""
    models = list(dict.fromkeys(model for column in columns for model in column.points))
    lead = columns[0].points
    models.sort(key=lambda model: -lead[model].value if model in lead else float("inf"))
    tops = [best(dict(column.points)) if column.has_best else None for column in columns]
    rows = []
    for model in models:
        cells = [_cell(c.points.get(model), model, c, top) for c, top in zip(columns, tops, strict=True)]
        rows.append(_row(model, cells))
    return _table([first, *(column.heading for column in columns)], rows, sorted_by=1)


def heat_table(columns: Sequence[Column], first: str) -> Html:
    """Lay out shares in [0, 1], each cell the deeper coloured the higher it is."""
    models = list(dict.fromkeys(model for column in columns for model in column.points))
    rows = []
    for model in models:
        cells = []
        for column in columns:
            point = column.points.get(model)
            depth = 0.0 if point is None else min(max(point.value, 0.0), 1.0)
            shade = None if point is None else f"background:rgba(68,119,170,{0.6 * depth:.3f})"
            text = "" if point is None else number(point.value)
            cells.append(element("td", text, class_="n", style=shade, data_v=_exact(point), title=_interval(point)))
        rows.append(_row(model, cells))
    return _table([first, *(column.heading for column in columns)], rows)


def facts_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Html:
    """Lay out facts: numbers to the right, all else as text; None is an empty cell."""
    return _table(headings, [element("tr", *(_fact(value) for value in row)) for row in rows], kind=" facts")


def network_table(columns: Sequence[Column], networks: Mapping[str, Mapping[str, Any]]) -> Html:
    """Lay out figures of networks, then their parameters, ms a clip and seconds of fitting where they are known."""
    names = list(dict.fromkeys([*(n for column in columns for n in column.points), *networks]))
    facts: list[tuple[str, Callable[[Mapping[str, Any]], float | None], str]] = [
        ("parameters", lambda known: _real(known.get("n_parameters")), ",.0f"),
        ("ms a clip", lambda known: _real(known.get("embed_ms")), ",.1f"),
        ("s a fit", lambda known: _mean(known.get("fit_seconds")), ",.1f"),
    ]
    facts = [fact for fact in facts if any(fact[1](networks.get(name, {})) is not None for name in names)]
    tops = [best(dict(column.points)) for column in columns]
    rows = []
    for name in names:
        known = networks.get(name, {})
        cells = [_cell(c.points.get(name), name, c, top) for c, top in zip(columns, tops, strict=True)]
        for _, read, form in facts:
            value = read(known)
            cells.append(element("td", "" if value is None else format(value, form), class_="n", data_v=value))
        rows.append(_row(name, cells, str(known.get("label", "")) or None))
    return _table(["network", *(c.heading for c in columns), *(heading for heading, _, _ in facts)], rows)


def _table(headings: Sequence[str], rows: Sequence[Html], sorted_by: int | None = None, kind: str = "") -> Html:
    heads = [
        element("th", name, scope="col", aria_sort="descending" if n == sorted_by else None)
        for n, name in enumerate(headings)
    ]
    table = element(
        "table", element("thead", element("tr", *heads)), element("tbody", joined(rows)), class_=f"sortable{kind}"
    )
    return element("div", table, class_="wide", tabindex=0, role="region", aria_label=f"table by {headings[0]}")


def _row(name: str, cells: Sequence[Html], title: str | None = None) -> Html:
    kind = "ours" if name == OURS else "part" if name.startswith(f"{OURS}/") else None
    return element("tr", element("th", name, scope="row", title=title), *cells, class_=kind)


def _cell(point: Point | None, model: str, column: Column, top: str | None) -> Html:
    if point is None:
        return element("td", class_="n")
    is_best = top is not None and (model == top or point.value == column.points[top].value)
    text = element("b", number(point.value)) if is_best else number(point.value)
    half = (point.high - point.low) / 2
    spread = element("small", f" ±{number(half)}") if point.has_interval else None
    return element("td", text, spread, class_="n", data_v=_exact(point), title=_interval(point))


def _interval(point: Point | None) -> str | None:
    if point is None or not point.has_interval:
        return None
    return f"95 % interval {number(point.low)} to {number(point.high)}, n = {point.n:,}"


def _exact(point: Point | None) -> str | None:
    return None if point is None else f"{point.value:.6g}"


def _fact(value: object) -> Html:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return element("td", "" if value is None else value)
    return element("td", f"{value:,}" if isinstance(value, int) else _short(value), class_="n", data_v=f"{value:.6g}")


def _short(value: float) -> str:
    return f"{value:.1e}" if 0 < abs(value) < 5e-4 else number(value)


def _real(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _mean(values: object) -> float | None:
    known = [v for v in map(_real, values if isinstance(values, list) else [values]) if v is not None]
    return sum(known) / len(known) if known else None
