"""A matplotlib figure in, a picture file out.

    out.png, out.svg  ->  check_picture (before the work)  ->  save_picture (after it)

The suffix names the form. Figures are made by ``matplotlib.figure.Figure`` alone, never by pyplot, so that no state is
shared and no window opens. What is drawn is decided elsewhere (``recsys.audio.spectrogram``,
``eval.representation.map``).
"""

import os
import warnings
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.text import Text

from recsys.errors import DataError
from recsys.util.files import replace

PICTURE_SUFFIXES = (".png", ".svg")
_DOTS_PER_INCH = 150


def check_picture(out: Path) -> None:
    """Look whether a picture may go by this name.

    Raises:
        DataError: the suffix is unknown, the folder is not there, or a folder has the name.
    """
    if out.suffix.lower() not in PICTURE_SUFFIXES:
        raise DataError(f"{out} is no known form of picture; use one of {' '.join(PICTURE_SUFFIXES)}")
    is_folder = os.path.isdir(out)  # unlike Path's, it takes any name
    if not os.path.isdir(out.parent) or is_folder:
        what = "is a folder" if is_folder else f"cannot be written: there is no folder {out.parent}"
        raise DataError(f"{out} {what}; choose another place")


def save_picture(figure: Figure, out: Path) -> None:
    """Write a figure beside its place, then move it there.

    Raises:
        DataError: as ``check_picture``, or the file cannot be written.
    """
    check_picture(out)
    _take_texts_as_they_are(figure)

    def draw(beside: Path) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a name in a script that the font lacks is drawn as boxes
            figure.savefig(beside, dpi=_DOTS_PER_INCH, format=out.suffix[1:].lower())

    try:
        replace(out, draw)
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror or error}); choose another place") from error


def _take_texts_as_they_are(figure: Figure) -> None:
    """Keep names from being read as formulas: a $ in a file's name is a $."""
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_parse_math(False)


def printable(name: str, most: int = 80) -> str:
    """Bring a name from outside into one line of text that any font and file takes, cut where it is long."""
    text = name.encode("utf-8", "replace").decode()
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= most else f"{text[: most - 1]}…"
