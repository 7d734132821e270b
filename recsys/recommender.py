"""The one door: command line, server and evaluation ask for lists here.

    fit(...)  or  Recommender.open(store)  ->  Recommender  ->  recommend, similar, recommend_from_tracks, score

After a fit everything is in memory and lists are computed when asked for; an opened store answers from the tables
of its current generation, with what was uploaded since laid over them. Nothing here imports torch.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from recsys.audience import audience as rank_audience
from recsys.errors import ConfigError, DataError, NoSpaceError
from recsys.hybrid.foldin import fold_in
from recsys.model import Model
from recsys.overlay import Catalogue, Uploads
from recsys.rank import cap_per_artist, top_k
from recsys.types import (
    NO_ITEM,
    SPACES,
    Candidates,
    Float32,
    Found,
    Int32,
    Plays,
    RankedList,
    RankedTrack,
    Space,
    Tables,
)

MAX_K = 200  # the depth of the stored lists
DEFAULT_K = 20
EDGE_BLOCK = 4096  # users whose edges are computed at a time


class Recommender:
    """Ranked tracks for users, and tracks that are alike. Thread-safe: nothing changes after construction.

    ``k`` is 1 to 200 everywhere. Lists are ``RankedList``: tracks with rank from 1, where they come from, and the
    generation. Ids are text, as they came in.
    """

    def __init__(
        self,
        model: Model,
        tables: Tables,
        facts: Mapping[str, Any],
        uploads: Uploads | None = None,
        edges: Float32 | None = None,
        artefacts: Any = None,
    ) -> None:
        """Join the arrays, the tables, what is known of the build, and the uploads since.

        ``edges`` (n_users,) are the scores at place 20 of the stored lists, computed when needed by default.
        ``artefacts`` is what publishing needs of a fit (see ``recsys.fit``); None for an opened store.
        """
        self._edges = edges
        self.model = model
        self.artefacts = artefacts
        self._tables = tables
        self._facts = dict(facts)
        self._catalogue = Catalogue(model, uploads or Uploads.none(model.item_vectors.shape[1]))

    @classmethod
    def open(cls, store: Path | str) -> "Recommender":
        """Open the current generation of a store, read-only.

        Raises:
            ArtefactError: there is no such store, nothing was published in it, or a file is damaged.
        """
        from recsys.store.opened import open_store

        return open_store(Path(store))

    # ---- what there is -------------------------------------------------------------------------------------------

    @property
    def generation(self) -> str:
        """Id of the generation that answers; 'memory' after a fit."""
        return str(self._facts.get("generation", "memory"))

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the blend's parts, each of which can rank alone."""
        return tuple(part.name for part in self.model.blend.parts)

    @property
    def spaces(self) -> list[Space]:
        """The spaces that have vectors."""
        return self._catalogue.spaces()

    def status(self) -> dict[str, Any]:
        """Facts of the generation: generation, created_at, n_tracks, n_users, n_listens, n_uploads, spaces."""
        return {
            "generation": self.generation,
            "created_at": self._facts.get("created_at", ""),
            "n_tracks": len(self._catalogue),
            "n_users": len(self.model.users),
            "n_listens": int(self._facts.get("n_listens", 0)),
            "n_uploads": len(self._catalogue.uploads.track_ids),
            "spaces": list(self.spaces),
        }

    def track(self, track_id: str) -> dict[str, Any]:
        """What is known of a track, by the columns of the ``tracks`` table.

        Raises:
            NotFoundError: no such track.
        """
        self._catalogue.row(track_id)
        return self._about([track_id])[track_id]

    def close(self) -> None:
        """Let go of the files."""
        self._tables.close()

    # ---- lists ---------------------------------------------------------------------------------------------------

    def recommend(
        self, user_id: str, k: int = DEFAULT_K, *, max_per_artist: int | None = None, describe: bool = True
    ) -> RankedList:
        """Rank tracks for a user, heard and disliked ones left out.

        Args:
            user_id: a user without plays, or one nobody knows, gets popular tracks, and ``source`` says so.
            k: length of the list.
            max_per_artist: at most so many tracks of one artist; no limit by default.
            describe: fill ``about``; the server does without.

        Raises:
            ConfigError: k is not within 1 to 200, or max_per_artist is below 1.
        """
        _check_k(k)
        if max_per_artist is not None and max_per_artist < 1:
            raise ConfigError(f"max_per_artist is {max_per_artist}, expected 1 or more, or None for no limit")
        user = int(self.model.users.find([user_id])[0])
        if user == NO_ITEM:
            found = [(track, score, None) for track, score in self._popular]
            return self._list(found, k, "popular", max_per_artist, describe)
        stored = self._tables.recommended(user_id)
        if stored is None:
            stored = self._computed(user)
        elif self._catalogue.uploads.track_ids:
            stored = self._with_uploads(user, stored)
        source = "personal" if bool(self.model.has_plays[user]) else "popular"
        return self._list(stored, k, source, max_per_artist, describe)

    def similar(
        self, track_id: str, k: int = DEFAULT_K, space: Space = "hybrid", *, describe: bool = True
    ) -> RankedList:
        """Rank the other tracks by cosine to a track, in one space.

        Raises:
            NotFoundError: no such track.
            NoSpaceError: the space has no vectors, or this track has none in it.
            ConfigError: k is not within 1 to 200, or there is no space of that name.
        """
        _check_k(k)
        if space not in SPACES:
            raise ConfigError(f"there is no space {space!r}; choose one of {', '.join(SPACES)}")
        item = self._catalogue.row(track_id)
        if space not in self.spaces:
            raise NoSpaceError(f"this catalogue has no vectors in the space {space!r}; it has {', '.join(self.spaces)}")
        stored = self._tables.neighbours(track_id, space) if item < len(self.model.items) else None
        if stored is None or k > len(stored) or self._catalogue.uploads.track_ids:
            stored = self._nearest(item, track_id, k, space)
        return self._list([(track, score, None) for track, score in stored], k, "neighbours", None, describe)

    def recommend_from_tracks(
        self, track_ids: Sequence[str], k: int = DEFAULT_K, *, describe: bool = True
    ) -> RankedList:
        """Rank tracks for somebody who played these, each as often as it is named; they are left out themselves.

        Raises:
            NotFoundError: one of the tracks is unknown; the message names it.
            DataError: no track is given.
            ConfigError: k is not within 1 to 200.
        """
        _check_k(k)
        if not track_ids:
            raise DataError("0 tracks were given, expected at least one track id to start from")
        items, plays = np.unique([self._catalogue.row(track_id) for track_id in track_ids], return_counts=True)
        counts = plays.astype(np.float32)
        user = fold_in(items, counts, self._catalogue.vectors, self.model.blend, self.model.confidence_scale)
        query = user[None] * self.model.blend.weights()
        rows = items.astype(np.int32)
        return self._list(self._best(query, rows, rows, k), k, "tracks", None, describe)

    def score(self, user_ids: Sequence[str], track_ids: Sequence[str]) -> Float32:
        """The ranking's own score of every pair, before any filter: (n_users, n_tracks) float32.

        Rows and columns stand in the arguments' order. Heard tracks are scored like others, cold ones too.

        Raises:
            NotFoundError: an id is unknown; the message names it.
        """
        users = self.model.users.rows(list(user_ids))
        items = np.array([self._catalogue.row(track_id) for track_id in track_ids], dtype=np.int32)
        vectors = self._catalogue.vectors_of(items)
        return np.asarray(self._queries(users) @ vectors.T, dtype=np.float32).reshape(len(users), len(items))

    def audience(self, track_id: str, k: int = DEFAULT_K) -> list[tuple[str, float]]:
        """Users who would like a track most, with how far its score lies above that of their own 20th candidate.

        Raises:
            NotFoundError: no such track.
            ConfigError: k is not within 1 to 200.
        """
        _check_k(k)
        item = self._catalogue.row(track_id)
        vector = self._catalogue.vectors_of([item])[0]
        users, margins = rank_audience(self.model, vector, item, self.edges, k)
        return list(zip(self.model.users.ids(users), margins.tolist(), strict=True))

    @cached_property
    def edges(self) -> Float32:
        """Score of each user's 20th candidate, (n_users,); -inf for a list that is shorter."""
        if self._edges is not None:
            return self._edges
        users = self.model.users.all()
        blocks = [users[start : start + EDGE_BLOCK] for start in range(0, len(users), EDGE_BLOCK)]
        edges = [self.rank(block, DEFAULT_K).scores[:, -1] for block in blocks]
        return np.concatenate(edges) if edges else np.zeros(0, dtype=np.float32)

    @property
    def plays(self) -> Plays:
        """What the model was fitted on, with the ids."""
        return Plays(self.model.counts, self.model.barred, self.model.users.all(), self.model.items.all())

    def rank(
        self, user_ids: Sequence[str], k: int, candidates: Int32 | None = None, part: str | None = None
    ) -> Candidates:
        """Rank item rows for many users at once, heard and disliked tracks left out: (n_users, k).

        Args:
            user_ids: known users.
            k: any length.
            candidates: item rows that may appear; all by default.
            part: rank by this part of the blend alone.
        """
        users = self.model.users.rows(list(user_ids))
        left_out = (self.model.counts[users], self.model.barred[users])
        return top_k(self._queries(users, part), self.model.item_vectors, k, left_out, candidates)

    def rank_folded(
        self, counts: csr_matrix, k: int, candidates: Int32 | None = None, part: str | None = None
    ) -> Candidates:
        """Rank item rows for people who are no users, by what they played, which is left out: (n, k).

        ``counts`` (n, n_items) has their plays, one or more stored in each row; the rest is as for ``rank``.
        """
        vectors, scale = self.model.item_vectors, self.model.confidence_scale
        rows = [slice(start, stop) for start, stop in pairwise(counts.indptr)]
        folded = [fold_in(counts.indices[row], counts.data[row], vectors, self.model.blend, scale) for row in rows]
        users = np.array(folded, dtype=np.float32).reshape(len(rows), vectors.shape[1])
        queries = self.model.blend.queries(users, np.ones(len(rows), dtype=bool), part)
        return top_k(queries, vectors, k, (counts,), candidates)

    @property
    def sound(self) -> tuple[Int32, Float32]:
        """Item rows that have a vector of the space 'sound', and the vectors; none where nothing was heard."""
        known = self.model.spaces.get("sound")
        none = np.zeros(0, np.int32), np.zeros((0, 1), np.float32)
        return none if known is None else (known.rows, known.vectors)

    def reasons(self, user_ids: Sequence[str], ranked: Candidates) -> Int32:
        """For each ranked item the row of the played track that contributes most, -1 where there is none: (n, k)."""
        reasons = np.full(ranked.items.shape, NO_ITEM, dtype=np.int32)
        for place, user in enumerate(self.model.users.rows(list(user_ids))):
            found = ranked.items[place] != NO_ITEM
            heard = self.model.heard(int(user))
            if len(heard):
                reasons[place, found] = self._reason(ranked.items[place][found], heard)
        return reasons

    # ---- inside --------------------------------------------------------------------------------------------------

    @cached_property
    def _popular(self) -> list[tuple[str, float]]:
        nobody = self.model.blend.queries(np.ones((1, self.model.blend.dim), dtype=np.float32), np.zeros(1, dtype=bool))
        best = top_k(nobody, self._catalogue.vectors, MAX_K)
        return [
            (self._catalogue.id(int(item)), float(score))
            for item, score in zip(best.items[0], best.scores[0], strict=True)
            if item != NO_ITEM
        ]

    def _queries(self, users: Int32, part: str | None = None) -> Float32:
        vectors = np.asarray(self.model.user_vectors[users], dtype=np.float32)
        return self.model.blend.queries(vectors, self.model.has_plays[users], part)

    def _computed(self, user: int) -> list[Found]:
        left_out = np.union1d(self.model.heard(user), self.model.barred_items(user))
        query = self._queries(np.array([user], dtype=np.int32))
        return self._best(query, left_out, self.model.heard(user), MAX_K)

    def _with_uploads(self, user: int, stored: list[Found]) -> list[Found]:
        query = self._queries(np.array([user], dtype=np.int32))[0]
        scores = self._catalogue.uploads.item_vectors @ query
        fresh = self._with_reasons(self._catalogue.upload_rows(), scores, self.model.heard(user))
        return sorted([*stored, *fresh], key=lambda found: -found[1])[:MAX_K]

    def _best(self, query: Float32, left_out: Int32, heard: Int32, k: int) -> list[Found]:
        """Rank all tracks but some for one query (1, d)."""
        allowed = np.setdiff1d(np.arange(len(self._catalogue), dtype=np.int32), left_out).astype(np.int32)
        best = top_k(query, self._catalogue.vectors, k, candidates=allowed)
        return self._with_reasons(best.items[0], best.scores[0], heard)

    def _with_reasons(self, items: Int32, scores: Float32, heard: Int32) -> list[Found]:
        found = items != NO_ITEM
        reasons = self._reason(items[found], heard) if len(heard) else np.full(int(found.sum()), NO_ITEM)
        return [
            (
                self._catalogue.id(int(item)),
                float(score),
                None if reason == NO_ITEM else self._catalogue.id(int(reason)),
            )
            for item, score, reason in zip(items[found], scores[found], reasons, strict=True)
        ]

    def _reason(self, items: Int32, heard: Int32) -> Int32:
        """The heard track most like each item, in the likeness that the blend ranks by."""
        likeness, vectors_of = self.model.blend.likeness, self._catalogue.vectors_of
        alike = likeness(vectors_of(items)) @ likeness(vectors_of(heard)).T
        return np.asarray(heard[np.argmax(alike, axis=1)], dtype=np.int32)

    def _nearest(self, item: int, track_id: str, k: int, space: Space) -> list[tuple[str, float]]:
        """Exact neighbours by one pass over the space, uploads among them."""
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

    def _about(self, track_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        uploaded = {t: self._catalogue.uploads.about[t] for t in track_ids if self._catalogue.is_upload(t)}
        return {**self._tables.about([t for t in track_ids if t not in uploaded]), **uploaded}

    def _list(
        self,
        found: Sequence[Found],
        k: int,
        source: str,
        max_per_artist: int | None,
        describe: bool,
    ) -> RankedList:
        about: dict[str, dict[str, Any]] = {}
        if max_per_artist is not None:
            about = self._about([track for track, _, _ in found])
            artists = [about[track].get("artist") for track, _, _ in found]
            found = [found[place] for place in cap_per_artist(artists, max_per_artist)]
        found = found[:k]
        if describe and not about:
            about = self._about([track for track, _, _ in found])
        tracks = [
            RankedTrack(track, score, rank, reason, _known(about.get(track, {})))
            for rank, (track, score, reason) in enumerate(found, start=1)
        ]
        return RankedList(tracks, source, self.generation)


def _known(about: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what says something of the music, and only what is known."""
    shown = ("title", "artist", "album", "genres", "year")
    return {name: about[name] for name in shown if about.get(name) not in (None, [])}


def _check_k(k: int) -> None:
    if not 1 <= k <= MAX_K:
        raise ConfigError(f"k is {k}, expected 1 to {MAX_K}")
