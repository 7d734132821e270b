"""What a generation stores, as the live store needs it: lists as records, neighbours as rows.

    Recommender  ->  StoredLists  ->  record of a user, popular record, rows of neighbours

Tables that keep records (``recsys.store.lmdb_lookup``) give them as they are; those of DuckDB give lists, packed here.
"""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recsys.eventlog.transactions import ReadTxn
from recsys.eventlog.user_state import LastPlays
from recsys.live.thresholds import Bars
from recsys.ranking.catalogue_view import CatalogueView
from recsys.ranking.model import Model
from recsys.ranking.neighbours import NeighbourSettings
from recsys.ranking.next_lists import NextRanking
from recsys.recommender import Recommender
from recsys.store.duckdb_tables import FILE, StoredTables
from recsys.store.keys import key_of
from recsys.store.lmdb_lookup import POPULAR, space_key
from recsys.store.record import head_of, is_whole, pack, track_bytes
from recsys.types import ANONYMOUS_ID, NO_ITEM, Float32, Found, Int32, Space


class StoredLists:
    """Stored lists of one generation."""

    def __init__(self, recommender: Recommender, folder: Path) -> None:
        self._recommender, self._folder = recommender, folder
        self._tables = recommender.tables
        self._sql = _Sql(recommender.tables, folder)
        self.model: Model = recommender.model
        self.generation, self.lists = recommender.generation, recommender.lists
        self.applied_seq = int(recommender.facts.get("last_live_number", 0))
        self.attributes = recommender.attributes
        self.score_at_20, self.score_at_last = recommender.score_at_20, recommender.score_at_last
        settings = dict(recommender.facts.get("settings", {})).get("neighbours", {})
        depth = NeighbourSettings.model_validate(settings).depth
        self.bars = Bars(self.model, folder / "arrays", depth, self._sql.last_scores)

    def record_of(self, user_id: str) -> bytes | None:
        """The Record of a user's list; None for somebody unknown."""
        kept = self._tables.list_of(user_id)
        if kept is not None and is_whole(kept, key_of(user_id)):
            return bytes(kept)
        user = int(self.model.users.find([user_id])[0])
        if user == NO_ITEM:
            return None
        source = "personal" if len(self.model.heard(user)) else "popular"
        return self.packed(self._tables.recommended(user_id) or [], source)

    def popular(self) -> bytes:
        """The Record of the list for somebody of whom nothing is known."""
        kept = self._tables.popular
        return kept if kept and is_whole(kept, POPULAR) else self.packed(self._recommender.popular(), "popular")

    def popular_now(self, reading: ReadTxn) -> bytes:
        """The same with the uploads since that belong there."""
        kept = reading.list_of(self.generation, ANONYMOUS_ID)
        return kept if kept is not None and is_whole(kept) else self.popular()

    def packed(self, found: Sequence[Found], source: str) -> bytes:
        """Pack a list that was found by ids."""
        rows = self.model.items.find([track for track, _, _ in found])
        return pack(head_of(self.generation, source), [track_bytes(line) for line in found], rows)

    def neighbours_of(self, track_id: str, space: Space) -> bytes | None:
        """The Record of a track's neighbours as the build stored them; None where there are none."""
        kept = self._tables.neighbours_of(track_id, space)
        if kept is not None and is_whole(kept, space_key(space) + key_of(track_id)):
            return bytes(kept)
        found = self._tables.neighbours(track_id, space)
        return self.packed([(other, score, None) for other, score in found], "neighbours") if found else None

    def neighbours(self, items: Int32) -> Int32:
        """Rows of the stored neighbours of a few tracks, joined; those of uploads are not stored."""
        built = [int(item) for item in items if item < len(self.model.items)]
        near = [
            self._tables.neighbours(track, "hybrid") or [] for track in self.model.items.ids(np.array(built, np.int32))
        ]
        ids = [track for found in near for track, _ in found]
        return np.unique(self.model.items.find(ids)) if ids else np.zeros(0, dtype=np.int32)

    def track_of_audio(self, content_hash: str) -> str | None:
        """Find the track of the generation whose audio file has this content."""
        return self._tables.track_of_audio(content_hash)

    def close(self) -> None:
        """Let go of what was opened here."""
        self._sql.close()

    @property
    def nobody(self) -> Float32:
        """The query (d,) of somebody of whom nothing is known."""
        return np.asarray(self._recommender.ranking.nobody[0], dtype=np.float32)

    def last_plays(self, user: int) -> LastPlays:
        """The last plays of a user row that the generation knows, in their order."""
        if self.model.order is None:
            return LastPlays.none()
        items, seconds = self.model.order.histories.of(user)
        return LastPlays(np.asarray(items), seconds.astype(np.uint32))

    def follows(self, user: int) -> bool:
        """Whether the stored list of a user row follows the last plays."""
        order = self.model.order
        return order is not None and order.stored is not None and user != NO_ITEM and len(self.last_plays(user)) > 0

    def next_ranking(self, catalogue: CatalogueView) -> NextRanking | None:
        """What ranks after the last plays over a catalogue; None where the order of plays tells nothing."""
        order = self.model.order
        if order is None:
            return None
        return NextRanking(order, self._recommender.ranking.unplayed, catalogue, self.attributes)

    def query(self, vector: Float32) -> Float32:
        """Weigh the folded vector (d,) of somebody who has played something."""
        return np.asarray(self.model.blend.queries(vector[None], np.ones(1, dtype=bool))[0], dtype=np.float32)


class _Sql:
    """The DuckDB file of a generation, opened when something is asked that it alone knows."""

    def __init__(self, tables: object, folder: Path) -> None:
        self._given = tables if isinstance(tables, StoredTables) else None
        self._folder = folder
        self._opened: StoredTables | None = None
        self._opening = threading.Lock()

    def tables(self) -> StoredTables:
        with self._opening:
            if self._given is None and self._opened is None:
                self._opened = StoredTables(self._folder / FILE)
        tables = self._given or self._opened
        assert tables is not None
        return tables

    def last_scores(self, space: Space, depth: int) -> tuple[list[str], Float32]:
        return self.tables().last_scores(space, depth)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
