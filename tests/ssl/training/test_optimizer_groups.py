"""Optimizers with numbers in their parameter groups resume exactly."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.optim import Lamb
from two_ranks import SmallNet

from wildfern.ssl.methods import SimCLR
from wildfern.ssl.training import OPTIMIZERS, TorchEngine
from wildfern.ssl.training.optimizer_groups import counted_keys, group_numbers, set_group_numbers
from wildfern.ssl.training.whole_state import FILE, write


class Prodigious(torch.optim.SGD):
    """SGD whose learning rate depends on numbers of all types in the groups, some of them with defaults."""

    def __init__(self, groups):
        super().__init__(groups, lr=0.1)
        self.defaults |= {"k": 0, "d": 1e-3}
        for group in self.param_groups:
            group |= {"k": 0, "d": 1e-3}

    def step(self, closure=None):
        for group in self.param_groups:
            group["k"] += 1
            group["d"] *= 1.5
            group["late"] = not group.get("late", False)
            group["seen"] = group.get("seen", torch.tensor(0.0)) + 0.5
            rate = group["lr"]
            group["lr"] = rate * group["k"] * group["d"] * float(group["seen"]) * (3.0 if group["late"] else 1.0)
            super().step()
            group["lr"] = rate


MAKE = {name: (lambda groups, name=name: OPTIMIZERS[name](groups, learning_rate=0.02)) for name in OPTIMIZERS}
MAKE["timm's Lamb"] = lambda groups: Lamb(groups, lr=0.02)
MAKE["numbers of all kinds"] = Prodigious


def build(name):
    torch.manual_seed(0)
    method = SimCLR(SmallNet(), 10, projection_hidden=8, projection_size=4)
    return TorchEngine(method, MAKE[name], 0.01, device=torch.device("cpu"), precision="fp32")


def gradients(step, parameters):
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(p.shape, generator=generator) for p in parameters]


def advance(engine, steps):
    """Steps of the engine on given gradients; returns all weights after each."""
    found = []
    for step in steps:
        for p, g in zip(engine.parameters, gradients(step, engine.parameters), strict=True):
            p.grad = g
        engine.step(0.02, 0.01)
        found.append(torch.cat([p.detach().flatten() for p in engine.parameters]))
    return torch.stack(found)


@pytest.mark.parametrize("name", MAKE)
def test_a_resumed_run_is_the_uninterrupted_one(name, tmp_path):
    engine = build(name)
    advance(engine, range(3))
    write(engine.snapshot(), tmp_path)
    expected = advance(engine, range(3, 6))
    other = build(name)
    other.load(tmp_path)
    assert torch.equal(advance(other, range(3, 6)), expected)


def test_types_are_restored():
    first, second = build("numbers of all kinds").optimizer, build("numbers of all kinds").optimizer
    first.param_groups[0] |= {"k": 7, "late": True, "seen": torch.tensor(1.5), "d": 0.25}
    set_group_numbers(second, group_numbers(first))
    for key in ("k", "late", "seen", "d"):
        assert type(second.param_groups[0][key]) is type(first.param_groups[0][key])
        assert second.param_groups[0][key] == first.param_groups[0][key]
    with pytest.raises(ValueError, match=r"9/k is of a parameter group that this optimizer does not have"):
        set_group_numbers(second, {"9/k": torch.tensor([1])})


def test_options_of_recipe_and_device_are_not_state():
    optimizer = build("adamw").optimizer
    assert {name.partition("/")[2] for name in group_numbers(optimizer)} == {"decays"}


def test_counted_keys_are_found_without_a_step_of_the_optimizer():
    for name, expected in {
        "timm's Lamb": {"step"},
        "lamb": {"step"},
        "adamw": set(),
        "lars": set(),
        "sgd": set(),
    }.items():
        engine = build(name)
        advance(engine, range(2))
        before = engine.snapshot()
        assert counted_keys(engine.optimizer) == expected
        assert all(torch.equal(value, before[key]) for key, value in engine.snapshot().items())
    assert counted_keys(build("numbers of all kinds").optimizer) == {"k", "d", "late", "seen"}


def as_before(folder, count=None):
    """The file as earlier versions wrote it: without groups; LAMB counted steps for each weight."""
    state = {key: value for key, value in load_file(folder / FILE).items() if not key.startswith("optimizer_groups/")}
    if count is not None:
        state |= {re.sub("/exp_avg$", "/step", k): torch.tensor(count) for k in state if k.endswith("/exp_avg")}
    save_file(state, folder / FILE)


@pytest.mark.parametrize(("name", "count"), [("adamw", None), ("sgd", None), ("lars", None), ("lamb", 3.0)])
def test_files_of_earlier_versions_are_read(name, count, tmp_path):
    engine = build(name)
    advance(engine, range(3))
    write(engine.snapshot(), tmp_path)
    as_before(tmp_path, count)
    expected = advance(engine, range(3, 6))
    other = build(name)
    other.load(tmp_path)
    assert torch.equal(advance(other, range(3, 6)), expected)


def test_files_of_earlier_versions_are_refused_if_the_optimizer_counted(tmp_path):
    engine = build("numbers of all kinds")
    advance(engine, range(3))
    momenta = {f"optimizer/{name}/more": p.detach().clone() for name, p in engine.method.named_parameters()}
    write({**engine.snapshot(), **momenta}, tmp_path)
    as_before(tmp_path)
    with pytest.raises(ValueError, match=r"counts d, k, late, seen in its parameter groups.*start a new run"):
        build("numbers of all kinds").load(tmp_path)
