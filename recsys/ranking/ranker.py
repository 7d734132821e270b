"""Ranking by rows: what a model thinks of its own items, for many users at once.

    Model  ->  Ranking  ->  rank, rank_folded, reasons, score_at_20; and lists as they are stored

Rows in, rows out: ids, uploads and stored tables are the business of ``recsys.recommender``. Everything here is the
plain ranking, but for ``varied``, which gives lists what ``[lists]`` asks for.
"""

from collections.abc import Callable
from functools import cached_property, partial
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.hybrid.blend import POPULARITY, Blend
from recsys.hybrid.foldin import fold_in
from recsys.hybrid.following import latest
from recsys.ranking.diversity import ListSettings, Source, choose
from recsys.ranking.model import Model
from recsys.types import DEFAULT_K, NO_ITEM, Candidates, Float32, Int32
from recsys.util.topk import top_k

Rank: TypeAlias = Callable[[Int32, int], Candidates]  # rows of users (n,), k  ->  Candidates (n, k)
EDGE_BLOCK = 4096  # users whose score_at_20 is computed at a time


class Ranking:
    """Ranks item rows for user rows of one model; nothing changes after construction."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def queries(self, users: Int32, part: str | None = None) -> Float32:
        """Weighted user vectors (n, d), or those of one part."""
        vectors = np.asarray(self.model.user_vectors[users], dtype=np.float32)
        return self.model.blend.queries(vectors, self.model.has_plays[users], part)

    @cached_property
    def nobody(self) -> Float32:
        """The query (1, d) of somebody of whom nothing is known: popularity."""
        blend = self.model.blend
        return blend.queries(np.ones((1, blend.dim), dtype=np.float32), np.zeros(1, dtype=bool))

    def rank(self, users: Int32, k: int, candidates: Int32 | None = None, part: str | None = None) -> Candidates:
        """Rank items, heard and disliked ones left out: (n, k), empty places where nothing is left.

        Tracks of which nothing is known come after all others.
        """
        left_out = (self.model.counts[users], self.model.barred[users])
        queries = self.queries(users, part)
        columns, vectors = self._of_part(part)
        return top_k(queries[:, columns], vectors, k, left_out, candidates, self.model.unknown)

    def rank_folded(
        self, counts: csr_matrix, k: int, candidates: Int32 | None = None, part: str | None = None
    ) -> Candidates:
        """Rank items for people who are no users, by their plays ``counts`` (n, n_items), which are left out."""
        vectors = self.model.item_vectors
        rows = [slice(start, stop) for start, stop in pairwise(counts.indptr)]
        folded = [fold_in(counts.indices[row], counts.data[row], vectors, self.model.blend) for row in rows]
        users = np.array(folded, dtype=np.float32).reshape(len(rows), vectors.shape[1])
        queries = self.model.blend.queries(users, np.ones(len(rows), dtype=bool), part)
        columns, vectors = self._of_part(part)
        return top_k(queries[:, columns], vectors, k, (counts,), candidates, self.model.unknown)

    def _of_part(self, part: str | None) -> tuple[NDArray[np.int64] | slice, Float32]:
        """The columns in which a part ranks alone, popularity among them for users without plays, and items there.

        Alone a part says of new tracks what it thinks of them, not what the blend makes of it.
        """
        vectors, blend = self.model.item_vectors, self.model.blend
        if part is None:
            return slice(None), vectors
        chosen = [layout for layout in blend.parts if layout.name in (part, POPULARITY)]
        columns = np.concatenate([np.arange(layout.start, layout.stop) for layout in chosen])
        times = np.concatenate([np.full(layout.stop - layout.start, layout.new, np.float32) for layout in chosen])
        own = np.asarray(vectors[:, columns], dtype=np.float32)
        own[self.unplayed] /= times
        return columns, own

    @cached_property
    def unplayed(self) -> NDArray[np.bool_]:
        """Mark the items that nobody has played, (n_items,)."""
        return np.asarray(np.bincount(self.model.counts.indices, minlength=len(self.model.items)) == 0)

    def reasons(self, users: Int32, ranked: Candidates) -> Int32:
        """For each ranked item the row of the played track that is most like it, -1 where there is none: (n, k).

        Where lists follow the last plays, one of these.
        """
        found = np.full(ranked.items.shape, NO_ITEM, dtype=np.int32)
        vectors = self.model.item_vectors
        for place, user in enumerate(users):
            full = ranked.items[place] != NO_ITEM
            heard = self._speaking(int(user))
            if len(heard):
                items = ranked.items[place][full]
                found[place, full] = heard[most_alike(self.model.blend, vectors[items], vectors[heard])]
        return found

    def _speaking(self, user: int) -> Int32:
        """Rows of the played tracks that may be reasons in a user's list."""
        order = self.model.order
        recent = np.zeros(0, np.int32) if order is None or order.stored is None else order.histories.of(user)[0]
        return np.unique(latest(recent)) if len(recent) else self.model.heard(user)

    @cached_property
    def score_at_20(self) -> Float32:
        """Score of each user's 20th candidate, (n_users,); -inf for a list that is shorter."""
        users = np.arange(len(self.model.users), dtype=np.int32)
        blocks = [users[start : start + EDGE_BLOCK] for start in range(0, len(users), EDGE_BLOCK)]
        score_at_20 = [self.rank(block, DEFAULT_K).scores[:, -1] for block in blocks]
        return np.concatenate(score_at_20) if score_at_20 else np.zeros(0, dtype=np.float32)

    def varied(
        self, users: Int32, ranked: Candidates, settings: ListSettings, artists: Int32, rank: Rank | None = None
    ) -> Candidates:
        """Vary the lists of users as the settings ask.

        Args:
            users: (n,) rows.
            ranked: (n, k) their plain lists.
            settings: of lists; the popular ones are for users without plays.
            artists: (n_items,) number of each item's artist, -1 where not known.
            rank: ranks rows of users as deep as is asked, where that is not ``self.rank``.

        Returns:
            Candidates (n, k); where nothing is asked for, the same lists.
        """
        tasted = self.model.has_plays[users]
        items, scores = ranked.items.copy(), ranked.scores.copy()
        for place in np.flatnonzero([not settings.usual(taste).plain for taste in tasted.tolist()]):
            taste, k = bool(tasted[place]), items.shape[1]
            source = Source(
                partial(
                    _best, rank or self.rank, users[[place]], Candidates(ranked.items[[place]], ranked.scores[[place]])
                ),
                lambda rows: [None if number == NO_ITEM else number for number in artists[rows].tolist()],
                lambda rows: self.model.blend.likeness(self.model.item_vectors[rows]),
                lambda rows: np.isin(rows, self.model.unknown),
            )
            chosen, theirs = choose(source, k, settings.usual(taste), fill=not taste)
            items[place], scores[place] = NO_ITEM, -np.inf
            items[place, : len(chosen)], scores[place, : len(chosen)] = chosen, theirs
        return Candidates(items, scores)


def _best(rank: Rank, user: Int32, ranked: Candidates, depth: int) -> tuple[Int32, Float32]:
    """The best items of one user, from its list where that is deep enough."""
    found = ranked if depth <= ranked.items.shape[1] else rank(user, depth)
    full = found.items[0] != NO_ITEM
    return found.items[0][full][:depth], found.scores[0][full][:depth]


def most_alike(blend: Blend, item_vectors: Float32, heard_vectors: Float32) -> NDArray[np.int64]:
    """For each item (n, d) the place of the most alike among the heard ones (m, d), as the blend ranks: (n,)."""
    alike = blend.likeness(item_vectors) @ blend.likeness(heard_vectors).T
    return np.asarray(np.argmax(alike, axis=1), dtype=np.int64)
