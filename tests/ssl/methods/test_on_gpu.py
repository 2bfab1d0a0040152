"""Every method trains on a GPU as on a CPU: the same random draws, sums in another order."""

from dataclasses import fields, replace

import pytest
import torch
from method_cases import CASES, batch, build
from torch import Tensor

from wildfern.ssl.training import TorchEngine

STEPS = 3
CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")


def move(value, device):
    if isinstance(value, list):
        return [move(item, device) for item in value]
    return value.to(device) if isinstance(value, Tensor) else value


def trained(name, device):
    """Losses, weights and buffers after a few steps of SGD in float64."""
    method = build(name, 10)
    for module in method.networks():
        module.to(device)
    engine = TorchEngine(method, torch.optim.SGD, 0.01, device=device, precision="fp32")
    losses = []
    for step in range(STEPS):
        on_host = batch(name, step)
        there = {f.name: move(getattr(on_host, f.name), device) for f in fields(on_host) if f.name != "positions"}
        torch.manual_seed(step)
        loss = engine(replace(on_host, **there)).loss
        engine.backward(loss)
        engine.step(0.1, 0.01)
        method.after_step(step, engine.gather)
        losses.append(loss.detach())
    states = [module.state_dict() for module in method.networks()]
    numbers = [tensor for state in states for tensor in state.values() if tensor.is_floating_point()]
    return move([torch.stack(losses), *numbers], CPU)


@pytest.mark.parametrize("name", CASES)
def test_trains_as_on_the_cpu(name):
    for got, expected in zip(trained(name, torch.device("cuda")), trained(name, CPU), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)
