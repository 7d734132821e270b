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
from matplotlib.figure import Figure

from eval.report.figures import OURS
from eval.report.markup import Html, element, escaped

INK, SOFT, GRID, PAPER, REST = "#1c2024", "#5b636d", "#e3e5e8", "#ffffff", "#a3a9b1"
SERIES = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")  # the first is the hybrid's
_NAMES = {INK: "ink", SOFT: "soft", GRID: "grid", PAPER: "paper", REST: "rest"}
VARIABLES = _NAMES | {colour: f"c{n}" for n, colour in enumerate(SERIES, 1)}
_MARKERS = "osD^vP"
_REFERENCES = {"popularity": (SOFT, "X", "--"), "random": (REST, "x", ":")}
FONT = "DejaVu Sans"  # comes with matplotlib; the page falls back to one that is as wide, or narrower
_FALLBACK = f"'{FONT}', Verdana, sans-serif"
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "figure.dpi": 72,  # that of SVG, so that a layout holds
    "svg.hashsalt": "recsys",
    "font.family": [FONT],
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
    lay_out(figure)
    figure.set_layout_engine("none")  # once is enough
    with io.StringIO() as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser may have the letters that this font lacks
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*<style.*?</style>", "", text, flags=re.DOTALL)  # it would hold for the whole page
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = text.replace(f"font-family: '{FONT}'", f"font-family: {_FALLBACK}")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r"\n\s*", "\n", text).strip()
    opening, rest = text.split(">", 1)
    return Html(f'{opening} role="img" aria-label="{escaped(title)}">{element("title", title)}{rest}')


def lay_out(figure: Figure) -> None:
    """Put all axes into their places, without drawing."""
    engine = figure.get_layout_engine()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser may have the letters that this font lacks
        if engine is not None:
            engine.execute(figure)
