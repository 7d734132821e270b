"""Who would like a track most: each user by their own standard, block by block, without those who know the track."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys.ranking import audience as module
from recsys.ranking.audience import Reached, audience

ITEM, N_ITEMS = 2, 4
EDGES = np.array([1.0, 9.0, 2.0, 4.0, -np.inf, 5.0, 3.0], dtype=np.float32)  # the score at place 20 of each user
TASTES = np.array([[3, 0], [9, 1], [6, 0], [5, 0], [8, 0], [9, 9], [0, 1]], dtype=np.float32)
VECTOR = np.array([1.0, 2.0], dtype=np.float32)
# scores 3 11 6 5 8 27 2; margins 2 2 4 1 (inf) 22 -1


def pairs(*users: int, item: int = ITEM) -> csr_matrix:
    found = np.zeros((len(EDGES), N_ITEMS), dtype=np.float32)
    found[list(users), item] = 1
    return csr_matrix(found)


def model(counts: csr_matrix | None = None, barred: csr_matrix | None = None, **changes: Any) -> Any:
    """A model whose queries are the users' vectors, 10 in the place of those without plays."""
    blend = SimpleNamespace(queries=lambda users, has_plays: np.where(has_plays[:, None], users, np.float32(10)))
    none = pairs()
    return SimpleNamespace(
        users=range(len(EDGES)), user_vectors=TASTES, has_plays=np.ones(len(EDGES), dtype=bool), blend=blend,
        counts=none if counts is None else counts, barred=none if barred is None else barred, **changes,
    )  # fmt: skip


@pytest.mark.parametrize("block", [2, 3, 100])
def test_users_come_by_their_margin_over_their_own_place_20(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    users, margins = audience(model(), VECTOR, ITEM, EDGES, 20)
    assert users.tolist() == [5, 2, 0, 1, 3, 6], "ties in the order of rows; who has a shorter list has no place 20"
    assert margins.tolist() == [22, 4, 2, 2, 1, -1]
    assert audience(model(), VECTOR, ITEM, EDGES, 3)[0].tolist() == [5, 2, 0]


@pytest.mark.parametrize("block", [2, 100])
def test_who_played_or_disliked_it_or_played_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    known = model(pairs(2, 5) + pairs(0, item=ITEM + 1), pairs(1) + pairs(3, item=ITEM - 1))
    assert audience(known, VECTOR, ITEM, EDGES, 20)[0].tolist() == [0, 3, 6], "another track keeps nobody out"
    known.has_plays[0] = False
    users, margins = audience(known, VECTOR, ITEM, EDGES, 20)
    assert (users.tolist(), margins.tolist()) == ([3, 6], [1, -1])
    known.has_plays[:] = False
    users, margins = audience(known, VECTOR, ITEM, EDGES, 20)
    assert (users.tolist(), margins.tolist()) == ([], [])


def merged(best: Reached, rows: list[int], margins: list[float], n: int) -> Reached:
    values = np.array(margins, dtype=np.float32)
    return best.merged(np.array(rows, dtype=np.int32), values, values + 10, n)


def test_the_best_so_far_take_in_others_and_ties_go_to_who_was_there_first() -> None:
    first = merged(Reached.nobody(), [0, 1, 2], [1.0, -np.inf, 3.0], 3)
    assert first.rows.tolist() == [2, 0], "a margin of -inf is nobody's"
    five = [3, 4, 5, 6, 7], [3.0, 1.0, 2.5, 0.5, 2.75]  # of which no more than three are sorted
    assert merged(Reached.nobody(), *five, 3).rows.tolist() == [3, 7, 5]
    second = merged(first, *five, 3)
    assert second.rows.tolist() == [2, 3, 7]
    assert (second.margins.tolist(), second.scores.tolist()) == ([3, 3, 2.75], [13, 13, 12.75])
    assert merged(second, [8, 9], [2.75, -np.inf], 3).rows.tolist() == [2, 3, 7]
    assert merged(second, [8, 9], [-np.inf, 4.0], 3).rows.tolist() == [9, 2, 3]
