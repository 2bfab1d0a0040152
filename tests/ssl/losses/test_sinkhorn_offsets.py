import pytest
import torch

from wildfern.ssl.losses import sinkhorn
from wildfern.ssl.losses.sinkhorn_offsets import sinkhorn_offsets


def logits(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_matches_the_plain_loop_over_the_rows_that_count():
    x, weights = logits(9, 4), torch.tensor([1.0, 1, 0, 1, 1, 0, 1, 1, 1], dtype=torch.float64)
    q = (x[weights > 0] / 0.3).exp()
    for _ in range(3):
        for p in range(4):
            q[:, p] = q[:, p] / q[:, p].sum()
        for n in range(len(q)):
            q[n] = q[n] / q[n].sum()
    offsets = sinkhorn_offsets(lambda: [(x[:5], weights[:5]), (x[5:], weights[5:])], 0.3)
    torch.testing.assert_close((x / 0.3 - offsets).softmax(dim=1)[weights > 0], q)


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_gives_the_assignments_of_sinkhorn(iterations):
    x = logits(7, 5)
    offsets = sinkhorn_offsets(lambda: [(x, torch.ones(7))], 0.05, iterations)
    torch.testing.assert_close((x / 0.05 - offsets).softmax(dim=1), sinkhorn(x, 0.05, iterations))


def test_rows_of_other_ranks_are_added():
    x = logits(8, 3)
    seen = []

    def alone(part):
        return sinkhorn_offsets(lambda: [(part, torch.ones(len(part)))], 0.3, 1, lambda own: seen.append(own) or own)

    alone(x[:2]), alone(x[2:])
    whole = sinkhorn_offsets(lambda: [(x, torch.ones(8))], 0.3, 1)
    torch.testing.assert_close(torch.stack(seen).logsumexp(dim=0), whole)


def test_without_rows_that_count_nothing_is_moved():
    offsets = sinkhorn_offsets(lambda: [(logits(3, 4), torch.zeros(3))], 0.1)
    assert offsets.tolist() == [0.0] * 4


def test_no_iterations_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        sinkhorn_offsets(lambda: [(logits(3, 4), torch.ones(3))], 0.1, 0)
