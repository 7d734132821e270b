"""Judged splits of a run, so that one that was killed goes on where it was.

    out/evaluation.partial/<fingerprint>/<protocol>-<seed>.npz  ->  Judged, and the report of the split

The fingerprint is of all that decides what is judged: listens, tracks, tags, audio files, settings, peers, versions. A
folder with another one is not read. A file is written beside and renamed; one that cannot be read is made again.
``eval.run`` removes the folder when the report is written.
"""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from eval.judge import Judged
from eval.results import make_folder, write_beside

PARTIAL = "evaluation.partial"
_FORMAT = 1


class KeptSplits:
    """Judged splits by protocol and seed.

    Args:
        out: the report's folder. facts: what ``json`` can write and decides the lists.
    """

    def __init__(self, out: Path, facts: dict[str, Any]) -> None:
        text = json.dumps({"format": _FORMAT, **facts}, sort_keys=True, default=str)
        self._folder = out / PARTIAL / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def get(self, protocol: str, seed: int) -> tuple[list[Judged], dict[str, Any]] | None:
        """Find what an earlier run judged; None where it did not, or the file is damaged."""
        try:
            with np.load(self._file(protocol, seed), allow_pickle=False) as kept:
                facts = json.loads(str(kept["facts"]))
                judged = [_read(one, facts["user_ids"], kept[f"values{n}"]) for n, one in enumerate(facts["judged"])]
                return judged, facts["report"]
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, protocol: str, seed: int, judged: Sequence[Judged], report: dict[str, Any]) -> None:
        """Keep a judged split.

        Raises:
            ArtefactError: the folder cannot be written.
        """
        make_folder(self._folder)
        described = [
            {"split": one.split, "model": one.model, "columns": one.columns, "whole": one.whole, "seconds": one.seconds}
            for one in judged
        ]
        user_ids = {one.split: one.user_ids for one in judged}  # the same for all models
        facts = json.dumps({"judged": described, "user_ids": user_ids, "report": report})
        arrays: dict[str, Any] = {f"values{n}": one.values for n, one in enumerate(judged)}

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, facts=np.array(facts), **arrays)

        write_beside(self._file(protocol, seed), write)

    def _file(self, protocol: str, seed: int) -> Path:
        return self._folder / f"{protocol}-{seed}.npz"


def _read(facts: dict[str, Any], user_ids: dict[str, list[str]], values: Any) -> Judged:
    columns = [(str(segment), str(metric), int(k)) for segment, metric, k in facts["columns"]]
    users = user_ids[facts["split"]]
    if values.shape != (len(users), len(columns)):
        raise ValueError(f"values are {values.shape}, expected {(len(users), len(columns))}")
    return Judged(facts["split"], facts["model"], users, columns, values, facts["whole"], facts["seconds"])


def digest(frame: pl.DataFrame) -> str:
    """Hash a frame: its columns and its rows in their order."""
    hashed = hashlib.blake2b(str(frame.schema).encode(), digest_size=16)
    hashed.update(frame.hash_rows(seed=0).to_numpy().tobytes())
    return hashed.hexdigest()
