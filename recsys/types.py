"""What passes between stages. Rows never leave the process, outside ids never enter the maths.

Inside, users and items are int32 rows; outside ids are text. Every container checks its own shapes.
Frozen does not freeze arrays: nobody writes into an argument.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.errors import DataError

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]

Space = Literal["sound", "content", "taste", "hybrid", "next"]
VECTOR_SPACES: tuple[Space, ...] = ("sound", "content", "taste", "hybrid")  # where neighbours are near by cosine
NEXT: Space = "next"  # where they were counted: tracks that tend to be played next; all are stored, and no vectors are
SPACES: tuple[Space, ...] = (*VECTOR_SPACES, NEXT)

DEFAULT_K = 20  # length of a list where nobody says otherwise
MAX_K = 200  # the longest, as deep as lists are stored
HISTORY = 50  # plays of a user that are kept in their order, the last ones
NEVER = 2**62  # seconds since 1970, when no session goes on any more
NO_ITEM = -1  # marks an empty place in a list of items
ITEM = "hybrid"  # the name that an upload's joint item vector has among its vectors
ANONYMOUS_ID = ""  # of the user of whom nothing is known; no other has this id

TRACKS_SCHEMA = pl.Schema(
    {
        "track_id": pl.String(),
        "path": pl.String(),
        "title": pl.String(),
        "artist": pl.String(),
        "album": pl.String(),
        "genres": pl.List(pl.String()),
        "year": pl.Int32(),
        "lyrics": pl.String(),
        "vector": pl.List(pl.Float32()),
    }
)
LISTENS_SCHEMA = pl.Schema(
    {
        "user_id": pl.String(),
        "track_id": pl.String(),
        "plays": pl.Float64(),
        "listened_at": pl.Datetime("us", "UTC"),
        "liked": pl.Boolean(),
        "disliked": pl.Boolean(),
    }
)
TAGS_SCHEMA = pl.Schema({"track_id": pl.String(), "tag": pl.String(), "weight": pl.Float64()})


def _check_frame(frame: pl.DataFrame, schema: pl.Schema, name: str) -> None:
    if frame.schema != schema:
        raise DataError(f"{name} has the columns {dict(frame.schema)}, expected {dict(schema)}")


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """The catalogue, a row a track in ``TRACKS_SCHEMA``; a missing value is null, ``genres`` may be empty.

    ``path`` is absolute; ``vector`` is a ready-made audio embedding, of one length in the whole catalogue.
    """

    frame: pl.DataFrame

    def __post_init__(self) -> None:
        """Check columns and ids."""
        _check_frame(self.frame, TRACKS_SCHEMA, "Tracks")
        ids = self.frame["track_id"]
        if ids.null_count() or ids.n_unique() != len(ids):
            raise DataError("Tracks has empty or repeated track ids; read it with recsys.catalogue.tables")

    def __len__(self) -> int:
        """Count the tracks."""
        return len(self.frame)


@dataclass(frozen=True, slots=True, eq=False)
class Listens:
    """What was heard, a row a listen, pair or like, in ``LISTENS_SCHEMA``.

    ``plays`` >= 0; a row with 0 plays says only that a track was disliked. ``listened_at`` may be null.
    """

    frame: pl.DataFrame

    def __post_init__(self) -> None:
        """Check columns and play counts."""
        _check_frame(self.frame, LISTENS_SCHEMA, "Listens")
        plays = self.frame["plays"]
        if plays.null_count() or not bool((plays.is_finite() & (plays >= 0)).all()):
            raise DataError("Listens has plays that are missing or below 0; read it with recsys.catalogue.tables")

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.frame)


@dataclass(frozen=True, slots=True, eq=False)
class Tags:
    """Tags of tracks, a row a pair of track and tag in ``TAGS_SCHEMA``, weights > 0 and added up."""

    frame: pl.DataFrame

    def __post_init__(self) -> None:
        """Check columns."""
        _check_frame(self.frame, TAGS_SCHEMA, "Tags")


@dataclass(frozen=True, slots=True, eq=False)
class Histories:
    """The last plays of each user whose time is known, in their order, the latest last; at most ``HISTORY`` a user.

    Those of user row u lie from ``starts[u]`` to ``starts[u + 1]`` (n_users + 1,) int64 of ``items`` (n,) int32 and
    ``seconds`` (n,) uint32 since 1970: 8 bytes a play. A track stands there once for each play; disliked ones do not.
    """

    starts: NDArray[np.int64]
    items: Int32
    seconds: NDArray[np.uint32]

    def __post_init__(self) -> None:
        """Check that the arrays fit each other."""
        ends = int(self.starts[-1]) if len(self.starts) else -1
        if self.items.shape != self.seconds.shape or ends != len(self.items):
            raise DataError(
                f"histories have {len(self.items)} items and {len(self.seconds)} seconds, expected {ends} of each"
            )

    def __len__(self) -> int:
        """Count the users."""
        return len(self.starts) - 1

    def of(self, user: int) -> tuple[Int32, NDArray[np.int64]]:
        """Items and seconds of one user's last plays, the latest last."""
        here = slice(int(self.starts[user]), int(self.starts[user + 1]))
        return self.items[here], self.seconds[here].astype(np.int64)

    def rows(self, users: NDArray[np.integer]) -> "Histories":
        """Those of some users (n,), in their order."""
        lengths = np.diff(self.starts)[users]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.arange(starts[-1]) + np.repeat(self.starts[users] - starts[:-1], lengths)
        return Histories(starts, np.asarray(self.items[places]), np.asarray(self.seconds[places]))

    @classmethod
    def none(cls, n_users: int) -> "Histories":
        """Those of users of whose plays no time is known."""
        return cls(np.zeros(n_users + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.uint32))


