"""How much what was just played counts, learned on plays that came later than all that the parts have seen.

    plays that were kept, parts fitted on them, later plays in their order  ->  learn_following  ->  Following, or None

It is learned for lists that follow each play, and on request for those that a build stores, which know nothing of what
is played after it (``told``). What was heard last says much of the next play and little of one that comes days later.

Each held-out play of a track that is new to its user is an event: who asks then is known with all plays until then, and
the track is to stand before the other candidates. Weights maximise the likelihood of a softmax over candidates
(listwise, Cao et al., ICML 2007), with an l2 penalty. A track that nobody ever plays is never an event, and where all
new tracks of a data set are played sooner or later, that teaches a level that is wrong where most are not: each new
candidate counts as ``1 + never_played`` of them. Where hardly any play is of a new track, as where nobody was shown
one, plays cannot say where these stand: they keep the share of places that they have by all plays. Two halves of the
users judge each other; where lists do not become better by more than the standard error, nothing is learned, and lists
stay as they are without an order.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from recsys.catalogue.histories import Ordered
from recsys.hybrid.blend import NEW, POPULARITY, Blend
from recsys.hybrid.foldin import fold_in
from recsys.hybrid.following import FEATURES, Following, Surroundings, latest, short_vector
from recsys.hybrid.next_tracks import NextSettings
from recsys.types import HISTORY, NEVER, NO_ITEM, Float32, Int32, Plays
from recsys.util.progress import Bar, Progress
from recsys.util.topk import top_k

HALF_LIVES = (1.0, 3.0, 10.0)  # of the short-term vector, in places
OWN = ("long", "short", POPULARITY, NEW)  # the blend's own say, before the features
BLOCK = 64  # events whose queries are ranked at once
POOL = 150  # candidates that each query names
MIN_EVENTS = 100  # of fewer nothing is learned
MIN_NEW = 30  # of them of new tracks; of fewer nothing is learned of these
BELOW, TIE = 1e3, 1e-6  # what no track comes back from, and what breaks a tie
L2 = 1e-3  # of weights of features of spread 1
K = 20


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """A play to predict: who asked, ``seconds`` since 1970, the track ``wanted``, and what was heard by then.

    ``items`` (n,) are all plays that count, with ``plays`` of each; ``recent`` the last ones, the latest last.
    """

    user: int
    seconds: int
    wanted: int
    items: Int32
    plays: Float32
    recent: Int32
    last_seconds: int


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """An event's candidates: ``values`` (n_half_lives, n_own + n_features, n), ``wanted`` is a column or -1."""

    user: int
    values: Float32
    today: Float32
    is_new: NDArray[np.bool_]
    wanted: int

    @property
    def wants_new(self) -> bool:
        """Whether the wanted track is a candidate that nobody had played."""
        return self.wanted >= 0 and bool(self.is_new[self.wanted])


def learn_following(
    blend: Blend,
    item_vectors: Float32,
    kept: Plays,
    later: Ordered,
    surroundings: Surroundings,
    settings: NextSettings,
    progress: Progress,
    seed: int,
    *,
    told: bool = True,
) -> Following | None:
    """Learn from plays ``later`` than those that were ``kept``; None where there are too few, or nothing is gained.

    Args:
        blend: of parts that were fitted on ``kept`` alone, with its weights.
        item_vectors: (n_items, d) of that blend.
        kept: plays before the cut, with their histories.
        later: plays from the cut on, of the same users and items.
        surroundings: counted on plays before the cut.
        settings: of what comes next.
        progress: shows events.
        seed: of the choice of events.
        told: each later play is known when the next one comes; if not, as in a stored list, none of them is.
    """
    events = list(events_of(kept, later) if told else events_untold(kept, later, settings.session_gap_s))
    events = sampled(events, settings.max_events, seed)
    if len(events) < MIN_EVENTS or len({event.user for event in events}) < 2:
        return None
    is_new = kept.n_listeners == 0
    what = "what comes next" if told else "what comes later"
    with progress.bar(what, len(events), "events") as bar:
        cases = list(_cases(events, blend, item_vectors, surroundings, is_new, settings, bar))
    times = 1 + settings.never_played
    if sum(case.wants_new for case in cases) < MIN_NEW:
        times, cases = 0.0, [case for case in cases if not case.wants_new]
    best, gain = 0, np.full(len(cases), -np.inf)
    today = np.array([_ndcg(case, case.today, times) for case in cases])
    for place in range(len(HALF_LIVES)):
        judged = _judged(cases, place, times)
        if judged.mean() > gain.mean() + today.mean() or not place:
            best, gain = place, judged - today
    progress.detail(
        f"{what}: NDCG@{K} {today.mean():.4f} without an order, {today.mean() + gain.mean():.4f} with it, "
        f"over {len(cases):,} plays"
    )
    if gain.mean() <= _standard_error(gain, np.array([case.user for case in cases])):
        return None
    fitted = _fitted(cases, best, times)
    if not times:
        fitted[OWN.index(NEW)] = _level(cases, best, fitted)
    weights = fitted.tolist()
    long, short, popularity, level = weights[: len(OWN)]
    features = dict(zip(FEATURES, weights[len(OWN) :], strict=True))
    return Following(HALF_LIVES[best], long, short, popularity, level, features, settings.session_gap_s)


