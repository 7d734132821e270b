"""What comes next for a listener: a short-term query beside the long one, and what the last plays are followed by.

    last plays, now  ->  Surroundings.signals  ->  features (n_features, n) of candidates
    Following (learned in ``recsys.hybrid.following_weights``)  ->  query (d,), and a score for each candidate

The short-term user vector is the same fold-in with plays weighted by recency, 2^-(place / half-life), the latest at
place 0. Four signals say of a candidate how strongly it follows from the last plays: that it was played next, that it
was heard together with them, that it is by one of their artists, that it is by an artist who was heard together with
these. How much each counts depends on whether the session goes on, and on whether the listener stays with an artist or
moves from one to another. Plain numpy, as everything that a server does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.hybrid.blend import NEW, POPULARITY, Blend
from recsys.hybrid.foldin import fold_in
from recsys.hybrid.next_tracks import NextTracks
from recsys.types import NO_ITEM, Float32, Int32

ArtistsOf: TypeAlias = Callable[[Int32], Int32]
RECENT = 10  # plays whose followers are looked at
SIGNALS = ("follows", "together", "artist", "near artist")
HALF_LIVES = (1.0, 3.0, 1.0, 2.0)  # places, of the weight that a play has in each signal
CONTEXTS = ("", "run", "session")
FEATURES = (
    *(" ".join(filter(None, (signal, context))) for context in CONTEXTS for signal in SIGNALS),
    "artist new",
    "near artist new",
)
STRENGTH = 20.0  # log(1 + 20 x) of a signal x in [0, 1] counts: what is half as strong is not half as likely
UNHEARD = 0.3  # of the strength of an artist's best-known track, what one that nobody played has
ARTIST_TRACKS, NEAR_TRACKS, NEAR_ARTISTS = 100, 5, 20  # candidates by artist
LEAST = 1e-3  # of a play: what is older does not count


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """For each row up to some others with a strength: those of row i lie from ``starts[i]`` to ``starts[i + 1]``."""

    starts: NDArray[np.int64]
    rows: Int32
    strengths: Float32

    def of(self, row: int) -> slice:
        """Where those of a row lie."""
        return slice(int(self.starts[row]), int(self.starts[row + 1]))


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """What lies near tracks: those that follow, and those by the same and by near artists.

    ``artists`` (n_items,) int32, -1 where not known; ``by_artist`` links artists to their tracks, the best known first,
    with the strength of each; ``near_artists`` links artists to others.
    """

    tracks: NextTracks
    artists: Int32
    by_artist: Links
    near_artists: Links
    track_strengths: Float32

    @classmethod
    def of(cls, tracks: NextTracks, artists: Int32, n_listeners: NDArray[np.int32]) -> "Surroundings":
        """Gather them from what followed what, with ``artists`` and ``n_listeners`` (n_items,) of the tracks."""
        n_artists = int(artists.max(initial=NO_ITEM)) + 1
        known = np.flatnonzero(artists != NO_ITEM)
        heard = np.log1p(n_listeners).astype(np.float32)
        most = np.zeros(n_artists, np.float32)
        np.maximum.at(most, artists[known], heard[known])
        strengths = np.full(len(artists), UNHEARD, np.float32)
        strengths[known] += (1 - UNHEARD) * heard[known] / np.maximum(most[artists[known]], np.float32(1e-9))
        order = known[np.lexsort((known, -heard[known], artists[known]))].astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(np.bincount(artists[known], minlength=n_artists))]).astype(np.int64)
        by_artist = Links(starts, order, strengths[order])
        return cls(tracks, artists, by_artist, _near_artists(tracks, artists, n_artists), strengths)

    def candidates(self, recent: Int32, artists_of: ArtistsOf | None = None) -> Int32:
        """Rows of tracks that lie near the last plays, the latest first: rising, the plays themselves among them.

        ``artists_of`` tells the artists of rows where some, of uploads, lie beyond the catalogue.
        """
        found = [self.tracks.items[self.tracks.of(item)] for item in recent.tolist()]
        artists, weights = _by_artist((artists_of or self.artists_of)(recent), HALF_LIVES[2])
        found += [self._tracks_of(artist, ARTIST_TRACKS) for artist in artists.tolist()]
        near, strengths = self._near(artists, weights)
        strongest = near[np.argsort(-strengths, kind="stable")[:NEAR_ARTISTS]]
        found += [self._tracks_of(artist, NEAR_TRACKS) for artist in strongest.tolist()]
        return np.unique(np.concatenate(found)).astype(np.int32) if found else np.zeros(0, np.int32)

    def artists_of(self, rows: Int32) -> Int32:
        """Numbers of the artists of the catalogue's rows (n,), -1 where not known."""
        return self.artists[rows]

    def signals(self, recent: Int32, candidates: Int32, artists_of: ArtistsOf | None = None) -> Float32:
        """Strengths (4, n) of candidate rows (n,) after the last plays, the latest first; each at most 1."""
        find = artists_of or self.artists_of
        values = np.zeros((len(SIGNALS), len(candidates)), np.float32)
        for signal, strengths in ((0, self.tracks.follows), (1, self.tracks.together)):
            places = [self.tracks.of(item) for item in recent.tolist()]
            weights = _weights(len(recent), HALF_LIVES[signal])
            rows = [self.tracks.items[place] for place in places]
            theirs = [strengths[place] * weight for place, weight in zip(places, weights, strict=True)]
            values[signal] = _looked_up(*_summed(rows, theirs), candidates)
        built = candidates < len(self.track_strengths)
        own = np.where(built, self.track_strengths[np.where(built, candidates, 0)], UNHEARD).astype(np.float32)
        for signal in (2, 3):
            known = _by_artist(find(recent), HALF_LIVES[signal])
            near = known if signal == 2 else self._near(*known)
            values[signal] = _looked_up(*near, find(candidates)) * own
        sums = [_weights(len(recent), half_life).sum() for half_life in HALF_LIVES]
        return np.asarray(values / np.array(sums, np.float32)[:, None], dtype=np.float32)

    def run(self, artists: Int32) -> float:
        """How much a listener stays with an artist, 0 to 1, by the artists of the last plays (n,), the latest first.

        It is the share of plays by the artist of the play before, the latest counting most.
        """
        same = (artists[:-1] == artists[1:]) & (artists[1:] != NO_ITEM)
        weights = _weights(len(same), 2.0)
        return float((weights[same].sum() + 0.3) / (weights.sum() + 1))

    def features(
        self,
        recent: Int32,
        candidates: Int32,
        new: NDArray[np.bool_],
        *,
        in_session: bool,
        artists_of: ArtistsOf | None = None,
    ) -> Float32:
        """Features (n_features, n) of candidates after the last plays, latest first; ``new`` marks unplayed ones."""
        signals = self.signals(recent, candidates, artists_of)
        strengths = np.log1p(STRENGTH * signals) / np.float32(np.log1p(STRENGTH))
        run = np.float32(self.run((artists_of or self.artists_of)(recent)))
        parts = [strengths, strengths * run, strengths * np.float32(in_session), strengths[2:] * new]
        return np.concatenate(parts).astype(np.float32)

    def _tracks_of(self, artist: int, at_most: int) -> Int32:
        return self.by_artist.rows[self.by_artist.of(artist)][:at_most]

    def _near(self, artists: Int32, weights: Float32) -> tuple[Int32, Float32]:
        places = [self.near_artists.of(artist) for artist in artists.tolist()]
        strengths = [self.near_artists.strengths[p] * weight for p, weight in zip(places, weights, strict=True)]
        return _summed([self.near_artists.rows[place] for place in places], strengths)


