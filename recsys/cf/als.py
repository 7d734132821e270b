"""Collaborative filtering: play counts in, user and item factors out.

    Plays (n_users, n_items)  ->  fit_als  ->  Factors (n_users, f), (n_items, f)

Implicit-feedback ALS (Hu, Koren & Volinsky, ICDM 2008), fitted by ``implicit``. Sound is not seen here:
a track nobody played has zero item factors until ``recsys.hybrid.prior`` predicts them.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix

from recsys.errors import DataError
from recsys.types import Factors, Float32, Plays
from recsys.util.progress import Progress, Silent
from recsys.util.settings import Settings
from recsys.util.threads import in_numpy_threads


class ALSSettings(Settings):
    """``[hybrid.als]`` and ``[hybrid.wide.als]`` in the run's TOML file."""

    n_factors: int = Field(default=64, ge=1)
    epochs: int = Field(default=15, ge=1)
    l2: float = Field(default=10.0, gt=0)  # weight of the squared norms; at 0 a user of few tracks has no solution
    # scale in c = 1 + scale * log(1 + plays); None: such that played pairs have c = 1 + mean_confidence on the mean.
    # The best scale was 1 where plays are counted in hundreds and 10 where most pairs are played once; a mean of 8 was
    # near it on both.
    confidence_scale: float | None = Field(default=None, gt=0)
    mean_confidence: float = Field(default=8.0, gt=0)  # of played pairs, above the 1 of unplayed ones


STACK = 500_000  # numbers that a thread holds at a time: what a cache holds


def confidence_scale(counts: csr_matrix, settings: ALSSettings) -> float:
    """The scale of the settings, or else the one at which played pairs have their mean; 1 where there are none."""
    if settings.confidence_scale is not None:
        return settings.confidence_scale
    return settings.mean_confidence / float(np.log1p(counts.data).mean()) if counts.nnz else 1.0


def confidence(counts: csr_matrix, scale: float, out: Float32 | None = None) -> csr_matrix:
    """Turn play counts into ALS confidence, c = 1 + scale * log(1 + plays).

    Returns c itself, the quantity ``implicit`` expects, not c - 1. Unplayed pairs stay unstored and mean c = 1.
    Same shape as ``counts``. ``out`` (nnz,) is written to where it is given; it may be the data of ``counts``.
    """
    data = np.log1p(counts.data, dtype=np.float32, out=out)
    data *= np.float32(scale)  # in place, as plays are the largest thing in memory
    data += 1
    return csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)


