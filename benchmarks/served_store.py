"""A store that is made up, as large as is wanted: random lists and vectors, in the form that publishing gives a store.

    sizes  ->  made_store  ->  store/generations/<id> with DuckDB file, serving.lmdb and arrays

What is served is not worth hearing: lists are random tracks. Only their number, depth and bytes are as in earnest.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from recsys.catalogue.ids import IdMap
from recsys.hybrid.blend import NEW, POPULARITY, Part, join
from recsys.ranking.attributes import TrackAttributes
from recsys.ranking.model import Model
from recsys.store.checksums import described
from recsys.store.duckdb_tables import FILE, write_tables
from recsys.store.generation import Store
from recsys.store.lmdb_compile import compile_lookup
from recsys.util.progress import Progress

BLOCK = 8192
DEPTH, N_NEIGHBOURS = 200, 50
FACTORS = 32
N_GENRES = 12
REACH = 10  # lists that an upload comes into at once
N_ARTISTS = 20  # tracks of each


@dataclass(frozen=True, slots=True)
class StoreSizes:
    """How much there is."""

    n_users: int = 1_000_000
    n_tracks: int = 1_000_000
    n_with_neighbours: int = 100_000  # tracks; the others' are left out, as they only take time to make


def user_id(number: int) -> str:
    """Name a user."""
    return f"user{number:07d}"


def made_store(folder: Path, sizes: StoreSizes, seed: int, progress: Progress) -> str:
    """Add a generation of random lists to a store and make it current; returns its id."""
    store, rng = Store(folder), np.random.default_rng(seed)
    store.folder.mkdir(parents=True, exist_ok=True)
    partial = store.begin()
    name = partial.with_suffix("").name
    track_ids = [f"track{n:07d}" for n in range(sizes.n_tracks)]
    ids = pl.Series("id", track_ids)
    tracks = pl.DataFrame(
        {
            "track_id": ids,
            "artist": [f"Artist {n // N_ARTISTS}" for n in range(sizes.n_tracks)],
            "genres": [[f"genre {n}"] for n in rng.integers(0, N_GENRES, sizes.n_tracks).tolist()],
            "year": (1960 + np.arange(sizes.n_tracks) % 65).astype(np.int32),
            "plays": np.ones(sizes.n_tracks),
            "is_cold": np.arange(sizes.n_tracks) % 50 == 0,
        }
    )
    users = pl.DataFrame({"user_id": [user_id(n) for n in range(sizes.n_users)], "plays": np.ones(sizes.n_users)})
    tables: list[tuple[str, Iterator[pl.DataFrame]]] = [
        ("tracks", iter([tracks])),
        ("users", iter([users])),
        ("recommendation_lists", _lists(users["user_id"], ids, rng, progress)),
        ("neighbour_lists", _neighbours(ids, sizes.n_with_neighbours, rng)),
    ]
    write_tables(partial / FILE, tables, {"generation": name, "created_at": datetime.now(UTC)})
    _made_model(sizes, track_ids, users["user_id"].to_list(), rng).save(partial / "arrays")
    TrackAttributes.of(tracks, np.where(tracks["is_cold"], 0, 1).astype(np.float32)).save(partial / "arrays")
    np.save(partial / "arrays" / "edges.npy", np.zeros(sizes.n_users, np.float32))
    popular = [(track_ids[n], 1.0, None) for n in range(min(DEPTH, sizes.n_tracks))]
    compile_lookup(partial, name, track_ids, popular, progress)
    facts = {"generation": name, "created_at": datetime.now(UTC).isoformat(timespec="seconds"), "n_listens": 0,
             "last_live_number": 0, "settings": {"lists": {}, "live": {"reach": REACH}}}  # fmt: skip
    (partial / "meta.json").write_text(json.dumps(described(partial, facts)), encoding="utf-8")
    store.publish(partial)
    return name


def _lists(users: pl.Series, ids: pl.Series, rng: np.random.Generator, progress: Progress) -> Iterator[pl.DataFrame]:
    """Lists of 200 distinct tracks, whose scores fall."""
    scores = np.linspace(9, 1, DEPTH).astype(np.float32).tolist()
    with progress.bar("made up: lists", len(users), "users") as bar:
        for start in range(0, len(users), BLOCK):
            block = users[start : start + BLOCK]
            rows = _distinct(len(block), len(ids), DEPTH, rng)
            reasons = rng.integers(0, len(ids), rows.shape)
            yield pl.DataFrame(
                {
                    "user_id": block,
                    "track_ids": _of_width(ids, rows),
                    "scores": [scores] * len(block),
                    "reason_track_ids": _of_width(ids, reasons),
                },
                schema_overrides={"scores": pl.List(pl.Float32)},
            )
            bar.advance(len(block))


def _neighbours(ids: pl.Series, n: int, rng: np.random.Generator) -> Iterator[pl.DataFrame]:
    scores = np.linspace(0.9, 0.1, N_NEIGHBOURS).astype(np.float32).tolist()
    for start in range(0, n, BLOCK):
        block = ids[start : min(start + BLOCK, n)]
        yield pl.DataFrame(
            {
                "track_id": block,
                "space": ["hybrid"] * len(block),
                "neighbour_ids": _of_width(ids, _distinct(len(block), len(ids), N_NEIGHBOURS, rng)),
                "scores": [scores] * len(block),
            },
            schema_overrides={"scores": pl.List(pl.Float32)},
        )


def _distinct(n: int, n_tracks: int, depth: int, rng: np.random.Generator) -> np.ndarray:
    """Draw rows (n, depth), no two of a list the same: steps of a stride of its own through the catalogue."""
    longest = max(n_tracks // depth, 2)  # short steps would give lists of few artists
    strides = rng.integers(min(N_ARTISTS + 1, longest - 1), longest, (n, 1))
    return (rng.integers(0, n_tracks, (n, 1)) + strides * np.arange(depth)) % n_tracks


def _of_width(ids: pl.Series, rows: np.ndarray) -> pl.Series:
    flat = ids.gather(rows.ravel())
    return flat.reshape(rows.shape).cast(pl.List(pl.String))


def _made_model(sizes: StoreSizes, track_ids: list[str], user_ids: list[str], rng: np.random.Generator) -> Model:
    """Random factors; each user has heard two tracks."""
    users = rng.normal(size=(sizes.n_users, FACTORS)).astype(np.float32)
    items = rng.normal(size=(sizes.n_tracks, FACTORS)).astype(np.float32)
    everybody = np.ones((sizes.n_users, 1), np.float32)
    is_new = (np.arange(sizes.n_tracks) % 50 == 0).astype(np.float32)[:, None]
    parts = [
        Part("als", users, items, "solve", np.eye(FACTORS, dtype=np.float32), 1.0),
        Part(POPULARITY, everybody, rng.random((sizes.n_tracks, 1)).astype(np.float32), "constant"),
        Part(NEW, everybody, is_new, "level"),
    ]
    n_listeners = np.where(is_new[:, 0] > 0, 0, 1).astype(np.int32)
    blend, user_vectors, item_vectors = join(parts, {"als": 1.0, POPULARITY: 0.5, NEW: 0.0}, n_listeners)
    heard = np.sort(_distinct(sizes.n_users, sizes.n_tracks, 2, rng), axis=1).astype(np.int32)
    shape = (sizes.n_users, sizes.n_tracks)
    starts = np.arange(0, 2 * sizes.n_users + 1, 2)
    counts = csr_matrix((np.ones(heard.size, np.float32), heard.ravel(), starts), shape=shape)
    barred = csr_matrix(shape, dtype=bool)
    return Model(IdMap.of(user_ids, "user"), IdMap.of(track_ids, "track"), blend, user_vectors, item_vectors,
                 counts, barred, {})  # fmt: skip
