"""Models that follow: what they must find where it was planted, by hand and by contract."""

from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from eval.baselines.base import Baseline
from eval.baselines.features import BaselineData
from eval.baselines.following import recent, to_one
from eval.baselines.next_track import damped, together, transitions
from eval.baselines.registry import BASELINES
from eval.baselines.sasrec import new_targets, windows
from eval.baselines.simple import Following, Ranker
from eval.baselines.timeline import Timeline
from eval.splitting.moments import Moments
from recsys.catalogue.listens import plays_of
from recsys.types import HISTORY, LISTENS_SCHEMA, NO_ITEM, TRACKS_SCHEMA, Histories, Int32, Listens, Tracks

N_USERS, N_ITEMS, N_STEPS = 40, 24, 12
START = datetime(2024, 5, 1, tzinfo=UTC)
FOLLOWING = [baseline for baseline in BASELINES if "order" in baseline.needs]
NAMES = [baseline.name for baseline in FOLLOWING]
BY_NAME = {baseline.name: baseline for baseline in FOLLOWING}
QUICK = {"n_factors": 16, "epochs": 60, "learning_rate": 0.02, "dropout": 0.1}


def circle(item: int) -> int:
    """What is always played after a track: the next of its own circle of eight, which is its artist's."""
    return item // 8 * 8 + (item + 3) % 8


@cache
def material() -> BaselineData:
    """Each user walks around one circle from any place; the last track of each circle was never played."""
    rng = np.random.default_rng(1)
    rows = []
    for user in range(N_USERS):
        item = int(rng.integers(N_ITEMS))
        for step in range(N_STEPS):
            at = START + timedelta(hours=9 * user, minutes=4 * step)
            if item % 8 != 7:
                rows.append((f"u{user}", f"t{item}", 1.0, at, False, False))
            item = circle(item)
    listens = Listens(pl.DataFrame(rows, schema=LISTENS_SCHEMA, orient="row"))
    ids = [f"t{n}" for n in range(N_ITEMS)]
    empty = {name: [None] * N_ITEMS for name in TRACKS_SCHEMA.names()}
    artists = [f"artist {n // 8}" for n in range(N_ITEMS)]
    genres: list[list[str]] = [[] for _ in ids]
    tracks = Tracks(pl.DataFrame(empty | {"track_id": ids, "artist": artists, "genres": genres}, TRACKS_SCHEMA))
    return BaselineData.of(plays_of(listens, ids), tracks, None, None, listens)


@cache
def fitted(name: str) -> Ranker:
    baseline: Baseline = BY_NAME[name]
    quick = {name: value for name, value in QUICK.items() if name in baseline.space}
    return baseline.fit(material(), baseline.defaults | quick, 0)


def moments_of(histories: list[list[int]], heard: list[list[int]] | None = None, n_items: int = N_ITEMS) -> Moments:
    """Requests of people who played these, and heard others before."""
    heard = histories if heard is None else heard
    counts = np.zeros((len(histories), n_items), dtype=np.float32)
    for row, items in enumerate(heard):
        counts[row, items] = 1
    starts = np.concatenate([[0], np.cumsum([len(items) for items in histories])]).astype(np.int64)
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    seconds = (1_400_000_000 + np.arange(len(items))).astype(np.uint32)
    return Moments(csr_matrix(counts), Histories(starts, items, seconds), np.full(len(histories), 1_500_000_000))


ASKED = moments_of([[1, 4], [9], [], [16, 19, 22], list(range(8))], [[1, 4], [9], [], [16, 19, 22], list(range(23))])


