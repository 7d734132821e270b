"""One list at a time: from a user or a query to tracks, their scores and the reasons for them.

    stored list, or Ranking over generation and uploads  ->  Lists  ->  [(track id, score, reason), ...], best first

Lists that were stored are taken as they are wherever they say what is asked; the rest is computed. Ids of arguments
were checked by ``recsys.recommender``.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

from recsys.diversity import ListSettings, Source, Variety, choose
from recsys.errors import NoSpaceError
from recsys.overlay import Catalogue
from recsys.rank import exact, top_k
from recsys.ranking import MAX_K, Ranking, most_alike
from recsys.types import NO_ITEM, Float32, Found, Int32, Space, Tables

NOTHING = np.zeros(0, dtype=np.int32)


class Lists:
    """Makes the lists of one generation with its uploads; thread-safe, nothing changes after construction."""

    def __init__(self, ranking: Ranking, catalogue: Catalogue, tables: Tables, settings: ListSettings) -> None:
        self._ranking, self._model = ranking, ranking.model
        self._catalogue, self._tables, self._settings = catalogue, tables, settings

    def of_user(self, user: int, user_id: str, k: int, variety: Variety) -> list[Found]:
        """The list of a user row, -1 for somebody unknown: k tracks, or more where more are at hand."""
        usual = self._settings.usual(self.personal(user))
        if variety != usual:
            return self._varied(user, user_id, k, variety, fill=False)
        if user == NO_ITEM:
            return self._popular
        if variety.plain:
            return self._plain(user, user_id)
        stored = None if self._catalogue.uploads.track_ids else self._tables.recommended(user_id)
        if stored is not None:
            return stored
        return self._varied(user, user_id, MAX_K, variety, fill=not self.personal(user))

    def again(self, known: list[Found], k: int, variety: Variety | None) -> list[Found]:
        """A list that was found already, with another variety where one is asked for."""
        if variety is None:
            return known
        known = [line for line in known if self._catalogue.has(line[0])]
        items = np.array([self._catalogue.row(track) for track, _, _ in known], dtype=np.int32)
        scores = np.array([score for _, score, _ in known], dtype=np.float32)
        chosen, _ = choose(self._source(lambda depth: (items[:depth], scores[:depth])), k, variety)
        line_of = dict(zip(items.tolist(), known, strict=True))
        return [line_of[item] for item in chosen.tolist()]

    def of_query(self, query: Float32, heard: Int32, k: int) -> list[Found]:
        """The list for one query (1, d) from what was heard (item rows), which is left out."""
        source = self._source(lambda depth: self._best(query, heard, depth))
        return self._with_reasons(*choose(source, k, self._settings.usual(personal=True)), heard)

    def nearest(self, item: int, track_id: str, k: int, space: Space) -> list[tuple[str, float]]:
        """Exact neighbours of a track by one pass over the space, uploads among them.

        Raises:
            NoSpaceError: the track has no vector there.
        """
        rows, vectors = self._catalogue.space(space)
        place = int(np.searchsorted(rows, item))
        if place >= len(rows) or int(rows[place]) != item:
            raise NoSpaceError(f"track {track_id!r} has no vector in the space {space!r}; try another space")
        others = np.delete(np.arange(len(rows), dtype=np.int32), place)
        best = top_k(vectors[place][None], vectors, k, candidates=others)
        return [
            (self._catalogue.id(int(rows[other])), float(score))
            for other, score in zip(best.items[0], best.scores[0], strict=True)
            if other != NO_ITEM
        ]

    def near(self, item: int, track_id: str, k: int, space: Space) -> list[tuple[str, float]]:
        """Neighbours of a track: the stored ones with the uploads among them, and one pass over the space beyond those.

        Raises:
            NoSpaceError: the track has no vector there.
        """
        catalogue = self._catalogue
        stored = self._tables.neighbours(track_id, space) if item < catalogue.n_built else None
        if catalogue.uploads.gone and stored is not None:
            stored = [(other, score) for other, score in stored if not catalogue.is_gone(other)]
        own = None if stored is None or k > len(stored) else catalogue.unit_vector(item, space)
        if stored is None or own is None:
            return self.nearest(item, track_id, k, space)
        rows, vectors = catalogue.uploads_in(space)
        fresh = [(catalogue.id(row), score) for row, score in zip(rows.tolist(), _cosines(vectors, own), strict=True)]
        return sorted([*stored, *fresh], key=lambda found: -found[1])[:k] if fresh else stored

    def personal(self, user: int) -> bool:
        """Whether anything is known of the taste of a user row."""
        return user != NO_ITEM and bool(self._model.has_plays[user])

    # ---- inside --------------------------------------------------------------------------------------------------

    @cached_property
    def _popular(self) -> list[Found]:
        return self._varied(NO_ITEM, "", MAX_K, self._settings.popular, fill=True)

    def _plain(self, user: int, user_id: str) -> list[Found]:
        """The plain list, 200 deep, from the stored one where that is plain."""
        is_stored = user != NO_ITEM and self._settings.usual(self.personal(user)).plain
        stored = self._tables.recommended(user_id) if is_stored else None
        if stored is None:
            return self._with_reasons(*self._best(*self._query(user), MAX_K), self._heard(user))
        return self._with_uploads(user, stored) if self._catalogue.uploads.track_ids else stored

    def _varied(self, user: int, user_id: str, k: int, variety: Variety, fill: bool) -> list[Found]:
        """A list with variety, from the plain one where that is deep enough."""

        def best(depth: int) -> tuple[Int32, Float32]:
            if depth > MAX_K:
                return self._best(*self._query(user), depth)
            plain = self._plain(user, user_id)
            items = np.array([self._catalogue.row(track) for track, _, _ in plain], dtype=np.int32)
            return items, np.array([score for _, score, _ in plain], dtype=np.float32)

        return self._with_reasons(*choose(self._source(best), k, variety, fill=fill), self._heard(user))

    def _source(self, best: Callable[[int], tuple[Int32, Float32]]) -> Source:
        def likeness(items: Int32) -> Float32:
            return self._model.blend.likeness(self._catalogue.vectors_of(items))

        return Source(best, self._artists, likeness)

    def _artists(self, items: Int32) -> list[str | None]:
        track_ids = [self._catalogue.id(int(item)) for item in items]
        uploaded = self._catalogue.uploads.about
        built = self._tables.about([track for track in track_ids if not self._catalogue.is_upload(track)])
        return [(built[track] if track in built else uploaded[track]).get("artist") for track in track_ids]

    def _query(self, user: int) -> tuple[Float32, Int32]:
        """The query (1, d) of a user, or of nobody, and the item rows that it must not find."""
        if user == NO_ITEM:
            return self._ranking.nobody, NOTHING
        left_out = np.union1d(self._model.heard(user), self._model.barred_items(user))
        return self._ranking.queries(np.array([user], dtype=np.int32)), left_out.astype(np.int32)

    def _heard(self, user: int) -> Int32:
        return NOTHING if user == NO_ITEM else self._model.heard(user)

    def _with_uploads(self, user: int, stored: list[Found]) -> list[Found]:
        rows = self._catalogue.upload_rows()
        scores = self._catalogue.vectors_of(rows) @ self._query(user)[0][0]
        fresh = self._with_reasons(rows, scores, self._heard(user))
        return sorted([*stored, *fresh], key=lambda found: -found[1])[:MAX_K]

    def _best(self, query: Float32, left_out: Int32, k: int) -> tuple[Int32, Float32]:
        """Rank all tracks but some for one query (1, d): up to k rows and scores; uploads are not copied beside all."""
        built = self._model.item_vectors
        hidden = np.union1d(left_out, self._catalogue.hidden)
        own = hidden[hidden < len(built)].astype(np.int32)
        best = top_k(query, built, k, (csr_matrix((np.ones(len(own), bool), own, [0, len(own)]), (1, len(built))),))
        fresh = np.setdiff1d(self._catalogue.upload_rows(), left_out).astype(np.int32)
        scores = exact(query, self._catalogue.vectors_of(fresh), np.zeros(len(fresh), np.int64), np.arange(len(fresh)))
        items, scores = np.concatenate([best.items[0], fresh]), np.concatenate([best.scores[0], scores])
        items, scores = items[items != NO_ITEM], scores[items != NO_ITEM]
        order = np.argsort(-scores, kind="stable")[:k]
        return items[order], scores[order]

    def _with_reasons(self, items: Int32, scores: Float32, heard: Int32) -> list[Found]:
        """Name the tracks, and for each the heard track that is most like it, where anything was heard."""
        reasons: list[str | None] = [None] * len(items)
        if len(heard):
            vectors_of = self._catalogue.vectors_of
            places = most_alike(self._model.blend, vectors_of(items), vectors_of(heard))
            reasons = [self._catalogue.id(int(row)) for row in heard[places]]
        tracks = [self._catalogue.id(int(item)) for item in items]
        return list(zip(tracks, scores.tolist(), reasons, strict=True))


def _cosines(vectors: Float32, own: Float32) -> list[float]:
    cosines: list[float] = (vectors @ own[0]).tolist() if len(vectors) else []
    return cosines
