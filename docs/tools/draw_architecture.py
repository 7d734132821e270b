"""The way of the data as a picture: twelve boxes in the order in which music and listens become lists."""

from docs.tools.svg import Drawing

BOX_W, BOX_H = 198, 66
# name, what it holds, column, row, kind
BOXES = (
    ("Audio files", "mp3, flac, m4a, ogg, …", 0, 0, "in"),
    ("Words and labels", "lyrics, genre, artist, year", 0, 1, "in"),
    ("Listens", "who played what, when", 0, 2, "in"),
    ("Sound vectors", "decode, log-mel, network", 1, 0, "model"),
    ("Content vectors", "all that is known, fused", 1, 1, "model"),
    ("Taste factors", "implicit ALS on plays", 1, 2, "model"),
    ("Hybrid model", "content prior, blend, fold-in", 2, 1, "ours"),
    ("Ranking", "candidates, filters, variety", 3, 0, "model"),
    ("Generation", "DuckDB tables, LMDB lists", 3, 1, "store"),
    ("Live log", "uploads, listens, deletions", 3, 2, "store"),
    ("Evaluation", "held-out listens, baselines", 2, 2, "model"),
    ("gRPC server", "lists out, events in", 4, 1, "out"),
)
FILLS = {
    "in": ("box", "line"),
    "model": ("accent_soft", "accent"),
    "ours": ("ours_soft", "ours"),
    "store": ("theirs_soft", "theirs"),
    "out": ("ours_soft", "ours"),
}
# (from, to, side that it leaves by, side that it comes in by)
ARROWS = (
    ("Audio files", "Sound vectors", "right", "left"),
    ("Words and labels", "Content vectors", "right", "left"),
    ("Sound vectors", "Content vectors", "bottom", "top"),
    ("Listens", "Taste factors", "right", "left"),
    ("Taste factors", "Hybrid model", "right", "left"),
    ("Content vectors", "Hybrid model", "right", "left"),
    ("Hybrid model", "Evaluation", "bottom", "top"),
    ("Hybrid model", "Ranking", "right", "left"),
    ("Ranking", "Generation", "bottom", "top"),
    ("Generation", "gRPC server", "right", "left"),
    ("gRPC server", "Live log", "bottom", "right"),
    ("Live log", "Generation", "top", "bottom"),
)
LEFT, TOP, GAP_X, GAP_Y = 16, 16, 36, 40


def draw(mode: str) -> Drawing:
    """The picture for a page of that mode."""
    width = LEFT * 2 + 5 * BOX_W + 4 * GAP_X
    drawing = Drawing(width, TOP * 2 + 3 * BOX_H + 2 * GAP_Y, "From music and listens to a ranked list", mode)
    places = {name: _place(column, row) for name, _, column, row, _ in BOXES}
    for start, end, out, into in ARROWS:
        drawing.path(_curve(_side(places[start], out), out, _side(places[end], into), into), arrow=True)
    for name, message, column, row, kind in BOXES:
        x, y = _place(column, row)
        fill, edge = FILLS[kind]
        drawing.box(x, y, BOX_W, BOX_H, fill=fill, edge=edge)
        drawing.text(x + BOX_W / 2, y + 28, name, size=16, anchor="middle", bold=True)
        drawing.text(x + BOX_W / 2, y + 49, message, size=12.5, anchor="middle", colour="soft")
    return drawing


def _place(column: int, row: int) -> tuple[float, float]:
    return LEFT + column * (BOX_W + GAP_X), TOP + row * (BOX_H + GAP_Y)


def _side(place: tuple[float, float], side: str) -> tuple[float, float]:
    x, y = place
    return {
        "left": (x, y + BOX_H / 2),
        "right": (x + BOX_W, y + BOX_H / 2),
        "top": (x + BOX_W / 2, y),
        "bottom": (x + BOX_W / 2, y + BOX_H),
    }[side]


def _curve(start: tuple[float, float], out: str, end: tuple[float, float], into: str) -> str:
    steps = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
    reach = max(14.0, (abs(end[0] - start[0]) + abs(end[1] - start[1])) / 2.6)
    control = [(x + steps[side][0] * reach, y + steps[side][1] * reach) for (x, y), side in ((start, out), (end, into))]
    numbers = [start, *control, end]
    (a, b), (c, d), (e, f), (g, h) = numbers
    return f"M{a:g} {b:g} C{c:.1f} {d:.1f} {e:.1f} {f:.1f} {g:g} {h:g}"