@pytest.mark.parametrize("candidates", [None, np.array([7, 12, 23, 3, 0], np.int32), np.zeros(0, np.int32)])
@pytest.mark.parametrize("k", [1, 6, 40])
@pytest.mark.parametrize("name", NAMES)
def test_what_was_played_is_left_out_and_all_else_is_ranked_best_first(
    name: str, k: int, candidates: Int32 | None
) -> None:
    ranker = fitted(name)
    assert isinstance(ranker, Following)
    assert BY_NAME[name].for_anyone
    ranked = ranker.rank_at(ASKED, k, candidates)
    assert ranked.items.shape == ranked.scores.shape == (len(ASKED), k)
    for row in range(len(ASKED)):
        open_items = set(range(N_ITEMS) if candidates is None else candidates.tolist())
        open_items -= set(ASKED.counts[[row]].indices.tolist())
        n_open = min(k, len(open_items))
        items, scores = ranked.items[row], ranked.scores[row]
        assert len(set(items[:n_open].tolist()) & open_items) == n_open
        assert (items[n_open:] == NO_ITEM).all()
        assert np.isneginf(scores[n_open:]).all()
        assert (np.diff(scores[:n_open]) <= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_rows_know_nothing_of_each_other(name: str) -> None:
    ranker = fitted(name)
    assert isinstance(ranker, Following)
    batch = ranker.rank_at(ASKED, 5)
    for row in range(len(ASKED)):
        alone = ranker.rank_at(ASKED.rows(np.array([row])), 5)
        assert alone.items[0].tolist() == batch.items[row].tolist()
        assert alone.scores[0].tolist() == batch.scores[row].tolist()


@pytest.mark.parametrize("name", ["transitions", "next-sum", "sasrec", "sasrec-artists"])
def test_a_planted_next_track_is_first(name: str) -> None:
    """Turned around, as if the history stood latest first, another track would be first."""
    ranker = fitted(name)
    assert isinstance(ranker, Following)
    pairs = [(item, circle(item)) for item in range(N_ITEMS) if item % 8 != 7 and circle(item) % 8 != 7]
    asked = moments_of([[item // 8 * 8 + (item + 5) % 8, item] for item, _ in pairs], [[] for _ in pairs])
    first = ranker.rank_at(asked, 1).items[:, 0]
    assert (first == [after for _, after in pairs]).mean() > 0.9


@pytest.mark.parametrize("name", ["session-co-listening", "session-knn", "recent-artists"])
def test_the_circle_of_the_last_tracks_is_found(name: str) -> None:
    ranker = fitted(name)
    assert isinstance(ranker, Following)
    found = ranker.rank_at(moments_of([[17, 1], [1, 17]]), 4).items // 8
    assert (found[0] == 0).all()
    assert (found[1] == 2).all()


@pytest.mark.parametrize("name", ["recent-artists", "next-sum", "sasrec-artists"])
def test_a_track_that_nobody_played_is_found_by_its_artist(name: str) -> None:
    ranker = fitted(name)
    assert isinstance(ranker, Following)
    unplayed = np.array([7, 15, 23], dtype=np.int32)
    assert ranker.rank_at(moments_of([[1, 4], [12, 9], [16]]), 1, unplayed).items[:, 0].tolist() == [7, 15, 23]


def test_recent_plays_weigh_by_halves_or_by_a_line() -> None:
    moments = moments_of([[3, 5, 3, 1], [], [2]], n_items=6)
    halves = recent(moments, 1.0, 3).toarray()
    assert halves[0].tolist() == [0, 1, 0, 0.5, 0, 0.25]  # 3 by its last play, and the first is too old
    assert halves[1].sum() == 0
    assert recent(moments, 1.0, 4, linear=True).toarray()[0].tolist() == [0, 1, 0, 0.75, 0, 0.5]
    scaled = to_one(csr_matrix(np.array([[0, 2, 4], [0, 0, 0]], dtype=np.float32)))
    assert scaled.toarray().tolist() == [[0, 0.5, 1], [0, 0, 0]]


def timeline() -> Timeline:
    """User 0: 1 2 2 3, a pause of 31 minutes, 1 2; user 1: 3 1."""
    items = np.array([1, 2, 2, 3, 1, 2, 3, 1], dtype=np.int32)
    minutes = np.array([0, 3, 6, 36, 67, 70, 0, 30])
    return Timeline(np.array([0] * 6 + [1] * 2, dtype=np.int32), items, 60 * minutes.astype(np.int64))


def test_transitions_and_sessions_are_counted_by_hand() -> None:
    assert timeline().sessions().tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    one = transitions(timeline(), 4).toarray()
    assert one.tolist() == [[0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1], [0, 1, 0, 0]]
    two = transitions(timeline(), 4, reach=2, backward=0.5).toarray()
    assert two[1].tolist() == [0, 0, 2 + 0.5, 0.5 * 1]  # 1 to 2 a step and two steps on, and 3 to 1 turned around
    assert together(timeline(), 4).toarray().tolist() == [[0, 0, 0, 0], [0, 0, 2, 2], [0, 2, 0, 1], [0, 2, 1, 0]]
    less = damped(csr_matrix(one), np.array([0, 4, 9, 1]), 0.5, 1.0).toarray()
    assert less[1, 2] == pytest.approx(2 / 2 / 9)


def test_a_timeline_has_what_is_dated_and_not_disliked() -> None:
    at = START + timedelta(minutes=1)
    rows = [
        ("b", "x", 1.0, at, False, False),
        ("a", "y", 1.0, None, False, False),
        ("a", "y", 1.0, at, False, False),
        ("a", "x", 1.0, START, False, False),
        ("a", "z", 1.0, START, False, False),
        ("a", "z", 0.0, at, False, True),
        ("c", "x", 1.0, START, False, False),
    ]
    listens = Listens(pl.DataFrame(rows, schema=LISTENS_SCHEMA, orient="row"))
    found = Timeline.of(listens, plays_of(listens, ["x", "y", "z"], ["a", "b"]))
    assert found.users.tolist() == [0, 0, 1]
    assert found.items.tolist() == [0, 1, 0]
    assert (np.diff(found.seconds[:2]) == 60).all()
    assert len(Timeline.none().sessions()) == 0


def test_windows_overlap_by_a_play_and_targets_are_new_to_them() -> None:
    n = HISTORY + 3
    users = np.array([0] * n + [1] + [2] * 3, dtype=np.int32)
    items = np.concatenate([np.arange(n), [7], [4, 4, 5]]).astype(np.int32)
    found = windows(Timeline(users, items, np.zeros(len(users), np.int64)))
    assert [row[row >= 0].tolist() for row in found] == [
        list(range(HISTORY + 1)),
        [HISTORY, HISTORY + 1, HISTORY + 2],
        [4, 4, 5],
    ]
    assert new_targets(found).sum(axis=1).tolist() == [HISTORY, 2, 1]
    assert new_targets(found)[2, :3].tolist() == [False, True, False]
