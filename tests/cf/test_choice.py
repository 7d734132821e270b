"""Which ALS: the better of planted ones is found, and whoever sets ALS by hand has chosen."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from helpers.made import made_plays
from recsys.cf import choice as choosing
from recsys.cf.als import ALSSettings
from recsys.cf.choice import ALSChoice, choose_als
from recsys.config import RunSettings
from recsys.hybrid.parts import HybridSettings
from recsys.types import Factors, Plays
from recsys.util.progress import Silent

N_USERS, N_ITEMS = 40, 72
BASE = ALSSettings(n_factors=2, epochs=6, l2=1.0)


def planted(n_kinds: int) -> tuple[Plays, csr_matrix]:
    """Users play ten tracks of one kind each, and are held to four others of it."""
    rng = np.random.default_rng(0)
    counts, held_out = np.zeros((N_USERS, N_ITEMS)), np.zeros((N_USERS, N_ITEMS), dtype=bool)
    for user in range(N_USERS):
        own = rng.permutation(np.flatnonzero(np.arange(N_ITEMS) % n_kinds == user % n_kinds))
        n_kept = len(own) // 2
        counts[user, own[:n_kept]] = 1
        held_out[user, own[n_kept : n_kept + 4]] = True
    return made_plays(counts), csr_matrix(held_out)


def chosen(base: ALSSettings, choice: ALSChoice, n_kinds: int = 6, seed: int = 0) -> ALSSettings:
    return choose_als(*planted(n_kinds), base, choice, seed, Silent())


def test_what_ranks_the_held_out_plays_best_is_chosen() -> None:
    """Six kinds of taste do not go into two factors; belief as good as none ranks by chance."""
    several = ALSChoice(n_factors=(2, 8), l2_and_confidence=((1.0, 8.0),))
    assert chosen(BASE, several).n_factors == 8
    weak = ALSChoice(n_factors=(8,), l2_and_confidence=((1e5, 8.0), (1.0, 8.0)))
    found = chosen(BASE, weak)
    assert (found.n_factors, found.l2, found.mean_confidence, found.confidence_scale) == (8, 1.0, 8.0, None)
    assert found.epochs == BASE.epochs, "what is not tried stays"


def test_of_equals_the_base_stays() -> None:
    good = BASE.model_copy(update={"n_factors": 16, "confidence_scale": 4.0})
    same = ALSChoice(n_factors=(16,), l2_and_confidence=((1.0, 4.0 * float(np.log(2))),))
    assert chosen(good, same) == good
    worse = ALSChoice(n_factors=(1,), l2_and_confidence=((1e6, 1.0),))
    assert chosen(good, worse) == good


def test_every_pair_of_settings_is_tried_once_and_the_base_first() -> None:
    some = ALSChoice(n_factors=(32, 2), l2_and_confidence=((10.0, 8.0), (1.0, 8.0)))
    tried = some.tried(BASE)
    assert tried[0] == BASE
    assert [(s.n_factors, s.l2, s.mean_confidence) for s in tried[1:]] == [(32, 10, 8), (32, 1, 8), (2, 10, 8)]
    assert all(s.epochs == 6 for s in tried)


def no_fit(*_: object) -> Factors:
    raise AssertionError("nothing is to be fitted")


@pytest.mark.parametrize("why", ["disabled", "nothing else to try", "nothing held out", "nothing kept"])
def test_where_nothing_can_be_chosen_nothing_is_fitted(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "fit_als", no_fit)
    plays, pairs = planted(6)
    choice = ALSChoice(enabled=why != "disabled", n_factors=(8,), l2_and_confidence=((1.0, 8.0),))
    if why == "nothing else to try":
        choice = ALSChoice(n_factors=(2,), l2_and_confidence=((1.0, 8.0),))
    if why == "nothing held out":
        pairs = csr_matrix(pairs.shape, dtype=bool)
    if why == "nothing kept":
        plays = made_plays(np.zeros(pairs.shape))
    assert choose_als(plays, pairs, BASE, choice, 0, Silent()) == BASE


def test_a_sample_of_users_keeps_the_judged_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    plays, pairs = planted(6)
    pairs = csr_matrix(pairs.toarray() & (np.arange(N_USERS) % 4 == 0)[:, None])
    fitted: list[Plays] = []
    real = choosing.fit_als

    def recording(plays: Plays, settings: ALSSettings, seed: int) -> Factors:
        fitted.append(plays)
        return real(plays, settings, seed)

    monkeypatch.setattr(choosing, "fit_als", recording)
    few = ALSChoice(n_factors=(8,), l2_and_confidence=((1.0, 8.0),), max_pairs=100)
    assert choose_als(plays, pairs, BASE, few, 0, Silent()).n_factors == 8
    judged = {f"u{user}" for user in range(0, N_USERS, 4)}
    for sample in fitted:
        assert judged < set(sample.user_ids)
        assert 90 <= sample.counts.nnz <= 100
        rows = [int(user[1:]) for user in sample.user_ids]
        assert rows == sorted(rows)
        assert np.array_equal(sample.counts.toarray(), plays.counts[rows].toarray())
    fitted.clear()
    choose_als(plays, pairs, BASE, few.model_copy(update={"max_users": 3, "max_pairs": 18}), 0, Silent())
    assert {len(sample.user_ids) for sample in fitted} == {3}, "no room for others"
    assert set(fitted[0].user_ids) < judged
    fitted.clear()
    choose_als(plays, pairs, BASE, few.model_copy(update={"max_pairs": 10_000}), 0, Silent())
    assert fitted[0].user_ids == plays.user_ids


def test_the_lists_that_are_judged_have_nothing_that_was_heard_and_nothing_nobody_heard() -> None:
    """Those would stand above all else: the held-out tracks are the only others of their kind."""
    plays, pairs = planted(6)
    counts = np.hstack([plays.counts.toarray(), np.zeros((N_USERS, 30))])
    wider = csr_matrix((pairs.data, pairs.indices, pairs.indptr), shape=counts.shape)
    some = ALSChoice(n_factors=(8,), l2_and_confidence=((1.0, 8.0),))
    assert choose_als(made_plays(counts), wider, BASE, some, 0, Silent()).n_factors == 8


# ---- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"n_factors": 8}, {"l2": 1.0}, {"confidence_scale": 2.0}, {"mean_confidence": 9.0}])
def test_who_sets_als_by_hand_has_chosen(given: dict[str, float]) -> None:
    settings = RunSettings.model_validate({"hybrid": {"als": given}})
    assert not settings.hybrid.choice.enabled
    for dumped in (settings.model_dump(), settings.model_dump(exclude_unset=True), settings.model_dump(mode="json")):
        assert RunSettings.model_validate(dumped) == settings


@pytest.mark.parametrize("given", [{}, {"als": {}}, {"als": {"epochs": 3}}, {"lightfm": {"n_factors": 8}}])
def test_other_settings_leave_the_choice_to_the_plays(given: dict[str, object]) -> None:
    settings = RunSettings.model_validate({"hybrid": given})
    assert settings.hybrid.choice == ALSChoice()
    assert settings.hybrid.choice.enabled
    for dumped in (settings.model_dump(), settings.model_dump(exclude_unset=True), settings.model_dump(mode="json")):
        assert RunSettings.model_validate(dumped) == settings


def test_who_asks_for_the_choice_as_well_gets_it() -> None:
    both = {"als": {"n_factors": 8}, "choice": {"n_factors": [8, 16]}}
    assert HybridSettings.model_validate(both).choice.enabled
    assert HybridSettings.model_validate(both).als.n_factors == 8
