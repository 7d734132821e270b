"""The contrastive cost against values worked by hand."""

from math import exp, log

import pytest
import torch

from recsys.content.contrast import contrastive_cost


def test_three_rows_worked_by_hand() -> None:
    # cosines: 0-1 0.6, 0-2 0, 1-2 0.8; rows 0 and 1 are a group, row 2 has no partner
    embeddings = torch.tensor([[2.0, 0.0], [0.6, 0.8], [0.0, 5.0]])
    t = 0.5
    first = -log(exp(0.6 / t) / (exp(0.6 / t) + exp(0.0)))
    second = -log(exp(0.6 / t) / (exp(0.6 / t) + exp(0.8 / t)))
    for groups in ([7, 7, 3], [7, 7, -1]):
        found = contrastive_cost(embeddings, torch.tensor(groups), t)
        assert float(found) == pytest.approx((first + second) / 2 / log(2), rel=1e-5)


def test_several_partners_are_averaged_by_row() -> None:
    # three of a group at cosines 0-1 1, 0-2 0, 1-2 0, and one outside at cosine 0 to 0 and 1, 1 to 2
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    e = exp(1.0)
    zero = (-log(e / (e + 2)) - log(1 / (e + 2))) / 2  # the same for row 1
    two = -log(1 / (e + 2))
    found = contrastive_cost(embeddings, torch.tensor([0, 0, 0, -1]), 1.0)
    assert float(found) == pytest.approx((2 * zero + two) / 3 / log(3), rel=1e-5)


@pytest.mark.parametrize("n", [3, 8, 65])
def test_knowing_nothing_costs_one(n: int) -> None:
    found = contrastive_cost(torch.ones(n, 4), torch.arange(n) // 2, 0.1)
    assert float(found) == pytest.approx(1.0, abs=1e-5)


def test_no_group_is_no_partner() -> None:
    embeddings = torch.randn(5, 3, requires_grad=True)
    for groups in ([-1] * 5, [0, 1, 2, 3, 4], [-1, -1, 2, 3, -1]):
        embeddings.grad = None
        cost = contrastive_cost(embeddings, torch.tensor(groups))
        cost.backward()
        assert float(cost.detach()) == 0
        assert embeddings.grad is not None
        assert not embeddings.grad.any()
    assert float(contrastive_cost(embeddings[:2], torch.tensor([0, 0])).detach()) == 0


def test_groups_draw_together() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(12, 5, requires_grad=True)
    groups = torch.arange(12) % 3
    optimizer = torch.optim.SGD([embeddings], lr=1.0)
    for _ in range(200):
        cost = contrastive_cost(embeddings, groups, 0.2)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
    unit = torch.nn.functional.normalize(embeddings.detach(), dim=1)
    cosine, same = unit @ unit.T, groups[:, None] == groups[None, :]
    assert float(cosine[same].min()) > 0.9
    assert float(cosine[~same].max()) < 0.2
    assert bool(torch.isfinite(contrastive_cost(embeddings.detach() * 1e6, groups, 0.01)))
