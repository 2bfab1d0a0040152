import pytest
import torch
from method_cases import batch, build

from wildfern.ssl.losses import characteristic_function, epps_pulley
from wildfern.ssl.methods.lejepa import random_directions


def test_loss_is_the_weighted_sum_of_prediction_and_statistic():
    method, data = build("lejepa", 10), batch("lejepa", 3)  # two global and two local views
    output = method(data)
    z = method.embed(data).embeddings["z"]
    center = (z[0] + z[1]) / 2
    prediction = torch.stack([(view - center).square().mean() for view in z]).mean()
    directions = random_directions(data, 8, 6)
    statistics = [
        epps_pulley(characteristic_function(view, directions[:, m, None]), len(data)) for view in z for m in range(6)
    ]
    torch.testing.assert_close(output.loss, 0.95 * prediction + 0.05 * torch.stack(statistics).mean())


def test_the_loss_at_collapse_is_that_of_equal_embeddings():
    method, data = build("lejepa", 10), batch("lejepa", 3)
    with torch.no_grad():
        for parameter in method.projection.parameters():
            parameter.zero_()
    assert float(method(data).loss.detach()) == pytest.approx(method.collapsed_loss(len(data)), rel=1e-6)


def test_directions_are_unit_vectors_that_change_with_seed_and_step():
    data = batch("lejepa", 3)
    found = random_directions(data, 8, 2000)
    torch.testing.assert_close(found.norm(dim=0), torch.ones(2000))
    assert float((found @ found.T / 2000 - torch.eye(8) / 8).abs().max()) < 0.02  # uniform on the sphere
    data.seed = 1
    assert not torch.allclose(random_directions(data, 8, 2000), found)
    assert not torch.allclose(random_directions(batch("lejepa", 4), 8, 2000), found)
