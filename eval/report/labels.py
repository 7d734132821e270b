"""Points and names in, names beside their points out, where they cover nothing.

    last points of lines  ->  label_ends: names in a column, moved apart
    points of a plane     ->  label_points: the place around each that covers least

Lengths are in points (1/72 inch) of the figure as it is laid out, so limits and layout are final before names are put.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from eval.report.figures import OURS
from eval.report.svg import FONT, INK, REST, SOFT, Look, lay_out
from recsys.util.figures import printable

Float64 = NDArray[np.float64]

_SIZE, _SMALL = 8.5, 7.5  # of models that have a colour, and of the rest
_LINE = 11.5  # from one label of a column to the next
_DOT = 5.0  # half a marker's width, with air
_NEAR = 8  # a label this near needs no line to its point
_FAR = (_NEAR, 14, 20, 28, 38, 50, 65)
_AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))  # sides of a point, best first
_POINTS_PER_INCH = 72


def label(name: str) -> str:
    """Bring a name to what fits beside a chart."""
    return printable(name, 32)


def label_ends(axes: Axes, ends: Sequence[tuple[str, float, float]]) -> None:
    """Name lines right of the plot at their last points, moved apart where they would overlap.

    Args:
        axes: its limits are final.
        ends: name, and x and y of the last point.
    """
    if not ends:
        return
    low, high = axes.get_ylim()
    gap = _LINE / _frame(axes).height * (high - low)
    ordered = sorted(ends, key=lambda end: (end[2], end[0]))
    places = apart([y for _, _, y in ordered], gap, low, high)
    line = {"arrowstyle": "-", "color": REST, "linewidth": 0.6, "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 3}
    for (name, x, y), place in zip(ordered, places, strict=True):
        axes.annotate(
            label(name),
            xy=(x, y),
            xytext=(1.05, place),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=_SIZE,
            fontweight=_weight(name),
            arrowprops=line,
        )


def apart(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move ascending values as little as need be until neighbours are a gap apart, inside [low, high] if they fit.

    Least squares under the order: isotonic regression of the values less their share of gaps.
    """
    steps = gap * np.arange(len(values))
    moved = isotonic_regression(np.asarray(values) - steps).x
    room = max(low, high - gap * (len(values) - 1))
    return [float(value) for value in np.clip(moved, low, room) + steps]


def label_points(axes: Axes, looks: Mapping[str, Look], places: Mapping[str, tuple[float, float]]) -> None:
    """Name points, the first ones first, where a name covers no other and no point.

    A name goes farther off, with a line to its point, where all near places are taken: to where the line crosses least.
    """
    frame = _frame(axes)
    scale = _POINTS_PER_INCH / axes.figure.dpi
    dots = {model: np.asarray(axes.transData.transform(place)) * scale for model, place in places.items()}
    boxes = [_box(dot, (0, 0), 0, 2 * _DOT, 2 * _DOT) for dot in dots.values()]
    lines: list[Float64] = []
    for n, (model, dot) in enumerate(dots.items()):
        size = _SIZE if looks[model].is_named else _SMALL
        width, height = _measure(label(model), _weight(model), size)
        options = [(side, far, _box(dot, side, far, width, height)) for far in _FAR for side in _AROUND]
        others = [box for place, box in enumerate(boxes) if place != n]
        best, least = options[0], float("inf")
        for option in options:
            cost = _cost(dot, option[1], option[2], others, lines, frame)
            if cost < least:
                best, least = option, cost
            if least <= option[1]:  # no place farther off can be better
                break
        (dx, dy), far, box = best
        boxes.append(box)
        if far != _NEAR:
            lines.append(_line(dot, box))
        axes.annotate(
            label(model),
            places[model],
            (dx * far, dy * far),
            textcoords="offset points",
            ha=("center", "left", "right")[dx],
            va=("center", "bottom", "top")[dy],
            fontsize=size,
            fontweight=_weight(model),
            color=INK if looks[model].is_named else SOFT,
            arrowprops=None if far == _NEAR else {"arrowstyle": "-", "color": REST, "linewidth": 0.6},
        )


def _cost(dot: Float64, far: int, box: Bbox, others: Sequence[Bbox], lines: Sequence[Float64], frame: Bbox) -> float:
    """Weigh a place: what it covers counts most, then what its line crosses, then how far it is."""
    covered = box.count_overlaps(others) + sum(_touches(box, line) for line in lines)
    outside = not (frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1))
    crossed = 0
    if far != _NEAR:
        line = _line(dot, box)
        crossed = sum(_touches(other, line) for other in others)
        crossed += sum(_meet(line[0], line[-1], other[0], other[-1]) for other in lines)
    return 1000 * covered + 500 * outside + 40 * crossed + far


def _line(dot: Float64, box: Bbox) -> Float64:
    """Points along the line from a point to the middle of its name, as far as the name's edge."""
    along = dot + np.linspace(0, 1, 24)[:, None] * (np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2]) - dot)
    return along[~_inside(box, along)]


def _touches(box: Bbox, line: Float64) -> bool:
    return bool(_inside(box, line).any())


def _inside(box: Bbox, points: Float64) -> NDArray[np.bool_]:
    """Tell which points (n, 2) lie in a box."""
    return np.asarray(((points > box.min) & (points < box.max)).all(axis=1))


def _meet(a: Float64, b: Float64, c: Float64, d: Float64) -> bool:
    """Tell whether the stretches a-b and c-d cross."""

    def side(p: Float64, q: Float64, r: Float64) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def _box(dot: Float64, side: tuple[int, int], far: int, width: float, height: float) -> Bbox:
    """Make the box of a name that stands so far from a point: side (1, 0) is right of it, (0, 1) above."""
    x, y = dot + np.array(side) * (far, far) + np.array(side) * (width / 2, height / 2)
    return Bbox.from_extents(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _measure(text: str, weight: str, size: float) -> tuple[float, float]:
    """Width and height of a name."""
    font = FontProperties(family=FONT, weight=weight)
    return float(TextPath((0, 0), text, size=size, prop=font).get_extents().width) + 2, size * 1.2


def _frame(axes: Axes) -> Bbox:
    """Lay the figure out and give the plot's box in points."""
    figure = axes.get_figure(root=True)
    axes.get_xlim(), axes.get_ylim()  # settles them
    if figure is not None:
        lay_out(figure)
    return Bbox(axes.get_window_extent().get_points() * (_POINTS_PER_INCH / axes.figure.dpi))


def _weight(name: str) -> str:
    return "bold" if name == OURS else "normal"
