"""Neighbours: as by brute force, never the track itself, and nothing for tracks without a vector."""

import numpy as np
import pytest

from benchmarks.listens import made_listens
from recsys.cf.als import ALSSettings, fit_als
from recsys.ranking.neighbours import BLOCK, NeighbourSettings, find_neighbours
from recsys.types import NO_ITEM, Float32, Int32, Neighbours
from recsys.util.progress import Bar, Silent
from recsys.util.topk import unit_rows


def found(vectors: Float32, depth: int = 4, rows: Int32 | None = None, **settings: int) -> Neighbours:
    rows = 3 * np.arange(len(vectors), dtype=np.int32) + 5 if rows is None else rows
    return find_neighbours(rows, vectors, "sound", NeighbourSettings(depth=depth, **settings), Silent())


def clusters(n: int, d: int = 8, seed: int = 0) -> Float32:
    """Vectors of any length around a few directions."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(25, d))
    vectors = centres[rng.integers(0, 25, n)] + 0.3 * rng.normal(size=(n, d))
    return np.asarray(vectors * rng.uniform(0.1, 20, (n, 1)), dtype=np.float32)


def test_neighbours_are_those_of_brute_force() -> None:
    vectors = clusters(41)
    result = found(vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    best = np.argsort(-cosine, axis=1)[:, :4]
    assert result.rows.tolist() == (3 * np.arange(41) + 5).tolist()
    assert result.items.tolist() == (3 * best + 5).tolist()
    np.testing.assert_allclose(result.scores, np.take_along_axis(cosine, best, axis=1), atol=1e-5)
    assert (result.items.dtype, result.scores.dtype, result.space) == (np.int32, np.float32, "sound")


def test_a_track_is_never_its_own_neighbour_even_among_twins() -> None:
    vectors = clusters(30)
    vectors[:12] = vectors[0]
    result = found(vectors, depth=7)
    assert not (result.items == result.rows[:, None]).any()
    assert (result.items != NO_ITEM).all()
    twins = set(result.rows[:12].tolist())
    for items, scores in zip(result.items[:12], result.scores[:12], strict=True):
        assert set(items.tolist()) <= twins
        assert len(set(items.tolist())) == 7
        np.testing.assert_allclose(scores, 1, atol=1e-5)


def test_equal_scores_stand_by_row() -> None:
    vectors = np.array([[1, 0], [1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    result = found(vectors, depth=4, rows=np.arange(5, dtype=np.int32))
    assert result.items[:4].tolist() == [[1, 2, 3, 4], [0, 2, 3, 4], [0, 1, 3, 4], [0, 1, 2, 4]]
    assert result.items[4].tolist() == [0, 1, 2, 3]


def test_tracks_without_a_vector_have_no_neighbours_and_are_nobodys() -> None:
    vectors = clusters(9)
    vectors[[0, 5]] = 0
    result = found(vectors, depth=8)
    assert result.rows.tolist() == [8, 11, 14, 17, 23, 26, 29]
    assert not np.isin(result.items, [5, 20]).any()
    assert (result.items[:, 6:] == NO_ITEM).all()  # six others
    assert np.isneginf(result.scores[:, 6:]).all()
    assert (result.items[:, :6] != NO_ITEM).all()


@pytest.mark.parametrize("n", [0, 1])
def test_a_lonely_track_has_none(n: int) -> None:
    result = found(np.ones((n, 3), np.float32))
    assert result.items.tolist() == [[NO_ITEM] * 4] * n
    assert result.scores.shape == (n, 4)


def test_a_few_cells_hold_nearly_all() -> None:
    vectors = clusters(3000)
    exact, fast = found(vectors, depth=10), found(vectors, depth=10, exact_below=100, n_probe=24)
    assert not (fast.items == fast.rows[:, None]).any()
    shared = [len(set(a.tolist()) & set(b.tolist())) for a, b in zip(exact.items, fast.items, strict=True)]
    assert np.mean(shared) / 10 > 0.95
    assert not np.array_equal(exact.items, found(vectors, depth=10, exact_below=100, n_probe=1).items)


def test_cells_that_are_all_looked_into_give_what_brute_force_gives() -> None:
    vectors = clusters(1500)
    vectors[::100] = vectors[0]  # equals, in order of their rows
    vectors[[3, 77]] = 0
    rows = np.sort(np.random.default_rng(1).permutation(9000)[:1500]).astype(np.int32)
    exact, cells = found(vectors, depth=12, rows=rows), found(vectors, 12, rows, exact_below=0, n_probe=10**6)
    assert cells.rows.tolist() == exact.rows.tolist()
    assert np.array_equal(cells.items, exact.items)
    assert np.array_equal(cells.scores, exact.scores)


def test_a_cell_with_too_few_tracks_leaves_places_empty() -> None:
    vectors = np.vstack([np.eye(2, dtype=np.float32)[[0] * 30], np.eye(2, dtype=np.float32)[[1] * 3]])
    result = found(vectors, depth=5, exact_below=0, n_probe=1)
    lonely = result.items[30:]
    assert ((lonely == NO_ITEM) | (lonely >= 3 * 30 + 5)).all()
    assert (np.isneginf(result.scores[30:]) == (lonely == NO_ITEM)).all()
    assert (lonely[:, 2:] == NO_ITEM).all()


@pytest.mark.slow
def test_the_default_finds_neighbours_in_factors_of_listens() -> None:
    plays = made_listens(20_000, 60_000, 1_000_000).plays
    vectors = fit_als(plays, ALSSettings(epochs=5)).item_factors
    vectors = vectors[plays.n_listeners > 0]
    assert len(vectors) > NeighbourSettings().exact_below
    fast = found(vectors, 50)
    some = np.random.default_rng(0).choice(len(vectors), 1000, replace=False)
    unit = unit_rows(vectors)
    cosine = unit[some] @ unit.T
    cosine[np.arange(len(some)), some] = -2
    best = 3 * np.argpartition(-cosine, 50, axis=1)[:, :50] + 5
    hits = [len(np.intersect1d(best[at], fast.items[row])) / 50 for at, row in enumerate(some)]
    assert 0.95 <= np.mean(hits) < 1


class Counted(Silent):
    done = 0

    def bar(self, description: str, total: int, unit: str) -> "Counted":  # type: ignore[override]
        self.total, self.done = total, 0
        return self

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done += n


def test_blocks_join_without_a_seam_and_the_bar_gets_to_its_end() -> None:
    vectors = clusters(BLOCK + 3, d=3)
    told = Counted()
    rows = np.arange(len(vectors), dtype=np.int32)
    result = find_neighbours(rows, vectors, "sound", NeighbourSettings(depth=2), told)
    assert told.done == told.total == BLOCK + 3
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row in (0, BLOCK - 1, BLOCK, BLOCK + 2):
        cosine = unit @ unit[row]
        cosine[row] = -2
        assert cosine[result.items[row, 0]] == pytest.approx(cosine.max(), abs=1e-5)
