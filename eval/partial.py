"""Finished parts of a run, so that one that was killed goes on where it was.

    folder/<fingerprint>/<name>.npz  <->  arrays by name, and facts that ``json`` can write

The fingerprint is of all that decides the parts: a folder with another one is not read. A file is written beside and
renamed; one that cannot be read is made again. ``eval.run`` removes the folder when the report is written.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from eval.results import make_folder, write_beside
from recsys.errors import DataError

_FORMAT = 1

T = TypeVar("T")


class Partial:
    """Parts by name.

    Args:
        folder: of the kind of run, under the report's. decides: what ``json`` can write and decides the parts.
    """

    def __init__(self, folder: Path, decides: Mapping[str, Any]) -> None:
        text = json.dumps({"format": _FORMAT, **decides}, sort_keys=True, default=str)
        self._folder = folder / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def get(self, name: str, read: Callable[[Mapping[str, Any], Any], T]) -> T | None:
        """Read a part from its arrays and facts; None where there is none, or the file is damaged."""
        try:
            with np.load(self._file(name), allow_pickle=False) as arrays:
                return read(arrays, json.loads(str(arrays["facts"])))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, DataError):
            return None

    def put(self, name: str, arrays: Mapping[str, Any], facts: Any) -> None:
        """Keep a part.

        Raises:
            ArtefactError: the folder cannot be written.
        """
        make_folder(self._folder)

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, facts=np.array(json.dumps(facts)), **arrays)

        write_beside(self._file(name), write)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.npz"
