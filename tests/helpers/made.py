"""Inputs made inside a test: columns and dense matrices in, the package's containers out."""

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix

from recsys.types import LISTENS_SCHEMA, TAGS_SCHEMA, TRACKS_SCHEMA, Listens, Plays, Tags, Tracks


def made_tracks(n: int, **columns: Sequence[object]) -> Tracks:
    """Make tracks t0, t1, …; a column that is not given is null, ``genres`` is empty."""
    rest = {name: [[]] * n if name == "genres" else [None] * n for name in TRACKS_SCHEMA}
    return Tracks(pl.DataFrame({**rest, "track_id": [f"t{row}" for row in range(n)], **columns}, schema=TRACKS_SCHEMA))


def made_tags(rows: Iterable[tuple[str, str, float]]) -> Tags:
    return Tags(pl.DataFrame(list(rows), schema=TAGS_SCHEMA, orient="row"))


def made_listens(pairs: Iterable[tuple[str, str, float]], disliked: Iterable[tuple[str, str]] = ()) -> Listens:
    """Make listens of (user, track, plays), then dislikes."""
    rows = [(user, track, float(plays), None, False, False) for user, track, plays in pairs]
    rows += [(user, track, 0.0, None, False, True) for user, track in disliked]
    return Listens(pl.DataFrame(rows, schema=LISTENS_SCHEMA, orient="row"))


def made_plays(counts: ArrayLike, barred: ArrayLike | None = None) -> Plays:
    """Make plays of users u0, u1, … and tracks t0, t1, … from a dense matrix."""
    dense = np.asarray(counts, dtype=np.float32)
    bars = np.zeros(dense.shape, dtype=bool) if barred is None else np.asarray(barred, dtype=bool)
    n_users, n_items = dense.shape
    ids = [f"u{row}" for row in range(n_users)], [f"t{row}" for row in range(n_items)]
    return Plays(csr_matrix(dense), csr_matrix(bars), *ids)
