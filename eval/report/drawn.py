"""A matplotlib figure in, SVG for the page out: its colours follow the page's scheme, its ids meet no other chart's.

    with style(): figure  ->  svg_of(figure, name, title)  ->  Html

Every colour that charts may use stands here with its name in ``page.css``, where it has a light and a dark value.
Series colours are from Tol's bright scheme, told apart by the colour-blind; markers differ as well. Text stays text, so
that it can be searched and read aloud.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from eval.report.markup import Html, element, escaped
from eval.report.read import OURS
from recsys.drawing import printable

INK, SOFT, GRID, PAPER, REST = "#1c2024", "#5b636d", "#e3e5e8", "#ffffff", "#a3a9b1"
SERIES = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")  # the first is the hybrid's
_NAMES = {INK: "ink", SOFT: "soft", GRID: "grid", PAPER: "paper", REST: "rest"}
VARIABLES = _NAMES | {colour: f"c{n}" for n, colour in enumerate(SERIES, 1)}
_MARKERS = "osD^vP"
_REFERENCES = {"popularity": (SOFT, "X", "--"), "random": (REST, "x", ":")}
_FONT = "DejaVu Sans"  # comes with matplotlib; the page falls back to one that is as wide, or narrower
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "recsys",
    "font.family": [_FONT],
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "path.simplify": True,
}
_POINTS_PER_INCH = 72
_LINE_POINTS = 11.5  # from one label to the next


@dataclass(frozen=True, slots=True)
class Look:
    """How a model is drawn in every chart; one without a name is a thin line among the rest."""

    colour: str
    marker: str
    line: str = "-"
    is_named: bool = True


_UNNAMED = Look(REST, ".", is_named=False)


def looks_of(models: Sequence[str]) -> dict[str, Look]:
    """Give each model its look.

    Args:
        models: the ones that matter most first; as many get a colour as there are colours. ``popularity`` and
            ``random`` are grey always, and the hybrid has the first colour.
    """
    coloured = [OURS, *(model for model in models if model != OURS and model not in _REFERENCES)][: len(SERIES)]
    looks = dict.fromkeys(models, _UNNAMED)
    looks |= {model: Look(*pair) for model, pair in zip(coloured, zip(SERIES, _MARKERS, strict=True), strict=False)}
    return looks | {model: Look(*how) for model, how in _REFERENCES.items()}


@contextmanager
def style() -> Iterator[None]:
    """Draw with the page's fonts and colours, whatever the user's matplotlib is set to."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def svg_of(figure: Figure, name: str, title: str) -> Html:
    """Write a figure as an SVG element.

    Args:
        figure: made under ``style``, which is still on.
        name: of the chart, letters, digits and dashes; its ids begin with it.
        title: what a screen reader says.
    """
    with io.StringIO() as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser may have the letters that this font lacks
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r"\n\s*", "\n", text).strip()
    opening, rest = text.split(">", 1)
    return Html(f'{opening} role="img" aria-label="{escaped(title)}">{element("title", title)}{rest}')


def label(name: str) -> str:
    """Bring a name to what fits beside a chart."""
    return printable(name, 32)


def label_ends(axes: Axes, ends: Sequence[tuple[str, float, float]]) -> None:
    """Name lines right of the plot at their last points, moved apart where they would overlap.

    Args:
        axes: its limits are final.
        ends: name, and x and y of the last point.
    """
    figure = axes.get_figure(root=True)
    if not ends or figure is None:
        return
    figure.draw_without_rendering()
    low, high = axes.get_ylim()
    height = axes.get_window_extent().height * _POINTS_PER_INCH / figure.dpi
    ordered = sorted(ends, key=lambda end: (end[2], end[0]))
    places = apart([y for _, _, y in ordered], _LINE_POINTS / height * (high - low), low, high)
    for (name, x, y), place in zip(ordered, places, strict=True):
        axes.annotate(
            label(name),
            xy=(x, y),
            xytext=(1.05, place),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=8.5,
            fontweight="bold" if name == OURS else "normal",
            arrowprops={"arrowstyle": "-", "color": REST, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3},
        )


def apart(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move ascending values as little as need be until neighbours are a gap apart, inside [low, high] if they fit.

    Least squares under the order: isotonic regression of the values less their share of gaps.
    """
    steps = gap * np.arange(len(values))
    moved = isotonic_regression(np.asarray(values) - steps).x
    room = max(low, high - gap * (len(values) - 1))
    return [float(value) for value in np.clip(moved, low, room) + steps]
