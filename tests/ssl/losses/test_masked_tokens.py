import pytest
import torch

from wildfern.ssl.losses import masked_token_loss


def logits(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_matches_the_plain_loop():
    views, images, places, prototypes = 2, 3, 4, 5
    student, targets = (
        logits(views, images, places, prototypes),
        logits(views, images, places, prototypes, seed=1).softmax(-1),
    )
    masked = [
        [[0, 1], [2], []],
        [[3], [], [0, 1, 2]],
    ]  # places of each view and image; the last image is not masked in view 0
    weights = torch.zeros(views, images, places)
    expected = torch.zeros(images, dtype=torch.float64)
    for v in range(views):
        for n in range(images):
            terms = []
            for k in masked[v][n]:
                weights[v, n, k] = 1
                terms.append(-(targets[v, n, k] * (student[v, n, k] / 0.2).log_softmax(0)).sum())
            if terms:
                expected[n] += torch.stack(terms).mean() / views
    torch.testing.assert_close(masked_token_loss(student, targets, weights, 0.2), expected)


def test_mismatched_shapes_are_refused():
    with pytest.raises(ValueError, match="weights"):
        masked_token_loss(logits(2, 3, 4, 5), logits(2, 3, 4, 5), torch.ones(2, 3), 0.1)
