"""An evaluation's figures in, the parts of the page that show lists out: tables and charts of its figures.

    Points, about, OUT  ->  split_section, cold_start, ablation  ->  Html, or None where there is nothing to show

The other parts (networks, training, what was set) are in ``eval.report.extras``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from eval.judge import WITHOUT
from eval.metrics.accuracy import bootstrap_ci
from eval.report import charts
from eval.report.figures import COLD_USER, OURS, Point, Points, best, is_baseline, tests_of
from eval.report.markup import Html, details, element, joined
from eval.report.summary_text import SPLITS
from eval.report.svg import Look, looks_of, svg_of
from eval.report.tables import Column, model_table

LEAST_BIAS = 0.001  # of models in mean popularity percentile, where there is something to draw
ACCURACY = ("recall", "ndcg", "map", "hit_rate", "mrr", "coverage")
HIGH_IS_GOOD = frozenset({*ACCURACY, "novelty", "diversity", "artists"})
POPULARITY_BIAS = "popularity_percentile"
_HEADINGS = {"ndcg": "NDCG", "map": "MAP", "mrr": "MRR", "hit_rate": "hit rate"}
_GROUPS = {
    "artist": "By whether the artist is known in training",
    "activity": "By how much users listened in training",
    "popularity": "By how popular the held-out tracks were in training",
}
_AXES = {"activity": "users by their plays in training", "popularity": "held-out tracks by their listeners in training"}
_ORDER = ("low", "mid", "middle", "medium", "high")


@dataclass(frozen=True, slots=True, eq=False)
class SectionData:
    """What sections are made of; ``per_user`` is from ``read.per_user``."""

    found: Points
    about: Mapping[str, Any]
    per_user: pl.DataFrame | None
    looks: Mapping[str, Look]


def looks_in(found: Points) -> dict[str, Look]:
    """A look to every model; those that lead somewhere come first, baselines before parts."""
    by_split = {split: found.get(split, "recall", found.main_k(split)) for split in found.splits()}
    models = list(dict.fromkeys(model for points in found.points.values() for model in points))
    ranks: dict[str, list[float]] = {model: [] for model in models}
    for points in by_split.values():
        for rank, model in enumerate(sorted(points, key=lambda model: -points[model].value)):
            ranks[model].append(rank)
    mean_rank = {model: float(np.mean(of or [len(models)])) for model, of in ranks.items()}
    shown = [model for model in models if not model.startswith(WITHOUT)]
    leaders = [best({m: p for m, p in points.items() if is_baseline(m)}) for points in by_split.values()]
    order = dict.fromkeys([*(m for m in leaders if m is not None), *sorted(shown, key=mean_rank.__getitem__), *models])
    return looks_of(list(order))


def heading_of(metric: str, k: int | None) -> str:
    """Name a metric as a column."""
    name = _HEADINGS.get(metric, metric.replace("_", " "))
    return name if k is None else f"{name}@{k}"


def chart(figure: Figure, name: str, title: str, note: str = "") -> Html:
    """Put a chart under its title, with a note below."""
    caption = element("figcaption", element("b", title), joined([" ", note]) if note else None)
    return element("figure", caption, svg_of(figure, name, title), class_="chart")


def chart_row(*parts: Html | None) -> Html | None:
    """Set charts beside each other where there is room."""
    known = [part for part in parts if part is not None]
    return element("div", *known, class_="charts") if known else None


def split_section(material: SectionData, split: str, name: str) -> Html:
    """Show one split: tables, recall over k, popularity bias, segments, users."""
    found = material.found
    k = found.main_k(split)
    parts: list[Html | None] = []
    if k is not None:
        parts.append(_tables(found, split, k))
        parts += [element("p", "± is half of the 95 % interval; the best of a column is bold.", class_="note")]
        parts.append(
            chart_row(
                _recall_over_k(material, split, name), _bias(material, split, k, name), _users(material, split, name)
            )
        )
        parts += _segments(material, split, k, name)
    return element("section", element("h2", split), element("p", SPLITS.get(split, "")), *parts, id=name)


def cold_users(material: SectionData, splits: Sequence[str]) -> Html | None:
    """Show new users: recall over the number of tracks that they are folded in from, and the tables."""
    found = material.found
    known = sorted((int(split.removeprefix(COLD_USER)), split) for split in splits)
    if not known:
        return None
    parts: list[Html | None] = []
    k = found.main_k(known[0][1])
    by_split = [found.get(split, "recall", k) for _, split in known]
    if k is not None and len(known) > 1:
        figure = _lines(material, [str(n) for n, _ in known], by_split, "first tracks of a new user", f"recall@{k}")
        parts.append(chart_row(chart(figure, "cold-user", f"Recall@{k} by how much is known of a new user")))
    for n, split in known:
        length = found.main_k(split)
        if length is not None:
            tables = _tables(found, split, length)
            parts.append(details(f"From {n} track{'s' if n > 1 else ''}", tables, open_=len(known) == 1))
    return element("section", element("h2", "cold-user"), element("p", SPLITS["cold-user"]), *parts, id="cold-user")


def ablation(material: SectionData) -> Html | None:
    """Show what each modality adds: the hybrid's recall less that of the hybrid without it."""
    parts: list[Html] = []
    for split in material.found.splits():
        k = material.found.main_k(split)
        points = material.found.get(split, "recall", k)
        taken = [model for model in points if model.startswith(WITHOUT)]
        if OURS not in points or not taken:
            continue
        added = {model.removeprefix(WITHOUT): _added(material, split, model, points) for model in taken}
        note = "Above zero: the list is worse without it."
        figure = charts.draw_differences(added, f"recall@{k} of the hybrid, less that without")
        parts.append(chart(figure, f"ablation-{len(parts)}", split, note))
    if not parts:
        return None
    return element("section", element("h2", "What each modality adds"), chart_row(*parts), id="modalities")


