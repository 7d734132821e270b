"""Where new tracks stand: what played ones may lose is kept, worthless new ones are hidden, good ones are shown."""

import numpy as np
import pytest

from recsys.hybrid.level import STRETCHES, K, Rivals, Standing, level_at_share, level_of_new
from recsys.types import Float32

N_USERS = 120


def rivals(scores: np.ndarray, hits: np.ndarray, wanted: np.ndarray | None = None) -> Rivals:
    """Best first, as lists are."""
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.take_along_axis(hits, order, axis=1)
    n_wanted = hits.sum(axis=1) if wanted is None else wanted
    return Rivals(np.take_along_axis(scores, order, axis=1).astype(np.float32), hits, n_wanted)


def nobody(n: int = N_USERS) -> Float32:
    return np.zeros(n, np.float32)


def each(old: Rivals, new: Rivals, scores: np.ndarray) -> tuple[list[float], list[float], int]:
    """Recall@20 of played and of new tracks in lists of both, user by user, and how many new ones are shown."""
    of_old, of_new, shown = [], [], 0
    for user in range(len(scores)):
        best = np.argsort(-np.concatenate([old.scores[user], scores[user]]), kind="stable")[:K]
        n_old = old.scores.shape[1]
        hits = [bool(old.hits[user, place]) for place in best if place < n_old]
        new_hits = [bool(new.hits[user, place - n_old]) for place in best if place >= n_old]
        shown += len(new_hits)
        if old.wanted[user]:
            of_old.append(sum(hits) / min(old.wanted[user], K))
        if new.wanted[user]:
            of_new.append(sum(new_hits) / min(new.wanted[user], K))
    return of_old, of_new, shown


def recall(old: Rivals, new: Rivals, scores: np.ndarray) -> tuple[float, float, int]:
    of_old, of_new, shown = each(old, new, scores)
    return float(np.mean(of_old or [0])), float(np.mean(of_new or [0])), shown


def standing(old: Rivals, new: Rivals, crowd: Rivals, base: Float32, cost: float) -> tuple[float, float]:
    found = level_of_new(old, new, crowd, base, cost, 40)
    assert found is not None
    assert found.n_new == 40
    return found.stretch, found.level


def paid(old: Rivals, crowd: Rivals, found: tuple[float, float], base: np.ndarray, cost: float) -> bool:
    """Whether played tracks lose no more than they may, less a standard error over users."""
    scores = crowd.scores * np.float32(found[0]) + base[:, None] + np.float32(found[1])
    alone = np.array(each(old, crowd, np.full(scores.shape, -np.inf))[0])
    lost = alone - np.array(each(old, crowd, scores)[0])
    return bool(lost.mean() - lost.std() / np.sqrt(len(lost)) <= cost * alone.mean() + 1e-6)


def of(old: Rivals, new: Rivals, stretch: float, level: float, base: np.ndarray) -> tuple[float, float, int]:
    return recall(old, new, new.scores * np.float32(stretch) + base[:, None] + np.float32(level))


