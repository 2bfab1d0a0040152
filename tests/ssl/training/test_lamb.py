"""LAMB against algorithm 2 of its paper, weight by weight, and against timm's; layer-wise optimizers under ZeRO."""

import pytest
import torch
from timm.optim import Lamb

from wildfern.launch.components import read_recipe
from wildfern.recipes import RecipeErrors
from wildfern.ssl.training import OPTIMIZERS, is_layer_wise
from wildfern.ssl.training.optimizers import set_hyperparameters
from wildfern.ssl.training.parameter_groups import parameter_groups

ETA, LAMBDA, BETA1, BETA2, EPSILON = 0.02, 0.1, 0.9, 0.99, 1e-6


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.LayerNorm(5), torch.nn.Linear(5, 3)).double()


def gradients(net, step):
    torch.manual_seed(step)
    return [torch.randn_like(p) * (10.0**-i) for i, p in enumerate(net.parameters())]


def trained(net, optimizer, steps=6):
    for step in range(steps):
        for p, g in zip(net.parameters(), gradients(net, step), strict=True):
            p.grad = g
        optimizer.step()
    return net


def ours(net, rate=ETA, weight_decay=LAMBDA):
    groups = parameter_groups(net.named_parameters(), weight_decay)
    optimizer = OPTIMIZERS["lamb"](groups, learning_rate=rate, weight_decay=weight_decay, betas=(BETA1, BETA2))
    set_hyperparameters(optimizer, rate, weight_decay)
    return optimizer


def test_against_algorithm_2():
    net, plain = network(), network()
    trained(net, ours(net))
    for number, x in enumerate(plain.parameters()):
        x = x.detach().clone()
        m, v = torch.zeros_like(x), torch.zeros_like(x)
        decay = LAMBDA if x.ndim > 1 else 0.0
        for t in range(1, 7):
            g = gradients(plain, t - 1)[number]
            m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g * g
            r = (m / (1 - BETA1**t)) / ((v / (1 - BETA2**t)).sqrt() + EPSILON)
            u = r + decay * x
            ratio = x.norm() / u.norm() if x.ndim > 1 else 1.0
            x = x - ETA * ratio * u
        torch.testing.assert_close(list(net.parameters())[number].detach(), x)


@pytest.mark.parametrize("rate", [1e-3, 0.1])
def test_against_timm(rate):
    net, theirs = network(), network()
    trained(net, ours(net, rate))
    groups = parameter_groups(theirs.named_parameters(), LAMBDA)
    trained(theirs, Lamb(groups, lr=rate, betas=(BETA1, BETA2), eps=EPSILON, max_grad_norm=None))
    for a, b in zip(net.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_layers_are_scaled_without_weight_decay_too():
    net = network()
    before = [p.detach().clone() for p in net.parameters()]
    trained(net, ours(net, weight_decay=0.0), steps=1)
    for old, new in zip(before, net.parameters(), strict=True):
        if old.ndim > 1:
            torch.testing.assert_close((new - old).norm(), ETA * old.norm())


def test_a_weight_of_zeros_is_updated():
    net = network()
    torch.nn.init.zeros_(net[0].weight)
    trained(net, ours(net), steps=1)
    torch.testing.assert_close(net[0].weight.abs().detach(), torch.full_like(net[0].weight, ETA), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if is_layer_wise(name)])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_layer_wise_optimizers_are_refused_if_layers_are_split(name, stage):
    changes = [f"optimizer={{name: {name}, learning_rate: 0.1}}", f"engine={{name: deepspeed, zero_stage: {stage}}}"]
    with pytest.raises(RecipeErrors, match=f"must be 0 for {name}"):
        read_recipe("quickstart", changes)


def test_lars_without_weight_decay_is_refused():
    with pytest.raises(RecipeErrors, match="weight_decay"):
        read_recipe("quickstart", ["optimizer={name: lars, learning_rate: 0.1, weight_decay: 0.0}"])
