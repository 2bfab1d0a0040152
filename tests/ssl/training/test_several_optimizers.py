"""Parameter groups with optimizers and learning rates of their own."""

import copy
import sys
from functools import partial

import pytest
import torch
from torch import nn
from two_ranks import SmallNet

from wildfern.ssl.methods import Batch, Method, Needs, Output, ParameterGroup
from wildfern.ssl.training import OPTIMIZERS, TorchEngine
from wildfern.ssl.training.footprint import optimizer_state
from wildfern.ssl.training.optimizer_groups import counted_keys, first_state, group_numbers
from wildfern.ssl.training.parameter_groups import method_optimizer, optimizer_groups
from wildfern.ssl.training.several_optimizers import SeveralOptimizers
from wildfern.ssl.training.whole_state import write

PEAK, DECAY = 0.5, 0.01  # a power of two, by which numbers are multiplied and divided without rounding
SHARES = [0.25, 0.5, 1.0, 0.7, 0.4, 0.1]  # of the peak, for each step
ADAM = {"optimizer": "adam", "rate": 1e-3, "weight_decay": 0.0, "options": {"betas": (0.9, 0.99)}}
SGD = partial(OPTIMIZERS["sgd"], learning_rate=PEAK)


class Adversarial(Method):
    """A backbone whose features a discriminator tells apart by view, with the gradient reversed in between."""

    needs = Needs(views=(2, 2))

    def __init__(self, **own):
        super().__init__()
        torch.manual_seed(0)
        self.backbone, self.head = SmallNet(), nn.Linear(6, 3)
        self.discriminator = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
        self.own = own

    def parameter_groups(self):
        named = list(self.named_parameters())
        own = [pair for pair in named if pair[0].startswith("discriminator.")]
        rest = [pair for pair in named if not pair[0].startswith("discriminator.")]
        return [ParameterGroup(own, **self.own), ParameterGroup(rest)]

    def forward(self, batch):
        one, two = (self.backbone(view) for view in batch.views[0])
        apart = torch.cat([one, two])
        views = torch.arange(2).repeat_interleave(len(one))
        reversed_gradient = 2 * apart.detach() - apart
        told = nn.functional.cross_entropy(self.discriminator(reversed_gradient), views)
        return Output((self.head(one) - self.head(two).detach()).square().mean() + told)


def batch(step):
    return Batch.from_views([torch.randn(2, 8, 3, 8, 8, generator=torch.Generator().manual_seed(step))], step=step)


def engine(**own):
    return TorchEngine(Adversarial(**own), SGD, DECAY, device=torch.device("cpu"), precision="fp32")


def advance(trained, steps):
    """Train these steps; all weights after each."""
    found = []
    for step in steps:
        trained.backward(trained(batch(step)).loss)
        trained.step(PEAK * SHARES[step], DECAY)
        found.append(torch.cat([p.detach().flatten() for p in trained.parameters]))
    return torch.stack(found)


@pytest.mark.parametrize("constant", [False, True])
def test_a_run_with_two_optimizers_is_the_loop_with_two_optimizers(constant):
    method = Adversarial()
    rest = [*method.backbone.parameters(), *method.head.parameters()]
    decayed = [{"params": [p for p in rest if p.ndim > 1], "weight_decay": DECAY}]
    sgd = torch.optim.SGD([*decayed, {"params": [p for p in rest if p.ndim == 1]}], lr=PEAK, momentum=0.9)
    adam = torch.optim.Adam(method.discriminator.parameters(), lr=1e-3, betas=(0.9, 0.99))
    found = advance(engine(**ADAM, constant_rate=constant), range(6))
    for step, share in enumerate(SHARES):
        for group in sgd.param_groups:
            group["lr"] = PEAK * share
        adam.param_groups[0]["lr"] = 1e-3 if constant else 1e-3 * share
        method(batch(step)).loss.backward()
        for optimizer in (sgd, adam):
            optimizer.step()
            optimizer.zero_grad()
        assert torch.equal(found[step], torch.cat([p.detach().flatten() for p in method.parameters()]))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_against_its_formula(weight_decay):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 2, dtype=torch.float64, generator=generator)
    gradients = torch.randn(4, 3, 2, dtype=torch.float64, generator=generator)
    p = nn.Parameter(start.clone())
    optimizer = OPTIMIZERS["adam"](
        [{"params": [p], "weight_decay": weight_decay}], learning_rate=0.01, betas=(0.8, 0.9)
    )
    theta, m, v = start.clone(), torch.zeros(3, 2), torch.zeros(3, 2)
    for t, given in enumerate(gradients, start=1):
        p.grad = given.clone()
        optimizer.step()
        g = given + weight_decay * theta
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g.square()
        theta = theta - 0.01 * (m / (1 - 0.8**t)) / ((v / (1 - 0.9**t)).sqrt() + 1e-8)
        torch.testing.assert_close(p.detach(), theta)


