import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wildfern.ssl.evaluation import Features, HeldOut
from wildfern.ssl.evaluation.protocols.probe_training import (
    HeldOutChoice,
    ProbeHeads,
    TrainedProbe,
    check_training,
    class_targets,
    cosine,
    held_out_images,
    shuffled,
)
from wildfern.ssl.tracking.progress import Progress


def heads_at(*rates, optimizer=None):
    def make():
        head = nn.Linear(5, 3)
        with torch.no_grad():
            head.weight.copy_(torch.linspace(-1, 1, 15).view(3, 5))
            head.bias.zero_()
        return head

    return ProbeHeads(make, rates, optimizer or partial(torch.optim.SGD, momentum=0.9))


def batches(count=4, n=8):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(n, 5, generator=generator), torch.arange(n) % 3) for _ in range(count)]


def test_one_head_matches_gradient_descent_with_momentum_by_hand():
    heads = heads_at(0.3)
    weight, bias = (p.detach().clone().double() for p in heads.heads[0].parameters())
    momentum = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for step, (x, y) in enumerate(batches()):
        factor = cosine(step, 4)
        heads.step(x, y, factor)
        error = ((x.double() @ weight.T + bias).softmax(1) - F.one_hot(y, 3)) / len(y)
        momentum = [0.9 * old + new for old, new in zip(momentum, (error.T @ x.double(), error.sum(0)), strict=True)]
        weight, bias = weight - 0.3 * factor * momentum[0], bias - 0.3 * factor * momentum[1]
    torch.testing.assert_close(heads.heads[0].weight.double(), weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(heads.heads[0].bias.double(), bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "optimizer", [partial(torch.optim.SGD, momentum=0.9), partial(torch.optim.AdamW, weight_decay=0.1)]
)
def test_a_head_does_not_depend_on_the_other_rates_even_if_one_diverges(optimizer):
    alone, beside = heads_at(0.1, optimizer=optimizer), heads_at(0.1, 1e30, 1.0, optimizer=optimizer)
    for x, y in batches():
        alone.step(x, y, 1.0)
        beside.step(x, y, 1.0)
    assert torch.equal(alone.heads[0].weight, beside.heads[0].weight)
    assert torch.equal(alone.logits(x)[0], beside.logits_of(0, x))
    beside.check_finite(0)


def test_all_heads_diverged_is_one_clear_error():
    heads = heads_at(math.inf)
    heads.step(*batches()[0], 1.0)
    with pytest.raises(ValueError, match=r"diverged in epoch 3: .* learning rate inf; lower learning_rate"):
        heads.check_finite(2)


def test_cosine_is_torchs_schedule():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 7)
    for epoch in range(7):
        assert cosine(epoch, 7) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()


def test_one_of_each_class_in_ten_is_held_out_and_never_the_only_one():
    targets = torch.tensor([0] * 40 + [1] * 11 + [2] + [3] * 2)[
        torch.randperm(54, generator=torch.Generator().manual_seed(1))
    ]
    held = held_out_images(targets, 2, 0.1, 0)
    assert torch.bincount(targets[held], minlength=4).tolist() == [4, 2, 0, 1]
    assert torch.equal(held, held_out_images(targets, 5, 0.1, 0))
    assert not torch.equal(held, held_out_images(targets, 2, 0.1, 1))
    assert not held_out_images(targets, 1, 0.1, 0).any()
    with pytest.raises(ValueError, match="no class has two train images"):
        held_out_images(torch.arange(4), 2, 0.1, 0)


def test_the_order_is_a_function_of_seed_epoch_and_image():
    whole = shuffled(np.arange(50), 3, 1)
    assert sorted(whole) == list(range(50))
    part = np.array([4, 7, 20, 33])
    assert shuffled(part, 3, 1).tolist() == [image for image in whole if image in part]
    assert shuffled(np.arange(50), 3, 2).tolist() != whole.tolist() != shuffled(np.arange(50), 4, 1).tolist()


def test_the_head_that_is_right_most_often_is_chosen_of_equals_the_surer_one():
    targets = torch.arange(30) % 3
    right = 4.0 * F.one_hot(targets, 3)
    wrong_twice = right.clone()
    wrong_twice[:2] = right[[2, 0]]
    logits = torch.stack([torch.full_like(right, torch.nan), 50 * wrong_twice, 0.1 * wrong_twice, wrong_twice])
    judge = HeldOutChoice(4, 30)
    for part in (slice(0, 7), slice(7, 30)):
        judge.add(logits[:, part], targets[part])
    choice = judge.choose()
    assert (choice.head, choice.images, choice.accuracy) == (3, 30, 28 / 30)
    assert choice.describe(0.5) == "learning rate 0.5 (93.3 % right of 30 train images held out)"
    losses = [
        F.cross_entropy(wrong_twice / t, targets)
        for t in (choice.temperature, 0.97 * choice.temperature, 1.03 * choice.temperature)
    ]
    assert losses[0] == min(losses)
    judge = HeldOutChoice(2, 30)
    judge.add(torch.stack([wrong_twice, right]), targets)
    assert judge.choose().head == 1


