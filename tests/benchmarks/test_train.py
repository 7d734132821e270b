"""The benchmark of training runs, on next to nothing; what it finds is no test's affair."""

import subprocess
import sys

import numpy as np
import pytest

from benchmarks import scale, train
from benchmarks.listens import made_listens, model_of
from benchmarks.scale import ScaleSizes, shared
from benchmarks.train import Sizes, measure
from recsys.cf.als import ALSSettings
from recsys.ranking.candidates import PoolSettings
from recsys.types import Factors
from recsys.util.progress import Silent

TINY = Sizes(
    n_users=90, n_items=400, n_pairs=1500, als=ALSSettings(n_factors=4, epochs=2), tries=1, n_compared=20,
    scale=ScaleSizes(n_few=500, n_many=1300, n_users=100, n_pairs=9000, epochs=1, n_sample=20, n_list_users=30,
                     n_exact_users=9, n_probe=4, lists=PoolSettings(exact_below=1000, pool=1000)),
)  # fmt: skip


@pytest.mark.slow
def test_every_measurement_gives_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "PROBES", (2,))
    rows = measure(TINY, Silent())
    targets = [row.target for row in rows if row.target]
    assert targets == ["<= 1.15", "<= 2", "<= 1", *["<= 2.5"] * 3, "<= 1/20", ">= 0.95", "<= 3.5", "<= 1.1", ">= 0.97",
                       "<= 1.5"]  # fmt: skip
    assert all(row.found for row in rows)
    assert all((row.met is None) == (not row.target) for row in rows)


def test_listens_follow_a_power_law_and_users_have_tastes() -> None:
    made = made_listens(700, 1000, 20_000)
    counts = made.counts
    assert counts.shape == (700, 1000)
    assert counts.nnz == pytest.approx(20_000, rel=0.03)
    assert counts.has_canonical_format
    assert (counts.indices.dtype, counts.data.dtype) == (np.int32, np.float32)
    assert counts.data.min() >= 1
    n_listeners = np.sort(np.bincount(counts.indices, minlength=1000))[::-1]
    assert n_listeners[5:15].mean() > 4 * n_listeners[100:200].mean() > 8 * n_listeners[800:].mean()
    again, other = made_listens(700, 1000, 20_000), made_listens(700, 1000, 20_000, seed=1)
    assert (again.counts != counts).nnz == 0
    assert (other.counts != counts).nnz > 0


def test_a_model_ranks_by_its_factors() -> None:
    counts = made_listens(5, 400, 200).counts
    rng = np.random.default_rng(0)
    factors = Factors(*(rng.normal(size=(n, 3)).astype(np.float32) for n in counts.shape))
    model = model_of(counts, factors)
    expected = (factors.user_factors @ factors.item_factors.T).argsort(axis=1)
    assert np.array_equal((model.user_vectors @ model.item_vectors.T).argsort(axis=1), expected)


def test_what_lists_share() -> None:
    wanted = np.array([[1, 2, 3], [4, 5, -1]], np.int32)
    assert shared(wanted, np.array([[3, 2, 9], [-1, -1, 5]], np.int32)) == pytest.approx(3 / 5)


def test_the_exact_neighbours_leave_the_track_itself_out() -> None:
    vectors = np.eye(80, dtype=np.float32)
    vectors[:, 0] += 0.5
    vectors[7] = vectors[3]  # its twin may come before it
    items, seconds = scale._exact_neighbours(vectors, np.array([3, 7, 9]))
    assert items.shape == (3, scale.DEPTH)
    assert (items[:2, 0].tolist(), seconds > 0) == ([7, 3], True)
    assert not (items == np.array([[3], [7], [9]])).any()


@pytest.mark.slow
def test_the_peak_is_that_of_the_process_alone() -> None:
    """A child's, while its parent holds more: 200 MB above what it had."""
    code = (
        "import numpy; from benchmarks.children import peak_bytes\n"
        "before = peak_bytes(); numpy.ones(25_000_000); print(peak_bytes() - before)"
    )
    held = np.ones(60_000_000)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(said.stdout) == pytest.approx(200e6, rel=0.05), f"beside {held.nbytes} bytes here"


def test_the_prior_is_the_mean_of_a_tracks_taste() -> None:
    listening = made_listens(5, 400, 100)
    factors = np.arange(800, dtype=np.float32).reshape(400, 2)
    means = train._mean_of_taste(listening, factors)
    own = listening.taste == listening.taste[11]
    np.testing.assert_allclose(means[11], factors[own].mean(axis=0), rtol=1e-5)
