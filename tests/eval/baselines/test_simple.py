"""Baselines: one contract for all that rank, and what each is known to rank first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from eval.baselines import simple
from eval.baselines.simple import Part, Popularity, Random, Ranker
from recsys.types import NO_ITEM, Candidates, Int32, Plays

N_USERS, N_ITEMS = 9, 23


def some_plays(n_users: int = N_USERS, n_items: int = N_ITEMS) -> Plays:
    """Sparse random plays; user 0 heard all but two items, user 1 nothing; some pairs are disliked."""
    rng = np.random.default_rng(0)
    heard = rng.random((n_users, n_items)) < 0.3
    heard[0], heard[1] = True, False
    heard[0, [2, 5]] = False
    barred = ~heard & (rng.random((n_users, n_items)) < 0.1)
    barred[0] = False
    counts = csr_matrix(heard * rng.integers(1, 9, heard.shape), dtype=np.float32)
    ids = [f"u{row}" for row in range(n_users)], [f"t{row}" for row in range(n_items)]
    return Plays(counts, csr_matrix(barred), *ids)


@dataclass(frozen=True)
class FakeRecommender:
    """Ranks by item row, the last first; part 'first' ranks the first first."""

    plays: Plays
    parts: Sequence[str] = ("first",)

    def rank(
        self, user_ids: Sequence[str], k: int, candidates: Int32 | None = None, *, part: str | None = None
    ) -> Candidates:
        n_items = len(self.plays.track_ids)
        allowed = range(n_items) if candidates is None else sorted(candidates.tolist())
        sign = -1.0 if part == "first" else 1.0
        items = np.full((len(user_ids), k), NO_ITEM, dtype=np.int32)
        scores = np.full((len(user_ids), k), -np.inf, dtype=np.float32)
        for place, user_id in enumerate(user_ids):
            row = self.plays.user_ids.index(user_id)
            closed = {*self.plays.counts[row].indices, *self.plays.barred[row].indices}
            best = sorted((item for item in allowed if item not in closed), key=lambda item: -sign * item)[:k]
            items[place, : len(best)] = best
            scores[place, : len(best)] = sign * np.array(best)
        return Candidates(items, scores)


PLAYS = some_plays()
EVERYONE = np.arange(N_USERS, dtype=np.int32)
RANKERS: dict[str, Callable[[Plays], Ranker]] = {
    "random": lambda plays: Random(plays, seed=3),
    "popularity": lambda plays: Popularity(plays, seed=3),
    "hybrid": lambda plays: Part(FakeRecommender(plays), plays.user_ids, None),
    "hybrid/first": lambda plays: Part(FakeRecommender(plays), plays.user_ids, "first"),
}


@pytest.fixture(params=RANKERS)
def ranker(request: pytest.FixtureRequest) -> Ranker:
    return RANKERS[request.param](PLAYS)


def closed_items(user: int) -> set[int]:
    return {*PLAYS.counts[[user]].indices.tolist(), *PLAYS.barred[[user]].indices.tolist()}


@pytest.mark.parametrize("candidates", [None, np.array([1, 2, 5, 7, 11, 22], dtype=np.int32)])
@pytest.mark.parametrize("k", [1, 4, 40])
def test_exactly_the_open_candidates_are_ranked_best_first(ranker: Ranker, k: int, candidates: Int32 | None) -> None:
    ranked = ranker.rank(EVERYONE, k, candidates)
    assert ranked.items.shape == (N_USERS, k)
    allowed = set(range(N_ITEMS)) if candidates is None else set(candidates.tolist())
    for user in EVERYONE:
        n_open = min(k, len(allowed - closed_items(user)))
        items, scores = ranked.items[user], ranked.scores[user]
        assert set(items[:n_open].tolist()) <= allowed - closed_items(user)
        assert len(set(items[:n_open].tolist())) == n_open
        assert (items[n_open:] == NO_ITEM).all()
        assert np.isneginf(scores[n_open:]).all()
        assert (np.diff(scores[:n_open]) <= 0).all()
        assert np.isfinite(scores[:n_open]).all()


def test_a_batch_is_its_users_one_by_one(ranker: Ranker, monkeypatch: pytest.MonkeyPatch) -> None:
    users = np.array([4, 0, 8, 1], dtype=np.int32)
    batch = ranker.rank(users, 6)
    monkeypatch.setattr(simple, "_BLOCK_USERS", 2)
    in_blocks = ranker.rank(users, 6)
    for place, user in enumerate(users):
        alone = ranker.rank(np.array([user], dtype=np.int32), 6)
        for one in (batch, in_blocks):
            assert one.items[place].tolist() == alone.items[0].tolist()
            assert one.scores[place].tolist() == alone.scores[0].tolist()


def test_a_part_ranks_by_itself() -> None:
    user = np.array([1], dtype=np.int32)
    barred = closed_items(1)
    ranked = {name: RANKERS[name](PLAYS).rank(user, N_ITEMS).items[0] for name in ("hybrid", "hybrid/first")}
    assert ranked["hybrid/first"][0] == min(set(range(N_ITEMS)) - barred)
    assert ranked["hybrid"][0] == max(set(range(N_ITEMS)) - barred)


def test_no_candidates_give_empty_lists(ranker: Ranker) -> None:
    ranked = ranker.rank(EVERYONE, 3, np.zeros(0, dtype=np.int32))
    assert (ranked.items == NO_ITEM).all()


@pytest.mark.parametrize("name", ["random", "popularity"])
def test_the_seed_decides(name: str) -> None:
    kind = {"random": Random, "popularity": Popularity}[name]
    first, again, other = (kind(PLAYS, seed).rank(EVERYONE, 9).items for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_popularity_counts_listeners_not_plays() -> None:
    counts = csr_matrix(
        np.array([[0, 1, 50, 0], [0, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=np.float32)
    )
    plays = Plays(counts, csr_matrix(counts.shape, dtype=bool), list("abcde"), list("wxyz"))
    ranked = Popularity(plays).rank(np.array([3, 1], dtype=np.int32), 4)
    assert ranked.items.tolist() == [[1, 3, 2, 0], [2, 0, NO_ITEM, NO_ITEM]]
    assert ranked.scores[0].tolist() == [3, 2, 1, 0]


def test_ties_of_popularity_do_not_follow_the_table() -> None:
    plays = Plays(
        csr_matrix((3, 50), dtype=np.float32),
        csr_matrix((3, 50), dtype=bool),
        list("abc"),
        [str(n) for n in range(50)],
    )
    tops = {int(Popularity(plays, seed).rank(np.array([0], dtype=np.int32), 1).items[0, 0]) for seed in range(30)}
    assert len(tops) > 15


def test_random_is_uniform_over_items_and_differs_between_users() -> None:
    n_users, n_items, k = 4000, 40, 5
    nothing = csr_matrix((n_users, n_items), dtype=np.float32)
    ids = [str(n) for n in range(n_users)], [str(n) for n in range(n_items)]
    plays = Plays(nothing, nothing.astype(bool), *ids)
    items = Random(plays).rank(np.arange(n_users, dtype=np.int32), k).items
    share = np.bincount(items.ravel(), minlength=n_items) / n_users
    assert np.abs(share - k / n_items).max() < 0.03
    assert len(np.unique(items, axis=0)) == n_items  # each user reads the circle from one of its places
