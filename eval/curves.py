"""How training went, out of what a fit left behind: a curve of each network that was trained by gradient.

    Fitted  ->  curves_of  ->  content, sound: a row an epoch   ->  named  ->  "warm, seed 0: content"

A fit that left no artefacts, or whose networks were fitted in closed form or stayed at their start, has no curves.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Curve = list[dict[str, float | None]]  # as ``json`` can write it: None where a figure is no number

_WHERE = {  # below the artefacts of ``recsys.fit``
    "content": ("encoder", "content", "curve"),
    "sound": ("sound", "model", "origin", "curve"),
}


def curves_of(fitted: object) -> dict[str, Curve]:
    """Read the curves of a fit by the name of the network."""
    artefacts = getattr(fitted, "artefacts", None)
    found = {name: _below(artefacts, path) for name, path in _WHERE.items()}
    return {name: [_row(row) for row in rows] for name, rows in found.items() if rows}


def named(curves: Mapping[str, Curve], protocol: str, seed: int) -> dict[str, Curve]:
    """Tell the curves of one split from those of others."""
    return {f"{protocol}, seed {seed}: {name}": rows for name, rows in curves.items()}


def _below(found: object, path: Sequence[str]) -> Any:
    for name in path:
        found = getattr(found, name, None)
    return found


def _row(row: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in row.items()}
