"""Peers: one contract for all of them, and what each must find in planted tastes."""

from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from eval.baselines.base import Baseline, Choice
from eval.baselines.features import BaselineData
from eval.baselines.rankers import ByVectors
from eval.baselines.registry import BASELINES, NAMES, WITHOUT_FEATURES
from eval.baselines.simple import Ranker
from recsys.catalogue.listens import plays_of
from recsys.errors import DataError
from recsys.types import NO_ITEM, TAGS_SCHEMA, TRACKS_SCHEMA, Int32, Listens, Plays, Tags, Tracks

N_USERS, N_ITEMS, N_TASTES = 61, 90, 3
COLD = np.arange(75, 90, dtype=np.int32)
BY_NAME = {baseline.name: baseline for baseline in BASELINES}
QUICK = {"n_factors": 8, "hidden": 32, "K": 40, "epochs": 40, "learning_rate": 0.05}  # where a peer has these
QUICK_L2 = {"cease": 30.0}  # of 75 tracks; the others' is 1 at most


def taste_of_item(item: int) -> int:
    return item % N_TASTES


def planted() -> tuple[Plays, Tracks, Tags, tuple[Int32, np.ndarray], Listens]:
    """Users play one taste of three; an artist, tags and sound belong to one. The last 15 tracks have no plays.

    Each user's plays are one evening, in any order.

    User 0 has heard nothing, user 1 all tracks of taste 1 but two; each user dislikes one track.
    """
    rng = np.random.default_rng(4)
    tastes = np.arange(N_ITEMS) % N_TASTES
    heard = (rng.random((N_USERS, N_ITEMS)) < 0.45) & (np.arange(N_USERS)[:, None] % N_TASTES == tastes)
    heard[0] = False
    heard[1] = tastes == 1
    heard[1, [1, 4]] = False
    heard[:, COLD] = False
    barred = np.zeros_like(heard)
    barred[np.arange(N_USERS), rng.integers(0, N_ITEMS, N_USERS)] = True
    barred &= ~heard
    counts = csr_matrix(heard * rng.integers(1, 6, heard.shape), dtype=np.float32)
    ids = [f"u{n}" for n in range(N_USERS)], [f"t{n}" for n in range(N_ITEMS)]
    listens = evening(counts, ids, rng)
    plays = Plays(counts, csr_matrix(barred), *ids, plays_of(listens, ids[1], ids[0]).histories)
    artists = [f"artist {taste_of_item(n)}-{n // N_TASTES % 4}" for n in range(N_ITEMS)]
    tracks = pl.DataFrame({"track_id": ids[1], "artist": artists})
    missing = {name: pl.lit(None, dtype) for name, dtype in TRACKS_SCHEMA.items() if name not in tracks.columns}
    missing["genres"] = pl.lit([], TRACKS_SCHEMA["genres"])
    shuffled = tracks.with_columns(**missing).select(TRACKS_SCHEMA.names()).cast(dict(TRACKS_SCHEMA))
    tags = [
        (f"t{n}", f"tag {taste_of_item(n)} {m}", float(rng.integers(1, 50))) for n in range(N_ITEMS) for m in (0, 1)
    ]
    tags += [(f"t{n}", "music", 5.0) for n in range(N_ITEMS)]
    sound = rng.normal(0, 0.3, (N_ITEMS, 4)) + 5 + np.eye(N_TASTES, 4)[tastes]
    return (
        plays,
        Tracks(shuffled.sample(fraction=1, shuffle=True, seed=1)),
        Tags(pl.DataFrame(tags, schema=TAGS_SCHEMA, orient="row")),
        (np.arange(N_ITEMS, dtype=np.int32), sound.astype(np.float32)),
        listens,
    )


