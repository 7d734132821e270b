"""The rows of a generation's tables, from what was fitted; lists of users are made in ``pipelines.publish``.

Recommender in memory  ->  tracks, users, track_audio, track_vectors, neighbour_lists  ->  frames, block by block
"""

from collections.abc import Iterator

import numpy as np
import polars as pl

from recsys.config import RunSettings
from recsys.ranking.model import Model
from recsys.ranking.neighbours import find_neighbours
from recsys.recommender import Artefacts, Recommender
from recsys.types import NEXT, NO_ITEM, VECTOR_SPACES, Float32, Int32, Neighbours, Space
from recsys.util.progress import Progress

BLOCK = 2048  # tracks a block of rows


def lists_of(values: pl.Series, lengths: np.ndarray) -> pl.Series:
    """Cut a flat series into lists of these lengths."""
    owner = pl.Series("owner", np.repeat(np.arange(len(lengths)), lengths), dtype=pl.Int64)
    lists = pl.DataFrame({"owner": owner, "values": values}).group_by("owner", maintain_order=True).agg("values")
    every = pl.DataFrame({"owner": np.arange(len(lengths))}, schema={"owner": pl.Int64})
    joined = every.join(lists, on="owner", how="left", maintain_order="left")["values"]
    return joined.fill_null([])


def tracks(recommender: Recommender) -> pl.DataFrame:
    """Rows of ``tracks``."""
    artefacts: Artefacts = recommender.artefacts
    n_plays = np.asarray(recommender.model.counts.sum(axis=0), dtype=np.float64).ravel()
    durations = np.full(len(n_plays), np.nan, dtype=np.float32)
    durations[artefacts.sound.rows] = artefacts.sound.durations_s
    return artefacts.tracks.frame.select("track_id", "title", "artist", "album", "genres", "year", "path").with_columns(
        duration_s=pl.Series(durations).fill_nan(None), plays=pl.Series(n_plays), is_cold=pl.Series(n_plays == 0)
    )


def users(recommender: Recommender) -> pl.DataFrame:
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


def track_audio(recommender: Recommender) -> pl.DataFrame:
    """Rows of ``track_audio``: which track has which file content."""
    sound = recommender.artefacts.sound
    ids = recommender.model.items.ids(sound.rows)
    frame = pl.DataFrame({"track_id": ids, "content_hash": list(sound.hashes)}, schema=_AUDIO_SCHEMA)
    return frame.filter(pl.col("content_hash") != "")


_AUDIO_SCHEMA = {"track_id": pl.String(), "content_hash": pl.String()}


def _spaces(model: Model) -> Iterator[tuple[Space, np.ndarray, Float32]]:
    """Each space that has vectors, with its rows and vectors."""
    for space in VECTOR_SPACES:
        if space == "hybrid":
            yield space, np.arange(len(model.items), dtype=np.int32), model.item_vectors
        elif space in model.spaces:
            yield space, model.spaces[space].rows, model.spaces[space].vectors


def track_vectors(model: Model) -> Iterator[pl.DataFrame]:
    """Rows of ``track_vectors``."""
    for space, rows, vectors in _spaces(model):
        for start in range(0, len(rows), BLOCK):
            block = slice(start, start + BLOCK)
            ids = model.items.ids(rows[block])
            yield pl.DataFrame(
                {"track_id": ids, "vector": pl.Series(vectors[block].tolist(), dtype=_VECTOR)}
            ).with_columns(space=pl.lit(space))


_VECTOR = pl.List(pl.Float32())


def neighbour_lists(
    model: Model, settings: RunSettings, progress: Progress, bars: dict[Space, Float32]
) -> Iterator[pl.DataFrame]:
    """Rows of ``neighbour_lists``; the hybrid space is compared as the ranking weighs it, "next" as it was counted.

    ``bars`` gets, by space, what a new track's score must surpass to come into each list, (n_items,): that of the last
    place, -inf where the list is not full, inf where there is none (``recsys.live.thresholds``). "next" has no bars, as
    no new track comes into its lists.
    """
    track_ids = np.array(model.items.all(), dtype=object)
    for space, rows, vectors in _spaces(model):
        compared = model.blend.likeness(vectors) if space == "hybrid" else vectors
        is_hybrid = space == "hybrid"
        found = find_neighbours(rows, compared, space, settings.neighbours, progress, are_unit=is_hybrid)
        bars[space] = np.full(len(model.items), np.inf, dtype=np.float32)
        listed = found.items[:, 0] != NO_ITEM
        bars[space][found.rows[listed]] = found.scores[listed, -1]
        for start in range(0, len(found.rows), BLOCK):
            block = slice(start, start + BLOCK)
            yield _neighbour_frame(track_ids, found, block)
    yield from _next_lists(model, track_ids)


def _neighbour_frame(track_ids: np.ndarray, found: Neighbours, block: slice) -> pl.DataFrame:
    items, scores = found.items[block], found.scores[block]
    full = items != NO_ITEM
    return _list_frame(track_ids, found.space, found.rows[block], items[full], scores[full], full.sum(axis=1))


def _next_lists(model: Model, track_ids: np.ndarray) -> Iterator[pl.DataFrame]:
    """Rows of ``neighbour_lists`` of the space "next", of the tracks that others followed."""
    if model.order is None:
        return
    for start in range(0, len(track_ids), BLOCK):
        lengths, items, scores = model.order.surroundings.tracks.listed(start, min(start + BLOCK, len(track_ids)))
        some = np.flatnonzero(lengths)
        yield _list_frame(track_ids, NEXT, start + some, items, scores, lengths[some])


def _list_frame(
    track_ids: np.ndarray, space: Space, rows: np.ndarray, items: Int32, scores: Float32, lengths: np.ndarray
) -> pl.DataFrame:
    """Lists of some rows (n,), of ``lengths`` (n,), from items and scores that lie one list after another."""
    return pl.DataFrame(
        {
            "track_id": pl.Series(track_ids[rows], dtype=pl.String),
            "neighbour_ids": lists_of(pl.Series(track_ids[items], dtype=pl.String), lengths),
            "scores": lists_of(pl.Series(scores), lengths),
        }
    ).with_columns(space=pl.lit(space))
