import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from wildfern.ssl.evaluation.metrics.bootstrap import resamples
from wildfern.ssl.evaluation.metrics.micro_average_precision import micro_average_precision


def pairs(queries=40, images=15, seed=0, steps=50):
    """Similarities in steps, so that some are equal; relevant ones are higher by an amount that differs between queries."""
    generator = torch.Generator().manual_seed(seed)
    relevant = torch.rand(queries, images, generator=generator) < 0.2
    raised = 0.3 * relevant * torch.rand(queries, 1, generator=generator)
    similarity = torch.rand(queries, images, generator=generator) - 0.5 + raised
    return (similarity * steps).round() / steps, relevant


def blocks(similarity, relevant, size=7):
    return lambda: zip(similarity.split(size), relevant.split(size), strict=True)


def scikit_learns(similarity, relevant, weights=None):
    weight = None if weights is None else np.repeat(weights, similarity.shape[1])
    return average_precision_score(relevant.flatten().numpy(), similarity.flatten().numpy(), sample_weight=weight)


def test_the_value_is_scikit_learns_over_all_pairs():
    similarity, relevant = pairs()
    relevant[3] = False  # a query without a relevant image: its pairs count
    value, influence = micro_average_precision(blocks(similarity, relevant))
    assert value == pytest.approx(scikit_learns(similarity, relevant), abs=1e-12)
    assert value != pytest.approx(scikit_learns(similarity[torch.arange(40) != 3], relevant[torch.arange(40) != 3]))
    assert influence.sum().item() == pytest.approx(0, abs=1e-12)
    whole = micro_average_precision(lambda: [(similarity, relevant)])
    assert whole[0] == value
    assert torch.equal(whole[1], influence)


def test_the_influence_is_the_derivative_by_the_weight_of_a_query():
    similarity, relevant = pairs(12, 9)
    _, influence = micro_average_precision(blocks(similarity, relevant))
    for query in range(12):
        up, down = (np.ones(12) + side * 1e-4 * (np.arange(12) == query) for side in (1, -1))
        slope = (scikit_learns(similarity, relevant, up) - scikit_learns(similarity, relevant, down)) / 2e-4
        assert influence[query].item() == pytest.approx(slope, abs=1e-6)


def test_the_influences_have_the_spread_of_the_value_over_resampled_queries():
    similarity, relevant = pairs(60, 10)
    _, influence = micro_average_precision(blocks(similarity, relevant))
    draws = next(resamples(60, 150))
    direct = np.std([scikit_learns(similarity[index], relevant[index]) for index in draws])
    linearized = np.std(60 * influence.numpy()[draws].mean(1))
    assert linearized == pytest.approx(direct, rel=0.2)


def test_what_is_no_pair_does_not_count():
    similarity, relevant = pairs(9, 9)
    others = ~torch.eye(9, dtype=torch.bool)
    expected = scikit_learns(similarity[others].view(9, 8), relevant[others].view(9, 8))
    value, influence = micro_average_precision(blocks(similarity.masked_fill(~others, -torch.inf), relevant))
    assert value == pytest.approx(expected, abs=1e-12)
    assert influence.sum().item() == pytest.approx(0, abs=1e-12)


def test_similarities_are_rounded_and_equals_are_one_step():
    similarity = torch.tensor([[0.5, 0.5 + 2**-22, 0.25]])
    value, _ = micro_average_precision(lambda: [(similarity, torch.tensor([[True, False, False]]))])
    assert value == 0.5
    similarity = torch.tensor([[0.5, 0.5 + 2**-19, 1.0000001]])  # one above 1, as rounding gives it
    value, _ = micro_average_precision(lambda: [(similarity, torch.tensor([[True, False, True]]))])
    assert value == pytest.approx((1 + 2 / 3) / 2)


def test_without_a_relevant_pair_there_is_none():
    similarity, relevant = pairs(3, 3)
    with pytest.raises(ValueError, match="no pair of a query and a gallery image is relevant"):
        micro_average_precision(lambda: [(similarity, torch.zeros_like(relevant))])