def evening(counts: csr_matrix, ids: tuple[list[str], list[str]], rng: np.random.Generator) -> Listens:
    """A row a play, three minutes apart."""
    users, items = (
        np.repeat(counts.tocoo().row, counts.data.astype(int)),
        np.repeat(counts.indices, counts.data.astype(int)),
    )
    order = rng.permutation(len(users))
    order = order[np.argsort(users[order], kind="stable")]
    place = np.arange(len(users)) - np.searchsorted(users[order], users[order])
    frame = pl.DataFrame(
        {
            "user_id": [ids[0][user] for user in users[order]],
            "track_id": [ids[1][item] for item in items[order]],
            "plays": np.ones(len(users)),
            "listened_at": pl.from_epoch(pl.Series(1_400_000_000 + 180 * place), "s"),
            "liked": [False] * len(users),
            "disliked": [False] * len(users),
        }
    )
    return Listens(frame.with_columns(pl.col("listened_at").dt.cast_time_unit("us").dt.replace_time_zone("UTC")))


@cache
def material() -> BaselineData:
    return BaselineData.of(*planted())


def quick(baseline: Baseline) -> dict[str, object]:
    params = baseline.defaults | {name: value for name, value in QUICK.items() if name in baseline.space}
    params |= {"epochs": 12} if "n_sampled" in params else {}  # one of SASRec's costs more
    l2 = QUICK_L2.get(baseline.name, 1.0)
    return params | ({"l2": l2} if params.get("l2", 0) > 1 else {})  # squared norms of a small catalogue


@cache
def fitted(name: str) -> Ranker:
    baseline = BY_NAME[name]
    return baseline.fit(material(), quick(baseline), 3)


def closed_items(user: int) -> set[int]:
    plays = material().plays
    return {*plays.counts[[user]].indices.tolist(), *plays.barred[[user]].indices.tolist()}


EVERYONE = np.arange(N_USERS, dtype=np.int32)
SOME = np.array([80, 3, 1, 76, 4, 89, 12, 2], dtype=np.int32)


@pytest.mark.parametrize("candidates", [None, SOME, np.zeros(0, dtype=np.int32)], ids=["all", "some", "none"])
@pytest.mark.parametrize("k", [1, 7, 120])
@pytest.mark.parametrize("name", NAMES)
def test_exactly_the_open_candidates_are_ranked_best_first(name: str, k: int, candidates: Int32 | None) -> None:
    ranked = fitted(name).rank(EVERYONE, k, candidates)
    assert ranked.items.shape == ranked.scores.shape == (N_USERS, k)
    assert (ranked.items.dtype, ranked.scores.dtype) == (np.int32, np.float32)
    allowed = set(range(N_ITEMS)) if candidates is None else set(candidates.tolist())
    for user in EVERYONE:
        open_items = allowed - closed_items(user)
        n_open = min(k, len(open_items))
        items, scores = ranked.items[user], ranked.scores[user]
        assert set(items[:n_open].tolist()) <= open_items
        assert len(set(items[:n_open].tolist())) == n_open
        assert (items[n_open:] == NO_ITEM).all()
        assert np.isneginf(scores[n_open:]).all()
        assert np.isfinite(scores[:n_open]).all()
        assert (np.diff(scores[:n_open]) <= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_users_one_by_one(name: str) -> None:
    users = np.array([7, 0, 60, 1], dtype=np.int32)
    batch = fitted(name).rank(users, 9)
    for place, user in enumerate(users):
        alone = fitted(name).rank(np.array([user], dtype=np.int32), 9)
        assert batch.items[place].tolist() == alone.items[0].tolist()
        assert batch.scores[place].tolist() == alone.scores[0].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_lists(name: str) -> None:
    baseline = BY_NAME[name]
    again = baseline.fit(BaselineData.of(*planted()), quick(baseline), 3).rank(EVERYONE, 15)
    first = fitted(name).rank(EVERYONE, 15)
    assert (again.items == first.items).all()
    assert (again.scores == first.scores).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "artist-popularity"])
def test_a_planted_taste_is_recovered_among_all_tracks(name: str) -> None:
    users = np.arange(2, N_USERS, dtype=np.int32)
    items = fitted(name).rank(users, 5).items
    right = items % N_TASTES == (users % N_TASTES)[:, None]
    assert right[items != NO_ITEM].mean() > 0.9


