"""The figures of the protocol ``representation`` on the screen: a row a figure, a column a network."""

from typing import Any

import polars as pl
from rich.table import Table
from rich.text import Text

from eval.representation.figures import FIGURES, SPLIT, TAG_FIGURES, Figure

_TITLES = {
    "genre_accuracy": "genre told by a probe",
    "artist_accuracy": "artist told in the fold, by",
    "average_precision": "tags told by a probe",
    "roc_auc": "tags told by a probe",
    "same_genre": "same genre, other artists",
    "same_artist": "same artist",
    "recall": "found again by its own sound",
}
_NAMES = {"average_precision": "mean average precision", "roc_auc": "ROC-AUC"}


def representation_table(figures: pl.DataFrame, networks: dict[str, dict[str, Any]]) -> Table:
    """Lay out every figure by network, with half the width of its 95 % interval; then parameters and time."""
    found = {(row["model"], *_key(row)): row for row in figures.filter(split=SPLIT).to_dicts()}
    table = Table(caption="± half of the 95 % interval over artists; nothing saw the artists that it is judged on")
    table.add_column("")
    for network in networks:
        table.add_column(Text(network), justify="right")
    table.add_column("tracks", justify="right")
    title = ""
    for figure in (*FIGURES, *TAG_FIGURES):
        rows = [found.get((network, *figure)) for network in networks]
        n_tracks = max((row["n_users"] for row in rows if row is not None), default=0)
        if not n_tracks:
            continue
        if _TITLES[figure.metric] != title:
            title = _TITLES[figure.metric]
            table.add_section()
            table.add_row(Text(title, style="bold"))
        table.add_row(Text(f"  {_name(figure)}"), *map(_cell, rows), f"{n_tracks:,}")
    table.add_section()
    table.add_row("parameters", *(f"{facts['n_parameters']:,}" for facts in networks.values()))
    times = [facts["embed_ms"] for facts in networks.values()]
    table.add_row("ms a clip and core", *("" if time is None else f"{time:,.1f}" for time in times))
    return table


def _key(row: dict[str, Any]) -> Figure:
    return Figure(row["segment"], row["metric"], row["k"])


def _name(figure: Figure) -> str:
    name = _NAMES.get(figure.metric, figure.segment)
    return name if figure.k is None else f"{name} @{figure.k}"


def _cell(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['value']:.3f} ±{(row['ci_high'] - row['ci_low']) / 2:.3f}"