def _added(material: SectionData, split: str, model: str, points: Mapping[str, Point]) -> Point:
    """Tell what a modality adds: by the run's paired test, else paired by user, else without an interval."""
    difference, n = points[OURS].value - points[model].value, points[model].n
    test = tests_of(dict(material.about), split).get(model)
    if test is not None and all(isinstance(test.get(key), float) for key in ("difference", "ci_low", "ci_high")):
        return Point(test["difference"], test["ci_low"], test["ci_high"], n)
    if material.per_user is not None:
        of_split = material.per_user.filter(pl.col("split") == split)
        by_user = [
            of_split.filter(pl.col("model") == name).group_by("user_id").agg(pl.nth(-1).mean().alias("value"))
            for name in (OURS, model)
        ]
        paired = by_user[0].join(by_user[1], on="user_id").sort("user_id")
        if len(paired) > 1:
            gaps = (paired["value"] - paired["value_right"]).to_numpy()[:, None, None]
            low, high = bootstrap_ci(gaps)
            return Point(difference, float(low[0]), float(high[0]), n)
    return Point(difference, difference, difference, n)


def _tables(found: Points, split: str, k: int) -> Html:
    """Lay out accuracy at the main k; what lies beyond it, and other k, are folded away."""
    metrics = found.metrics(split)
    accuracy = [metric for metric in ACCURACY if metric in metrics]
    beyond = [metric for metric in metrics if metric not in accuracy]

    def table(of: Sequence[str], length: int) -> Html | None:
        columns = [
            Column(heading_of(metric, length), found.get(split, metric, length), metric in HIGH_IS_GOOD)
            for metric in of
            if found.get(split, metric, length)
        ]
        return model_table(columns) if columns else None

    parts: list[Html | None] = [table(accuracy, k)]
    more = table(beyond, k)
    parts.append(None if more is None else details(f"Beyond accuracy, at {k}", more))
    for length in found.ks(split):
        if length != k:
            both = [part for part in (table(accuracy, length), table(beyond, length)) if part is not None]
            parts.append(details(f"All figures at {length}", *both))
    return joined(parts)


