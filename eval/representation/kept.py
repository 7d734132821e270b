"""Finished parts of a run, so that one that was killed goes on where it was.

    out/representation.partial/<fingerprint>/<network>-<fold>.npz  ->  FoldValues

The fingerprint is of all that decides the figures: a folder with another one is not read. A file is written beside and
renamed; one that cannot be read is made again. ``eval.run`` removes the folder when the report is written.
"""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from eval.representation.figures import FoldValues
from eval.representation.settings import PARTIAL
from eval.results import make_folder, write_beside
from recsys.errors import DataError

_FORMAT = 1


class KeptFolds:
    """Values by network and fold.

    Args:
        out: the report's folder. facts: what ``json`` can write and decides the figures.
    """

    def __init__(self, out: Path, facts: dict[str, Any]) -> None:
        text = json.dumps({"format": _FORMAT, **facts}, sort_keys=True, default=str)
        self._folder = out / PARTIAL / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def get(self, network: str, fold: int) -> FoldValues | None:
        """Find what an earlier run finished; None where it did not, or the file is damaged."""
        try:
            with np.load(self._file(network, fold), allow_pickle=False) as kept:
                facts = json.loads(str(kept["facts"]))
                return FoldValues(kept["rows"], kept["values"], kept["tag_scores"], facts)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, DataError):
            return None

    def put(self, network: str, fold: int, values: FoldValues) -> None:
        """Keep a finished part.

        Raises:
            ArtefactError: the folder cannot be written.
        """
        make_folder(self._folder)
        facts = np.array(json.dumps(values.facts))

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, rows=values.rows, values=values.values, tag_scores=values.tag_scores, facts=facts)

        write_beside(self._file(network, fold), write)

    def _file(self, network: str, fold: int) -> Path:
        return self._folder / f"{network}-{fold}.npz"