def test_without_own_optimizers_it_is_the_recipes_as_it_was():
    method = Adversarial(learning_rate=0.1)
    optimizer = method_optimizer(method, SGD, DECAY)
    alone = SGD(optimizer_groups(method.parameter_groups(), DECAY))
    assert type(optimizer) is torch.optim.SGD
    assert [(list(g), g) for g in optimizer.param_groups] == [(list(g), g) for g in alone.param_groups]


def test_groups_have_only_the_keys_of_their_optimizer_and_are_saved_without_its_defaults():
    optimizer = engine(**ADAM).optimizer
    keys = {group["optimizer"]: group.keys() for group in optimizer.param_groups}
    assert "momentum" in keys[""] - keys["adam"]
    assert {"betas", "eps", "peak_rate"} <= keys["adam"] - keys[""]
    assert {name.partition("/")[2] for name in group_numbers(optimizer)} == {
        "decays",
        "lr_factor",
        "weight_decay_factor",
    }


def test_a_rate_of_a_group_needs_no_optimizer_of_its_own():
    trained = engine(rate=0.125)
    assert type(trained.optimizer) is torch.optim.SGD
    advance(trained, range(2))
    assert [group["lr"] for group in trained.optimizer.param_groups] == [0.0625, 0.0625, 0.25, 0.25]


def test_the_factor_of_a_group_holds_with_an_optimizer_of_its_own():
    trained = engine(optimizer="adamw", learning_rate=0.1, weight_decay=2.0, constant_rate=True)
    advance(trained, range(1))
    found = [(g["lr"], g["weight_decay"]) for g in trained.optimizer.param_groups if g["optimizer"] == "adamw"]
    assert found == [(0.1 * PEAK, 2 * DECAY), (0.1 * PEAK, 0.0)]


def test_a_method_may_have_no_group_of_the_recipes_optimizer():
    class All(Adversarial):
        def parameter_groups(self):
            return [ParameterGroup(list(self.named_parameters()), **ADAM)]

    optimizer = method_optimizer(All(), SGD, DECAY)
    assert list(optimizer.optimizers) == ["adam"]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(All().parameters()))


def test_a_frozen_group_keeps_its_weights_while_its_optimizer_moves():
    class Frozen(Adversarial):
        freeze = 2

        def parameter_groups(self):
            backbone = list(self.backbone.named_parameters(prefix="backbone"))
            rest = [pair for pair in self.named_parameters() if not pair[0].startswith("backbone.")]
            return [ParameterGroup(rest), ParameterGroup(backbone, **ADAM)]

    trained = TorchEngine(Frozen(), SGD, DECAY, device=torch.device("cpu"), precision="fp32")
    weight = trained.method.backbone.convolution.weight
    start = weight.detach().clone()
    trained.backward(trained(batch(0)).loss)
    trained.step(PEAK, DECAY, freeze=True)
    assert torch.equal(weight, start)
    assert trained.optimizer.state[weight]["exp_avg"].count_nonzero()
    trained.backward(trained(batch(1)).loss)
    trained.step(PEAK, DECAY)
    assert not torch.equal(weight, start)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    trained = engine(**ADAM)
    advance(trained, range(3))
    write(trained.snapshot(), tmp_path)
    expected = advance(trained, range(3, 6))
    other = engine(**ADAM)
    other.load(tmp_path)
    assert torch.equal(advance(other, range(3, 6)), expected)


def test_a_checkpoint_of_other_optimizers_is_refused(tmp_path):
    trained = engine(**ADAM)
    advance(trained, range(1))
    write(trained.snapshot(), tmp_path)
    with pytest.raises(
        ValueError, match=r"does not fit this recipe: optimizer/discriminator.*/momentum_buffer is missing"
    ):
        engine().load(tmp_path)


def test_stepping_groups_one_at_a_time_is_stepping_all():
    """As ZeRO 1 and 2 do, with a list of one group, and ZeRO 3, with the parameters of one group."""
    together, listed, emptied = (engine(**ADAM) for _ in range(3))
    for step in range(3):
        for one in (together, listed, emptied):
            one.backward(one(batch(step)).loss)
        together.optimizer.step()
        groups = listed.optimizer.param_groups
        for group in groups:
            listed.optimizer.param_groups = [group]
            listed.optimizer.step()
        listed.optimizer.param_groups = groups
        held = [group["params"] for group in emptied.optimizer.param_groups]
        for at, parameters in enumerate(held):
            for group in emptied.optimizer.param_groups:
                group["params"] = []
            emptied.optimizer.param_groups[at]["params"] = parameters
            emptied.optimizer.step()
        for group, parameters in zip(emptied.optimizer.param_groups, held, strict=True):
            group["params"] = parameters
        for one in (listed, emptied):
            assert all(map(torch.equal, one.parameters, together.parameters))
            one.optimizer.zero_grad()
        together.optimizer.zero_grad()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: engine(**ADAM)], ids=["a copy", "another, loaded"])
