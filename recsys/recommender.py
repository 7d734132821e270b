"""The one way in: command line, server and evaluation ask for lists here.

    fit(...)  or  Recommender.open(store)  ->  Recommender  ->  recommend, similar, recommend_from_tracks, score

After a fit everything is in memory and lists are computed when asked for; an opened store answers from the tables
of its current generation, with what was uploaded since laid over them. Nothing here imports torch.
"""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.errors import ArtefactError, ChangedError, ConfigError, DataError, NoSpaceError
from recsys.eventlog.snapshot import SinceBuild, Snapshot
from recsys.hybrid.foldin import fold_in
from recsys.ranking.attributes import TrackAttributes
from recsys.ranking.audience import SPARE
from recsys.ranking.audience import audience as rank_audience
from recsys.ranking.catalogue_view import NO_DELTA, CatalogueView, UploadedTracks
from recsys.ranking.diversity import ListSettings, Variety
from recsys.ranking.filters import NO_FILTERS, Filters
from recsys.ranking.lists import ANONYMOUS, ListBuilder, UserRef
from recsys.ranking.model import Model
from recsys.ranking.next_lists import rank_after, rank_at
from recsys.ranking.ranker import Ranking
from recsys.ranking.request import check_k, ranked_tracks, resolve_variety, short_note
from recsys.store.checksums import check_files, check_sizes
from recsys.store.duckdb_tables import FILE, StoredTables
from recsys.store.generation import Store
from recsys.store.lmdb_lookup import FILE as LOOKUP
from recsys.store.lmdb_lookup import Lookup, open_lookup
from recsys.store.manifest import read_facts
from recsys.types import (
    DEFAULT_K,
    HISTORY,
    MAX_K,
    NO_ITEM,
    SPACES,
    Candidates,
    Float32,
    Found,
    Histories,
    Int32,
    Listens,
    Plays,
    RankedList,
    Space,
    Tables,
    Tags,
    Tracks,
)
from recsys.util.npy import read

if TYPE_CHECKING:  # both load torch
    from recsys.audio.model import SoundModel
    from recsys.hybrid.encoder import Encoder

Backend = Literal["duckdb", "lmdb"]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class CatalogueSound:
    """Sound vectors of a catalogue: item ``rows`` (m,), ``vectors`` (m, d), and facts of the files beside the rows.

    ``model`` is None, ``durations_s`` NaN and ``hashes`` empty where the vectors came with the tracks.
    """

    rows: Int32
    vectors: Float32
    durations_s: Float32
    hashes: tuple[str, ...]
    model: "SoundModel | None"


