"""What else an evaluation knows in, the other parts of the page out: networks, training, the map, what was set.

    about, Points, OUT  ->  networks, training, catalogue_map, paired_tests, background
                       ->  Html, or None where there is nothing

The parts that show lists are in ``eval.report.sections``.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.report import charts
from eval.report.figures import REPRESENTATION, Points
from eval.report.markup import Html, details, element, joined
from eval.report.sections import chart, chart_row
from eval.report.summary_text import SPLITS, claim
from eval.report.tables import Column, facts_table, heat_table, network_table

_MOST_CURVES = 12  # drawn at once; the rest is folded away
_LARGEST_MAP = 2_000_000  # bytes of a picture that is taken into the page
_RATIO = ("ratio", "ratio_ci_low", "ratio_ci_high")
_MAIN = ("genre_accuracy", "same_genre", "same_artist", "average_precision", "roc_auc")
_TITLES = {
    "genre_accuracy": "genre",
    "artist_accuracy": "artist",
    "same_genre": "same genre",
    "same_artist": "same artist",
    "average_precision": "tags, mean AP",
    "roc_auc": "tags, ROC-AUC",
}


def networks(found: Points, about: Mapping[str, Any]) -> Html | None:
    """Show the protocol ``representation``: networks by figures, and what distortions do to them."""
    main: list[Column] = []
    rest: list[Column] = []
    found_again: list[Column] = []
    for (split, segment, metric, k), points in found.points.items():
        if split != REPRESENTATION:
            continue
        is_main = metric in _MAIN and segment != "fold"
        group = found_again if metric == "recall" else main if is_main else rest
        group.append(Column(segment if metric == "recall" else _heading(segment, metric, k), points))
    facts: Mapping[str, Mapping[str, Any]] = about.get("networks") or {}
    if not main and not rest and not found_again:
        return None
    parts: list[Html | None] = [network_table(main, facts)]
    if rest:
        parts.append(details("Artists, and the fold's tracks among themselves", network_table(rest, {})))
    if found_again:
        parts.append(element("h3", "Found again by its own sound: recall@1 under each distortion"))
        parts.append(heat_table(found_again, "network"))
    labels = [
        joined([element("dt", element("code", name)), element("dd", fact["label"])])
        for name, fact in facts.items()
        if fact.get("label")
    ]
    parts.append(details("What the networks are", element("dl", *labels)) if labels else None)
    return element(
        "section", element("h2", "Sound vectors"), element("p", SPLITS[REPRESENTATION]), *parts, id="networks"
    )


def _heading(segment: str, metric: str, k: int | None) -> str:
    """Name a figure of vectors: genre by which probe, likeness at which k."""
    name = _TITLES.get(metric, metric.replace("_", " "))
    at = f"@{k}" if k is not None and metric.startswith("same") else ""
    where = "" if segment in ("all", "tags") else f", {segment}"
    return f"{name}{at}{where}"


def training(about: Mapping[str, Any]) -> Html | None:
    """Draw the training curves: costs by epoch of everything that was trained."""
    drawn: list[Html] = []
    for name, rows in (about.get("curves") or {}).items():
        costs = _costs(rows)
        if costs is not None:
            drawn.append(chart(charts.draw_curve(*costs), f"curve-{len(drawn)}", str(name)))
    if not drawn:
        return None
    more = details(f"{len(drawn) - _MOST_CURVES} more", chart_row(*drawn[_MOST_CURVES:]))
    parts = [chart_row(*drawn[:_MOST_CURVES]), more if len(drawn) > _MOST_CURVES else None]
    note = element("p", "The dot is the lowest of the cost that decides when training stops.", class_="note")
    return element("section", element("h2", "Training"), *parts, note, id="training")


def _costs(rows: Sequence[Mapping[str, Any]]) -> tuple[list[float], dict[str, list[float]]] | None:
    """Read a curve: epochs and every cost by name; None where there is none to draw."""
    names = list(dict.fromkeys(key for row in rows for key in row if "cost" in key or "loss" in key))
    costs = {name: [_real(row.get(name)) for row in rows] for name in names}
    costs = {name: values for name, values in costs.items() if any(map(math.isfinite, values))}
    epochs = [_real(row.get("epoch", n)) for n, row in enumerate(rows, 1)]
    return (epochs, costs) if costs and all(map(math.isfinite, epochs)) else None


def catalogue_map(about: Mapping[str, Any], out: Path) -> Html | None:
    """Take in the map that this run drew; one that an earlier run left in the folder is not shown."""
    picture = out / "map.png"
    if not about.get("networks") or not picture.is_file() or picture.stat().st_size > _LARGEST_MAP:
        return None
    data = base64.b64encode(picture.read_bytes()).decode()
    image = element("img", src=f"data:image/png;base64,{data}", alt="the catalogue's tracks as dots, near where alike")
    return element("section", element("h2", "The catalogue by sound"), image, id="map")


def paired_tests(about: Mapping[str, Any]) -> Html | None:
    """List every paired test."""
    rows = about.get("tests") or []
    if not rows:
        return None
    keys = ("split", "model", "metric", "difference", "ci_low", "ci_high", *_RATIO, "p", "p_holm")
    headings = ("split", "model", "metric", "difference", "from", "to", "ratio", "from", "to", "p", "p (Holm)")
    cells = [[*(row.get(key) for key in keys), f"{claim(row)} it", _standing(row)] for row in rows]
    table = facts_table([*headings, "the hybrid", "which is"], cells)
    return details(f"Paired tests of the hybrid against each model ({len(rows)})", table)


def _standing(test: Mapping[str, Any]) -> str:
    """Say what a model is among the baselines of its split."""
    standings = {"is_best_baseline": "best baseline", "is_best_without_features": "best without features"}
    return ", ".join(name for key, name in standings.items() if test.get(key))


def background(about: Mapping[str, Any]) -> list[Html | None]:
    """Fold away what a reader may want to check: formulas, notes, splits, settings, versions."""
    formulas, notes, versions = (about.get(name) or {} for name in ("formulas", "notes", "versions"))
    terms = [joined([element("dt", name), element("dd", text)]) for name, text in formulas.items()]
    settings = json.dumps(about.get("settings") or {}, indent=1, ensure_ascii=False)
    return [
        details("Formulas", element("dl", *terms)) if terms else None,
        details("Notes: read before believing a figure", element("ul", *(element("li", note) for note in notes)))
        if notes
        else None,
        _splits(about.get("splits") or []),
        details("Settings", element("pre", settings)) if about.get("settings") else None,
        details("Versions", facts_table(("package", "version"), list(versions.items()))) if versions else None,
    ]


def _splits(splits: Sequence[Mapping[str, Any]]) -> Html | None:
    """List how listens were parted and how long each took."""
    if not splits:
        return None
    rows = [
        (s.get("protocol"), s.get("seed"), s.get("note"), s.get("fit_seconds"), _sum(s.get("rank_seconds")))
        for s in splits
    ]
    headings = ("protocol", "seed", "how the listens were parted", "s to fit", "s to rank")
    return details("Splits and times", facts_table(headings, rows))


def _sum(seconds: object) -> float | None:
    return round(float(sum(seconds.values())), 2) if isinstance(seconds, Mapping) else None


def _real(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