def events_of(kept: Plays, later: Ordered) -> Iterator[Event]:
    """The later plays of tracks that are new to their users, if these have a history; each knows the ones before."""
    for known, items, seconds in _later_of(kept, later):
        counts = dict(zip(known.items.tolist(), known.plays.tolist(), strict=True))
        recent, last = known.recent.tolist(), known.last_seconds
        barred = set(kept.barred.indices[kept.barred.indptr[known.user] : kept.barred.indptr[known.user + 1]].tolist())
        for item, at in zip(items, seconds, strict=True):
            if recent and item not in counts and item not in barred:
                heard, plays = np.array(list(counts), np.int32), np.array(list(counts.values()), np.float32)
                yield Event(known.user, at, item, heard, plays, np.array(recent[-HISTORY:], np.int32), last)
            counts[item] = counts.get(item, 0.0) + 1.0
            recent.append(item)
            last = at


def events_untold(kept: Plays, later: Ordered, session_gap_s: int) -> Iterator[Event]:
    """The same plays, each track once, where nobody tells of one when the next comes: all know what was kept.

    They come when no session goes on; what goes on with the session of the last kept play belongs to that, and is none.
    """
    for known, items, seconds in _later_of(kept, later):
        met = {*known.items.tolist()}
        met.update(kept.barred.indices[kept.barred.indptr[known.user] : kept.barred.indptr[known.user + 1]].tolist())
        goes_on, last = len(known.recent) > 0, known.last_seconds
        for item, at in zip(items, seconds, strict=True):
            goes_on, last = goes_on and at - last <= session_gap_s, at
            if len(known.recent) and not goes_on and item not in met:
                met.add(item)
                yield replace(known, wanted=item, seconds=NEVER)


def _later_of(kept: Plays, later: Ordered) -> Iterator[tuple[Event, list[int], list[int]]]:
    """What was kept of each user who played later, as an event that wants nothing; those plays, and their seconds."""
    if kept.histories is None:
        return
    starts = np.concatenate([[0], np.flatnonzero(np.diff(later.users)) + 1, [len(later)]])
    for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        if start == stop:
            continue
        user = int(later.users[start])
        row = slice(kept.counts.indptr[user], kept.counts.indptr[user + 1])
        recent, seconds = kept.histories.of(user)
        last = int(seconds[-1]) if len(seconds) else 0
        plays = np.asarray(kept.counts.data[row], np.float32)
        known = Event(user, 0, NO_ITEM, kept.counts.indices[row].astype(np.int32), plays, recent, last)
        yield known, later.items[start:stop].tolist(), later.seconds[start:stop].tolist()


def sampled(events: list[Event], at_most: int, seed: int) -> list[Event]:
    """Draw events at random where there are more than so many; they stay in their order."""
    if len(events) <= at_most:
        return events
    chosen = np.sort(np.random.default_rng(seed).permutation(len(events))[:at_most])
    return [events[place] for place in chosen.tolist()]


def _cases(
    events: list[Event],
    blend: Blend,
    item_vectors: Float32,
    surroundings: Surroundings,
    is_new: NDArray[np.bool_],
    settings: NextSettings,
    bar: Bar,
) -> Iterator[_Case]:
    weights = blend.weights()
    for start in range(0, len(events), BLOCK):
        block = events[start : start + BLOCK]
        users = np.stack([_users(event, blend, item_vectors) for event in block])
        named = top_k(users.reshape(-1, blend.dim) * weights, item_vectors, POOL).items.reshape(len(block), -1)
        for event, vectors, rows in zip(block, users, named, strict=True):
            recent = latest(event.recent)
            candidates = np.union1d(rows[rows != NO_ITEM], surroundings.candidates(recent)).astype(np.int32)
            candidates = candidates[~np.isin(candidates, event.items)]
            new = is_new[candidates]
            in_session = event.seconds - event.last_seconds <= settings.session_gap_s
            features = surroundings.features(recent, candidates, new, in_session=in_session)
            own = _own(vectors, blend, item_vectors[candidates])
            shorts = range(1, 1 + len(HALF_LIVES))
            values = np.stack([np.concatenate([own[[0, short]], own[-2:], features]) for short in shorts])
            place = np.flatnonzero(candidates == event.wanted)
            wanted = int(place[0]) if len(place) else -1
            yield _Case(event.user, values, item_vectors[candidates] @ (vectors[0] * weights), new, wanted)
            bar.advance()


def _users(event: Event, blend: Blend, item_vectors: Float32) -> Float32:
    """User vectors (1 + n_half_lives, d): of all plays, and of the last ones."""
    places = np.arange(len(event.items), dtype=np.int32)
    long = fold_in(places, event.plays, item_vectors[event.items], blend)
    return np.stack([long, *(short_vector(event.recent, half, item_vectors, blend) for half in HALF_LIVES)])


