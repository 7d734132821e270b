"""Finished parts of a run, kept under the report's folder, so that one that was killed goes on where it was.

    folder/<fingerprint>/<name>.npz                                     <->  arrays by name, facts for ``json``
    out/evaluation.partial/<fingerprint>/<protocol>-<seed>.npz          <->  Judged, and the report of the split
                                         <protocol>-<seed>-<model>.npz  <->  of a model that was fitted by itself

The fingerprint is of all that decides the parts (listens, tracks, tags, audio files, settings, baselines, versions): a
folder with another one is not read. A file is written beside and renamed; one that cannot be read is made again.
``eval.run`` removes the folder when the report is written.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from eval.judge import Judged
from eval.results import make_folder, write_beside
from recsys.audio.cache import FileMark
from recsys.errors import DataError
from recsys.types import Listens, Tags, Tracks

_FORMAT = 1

T = TypeVar("T")

PARTIAL = "evaluation.partial"
_REPORT = 2  # what a split's report holds; one of an earlier form is made again


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


class KeptSplits:
    """Judged splits by protocol and seed.

    Args:
        out: the report's folder. facts: what ``json`` can write and decides the lists.
    """

    def __init__(self, out: Path, facts: Mapping[str, Any]) -> None:
        self._parts = Partial(out / PARTIAL, {"report": _REPORT, **facts})

    def get(self, protocol: str, seed: int, model: str = "") -> tuple[list[Judged], dict[str, Any]] | None:
        """Find what an earlier run judged, or a model of its own; None where it did not, or the file is damaged."""
        return self._parts.get(_name(protocol, seed, model), _read_all)

    def put(self, protocol: str, seed: int, judged: Sequence[Judged], report: dict[str, Any], model: str = "") -> None:
        """Keep a judged split, or a model that was fitted by itself on one.

        Raises:
            ArtefactError: the folder cannot be written.
        """
        described = [
            {"split": one.split, "model": one.model, "columns": one.columns, "whole": one.whole, "seconds": one.seconds}
            for one in judged
        ]
        user_ids = {one.split: one.user_ids for one in judged}  # the same for all models
        arrays = {f"values{n}": one.values for n, one in enumerate(judged)}
        arrays |= {f"weights{n}": one.weights for n, one in enumerate(judged) if one.weights is not None}
        facts = {"judged": described, "user_ids": user_ids, "report": report}
        self._parts.put(_name(protocol, seed, model), arrays, facts)


def _name(protocol: str, seed: int, model: str) -> str:
    return f"{protocol}-{seed}-{model}" if model else f"{protocol}-{seed}"


def _read_all(arrays: Mapping[str, Any], facts: Any) -> tuple[list[Judged], dict[str, Any]]:
    judged = [
        _read(one, facts["user_ids"], arrays[f"values{n}"], arrays.get(f"weights{n}"))
        for n, one in enumerate(facts["judged"])
    ]
    return judged, facts["report"]


def _read(facts: dict[str, Any], user_ids: dict[str, list[str]], values: Any, weights: Any) -> Judged:
    columns = [(str(segment), str(metric), int(k)) for segment, metric, k in facts["columns"]]
    users = user_ids[facts["split"]]
    if values.shape != (len(users), len(columns)):
        raise ValueError(f"values are {values.shape}, expected {(len(users), len(columns))}")
    if weights is not None and weights.shape != values.shape:
        raise ValueError(f"weights are {weights.shape}, expected {values.shape}")
    return Judged(facts["split"], facts["model"], users, columns, values, facts["whole"], facts["seconds"], weights)


def facts_of(tracks: Tracks, listens: Listens, tags: Tags | None) -> dict[str, Any]:
    """Tell inputs, audio files among them, from any others, as ``json`` can write it."""
    files = [FileMark.of(Path(path)) for path in tracks.frame["path"].drop_nulls()]
    return {
        "tracks": digest(tracks.frame),
        "listens": digest(listens.frame),
        "tags": None if tags is None else digest(tags.frame),
        "files": [None if mark is None else (mark.size, mark.changed_ns) for mark in files],
    }


def digest(frame: pl.DataFrame) -> str:
    """Hash a frame: its columns and its rows in their order."""
    hashed = hashlib.blake2b(str(frame.schema).encode(), digest_size=16)
    hashed.update(frame.hash_rows(seed=0).to_numpy().tobytes())
    return hashed.hexdigest()
