"""What is held out: the latest plays where times are known, random ones otherwise, and all plays of new tracks."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from helpers.made import made_plays
from recsys.catalogue.listens import plays_of
from recsys.hybrid.blend import BlendSettings
from recsys.hybrid.validation import MIN_PAIRS, MIN_TRACKS, HeldOut, at_random, hold_out, latest
from recsys.types import LISTENS_SCHEMA, Listens, Plays

N_USERS, N_ITEMS = 30, 45
START = datetime(2020, 1, 1, tzinfo=UTC)


# ---- at random ---------------------------------------------------------------------------------------------------


def some_plays(n_users: int = N_USERS, share: float = 0.4, seed: int = 0) -> Plays:
    rng = np.random.default_rng(seed)
    heard = rng.random((n_users, N_ITEMS)) < share * rng.random((n_users, 1)) * 2
    barred = ~heard & (rng.random(heard.shape) < 0.05)
    return made_plays(heard * rng.integers(1, 20, heard.shape), barred)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 12),
    st.floats(0, 1),
    st.integers(0, 20),
    st.floats(0, 0.99),
    st.floats(0, 0.99),
    st.integers(0, 2**32 - 1),
)
def test_nothing_is_in_both_parts_and_nothing_is_lost(
    n: int, density: float, most: int, share: float, tracks: float, seed: int
) -> None:
    plays = some_plays(n, density, seed)
    asked = BlendSettings(validation_users=most, validation_share=share, validation_tracks=tracks)
    held_out = at_random(plays, asked, seed)
    kept, out = held_out.kept, held_out.pairs.toarray()
    assert not (out & (kept.counts.toarray() > 0)).any()
    assert np.array_equal(np.where(out, plays.counts.toarray(), kept.counts.toarray()), plays.counts.toarray())
    of_played = held_out.pairs_of(~held_out.of_new).toarray().any(axis=1)
    assert of_played.sum() <= most
    assert (np.diff(plays.counts.indptr)[of_played] >= MIN_TRACKS).all()
    assert np.array_equal(kept.barred.toarray(), plays.barred.toarray())
    assert (kept.user_ids, kept.track_ids) == (plays.user_ids, plays.track_ids)
    assert not kept.counts[:, held_out.new].nnz
    assert (np.diff(held_out.new) > 0).all()


def test_about_the_share_asked_for_is_held_out_and_the_seed_decides_which() -> None:
    plays = some_plays(200)
    some = BlendSettings(validation_users=80, validation_share=0.3, validation_tracks=0)
    one, again, other = (at_random(plays, some, seed).pairs.toarray() for seed in (0, 0, 1))
    asked = one.any(axis=1)
    assert 70 <= asked.sum() <= 80
    heard = plays.counts.toarray() > 0
    assert one[asked].sum() / heard[asked].sum() == pytest.approx(0.3, abs=0.05)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_share_of_the_played_tracks_loses_all_plays_of_all_users() -> None:
    plays = some_plays(50)
    counts = plays.counts.toarray()
    counts[:, :5] = 0  # nobody has played these: they are no tracks to take away
    plays = made_plays(counts)
    held_out = at_random(plays, BlendSettings(validation_users=3, validation_tracks=0.25), seed=0)
    assert len(held_out.new) == 10
    assert held_out.new.min() >= 5
    assert held_out.of_new.sum() == 10
    new = held_out.pairs_of(held_out.of_new).toarray()
    assert np.array_equal(new[:, held_out.new], counts[:, held_out.new] > 0)
    assert new.any(axis=1).sum() > 40
    old = held_out.pairs_of(~held_out.of_new).toarray()
    assert old.any(axis=1).sum() == 3
    assert np.array_equal(old | new, held_out.pairs.toarray())
    assert not (old & new).any()
    nobody = at_random(plays, BlendSettings(validation_users=0, validation_tracks=0), seed=0)
    assert not nobody.pairs.nnz
    assert not len(nobody.new)


# ---- by time -----------------------------------------------------------------------------------------------------


def dated(rows: list[tuple[int, int, float, float | None]]) -> Listens:
    """Listens of (user, item, plays, day or None)."""
    cells = [
        (f"u{user}", f"t{item}", plays, None if day is None else START + timedelta(days=day), False, False)
        for user, item, plays, day in rows
    ]
    return Listens(pl.DataFrame(cells, schema=LISTENS_SCHEMA, orient="row"))


# 10 dated listens, so that the last three begin with day 8
ROWS: list[tuple[int, int, float, float | None]] = [
    (0, 0, 1.0, 1), (0, 1, 2.0, 2), (1, 0, 1.0, 3), (1, 2, 1.0, 4), (1, 2, 1.0, 5), (0, 2, 1.0, 6), (1, 3, 1.0, 7),
    (0, 3, 5.0, 8), (0, 1, 3.0, 9), (2, 4, 1.0, 10),
    (2, 0, 7.0, None),
]  # fmt: skip


def held_out_of(rows: list[tuple[int, int, float, float | None]], share: float = 0.3) -> HeldOut:
    listens = dated(rows)
    return latest(plays_of(listens, [f"t{item}" for item in range(6)], ["u0", "u1", "u2"]), listens, share)


def test_what_was_heard_strictly_before_the_cut_is_kept_with_its_plays() -> None:
    kept = held_out_of(ROWS).kept
    # item 1 keeps the plays of day 2, not those of day 9; the listen without a time stays
    assert kept.counts.toarray().tolist() == [[1, 2, 1, 0, 0, 0], [1, 0, 2, 1, 0, 0], [7, 0, 0, 0, 0, 0]]
    tied = [(user, item, plays, 8.0 if day == 7 else day) for user, item, plays, day in ROWS]
    assert held_out_of(tied).kept.counts.toarray()[1].tolist() == [1, 0, 2, 0, 0, 0], "at the cut is not before it"


def test_pairs_to_predict_were_not_there_before_and_are_of_users_who_were() -> None:
    found = held_out_of(ROWS)
    assert {(user, item) for user, item in zip(*found.pairs.nonzero(), strict=True)} == {(0, 3), (2, 4)}
    stranger = [*ROWS[:-1], (2, 0, 7.0, 9.5)]  # all that u2 has heard comes after the cut
    found = held_out_of(stranger)
    assert {(user, item) for user, item in zip(*found.pairs.nonzero(), strict=True)} == {(0, 3)}
    assert not found.kept.counts[2].nnz


def test_tracks_first_heard_after_the_cut_are_new_and_lost_all_plays() -> None:
    found = held_out_of(ROWS)
    assert found.new.tolist() == [4]  # t5 was never heard, t3 was heard before by another user
    assert not found.kept.counts[:, found.new].nnz
    assert found.pairs_of(found.of_new).nonzero()[1].tolist() == [4]
    assert found.pairs_of(~found.of_new).nonzero()[1].tolist() == [3]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.95), st.floats(0, 0.4))
def test_nothing_of_a_held_out_pair_is_kept(seed: int, share: float, undated: float) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        (int(u), int(i), 1.0, None if rng.random() < undated else float(rng.integers(30)))
        for u, i in rng.integers(0, [3, 6], (60, 2))
    ]
    if all(day is None for _, _, _, day in rows):
        return
    found = held_out_of(rows, share)
    plays = plays_of(dated(rows), [f"t{item}" for item in range(6)], ["u0", "u1", "u2"])
    assert not found.pairs.multiply(found.kept.counts > 0).nnz
    assert (found.kept.counts.toarray() <= plays.counts.toarray()).all()
    assert not (found.pairs.toarray() & (plays.counts.toarray() == 0)).any()
    assert found.kept.counts.data.min(initial=1) > 0
    assert np.array_equal(found.of_new, (plays.n_listeners > 0) & (found.kept.n_listeners == 0))


def test_dislikes_stay_barred() -> None:
    listens = dated(ROWS)
    plays = plays_of(listens, [f"t{item}" for item in range(6)], ["u0", "u1", "u2"])
    barred = csr_matrix(([True], ([1], [5])), shape=(3, 6))
    found = latest(Plays(plays.counts, barred, plays.user_ids, plays.track_ids), listens, 0.3)
    assert found.kept.barred.nonzero()[1].tolist() == [5]


# ---- which of the two --------------------------------------------------------------------------------------------


def many(days: list[float | None], n_users: int = 20, n_items: int = 15) -> tuple[Listens, Plays]:
    """Every user hears every track once, in an order of their own, the first tracks on the first of ``days``."""
    rng = np.random.default_rng(0)
    rows = [
        (user, int(item), 1.0, days[place]) for user in range(n_users) for place, item in enumerate(rng.permutation(15))
    ]
    listens = dated(rows)
    return listens, plays_of(listens, [f"t{n}" for n in range(n_items)], [f"u{n}" for n in range(n_users)])


def test_where_times_are_known_the_latest_are_held_out() -> None:
    listens, plays = many([float(day) for day in range(15)])
    found = hold_out(plays, listens, BlendSettings(), seed=0)
    expected = latest(plays, listens, 0.2)
    assert found.pairs.nnz == 20 * 3 >= MIN_PAIRS
    assert np.array_equal(found.pairs.toarray(), expected.pairs.toarray())


@pytest.mark.parametrize("why", ["asked for", "no times", "few times", "no table", "nothing comes last"])
def test_otherwise_random_plays_are(why: str) -> None:
    days: list[float | None] = [float(day) for day in range(15)]
    if why == "no times":
        days = [None] * 15
    if why == "few times":
        days[:8] = [None] * 8
    if why == "nothing comes last":
        days = [1.0] * 14 + [2.0]  # so few on the last day that all of the last share is of day 1
    listens, plays = many(days, n_users=20)
    given = BlendSettings(by_time=why != "asked for")
    found = hold_out(plays, None if why == "no table" else listens, given, seed=3)
    expected = at_random(plays, given, 3)
    assert np.array_equal(found.pairs.toarray(), expected.pairs.toarray())
    assert np.array_equal(found.new, expected.new)


@pytest.mark.parametrize("given", [BlendSettings(validation_share=0), BlendSettings(validation_users=0)])
def test_nothing_is_held_out_where_that_is_asked_for(given: BlendSettings) -> None:
    listens, plays = many([float(day) for day in range(15)])
    found = hold_out(plays, listens, given, 0)
    assert found.kept is plays
    assert found.pairs.nnz == len(found.new) == 0


def test_too_few_pairs_by_time_are_held_out_at_random() -> None:
    """Of two users the last fifth is six pairs of played tracks; and pairs of new tracks do not count."""
    given = BlendSettings()
    listens, plays = many([float(day) for day in range(15)], n_users=2)
    assert 0 < latest(plays, listens, 0.2).pairs.nnz < MIN_PAIRS
    assert np.array_equal(
        hold_out(plays, listens, given, 0).pairs.toarray(), at_random(plays, given, 0).pairs.toarray()
    )
    rows = [(user, item, 1.0, float(item)) for user in range(20) for item in range(15)]  # all hear t12, t13, t14 last
    listens = dated(rows)
    plays = plays_of(listens, plays.track_ids, [f"u{n}" for n in range(20)])
    by_time = latest(plays, listens, 0.2)
    assert by_time.new.tolist() == [12, 13, 14]
    assert by_time.pairs.nnz == 60
    assert np.array_equal(
        hold_out(plays, listens, given, 0).pairs.toarray(), at_random(plays, given, 0).pairs.toarray()
    )
