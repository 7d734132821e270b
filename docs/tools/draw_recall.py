"""Committed reports of evaluations in, the picture of the first page out: the hybrid beside the best tuned baseline."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docs.tools.svg import Drawing

ASSETS = Path(__file__).parents[1] / "assets"
# a report and what its data is; a report is what `recsys evaluate` wrote, less what `kept` leaves out
REPORTS = (
    ("report-hetrec-spotify.json", "hetrec-spotify", "4,663 artists, 1,881 Last.fm users"),
    ("report-listening-tweets.json", "listening-tweets", "30,874 tracks, 10,833 users"),
)
SPLITS = (("warm", "tracks with plays"), ("cold-track", "new tracks"))
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 860, 138, 170, 44, 34
HEADER, BAR, GROUP = 32, 22, 56


@dataclass(frozen=True)
class Bar:
    """One model's recall on one split, with its 95 % interval."""

    model: str
    value: float
    low: float
    high: float


def kept(report: dict[str, Any]) -> dict[str, Any]:
    """What the pictures need of a report: recall@20 of all users, tests, settings, versions and notes."""
    figures = [row for row in report["figures"] if row["metric"] == "recall" and row["k"] == 20]
    left = {
        name: report[name] for name in ("created_at", "settings", "versions", "tests", "notes", "counts", "seconds")
    }
    splits = [{name: split[name] for name in ("protocol", "seed", "note")} for split in report["splits"]]
    return left | {"splits": splits, "figures": [row for row in figures if row["segment"] == "all"]}


def pairs(report: dict[str, Any]) -> list[tuple[str, Bar, Bar]]:
    """For each split its name in words, the best tuned baseline and the hybrid."""
    found = []
    for split, message in SPLITS:
        bars = [
            Bar(row["model"], row["value"], row["ci_low"], row["ci_high"])
            for row in report["figures"]
            if (row["split"], row["metric"], row["k"], row["segment"]) == (split, "recall", 20, "all")
        ]
        [ours] = [bar for bar in bars if bar.model == "hybrid"]
        best = max((bar for bar in bars if not bar.model.startswith("hybrid")), key=lambda bar: bar.value)
        found.append((message, best, ours))
    return found


def draw(mode: str) -> Drawing:
    """The picture for a page of that mode."""
    sets = [
        (name, message, pairs(json.loads((ASSETS / file).read_text(encoding="utf-8"))))
        for file, name, message in REPORTS
        if (ASSETS / file).exists()
    ]
    most = max(bar.high for _, _, found in sets for _, *two in found for bar in two)
    scale = (WIDTH - LEFT - RIGHT) / most
    height = TOP + len(sets) * (HEADER + len(SPLITS) * GROUP) + BOTTOM
    drawing = Drawing(
        WIDTH, height, "recall@20 of the hybrid beside the best tuned baseline, with 95 % intervals", mode
    )
    _legend(drawing)
    for tick in (tick / 10 for tick in range(int(most * 10) + 1)):
        x = LEFT + tick * scale
        drawing.line(x, TOP, x, height - BOTTOM, colour="grid")
        drawing.text(x, height - 12, f"{tick:.1f}", size=11, anchor="middle", colour="soft")
    y = float(TOP)
    for name, message, found in sets:
        drawing.text(16, y + 20, name, size=14.5, bold=True)
        drawing.text(16 + 8.4 * len(name) + 10, y + 20, message, size=12, colour="soft")
        y += HEADER
        for split, theirs, ours in found:
            drawing.text(LEFT - 12, y + 26, split, anchor="end")
            for place, (bar, colour) in enumerate(((ours, "ours"), (theirs, "theirs"))):
                _bar(drawing, y + place * BAR, bar, colour, scale)
            y += GROUP
    return drawing


def _legend(drawing: Drawing) -> None:
    drawing.text(16, 27, "recall@20, held-out listens", size=15, bold=True)
    drawing.box(286, 15, 14, 14, fill="ours_soft", edge="ours", radius=3)
    drawing.text(307, 27, "recsys, the hybrid")
    drawing.box(446, 15, 14, 14, fill="theirs_soft", edge="theirs", radius=3)
    drawing.text(467, 27, "the best tuned baseline")
    drawing.line(640, 22, 668, 22, colour="ink", width=1.6)
    for x in (640, 668):
        drawing.line(x, 18, x, 26, colour="ink", width=1.6)
    drawing.text(677, 27, "95 % interval over users")


def _bar(drawing: Drawing, y: float, bar: Bar, colour: str, scale: float) -> None:
    drawing.box(LEFT, y, bar.value * scale, BAR - 2, fill=f"{colour}_soft", edge=colour, radius=3)
    low, high, middle = LEFT + bar.low * scale, LEFT + bar.high * scale, y + (BAR - 2) / 2
    drawing.line(low, middle, high, middle, colour="ink", width=1.6)
    for x in (low, high):
        drawing.line(x, middle - 4, x, middle + 4, colour="ink", width=1.6)
    named = "" if bar.model == "hybrid" else f"  {bar.model}"
    drawing.text(high + 8, middle + 4.5, f"{bar.value:.3f}{named}", size=12.5, bold=bar.model == "hybrid")
