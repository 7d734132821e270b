"""iALS, CEASE, ELSA, RP3beta, neighbours with own artists: each against its formula on small data."""

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from eval.baselines import cease, ease, elsa, ials, rp3beta
from eval.baselines.features import BaselineData, valued, with_mean_one
from eval.baselines.simple import Popularity
from recsys.errors import DataError
from recsys.types import NO_ITEM
from tests.eval.baselines.test_registry import BY_NAME, N_ITEMS, N_TASTES, N_USERS, fitted, material, quick

NEW = ("ials", "ease", "cease", "elsa", "rp3beta", "knn-own-artists")
USERS = np.arange(2, N_USERS, dtype=np.int32)


def mean_one(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / values[values > 0].mean())


def heard(m: BaselineData) -> np.ndarray:
    return np.asarray(m.plays.counts.toarray())


@pytest.mark.parametrize("name", NEW)
def test_planted_tastes_are_found_better_than_by_popularity(name: str) -> None:
    def share(items: np.ndarray) -> float:
        right = items % N_TASTES == (USERS % N_TASTES)[:, None]
        return float(right[items != NO_ITEM].mean())

    found = share(fitted(name).rank(USERS, 6).items)
    assert found > 2 * share(Popularity(material().plays).rank(USERS, 6).items)


@pytest.mark.parametrize("name", ["ials", "elsa"])
def test_another_seed_gives_other_vectors(name: str) -> None:
    again = BY_NAME[name].fit(material(), quick(BY_NAME[name]) | {"epochs": 1}, 4)
    first = BY_NAME[name].fit(material(), quick(BY_NAME[name]) | {"epochs": 1}, 3)
    assert np.abs(again.items - first.items).max() > 1e-3  # type: ignore[attr-defined]


def ials_loss(x: np.ndarray, y: np.ndarray, c: np.ndarray, params: dict[str, Any]) -> float:
    """The objective, over the weight of the unplayed, pair by pair."""
    played = c > 1
    scores = x @ y.T
    n_users, n_items = int(played.any(axis=1).sum()), int(played.any(axis=0).sum())
    w0, power = params["unplayed_weight"], params["l2_power"]
    others = w0 if params["l2_counts"] == "all" else 0
    of_user = (others * n_items + played.sum(axis=1)) ** power
    of_item = (others * n_users + played.sum(axis=0)) ** power
    norms = (of_user * (x**2).sum(axis=1)).sum() + (of_item * (y**2).sum(axis=1)).sum()
    return float((c * (played - scores) ** 2).sum() + params["l2"] / w0 * norms)


@pytest.mark.parametrize(("power", "counts"), [(1.0, "seen"), (1.0, "all"), (0.5, "all")])
def test_ials_ends_where_no_item_could_do_better(power: float, counts: str) -> None:
    m = material()
    params = {"n_factors": 3, "unplayed_weight": 0.2, "l2": 0.05, "l2_power": power, "l2_counts": counts, "epochs": 5}
    c = 1 + mean_one(np.log1p(heard(m))) / 0.2
    users, items = ials._factors(csr_matrix(np.where(heard(m) > 0, c, 0).astype(np.float32)), params, 1)
    x, y = users.astype(np.float64), items.astype(np.float64)
    best = ials_loss(x, y, c, params)
    rng = np.random.default_rng(0)
    for item in (0, 7, 40):
        for step in rng.normal(0, 0.02, (6, 3)):
            moved = y.copy()
            moved[item] += step
            assert ials_loss(x, moved, c, params) > best
    assert (items[m.plays.n_listeners == 0] == 0).all()
    assert (users[0] == 0).all()  # who has heard nothing


