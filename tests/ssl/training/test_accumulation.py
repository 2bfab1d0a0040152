"""Gradient accumulation: several micro-batches train like one large batch, contrastive losses included."""

import socket
import sys
from types import MappingProxyType

import pytest
import torch
from accumulation_ranks import (
    CASES,
    ON_RANKS,
    build,
    engine_of,
    reader_of,
    train,
    worker,
)
from forked_runs import forked
from method_cases import load
from torch import nn

from wildfern.generators.counter_rng import key
from wildfern.ssl.data import Loader
from wildfern.ssl.methods import METHODS, ComparingMethod, Embedded, Output, SimCLR
from wildfern.ssl.training.accumulation import separate_losses, shared_loss

# In float32 with DeepSpeed: its features are standardized, so that whole tensors of gradients are rounding errors.
MULTIPLIES_ROUNDING = "barlow_twins"
for name, _ in CASES.values():
    load(name)
# They have one loss for all parts.
SHARED = [case for case, (name, _) in CASES.items() if METHODS[name].forward is ComparingMethod.forward]


def trained(case, accumulation, dtype=torch.float64, **arguments):
    engine = engine_of(build(case, dtype, **arguments), accumulation, probe=case != "several labels")
    return train(engine, case, accumulation, dtype)


def assert_same(found, expected, relative, of_largest=False):
    """Within this part of each number or, of weights and statistics, of the largest number of each tensor: where large terms
    cancel in float32, the sum has their rounding error, which is another one on another processor."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        absolute = 1e-3 if name.startswith("probe/") and relative else relative * 1e-2  # the probe is in float32
        if of_largest and name != "numbers" and value.is_floating_point() and value.numel():
            absolute += relative * value.abs().max().item()
        torch.testing.assert_close(found[name], value, rtol=relative, atol=absolute, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("case", CASES)
def test_micro_batches_train_like_the_whole_batch(case):
    whole = trained(case, 1)
    assert len(set(whole["numbers"][:, 0].tolist())) == len(whole["numbers"])  # the weights change
    for accumulation in (2, 4):
        assert_same(trained(case, accumulation), whole, 1e-9)


@pytest.mark.parametrize("case", SHARED)
def test_separate_losses_would_differ(case, monkeypatch):
    monkeypatch.setattr("wildfern.ssl.training.loop.shared_loss", separate_losses)
    whole, parts = trained(case, 1)["numbers"], trained(case, 2)["numbers"]
    assert not torch.allclose(parts, whole, rtol=1e-3)


def test_both_passes_draw_the_same_random_numbers():
    """The gradient is that of one graph in which each micro-batch was embedded once, with its own seed."""
    method = build("simclr", drop_path_rate=0.5, proj_drop_rate=0.3)
    reader = reader_of("simclr", 2)
    engine, parts = engine_of(method, 2, probe=False), [reader(2), reader(3)]
    found = list(shared_loss(engine, reader, Loader(reader, 2, 4, 0), 2, False))
    gradients = [p.grad.clone() for p in engine.parameters]
    embedded = []
    for part in parts:
        torch.manual_seed(key("model", 0, 1, 0, part.part))
        embedded.append(method.embed(reader.batch(part)))
    engine.optimizer.zero_grad()
    output = method.compare({"z": torch.cat([e.embeddings["z"] for e in embedded], dim=1)}, 1)
    output.loss.backward()
    assert [part.loss.item() for part in found] == pytest.approx([output.loss.item()] * 2, rel=1e-12)
    for part, expected in zip(found, embedded, strict=True):
        torch.testing.assert_close(part.features, expected.features, rtol=0, atol=0)
    for gradient, parameter in zip(gradients, engine.parameters, strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-9, atol=1e-12)


def test_dropout_is_a_function_of_seed_step_and_part():
    arguments = {"drop_path_rate": 0.5, "proj_drop_rate": 0.3}
    one, again = (trained("cacr", 2, **arguments) for _ in range(2))
    assert_same(again, one, 0)
    assert not torch.allclose(one["numbers"], trained("cacr", 4, **arguments)["numbers"], rtol=1e-6)


def test_batch_statistics_are_updated_once_for_each_part():
    method = build("cacr_momentum", batch_norm=True)
    train(engine_of(method, 2), "cacr_momentum", 2, steps=1)
    for network in (method, *method.teachers().values()):
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d)]
        assert norms
        assert {int(m.num_batches_tracked) for m in norms} == {2}


class NotFinite(SimCLR):
    """A loss that is infinite in step 1, with a finite gradient."""

    def compare(self, embeddings, step):
        output = super().compare(embeddings, step)
        return Output(output.loss + (torch.inf if step == 1 else 0), output.metrics)


def test_a_step_whose_loss_is_not_finite_changes_nothing():
    states = []
    for steps in (1, 2):
        method = build("simclr", batch_norm=True)
        method.__class__ = NotFinite
        engine = engine_of(method, 2)
        engine.skip_nonfinite = True
        states.append(train(engine, "simclr", 2, steps=steps, skip_nonfinite=1))
    one, two = states
    assert two["numbers"][1].tolist() == pytest.approx([torch.inf, torch.nan], nan_ok=True)
    assert_same({k: v for k, v in two.items() if k != "numbers"}, {k: v for k, v in one.items() if k != "numbers"}, 0)


class Broken(SimCLR):
    """SimCLR whose functions are replaced."""

    replaced = MappingProxyType({})

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.scale = nn.Parameter(torch.ones(()))

    def embed(self, batch):
        return self.replaced.get("embed", lambda e: e)(super().embed(batch))

    def targets(self, batch):
        return self.replaced.get("targets", {})

    def compare(self, embeddings, step):
        return self.replaced.get("compare", lambda m, o: o)(self, super().compare(embeddings, step))


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"embed": lambda e: e.embeddings["z"]}, r"embed\(\) must return an Embedded, got Tensor"),
        ({"embed": lambda e: Embedded(e.embeddings["z"])}, r"embed\(\) must return tensors by name in a dict"),
        (
            {"embed": lambda e: Embedded({"z": e.embeddings["z"].transpose(0, 1)})},
            r"embed\(\): z must be a tensor \[V, 4, \.\.\.\], got \[4, 2, 8\]",
        ),
        (
            {"embed": lambda e: Embedded({"z": e.embeddings["z"].detach()})},
            r"embed\(\): the embeddings have no gradient",
        ),
        ({"embed": lambda e: Embedded(e.embeddings, e.features[1:])}, r"embed\(\): features must be \[4, F\]"),
        ({"targets": {"labels": torch.zeros(4)}}, r"targets\(\): labels must be a tensor \[V, 4, \.\.\.\], got \[4\]"),
        ({"compare": lambda m, o: o.loss}, r"compare\(\) must return an Output, got Tensor"),
        ({"compare": lambda m, o: Output(o.loss.detach())}, r"compare\(\): the loss has no gradient"),
        ({"compare": lambda m, o: Output(o.loss * m.scale)}, r"compare\(\) uses the parameter scale"),
    ],
)
def test_functions_that_break_the_interface_are_named(replaced, message, monkeypatch):
    monkeypatch.setattr(Broken, "replaced", replaced)
    monkeypatch.setattr("accumulation_ranks.METHODS", {"simclr": Broken})
    monkeypatch.setattr("accumulation_ranks.load", lambda name: None)
    with pytest.raises(ValueError, match=rf"Broken\.{message}"):
        trained("simclr", 2)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux")
def test_two_ranks_with_deepspeed_train_like_the_whole_batch(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [forked(worker, rank, 2, port, tmp_path) for rank in range(2)]
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for case, stage in ON_RANKS:
        whole = trained(case, 1, torch.float32)
        found = ranks[0][f"{case} zero{stage}"]
        assert_same(found, whole, 1e-3 if case == MULTIPLIES_ROUNDING else 5e-5, of_largest=True)
        torch.testing.assert_close(ranks[1][f"{case} zero{stage}"]["numbers"], found["numbers"])
