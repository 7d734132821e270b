"""Weights of the blend: parts that predict what was held out get the weight, among played tracks and among new ones."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from helpers.made import made_plays
from recsys.hybrid import weights as learning
from recsys.hybrid.blend import Blend, BlendSettings, Part, join
from recsys.hybrid.validation import MIN_PAIRS, HeldOut, at_random
from recsys.hybrid.weights import LEAST, Learned, evenly, learn_weights, settle
from recsys.types import Float32, Plays
from recsys.util.progress import Silent
from recsys.util.topk import top_k

SETTINGS = BlendSettings(validation_tracks=0)
N_USERS, N_ITEMS = 30, 45


def taste_and_noise(n_kinds: int = 3) -> tuple[list[Part], HeldOut]:
    """ALS knows every user's kind of track; content is noise; all tracks are about equally popular."""
    rng = np.random.default_rng(0)
    kind, taste = np.arange(N_ITEMS) % n_kinds, np.arange(N_USERS) % n_kinds
    heard = np.zeros((N_USERS, N_ITEMS))
    for user in range(N_USERS):
        heard[user, rng.choice(np.flatnonzero(kind == taste[user]), 9, replace=False)] = 1
    held_out = at_random(made_plays(heard), SETTINGS, 0)
    jitter = 0.01 * rng.normal(size=(N_ITEMS, n_kinds))
    als = Part(
        "als", np.eye(n_kinds, dtype=np.float32)[taste], (np.eye(n_kinds)[kind] + jitter).astype(np.float32), "mean"
    )
    content = Part(
        "content",
        rng.normal(size=(N_USERS, 4)).astype(np.float32),
        rng.normal(size=(N_ITEMS, 4)).astype(np.float32),
        "mean",
    )
    return [als, content], held_out


def learned(parts: list[Part], held_out: HeldOut, given: BlendSettings = SETTINGS) -> Learned:
    blend, users, items = join(parts, {part.name: 1.0 for part in parts}, held_out.kept.n_listeners)
    return learn_weights(blend, users, items, held_out, given, Silent())


def test_the_part_that_predicts_gets_the_weight() -> None:
    weights = learned(*taste_and_noise()).weights
    assert weights["als"] >= 2 * weights["content"]
    parts, held_out = taste_and_noise()
    swapped = [Part("content", parts[0].user_vectors, parts[0].item_vectors, "mean"),
               Part("als", parts[1].user_vectors, parts[1].item_vectors, "mean")]  # fmt: skip
    weights = learned(swapped, held_out).weights
    assert weights["content"] >= 2 * weights["als"]


def test_given_weights_stay_as_given() -> None:
    some = SETTINGS.model_copy(update={"content": 0.7})
    weights = learned(*taste_and_noise(), some).weights
    assert weights["content"] == 0.7
    assert weights["als"] > 0.7
    both = some.model_copy(update={"als": 0.1})
    assert learned(*taste_and_noise(), both).weights == {"als": 0.1, "content": 0.7}


def test_nothing_held_out_gives_even_weights() -> None:
    parts, held_out = taste_and_noise()
    nothing = HeldOut(held_out.kept, csr_matrix(held_out.pairs.shape, dtype=bool), np.zeros(0, np.int32))
    assert learned(parts, nothing) == Learned({"als": 1.0, "content": 1.0}, {})
    als = SETTINGS.model_copy(update={"als": 3.0})
    assert learned(parts, nothing, als).weights == {"als": 3.0, "content": 1.0}


def test_users_who_kept_no_plays_are_not_asked() -> None:
    parts, held_out = taste_and_noise()
    nobody = made_plays(np.zeros(held_out.pairs.shape))
    assert learned(parts, HeldOut(nobody, held_out.pairs, held_out.new)).weights == {"als": 1.0, "content": 1.0}


# ---- new tracks --------------------------------------------------------------------------------------------------

N, N_TRACKS, UNHEARD = 120, 100, 20  # the last tracks nobody has played; 16 others lose their plays
KIND, TASTE = np.arange(N_TRACKS) % 2, np.arange(N) % 2
WITH_NEW = BlendSettings(validation_tracks=0.2)


def heard() -> Plays:
    """Users play the tracks of their kind, the earlier ones of it rather."""
    rng = np.random.default_rng(0)
    counts = np.zeros((N, N_TRACKS))
    for user in range(N):
        own = np.flatnonzero((TASTE[user] == KIND) & (np.arange(N_TRACKS) < N_TRACKS - UNHEARD))
        chance = np.linspace(2, 1, len(own))
        counts[user, rng.choice(own, 10, replace=False, p=chance / chance.sum())] = 1
    return made_plays(counts)


