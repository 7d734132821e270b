"""The widest tables of the research pages as pictures, drawn from the tables themselves."""

from pathlib import Path

from docs.tools.svg import Drawing
from docs.tools.tables import number, table

RESEARCH = Path(__file__).parents[1] / "research"
SETS = ("emotify", "hetrec-spotify", "hetrec-lastfm", "listening-tweets")
# a row of the table of networks, and its title in the picture
PANELS = (
    ("genre, LDA", "genre told by a probe"),
    ("same-genre@10, other artists, all", "same genre in 10 nearest"),
    ("same-artist@1, all", "same artist as the nearest"),
    ("noise 20 dB", "found again, 20 dB of noise"),
    ("noise 10 dB", "found again, 10 dB of noise"),
    ("band 300-3400 Hz", "found again, 300-3400 Hz"),
)
COLUMNS = (("warm", "tracks with plays"), ("cold-track", "new tracks"))


def results(mode: str) -> Drawing:
    """recall@20 of every model on every data set, warm and new tracks side by side: the page's four tables in one."""
    tables = {name: {row["recall@20"]: row for row in table(RESEARCH / "evaluation.md", name)} for name in SETS}
    models = list(dict.fromkeys(model for rows in tables.values() for model in rows if model != "users"))
    left, top, row_h, panel, gap = 150, 62, 19, 148, 26
    width = left + len(SETS) * (panel + gap)
    drawing = Drawing(width, top + len(models) * row_h + 40, "recall@20 of every model on four data sets", mode)
    drawing.text(8, 20, "recall@20 of every model", size=15, bold=True)
    drawing.dot(242, 15, colour="ours")
    drawing.text(254, 20, COLUMNS[0][1])
    drawing.dot(382, 15, colour="theirs", hollow=True)
    drawing.text(394, 20, f"{COLUMNS[1][1]}, ranked among themselves")
    bottom = top + len(models) * row_h
    for at, model in enumerate(models):
        y = top + at * row_h + 10
        ours = model.startswith("hybrid")
        drawing.text(left - 12, y + 4, model, size=11.5, anchor="end", bold=model == "hybrid", colour="ink")
        drawing.line(left, y, width - gap, y, colour="ours_soft" if ours else "grid")
    for place, name in enumerate(SETS):
        x = left + place * (panel + gap)
        rows = tables[name]
        most = max(
            number(row[column]) or 0 for row in rows.values() for column, _ in COLUMNS if row is not rows["users"]
        )
        scale = panel / (most * 1.05)
        drawing.text(x, top - 10, name, size=12.5, bold=True)
        for tick in _ticks(most):
            drawing.line(x + tick * scale, top, x + tick * scale, bottom, colour="grid")
            drawing.text(x + tick * scale, bottom + 16, f"{tick:g}", size=10.5, anchor="middle", colour="soft")
        for at, model in enumerate(models):
            for (column, _), colour in zip(COLUMNS, ("ours", "theirs"), strict=True):
                value = number(rows[model][column]) if model in rows else None
                if value is not None:
                    middle = top + at * row_h + 10
                    drawing.dot(x + value * scale, middle, colour=colour, hollow=colour == "theirs", radius=4)
    return drawing


def _ticks(most: float) -> list[float]:
    step = 0.1 if most < 0.35 else 0.2
    return [round(step * n, 2) for n in range(int(most / step) + 1)]


def cost_of_new(mode: str) -> Drawing:
    """What showing new tracks costs played ones, as a curve."""
    rows = table(RESEARCH / "findings.md", "What showing new tracks costs the others")
    [found] = rows
    points = [(number(cost), number(cell)) for cost, cell in found.items()][1:]
    width, height, left, bottom = 640, 300, 64, 250
    drawing = Drawing(width, height, "What showing new tracks costs played ones", mode)
    drawing.text(left, 24, "recall@20 of new tracks, ranked among all", size=13, bold=True)
    across, up = (width - left - 40) / 35, (bottom - 44) / 0.4
    for tick in (0, 0.1, 0.2, 0.3, 0.4):
        y = bottom - tick * up
        drawing.line(left, y, width - 30, y, colour="grid")
        drawing.text(left - 8, y + 4, f"{tick:g}", size=11, anchor="end", colour="soft")
    for cost in (0, 5, 10, 20, 30):
        drawing.text(left + cost * across, bottom + 18, f"{cost} %", size=11, anchor="middle", colour="soft")
    drawing.text(
        width - 30, bottom + 38, "of their recall@20 that played tracks lose", size=12, anchor="end", colour="soft"
    )
    places = [
        (left + cost * across, bottom - value * up) for cost, value in points if cost is not None and value is not None
    ]
    drawing.path("M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in places), colour="ours", width=2)
    for x, y in places:
        drawing.dot(x, y, colour="ours", radius=4)
    default = left + 0.5 * across
    drawing.line(default, bottom, default, bottom - 26, colour="theirs", width=2)
    drawing.text(
        left + 4.2 * across, bottom - 10, "the default, cost_of_new = 0.005, stands at 0.5 %", size=12, colour="theirs"
    )
    return drawing


def networks(mode: str) -> Drawing:
    """What each network's vectors tell: the wide table of the findings on audio, a panel a figure."""
    rows = {row["figure"]: row for row in table(RESEARCH / "findings-audio.md", "All networks in one table")}
    names = [name for name in rows["genre, LDA"] if name not in ("figure", "to reach")]
    left, panel, gap, row_h, top = 150, 190, 34, 22, 36
    drawing = Drawing(
        left + 3 * (panel + gap), 2 * (top + len(names) * row_h + 24), "What each network's vectors tell", mode
    )
    for place, (key, title) in enumerate(PANELS):
        x = left + place % 3 * (panel + gap)
        y = place // 3 * (top + len(names) * row_h + 24) + top
        drawing.text(x, y - 12, title, size=12.5, bold=True)
        for at, name in enumerate(names):
            middle = y + at * row_h + 9
            if place % 3 == 0:
                drawing.text(left - 12, middle + 4, name, size=12, anchor="end", bold=name == "musicnn-head")
            value = number(rows[key][name]) or 0.0
            colour = "ours" if name == "musicnn-head" else "accent"
            drawing.line(x, middle, x + panel, middle, colour="grid")
            drawing.box(x, middle - 7, max(value * (panel - 40), 1), 14, fill=f"{colour}_soft", edge=colour, radius=3)
            drawing.text(x + value * (panel - 40) + 6, middle + 4, f"{value:.3f}", size=11, colour="soft")
    return drawing
