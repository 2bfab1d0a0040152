"""Schedules, parameter groups, the batch reader and the torch engine."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from two_ranks import SmallNet

from wildfern.ssl.augmentation import simclr
from wildfern.ssl.data import Mixture, SyntheticSource
from wildfern.ssl.methods import Batch, Output, ParameterGroup, SimCLR
from wildfern.ssl.training import OPTIMIZERS, SCHEDULES, BatchReader, TorchEngine
from wildfern.ssl.training.optimizers import set_hyperparameters
from wildfern.ssl.training.parameter_groups import optimizer_groups, parameter_groups


def test_cosine_schedule_against_its_formula():
    schedule = SCHEDULES["cosine"](100, warmup=0.1, final=0.01, weight_decay_growth=10.0)
    rates = [schedule.learning_rate(s) for s in range(100)]
    assert rates[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert rates[55] == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi * 0.5)) / 2)
    assert rates[10] == 1.0
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert schedule.weight_decay(0) == 1.0
    assert schedule.weight_decay(50) == pytest.approx(5.5)


def test_polynomial_schedule_against_its_formula():
    schedule = SCHEDULES["polynomial"](10, power=0.9)
    assert [schedule.learning_rate(s) for s in (0, 3, 9)] == pytest.approx([1.0, 0.7**0.9, 0.1**0.9])
    warming = SCHEDULES["polynomial"](10, power=2.0, warmup=0.4)
    assert [warming.learning_rate(s) for s in (0, 1, 5)] == pytest.approx([0.25, 0.5 * 0.9**2, 0.25])
    assert schedule.weight_decay(9) == 1.0


def test_milestones_are_shares_of_the_run():
    schedule = SCHEDULES["milestones"](200)
    assert [schedule.learning_rate(s) for s in (154, 155, 170, 185)] == pytest.approx([1, 0.1, 0.01, 0.001])


def test_weight_decay_is_not_applied_to_biases_and_normalization():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    net[2].weight.requires_grad_(False)
    groups = parameter_groups(net.named_parameters(), 0.3)
    assert [g["weight_decay"] for g in groups] == [0.3, 0.0]
    assert [len(g["params"]) for g in groups] == [1, 4]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars", "lamb"])
def test_a_frozen_backbone_stays_while_heads_and_the_optimizer_move(optimizer):
    def trained(steps, freeze):
        torch.manual_seed(0)
        method = SimCLR(SmallNet(), 10, projection_hidden=8, projection_size=4)
        method.freeze = freeze
        make = partial(OPTIMIZERS[optimizer], learning_rate=0.01)
        engine = TorchEngine(method, make, 0.1, device=torch.device("cpu"), precision="fp32")
        weights = [{name: p.detach().clone() for name, p in method.named_parameters()}]
        for step in range(steps):
            generator = torch.Generator().manual_seed(step)
            for p in method.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
            engine.step(0.01, 0.1, **({"freeze": True} if step < freeze else {}))
            weights.append({name: p.detach().clone() for name, p in method.named_parameters()})
        return weights

    moving, frozen = trained(4, 0), trained(4, 2)
    for name, start in frozen[0].items():
        if name.startswith("backbone."):
            assert torch.equal(frozen[2][name], start)
            assert not torch.equal(frozen[3][name], start)
            if optimizer == "adamw":  # its moments are those of a run that was never frozen
                decay = 0.01 * 0.1 if start.ndim > 1 else 0.0
                expected = moving[3][name] - (1 - decay) * moving[2][name]
                torch.testing.assert_close(frozen[3][name] - (1 - decay) * start, expected, rtol=1e-3, atol=1e-6)
        else:
            assert torch.equal(frozen[4][name], moving[4][name])
            assert not torch.equal(frozen[2][name], start)


class Ramp:
    """A stream whose image i is the number i."""

    size, num_classes = 8, None

    def batch(self, indices):
        from wildfern.generators import ImageBatch

        return ImageBatch(
            np.broadcast_to(np.asarray(indices, np.uint8)[:, None, None, None], (len(indices), 8, 8, 3)).copy()
        )


def reader(rank=0, world_size=1, accumulation=1):
    mixture = Mixture([(SyntheticSource(Ramp()), 1.0)], 0)
    parts = {"accumulation": accumulation, "rank": rank, "world_size": world_size}
    return BatchReader(mixture, simclr(size=8), seed=0, batch_size=12, channels_last=False, **parts)


@pytest.mark.parametrize(("accumulation", "world_size"), [(1, 1), (1, 3), (2, 1), (2, 3)])
def test_ranks_and_micro_batches_together_read_the_batch_of_one_process(accumulation, world_size):
    whole = reader()(3).prepared
    readers = [reader(rank, world_size, accumulation) for rank in range(world_size)]
    micro = [each(3 * accumulation + part) for part in range(accumulation) for each in readers]
    parts = [each.prepared for each in micro]
    assert np.concatenate([p.pixels for p in parts])[:, 0, 0, 0].tolist() == list(range(36, 48))
    assert (np.concatenate([p.pixels for p in parts]) == whole.pixels).all()
    assert (np.concatenate([p.tables[0].crop for p in parts], axis=1) == whole.tables[0].crop).all()
    batches = [readers[i % world_size].batch(each) for i, each in enumerate(micro)]
    assert torch.cat([batch.positions for batch in batches]).tolist() == list(range(12))
    assert {(batch.step, batch.seed) for batch in batches} == {(3, 0)}
    assert len({tuple(batch.uniform_of_step("slices", 4).tolist()) for batch in batches}) == 1
    drawn, alone = torch.cat([batch.uniform("mask", 2, 3) for batch in batches]), reader().batch(reader()(3))
    assert torch.equal(drawn, alone.uniform("mask", 2, 3))


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="does not divide"):
        reader(world_size=5)


def test_uniform_numbers_differ_by_name_step_and_position():
    batch = Batch.from_views([torch.zeros(2, 500, 3, 4, 4)])
    numbers = batch.uniform("mask", 40)
    assert numbers.shape == (500, 40)
    assert 0 <= numbers.min() < 0.001 < 0.999 < numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01
    assert len(numbers.unique()) > 0.99 * numbers.numel()
    others = [batch.uniform("noise", 40), Batch.from_views(batch.views, step=1).uniform("mask", 40)]
    assert not any((numbers == other).any(dim=1).all() for other in others)
    later = Batch.from_views([batch.views[0][:, :1]], positions=torch.tensor([7]))
    assert torch.equal(later.uniform("mask", 40), numbers[7:8])
    assert torch.equal(later.uniform_of_step("mask", 2, 3), batch.uniform_of_step("mask", 2, 3))
    assert not torch.equal(
        Batch.from_views(batch.views, step=1).uniform_of_step("mask", 2, 3), batch.uniform_of_step("mask", 2, 3)
    )


def test_groups_of_a_method_have_their_own_factors_and_options():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    named = dict(net.named_parameters())
    slow = ParameterGroup([("0.weight", named["0.weight"])], learning_rate=0.1, weight_decay=2.0)
    rest = ParameterGroup([(n, p) for n, p in named.items() if n != "0.weight"], options={"betas": (0.5, 0.9)})
    optimizer = OPTIMIZERS["adamw"](optimizer_groups([slow, rest], 0.3), learning_rate=1.0)
    set_hyperparameters(optimizer, 0.5, 0.2)
    found = [(g["lr"], g["weight_decay"], g["betas"]) for g in optimizer.param_groups]
    assert found == [(0.05, 0.4, (0.9, 0.999)), (0.5, 0.2, (0.5, 0.9)), (0.5, 0.0, (0.5, 0.9))]
    with pytest.raises(ValueError, match=r"0\.weight is in two parameter groups"):
        optimizer_groups([slow, slow], 0.0)


class Net(nn.Module):
    width = 4

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.layer(x).mean(dim=(2, 3))


def engine(**options):
    torch.manual_seed(0)
    method = SimCLR(Net(), 10, projection_hidden=8, projection_size=4)
    options = {"device": torch.device("cpu"), "precision": "fp32", **options}
    return TorchEngine(method, lambda g: OPTIMIZERS["sgd"](g, learning_rate=0.1, momentum=0.0), 0.0, **options)


def test_gradient_norm_and_clipping():
    batch = Batch.from_views([torch.randn(2, 6, 3, 8, 8)])
    free, clipped = engine(), engine(gradient_clip=1e-3)
    before = [p.detach().clone() for p in free.parameters]
    norms = []
    for e in (free, clipped):
        e.backward(e(batch).loss)
        by_hand = torch.stack([p.grad.square().sum() for p in e.parameters]).sum().sqrt()
        norms.append(e.step(0.1, 0.0))
        torch.testing.assert_close(norms[-1], by_hand)
    moved = torch.cat([(p - b).flatten() for p, b in zip(clipped.parameters, before, strict=True)]).norm()
    torch.testing.assert_close(moved.detach(), torch.tensor(0.1 * 1e-3), rtol=1e-3, atol=0)
    assert norms[0] > 1e-3


def test_accumulated_micro_batches_give_the_mean_gradient():
    parts = [Batch.from_views([torch.randn(2, 6, 3, 8, 8)]) for _ in range(3)]
    e = engine(accumulation=3)
    for part in parts:
        e.backward(e(part).loss)
    accumulated = [p.grad.clone() for p in e.parameters]
    e = engine()
    torch.stack([e(part).loss for part in parts]).mean().backward()
    for ours, mean in zip(accumulated, [p.grad for p in e.parameters], strict=True):
        torch.testing.assert_close(ours, mean)


class Free(SimCLR):
    """SimCLR whose output and groups are what a test says."""

    def __init__(self, output=None, groups=None):
        super().__init__(Net(), 10, projection_hidden=8, projection_size=4)
        self.output, self.groups = output, groups

    def forward(self, batch):
        return self.output(super().forward(batch)) if self.output else super().forward(batch)

    def parameter_groups(self):
        return self.groups(super().parameter_groups()[0]) if self.groups else super().parameter_groups()


def free_engine(**arguments):
    sgd = partial(OPTIMIZERS["sgd"], learning_rate=0.1)
    return TorchEngine(Free(**arguments), sgd, 0.0, device=torch.device("cpu"), precision="fp32")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda o: (o.loss, {}), "must return an Output, got tuple"),
        (lambda o: Output(o.loss[None]), r"scalar tensor as its loss, got \[1\]"),
        (lambda o: Output(o.loss.detach()), "the loss has no gradient"),
        (
            lambda o: Output(o.loss, {"learning_rate": o.loss}),
            "not step, loss, .*; got 'learning_rate'",
        ),
        (lambda o: Output(o.loss, {1: o.loss}), "metrics have texts as names.*got 1"),
        (lambda o: Output(o.loss, {"a": o.features}), r"metric a must be a scalar, got \[6, 4\]"),
        (lambda o: Output(o.loss * 1j), "a loss of real numbers, got torch.complex64"),
        (lambda o: Output(o.loss, [o.loss]), "metrics must be a mapping, got list"),
        (lambda o: Output(o.loss, {"a": "high"}), "metric a must be a scalar, got str"),
        (lambda o: Output(o.loss, {}, [o.features]), r"features must be \[6, F\], one row per image, got list"),
        (lambda o: Output(o.loss, {}, o.features[1:]), r"features must be \[6, F\], one row per image, got \[5, 4\]"),
    ],
)
def test_outputs_that_break_the_interface_are_named(output, message):
    with pytest.raises(ValueError, match=rf"Free\.forward\(\).*{message}"):
        free_engine(output=output)(Batch.from_views([torch.randn(2, 6, 3, 8, 8)]))


def test_metrics_may_be_numbers_and_are_detached():
    output = free_engine(output=lambda o: Output(o.loss, {"a": 1.5, "b": o.loss, "c": 3}, o.features))(
        Batch.from_views([torch.randn(2, 6, 3, 8, 8)])
    )
    assert float(output.metrics["a"]) == 1.5
    assert output.metrics["c"].dtype == torch.float32  # can be averaged
    assert not output.metrics["b"].requires_grad


def test_groups_hold_every_trained_parameter_and_known_options():
    with pytest.raises(ValueError, match=r"leaves out backbone\.layer\.bias \(1 in total\)"):
        free_engine(groups=lambda g: [ParameterGroup([p for p in g.parameters if p[0] != "backbone.layer.bias"])])
    with pytest.raises(ValueError, match=r"sets the option lr, .* factor learning_rate instead"):
        free_engine(groups=lambda g: [ParameterGroup(g.parameters, options={"lr": 1.0})])
    with pytest.raises(ValueError, match="sets betas, which SGD does not have; it has dampening"):
        free_engine(groups=lambda g: [ParameterGroup(g.parameters, options={"betas": (0.9, 0.9)})])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (lambda g: None, "must return a list of ParameterGroup, got NoneType"),
        (lambda g: [{"params": g.parameters}], "must return a list of ParameterGroup, got list"),
        (lambda g: [ParameterGroup([p for _, p in g.parameters])], r"are pairs \(name, parameter\).*got Parameter"),
        (
            lambda g: [g, ParameterGroup(list(nn.Linear(2, 2).named_parameters()))],
            "names weight, which is not a parameter of the method",
        ),
        (
            lambda g: [ParameterGroup(g.parameters, learning_rate=-1.0)],
            r"factor learning_rate must be a number of at least 0, got -1\.0",
        ),
    ],
)
def test_groups_that_break_the_interface_are_named(groups, message):
    with pytest.raises(ValueError, match=rf"Free\.parameter_groups\(\).*{message}"):
        free_engine(groups=groups)


def test_the_parameters_of_a_group_may_be_an_iterator():
    found = free_engine(groups=lambda g: (ParameterGroup(iter(g.parameters)),)).optimizer.param_groups
    assert sum(len(group["params"]) for group in found) == len(list(Free().parameters()))


def test_teachers_have_different_names_and_lists_of_students():
    method = Free()
    method.add_teacher("slow", ("backbone",), lambda step: 0.9)
    with pytest.raises(ValueError, match="two teachers are named 'slow'"):
        method.add_teacher("slow", ("projection",), lambda step: 0.9)
    with pytest.raises(ValueError, match=r"must be a list of names, for example \['backbone'\]"):
        method.add_teacher("other", "backbone", lambda step: 0.9)
