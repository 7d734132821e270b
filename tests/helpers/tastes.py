"""A planted taste, and a recommender that knows it: for tests of the evaluation that need no training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from recsys.types import (
    LISTENS_SCHEMA,
    NO_ITEM,
    TRACKS_SCHEMA,
    Candidates,
    Int32,
    Listens,
    Plays,
    Tags,
    Tracks,
)
from recsys.util.progress import Progress

N_USERS, N_TRACKS, N_TASTES = 12, 40, 2


def planted(seed: int = 0, n_users: int = N_USERS) -> Listens:
    """Users of even rows hear only even tracks, those of odd rows only odd ones; 8 of 20 each."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        own = np.arange(user % N_TASTES, N_TRACKS, N_TASTES)
        rows += [(f"u{user}", f"t{track}", 1.0, None, False, False) for track in rng.choice(own, 8, replace=False)]
    return Listens(pl.DataFrame(rows, schema=LISTENS_SCHEMA, orient="row"))


def catalogue(n_tracks: int = N_TRACKS) -> Tracks:
    """Track ids, and the planted taste as genre."""
    empty = {name: [None] * n_tracks for name in TRACKS_SCHEMA.names()}
    columns = empty | {
        "track_id": [f"t{row}" for row in range(n_tracks)],
        "genres": [[f"genre{row % N_TASTES}"] for row in range(n_tracks)],
    }
    return Tracks(pl.DataFrame(columns, schema=TRACKS_SCHEMA))


@dataclass(frozen=True)
class TasteFake:
    """Knows the planted taste from training plays; its part 'worst' ranks the other taste first."""

    plays: Plays
    parts: Sequence[str] = ("worst",)

    def rank(
        self, user_ids: Sequence[str], k: int, candidates: Int32 | None = None, *, part: str | None = None
    ) -> Candidates:
        rows = [self.plays.user_ids.index(user_id) for user_id in user_ids]
        return self.rank_folded(self.plays.counts[rows], k, candidates, part=part)

    def rank_folded(
        self, counts: csr_matrix, k: int, candidates: Int32 | None = None, *, part: str | None = None
    ) -> Candidates:
        n_items = len(self.plays.track_ids)
        parity = np.array([int(track_id[1:]) % N_TASTES for track_id in self.plays.track_ids])
        own = parity[counts.indices[counts.indptr[:-1]]]
        scores = (parity[None] == own[:, None]).astype(np.float32)
        scores = (1 - scores if part == "worst" else scores) - np.arange(n_items) / 1e3
        scores[counts.toarray() > 0] = -np.inf
        if candidates is not None:
            scores[:, np.setdiff1d(np.arange(n_items), candidates)] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = np.pad(best, ((0, 0), (0, k - best.shape[1])), constant_values=NO_ITEM)
        values = np.take_along_axis(scores, best, axis=1).astype(np.float32)
        return Candidates(np.where(np.isneginf(values), NO_ITEM, best).astype(np.int32), values)

    @property
    def sound(self) -> tuple[Int32, np.ndarray]:
        """Tracks of one taste sound alike, but for the last two, which nobody heard."""
        rows = np.arange(len(self.plays.track_ids) - 2, dtype=np.int32)
        return rows, np.eye(N_TASTES, dtype=np.float32)[[int(self.plays.track_ids[row][1:]) % 2 for row in rows]]


class RecordingFit:
    """Fits the fake, and keeps what it was given."""

    def __init__(self, n_tracks: int = N_TRACKS) -> None:
        self.given: list[Listens] = []
        self.orders: list[list[str]] = []
        self.n_tracks = n_tracks

    def __call__(
        self, tracks: Tracks, listens: Listens, tags: Tags | None, settings: Any, *, progress: Progress
    ) -> TasteFake:
        self.given.append(listens)
        self.orders.append(tracks.frame["track_id"].to_list())
        return TasteFake(plays_of_fake(listens, self.n_tracks))


def plays_of_fake(listens: Listens, n_tracks: int) -> Plays:
    users = listens.frame["user_id"].unique(maintain_order=True).to_list()
    rows = [(users.index(user), int(track[1:])) for user, track in listens.frame.select("user_id", "track_id").rows()]
    counts = csr_matrix(
        (np.ones(len(rows), dtype=np.float32), tuple(zip(*rows, strict=True))), shape=(len(users), n_tracks)
    )
    return Plays(counts, csr_matrix(counts.shape, dtype=bool), users, [f"t{row}" for row in range(n_tracks)])