@dataclass(frozen=True, slots=True)
class Following:
    """How much what was just played counts, learned on later plays.

    ``half_life`` in places; ``long`` and ``short`` multiply what the personal parts of the blend say of all plays and
    of the last ones; ``popularity`` is the weight of that part, ``level`` where unplayed tracks stand; ``features``
    by name are the weights of ``FEATURES``; a pause of more than ``session_gap_s`` seconds ends a session.
    """

    half_life: float
    long: float
    short: float
    popularity: float
    level: float
    features: dict[str, float]
    session_gap_s: int

    def weights(self) -> Float32:
        """Weights of the features, (n_features,)."""
        return np.array([self.features[name] for name in FEATURES], np.float32)

    def query(self, long: Float32, short: Float32, blend: Blend) -> Float32:
        """Join the query (d,) of all plays and the user vector (d,) of the last ones, which is not weighed yet."""
        query = np.zeros(blend.dim, np.float32)
        for part in blend.parts:
            here = slice(part.start, part.stop)
            if part.personal:
                query[here] = self.long * long[here] + self.short * part.weight * short[here]
            else:  # the same for everybody, so that either vector has it
                query[here] = {POPULARITY: self.popularity, NEW: self.level}.get(part.name, 0.0) * short[here]
        return query


def short_vector(items: Int32, half_life: float, item_vectors: Float32, blend: Blend) -> Float32:
    """The user vector (d,) of somebody's last plays (n,), the latest last, n > 0, each worth less the older it is."""
    plays = _weights(len(items), half_life)[::-1]
    kept = plays >= LEAST
    rows, weights = _summed([items[kept]], [plays[kept]])
    return fold_in(rows, weights, item_vectors, blend)