def test_the_temperature_needs_only_some_of_many_images(monkeypatch):
    monkeypatch.setattr("wildfern.ssl.evaluation.protocols.probe_training.MOST_FOR_TEMPERATURE", 10)
    kept = []
    monkeypatch.setattr(
        "wildfern.ssl.evaluation.protocols.probe_training.fit_temperature", lambda x, y: kept.append((x, y)) or 1.0
    )
    targets = torch.arange(35) % 5
    logits = torch.arange(35.0)[None, :, None].expand(2, -1, 5)
    judge = HeldOutChoice(2, 35)
    for part in (slice(0, 3), slice(3, 5), slice(5, 35)):
        judge.add(logits[:, part], targets[part])
    judge.choose()
    assert kept[0][0][:, 0].tolist() == list(range(0, 35, 4))
    assert kept[0][1].tolist() == [number % 5 for number in range(0, 35, 4)]


class Probe(TrainedProbe):
    """A linear head on given features, in batches of 8; `order` has what was asked for, in turn."""

    def __call__(self, train, test):
        self.order = []
        labels = self.train_labels(train.y, ("a", "b", "c", "d"))
        heads = heads_at(*self.learning_rates)

        def parts(mask, name):
            self.order.append(name)
            for images in mask.nonzero()[:, 0].split(8):
                yield train.x[images], images

        def fitted(epoch):
            return (part for part in parts(~labels.held, f"epoch {epoch}") if len(part[1]) == 8)

        def of_test():
            self.order.append("test")
            held = test.read()
            yield from zip(held.x.split(5), held.y.split(5), strict=True)

        self.fit(heads, labels, 8, fitted, cosine)
        held_out = parts(labels.held, "held out")
        return self.scores(heads, labels, held_out, of_test(), before="first", after="last")


@pytest.mark.parametrize(("rates", "held"), [((0.1, 0.5, 1e-6), 9), (0.5, 0)])
def test_a_probe_is_fitted_then_chosen_then_tested_once(rates, held):
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(45) % 3
    x = 3 * F.one_hot(y, 5) + torch.randn(45, 5, generator=generator)
    test = Features(x[:12], torch.where(torch.arange(12) == 4, 3, y[:12]))  # one of a class without train images
    told = []
    probe = Probe(rates, 3, 8, 0.0, 0.2, 0)
    probe.progress = Progress()
    probe.progress.count = lambda *count: told.append(count)
    scores = probe(Features(x, y), HeldOut(test))
    assert probe.order == ["epoch 0", "epoch 1", "epoch 2", *(["held out"] if held else []), "test"]
    steps = 3 * ((45 - held) // 8)
    expected = [(8 * s, 8 * steps, "images", f"epoch {3 * s // steps + 1} of 3") for s in range(steps)]
    assert told == expected

    mask = held_out_images(y, len(probe.learning_rates), 0.2, 0)
    assert int(mask.sum()) == held
    heads = heads_at(*probe.learning_rates)
    rows = (~mask).nonzero()[:, 0]
    for step in range(steps):
        at = step % (steps // 3) * 8
        heads.step(x[rows[at : at + 8]], y[rows[at : at + 8]], cosine(step, steps))
    right = [int((logits.argmax(1) == y[mask]).sum()) for logits in heads.logits(x[mask])] if held else [0]
    losses = [float(F.cross_entropy(logits, y[mask])) for logits in heads.logits(x[mask])] if held else [0]
    best = min(range(len(right)), key=lambda head: (-right[head], losses[head]))
    found = scores[0].predictions
    torch.testing.assert_close(found.logits, heads.logits_of(best, test.x))
    assert found.labels.tolist() == test.y.tolist()
    assert scores[0].value == float((heads.logits_of(best, test.x).argmax(1) == test.y).double().mean())
    chosen = f"learning rate {probe.learning_rates[best]:g}"
    chosen += f" ({100 * right[best] / held:.1f} % right of {held} train images held out)" if held else ""
    unseen = "counted as wrong, since no train image has their class: 1 of 12 test images, d (1 test image)"
    assert scores[0].detail.startswith(f"first; {chosen}; last; {unseen}; 95 %")


def test_a_probe_without_test_images_or_with_diverged_logits_is_refused():
    x, y = torch.eye(5)[torch.arange(50) % 5], torch.arange(50) % 3
    probe = Probe(0.1, 1, 8, 0.0, 0.2, 0)
    with pytest.raises(ValueError, match="the test split has no images to score"):
        probe(Features(x, y), HeldOut(Features(x[:0], y[:0])))
    with pytest.raises(ValueError, match="the logits of test images contain NaN or infinity"):
        probe(Features(x, y), HeldOut(Features(x.clone().fill_(math.inf), y)))
    with pytest.raises(ValueError, match="learning_rate holds numbers above 0"):
        Probe((0.1, -1.0), 1, 8, 0.0, 0.2, 0)


def test_impossible_settings_and_labels_are_refused():
    for wrong in ((), (0.0,), (math.nan,), (0.1, math.inf), (1e7,)):
        with pytest.raises(ValueError, match="learning_rate holds numbers above 0, up to 1e\\+06"):
            check_training(wrong, 1, 1, 0.0, 0.1)
    for epochs, batch, decay in ((0, 1, 0.0), (1, 0, 0.0), (1, 1, math.nan)):
        with pytest.raises(ValueError, match="epochs >= 1, batch_size >= 1 and weight_decay >= 0"):
            check_training((0.1,), epochs, batch, decay, 0.1)
    with pytest.raises(ValueError, match=r"holdout is a share of train in \(0, 0.5\], got 0.6"):
        check_training((0.1,), 1, 1, 0.0, 0.6)
    for labels in ([2, 2], [-1, 0, 1]):
        with pytest.raises(ValueError, match="labeled train images of at least two classes"):
            class_targets(torch.tensor(labels))
