"""From a Recommender in memory to the store's current generation.

Recommender  ->  lists of every user, neighbours in every space  ->  DuckDB, arrays, models, meta.json
             ->  checked by opening it as a reader would  ->  CURRENT
"""

import importlib.metadata
import json
import platform
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.audio.model import SoundModel
from recsys.catalogue.problems import Problems
from recsys.config import RunSettings
from recsys.errors import ArtefactError
from recsys.fit import Artefacts
from recsys.model import Model
from recsys.neighbours import find_neighbours
from recsys.progress import Progress
from recsys.ranking import DEFAULT_K, MAX_K
from recsys.recommender import Recommender
from recsys.retrieval import PoolSettings, user_blocks
from recsys.store.generation import Store
from recsys.store.models import save_models
from recsys.store.opened import open_store
from recsys.store.tables import FILE, count_rows, write_tables
from recsys.types import NO_ITEM, SPACES, Candidates, Float32, Neighbours, Space
from recsys.uploads import reembed_late_uploads

BLOCK = 2048  # users or tracks a block of rows
LIBRARIES = ("duckdb", "faiss-cpu", "implicit", "lightfm-next", "numpy", "polars", "torch", "torchaudio")


def publish(
    recommender: Recommender,
    store: Store,
    settings: RunSettings,
    inputs: dict[str, Any],
    problems: Problems,
    taken_in: int,
    progress: Progress,
) -> dict[str, Any]:
    """Write a generation beside the others, check it and make it current.

    Args:
        recommender: fresh from ``recsys.fit``.
        store: where to.
        settings: of the run; recorded, and the source of depths and caps.
        inputs: facts of the input files, recorded.
        problems: written to ``build_problems``.
        taken_in: number of the last upload that the fit knew.
        progress: shows lists and neighbours.

    Returns:
        The row of the ``build`` table.

    Raises:
        ArtefactError: what was written does not read back as it should; nothing became current.
    """
    partial = store.begin()
    try:
        generation = partial.with_suffix("").name
        row = _build_row(generation, recommender, settings, inputs, problems)
        _write(partial, recommender, settings, problems, row, taken_in, progress)
        _check(partial, row["counts"])
        with store.live_lock():
            artefacts: Artefacts = recommender.artefacts
            reembed_late_uploads(
                store, generation, partial / "models", taken_in, artefacts.encoder, recommender.model.blend
            )
            store.publish(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    store.prune(settings.store.keep_generations)
    open_store(store.folder).close()
    return row


def _write(
    folder: Path,
    recommender: Recommender,
    settings: RunSettings,
    problems: Problems,
    row: dict[str, Any],
    taken_in: int,
    progress: Progress,
) -> None:
    artefacts: Artefacts = recommender.artefacts
    lists = _Lists(recommender, settings.pools, progress)
    recommender.model.save(folder / "arrays")
    save_models(folder / "models", artefacts.encoder, artefacts.sound.model)
    tables: list[tuple[str, Iterator[pl.DataFrame]]] = [
        ("tracks", iter([_tracks(recommender)])),
        ("users", iter([_users(recommender)])),
        ("track_audio", iter([_track_audio(recommender)])),
        ("track_vectors", _track_vectors(recommender.model)),
        ("neighbour_lists", _neighbour_lists(recommender.model, settings, progress)),
        ("recommendation_lists", lists.blocks()),
        ("build_problems", iter([problems.frame()])),
    ]
    write_tables(folder / FILE, tables, row)
    np.save(folder / "arrays" / "edges.npy", lists.edges)
    np.save(folder / "arrays" / "lasts.npy", lists.lasts)
    facts = {
        "generation": row["generation"],
        "created_at": row["created_at"].isoformat(timespec="seconds"),
        "n_listens": row["counts"]["listens"],
        "last_live_number": taken_in,
        "format": 1,
        **{name: row[name] for name in ("counts", "versions", "settings", "inputs", "durations")},
    }
    (folder / "meta.json").write_text(json.dumps(facts, indent=1, default=str), encoding="utf-8")


def _check(folder: Path, counts: dict[str, int]) -> None:
    """Read back what was written, as a reader will."""
    model = Model.load(folder / "arrays")
    rows = count_rows(folder / FILE, ["tracks", "users", "recommendation_lists", "build"])
    expected = {
        "tracks": counts["tracks"],
        "users": counts["users"],
        "recommendation_lists": counts["users"],
        "build": 1,
    }
    if rows != expected or (len(model.items), len(model.users)) != (counts["tracks"], counts["users"]):
        raise ArtefactError(f"the new generation holds {rows}, expected {expected}; it was not published")


def _build_row(
    generation: str, recommender: Recommender, settings: RunSettings, inputs: dict[str, Any], problems: Problems
) -> dict[str, Any]:
    model, artefacts = recommender.model, recommender.artefacts
    versions = {"recsys": importlib.metadata.version("recsys"), "python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in LIBRARIES}
    sound = artefacts.sound.model
    return {
        "generation": generation,
        "created_at": datetime.now(UTC),
        "settings": settings.model_dump(mode="json"),
        "versions": versions | _sound_facts(sound),
        "counts": {
            "tracks": len(model.items),
            "users": len(model.users),
            "listens": 0 if artefacts.listens is None else len(artefacts.listens),
            "pairs": int(model.counts.nnz),
            "cold_tracks": int((np.asarray(model.counts.sum(axis=0)).ravel() == 0).sum()),
            "sound_vectors": len(artefacts.sound.rows),
            "problems": len(problems),
        },
        "durations": dict(artefacts.durations),
        "inputs": inputs | {"blend": {p.name: p.weight for p in model.blend.parts}},
    }


def _sound_facts(sound: SoundModel | None) -> dict[str, Any]:
    """Which network made the sound vectors, and the SHA-256 of the published weights that it started from."""
    if sound is None:
        return {"sound_model": None, "sound_network": None, "sound_weights": {}}
    return {"sound_model": sound.version, "sound_network": sound.label, "sound_weights": sound.origin.weights}


class _Lists:
    """The stored lists of all users, block by block; remembers the scores at each user's edge and at the last place."""

    def __init__(self, recommender: Recommender, settings: PoolSettings, progress: Progress) -> None:
        self._recommender, self._settings, self._progress = recommender, settings, progress
        self._track_ids = np.array(recommender.model.items.all(), dtype=object)
        artists = recommender.artefacts.tracks.frame["artist"].rank("dense").cast(pl.Int32)
        self._artists = (artists.fill_null(0) - 1).to_numpy()
        self.edges = np.full(len(recommender.model.users), -np.inf, dtype=np.float32)
        self.lasts = self.edges.copy()

    def blocks(self) -> Iterator[pl.DataFrame]:
        """Give rows of ``recommendation_lists``."""
        with self._progress.bar("lists of users", len(self.edges), "users") as bar:
            for users, pool in user_blocks(self._recommender.model, self._settings):
                user_ids = self._recommender.model.users.ids(users)
                ranked = self._recommender.rank(user_ids, MAX_K, pool)
                listed = self._recommender.ranking.varied(users, ranked, self._recommender.lists, self._artists)
                reasons = self._recommender.reasons(user_ids, listed)
                self.edges[users] = ranked.scores[:, DEFAULT_K - 1]
                self.lasts[users] = ranked.scores[:, MAX_K - 1]
                bar.advance(len(users))
                yield self._frame(user_ids, listed, reasons)

    def _frame(self, user_ids: list[str], ranked: Candidates, reasons: np.ndarray) -> pl.DataFrame:
        full = ranked.items != NO_ITEM
        lengths = full.sum(axis=1)
        return pl.DataFrame(
            {
                "user_id": user_ids,
                "track_ids": _lists_of(self._named(ranked.items[full]), lengths),
                "scores": _lists_of(pl.Series(ranked.scores[full]), lengths),
                "reason_track_ids": _lists_of(self._named(reasons[full]), lengths),
            }
        )

    def _named(self, items: np.ndarray) -> pl.Series:
        named = self._track_ids[np.maximum(items, 0)]
        named[items == NO_ITEM] = None
        return pl.Series(named, dtype=pl.String)


def _lists_of(values: pl.Series, lengths: np.ndarray) -> pl.Series:
    """Cut a flat series into lists of these lengths."""
    owner = pl.Series("owner", np.repeat(np.arange(len(lengths)), lengths), dtype=pl.Int64)
    lists = pl.DataFrame({"owner": owner, "values": values}).group_by("owner", maintain_order=True).agg("values")
    every = pl.DataFrame({"owner": np.arange(len(lengths))}, schema={"owner": pl.Int64})
    joined = every.join(lists, on="owner", how="left", maintain_order="left")["values"]
    return joined.fill_null([])


def _tracks(recommender: Recommender) -> pl.DataFrame:
    """Rows of ``tracks``."""
    artefacts: Artefacts = recommender.artefacts
    n_plays = np.asarray(recommender.model.counts.sum(axis=0), dtype=np.float64).ravel()
    durations = np.full(len(n_plays), np.nan, dtype=np.float32)
    durations[artefacts.sound.rows] = artefacts.sound.durations_s
    return artefacts.tracks.frame.select("track_id", "title", "artist", "album", "genres", "year", "path").with_columns(
        duration_s=pl.Series(durations).fill_nan(None), plays=pl.Series(n_plays), is_cold=pl.Series(n_plays == 0)
    )


def _users(recommender: Recommender) -> pl.DataFrame:
    """Rows of ``users``."""
    model, listens = recommender.model, recommender.artefacts.listens
    users = pl.DataFrame(
        {
            "user_id": pl.Series(model.users.all(), dtype=pl.String),
            "plays": np.asarray(model.counts.sum(axis=1), dtype=np.float64).ravel(),
            "distinct_tracks": np.diff(model.counts.indptr).astype(np.int32),
        }
    )
    if listens is None:
        return users
    last = listens.frame.group_by("user_id").agg(last_listened_at=pl.col("listened_at").max())
    return users.join(last, on="user_id", how="left", maintain_order="left")


def _track_audio(recommender: Recommender) -> pl.DataFrame:
    """Rows of ``track_audio``: which track has which file content."""
    sound = recommender.artefacts.sound
    ids = recommender.model.items.ids(sound.rows)
    frame = pl.DataFrame({"track_id": ids, "content_hash": list(sound.hashes)}, schema=_AUDIO_SCHEMA)
    return frame.filter(pl.col("content_hash") != "")


_AUDIO_SCHEMA = {"track_id": pl.String(), "content_hash": pl.String()}


def _spaces(model: Model) -> Iterator[tuple[Space, np.ndarray, Float32]]:
    """Each space that exists, with its rows and vectors."""
    for space in SPACES:
        if space == "hybrid":
            yield space, np.arange(len(model.items), dtype=np.int32), model.item_vectors
        elif space in model.spaces:
            yield space, model.spaces[space].rows, model.spaces[space].vectors


def _track_vectors(model: Model) -> Iterator[pl.DataFrame]:
    """Rows of ``track_vectors``."""
    for space, rows, vectors in _spaces(model):
        for start in range(0, len(rows), BLOCK):
            block = slice(start, start + BLOCK)
            ids = model.items.ids(rows[block])
            yield pl.DataFrame(
                {"track_id": ids, "vector": pl.Series(vectors[block].tolist(), dtype=_VECTOR)}
            ).with_columns(space=pl.lit(space))


_VECTOR = pl.List(pl.Float32())


def _neighbour_lists(model: Model, settings: RunSettings, progress: Progress) -> Iterator[pl.DataFrame]:
    """Rows of ``neighbour_lists``; the hybrid space is compared as the ranking weighs it."""
    for space, rows, vectors in _spaces(model):
        compared = model.blend.likeness(vectors) if space == "hybrid" else vectors
        found = find_neighbours(rows, compared, space, settings.neighbours, progress)
        track_ids = np.array(model.items.all(), dtype=object)
        for start in range(0, len(found.rows), BLOCK):
            block = slice(start, start + BLOCK)
            yield _neighbour_frame(track_ids, found, block)


def _neighbour_frame(track_ids: np.ndarray, found: Neighbours, block: slice) -> pl.DataFrame:
    items, scores = found.items[block], found.scores[block]
    full = items != NO_ITEM
    lengths = full.sum(axis=1)
    return pl.DataFrame(
        {
            "track_id": pl.Series(track_ids[found.rows[block]], dtype=pl.String),
            "neighbour_ids": _lists_of(pl.Series(track_ids[items[full]], dtype=pl.String), lengths),
            "scores": _lists_of(pl.Series(scores[full]), lengths),
        }
    ).with_columns(space=pl.lit(found.space))
