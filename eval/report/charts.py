"""Figures by model in, charts out.

    points by model  ->  draw_lines (over k, over segments), draw_bars (by segment), draw_bias (against popularity)
                     ->  draw_differences (ablation), draw_shares (users by recall), draw_curve (training)

Each makes one matplotlib figure, under ``drawn.style``; what goes into which is decided in ``eval.report.sections``.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from eval.report.figures import OURS, Point
from eval.report.labels import label, label_ends, label_points
from eval.report.svg import INK, PAPER, SERIES, SOFT, Look

_WIDTH, _HEIGHT = 6.4, 3.9  # inches
_GROUPS = (SERIES[0], SERIES[3], SERIES[4])  # dark, middle, light: groups of bars differ by lightness too
_LINE = 1.4


def draw_lines(
    xs: Sequence[str],
    series: Mapping[str, Sequence[Point | None]],
    looks: Mapping[str, Look],
    x_label: str,
    y_label: str,
) -> Figure:
    """Draw a line a model over named places, with its interval as a band; named models are told at their ends.

    Args:
        xs: names of the places, in order.
        series: by model a point a place, None where there is none.
        looks: of each model.
    """
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    ends = []
    for model in sorted(series, key=lambda model: (looks[model].is_named, model == OURS)):
        look, stands_out = looks[model], model == OURS
        known = [(x, point) for x, point in enumerate(series[model]) if point is not None]
        x = np.array([place for place, _ in known])
        value, low, high = (np.array([getattr(p, name) for _, p in known]) for name in ("value", "low", "high"))
        if not look.is_named:
            axes.plot(x, value, color=look.colour, linewidth=0.7, zorder=1.5)
            continue
        axes.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)
        width = 2.4 if stands_out else _LINE
        axes.plot(x, value, color=look.colour, linewidth=width, linestyle=look.line, marker=look.marker, markersize=5)
        ends.append((model, float(x[-1]), float(value[-1])))
    axes.set_xticks(range(len(xs)), [label(name) for name in xs])
    axes.set_xlim(-0.1, len(xs) - 0.9)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    label_ends(axes, ends)
    return figure


def draw_bars(groups: Mapping[str, Mapping[str, Point]], x_label: str) -> Figure:
    """Draw bars by model, one a group, with intervals; models by the first group's value, the best on top.

    Args:
        groups: by the group's name, points by model.
    """
    order = sorted({m for points in groups.values() for m in points}, key=lambda m: (_first(groups, m), m))
    thick = 0.8 / len(groups)
    figure = Figure(figsize=(_WIDTH, 0.9 + len(order) * (0.14 + 0.15 * len(groups))), layout="constrained")
    axes = figure.add_subplot()
    for n, (name, points) in enumerate(groups.items()):
        known = [(y, points[model]) for y, model in enumerate(order) if model in points]
        y = np.array([place for place, _ in known]) + 0.4 - thick * (n + 0.5)
        values = np.array([point.value for _, point in known])
        axes.barh(y, values, height=thick * 0.9, color=_GROUPS[n % len(_GROUPS)], label=label(name))
        _whiskers(axes, y, [point for _, point in known])
        for place, (_, point) in zip(y, known, strict=True):
            _beside(axes, max(point.high, point.value), float(place), f"{point.value:.3f}")
    _name_rows(axes, order)
    axes.set_xlabel(x_label)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    if len(groups) > 1:
        figure.legend(loc="outside upper left", ncols=len(groups))
    return figure


def draw_differences(points: Mapping[str, Point], x_label: str) -> Figure:
    """Draw a bar a name from zero, with its interval."""
    order = sorted(points, key=lambda name: (points[name].value, name))
    figure = Figure(figsize=(_WIDTH, 1.0 + 0.32 * len(order)), layout="constrained")
    axes = figure.add_subplot()
    y = np.arange(len(order), dtype=np.float64)
    axes.barh(y, [points[name].value for name in order], height=0.6, color=SERIES[0])
    _whiskers(axes, y, [points[name] for name in order])
    for place, name in zip(y, order, strict=True):
        _beside(axes, max(points[name].high, 0), float(place), f"{points[name].value:+.3f}")
    axes.axvline(0, color=SOFT, linewidth=0.9)
    _name_rows(axes, order)
    axes.set_xlabel(x_label)
    axes.margins(x=0.15)
    return figure


def draw_bias(
    points: Mapping[str, tuple[Point, Point]], looks: Mapping[str, Look], x_label: str, y_label: str
) -> Figure:
    """Draw models as labelled points with their intervals.

    Args:
        points: by model its place on x and on y.
        looks: of each model.
    """
    figure = Figure(figsize=(_WIDTH, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for model, (x, y) in points.items():
        look = looks[model]
        marker, size = (look.marker, 8 if model == OURS else 6) if look.is_named else ("o", 4)
        axes.plot(x.value, y.value, color=look.colour, marker=marker, markersize=size, linestyle="none")
        axes.plot([x.value] * 2, [y.low, y.high], color=look.colour, linewidth=1)
        axes.plot([x.low, x.high], [y.value] * 2, color=look.colour, linewidth=1)
    axes.margins(x=0.14, y=0.1)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    places = {model: (x.value, y.value) for model, (x, y) in points.items()}
    label_points(axes, looks, dict(sorted(places.items(), key=lambda pair: (not looks[pair[0]].is_named, -pair[1][1]))))
    return figure


def draw_shares(
    values: Mapping[str, NDArray[np.float64]], looks: Mapping[str, Look], x_label: str, y_label: str
) -> Figure:
    """Draw the share of users whose value is at least x, a line a model.

    Args:
        values: by model a value a user in [0, 1].
        looks: of each model.
    """
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    order = sorted(values, key=lambda model: (-float(values[model].mean()), model))
    for model in order:
        look = looks[model]
        steps, counts = np.unique(values[model], return_counts=True)
        shares = counts[::-1].cumsum()[::-1] / len(values[model])
        xs, ys = np.append(0.0, steps), np.append(1.0, shares)  # all users have at least 0
        name = f"{label(model)} {values[model].mean():.3f}"
        axes.step(xs, ys, where="pre", color=look.colour, linestyle=look.line, label=name, linewidth=_LINE)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    legend = figure.legend(loc="outside right upper", title="mean", alignment="left", fontsize=8.5)
    for text, model in zip(legend.get_texts(), order, strict=True):
        text.set_fontweight("bold" if model == OURS else "normal")
    return figure


def draw_curve(epochs: Sequence[float], costs: Mapping[str, Sequence[float]]) -> Figure:
    """Draw costs over epochs; the lowest of the first, which decides when training stops, is marked."""
    figure = Figure(figsize=(3.8, 2.7), layout="constrained")
    axes = figure.add_subplot()
    for n, (name, values) in enumerate(costs.items()):
        axes.plot(epochs, values, color=SERIES[n % len(SERIES)], linewidth=_LINE, label=label(name))
    first = np.asarray(next(iter(costs.values())), np.float64)
    if np.isfinite(first).any():
        at = int(np.nanargmin(first))
        axes.plot(epochs[at], first[at], color=SERIES[0], marker="o", markersize=6, markeredgecolor=PAPER)
        axes.annotate(
            f"{first[at]:.3f}", (epochs[at], first[at]), (0, 6), textcoords="offset points", ha="center", fontsize=8
        )
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("epoch")
    axes.margins(y=0.12)
    figure.legend(loc="outside upper left", ncols=2, fontsize=8.5)
    return figure


def _first(groups: Mapping[str, Mapping[str, Point]], model: str) -> float:
    first = next(iter(groups.values()))
    return first[model].value if model in first else -1.0


def _whiskers(axes: Axes, y: NDArray[np.float64], points: Sequence[Point]) -> None:
    for place, point in zip(y, points, strict=True):
        if point.has_interval:
            axes.plot([point.low, point.high], [place, place], color=INK, linewidth=1.1, solid_capstyle="butt")


def _beside(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(text, (x, y), (4, 0), textcoords="offset points", va="center", fontsize=7.5, color=SOFT)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(visible=False, axis="y")
    for text, name in zip(axes.get_yticklabels(), names, strict=True):
        text.set_color(INK)
        text.set_fontweight("bold" if name == OURS else "normal")