def test_ials_lowers_its_objective_with_every_epoch() -> None:
    m = material()
    params = {"n_factors": 3, "unplayed_weight": 0.2, "l2": 0.05, "l2_power": 1.0, "l2_counts": "seen"}
    c = np.where(heard(m) > 0, 1 + heard(m), 1).astype(np.float32)
    stored = csr_matrix(np.where(heard(m) > 0, c, 0))
    losses = [
        ials_loss(*(side.astype(float) for side in ials._factors(stored, params | {"epochs": n}, 1)), c, params)
        for n in (1, 2, 4, 8)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.99 * losses[0]


def test_cease_is_the_closed_form_with_features_as_listeners() -> None:
    m = material()
    params = {"l2": 4.0, "feature_weight": 0.7, "tag_value": "log", "value": "binary"}
    ranker = BY_NAME["cease"].fit(m, params, 0)
    kept = m.plays.n_listeners >= 2
    features = 0.7 * mean_one(m.columns("log").toarray()).T
    plays = (heard(m) > 0).astype(float)
    rows = np.vstack([plays, features])
    known = rows[:, kept]
    inverse = np.linalg.inv(known.T @ known + 4 * np.eye(known.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    scores = ranker.score(np.array([9, 30], dtype=np.int32))  # type: ignore[attr-defined]
    assert scores[:, kept] == pytest.approx((plays[:, kept] @ weights)[[9, 30]], abs=2e-4)
    ridge = np.linalg.solve(known.T @ known + 4 * np.eye(known.shape[1]), known.T @ rows[:, ~kept])
    assert scores[:, ~kept] == pytest.approx((plays[:, kept] @ ridge)[[9, 30]], abs=2e-4)
    assert np.abs(scores[:, ~kept]).max() > 0.01


def test_cease_without_weight_of_features_is_ease() -> None:
    m, user = material(), np.array([11], dtype=np.int32)
    alone = BY_NAME["ease"].fit(m, {"l2": 5.0, "value": "log"}, 0)
    params = {"l2": 5.0, "feature_weight": 0.0, "tag_value": "log", "value": "log"}
    kept = m.plays.n_listeners >= 2
    found = BY_NAME["cease"].fit(m, params, 0).score(user)[0]  # type: ignore[attr-defined]
    assert found[kept] == pytest.approx(alone.score(user)[0][kept], abs=1e-4)  # type: ignore[attr-defined]


def test_of_too_many_items_the_most_heard_predict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "MAX_ITEMS", 20)
    listeners = material().plays.n_listeners
    chosen = ease.predictors(listeners)
    assert len(chosen) == 20
    assert (np.diff(chosen) > 0).all()
    assert listeners[chosen].min() >= np.delete(listeners, chosen).max()
    scores = BY_NAME["cease"].fit(material(), quick(BY_NAME["cease"]), 0).score(USERS)  # type: ignore[attr-defined]
    assert (np.abs(np.delete(scores, chosen, axis=1)).max(axis=0) > 0).all()  # all others are predicted
    assert ease.predictors(np.array([1, 0, 1], dtype=np.int32)).tolist() == []


def test_the_gram_matrix_and_its_inverse_are_made_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "_BLOCK_ROWS", 7)
    dense = np.random.default_rng(0).random((30, 17)).astype(np.float32)
    gram = ease.gram_of(csr_matrix(dense))
    assert gram == pytest.approx(dense.T @ dense, rel=1e-5)
    inverse = ease.inverse_of(gram.copy(), 2.0)
    assert inverse @ (dense.T @ dense + 2 * np.eye(17)) == pytest.approx(np.eye(17), abs=1e-4)
    with pytest.raises(DataError, match="give a larger l2"):
        ease.inverse_of(np.full((2, 2), -1, dtype=np.float32), 0.5)


def test_the_loss_of_elsa_is_the_distance_of_unit_users() -> None:
    import torch

    rng = np.random.default_rng(0)
    users, vectors = rng.random((4, 6)).astype(np.float32), rng.normal(size=(6, 3)).astype(np.float32)
    users /= np.linalg.norm(users, axis=1, keepdims=True)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    back = users @ (unit @ unit.T - np.eye(6))
    back /= np.linalg.norm(back, axis=1, keepdims=True)
    found = float(elsa._loss(torch.from_numpy(users), torch.from_numpy(vectors)))
    assert found == pytest.approx(((back - users) ** 2).sum(axis=1).mean(), rel=1e-5)


def test_elsa_ranks_by_unit_items_and_lowers_its_loss() -> None:
    import torch

    m, baseline = material(), BY_NAME["elsa"]
    params = quick(baseline) | {"value": "log"}
    ranker = baseline.fit(m, params, 3)
    shared = m.plays.n_listeners >= 2
    items = ranker.items[:, :-1]  # type: ignore[attr-defined]
    assert np.linalg.norm(items[shared], axis=1) == pytest.approx(np.ones(shared.sum()), abs=1e-5)
    assert (items[~shared] == 0).all()
    expected = np.log1p(heard(m)) @ items
    assert ranker.users[:, :-1] == pytest.approx(expected, rel=1e-4, abs=1e-4)  # type: ignore[attr-defined]
    start = baseline.fit(m, params | {"epochs": 1, "learning_rate": 1e-9}, 3).items  # type: ignore[attr-defined]
    rows = mean_one(np.log1p(heard(m)))[1:, shared]
    users = torch.from_numpy((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    before, after = (float(elsa._loss(users, torch.from_numpy(v[shared]))) for v in (start[:, :-1], items))
    assert after < 0.7 * before


def test_walks_of_three_steps_by_hand() -> None:
    """Two users, three items: u0 hears a twice and b once, u1 hears b and c once each."""
    taste = csr_matrix(np.array([[2, 1, 0], [0, 1, 1]], dtype=np.float32))
    params = {"power": 1.0, "beta": 0.0, "K": 3, "scaled_to": "nothing"}
    # from a to u0, on to b by 1/3; from b to each user by 1/2, on to a by 2/3, to c by 1/2; from c to u1, to b by 1/2
    expected = [[0, 1 / 3, 0], [1 / 3, 0, 1 / 4], [0, 1 / 2, 0]]
    assert rp3beta._walks(taste, params).toarray() == pytest.approx(np.array(expected))
    damped = rp3beta._walks(taste, params | {"beta": 1.0}).toarray()  # b has two listeners
    assert damped == pytest.approx(np.array([[0, 1 / 6, 0], [1 / 3, 0, 1 / 4], [0, 1 / 4, 0]]))
    squared = rp3beta._walks(taste, params | {"power": 2.0}).toarray()
    assert squared[1] == pytest.approx([1 / 4 * 4 / 9, 0, 1 / 4 * 1 / 4])
    assert rp3beta._walks(taste, params | {"K": 1}).toarray()[1].tolist() == pytest.approx([1 / 3, 0, 0])
    summed = rp3beta._walks(taste, params | {"scaled_to": "sum"}).toarray()
    assert summed.sum(axis=1) == pytest.approx(np.ones(3))


def test_walks_are_made_in_blocks_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    taste, params = valued(material().plays.counts, "log"), BY_NAME["rp3beta"].defaults
    whole = rp3beta._walks(taste, params).toarray()
    monkeypatch.setattr(rp3beta, "_BLOCK_ITEMS", 7)
    assert (rp3beta._walks(taste, params).toarray() == whole).all()


def test_neighbours_and_own_artists_add_up() -> None:
    m, users = material(), np.array([0, 8, 9], dtype=np.int32)
    params = quick(BY_NAME["knn-own-artists"]) | {"similarity": "cosine", "artist_weight": 0.4}
    near = BY_NAME["knn-cosine"].fit(m, params, 0).score(users)  # type: ignore[attr-defined]
    own = BY_NAME["own-artists"].fit(m, {"value": "log"}, 0).score(users)  # type: ignore[attr-defined]
    largest = [np.maximum(part.max(axis=1, keepdims=True), 1e-9) for part in (near, own)]
    found = BY_NAME["knn-own-artists"].fit(m, params, 0).score(users)  # type: ignore[attr-defined]
    assert found == pytest.approx(near / largest[0] + 0.4 * own / largest[1], abs=1e-6)
    assert (found[0] == 0).all()  # who has heard nothing
    other = BY_NAME["knn-own-artists"].fit(m, params | {"similarity": "bm25"}, 0).score(users)  # type: ignore[attr-defined]
    assert np.abs(other - found).max() > 1e-3


def test_a_matrix_has_a_mean_of_one() -> None:
    scaled = with_mean_one(csr_matrix(np.array([[0, 2, 4, 6]], dtype=np.float32)))
    assert scaled.toarray().tolist() == [[0, 0.5, 1, 1.5]]
    assert with_mean_one(csr_matrix((2, 3), dtype=np.float32)).nnz == 0


def test_the_ranges_hold_the_known_optima() -> None:
    """On hetrec-lastfm EASE wants l2 = 1,500 for log(1 + plays), whose mean there is 5.5."""
    for name in ("ease", "cease"):
        l2 = BY_NAME[name].space["l2"]
        assert 2 * l2.low < 1500 / 5.5**2 < 0.5 * l2.high  # type: ignore[union-attr]
    assert BY_NAME["elsa"].defaults["n_factors"] == 128
    assert BY_NAME["cease"].ranks_cold
    assert N_ITEMS != N_USERS
    assert cease.CEASE.needs == "features"