def test_copies_step_their_own_parameters_with_their_own_state(copied):
    trained = engine(**ADAM)
    advance(trained, range(2))
    before = {p: p.detach().clone() for p in trained.parameters}
    other = copied(trained.optimizer)
    if isinstance(other, TorchEngine):
        for p, q in zip(other.parameters, trained.parameters, strict=True):
            p.data = q.detach().clone()
        other = other.optimizer
        other.load_state_dict(copy.deepcopy(trained.optimizer.state_dict()))
    theirs = [p for group in other.param_groups for p in group["params"]]
    ours = [p for group in trained.optimizer.param_groups for p in group["params"]]
    for p, q in zip(theirs, ours, strict=True):
        p.grad = torch.ones_like(p)
        q.grad = torch.ones_like(q)
    other.step()
    assert all(torch.equal(p, before[p]) for p in trained.parameters)
    trained.optimizer.step()
    assert all(map(torch.equal, theirs, ours))
    assert not any(torch.equal(p, before[p]) for p in ours)


def test_keys_of_the_state_are_found_for_each_optimizer():
    trained = engine(**ADAM)
    for steps in (range(0, 1), range(1, 2)):
        state = first_state(trained.optimizer)
        named = {name: state[id(p)].keys() for name, p in trained.method.named_parameters()}
        assert named["head.weight"] == {"momentum_buffer"}
        assert named["discriminator.0.weight"] == {"step", "exp_avg", "exp_avg_sq"}
        advance(trained, steps)
    assert counted_keys(trained.optimizer) == set()
    assert counted_keys(engine(optimizer="lamb").optimizer) == {"step"}


def test_the_closure_is_called_once():
    optimizer = engine(**ADAM).optimizer
    calls = []
    assert optimizer.step(lambda: calls.append(torch.is_grad_enabled()) or 3.0) == 3.0
    assert calls == [True]


def test_the_estimate_counts_the_state_of_each_optimizer():
    trained = engine(**ADAM)
    advance(trained, range(1))
    state = [v for s in trained.optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    assert optimizer_state(Adversarial(**ADAM), SGD) == sum(v.numel() * v.element_size() for v in state)
    assert optimizer_state(Adversarial(), SGD) < optimizer_state(Adversarial(**ADAM), SGD)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"optimizer": "adm"}, r": unknown optimizer 'adm': did you mean 'adam'\?"),
        ({"optimizer": torch.optim.Adam}, ": unknown optimizer <class .*Adam'>: choose one of 'adamw', 'adam', 'sgd'"),
        ({"rate": 0.0}, r": rate must be a finite number above 0, got 0\.0"),
        ({"rate": float("inf")}, ": rate must be a finite number above 0, got inf"),
        ({"rate": float("nan")}, ": rate must be a finite number above 0, got nan"),
        ({"rate": "1e-3"}, ": rate must be a finite number above 0, got '1e-3'"),
        (
            {"rate": 1e-3, "learning_rate": 0.1},
            r" sets rate 0\.001 and the factor learning_rate 0\.1 of one group.*set one of the two",
        ),
        (
            {"optimizer": "adam", "options": {"momentum": 0.9}},
            " sets momentum, which Adam does not have; it has amsgrad, betas",
        ),
        ({"optimizer": "adam", "options": {"lr": 1e-3}}, " sets the option lr, .* use the group's rate or its factor"),
        ({"options": {"betas": (0.9, 0.99)}}, " sets betas, which SGD does not have"),
    ],
)
def test_impossible_groups_are_refused(own, message):
    with pytest.raises(ValueError, match=rf"^Adversarial\.parameter_groups\(\){message}"):
        engine(**own)


def test_a_parameter_in_groups_of_two_optimizers_is_refused():
    class Twice(Adversarial):
        def parameter_groups(self):
            return [*super().parameter_groups(), ParameterGroup([("head.bias", self.head.bias)])]

    with pytest.raises(ValueError, match=r"head\.bias is in two parameter groups"):
        method_optimizer(Twice(**ADAM), SGD, DECAY)


def test_a_method_without_groups_is_refused():
    with pytest.raises(ValueError, match="empty parameter list"):
        SeveralOptimizers({})


@pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux")
@pytest.mark.parametrize("name", ["lars", "lamb"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_layer_wise_optimizer_of_a_group_is_refused_if_layers_are_split(name, stage):
    from wildfern.ssl.training.deepspeed_engine import DeepSpeedEngine

    own = {"optimizer_name": "sgd", "zero_stage": stage, "micro_batch_size": 8}
    with pytest.raises(ValueError, match=f"^{name} computes norms per layer, but ZeRO stage {stage}.*zero_stage=0"):
        DeepSpeedEngine(Adversarial(optimizer=name), SGD, DECAY, device=torch.device("cpu"), precision="fp32", **own)