@dataclass(frozen=True, slots=True, eq=False)
class Artefacts:
    """What a fit made besides the model's arrays: needed to publish it and to embed later uploads."""

    encoder: "Encoder"
    sound: CatalogueSound
    tracks: Tracks
    listens: Listens | None
    tags: Tags | None
    durations: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What a fit has learned, or a generation keeps of one.

    ``tables`` hold stored lists and what is known of tracks, ``facts`` what meta.json says of the build. ``lists`` is
    the variety that lists have where nobody says otherwise, as the stored ones have it. ``attributes`` of the tracks
    are what filters look at; without them nothing is known of any track. ``score_at_20`` (n_users,) are the scores at
    place 20 of the plain lists, computed when needed where they are None; ``score_at_last`` (n_users,) those at the
    last place of plain lists that are full, -inf for the others; where they are not known the edges stand for them.
    ``artefacts`` is what publishing needs of a fit, ``since`` looks up what happened since a generation was built; each
    is None for the other.
    """

    model: Model
    tables: Tables
    facts: Mapping[str, Any] = field(default_factory=dict)
    lists: ListSettings = field(default_factory=ListSettings)
    attributes: TrackAttributes | None = None
    score_at_20: Float32 | None = None
    score_at_last: Float32 | None = None
    artefacts: Artefacts | None = None
    since: SinceBuild | None = None


class Recommender:
    """Ranked tracks for users, and tracks that are alike. Thread-safe: nothing changes after construction.

    An opened store gives a user's list as it is now. ``k`` is 1 to 200 everywhere. Lists are ``RankedList``: tracks
    with rank from 1, where they come from, and the generation. Ids are text, as they came in.
    """

    def __init__(self, fitted: Fitted) -> None:
        """Join what was learned, the tables, and the uploads since."""
        self.fitted = fitted
        self.lists, self.tables = fitted.lists, fitted.tables
        self.facts = dict(fitted.facts)
        self.model, self.ranking = fitted.model, Ranking(fitted.model)
        plays = np.asarray(fitted.model.counts.sum(axis=0)).ravel()
        self.attributes = TrackAttributes.unknown(plays) if fitted.attributes is None else fitted.attributes
        built = ListBuilder(self.ranking, fitted.tables, self.lists, self.attributes)
        self._lists = built if fitted.since is None else built.over(fitted.since.uploads())

    @classmethod
    def open(cls, store: Path | str) -> "Recommender":
        """Open the current generation of a store, read-only.

        Raises:
            ArtefactError: there is no such store, nothing was published in it, or a file is damaged.
        """
        return open_store(Path(store))

    # ---- facts -------------------------------------------------------------------------------------------

    @property
    def generation(self) -> str:
        """Id of the generation that answers; 'memory' after a fit."""
        return str(self.facts.get("generation", "memory"))

    @property
    def artefacts(self) -> Artefacts:
        """What publishing needs of a fit.

        Raises:
            ArtefactError: this was opened from a store, which keeps none.
        """
        if self.fitted.artefacts is None:
            raise ArtefactError(f"generation {self.generation} was opened from a store; publish what `fit` returns")
        return self.fitted.artefacts

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the blend's parts, each of which can rank alone."""
        return tuple(part.name for part in self.model.blend.parts if part.fold != "level")

    @property
    def spaces(self) -> list[Space]:
        """The spaces that there are: those with vectors, and 'next' where the order of plays is known."""
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
        if self.fitted.since is not None:
            self.fitted.since.close()

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
        variety = resolve_variety(self.lists.usual(personal), max_per_artist, diversity)
        found = self._lists.of_user(person, k, variety, filters, capped=max_per_artist is not None)
        listed = self._list(found[:k], "personal" if personal else "popular", describe)
        return replace(listed, note=short_note(len(found), k))

    def popular(self) -> list[Found]:
        """The list of somebody of whom nothing is known, 200 deep: track ids, scores, and no reasons."""
        return self._lists.of_user(ANONYMOUS, MAX_K, self.lists.usual(personal=False))

    def similar(
        self, track_id: str, k: int = DEFAULT_K, space: Space = "hybrid", *, describe: bool = True
    ) -> RankedList:
        """Rank the other tracks by cosine to a track, in one space; in 'next', those that tend to be played next.

        A list of 'next' has at most 50 tracks, and none where no other track was heard near this one within a session,
        as of an upload. It is as of the build: uploads since are in no such list.

        Raises:
            NotFoundError: no such track.
            NoSpaceError: there is no such space in this catalogue, or this track has no vector in it.
            ConfigError: k is not within 1 to 200, or there is no space of that name.
        """
        check_k(k)
        if space not in SPACES:
            raise ConfigError(f"there is no space {space!r}; choose one of {', '.join(SPACES)}")
        item = self._catalogue.row(track_id)
        if space not in self.spaces:
            raise NoSpaceError(f"this catalogue has no space {space!r}; it has {', '.join(self.spaces)}")
        found = self._lists.near(item, track_id, k, space)
        return self._list([(track, score, None) for track, score in found[:k]], "neighbours", describe)

    def recommend_from_tracks(
        self, track_ids: Sequence[str], k: int = DEFAULT_K, *, ordered: bool = False, describe: bool = True
    ) -> RankedList:
        """Rank tracks for somebody who played these, each as often as it is named; they are left out themselves.

        Args:
            track_ids: one or more.
            k: length of the list.
            ordered: they were played in this order, the last one just now: the list is of what comes next. Where the
                order of plays told nothing at the build, it is the same list as without.
            describe: fill ``about``.

        Raises:
            NotFoundError: one of the tracks is unknown; the message names it.
            DataError: no track is given.
            ConfigError: k is not within 1 to 200.
        """
        check_k(k)
        if not track_ids:
            raise DataError("0 tracks were given, expected at least one track id to start from")
        rows = np.array([self._catalogue.row(track_id) for track_id in track_ids], dtype=np.int32)
        items, plays = np.unique(rows, return_counts=True)
        if ordered and self.model.order is not None:
            listened = items.astype(np.int32), plays.astype(np.float32), rows[-HISTORY:]
            return self._list(self._lists.of_next(*listened, self.model.order, k), "tracks", describe)
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
        users, margins = rank_audience(self.model, vector, item, self.score_at_20, k + SPARE)
        found = zip(self.model.users.ids(users), margins.tolist(), strict=True)
        return list(islice((line for line in found if self._person(line[0]).delta.is_open_to(item, track_id)), k))

    @property
    def score_at_20(self) -> Float32:
        """Score of each user's 20th candidate, (n_users,); -inf for a list that is shorter."""
        return self.ranking.score_at_20 if self.fitted.score_at_20 is None else self.fitted.score_at_20

    @property
    def score_at_last(self) -> Float32:
        """Score at the last place of each user's full list, (n_users,); -inf for the others."""
        return self.score_at_20 if self.fitted.score_at_last is None else self.fitted.score_at_last

    def with_uploads(self, uploads: UploadedTracks) -> "Recommender":
        """The same with other uploads and deletions; all else is shared."""
        other = copy.copy(self)
        other._lists = self._lists.over(uploads)
        return other

    @property
    def plays(self) -> Plays:
        """What the model was fitted on, with the ids."""
        histories = None if self.model.order is None else self.model.order.histories
        return Plays(self.model.counts, self.model.barred, self.model.users.all(), self.model.items.all(), histories)

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

        This is the plain ranking, without a cap or diversity, as a build stores it (see ``rank_after``).

        Args:
            user_ids: known users.
            k: any length.
            candidates: item rows that may appear; all by default.
            part: rank by this part of the blend alone.
        """
        rows = self.model.users.rows(list(user_ids))
        if part is None:
            return rank_after(self.ranking, rows, k, candidates)
        return self.ranking.rank(rows, k, candidates, part)

    def rank_folded(
        self, counts: csr_matrix, k: int, candidates: Int32 | None = None, part: str | None = None
    ) -> Candidates:
        """Rank item rows for people who are no users, by what they played, which is left out: (n, k).

        ``counts`` (n, n_items) has their plays, one or more stored in each row; the rest is as for ``rank``.
        """
        return self.ranking.rank_folded(counts, k, candidates, part)

    def rank_at(
        self, counts: csr_matrix, histories: Histories, now: NDArray[np.int64], k: int, candidates: Int32 | None = None
    ) -> Candidates:
        """Rank item rows for people by what they played and in what order, as of a moment; see ``rank_at``: (n, k).

        ``counts`` and ``histories`` have n rows; where a history is empty the list is that of ``rank_folded``.
        """
        return rank_at(self.ranking, counts, histories, now, k, candidates)

    def reasons(self, user_ids: Sequence[str], ranked: Candidates) -> Int32:
        """For each ranked item the row of the played track that contributes most, -1 where there is none: (n, k)."""
        return self.ranking.reasons(self.model.users.rows(list(user_ids)), ranked)

    # ---- inside --------------------------------------------------------------------------------------------------

    @property
    def _catalogue(self) -> CatalogueView:
        return self._lists.catalogue

    def _person(self, user_id: str) -> UserRef:
        delta = NO_DELTA if self.fitted.since is None else self.fitted.since.delta(user_id)
        return UserRef(NO_ITEM if delta.is_gone else int(self.model.users.find([user_id])[0]), user_id, delta)

    def _about(self, track_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        uploaded = {t: self._catalogue.uploads.about[t] for t in track_ids if self._catalogue.is_upload(t)}
        return {**self.tables.about([t for t in track_ids if t not in uploaded]), **uploaded}

    def _list(self, found: Sequence[Found], source: str, describe: bool) -> RankedList:
        about = self._about([track for track, _, _ in found]) if describe else {}
        return RankedList(ranked_tracks(found, about), source, self.generation)


def open_store(
    folder: Path, backend: Backend | Lookup = "duckdb", name: str | None = None, strict: bool = False
) -> Recommender:
    """Open a generation, read-only.

    Args:
        folder: of the store.
        backend: where stored lists are looked up: in the DuckDB file, or in serving.lmdb, which says the same and may
            be open already.
        name: of the generation; the current one by default.
        strict: refuse a DuckDB file that others have changed or hold; by default serving.lmdb stands in for it.

    Raises:
        ArtefactError: there is no such store, nothing was published in it, or a file is damaged.
    """
    store = Store(folder)
    return open_generation(store, store.current() if name is None else store.generation(name), backend, strict)


def open_generation(
    store: Store, generation: Path, backend: Backend | Lookup = "duckdb", strict: bool = False
) -> Recommender:
    """Open a generation by its folder, which may still be one that is being written, read-only.

    Raises:
        ArtefactError: a file is missing or damaged.
    """
    facts = read_facts(generation)
    # a store that has lost serving.lmdb still serves, if slower
    changed = check_files(generation, facts, but={LOOKUP} if backend == "duckdb" else ())
    name, applied_seq = str(facts["generation"]), int(facts["last_live_number"])
    arrays = generation / "arrays"
    model = Model.load(arrays)
    tables = _tables(backend, generation, changed, strict)
    return Recommender(
        Fitted(
            model,
            tables,
            facts,
            _list_settings(facts),
            TrackAttributes.load(arrays),
            score_at_20=_scores(arrays / "edges.npy"),
            score_at_last=_scores(arrays / "lasts.npy") if (arrays / "lasts.npy").exists() else None,
            since=SinceBuild(store, Snapshot.at(model, name, store.uploads, applied_seq)),
        )
    )


def _tables(backend: Backend | Lookup, generation: Path, changed: ChangedError | None, strict: bool) -> Tables:
    """Open what lists are looked up in: serving.lmdb too where the DuckDB file is another one now, or is held."""
    if changed is not None and strict:
        raise changed
    if backend != "duckdb":
        if changed is not None:
            _LOG.warning("%s; the lists come from serving.lmdb", changed)
        return backend if isinstance(backend, Lookup) else open_lookup(generation / LOOKUP)
    try:
        if changed is not None:
            raise changed
        return StoredTables(generation / FILE)
    except ChangedError as error:
        if strict:
            raise
        try:
            facts = read_facts(generation)
            check_sizes(generation, {n: size for n, size in dict(facts.get("files", {})).items() if n == LOOKUP})
            lookup = open_lookup(generation / LOOKUP)
        except ArtefactError:
            raise error from None
        _LOG.warning("%s; the lists come from serving.lmdb", error)
        return lookup


def _list_settings(facts: Mapping[str, Any]) -> ListSettings:
    """How the stored lists were made; lists from before there was a choice are plain."""
    known = facts.get("settings", {}).get("lists")
    return ListSettings(popular=Variety()) if known is None else ListSettings.model_validate(known)


def _scores(file: Path) -> Float32:
    try:
        scores: Float32 = read(file)
    except (OSError, EOFError, ValueError) as error:
        raise ArtefactError(f"cannot read {file}: {error}; build again") from error
    return scores
