"""Parts of a blend, made up: some for users and tracks that have plays, and more for tracks that have none."""

import numpy as np
from scipy.sparse import csr_matrix

from recsys.cf.als import confidence, solve_rows
from recsys.hybrid.blend import Blend, Part, join, profile_weights
from recsys.types import Float32
from recsys.util.topk import unit_rows

N_USERS, N_ITEMS, SCALE = 7, 13, 2.5
NO_PLAYS = 4  # this user has none
WEIGHTS = {"als": 2.0, "lightfm": 0.5, "content": 1.5, "popularity": 0.25}
N_LISTENERS = np.array([3, 1, 0, 2, 5, 1, 1, 0, 2, 4, 1, 2, 1], np.int32)
KNOWN = N_LISTENERS > 0


def some_counts() -> csr_matrix:
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 9, (N_USERS, N_ITEMS)) * (rng.random((N_USERS, N_ITEMS)) < 0.4)
    counts[NO_PLAYS] = 0
    return csr_matrix(counts.astype(np.float32))


def some_parts() -> list[Part]:
    """Parts as the fit makes them: users solved on ``some_counts`` against random items."""
    rng = np.random.default_rng(0)
    counts = some_counts()
    items = rng.normal(0, 3, (N_ITEMS, 3)).astype(np.float32)
    gram = (0.4 * items.T @ items).astype(np.float32)
    users = solve_rows(confidence(counts, SCALE), items, gram, 0.9)
    lightfm_users = np.hstack([rng.normal(size=(N_USERS, 2)), np.ones((N_USERS, 1))]).astype(np.float32)
    lightfm_users[NO_PLAYS] = 0
    lightfm_items = rng.normal(0, 0.2, (N_ITEMS, 3)).astype(np.float32)
    content = unit_rows(rng.normal(size=(N_ITEMS, 4)).astype(np.float32))
    return [
        Part("als", users, items, "solve", gram, 0.9, confidence_scale=SCALE),
        Part("lightfm", lightfm_users, lightfm_items, "solve", np.eye(2, dtype=np.float32), 0.1, True, SCALE),
        Part("content", np.asarray(profile_weights(counts) @ content, np.float32), content, "mean"),
        Part(
            "popularity",
            np.ones((N_USERS, 1), np.float32),
            np.log1p(N_LISTENERS)[:, None].astype(np.float32),
            "constant",
        ),
    ]


def joined(weights: dict[str, float] = WEIGHTS) -> tuple[Blend, Float32, Float32]:
    return join(some_parts(), weights, N_LISTENERS)


HAS_PLAYS = np.arange(N_USERS) != NO_PLAYS


def parts_with_new() -> list[Part]:
    """The parts, a second one that is solved with a confidence of its own, and the level of unplayed tracks."""
    rng = np.random.default_rng(4)
    items = rng.normal(0, 2, (N_ITEMS, 2)).astype(np.float32)
    gram = (0.7 * items.T @ items).astype(np.float32)
    users = solve_rows(confidence(some_counts(), 0.3), items, gram, 1.4)
    users[NO_PLAYS] = 0
    return [
        *some_parts(),
        Part("mapped", users, items, "solve", gram, 1.4, confidence_scale=0.3),
        Part("new", np.ones((N_USERS, 1), np.float32), (~KNOWN)[:, None].astype(np.float32), "level"),
    ]


LEVEL = -1.75
OF_NEW = {"als": 0.5, "content": 3.0}


def joined_with_new(of_new: dict[str, float] | None = None, level: float = LEVEL) -> tuple[Blend, Float32, Float32]:
    return join(parts_with_new(), {**WEIGHTS, "mapped": 0.8, "new": level}, N_LISTENERS, of_new)