def old_and_new() -> tuple[list[Part], HeldOut]:
    """ALS knows the kind of played tracks and nothing of new ones; content the other way round. No part knows users."""
    rng = np.random.default_rng(1)
    held_out = at_random(heard(), WITH_NEW, 0)
    unplayed = held_out.kept.n_listeners == 0
    truth, noise = np.eye(2)[KIND] + 0.05 * rng.normal(size=(N_TRACKS, 2)), rng.normal(0, 2, (N_TRACKS, 2))
    users = np.eye(2, dtype=np.float32)[TASTE]
    log_listeners = np.log1p(held_out.kept.n_listeners)[:, None].astype(np.float32)
    return [
        Part("als", users, np.where(unplayed[:, None], noise, truth).astype(np.float32), "mean"),
        Part("content", users, np.where(unplayed[:, None], truth, noise[::-1]).astype(np.float32), "mean"),
        Part("popularity", np.ones((N, 1), np.float32), log_listeners, "constant"),
        Part("new", np.ones((N, 1), np.float32), unplayed[:, None].astype(np.float32), "level"),
    ], held_out


def test_what_is_right_for_new_tracks_is_learned_apart_from_what_is_right_for_the_others() -> None:
    found = learned(*old_and_new(), WITH_NEW)
    assert found.weights["als"] >= 4 * found.weights["content"]
    of_new = {name: found.weights[name] * found.new[name] for name in ("als", "content")}
    assert of_new["content"] >= 4 * of_new["als"]
    assert found.weights["new"] != 0
    assert set(found.new) == {"als", "content"}, "popularity is one number for all new tracks"


def ranked(
    parts: list[Part], held_out: HeldOut, found: Learned, level: float, only_old: bool, but: Any = ()
) -> Float32:
    blend, users, items = join(parts, {**found.weights, "new": level}, held_out.kept.n_listeners, found.new)
    plays, asked = held_out.kept, np.ones(N, dtype=bool)
    among = np.setdiff1d(np.flatnonzero(plays.n_listeners) if only_old else np.arange(N_TRACKS), but)
    left_out = (plays.counts, plays.barred)
    return top_k(blend.queries(users, asked), items, 20, left_out, among.astype(np.int32)).items


def recall(lists: np.ndarray, wanted: csr_matrix) -> float:
    asked = np.flatnonzero(np.diff(wanted.indptr))
    hits = [np.isin(lists[user], wanted[user].indices).sum() / min(wanted[user].nnz, 20) for user in asked]
    return float(np.mean(hits))


@pytest.mark.parametrize("cost", [0.0, 0.05, 0.4])
def test_in_the_lists_that_come_of_it_new_tracks_are_found_at_no_more_than_their_cost(cost: float) -> None:
    parts, held_out = old_and_new()
    found = learned(parts, held_out, WITH_NEW.model_copy(update={"cost_of_new": cost}))
    level = found.weights["new"]
    lists, paying = (ranked(parts, held_out, found, level, only_old=False, but=but) for but in ((), held_out.new))
    old, new = held_out.pairs_of(~held_out.of_new), held_out.pairs_of(held_out.of_new)
    alone = recall(ranked(parts, held_out, found, level, only_old=True), old)
    assert recall(paying, old) >= (1 - cost) * alone - 0.03, (
        "among as many new ones as there are; about one standard error"
    )
    assert recall(lists, new) > 0.15 or cost < 0.4
    flood = ranked(parts, held_out, found, 1000.0, only_old=False)
    assert recall(flood, old) < 0.3 * alone


def test_the_more_they_may_cost_the_higher_they_stand() -> None:
    costs = (0.0, 0.05, 0.1)
    found = [learned(*old_and_new(), WITH_NEW.model_copy(update={"cost_of_new": cost})) for cost in costs]
    assert found[0].new == found[1].new == found[2].new, "the stretch is the same"
    levels = [one.weights["new"] for one in found]
    assert levels[0] < levels[1] < levels[2]


def test_given_weights_are_those_of_new_tracks_too() -> None:
    given = WITH_NEW.model_copy(update={"als": 1.0, "content": 0.5, "popularity": 0.25})
    found = learned(*old_and_new(), given)
    assert found.weights == {"als": 1.0, "content": 0.5, "popularity": 0.25, "new": found.weights["new"]}


def test_where_popularity_alone_is_to_rank_nothing_is_learned_of_new_tracks() -> None:
    given = WITH_NEW.model_copy(update={"als": 0.0, "content": 0.0, "popularity": 1.0})
    assert learned(*old_and_new(), given) == Learned({"als": 0.0, "content": 0.0, "popularity": 1.0, "new": 0.0}, {})


def test_of_too_few_pairs_of_new_tracks_nothing_is_learned() -> None:
    parts, held_out = old_and_new()
    pairs = held_out.pairs.tocoo()
    of_new = np.flatnonzero(held_out.of_new[pairs.col])
    keep = np.ones(pairs.nnz, dtype=bool)
    keep[of_new[MIN_PAIRS - 1 :]] = False
    few = csr_matrix((pairs.data[keep], (pairs.row[keep], pairs.col[keep])), shape=pairs.shape)
    found = learned(parts, HeldOut(held_out.kept, few, held_out.new), WITH_NEW)
    assert found.new == {}
    assert found.weights["als"] > found.weights["content"]