def latest(items: Int32) -> Int32:
    """The last plays of a history (n,), the latest first."""
    return items[::-1][:RECENT]


def _near_artists(tracks: NextTracks, artists: Int32, n_artists: int) -> Links:
    """Link artists whose tracks were heard together, by how strongly against all that theirs were; at most 50 each."""
    first = artists[np.repeat(np.arange(len(artists)), np.diff(tracks.starts))]
    second = artists[tracks.items]
    other = (first != second) & (first != NO_ITEM) & (second != NO_ITEM)
    shape = (n_artists, n_artists)
    one_way = csr_matrix((tracks.together[other], (first[other], second[other])), shape=shape)
    pairs = csr_matrix(one_way + one_way.T)  # of each track only the strongest were kept: one way may be missing
    sums = np.asarray(pairs.sum(axis=1)).ravel()
    rows = np.repeat(np.arange(n_artists), np.diff(pairs.indptr))
    strengths = pairs.data / np.sqrt(sums[rows] * sums[pairs.indices])
    order = np.lexsort((pairs.indices, -strengths, rows))
    place = np.arange(len(order)) - np.repeat(pairs.indptr[:-1], np.diff(pairs.indptr))
    kept = order[place < 50]
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=n_artists))]).astype(np.int64)
    return Links(starts, pairs.indices[kept].astype(np.int32), strengths[kept].astype(np.float32))


def _by_artist(artists: Int32, half_life: float) -> tuple[Int32, Float32]:
    """The artists of the last plays (n,), rising, each with the sum of the weights of its plays."""
    known = artists != NO_ITEM
    return _summed([artists[known]], [_weights(len(artists), half_life)[known]])


def _weights(n: int, half_life: float) -> Float32:
    return np.exp2(-np.arange(n) / half_life).astype(np.float32)


def _summed(rows: list[Int32], values: list[Float32]) -> tuple[Int32, Float32]:
    """Add up values by row: the rows, rising, and their sums."""
    if not rows:
        return np.zeros(0, np.int32), np.zeros(0, np.float32)
    unique, places = np.unique(np.concatenate(rows), return_inverse=True)
    sums = np.bincount(places, np.concatenate(values), minlength=len(unique))
    return unique.astype(np.int32), sums.astype(np.float32)


def _looked_up(rows: Int32, values: Float32, wanted: Int32) -> Float32:
    """The values of wanted rows (n,), 0 for those that are not there; ``rows`` rise."""
    if not len(rows):
        return np.zeros(len(wanted), np.float32)
    places = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
    return np.where(rows[places] == wanted, values[places], 0).astype(np.float32)
