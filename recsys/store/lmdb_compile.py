"""Compiling a generation's DuckDB file into serving.lmdb, the same lists as bytes that are ready to send.

    recommendations.duckdb, row of every track  ->  compile_lookup  ->  serving.lmdb  (read by recsys.store.lmdb_lookup)

DuckDB stays the truth: whatever is in LMDB can be made again from it. Lists come sorted by key, block by block through
Parquet, and go in at the end of the tree, so memory does not grow with the catalogue.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.store.duckdb_tables import FILE as TABLES
from recsys.store.duckdb_tables import connect
from recsys.store.keys import key_of
from recsys.store.lmdb_lookup import AUDIO, DATABASES, FILE, FORMAT, META, POPULAR, ROW, facts_line, space_key
from recsys.store.record import head_of, pack, track_bytes
from recsys.store.sealed import sealed
from recsys.types import SPACES, Found
from recsys.util.progress import Progress

BLOCK = 4096  # lists at a time
SHORT = 128  # bytes that a length of one byte can count
MAP_SIZE = 1 << 40  # of address space; the file grows as it is filled. DuckDB compresses equal lists to next to nothing


def compile_lookup(
    folder: Path, generation: str, track_ids: Sequence[str], popular: Sequence[Found], progress: Progress
) -> None:
    """Write serving.lmdb into a generation's folder, which holds its DuckDB file; durable when this returns.

    Args:
        folder: of the generation, maybe still a partial one.
        generation: its id, which is in every answer.
        track_ids: of the items, in the order of rows.
        popular: the list of somebody of whom nothing is known.
        progress: shows the lists.

    Raises:
        OSError: writing failed, a full disk among the reasons.
    """
    file = folder / FILE
    rows = pl.DataFrame({"track_id": track_ids, "row": np.arange(len(track_ids), dtype=np.int32)}, schema=_ROWS)
    environment = lmdb.open(str(file), subdir=False, max_dbs=len(DATABASES), map_size=MAP_SIZE, sync=False, lock=False)
    try:
        writer = _Writer(environment, folder, generation, rows, progress)
        writer.lists("users", _USERS, "personal", "lists: users")
        for space in SPACES:
            writer.lists(
                "neighbours", _NEIGHBOURS.format(space=space), "neighbours", f"lists: {space}", space_key(space)
            )
        writer.tracks()
        writer.audio()
        writer.about_nobody(popular)
        environment.sync(True)
    except lmdb.Error as error:
        raise OSError(None, f"{FILE}: {error}") from error
    finally:
        environment.close()


_ROWS = {"track_id": pl.String(), "row": pl.Int32()}
# users without a list of their own are answered as nobody is: their list is the popular one
_USERS = """SELECT user_id AS key, track_ids AS ids, scores, reason_track_ids AS reasons, plays > 0 AS personal
    FROM recommendation_lists JOIN users USING (user_id) ORDER BY key"""
_NEIGHBOURS = """SELECT track_id AS key, neighbour_ids AS ids, scores, []::VARCHAR[] AS reasons, true AS personal
    FROM neighbour_lists WHERE space = '{space}' ORDER BY key"""
_TRACKS = """SELECT track_id, title, artist, album, genres, year, duration_s, path, plays, is_cold FROM tracks
    ORDER BY track_id"""

_AUDIO = "SELECT content_hash, min(track_id) AS track_id FROM track_audio GROUP BY content_hash ORDER BY content_hash"


class _Writer:
    """Puts tables into the databases of one environment."""

    def __init__(self, environment: Any, folder: Path, generation: str, rows: pl.DataFrame, progress: Progress) -> None:
        self._environment, self._folder, self._progress = environment, folder, progress
        self._generation, self._rows = generation, rows
        self._databases = {name: environment.open_db(name.encode()) for name in DATABASES}

    def put(self, database: str, values: dict[bytes, bytes]) -> None:
        """Write a few values, in any order."""
        with self._environment.begin(write=True, db=self._databases[database]) as transaction:
            for key, value in values.items():
                transaction.put(key, value)

    def about_nobody(self, popular: Sequence[Found]) -> None:
        """Write the list of somebody of whom nothing is known, and facts of the file."""
        row_of = dict(self._rows.iter_rows())
        lines, rows = [track_bytes(found) for found in popular], [row_of[found[0]] for found in popular]
        record = pack(head_of(self._generation, "popular"), lines, rows, key=POPULAR)
        self.put("meta", {POPULAR: record, META: facts_line(self._generation)})

    def lists(self, database: str, query: str, source: str, title: str, prefix: bytes = b"") -> None:
        """Write the lists that a query gives, sorted by key."""
        head, popular = (head_of(self._generation, name) for name in (source, "popular"))
        long: dict[bytes, bytes] = {}
        blocks = self._blocks(query)
        with self._progress.bar(title, next(blocks), "lists") as bar:
            for block in blocks:
                texts = block["key"].to_list()
                keys = [prefix + key_of(text) for text in texts]
                records = _records(block, head, popular, self._rows, keys)
                with self._environment.begin(write=True, db=self._databases[database]) as transaction:
                    for text, key, record in zip(texts, keys, records, strict=True):
                        if key == prefix + text.encode():
                            transaction.put(key, record, append=not prefix)
                        else:
                            long[key] = record  # it is a hash, whose place is another one
                bar.advance(len(block))
        self.put(database, long)

    def tracks(self) -> None:
        """Write what is known of every track, with its row."""
        blocks = self._blocks(_TRACKS)
        with self._progress.bar("lists: tracks", next(blocks), "tracks") as bar:
            for block in blocks:
                known = block.join(self._rows, on="track_id", how="left", maintain_order="left")
                self.put("tracks", dict(map(_about, known.iter_rows(named=True))))
                bar.advance(len(block))

    def audio(self) -> None:
        """Write which track has which audio file, by the hash of its content."""
        blocks = self._blocks(_AUDIO)
        with self._progress.bar("lists: audio", next(blocks), "files") as bar:
            for block in blocks:
                pairs = ((key_of(content_hash), track_id) for content_hash, track_id in block.iter_rows())
                self.put(AUDIO, {key: sealed(FORMAT, track_id.encode(), key) for key, track_id in pairs})
                bar.advance(len(block))

    def _blocks(self, query: str) -> Iterator[Any]:
        """The number of rows of a query, then the rows block by block, through a Parquet file."""
        shard = self._folder / "lists.parquet"
        try:
            with connect(self._folder / TABLES) as connection:
                connection.execute(
                    f"COPY ({query}) TO '{str(shard).replace(chr(39), chr(39) * 2)}' "
                    f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {BLOCK})"
                )
            lazy = pl.scan_parquet(shard, glob=False, hive_partitioning=False)
            n_rows = int(lazy.select(pl.len()).collect().item())
            yield n_rows
            for start in range(0, n_rows, BLOCK):
                yield lazy.slice(start, BLOCK).collect()
        finally:
            shard.unlink(missing_ok=True)


def _about(line: dict[str, Any]) -> tuple[bytes, bytes]:
    """Key and value of what is known of a track."""
    key, row = key_of(line["track_id"]), ROW.pack(line.pop("row"))
    return key, sealed(FORMAT, row + json.dumps(line, separators=(",", ":")).encode(), key)


def _records(
    block: pl.DataFrame, head: bytes, popular: bytes, rows: pl.DataFrame, keys: Sequence[bytes] | None = None
) -> list[bytes]:
    """Pack the lists of a block, each for its key where there are some."""
    lengths = block["ids"].list.len().to_numpy()
    ids, scores = _flat(block["ids"], pl.String()), _flat(block["scores"], pl.Float32()).to_numpy()
    reasons = _flat(block["reasons"], pl.String()).fill_null("")
    if len(reasons) != len(ids):
        reasons = pl.repeat("", len(ids), dtype=pl.String, eager=True)
    found = ids.to_frame("track_id").join(rows, on="track_id", how="left", maintain_order="left")["row"]
    longest = sum(int(texts.str.len_bytes().to_numpy().max(initial=0)) for texts in (ids, reasons))
    if longest + 9 >= SHORT:
        lines = [track_bytes(one) for one in zip(ids, scores.tolist(), reasons, strict=True)]
        text, ends = b"".join(lines), np.cumsum([len(line) for line in lines], dtype=np.int64)
    else:
        text, ends = _encoded(ids, scores, reasons)
    starts = np.concatenate([[0], ends])
    firsts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    item_rows = found.fill_null(-1).to_numpy()
    records = []
    keys = [b""] * len(block) if keys is None else keys
    places = zip(keys, firsts[:-1].tolist(), firsts[1:].tolist(), block["personal"], strict=True)
    for key, first, last, personal in places:
        cuts = starts[first : last + 1]
        lines = [text[cuts[0] : cuts[-1]]]
        records.append(pack(head if personal else popular, lines, item_rows[first:last], cuts[1:] - cuts[0], key))
    return records


def _flat(lists: pl.Series, kind: pl.DataType) -> pl.Series:
    flat = lists.filter(lists.list.len() > 0).explode()
    return flat.cast(kind)


def _encoded(ids: pl.Series, scores: NDArray[np.float32], reasons: pl.Series) -> tuple[bytes, NDArray[np.int64]]:
    """Write tracks as ``recsys.store.record.track_bytes`` does, all at once, where every length takes one byte.

    A line is 0A n | 0A n id | 15 score, unless it is 0 | 1A n reason, unless there is none.
    """
    of_id, of_reason = (texts.str.len_bytes().to_numpy().astype(np.int64) for texts in (ids, reasons))
    has_score, has_reason = scores.view(np.uint32) != 0, of_reason > 0
    inner = 2 + of_id + 5 * has_score + (2 + of_reason) * has_reason
    ends = np.cumsum(inner + 2)
    out = np.zeros(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
    at = ends - inner - 2
    out[at], out[at + 1], out[at + 2], out[at + 3] = 0x0A, inner, 0x0A, of_id
    _copy(ids, of_id, at + 4, out)
    at = at + 4 + of_id
    out[at[has_score]] = 0x15
    four = scores[has_score].astype("<f4").view(np.uint8).reshape(-1, 4)
    out[(at[has_score] + 1)[:, None] + np.arange(4)] = four
    at = (at + 5 * has_score)[has_reason]
    out[at], out[at + 1] = 0x1A, of_reason[has_reason]
    _copy(reasons.filter(pl.Series(has_reason)), of_reason[has_reason], at + 2, out)
    return out.tobytes(), ends


def _copy(texts: pl.Series, lengths: NDArray[np.int64], at: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    """Copy texts of these lengths to these places."""
    joined = np.frombuffer("".join(texts.to_list()).encode(), dtype=np.uint8)
    within = np.arange(len(joined)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    out[np.repeat(at, lengths) + within] = joined