@pytest.mark.parametrize("name", [p.name for p in BASELINES if p.ranks_cold and p.name != "artist-popularity"])
def test_a_planted_taste_is_recovered_among_cold_tracks(name: str) -> None:
    users = np.arange(1, N_USERS, dtype=np.int32)
    items = fitted(name).rank(users, 3, COLD).items
    right = items % N_TASTES == (users % N_TASTES)[:, None]
    assert right[items != NO_ITEM].mean() > 0.9


@pytest.mark.parametrize("name", [p.name for p in BASELINES if not p.ranks_cold])
def test_tracks_without_plays_come_last_where_nothing_tells_them_apart(name: str) -> None:
    users = np.arange(2, N_USERS, dtype=np.int32)
    items = fitted(name).rank(users, N_ITEMS - 40).items
    n_warm = N_ITEMS - len(COLD)
    for row in items:
        found = row[row != NO_ITEM]
        first_cold = np.flatnonzero(found >= n_warm)
        if name != "ease":  # its weights of tracks with different listeners fall below nothing
            assert not len(first_cold) or (found[first_cold[0] :] >= n_warm).all()
        assert not len(first_cold) or first_cold[0] >= 5


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_in_the_space_and_are_json(name: str) -> None:
    for dimension in BY_NAME[name].space.values():
        if isinstance(dimension, Choice):
            assert all(isinstance(option, int | float | str) for option in dimension.options)
        else:
            assert dimension.low <= dimension.default <= dimension.high


def test_names_are_told_once() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert {"als", "bpr", "ease", "elsa", "ials", "knn-bm25", "lightfm", "rp3beta"} < WITHOUT_FEATURES
    assert not WITHOUT_FEATURES & {"cease", "ridge", "lightfm-features", "artist-mean"}
    assert not WITHOUT_FEATURES & {"own-artists", "knn-own-artists"}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_is_said(name: str) -> None:
    baseline = BY_NAME[name]
    plays, tracks, _, _, listens = planted()
    bare = BaselineData.of(
        plays, Tracks(tracks.frame.with_columns(artist=pl.lit(None, pl.String))), None, None, listens
    )
    nothing = replace(plays, counts=csr_matrix(plays.counts.shape, dtype=np.float32))
    assert baseline.lacks(material()) == ""
    assert bool(baseline.lacks(bare)) == baseline.uses_features
    timeless = baseline.lacks(BaselineData.of(plays, tracks, *planted()[2:4]))
    assert timeless == ("no play has a time" if "order" in baseline.needs else "")
    assert "no plays" in baseline.lacks(BaselineData.of(nothing, tracks, None, None))


def test_artist_popularity_is_the_listeners_of_the_artist() -> None:
    m = material()
    heard = m.plays.counts.toarray() > 0
    listeners = [int(heard[:, np.flatnonzero(m.metadata.artist == a)].any(axis=1).sum()) for a in m.metadata.artist]
    ranked = fitted("artist-popularity").rank(np.array([0], dtype=np.int32), N_ITEMS)
    kept = ranked.items[0][ranked.items[0] != NO_ITEM]
    assert ranked.scores[0][: len(kept)] == pytest.approx([listeners[item] for item in kept])


def test_own_artists_are_scored_by_plays_with_ties_by_popularity() -> None:
    m = material()
    user = np.array([8], dtype=np.int32)
    counts = m.plays.counts[[8]].toarray()[0]
    per_artist = np.bincount(m.metadata.artist, weights=counts)
    ranked = fitted("own-artists").rank(user, N_ITEMS)
    kept = ranked.items[0][ranked.items[0] != NO_ITEM]
    keys = [(per_artist[m.metadata.artist[item]], m.plays.n_listeners[item]) for item in kept]
    assert keys == sorted(keys, reverse=True)
    assert keys[0][0] == per_artist.max()


