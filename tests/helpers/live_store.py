"""A live store as tests use it: opened, written to, and what it then lists."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from helpers.stores import with_facts
from recsys.eventlog.events import Listened, Upload
from recsys.eventlog.user_state import delta_of
from recsys.live.service import LiveUpdater
from recsys.ranking.catalogue_view import UserDelta
from recsys.recommender import Recommender, open_store
from recsys.store.generation import Store
from recsys.store.manifest import read_facts
from recsys.store.record import Record


@contextmanager
def opened(store: Path, backend: str = "lmdb") -> Iterator[LiveUpdater]:
    live = LiveUpdater(Store(store), open_store(store, backend))
    try:
        live.settle()  # what is behind at the start is else derived a moment later
        yield live
    finally:
        live.close()


def heard(user: str, *tracks: str, plays: float = 1.0) -> list[Listened]:
    return [Listened(user, track, plays=plays) for track in tracks]


def listed(live: LiveUpdater, user: str) -> list[str]:
    record = live.list_of(user)
    assert record is not None
    return [track for track, _, _ in Record(record).found()]


def touched(live: LiveUpdater, user: str) -> UserDelta:
    with live._live.reading() as reading:
        return delta_of(reading, live.generation, live._applied_seq, user, now=0.0, session_gap_s=1800)


def shown(live: LiveUpdater, user: str) -> list[str]:
    """The list of now as a reader shows it: without what was deleted."""
    record = Record(live.list_of(user) or b"")
    rows, gone = record.rows.tolist(), live.gone_rows()
    return [track for (track, _, _), row in zip(record.found(), rows, strict=True) if row not in gone]


def folded(recommender: Recommender, user: str | None, *tracks: str) -> list[str]:
    """What the ranking itself says of somebody with the plays of a user and these."""
    model = recommender.model
    counts = np.zeros(len(model.items), dtype=np.float32)
    if user is not None:
        counts += model.counts[model.users.row(user)].toarray()[0]
    np.add.at(counts, model.items.rows(list(tracks)), 1)
    ranked = recommender.rank_folded(csr_matrix(counts[None]), 200).items[0]
    return model.items.ids(ranked[ranked >= 0])


def new_track(store: Path, track_id: str, genre: str, code: str = "aa") -> tuple[Upload, dict[str, np.ndarray]]:
    """An upload of which the genre is known and nothing else, with its vectors."""
    from recsys.store.weights import load_encoder  # loads torch
    from recsys.uploads.vectors import vectors_of

    upload = Upload(track_id, code, f"{code}.mp3", "New", "Artist 1-1", None, [genre], 2020, None, 2.0, "2026-01-01")
    recommender = Recommender.open(store)
    encoder = load_encoder(Store(store).current() / "models")
    return upload, vectors_of(upload, None, encoder, recommender.model.blend)


def with_reach(store: Path, n: int) -> None:
    current = Store(store).current()
    with_facts(current, settings=read_facts(current)["settings"] | {"live": {"reach": n}})
