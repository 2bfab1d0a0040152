import pytest
import torch
from method_cases import batch, build


def test_loss_is_scaled_and_biases_have_their_own_rate():
    method, data = build("barlow_twins", 10), batch("barlow_twins", 3)
    whole = method(data).loss
    method.scale /= 10
    torch.testing.assert_close(method(data).loss, 0.1 * whole)
    weights, biases = method.parameter_groups()
    assert (weights.learning_rate, biases.learning_rate) == (1.0, 0.5)
    assert {p.ndim > 1 for _, p in weights.parameters} == {True}
    assert {p.ndim > 1 for _, p in biases.parameters} == {False}
    assert len(weights.parameters) + len(biases.parameters) == len(list(method.parameters()))


def test_the_loss_at_collapse_is_that_of_equal_embeddings():
    for name in ("barlow_twins", "vicreg"):
        method, data = build(name, 10), batch(name, 3)
        with torch.no_grad():
            for parameter in method.projection.parameters():
                parameter.zero_()
        assert float(method(data).loss.detach()) == pytest.approx(method.collapsed_loss(len(data)))