def _lines(
    material: SectionData, xs: Sequence[str], places: Sequence[Mapping[str, Point]], x_label: str, y_label: str
) -> Figure:
    """Draw a line a model over places; models that ablation made are left out."""
    models = dict.fromkeys(m for points in places for m in points if not m.startswith(WITHOUT))
    series = {model: [points.get(model) for points in places] for model in models}
    return charts.draw_lines(xs, series, material.looks, x_label, y_label)


def _recall_over_k(material: SectionData, split: str, name: str) -> Html | None:
    found = material.found
    ks = [k for k in found.ks(split) if found.get(split, "recall", k)]
    if len(ks) < 2:
        return None
    figure = _lines(material, list(map(str, ks)), [found.get(split, "recall", k) for k in ks], "k", "recall@k")
    unnamed = any(
        not material.looks[m].is_named for m in found.get(split, "recall", ks[0]) if not m.startswith(WITHOUT)
    )
    note = "Bands are 95 % intervals." + (" Thin grey lines are the other models of the table." if unnamed else "")
    return chart(figure, f"{name}-recall", f"Recall over k, {split}", note)


def _bias(material: SectionData, split: str, k: int, name: str) -> Html | None:
    recall, shown = material.found.get(split, "recall", k), material.found.get(split, POPULARITY_BIAS, k)
    points = {m: (shown[m], recall[m]) for m in recall if m in shown and not m.startswith(WITHOUT)}
    places = [x.value for x, _ in points.values()]
    if len(points) < 2 or max(places) - min(places) < LEAST_BIAS:  # among new tracks none is more popular than another
        return None
    x_label = f"mean popularity percentile of the top {k}"
    figure = charts.draw_bias(points, material.looks, x_label, f"recall@{k}")
    return chart(figure, f"{name}-bias", f"Accuracy against popularity bias, {split}", "Up is better, left is bolder.")


def _users(material: SectionData, split: str, name: str) -> Html | None:
    if material.per_user is None:
        return None
    of_split = material.per_user.filter(pl.col("split") == split)
    values = {
        str(model): rows.to_series(-1).to_numpy()
        for (model,), rows in of_split.group_by("model", maintain_order=True)
        if material.looks[str(model)].is_named and not str(model).startswith(WITHOUT)
    }
    if not values:
        return None
    figure = charts.draw_shares(
        values, material.looks, material.per_user.columns[-1], "share of users with at least this recall"
    )
    return chart(figure, f"{name}-users", f"How recall is spread over users, {split}")


def _segments(material: SectionData, split: str, k: int, name: str) -> list[Html | None]:
    """Show recall by each group of segments: ``artist-known`` and ``artist-unknown`` are the group ``artist``."""
    found = material.found
    groups: dict[str, list[str]] = {}
    for segment in found.segments(split, "recall", k):
        if "-" in segment:
            groups.setdefault(segment.split("-", 1)[0], []).append(segment)
    shown: list[Html] = []
    folded: list[Html] = []
    for group, segments in groups.items():
        names = [segment.split("-", 1)[1] for segment in segments]
        if set(names) <= set(_ORDER):
            names.sort(key=_ORDER.index)
        places = [found.get(split, "recall", k, f"{group}-{part}") for part in names]
        title = f"{_GROUPS.get(group, f'By {group}')}, {split}"
        if len(names) < 3:
            drawn = {f"{group} {part}": _kept(points) for part, points in zip(names, places, strict=True)}
            figure = charts.draw_bars(drawn, f"recall@{k}")
        else:
            figure = _lines(material, names, places, _AXES.get(group, group), f"recall@{k}")
        shown.append(chart(figure, f"{name}-by-{len(shown)}", title, "Bands and whiskers are 95 % intervals."))
        columns = [Column(part, points) for part, points in zip(names, places, strict=True)]
        folded.append(details(f"The same in numbers: {title[0].lower()}{title[1:]}", model_table(columns)))
    return [chart_row(*shown), *folded]


def _kept(points: Mapping[str, Point]) -> dict[str, Point]:
    return {model: point for model, point in points.items() if not model.startswith(WITHOUT)}