@pytest.mark.parametrize("cost", [0.007, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_played_tracks_lose_no_more_to_the_crowd_than_they_may(seed: int, cost: float) -> None:
    rng = np.random.default_rng(seed)
    old = rivals(rng.normal(1, 1, (N_USERS, 30)), rng.random((N_USERS, 30)) < 0.3)
    new = rivals(rng.normal(0, 1, (N_USERS, 20)), rng.random((N_USERS, 20)) < 0.3)
    crowd = rivals(rng.normal(0.5, 1, (N_USERS, 20)), rng.random((N_USERS, 20)) < 0.1)
    base = rng.normal(0, 0.5, N_USERS).astype(np.float32)
    stretch, level = standing(old, new, crowd, base, cost)
    assert stretch in STRETCHES
    assert paid(old, crowd, (stretch, level), base, cost)
    assert not paid(old, crowd, (stretch, level + 0.3), base, cost), "the level is about the highest that may be"


def test_it_is_the_crowd_that_decides_what_is_lost() -> None:
    """Few new tracks were held out, many are in the catalogue: the best of many stand higher."""
    rng = np.random.default_rng(0)
    old = rivals(rng.normal(0, 1, (N_USERS, 25)), rng.random((N_USERS, 25)) < 0.5)
    few, many = (rivals(rng.normal(loc, 0.3, (N_USERS, 20)), np.ones((N_USERS, 20), bool)) for loc in (0.0, 2.0))
    by_few, by_many = (standing(old, few, crowd, nobody(), 0.02) for crowd in (few, many))
    assert paid(old, many, by_many, nobody(), 0.02)
    assert paid(old, few, by_few, nobody(), 0.02)
    assert not paid(old, many, by_few, nobody(), 0.02)


def test_worthless_new_tracks_are_not_shown_where_every_place_is_worth_something() -> None:
    rng = np.random.default_rng(1)
    old = rivals(rng.normal(0, 1, (N_USERS, 20)), np.ones((N_USERS, 20), bool))
    new = rivals(rng.normal(3, 1, (N_USERS, 20)), np.zeros((N_USERS, 20), bool))  # loud and wrong
    stretch, level = standing(old, new, new, nobody(), 0.0)
    assert of(old, new, stretch, level, nobody())[2] <= 1, "of 2400 places, a tie at most"
    assert of(old, new, 1.0, 0.0, nobody())[2] > 1000


def test_good_new_tracks_are_shown_where_that_costs_nothing() -> None:
    rng = np.random.default_rng(2)
    hits = np.zeros((N_USERS, 30), bool)
    hits[:, :5] = True  # best first: what is wanted of the played ones are the first five
    old = Rivals(-np.sort(-rng.normal(0, 1, (N_USERS, 30)), axis=1).astype(np.float32), hits, hits.sum(axis=1))
    wanted = np.zeros((N_USERS, 20), bool)
    wanted[:, :3] = True
    new = Rivals(-np.sort(-rng.normal(-9, 1, (N_USERS, 20)), axis=1).astype(np.float32), wanted, wanted.sum(axis=1))
    assert of(old, new, 1.0, 0.0, nobody())[1] == 0, "as they are, none is"
    stretch, level = standing(old, new, new, nobody(), 0.01)
    left, found, _ = of(old, new, stretch, level, nobody())
    assert found > 0.5
    assert left > 0.975


@pytest.mark.parametrize(("wanted", "not_wanted", "edge", "best"), [(1.2, 1.0, 2.15, 1.0), (2.5, 3.0, 1.7, 0.5)])
def test_the_stretch_is_that_which_finds_most(wanted: float, not_wanted: float, edge: float, best: float) -> None:
    """Half of the users want new tracks of one score and no old ones, the others want old ones, whose edge is at 2.

    New tracks may rise until the best of those that are not wanted come to 2: the others pass their edge at one
    stretch alone.
    """
    half, jitter = N_USERS // 2, np.random.default_rng(3).uniform(0, 0.02, (N_USERS, 1))
    asks = np.arange(N_USERS) < half
    old_scores = np.where(asks[:, None], edge, 2.0) + jitter + np.linspace(1, 0, 20)
    old = rivals(old_scores, np.repeat(~asks[:, None], 20, axis=1))
    new_scores = np.where(asks[:, None], wanted, not_wanted) - np.linspace(0, 1e-3, 20)
    new = rivals(new_scores, np.repeat(asks[:, None], 20, axis=1))
    stretch, level = standing(old, new, new, nobody(), 0.01)
    assert stretch == best
    assert of(old, new, stretch, level, nobody())[1] > 0
    assert paid(old, new, (stretch, level), nobody(), 0.01)


def test_what_new_tracks_have_besides_is_part_of_their_score() -> None:
    rng = np.random.default_rng(4)
    old = rivals(rng.normal(0, 1, (N_USERS, 25)), rng.random((N_USERS, 25)) < 0.5)
    new = rivals(rng.normal(0, 1, (N_USERS, 20)), rng.random((N_USERS, 20)) < 0.5)
    stretch, level = standing(old, new, new, nobody(), 0.02)
    same, lower = standing(old, new, new, nobody() + np.float32(5), 0.02)
    assert same == stretch
    assert lower == pytest.approx(level - 5, abs=1e-3)


# ---- empty places ------------------------------------------------------------------------------------------------


def test_users_whose_lists_are_short_take_no_part_and_harm_nothing() -> None:
    rng = np.random.default_rng(5)
    scores = rng.normal(0, 1, (N_USERS, 25))
    old_hits, new_hits = rng.random((N_USERS, 25)) < 0.5, rng.random((N_USERS, 20)) < 0.5
    new_scores = rng.normal(0, 1, (N_USERS, 20))
    scores[:30, 12:], old_hits[:30, 12:] = -np.inf, False  # of some, twelve played tracks are left
    new_scores[20:50, 4:], new_hits[20:50, 4:] = -np.inf, False
    new_scores[50:60], new_hits[50:60] = -np.inf, False  # and of some, no new one
    old, new = rivals(scores, old_hits), rivals(new_scores, new_hits)
    stretch, level = standing(old, new, new, nobody(), 0.05)
    assert np.isfinite([stretch, level]).all()
    assert paid(old, new, (stretch, level), nobody(), 0.05)


@pytest.mark.parametrize("what", ["no list is full", "no new track", "both"])
def test_with_nothing_to_compare_new_tracks_have_no_standing(what: str) -> None:
    old_scores, new_scores = np.zeros((7, 22)), np.ones((7, 20))
    if what != "no new track":
        old_scores[:, 19:] = -np.inf
    if what != "no list is full":
        new_scores[:] = -np.inf
    old, new = rivals(old_scores, np.zeros((7, 22), bool)), rivals(new_scores, np.zeros((7, 20), bool))
    assert level_of_new(old, new, new, nobody(7), 0.01, 20) is None


# ---- places ------------------------------------------------------------------------------------------------------


def shown(old: np.ndarray, new: np.ndarray, level: float) -> int:
    """How many of the 20 best of both are new, over all users."""
    joint = np.hstack([old, new + np.float32(level)])
    return int((np.argsort(-joint, axis=1, kind="stable")[:, :K] >= old.shape[1]).sum())


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("n_new", [3, 20, 33])
def test_new_tracks_get_the_share_of_places_that_they_are_to_have(share: float, n_new: int) -> None:
    rng = np.random.default_rng(6)
    old, new = (
        -np.sort(-rng.normal(loc, 1, (N_USERS, n)).astype(np.float32), axis=1) for loc, n in ((0, 25), (5, n_new))
    )
    new[:20, 2:] = -np.inf
    most = N_USERS * min(n_new, K) - 20 * (min(n_new, K) - 2)
    assert shown(old, new, level_at_share(old, new, share)) == min(round(share * N_USERS * K), most)


def test_what_is_told_of_the_places_is_what_the_lists_show() -> None:
    rng = np.random.default_rng(7)
    old = rivals(rng.normal(1, 1, (N_USERS, 30)), rng.random((N_USERS, 30)) < 0.3)
    new = rivals(rng.normal(0, 1, (N_USERS, 20)), rng.random((N_USERS, 20)) < 0.3)
    found = level_of_new(old, new, new, nobody(), 0.1, 20)
    assert isinstance(found, Standing)
    places = shown(old.scores, new.scores * np.float32(found.stretch), found.level)
    assert places == round(found.share * N_USERS * K) > 0