def _own(users: Float32, blend: Blend, vectors: Float32) -> Float32:
    """What the blend says of candidates: of all plays, of the last ones by half-life, popularity, level; (n_own, n)."""
    personal, other = np.zeros((len(users), len(vectors)), np.float32), np.zeros((2, len(vectors)), np.float32)
    for part in blend.parts:
        here = slice(part.start, part.stop)
        scores = users[:, here] @ vectors[:, here].T
        if part.personal:
            personal += np.float32(part.weight) * scores
        elif part.name in (POPULARITY, NEW):
            other[(POPULARITY, NEW).index(part.name)] = scores[0]
    return np.concatenate([personal, other])


def _fitted(cases: list[_Case], place: int, times: float) -> NDArray[np.float64]:
    """Weights (n_own + n_features,) under which the wanted candidates are likeliest; 0 where none is a candidate.

    New candidates count for ``times``; for 0 nothing is learned of them.
    """
    able = [case for case in cases if case.wanted >= 0]
    if not able:
        return np.zeros(len(OWN) + len(FEATURES))
    values = np.concatenate([case.values[place] for case in able], axis=1).astype(np.float64)
    spread = values.std(axis=1)
    spread[spread <= 0] = np.inf  # what does not differ gets no weight
    values /= spread[:, None]
    sizes = np.array([len(case.is_new) for case in able])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    wanted = starts + np.array([case.wanted for case in able])
    new = np.concatenate([case.is_new for case in able])
    crowd = np.where(new, np.log(times) if times else -np.inf, 0.0)

    def cost(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = weights @ values
        crowded = scores + crowd
        largest = np.maximum.reduceat(crowded, starts)
        likely = np.exp(crowded - np.repeat(largest, sizes))
        sums = np.add.reduceat(likely, starts)
        likely /= np.repeat(sums, sizes)
        slope = values @ likely - values[:, wanted].sum(axis=1)
        loss = float((np.log(sums) + largest - scores[wanted]).mean() + L2 * (weights**2).sum())
        return loss, slope / len(able) + 2 * L2 * weights

    found = minimize(cost, np.zeros(len(values)), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(found.x / spread)


def _level(cases: list[_Case], place: int, weights: NDArray[np.float64]) -> float:
    """The level at which new tracks get as many of the first 20 places of all events as they have by all plays.

    ``weights`` have none yet.
    """
    n_places, thresholds = 0, list[NDArray[np.float64]]()
    for case in cases:
        by_all = np.argsort(-case.today, kind="stable")[:K]
        n_places += int(case.is_new[by_all].sum())
        scores = weights @ case.values[place]
        old, new = -np.sort(-scores[~case.is_new]), -np.sort(-scores[case.is_new])[:K]
        # the j-th best new track is among the first 20 once it passes the old one of place 20 - j + 1
        passed = K - 1 - np.arange(len(new))
        short = np.full(max(K - len(old), 0), -np.inf)  # fewer old ones than places: it is there in any case
        thresholds.append(np.concatenate([old, short])[passed] - new)
    heights = np.array([v for case in cases for v in case.values[place][OWN.index(NEW), case.is_new][:1]])
    if not len(heights) or not heights[0]:
        return 0.0  # no new track is a candidate, or the blend knows no level
    steps = np.sort(np.concatenate(thresholds))
    level = steps[min(n_places, len(steps)) - 1] if n_places else steps[0] - 1
    return float((max(level, -BELOW) + TIE) / heights[0])


def _judged(cases: list[_Case], place: int, times: float) -> NDArray[np.float64]:
    """NDCG of each case under weights that the users of the other half taught."""
    _, rows = np.unique([case.user for case in cases], return_inverse=True)
    half = rows % 2  # by their order, so that there is somebody in both
    found = np.zeros(len(cases))
    for mine in (0, 1):
        weights = _fitted([case for case, h in zip(cases, half, strict=True) if h != mine], place, times)
        for row in np.flatnonzero(half == mine).tolist():
            found[row] = _ndcg(cases[row], (weights @ cases[row].values[place]).astype(np.float32), times)
    return found


def _ndcg(case: _Case, scores: Float32, times: float) -> float:
    """NDCG@20 of the one wanted track; ties stand in the middle, and each new candidate for several."""
    if case.wanted < 0:
        return 0.0
    own, counts = scores[case.wanted], np.where(case.is_new, times, 1.0)
    level = np.abs(scores - own) <= 1e-6 * max(abs(float(own)), 1e-6)
    before = float(counts[(scores > own) & ~level].sum()) + (float(counts[level].sum()) - 1) / 2
    return float(1 / np.log2(before + 2)) if before < K else 0.0


def _standard_error(gains: NDArray[np.float64], users: NDArray[np.int64]) -> float:
    """Standard error of the mean gain, plays of one user not being independent (clustered)."""
    centred = gains - gains.mean()
    _, rows = np.unique(users, return_inverse=True)
    return float(np.sqrt((np.bincount(rows, centred) ** 2).sum()) / len(gains))
