"""One list at a time: from a user or a query to tracks, their scores and the reasons for them.

    stored list, or Ranking over generation and uploads  ->  ListBuilder  ->  [(track id, score, reason), ...], best
    first

Lists that were stored are taken as they are wherever they say what is asked; the rest is computed. Ids of arguments
were checked by ``recsys.recommender``.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from recsys.errors import NoSpaceError
from recsys.hybrid.foldin import fold_in
from recsys.hybrid.following import latest
from recsys.ranking.attributes import TrackAttributes
from recsys.ranking.catalogue_view import NO_DELTA, CatalogueView, UploadedTracks, UserDelta
from recsys.ranking.diversity import ListSettings, Source, Variety, choose
from recsys.ranking.filters import NO_FILTERS, Filters, artists_of, first_places
from recsys.ranking.next_lists import UPLOADS_WITHIN, Listener, NextRanking
from recsys.ranking.order import Order
from recsys.ranking.ranker import Ranking, most_alike
from recsys.store.record import Record
from recsys.types import MAX_K, NO_ITEM, VECTOR_SPACES, Float32, Found, Int32, Space, Tables
from recsys.util.topk import behind_all, top_k

Best: TypeAlias = Callable[[int], tuple[Int32, Float32]]  # as ``recsys.ranking.diversity.Source`` asks for
BLOCK = 262_144  # tracks scored at a time: their vectors are gathered, and the whole catalogue might not fit twice
NOTHING = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class UserRef:
    """Whose list is wanted: the ``row`` of a user, -1 for somebody unknown, and what happened since the build."""

    row: int
    user_id: str
    delta: UserDelta = NO_DELTA


ANONYMOUS = UserRef(NO_ITEM, "")


class ListBuilder:
    """Makes the lists of one generation with its uploads; thread-safe, nothing changes after construction."""

    def __init__(self, ranking: Ranking, tables: Tables, settings: ListSettings, attributes: TrackAttributes) -> None:
        self._ranking, self._model, self._attributes = ranking, ranking.model, attributes
        self._tables, self._settings = tables, settings
        self.catalogue = CatalogueView(
            self._model, UploadedTracks.none(self._model.item_vectors.shape[1], len(self._model.items))
        )
        self._built: ListBuilder | None = None  # of the generation as it was built, where this is over uploads

    def over(self, uploads: UploadedTracks) -> "ListBuilder":
        """The same over the catalogue with uploads and deletions."""
        other = ListBuilder(self._ranking, self._tables, self._settings, self._attributes)
        other.catalogue, other._built = CatalogueView(self._model, uploads), self._built or self
        return other

    def of_user(
        self, person: UserRef, k: int, variety: Variety, filters: Filters = NO_FILTERS, *, capped: bool = False
    ) -> list[Found]:
        """The list of a user: k tracks, or more where more are at hand; fewer only where there are no more.

        ``capped`` says that the cap per artist was asked for; else that of popular lists gives way rather than leave
        the list short.
        """
        personal = self.personal(person)
        fill = not (personal or capped)
        if not filters.nothing:
            return self._filtered(person, k, variety, filters, fill)
        if variety != self._settings.usual(personal) or not (personal or fill):
            return self._varied(person, k, variety, fill)
        stored = self._stored(person, variety)
        if stored is None or (len(stored) < k and (self.catalogue.uploads.gone or person.delta.fresh)):
            return self._varied(person, MAX_K, variety, fill)
        return stored

    def _stored(self, person: UserRef, variety: Variety) -> list[Found] | None:
        """The usual list of a user as it is kept, less what was deleted since; None where none is."""
        if person.delta.record is not None:
            return self._of_now(person.delta.record, person)
        if person.delta.lost:
            return None
        if person.row == NO_ITEM:
            now = person.delta.popular
            return self._shown((self._built or self)._popular, person) if now is None else self._of_now(now, person)
        if variety.plain:
            return self._plain(person)
        stored = self._tables.recommended(person.user_id)
        return None if stored is None else self._shown(stored, person)

    def of_query(self, query: Float32, heard: Int32, k: int) -> list[Found]:
        """The list for one query (1, d) from what was heard (item rows), which is left out."""
        source = self._source(lambda depth: self._best(query, self._but(heard), depth))
        return self._with_reasons(*choose(source, k, self._settings.usual(personal=True)), heard)

    def of_next(self, plays: Int32, counts: Float32, recent: Int32, order: Order, k: int) -> list[Found]:
        """The list for somebody who is listening: after the last plays, of item rows ``plays`` so often each.

        ``recent`` (n,) are the last plays, the latest last; what was played is left out.
        """
        blend = self._model.blend
        user = fold_in(np.arange(len(plays), dtype=np.int32), counts, self.catalogue.vectors_of(plays), blend)
        listener = Listener(user * blend.weights(), recent, in_session=True)
        source = self._source(self._after(listener, order, self._but(plays)))
        return self._with_reasons(*choose(source, k, self._settings.usual(personal=True)), recent[-1:])

    def _after(self, listener: Listener, order: Order, allowed: NDArray[np.bool_]) -> Best:
        """Rank the allowed tracks after somebody's last plays, as deep as is asked."""
        ranking = NextRanking(order, self._ranking.unplayed, self.catalogue, self._attributes)
        query, near = ranking.query(listener), ranking.near(listener)
        near = near[allowed[near]]

        def best(depth: int) -> tuple[Int32, Float32]:
            by_query = self._best(query[None], allowed, max(depth, UPLOADS_WITHIN))[0]
            items, scores = ranking.best(listener, query, ranking.pool(by_query, near, depth))
            return items[:depth], scores[:depth]

        return best

    def near(self, item: int, track_id: str, k: int, space: Space) -> list[tuple[str, float]]:
        """Neighbours of a track: the stored ones with the uploads among them, and one pass over the space beyond those.

        Those of a space without vectors, which is there, are what was counted, fewer than k where there are no more.

        Raises:
            NoSpaceError: the track has no vector there.
        """
        if space not in VECTOR_SPACES:
            return self._counted(item, k)
        catalogue = self.catalogue
        stored = self._tables.neighbours(track_id, space) if item < catalogue.n_built else None
        if catalogue.uploads.gone and stored is not None:
            stored = [(other, score) for other, score in stored if catalogue.find(other) != NO_ITEM]
        own = None if stored is None or k > len(stored) else catalogue.unit_vector(item, space)
        if stored is None or own is None:
            return self.nearest(item, track_id, k, space)
        rows, vectors = catalogue.uploads_in(space)
        if not len(rows):
            return stored
        best = top_k(own, vectors, min(k, len(rows)))  # which adds scores up as those of the stored ones were
        ids = catalogue.ids(rows[best.items[0]])
        fresh = zip(ids, best.scores[0].tolist(), strict=True)
        return sorted([*stored, *fresh], key=lambda found: -found[1])[:k]  # of equal ones those of the lower row first

    def _counted(self, item: int, k: int) -> list[tuple[str, float]]:
        """What tends to be played next after a track; uploads came after the count, so they have and are in no list."""
        order = self._model.order
        assert order is not None, "the caller looked whether there is such a space"
        rows, scores = order.surroundings.tracks.best(item)
        shown = self.catalogue.is_shown(rows)
        return list(zip(self.catalogue.ids(rows[shown][:k]), scores[shown][:k].tolist(), strict=True))

    def nearest(self, item: int, track_id: str, k: int, space: Space) -> list[tuple[str, float]]:
        """Exact neighbours of a track by one pass over the space, uploads among them.

        Raises:
            NoSpaceError: the track has no vector there.
        """
        own = self.catalogue.unit_vector(item, space)
        if own is None:
            raise NoSpaceError(f"track {track_id!r} has no vector in the space {space!r}; try another space")
        items, scores = [NOTHING], [np.zeros(0, dtype=np.float32)]
        for rows, vectors in self.catalogue.space(space, BLOCK):
            others = np.flatnonzero(rows != item).astype(np.int32) if item in rows else None
            n_others = len(rows if others is None else others)
            best = top_k(own, vectors, min(k, n_others), candidates=others)
            items.append(rows[best.items[0]])
            scores.append(best.scores[0])
        found, theirs = _joined(items, scores, k)
        return [(self.catalogue.id(row), score) for row, score in zip(found.tolist(), theirs.tolist(), strict=True)]

    def personal(self, person: UserRef) -> bool:
        """Whether anything is known of a user's taste."""
        if person.delta.record is not None:
            return Record(person.delta.record).is_personal
        if person.delta.query is not None:
            return True
        return person.row != NO_ITEM and len(self._model.heard(person.row)) > 0

    # ---- inside --------------------------------------------------------------------------------------------------

    @cached_property
    def _popular(self) -> list[Found]:
        return self._varied(ANONYMOUS, MAX_K, self._settings.popular, fill=True)

    def _plain(self, person: UserRef) -> list[Found]:
        """The current list where there is one, or the plain list, 200 deep, from the stored one where that is plain."""
        is_plain = self._settings.usual(self.personal(person)).plain
        if is_plain and person.delta.record is not None:
            return self._of_now(person.delta.record, person)
        is_stored = is_plain and person.row != NO_ITEM and not person.delta.lost
        stored = self._tables.recommended(person.user_id) if is_stored else None
        if stored is None:
            query, left_out = self._query(person)
            best = self._ranked(person, query, self._but(left_out))
            return self._with_reasons(*best(MAX_K), self._speaks(person))
        return self._shown(stored, person)

    def _of_now(self, record: bytes, person: UserRef) -> list[Found]:
        """Read a list of the live store; an upload of this very moment is not known here yet."""
        fresh, find = person.delta.fresh, self.catalogue.find
        return [line for line in Record(record).found() if line[0] not in fresh and find(line[0]) != NO_ITEM]

    def _shown(self, stored: list[Found], person: UserRef) -> list[Found]:
        """Leave out what was deleted since, or heard or barred so lately that the list does not know."""
        fresh, find = person.delta.fresh, self.catalogue.find
        if not self.catalogue.uploads.gone and not fresh:
            return stored
        return [line for line in stored if line[0] not in fresh and find(line[0]) != NO_ITEM]

    def _varied(self, person: UserRef, k: int, variety: Variety, fill: bool) -> list[Found]:
        """A list with variety, from the plain one where that is deep enough."""

        def best(depth: int) -> tuple[Int32, Float32]:
            plain = [] if depth > MAX_K else self._plain(person)
            # a stored list is as long as the catalogue was when it was made; what was deleted since left it short
            if depth > MAX_K or (len(plain) < depth and self.catalogue.uploads.gone):
                query, left_out = self._query(person)
                return self._ranked(person, query, self._but(left_out))(depth)
            items = np.array([self.catalogue.row(track) for track, _, _ in plain], dtype=np.int32)
            return items, np.array([score for _, score, _ in plain], dtype=np.float32)

        return self._with_reasons(*choose(self._source(best), k, variety, fill=fill), self._speaks(person))

    def _source(self, best: Best) -> Source:
        def likeness(items: Int32) -> Float32:
            return self._model.blend.likeness(self.catalogue.vectors_of(items))

        return Source(best, self._artists, likeness, self.catalogue.are_unknown)

    def _artists(self, items: Int32) -> list[Hashable | None]:
        return artists_of(items, self._attributes, self.catalogue.uploads)

    def _filtered(self, person: UserRef, k: int, variety: Variety, filters: Filters, fill: bool) -> list[Found]:
        """The list of what passes: from the stored list where that holds enough, or else from the whole catalogue."""
        ids = filters.exclude_track_ids
        excluded = np.array([row for row in map(self.catalogue.find, ids) if row != NO_ITEM], dtype=np.int32)

        def passing(rows: Int32) -> NDArray[np.bool_]:
            return filters.allowed(rows, self._attributes, self.catalogue.uploads, excluded)

        if variety.diversity == 0 and not filters.include_heard:
            plain = self._plain(person)
            rows = np.array([self.catalogue.row(track) for track, _, _ in plain], dtype=np.int32)
            places = first_places(passing(rows), lambda at: self._artists(rows[at]), variety.max_per_artist, k)
            if len(places) == k:
                return [plain[place] for place in places]
        query, left_out = self._query(person)
        if filters.include_heard:
            left_out = self._barred(person)
        allowed = self._but(left_out)
        allowed &= passing(np.arange(len(self.catalogue), dtype=np.int32))
        source = self._source(self._ranked(person, query, allowed))
        return self._with_reasons(*choose(source, k, variety, fill=fill), self._speaks(person))

    def _ranked(self, person: UserRef, query: Float32, allowed: NDArray[np.bool_]) -> Best:
        """Rank the allowed tracks for a user by a query (1, d), and where they listened lately by what comes next."""
        order, recent = self._order(person), self._recent(person)
        if order is None or not len(recent):
            return lambda depth: self._best(query, allowed, depth)
        return self._after(Listener(query[0], recent, person.delta.in_session), order, allowed)

    def _order(self, person: UserRef) -> Order | None:
        """What the order of plays tells: of who listened since the build another thing than of the others."""
        order = self._model.order
        return order if order is None or person.delta.heard is not None else order.of_stored()

    def _recent(self, person: UserRef) -> Int32:
        """Rows of the last plays that somebody's list follows, the latest last; none where it does not."""
        delta, order = person.delta, self._order(person)
        recent = NOTHING if order is None or person.row == NO_ITEM else order.histories.of(person.row)[0]
        if delta.heard is not None:
            recent = NOTHING if delta.recent is None or delta.query is None else delta.recent
        return np.asarray(recent[self.catalogue.is_shown(recent) & (recent < len(self.catalogue))])

    def _speaks(self, person: UserRef) -> Int32:
        """Rows of the tracks that may be the reason for another one: the last plays where these are followed."""
        recent = NOTHING if self._order(person) is None else self._recent(person)
        return np.unique(latest(recent)) if len(recent) else self._heard(person)

    def _query(self, person: UserRef) -> tuple[Float32, Int32]:
        """The query (1, d) of a user, or of nobody, and the item rows that it must not find."""
        left_out = np.union1d(self._heard(person), self._barred(person)).astype(np.int32)
        if person.delta.query is not None:
            return person.delta.query[None], left_out
        if person.row == NO_ITEM:
            return self._ranking.nobody, left_out
        return self._ranking.queries(np.array([person.row], dtype=np.int32)), left_out

    def _heard(self, person: UserRef) -> Int32:
        known = person.delta.heard
        if known is None:
            known = NOTHING if person.row == NO_ITEM else self._model.heard(person.row)
        return self._with_fresh(known, person, barred=False)

    def _barred(self, person: UserRef) -> Int32:
        known = person.delta.barred
        if known is None:
            known = NOTHING if person.row == NO_ITEM else self._model.barred_items(person.row)
        return self._with_fresh(known, person, barred=True)

    def _with_fresh(self, known: Int32, person: UserRef, barred: bool) -> Int32:
        """Add the rows of what was heard, or barred, so lately that nothing else knows of it."""
        fresh = [self.catalogue.find(track) for track, is_barred in person.delta.fresh.items() if is_barred == barred]
        rows = [row for row in fresh if row != NO_ITEM]
        return np.union1d(known, np.array(rows, dtype=np.int32)).astype(np.int32) if rows else known

    def _but(self, left_out: Int32) -> NDArray[np.bool_]:
        """Mark all tracks but some rows, (n_items,)."""
        allowed = np.ones(len(self.catalogue), dtype=bool)
        allowed[left_out[left_out < len(allowed)]] = False
        allowed[self.catalogue.hidden] = False
        return allowed

    def _best(self, query: Float32, allowed: NDArray[np.bool_], k: int) -> tuple[Int32, Float32]:
        """Rank the allowed tracks for one query (1, d): up to k rows and scores, unknown tracks after all others."""
        unknown = self.catalogue.unknown
        if not len(unknown) or not allowed[unknown].any():
            return self._best_of(query, allowed, k)
        known = allowed.copy()
        known[unknown] = False
        items, scores = self._best_of(query, known, k)
        if len(items) == k:
            return items, scores
        rest, theirs = self._best_of(query, allowed & ~known, k - len(items))
        return np.concatenate([items, rest]), np.concatenate([scores, behind_all(scores, theirs)])

    def _best_of(self, query: Float32, allowed: NDArray[np.bool_], k: int) -> tuple[Int32, Float32]:
        """Rank the allowed tracks for one query (1, d), block by block: up to k rows and scores."""
        items, scores = [NOTHING], [np.zeros(0, dtype=np.float32)]
        for start, vectors in self.catalogue.blocks(BLOCK):
            rows = np.flatnonzero(allowed[start : start + len(vectors)]).astype(np.int32)
            best = top_k(query, vectors, min(k, len(rows)), candidates=rows)
            items.append(best.items[0] + np.int32(start))
            scores.append(best.scores[0])
        return _joined(items, scores, k)

    def _with_reasons(self, items: Int32, scores: Float32, heard: Int32) -> list[Found]:
        """Name the tracks, and for each the heard track that is most like it, where anything was heard."""
        reasons: list[str | None] = [None] * len(items)
        heard = heard[heard < len(self.catalogue)]  # one that was uploaded and heard this very moment is not known yet
        if len(self.catalogue.hidden):
            heard = heard[~np.isin(heard, self.catalogue.hidden)]
        if len(heard):
            vectors_of = self.catalogue.vectors_of
            places = most_alike(self._model.blend, vectors_of(items), vectors_of(heard))
            reasons = [self.catalogue.id(int(row)) for row in heard[places]]
        tracks = [self.catalogue.id(int(item)) for item in items]
        return list(zip(tracks, scores.tolist(), reasons, strict=True))


def _joined(items: list[Int32], scores: list[Float32], k: int) -> tuple[Int32, Float32]:
    """The best k of what several blocks found, ties by row."""
    found, theirs = np.concatenate(items), np.concatenate(scores)
    order = np.lexsort((found, -theirs))[:k]
    return found[order], theirs[order]