def test_a_cold_track_has_the_shrunken_mean_factor_of_its_artist() -> None:
    m, baseline = material(), BY_NAME["artist-mean"]
    params = quick(baseline) | {"shrinkage": 2.0}
    ranker = baseline.fit(m, params, 3)
    factors = m.als(params["n_factors"], params["l2"], params["mean_confidence"], 3).item_factors
    warm = m.plays.n_listeners > 0
    siblings = warm & (m.metadata.artist == m.metadata.artist[80])
    expected = (factors[siblings].sum(axis=0) + 2 * factors[warm].mean(axis=0)) / (siblings.sum() + 2)
    assert ranker.items[80] == pytest.approx(expected, abs=1e-5)  # type: ignore[attr-defined]
    assert ranker.items[5] == pytest.approx(factors[5], abs=1e-6)  # type: ignore[attr-defined]


def test_ease_is_the_closed_form_of_the_paper() -> None:
    m, baseline = material(), BY_NAME["ease"]
    ranker = baseline.fit(m, {"l2": 3.0, "value": "log"}, 0)
    shared = m.plays.n_listeners >= 2
    values = np.log1p(m.plays.counts.toarray())
    x = (values / values[values > 0].mean())[:, shared]
    inverse = np.linalg.inv(x.T @ x + 3 * np.eye(x.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    found = ranker.score(np.array([9], dtype=np.int32))[0]  # type: ignore[attr-defined]
    assert found[shared] == pytest.approx((x @ weights)[9], abs=1e-3)
    assert (found[~shared] == 0).all()


def test_the_ridge_is_the_weighted_closed_form() -> None:
    from eval.baselines.ridge import _solve

    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(20, 3)), rng.normal(size=(20, 2)), rng.uniform(0.1, 1, 20)
    design = np.hstack([x, np.ones((20, 1))])
    penalty = np.diag([2.0, 2.0, 2.0, 1e-6])
    expected = np.linalg.solve(design.T @ (w[:, None] * design) + penalty, design.T @ (w[:, None] * y))
    assert _solve(csr_matrix(x.astype(np.float32)), y, w, 2.0) == pytest.approx(expected, abs=1e-4)


def test_only_the_weightiest_features_of_a_track_are_kept() -> None:
    from eval.baselines.lightfm import most_weighty

    columns = csr_matrix(np.array([[3, 1, 2, 2], [0, 0, 0, 0], [0, 5, 0, 1]], dtype=np.float32))
    assert most_weighty(columns, 2).toarray().tolist() == [[3, 0, 2, 0], [0, 0, 0, 0], [0, 5, 0, 1]]


def test_material_brings_tracks_into_the_rows_of_the_plays() -> None:
    m = material()
    names = [m.vocabulary.artists[n] for n in m.metadata.artist]
    assert names[:4] == ["artist 0-0", "artist 1-0", "artist 2-0", "artist 0-1"]
    assert np.abs(m.sound.mean(axis=0)).max() < 1e-5
    assert m.sound.std(axis=0) == pytest.approx(np.ones(4), abs=1e-4)
    raw = m.tags("raw").toarray()
    assert np.log1p(raw) == pytest.approx(m.tags("log").toarray(), abs=1e-5)
    assert set(np.unique(m.tags("binary").toarray())) == {0.0, 1.0}


def test_factors_are_fitted_once_for_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from eval.baselines import features as module

    calls, real = [], module.fit_als
    monkeypatch.setattr(module, "fit_als", lambda *given: calls.append(1) or real(*given))
    m = BaselineData.of(*planted())
    first, again = m.als(4, 1.0, 5.0, 0), m.als(4, 1.0, 5.0, 0)
    assert first is again
    m.als(4, 2.0, 5.0, 0)
    assert len(calls) == 2


def test_learning_that_diverged_is_an_error() -> None:
    plays = material().plays
    users = np.ones((N_USERS, 2), dtype=np.float32)
    items = np.ones((N_ITEMS, 2), dtype=np.float32)
    items[4, 1] = np.nan
    with pytest.raises(DataError, match="diverged"):
        ByVectors(plays, users, items)
    baseline = BY_NAME["lightfm-features"]
    with pytest.raises(DataError, match="diverged"):
        baseline.fit(material(), quick(baseline) | {"learning_rate": 1e30}, 0)
