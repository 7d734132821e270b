"""Finished folds of a run, kept under the report's folder (see ``eval.checkpoint``).

out/representation.partial/<fingerprint>/<network>-<fold>.npz  <->  FoldValues
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.checkpoint import Partial
from eval.representation.figures import FoldValues
from eval.representation.settings import PARTIAL


class KeptFolds:
    """Values by network and fold.

    Args:
        out: the report's folder. facts: what ``json`` can write and decides the figures.
    """

    def __init__(self, out: Path, facts: Mapping[str, Any]) -> None:
        self._parts = Partial(out / PARTIAL, facts)

    def get(self, network: str, fold: int) -> FoldValues | None:
        """Find what an earlier run finished; None where it did not, or the file is damaged."""
        return self._parts.get(f"{network}-{fold}", _read)

    def put(self, network: str, fold: int, values: FoldValues) -> None:
        """Keep a finished part.

        Raises:
            ArtefactError: the folder cannot be written.
        """
        arrays = {"rows": values.rows, "values": values.values, "tag_scores": values.tag_scores}
        self._parts.put(f"{network}-{fold}", arrays, values.facts)


def _read(arrays: Mapping[str, Any], facts: Any) -> FoldValues:
    return FoldValues(arrays["rows"], arrays["values"], arrays["tag_scores"], facts)
