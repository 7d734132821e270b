"""Shapes in, SVG out, once for a light page and once for a dark one: no library, and the same bytes every time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MODES = ("light", "dark")
COLOURS = {
    "light": {
        "ink": "#1c2430",
        "soft": "#5b6675",
        "line": "#c3cad4",
        "grid": "#e6e9ee",
        "ours": "#00796b",
        "ours_soft": "#d5efeb",
        "theirs": "#b4561f",
        "theirs_soft": "#fae6d9",
        "box": "#ffffff",
        "accent_soft": "#e3e9f6",
        "accent": "#41598f",
        "rest": "#9aa4b2",
    },
    "dark": {
        "ink": "#e8ebf0",
        "soft": "#a5b0c0",
        "line": "#56606f",
        "grid": "#333b47",
        "ours": "#4fc3b1",
        "ours_soft": "#143f3a",
        "theirs": "#f0a06a",
        "theirs_soft": "#4a2d1a",
        "box": "#222831",
        "accent_soft": "#28324a",
        "accent": "#a3b8ee",
        "rest": "#7a8595",
    },
}


@dataclass
class Drawing:
    """A picture under way, in pixels from its upper left corner; colours are names of ``COLOURS``."""

    width: float
    height: float
    title: str
    mode: str
    parts: list[str] = field(default_factory=list)

    def colour(self, name: str) -> str:
        """The colour of that name on this page."""
        return COLOURS[self.mode].get(name, name)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 13,
        colour: str = "ink",
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        """A line of text whose baseline is at y."""
        weight = ' font-weight="600"' if bold else ""
        place = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self.parts.append(
            f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}"{place}{weight} fill="{self.colour(colour)}">'
            f"{escape(text)}</text>"
        )

    def line(
        self, x1: float, y1: float, x2: float, y2: float, *, colour: str = "line", width: float = 1, dash: str = ""
    ) -> None:
        """A straight line."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" stroke="{self.colour(colour)}" '
            f'stroke-width="{_n(width)}" stroke-linecap="round"{dashes}/>'
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str = "box",
        edge: str = "line",
        radius: float = 8,
    ) -> None:
        """A rectangle with round corners."""
        self.parts.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="{_n(radius)}" '
            f'fill="{self.colour(fill)}" stroke="{self.colour(edge)}"/>'
        )

    def dot(self, x: float, y: float, *, colour: str, radius: float = 5, hollow: bool = False) -> None:
        """A point."""
        fill = self.colour("box") if hollow else self.colour(colour)
        self.parts.append(
            f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" fill="{fill}" stroke="{self.colour(colour)}" '
            f'stroke-width="1.5"/>'
        )

    def path(self, d: str, *, colour: str = "soft", width: float = 1.5, arrow: bool = False) -> None:
        """A path, with an arrow's head at its end where that is asked for."""
        head = ' marker-end="url(#arrow)"' if arrow else ""
        self.parts.append(
            f'<path d="{d}" fill="none" stroke="{self.colour(colour)}" stroke-width="{_n(width)}"{head}/>'
        )

    def svg(self) -> str:
        """The whole file."""
        arrow = (
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0.5 L7.5 4 L0 7.5 z" fill="{self.colour("soft")}"/></marker>'
            "</defs>"
        )
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(self.width)} {_n(self.height)}" '
            f'width="{_n(self.width)}" height="{_n(self.height)}" role="img" font-family="{FONT}">'
        )
        return "\n".join([head, f"<title>{escape(self.title)}</title>", arrow, *self.parts, "</svg>", ""])


def write(folder: Path, name: str, draw: Callable[[str], Drawing]) -> dict[Path, str]:
    """The picture's two files and what belongs into them."""
    return {folder / f"{name}-{mode}.svg": draw(mode).svg() for mode in MODES}


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