def fit_als(plays: Plays, settings: ALSSettings, seed: int = 0, progress: Progress | None = None) -> Factors:
    """Fit user and item factors to play counts.

    Args:
        plays: training plays only; held-out listens must already be gone.
        settings: hyper-parameters.
        seed: same plays, settings and seed give the same factors: every row is solved by itself,
            so the number of threads does not matter.
        progress: shows an iteration a step.

    Returns:
        Float32 factors, rows in the order of ``plays``; a user or item without plays is all zeros and takes no part.
        The dot product of a user row and an item row ranks items; its size has no unit.

    Raises:
        DataError: nobody has played anything.
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    if plays.counts.nnz == 0:
        raise DataError("there are 0 plays, and ALS needs at least one; leave it out for this catalogue")
    active = np.flatnonzero(np.diff(plays.counts.indptr))
    with (
        threadpool_limits(1, "blas"),  # implicit's own threads and BLAS's would fight for the cores
        (progress or Silent()).bar("ALS", settings.epochs, "iterations") as bar,
    ):
        model = AlternatingLeastSquares(
            factors=settings.n_factors,
            regularization=settings.l2,
            iterations=settings.epochs,
            alpha=1.0,  # the confidence is complete already
            random_state=seed,
        )
        model.fit(
            without_empty_rows(confidence(plays.counts, confidence_scale(plays.counts, settings)), active),
            show_progress=False,
            callback=lambda *_: bar.advance(),
        )
    if len(active) == len(plays.user_ids):
        return Factors(model.user_factors, model.item_factors)
    user_factors = np.zeros((len(plays.user_ids), settings.n_factors), dtype=np.float32)
    user_factors[active] = model.user_factors
    return Factors(user_factors, model.item_factors)


def without_empty_rows(matrix: csr_matrix, full: NDArray[np.int64]) -> csr_matrix:
    """Keep the rows that hold anything, without a copy of what they hold; columns can be written to, as implicit asks.

    Only those of a mapped file, or of a table with a single pair, cannot, and are copied.
    """
    indptr = np.append(matrix.indptr[full], matrix.indptr[-1:])
    indices = np.require(matrix.indices, requirements="W")
    return csr_matrix((matrix.data, indices, indptr), shape=(len(full), matrix.shape[1]))


def solve_rows(
    confidences: csr_matrix, fixed: Float32, gram: Float32, l2: float | Float32, towards: Float32 | None = None
) -> Float32:
    """Solve one side of ALS exactly, the other side being ``fixed``.

    Row r of the answer is argmin of sum_j c_rj (1 - x.y_j)^2 over stored j, plus x' (gram - sum_j y_j y_j') x for the
    pairs that are not stored, plus l2_r |x - towards_r|^2. Used for the prior's item step and for folding users in.

    Args:
        confidences: (n_rows, n_fixed) csr of c > 0.
        fixed: (n_fixed, f) factors of the other side.
        gram: (f, f), usually fixed'fixed; callers weight or limit it.
        l2: > 0, added to the diagonal; one for all, or one a row (n_rows,).
        towards: (n_rows, f), what a row is drawn to; zero by default.

    Returns:
        (n_rows, f).

    Rows with about as many stored pairs are solved together, as stacks of matrices: in half the time of ``implicit``'s
    own exact solver, which knows one l2 only.
    """
    n_stored = np.diff(confidences.indptr)
    order = np.argsort(n_stored, kind="stable")
    pulls = np.broadcast_to(np.asarray(l2, dtype=np.float32), (len(order),))
    answer = np.empty((len(order), fixed.shape[1]), dtype=np.float32)

    def solve(rows: NDArray[np.int64]) -> None:
        c, y = _stacked(confidences, fixed, rows, int(n_stored[rows[-1]]))
        left = np.matmul((y * (c - (c > 0))[:, :, None]).transpose(0, 2, 1), y) + gram
        diagonal = np.arange(len(gram))
        left[:, diagonal, diagonal] += pulls[rows, None]
        right = np.matmul(c[:, None, :], y)[:, 0]
        if towards is not None:
            right += pulls[rows, None] * towards[rows]
        answer[rows] = np.linalg.solve(left, right[:, :, None])[:, :, 0]

    for _ in in_numpy_threads(solve, _stacks(order, n_stored[order], fixed.shape[1])):
        pass
    return answer


def _stacked(confidences: csr_matrix, fixed: Float32, rows: NDArray[np.int64], width: int) -> tuple[Float32, Float32]:
    """Stored confidences (n, width) and factors (n, width, f) of some rows, confidence 0 where there are fewer."""
    start, stop = confidences.indptr[rows], confidences.indptr[rows + 1]
    place = start[:, None] + np.arange(width)
    stored = place < stop[:, None]
    place = np.where(stored, place, 0)
    c = np.where(stored, confidences.data[place], 0).astype(np.float32)
    return c, fixed[confidences.indices[place]]


def _stacks(order: NDArray[np.int64], n_stored: NDArray[np.int32], f: int) -> list[NDArray[np.int64]]:
    """Cut rows, ordered by how many pairs they store, into stacks of ``STACK`` numbers, or a long row by itself."""
    stacks, start = [], 0
    while start < len(order):
        most = max(1, STACK // (f * max(f, int(n_stored[start]))))
        widest = int(n_stored[min(start + most, len(order)) - 1])
        stop = start + max(1, min(most, STACK // (f * max(f, widest))))
        stacks.append(order[start:stop])
        start = stop
    return stacks
