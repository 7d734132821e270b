"""Weights of the blend: what is held out, and that parts which predict it get the weight."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import made_plays
from scipy.sparse import csr_matrix

from recsys.hybrid.blend import BlendSettings, Part, join
from recsys.hybrid.weights import MIN_TRACKS, hold_out, learn_weights
from recsys.progress import Silent
from recsys.types import Plays

SETTINGS = BlendSettings()
N_USERS, N_ITEMS = 30, 45


def some_plays(n_users: int = N_USERS, share: float = 0.4, seed: int = 0) -> Plays:
    rng = np.random.default_rng(seed)
    heard = rng.random((n_users, N_ITEMS)) < share * rng.random((n_users, 1)) * 2
    barred = ~heard & (rng.random(heard.shape) < 0.05)
    return made_plays(heard * rng.integers(1, 20, heard.shape), barred)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 12), st.floats(0, 1), st.integers(0, 20), st.floats(0, 0.99), st.integers(0, 2**32 - 1)
)  # fmt: skip
def test_nothing_is_in_both_parts_and_nothing_is_lost(
    n: int, density: float, most: int, share: float, seed: int
) -> None:
    plays = some_plays(n, density, seed)
    kept, held_out = hold_out(plays, BlendSettings(validation_users=most, validation_share=share), seed)
    out = held_out.toarray()
    assert not (out & (kept.counts.toarray() > 0)).any()
    assert np.array_equal(np.where(out, plays.counts.toarray(), kept.counts.toarray()), plays.counts.toarray())
    asked = out.any(axis=1)
    assert asked.sum() <= most
    assert (np.diff(plays.counts.indptr)[asked] >= MIN_TRACKS).all()
    assert np.array_equal(kept.barred.toarray(), plays.barred.toarray())
    assert (kept.user_ids, kept.track_ids) == (plays.user_ids, plays.track_ids)


def test_about_the_share_asked_for_is_held_out_and_the_seed_decides_which() -> None:
    plays = some_plays(200)
    some = BlendSettings(validation_users=80, validation_share=0.3)
    one, again, other = (hold_out(plays, some, seed)[1].toarray() for seed in (0, 0, 1))
    asked = one.any(axis=1)
    assert 70 <= asked.sum() <= 80
    heard = plays.counts.toarray() > 0
    assert one[asked].sum() / heard[asked].sum() == pytest.approx(0.3, abs=0.05)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def taste_and_noise(n_kinds: int = 3) -> tuple[list[Part], Plays, csr_matrix]:
    """ALS knows every user's kind of track; content is noise; all tracks are about equally popular."""
    rng = np.random.default_rng(0)
    kind, taste = np.arange(N_ITEMS) % n_kinds, np.arange(N_USERS) % n_kinds
    heard = np.zeros((N_USERS, N_ITEMS))
    for user in range(N_USERS):
        heard[user, rng.choice(np.flatnonzero(kind == taste[user]), 9, replace=False)] = 1
    kept, held_out = hold_out(made_plays(heard), SETTINGS, 0)
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
    return [als, content], kept, held_out


def learned(parts: list[Part], kept: Plays, held_out: csr_matrix, given: BlendSettings = SETTINGS) -> dict[str, float]:
    blend, users, items = join(parts, {part.name: 1.0 for part in parts}, kept.n_listeners)
    return learn_weights(blend, users, items, kept, held_out, given, Silent())


def test_the_part_that_predicts_gets_the_weight() -> None:
    weights = learned(*taste_and_noise())
    assert weights["als"] >= 2 * weights["content"]
    parts, kept, held_out = taste_and_noise()
    swapped = [Part("content", parts[0].user_vectors, parts[0].item_vectors, "mean"),
               Part("als", parts[1].user_vectors, parts[1].item_vectors, "mean")]  # fmt: skip
    weights = learned(swapped, kept, held_out)
    assert weights["content"] >= 2 * weights["als"]


def test_given_weights_stay_as_given() -> None:
    weights = learned(*taste_and_noise(), BlendSettings(content=0.7))
    assert weights["content"] == 0.7
    assert weights["als"] > 0.7
    assert learned(*taste_and_noise(), BlendSettings(content=0.7, als=0.1)) == {"als": 0.1, "content": 0.7}


def test_nothing_held_out_gives_even_weights() -> None:
    parts, kept, held_out = taste_and_noise()
    nothing = csr_matrix(held_out.shape, dtype=bool)
    assert learned(parts, kept, nothing) == {"als": 1.0, "content": 1.0}
    assert learned(parts, kept, nothing, BlendSettings(als=3.0)) == {"als": 3.0, "content": 1.0}


def test_users_who_kept_no_plays_are_not_asked() -> None:
    parts, kept, held_out = taste_and_noise()
    counts = kept.counts.toarray()
    counts[:] = 0
    assert learned(parts, made_plays(counts), held_out) == {"als": 1.0, "content": 1.0}