@dataclass(frozen=True, slots=True, eq=False)
class Plays:
    """Play counts by row: ``counts`` csr float32 and ``barred`` csr bool (disliked), both (n_users, n_items).

    Stored counts are > 0. Every user has a row, those without plays too. Rows are in the order of the ids.
    ``histories`` have the order and the times of each user's last plays; None where nobody asks for them.
    """

    counts: csr_matrix
    barred: csr_matrix
    user_ids: list[str]
    track_ids: list[str]
    histories: Histories | None = None

    def __post_init__(self) -> None:
        """Check shapes and that stored counts are positive."""
        shape = (len(self.user_ids), len(self.track_ids))
        if self.counts.shape != shape or self.barred.shape != shape:
            raise DataError(
                f"plays are {self.counts.shape} and barred pairs {self.barred.shape}, expected {shape} as the ids"
            )
        if self.histories is not None and len(self.histories) != shape[0]:
            raise DataError(f"there are histories of {len(self.histories)} users, expected {shape[0]} as the ids")
        if self.counts.nnz and not float(self.counts.data.min()) > 0:
            raise DataError("a stored play count is not positive; leave pairs without plays unstored")

    @property
    def n_plays(self) -> Float32:
        """Plays of each item, (n_items,)."""
        return np.asarray(self.counts.sum(axis=0), dtype=np.float32).ravel()

    @property
    def n_listeners(self) -> Int32:
        """Distinct users of each item, (n_items,)."""
        return np.bincount(self.counts.indices, minlength=self.counts.shape[1]).astype(np.int32)

    @property
    def n_dislikers(self) -> Int32:
        """Distinct users who disliked each item, (n_items,)."""
        return np.bincount(self.barred.indices, minlength=self.barred.shape[1]).astype(np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One stretch of audio: ``samples`` (n_samples,) float32 in [-1, 1], mono, ``sample_rate`` in Hz.

    ``duration_s`` is the length of the whole recording, of which the clip may be a part.
    """

    samples: Float32
    sample_rate: int
    duration_s: float

    def __post_init__(self) -> None:
        """Check that the samples are mono float32."""
        if self.samples.ndim != 1 or self.samples.dtype != np.float32:
            raise DataError(f"a clip is {self.samples.shape} {self.samples.dtype}, expected (n_samples,) float32")


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """User factors (n_users, f) and item factors (n_items, f), float32, rows in the order of the ids of ``Plays``."""

    user_factors: Float32
    item_factors: Float32

    def __post_init__(self) -> None:
        """Check that both have the same number of factors."""
        if self.user_factors.shape[1] != self.item_factors.shape[1]:
            raise DataError(
                f"user factors {self.user_factors.shape} and item factors {self.item_factors.shape} differ in width"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Items (n_users, k) int32 with scores float32, best first; an empty place is item -1 with score -inf."""

    items: Int32
    scores: Float32

    def __post_init__(self) -> None:
        """Check shapes."""
        if self.items.shape != self.scores.shape or self.items.ndim != 2:
            raise DataError(f"items {self.items.shape} and scores {self.scores.shape} must be one (n_users, k)")


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """For each of ``rows`` (n,) its neighbours, items (n, k) int32 with cosine scores float32, never itself."""

    rows: Int32
    items: Int32
    scores: Float32
    space: Space

    def __post_init__(self) -> None:
        """Check shapes."""
        if self.items.shape != self.scores.shape or len(self.items) != len(self.rows):
            raise DataError(f"items {self.items.shape}, scores {self.scores.shape}, rows {self.rows.shape} disagree")


@dataclass(frozen=True, slots=True)
class RankedTrack:
    """One line of any list: outside ids only, ``rank`` from 1; the one shape that service and evaluation see.

    ``about`` holds what is known of the track: title, artist, album, genres, year (only what is known).
    """

    track_id: str
    score: float
    rank: int
    reason_track_id: str | None
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RankedList:
    """A list and where it came from: ``source`` is 'personal', 'popular', 'tracks' or 'neighbours'.

    ``note`` says why there are fewer tracks than were asked for; it is empty where there are not.
    """

    tracks: list[RankedTrack]
    source: str
    generation: str
    note: str = ""


Found = tuple[str, float, str | None]  # track id, score, id of the track that is the reason


class Tables(Protocol):
    """Where stored lists and what is known of tracks come from: a generation's tables, or memory after a fit."""

    def recommended(self, user_id: str) -> list[Found] | None:
        """Track id, score and reason of a user's stored list, best first; None if lists are not stored."""

    def neighbours(self, track_id: str, space: Space) -> list[tuple[str, float]] | None:
        """Track id and score of a track's stored neighbours, best first; None if they are not stored."""

    def about(self, track_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What is known of tracks: the columns of the ``tracks`` table by track id."""

    @property
    def popular(self) -> bytes:
        """The Record (``recsys.store.record``) of the popular list; empty if lists are not stored as records."""

    def list_of(self, user_id: str) -> memoryview | None:
        """The Record of a user's stored list; None if there is none, or lists are not stored as records."""

    def neighbours_of(self, track_id: str, space: Space) -> memoryview | None:
        """The Record of a track's stored neighbours; None if there is none, or they are not stored as records."""

    def track_of_audio(self, content_hash: str) -> str | None:
        """Id of the track whose audio file has this content."""

    def close(self) -> None:
        """Let go of files."""
