import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.ssl.evaluation.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from wildfern.ssl.evaluation.protocols.finetune_augmentation import FinetuneAugmentation
from wildfern.ssl.evaluation.protocols.finetune_regularization import Regularization
from wildfern.ssl.evaluation.protocols.finetune_settings import FinetuneSettings, Optimization
from wildfern.ssl.evaluation.protocols.finetune_training import Diverged, FinetuneTraining, TrainImages
from wildfern.ssl.tracking.progress import SILENT

RATE, DECAY = 0.02, 0.1


def training(schedule=lambda step, steps: 1 - step / steps, **given):
    optimization = Optimization(**{"epochs": 3, "batch_size": 8, "weight_decay": DECAY, **given})
    plain = FinetuneAugmentation(flip=False, padding=0)
    settings = FinetuneSettings(RATE, 0.2, optimization, plain, Regularization(), 5)
    return FinetuneTraining(settings, Preprocessing(), schedule, SILENT)


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh())


@pytest.fixture
def train():
    images = torch.randint(0, 256, (20, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return TrainImages(images, torch.arange(20) % 3, 3)


def loop(backbone, train, optimization, update):
    """A plain loop: 2 steps in each of 3 epochs with a linear schedule; `update` changes a weight given its state."""
    import copy

    network = nn.Sequential(copy.deepcopy(backbone), nn.Linear(6, 3)).train()
    nn.init.zeros_(network[1].weight)
    nn.init.zeros_(network[1].bias)
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    states, history = {}, [[p.detach().clone() for p in network.parameters()]]
    for step in range(6):
        order = uniform(fold(np.uint64(key("finetune order", 5, step // 2)), np.arange(20)), 1)[:, 0].argsort()
        index = torch.from_numpy(order[8 * (step % 2) : 8 * (step % 2) + 8])
        logits = network((train.images[index] / 255 - mean) / std)
        loss = F.cross_entropy(logits, train.targets[index])
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for (name, weight), gradient in zip(network.named_parameters(), gradients, strict=True):
                rate = RATE * (1 - step / 6) * (optimization.head_rate if name.startswith("1.") else 1)
                decay = DECAY if weight.ndim > 1 else 0.0
                update(weight, gradient, rate, decay, states.setdefault(name, {}), step + 1)
        history.append([p.detach().clone() for p in network.parameters()])
    return network, history


def sgd(momentum, nesterov):
    def update(weight, gradient, rate, decay, state, t):
        gradient = gradient + decay * weight
        state["v"] = gradient if t == 1 else momentum * state["v"] + gradient
        weight -= rate * (gradient + momentum * state["v"] if nesterov else state["v"])

    return update


def adamw(weight, gradient, rate, decay, state, t):
    weight *= 1 - rate * decay
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * gradient
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * gradient**2
    weight -= rate * (state["m"] / (1 - 0.9**t)) / ((state["v"] / (1 - 0.999**t)).sqrt() + 1e-8)


@pytest.mark.parametrize(
    ("given", "update"),
    [
        ({}, adamw),
        ({"head_rate": 10.0}, adamw),
        ({"optimizer": "sgd"}, sgd(0.9, nesterov=False)),
        ({"optimizer": "sgd", "momentum": 0.8, "nesterov": True, "head_rate": 10.0}, sgd(0.8, nesterov=True)),
    ],
)
def test_the_weights_match_a_plain_loop(backbone, train, given, update):
    found, losses = training(**given).train(backbone, train, RATE)
    expected, _ = loop(backbone, train, Optimization(**given), update)
    assert len(losses) == 3
    for one, other in zip(found.state_dict().values(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("warmup", [False, True])
def test_averaged_weights_match_the_formula_and_buffers_are_copied(backbone, train, warmup):
    given = {"ema_decay": 0.6, "ema_warmup": warmup}
    found, losses = training(**given).train(backbone, train, RATE)
    last, history = loop(backbone, train, Optimization(), adamw)
    average = history[0]
    for t, weights in enumerate(history[1:], 1):
        decay = min(0.6, 1 - t ** (-2 / 3)) if warmup else 0.6
        average = [decay * a + (1 - decay) * w for a, w in zip(average, weights, strict=True)]
    for one, other in zip(found.parameters(), average, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    for one, other in zip(found.buffers(), last.buffers(), strict=True):
        torch.testing.assert_close(one, other)
    assert losses == training().train(backbone, train, RATE)[1]
    assert any(
        (one - other).abs().max() > 1e-3 for one, other in zip(found.parameters(), last.parameters(), strict=True)
    )


def test_logits_are_those_of_the_network_in_evaluation_mode(backbone, train):
    run = training()
    network, _ = run.train(backbone, train, RATE)
    found = run.logits(network, train.images, "images")
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(found, network.eval()((train.images / 255 - mean) / std))
    assert (found.dtype, found.shape) == (torch.float32, (20, 3))


def test_weights_that_diverge_in_the_last_step_are_noticed(backbone, train):
    last = training(schedule=lambda step, steps: math.inf if step == steps - 1 else 1.0)
    with pytest.raises(Diverged, match="weights are not finite after the last step; lower learning_rate"):
        last.train(backbone, train, RATE)
    broken = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    nn.init.constant_(broken[1].weight, 1e38)
    with pytest.raises(Diverged, match="returns NaN or infinity for test images"):
        training().logits(broken, train.images, "test images")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"epochs": 0}, "epochs >= 1"),
        ({"weight_decay": float("nan")}, "weight_decay >= 0"),
        ({"warmup": 1.0}, r"warmup in \[0, 1\)"),
        ({"optimizer": "lamb"}, "adamw or sgd, got 'lamb'"),
        ({"momentum": 0.8}, "are for optimizer sgd"),
        ({"nesterov": True}, "are for optimizer sgd"),
        ({"optimizer": "sgd", "momentum": 1.0}, "below 1"),
        ({"optimizer": "sgd", "momentum": 0.0, "nesterov": True}, "above 0 for nesterov"),
        ({"head_rate": 0.0}, "positive factor"),
        ({"ema_decay": 1.0}, "ema_decay must be above 0 and below 1"),
        ({"ema_warmup": True}, "no effect without ema_decay"),
    ],
)
def test_impossible_settings_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Optimization(**arguments)
