import pytest
import torch

from wildfern.ssl.losses import swapped_prediction


def numbers(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("views", "assigned"), [(2, 2), (6, 2), (3, 1)])
def test_matches_the_plain_loop_over_pairs_of_views(views, assigned):
    logits, q = numbers(views, 5, 7), numbers(assigned, 5, 7, seed=1).softmax(dim=-1)
    terms = [
        -sum(q[t, n, p] * (logits[v, n] / 0.2).log_softmax(0)[p] for p in range(7))
        for t in range(assigned)
        for v in range(views)
        for n in range(5)
        if v != t
    ]
    torch.testing.assert_close(swapped_prediction(logits, q, 0.2), torch.stack(terms).mean())


def test_assignments_get_no_gradient():
    logits, q = numbers(2, 3, 4).requires_grad_(), numbers(2, 3, 4, seed=1).requires_grad_()
    swapped_prediction(logits, q.softmax(dim=-1)).backward()
    assert q.grad is None
    assert logits.grad.abs().sum() > 0


def test_invalid_arguments_are_named():
    with pytest.raises(ValueError, match="do not match"):
        swapped_prediction(numbers(2, 3, 4), numbers(2, 5, 4))
    with pytest.raises(ValueError, match="temperature must be"):
        swapped_prediction(numbers(2, 3, 4), numbers(2, 3, 4), 0)
