"""The one door: command line, server and evaluation ask for lists here.

    fit(...)  or  Recommender.open(store)  ->  Recommender  ->  recommend, similar, recommend_from_tracks, score

After a fit everything is in memory and lists are computed when asked for; an opened store answers from the tables
of its current generation, with what was uploaded since laid over them. Nothing here imports torch.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError, DataError, NoSpaceError
from recsys.hybrid.foldin import fold_in
from recsys.ranking.attributes import Traits
from recsys.ranking.audience import SPARE
from recsys.ranking.audience import audience as rank_audience
from recsys.ranking.catalogue_view import UNTOUCHED, Catalogue, Touched, Uploads
from recsys.ranking.diversity import ListSettings
from recsys.ranking.filters import NO_FILTERS, Filters
from recsys.ranking.lists import NOBODY, Lists, Person
from recsys.ranking.model import Model
from recsys.ranking.ranker import DEFAULT_K, MAX_K, Ranking
from recsys.ranking.request import asked, check_k, ranked_tracks, short_note
from recsys.types import NO_ITEM, SPACES, Candidates, Float32, Found, Int32, Plays, RankedList, Space, Tables


class Since(Protocol):
    """What is known of users since a generation was built (``recsys.store.manifest``)."""

    def touched(self, user_id: str) -> Touched:
        """What happened to one user."""

    def close(self) -> None:
        """Let go of the file."""


class Recommender:
    """Ranked tracks for users, and tracks that are alike. Thread-safe: nothing changes after construction.

    An opened store gives a user's list as it is now. ``k`` is 1 to 200 everywhere. Lists are ``RankedList``: tracks
    with rank from 1, where they come from, and the generation. Ids are text, as they came in.
    """

    def __init__(
        self,
        model: Model,
        tables: Tables,
        facts: Mapping[str, Any],
        uploads: Uploads | None = None,
        edges: Float32 | None = None,
        artefacts: Any = None,
        lists: ListSettings | None = None,
        traits: Traits | None = None,
        lasts: Float32 | None = None,
        since: Since | None = None,
    ) -> None:
        """Join the arrays, the tables, what is known of the build, and the uploads since.

        ``edges`` (n_users,) are the scores at place 20 of the plain lists, computed when needed by default.
        ``artefacts`` is what publishing needs of a fit (see ``recsys.fit``); None for an opened store.
        ``lists`` is the variety that lists have where nobody says otherwise, as the stored ones have it.
        ``traits`` of the tracks are what filters look at; without them nothing is known of any track.
        ``lasts`` (n_users,) are the scores at the last place of plain lists that are full, -inf for the others; where
        they are not known the edges stand for them. ``since`` looks up what happened to a user since the build.
        """
        self._edges, self._lasts, self._since = edges, lasts, since
        self.lists = lists or ListSettings()
        self.model, self.ranking = model, Ranking(model)
        self.artefacts, self.tables, self.facts = artefacts, tables, dict(facts)
        self.traits = traits or Traits.unknown(np.asarray(model.counts.sum(axis=0)).ravel())
        built = Lists(self.ranking, tables, self.lists, self.traits)
        self._lists = built if uploads is None else built.over(uploads)

    @classmethod
    def open(cls, store: Path | str) -> "Recommender":
        """Open the current generation of a store, read-only.

        Raises:
            ArtefactError: there is no such store, nothing was published in it, or a file is damaged.
        """
        from recsys.store.manifest import open_store

        return open_store(Path(store))

    # ---- what there is -------------------------------------------------------------------------------------------

    @property
    def generation(self) -> str:
        """Id of the generation that answers; 'memory' after a fit."""
        return str(self.facts.get("generation", "memory"))

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the blend's parts, each of which can rank alone."""
        return tuple(part.name for part in self.model.blend.parts if part.fold != "level")

    @property
    def spaces(self) -> list[Space]:
        """The spaces that have vectors."""
        return self._catalogue.spaces()

    def status(self) -> dict[str, Any]:
        """Facts of the generation: generation, created_at, n_tracks, n_users, n_listens, n_uploads, spaces."""
        return {
            "generation": self.generation,
            "created_at": self.facts.get("created_at", ""),
            "n_tracks": self._catalogue.n_tracks,
            "n_users": len(self.model.users),
            "n_listens": int(self.facts.get("n_listens", 0)),
            "n_uploads": self._catalogue.uploads.n_shown,
            "spaces": list(self.spaces),
        }

    def track(self, track_id: str) -> dict[str, Any]:
        """What is known of a track, by the columns of the ``tracks`` table.

        Raises:
            NotFoundError: no such track.
        """
        self._catalogue.row(track_id)
        return self._about([track_id])[track_id]

    def has_vector(self, track_id: str, space: Space) -> bool:
        """Whether a track has a vector in a space.

        Raises:
            NotFoundError: no such track.
        """
        return self._catalogue.unit_vector(self._catalogue.row(track_id), space) is not None

    def close(self) -> None:
        """Let go of the files."""
        self.tables.close()
        if self._since is not None:
            self._since.close()

    # ---- lists ---------------------------------------------------------------------------------------------------

    def recommend(
        self,
        user_id: str,
        k: int = DEFAULT_K,
        *,
        max_per_artist: int | None = None,
        diversity: float | None = None,
        filters: Filters = NO_FILTERS,
        describe: bool = True,
    ) -> RankedList:
        """Rank tracks for a user, heard and disliked ones left out.

        Args:
            user_id: a user without plays, or one nobody knows, gets popular tracks, and ``source`` says so.
            k: length of the list.
            max_per_artist: at most so many tracks of one artist; by default what ``[lists]`` said, which is no limit
                but for popular tracks. The list is shorter only where the whole catalogue has no more.
            diversity: 0 to 1, how much unlikeness counts against the score (MMR); by default what ``[lists]`` said.
            filters: which tracks may be in the list; where the stored one has too few of them, all are looked at.
            describe: fill ``about``; the server does without.

        Raises:
            ConfigError: k is not within 1 to 200, max_per_artist is below 1, or diversity not within 0 to 1.
        """
        check_k(k)
        person = self._person(user_id)
        personal = self._lists.personal(person)
        variety = asked(self.lists.usual(personal), max_per_artist, diversity)
        found = self._lists.of_user(person, k, variety, filters, capped=max_per_artist is not None)
        listed = self._list(found[:k], "personal" if personal else "popular", describe)
        return replace(listed, note=short_note(len(found), k))

    def popular(self) -> list[Found]:
        """The list of somebody of whom nothing is known, 200 deep: track ids, scores, and no reasons."""
        return self._lists.of_user(NOBODY, MAX_K, self.lists.usual(personal=False))

    def similar(
        self, track_id: str, k: int = DEFAULT_K, space: Space = "hybrid", *, describe: bool = True
    ) -> RankedList:
        """Rank the other tracks by cosine to a track, in one space.

        Raises:
            NotFoundError: no such track.
            NoSpaceError: the space has no vectors, or this track has none in it.
            ConfigError: k is not within 1 to 200, or there is no space of that name.
        """
        check_k(k)
        if space not in SPACES:
            raise ConfigError(f"there is no space {space!r}; choose one of {', '.join(SPACES)}")
        item = self._catalogue.row(track_id)
        if space not in self.spaces:
            raise NoSpaceError(f"this catalogue has no vectors in the space {space!r}; it has {', '.join(self.spaces)}")
        found = self._lists.near(item, track_id, k, space)
        return self._list([(track, score, None) for track, score in found[:k]], "neighbours", describe)

    def recommend_from_tracks(
        self, track_ids: Sequence[str], k: int = DEFAULT_K, *, describe: bool = True
    ) -> RankedList:
        """Rank tracks for somebody who played these, each as often as it is named; they are left out themselves.

        Raises:
            NotFoundError: one of the tracks is unknown; the message names it.
            DataError: no track is given.
            ConfigError: k is not within 1 to 200.
        """
        check_k(k)
        if not track_ids:
            raise DataError("0 tracks were given, expected at least one track id to start from")
        items, plays = np.unique([self._catalogue.row(track_id) for track_id in track_ids], return_counts=True)
        places, vectors = np.arange(len(items), dtype=np.int32), self._catalogue.vectors_of(items)
        user = fold_in(places, plays.astype(np.float32), vectors, self.model.blend)
        found = self._lists.of_query(user[None] * self.model.blend.weights(), items.astype(np.int32), k)
        return self._list(found, "tracks", describe)

    def score(self, user_ids: Sequence[str], track_ids: Sequence[str]) -> Float32:
        """The ranking's own score of every pair, before any filter: (n_users, n_tracks) float32.

        Rows and columns stand in the arguments' order. Heard tracks are scored like others, cold ones too.

        Raises:
            NotFoundError: an id is unknown; the message names it.
        """
        users = self.model.users.rows(list(user_ids))
        items = np.array([self._catalogue.row(track_id) for track_id in track_ids], dtype=np.int32)
        vectors = self._catalogue.vectors_of(items)
        return np.asarray(self.ranking.queries(users) @ vectors.T, dtype=np.float32).reshape(len(users), len(items))

    def audience(self, track_id: str, k: int = DEFAULT_K) -> list[tuple[str, float]]:
        """Users who would like a track most, with how far its score lies above that of their own 20th candidate.

        Raises:
            NotFoundError: no such track.
            ConfigError: k is not within 1 to 200.
        """
        check_k(k)
        item = self._catalogue.row(track_id)
        vector = self._catalogue.vectors_of([item])[0]
        users, margins = rank_audience(self.model, vector, item, self.edges, k + SPARE)
        found = zip(self.model.users.ids(users), margins.tolist(), strict=True)
        return list(islice((line for line in found if self._person(line[0]).touched.is_open_to(item, track_id)), k))

    @property
    def edges(self) -> Float32:
        """Score of each user's 20th candidate, (n_users,); -inf for a list that is shorter."""
        return self.ranking.edges if self._edges is None else self._edges

    @property
    def lasts(self) -> Float32:
        """Score at the last place of each user's full list, (n_users,); -inf for the others."""
        return self.edges if self._lasts is None else self._lasts

    def with_uploads(self, uploads: Uploads) -> "Recommender":
        """Give the same with other uploads and deletions; all else is shared."""
        other = copy.copy(self)
        other._lists = self._lists.over(uploads)
        return other

    @property
    def plays(self) -> Plays:
        """What the model was fitted on, with the ids."""
        return Plays(self.model.counts, self.model.barred, self.model.users.all(), self.model.items.all())

    @property
    def sound(self) -> tuple[Int32, Float32]:
        """Item rows that have a vector of the space 'sound', and the vectors; none where nothing was heard."""
        known = self.model.spaces.get("sound")
        return (np.zeros(0, np.int32), np.zeros((0, 1), np.float32)) if known is None else (known.rows, known.vectors)

    # ---- rows ----------------------------------------------------------------------------------------------------

    def rank(
        self, user_ids: Sequence[str], k: int, candidates: Int32 | None = None, part: str | None = None
    ) -> Candidates:
        """Rank item rows for many users at once, heard and disliked tracks left out: (n_users, k).

        This is the plain ranking, without a cap or diversity.

        Args:
            user_ids: known users.
            k: any length.
            candidates: item rows that may appear; all by default.
            part: rank by this part of the blend alone.
        """
        return self.ranking.rank(self.model.users.rows(list(user_ids)), k, candidates, part)

    def rank_folded(
        self, counts: csr_matrix, k: int, candidates: Int32 | None = None, part: str | None = None
    ) -> Candidates:
        """Rank item rows for people who are no users, by what they played, which is left out: (n, k).

        ``counts`` (n, n_items) has their plays, one or more stored in each row; the rest is as for ``rank``.
        """
        return self.ranking.rank_folded(counts, k, candidates, part)

    def reasons(self, user_ids: Sequence[str], ranked: Candidates) -> Int32:
        """For each ranked item the row of the played track that contributes most, -1 where there is none: (n, k)."""
        return self.ranking.reasons(self.model.users.rows(list(user_ids)), ranked)

    # ---- inside --------------------------------------------------------------------------------------------------

    @property
    def _catalogue(self) -> Catalogue:
        return self._lists.catalogue

    def _person(self, user_id: str) -> Person:
        touched = UNTOUCHED if self._since is None else self._since.touched(user_id)
        return Person(NO_ITEM if touched.is_gone else int(self.model.users.find([user_id])[0]), user_id, touched)

    def _about(self, track_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        uploaded = {t: self._catalogue.uploads.about[t] for t in track_ids if self._catalogue.is_upload(t)}
        return {**self.tables.about([t for t in track_ids if t not in uploaded]), **uploaded}

    def _list(self, found: Sequence[Found], source: str, describe: bool) -> RankedList:
        about = self._about([track for track, _, _ in found]) if describe else {}
        return RankedList(ranked_tracks(found, about), source, self.generation)
