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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipelines import rows
from recsys.audio.model import SoundModel
from recsys.catalogue.problems import Problems
from recsys.config import RunSettings
from recsys.errors import ArtefactError
from recsys.eventlog.archive import move_listens
from recsys.live.catchup import catch_up, forget_generations
from recsys.live.thresholds import bars_file
from recsys.ranking.candidates import PoolSettings, user_blocks
from recsys.ranking.model import Model
from recsys.ranking.next_lists import rank_after
from recsys.recommender import Artefacts, Recommender, open_store
from recsys.store.checksums import described
from recsys.store.duckdb_tables import FILE, count_rows, write_tables
from recsys.store.generation import Store
from recsys.store.lmdb_compile import compile_lookup
from recsys.store.weights import save_models
from recsys.types import DEFAULT_K, MAX_K, NO_ITEM, Candidates, Float32, Space
from recsys.util.progress import Progress

BLOCK = 2048  # users or tracks a block of rows
LIBRARIES = ("duckdb", "faiss-cpu", "implicit", "lightfm-next", "numpy", "polars", "torch", "torchaudio")


def publish(
    recommender: Recommender,
    store: Store,
    settings: RunSettings,
    inputs: dict[str, Any],
    problems: Problems,
    applied_seq: int,
    progress: Progress,
) -> dict[str, Any]:
    """Write a generation beside the others, check it and make it current.

    Args:
        recommender: fresh from ``recsys.fit``.
        store: where to.
        settings: of the run; recorded, and the source of depths and caps.
        inputs: facts of the input files, recorded.
        problems: written to ``build_problems``.
        applied_seq: number of the last entry of the live log that the fit knew.
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
        with progress.stage("lists") as stage:
            _write(partial, recommender, settings, problems, row, applied_seq, progress)
            n_users, n_tracks = row["counts"]["users"], row["counts"]["tracks"]
            n_spaces = len(recommender.spaces)
            stage.done(f"lists of {n_users:,} users, neighbours of {n_tracks:,} tracks in {n_spaces} spaces")
        with progress.stage("publish") as stage:
            _check(partial, row["counts"])
            catch_up(store, partial)
            with store.live_lock():
                catch_up(store, partial)
                store.publish(partial)
            stage.done(f"checked and made current in {store.folder}")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    forget_generations(store, store.prune(settings.store.keep_generations))
    try:
        move_listens(store, progress)
    except (ArtefactError, OSError) as error:  # what was published answers, and the log still has what did not move
        progress.log(f"old listens stay in the live log for now: {error}")
    open_store(store.folder, strict=True).close()
    return row


def _write(
    folder: Path,
    recommender: Recommender,
    settings: RunSettings,
    problems: Problems,
    row: dict[str, Any],
    applied_seq: int,
    progress: Progress,
) -> None:
    artefacts: Artefacts = recommender.artefacts
    lists = _Lists(recommender, settings.pools, progress)
    model = recommender.model
    model.save(folder / "arrays")
    recommender.attributes.save(folder / "arrays")
    save_models(folder / "models", artefacts.encoder, artefacts.sound.model)
    bars: dict[Space, Float32] = {}
    tables: list[tuple[str, Iterator[pl.DataFrame]]] = [
        ("tracks", iter([rows.tracks(recommender)])),
        ("users", iter([rows.users(recommender)])),
        ("track_audio", iter([rows.track_audio(recommender)])),
        ("track_vectors", rows.track_vectors(model)),
        ("neighbour_lists", rows.neighbour_lists(model, settings, progress, bars)),
        ("recommendation_lists", lists.blocks()),
        ("build_problems", iter([problems.frame()])),
    ]
    write_tables(folder / FILE, tables, row)
    compile_lookup(folder, row["generation"], model.items.all(), recommender.popular(), progress)
    np.save(folder / "arrays" / "edges.npy", lists.score_at_20)
    np.save(folder / "arrays" / "lasts.npy", lists.score_at_last)
    for space, scores in bars.items():
        np.save(bars_file(folder / "arrays", space), scores)
    facts = {
        "generation": row["generation"],
        "created_at": row["created_at"].isoformat(timespec="seconds"),
        "n_listens": row["counts"]["listens"],
        "last_live_number": applied_seq,
        **{name: row[name] for name in ("counts", "versions", "settings", "inputs", "durations")},
    }
    (folder / "meta.json").write_text(json.dumps(described(folder, facts), indent=1), encoding="utf-8")


def _check(folder: Path, counts: dict[str, int]) -> None:
    """Read back what was written, as a reader will."""
    model = Model.load(folder / "arrays")
    found = count_rows(folder / FILE, ["tracks", "users", "recommendation_lists", "build"])
    expected = {
        "tracks": counts["tracks"],
        "users": counts["users"],
        "recommendation_lists": counts["users"],
        "build": 1,
    }
    if found != expected or (len(model.items), len(model.users)) != (counts["tracks"], counts["users"]):
        raise ArtefactError(f"the new generation holds {found}, expected {expected}; it was not published")


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
    """The stored lists of all users, block by block; remembers the scores at each user's edge and at the last place.

    These are scores by all plays, as an upload has one with every user, also where the lists follow the last plays.
    """

    def __init__(self, recommender: Recommender, settings: PoolSettings, progress: Progress) -> None:
        self._recommender, self._settings, self._progress = recommender, settings, progress
        self._track_ids = np.array(recommender.model.items.all(), dtype=object)
        self._artists = recommender.attributes.artists
        order = recommender.model.order
        self._by_all_plays = order is None or order.stored is None
        self.score_at_20 = np.full(len(recommender.model.users), -np.inf, dtype=np.float32)
        self.score_at_last = self.score_at_20.copy()

    def blocks(self) -> Iterator[pl.DataFrame]:
        """Rows of ``recommendation_lists``."""
        with self._progress.bar("lists of users", len(self.score_at_20), "users") as bar:
            for users, pool in user_blocks(self._recommender.model, self._settings):
                user_ids = self._recommender.model.users.ids(users)
                by_all = self._recommender.ranking.rank(users, MAX_K, pool)
                ranked = by_all if self._by_all_plays else self._recommender.rank(user_ids, MAX_K, pool)
                listed = self._recommender.ranking.varied(
                    users,
                    ranked,
                    self._recommender.lists,
                    self._artists,
                    partial(rank_after, self._recommender.ranking),
                )
                reasons = self._recommender.reasons(user_ids, listed)
                self.score_at_20[users] = by_all.scores[:, DEFAULT_K - 1]
                self.score_at_last[users] = by_all.scores[:, MAX_K - 1]
                bar.advance(len(users))
                yield self._frame(user_ids, listed, reasons)

    def _frame(self, user_ids: list[str], ranked: Candidates, reasons: np.ndarray) -> pl.DataFrame:
        full = ranked.items != NO_ITEM
        lengths = full.sum(axis=1)
        return pl.DataFrame(
            {
                "user_id": user_ids,
                "track_ids": rows.lists_of(self._named(ranked.items[full]), lengths),
                "scores": rows.lists_of(pl.Series(ranked.scores[full]), lengths),
                "reason_track_ids": rows.lists_of(self._named(reasons[full]), lengths),
            }
        )

    def _named(self, items: np.ndarray) -> pl.Series:
        named = self._track_ids[np.maximum(items, 0)]
        named[items == NO_ITEM] = None
        return pl.Series(named, dtype=pl.String)