def test_a_part_that_new_tracks_alone_need_gets_a_little_of_the_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    real = learning._search

    def search(task: Any, names: Any, weights: Any, free: Any, title: str, progress: Any) -> dict[str, float]:
        found = real(task, names, weights, free, title, progress)
        return {**found, "als": 2.0, "content": 0.0} if title == "blend: weights" else found

    monkeypatch.setattr(learning, "_search", search)
    found = learned(*old_and_new(), WITH_NEW)
    assert found.weights["content"] == LEAST * max(found.weights[name] for name in ("als", "content", "popularity")) > 0
    of_new = {name: found.weights[name] * found.new[name] for name in ("als", "content")}
    assert of_new["content"] >= 4 * of_new["als"] > 0, "the other is kept small, not lost"
    given = learned(*old_and_new(), WITH_NEW.model_copy(update={"content": 0.0}))
    assert given.weights["content"] == 0, "a part that was turned off stays off"
    assert "content" not in given.new


# ---- another fit -------------------------------------------------------------------------------------------------


def settled(found: Learned, louder: float, kept: Plays, share: float | None = None) -> tuple[int, int, int]:
    """Places of new tracks, louder than those that the level was learned with: at that level, settled, and of how many.

    The lists are those of users with five tracks, no two of whom are the same.
    """
    parts, _ = old_and_new()
    blend, users, items = join(parts, found.weights, kept.n_listeners, {p: louder * x for p, x in found.new.items()})
    users[:, :4] *= np.random.default_rng(2).uniform(0.8, 1.2, (N, 4)).astype(np.float32)
    some = np.flatnonzero(np.diff(kept.counts.indptr) >= 5)

    def places(chosen: Blend) -> int:
        queries = chosen.queries(users[some], np.ones(len(some), dtype=bool))
        lists = top_k(queries, items, 20, (kept.counts[some], kept.barred[some])).items
        return int((kept.n_listeners == 0)[lists].sum())

    return places(blend), places(settle(found, blend, users, items, kept, share)), 20 * len(some)


@pytest.mark.parametrize("louder", [0.3, 3.0])
def test_in_another_fit_new_tracks_get_the_places_that_they_had_where_their_level_was_learned(louder: float) -> None:
    held_out = old_and_new()[1]
    found = learned(*old_and_new(), WITH_NEW.model_copy(update={"cost_of_new": 0.1}))
    assert found.standing is not None
    assert found.standing.n_new == UNHEARD
    as_learned, carried, n_places = settled(found, louder, held_out.kept)
    expected = found.standing.share * n_places
    assert carried == pytest.approx(expected, abs=1)
    assert abs(as_learned - expected) > 0.3 * expected, "the level itself does not carry over"


def test_fewer_new_tracks_get_fewer_places_and_of_very_few_the_level_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = old_and_new()[1]
    found = learned(*old_and_new(), WITH_NEW.model_copy(update={"cost_of_new": 0.1}))
    assert found.standing is not None
    crowded = replace(found, standing=replace(found.standing, n_new=4 * int((held_out.kept.n_listeners == 0).sum())))
    _, carried, n_places = settled(crowded, 1.0, held_out.kept)
    assert carried == pytest.approx(found.standing.share * n_places / 4, abs=1)
    monkeypatch.setattr(learning, "MIN_NEW", 1 + int((held_out.kept.n_listeners == 0).sum()))
    as_learned, carried, _ = settled(crowded, 1.0, held_out.kept)
    assert carried == as_learned
    as_learned, carried, _ = settled(replace(found, standing=None), 1.0, held_out.kept)
    assert carried == as_learned


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("is_learned", [True, False])
def test_a_share_that_is_given_is_what_new_tracks_get(share: float, is_learned: bool) -> None:
    """Whether held-out plays told anything of them or not."""
    found = learned(*old_and_new(), WITH_NEW)
    if not is_learned:
        found = replace(found, standing=None)
    as_learned, carried, n_places = settled(found, 1.0, old_and_new()[1].kept, share)
    assert carried == pytest.approx(share * n_places, abs=1)
    assert carried != as_learned


def test_a_share_of_new_tracks_that_are_not_there_changes_nothing() -> None:
    parts, held_out = old_and_new()
    blend, users, items = join(parts[:3], {"als": 1.0, "content": 1.0, "popularity": 1.0}, held_out.kept.n_listeners)
    found = Learned({"als": 1.0, "content": 1.0, "popularity": 1.0}, {})
    assert settle(found, blend, users, items, held_out.kept, 0.2) is blend


def test_where_new_tracks_stand_is_told_by_users_of_some_tracks_if_there_are_any() -> None:
    counts = csr_matrix(np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]], np.float32))
    everybody = np.ones(5, dtype=bool)
    assert evenly(counts, everybody, 9, 3).tolist() == [0, 4]
    assert evenly(counts, everybody, 9, 5).tolist() == [0, 1, 3, 4], "nobody has five: whoever has any"
    assert evenly(counts, np.arange(5) != 4, 9, 3).tolist() == [0]
    assert evenly(counts, everybody, 2, 1).tolist() == [0, 4]
