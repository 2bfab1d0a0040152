import math

import pytest
import torch
from torch.nn.functional import normalize

from wildfern.ssl.losses.mask_contrast import mask_contrast


def unit_rows(n, dim, seed):
    return normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


@pytest.mark.parametrize(
    ("queries", "negatives", "dim", "temperature"), [(5, 7, 4, 0.1), (1, 1, 2, 1.0), (9, 3, 16, 0.07)]
)
def test_the_loss_is_that_of_a_double_loop(queries, negatives, dim, temperature):
    q, p, n = unit_rows(queries, dim, 1), unit_rows(queries, dim, 2), unit_rows(negatives, dim, 3)
    total = 0.0
    for i in range(queries):
        positive = math.exp(float(q[i] @ p[i]) / temperature)
        others = sum(math.exp(float(q[i] @ n[j]) / temperature) for j in range(negatives))
        total += -math.log(positive / (positive + others))
    assert float(mask_contrast(q, p, n, temperature)) == pytest.approx(total / queries, abs=1e-10)


def test_rows_that_take_no_part_change_nothing():
    q, p, n = unit_rows(6, 4, 1), unit_rows(6, 4, 2), unit_rows(5, 4, 3)
    pairs, counted = torch.tensor([1, 1, 0, 1, 0, 0]) > 0, torch.tensor([1, 0, 1, 1, 0]) > 0
    expected = mask_contrast(q[pairs], p[pairs], n[counted])
    assert mask_contrast(q, p, n, 0.1, pairs, counted).item() == pytest.approx(expected.item(), abs=1e-12)


def test_without_queries_or_negatives_the_loss_and_its_gradient_are_zero():
    q, n = unit_rows(3, 4, 1).requires_grad_(), unit_rows(2, 4, 3).requires_grad_()
    nothing = torch.zeros(3, dtype=torch.bool)
    for loss in (
        mask_contrast(q[:0], q[:0], n),
        mask_contrast(q, q, n[:0]),
        mask_contrast(q, q, n, 0.1, nothing),
        mask_contrast(q, q, n, 0.1, None, nothing[:2]),
    ):
        loss.backward()
        assert loss.item() == 0.0
    assert not q.grad.any()
    assert n.grad is None or not n.grad.any()
