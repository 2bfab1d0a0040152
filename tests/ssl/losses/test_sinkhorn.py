import pytest
import torch

from wildfern.ssl.losses import sinkhorn


def logits(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("rows", "prototypes", "iterations"), [(5, 3, 1), (4, 7, 3), (6, 6, 10)])
def test_matches_the_plain_loop_of_the_algorithm(rows, prototypes, iterations):
    x = logits(rows, prototypes)
    q = [[float((x[n, p] / 0.5).exp()) for p in range(prototypes)] for n in range(rows)]
    for _ in range(iterations):
        for p in range(prototypes):
            total = sum(q[n][p] for n in range(rows))
            for n in range(rows):
                q[n][p] /= total * prototypes
        for n in range(rows):
            total = sum(q[n])
            q[n] = [value / total / rows for value in q[n]]
    expected = torch.tensor(q, dtype=torch.float64) * rows
    torch.testing.assert_close(sinkhorn(x, 0.5, iterations), expected)


def test_many_iterations_use_all_prototypes_equally():
    q = sinkhorn(logits(8, 4), 0.3, 200)
    torch.testing.assert_close(q.sum(dim=0), torch.full((4,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(q.sum(dim=1), torch.ones(8, dtype=torch.float64))


def test_extreme_logits_neither_overflow_nor_vanish():
    x = (200 * logits(6, 5)).float().requires_grad_()  # exp(200 / 0.05) is infinite
    q = sinkhorn(x, 0.05)
    assert not q.requires_grad
    torch.testing.assert_close(q.sum(dim=1), torch.ones(6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 3, 4), 0.1), "expected logits"),
        ((torch.zeros(2, 3), 0.0), "temperature must be"),
        ((torch.zeros(2, 3), 0.1, 0), "iterations must be"),
    ],
)
def test_invalid_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        sinkhorn(*arguments)
