from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightly.utils.scheduler import CosineWarmupScheduler
from torch import nn
from torchvision.transforms.v2 import functional as T

from wildfern.generators.counter_rng import key
from wildfern.ssl.augmentation.operation import UNCHANGED
from wildfern.ssl.augmentation.table import ViewSettings, draw_table
from wildfern.ssl.evaluation import HeldOut, LabeledImages, Preprocessing, TransformedBackbone
from wildfern.ssl.evaluation.protocols.linear_sgd import PUBLISHED, LinearSGD, schedule_factor
from wildfern.ssl.evaluation.protocols.probe_training import held_out_images, shuffled
from wildfern.ssl.models import Backbone

VIT = {"img_size": 12, "patch_size": 4, "depth": 4, "embed_dim": 12, "num_heads": 2}


class Recording(nn.Module):
    """A small network that keeps the images it gets."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Dropout(0.5), nn.BatchNorm1d(27, affine=False))
        self.seen = []

    def forward(self, images):
        self.seen.append(images)
        return self.layers(images)


def data(n, seed=0, backbone=None, noise=60, **preprocessing):
    """Four classes, which differ in where the image is bright; labels 3, 5, 7 and 9."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 4
    pixels = rng.integers(0, 256 - noise, (n, 12, 12, 3)) // 3
    for number, (rows, columns) in enumerate(
        ((slice(6), slice(6)), (slice(6), slice(6, 12)), (slice(6, 12), slice(6)))
    ):
        pixels[kind == number, rows, columns] += noise
    return LabeledImages(pixels.astype(np.uint8), 3 + 2 * kind, backbone or Recording(), Preprocessing(**preprocessing))


def test_the_head_matches_sgd_by_hand_on_the_same_features():
    train, test = data(24), data(12, seed=1)
    scores = LinearSGD(protocol="mocov2", crop=False, epochs=5, batch_size=8, weight_decay=1e-3, seed=4)(
        train, HeldOut(test)
    )

    network = Recording().double().eval()
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1) for values in (train.preprocessing.mean, train.preprocessing.std)
    )
    x, tested = (
        network(((torch.from_numpy(split.pixels).permute(0, 3, 1, 2) / 255 - mean) / std).double())
        for split in (train, test)
    )
    y = F.one_hot(torch.from_numpy(train.y - 3) // 2, 4)
    generator = torch.Generator().manual_seed(key("linear head", 4) >> 1)
    weight = (0.01 * torch.empty(4, 27).normal_(generator=generator)).double()
    bias, momentum = torch.zeros(4, dtype=torch.float64), [0.0, 0.0]
    for epoch in range(5):
        rate = 30 * 8 / 256 * (1, 1, 1, 0.1, 0.01)[epoch]
        for batch in shuffled(np.arange(24), 4, epoch).reshape(3, 8):
            error = ((x[batch] @ weight.T + bias).softmax(1) - y[batch]) / 8
            gradients = error.T @ x[batch] + 1e-3 * weight, error.sum(0) + 1e-3 * bias
            momentum = [0.9 * old + new for old, new in zip(momentum, gradients, strict=True)]
            weight, bias = weight - rate * momentum[0], bias - rate * momentum[1]
    logits = tested @ weight.T + bias
    found = scores[0].predictions
    torch.testing.assert_close(found.logits.double(), logits, rtol=1e-4, atol=1e-4)
    assert found.classes.tolist() == [3, 5, 7, 9]
    assert found.ranked[:, 0].tolist() == (3 + 2 * logits.argmax(1)).tolist()
    assert scores[0].value == (found.ranked[:, 0] == torch.from_numpy(test.y)).float().mean().item() > 0.7
    assert [score.metric for score in scores] == ["accuracy", "balanced_accuracy"]
    assert scores[0].n == len(scores[0].per_image) == 12
    assert (
        scores[0].detail
        == "27 inputs of the head, batches of 8 images, 15 steps (5 epochs of 3); learning rate 30; 95 % Wilson interval over "
        "12 test images"
    )


def test_crops_are_torchvisions_and_functions_of_seed_epoch_and_image_alone(monkeypatch):
    monkeypatch.setattr("wildfern.ssl.evaluation.protocols.linear_sgd.AT_ONCE", 3)  # less than a batch
    train = data(10, mean=(0, 0, 0), std=(1, 1, 1))
    for size in (5, 2):
        train.backbone.seen.clear()
        LinearSGD(epochs=2, batch_size=size, seed=3)(train, HeldOut(data(2)))
        found = torch.cat(train.backbone.seen[1:-1])  # without the one that tells the width, and test
        order = np.concatenate([shuffled(np.arange(10), 3, epoch) for epoch in range(2)])
        epochs = np.repeat([0, 1], 10)
        crops = {"size": 12, **UNCHANGED, "crop_scale": (0.08, 1), "crop_ratio": (3 / 4, 4 / 3), "flip": 0.5}
        for image, number, epoch in zip(found, order, epochs, strict=True):
            table = draw_table([ViewSettings(**crops)], key("linear crop", 3), int(epoch), np.array([number]), 0)
            box = [int(side) for side in table.boxes(np.array([12]), np.array([12]))[0, 0]]
            pixels = torch.from_numpy(train.pixels[number]).permute(2, 0, 1) / 255
            expected = T.resized_crop(pixels, *box, size=[12, 12], antialias=True)
            expected = expected.flip(2) if table.flip[0, 0] else expected
            torch.testing.assert_close(image, expected, atol=1e-5, rtol=1e-4)
    assert len({tuple(image.flatten().tolist()) for image in found}) == 20


def test_the_backbone_is_frozen_and_nothing_global_changes():
    train, test = data(20), data(8, seed=1)
    norm = train.backbone.layers[3]
    state, mode = torch.random.get_rng_state(), train.backbone.training
    scores = LinearSGD(epochs=2)(train, HeldOut(test))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert train.backbone.training == mode
    assert int(norm.num_batches_tracked) == 0
    torch.manual_seed(5)
    again = LinearSGD(epochs=2)(data(20), HeldOut(data(8, seed=1)))
    assert torch.equal(again[0].predictions.logits, scores[0].predictions.logits)
    other = LinearSGD(epochs=2, seed=1)(data(20), HeldOut(data(8, seed=1)))
    assert not torch.equal(other[0].predictions.logits, scores[0].predictions.logits)


def test_the_rate_is_chosen_on_held_out_train_and_test_changes_nothing():
    class Last(HeldOut):
        def read(self):
            self.images_before = len(train.backbone.seen)
            return super().read()

    train, rates = data(80, noise=20), (1e-6, 0.3, 1e6)
    evaluator = LinearSGD(learning_rate=rates, crop=False, epochs=8, batch_size=16, holdout=0.25)
    test = Last(data(40, seed=1))
    chosen = evaluator(train, test)
    assert len(train.backbone.seen) == test.images_before + 1
    with pytest.raises(RuntimeError, match="read before"):
        test.read()
    assert "learning rate 0.3 (" in chosen[0].detail
    assert "of 20 train images held out)" in chosen[0].detail
    assert 0.05 <= chosen[0].predictions.temperature <= 20
    replaced = data(40, seed=1)
    other = evaluator(data(80, noise=20), HeldOut(replace(replaced, y=np.full(40, 3))))
    assert torch.equal(other[0].predictions.logits, chosen[0].predictions.logits)
    assert other[0].predictions.temperature == chosen[0].predictions.temperature

    targets = torch.from_numpy(train.y - 3) // 2
    fitted = (~held_out_images(targets, 3, 0.25, 0)).numpy()
    part = replace(train, pixels=train.pixels[fitted], y=train.y[fitted])
    alone = LinearSGD(learning_rate=0.3, crop=False, epochs=8, batch_size=16)(part, HeldOut(data(40, seed=1)))
    assert torch.equal(alone[0].predictions.logits, chosen[0].predictions.logits)
    assert alone[0].predictions.temperature is None


def test_schedules_are_those_of_the_scripts():
    def rates(schedule, epochs, batches):
        return [schedule_factor(schedule, step, epochs * batches, epochs) for step in range(epochs * batches)]

    def follow(scheduler, steps, optimizer):
        found = []
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    def sgd():
        return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)

    optimizer = sgd()
    expected = follow(CosineWarmupScheduler(optimizer, warmup_epochs=0, max_epochs=12), 12, optimizer)
    assert rates(PUBLISHED["lightly"].schedule, 4, 3) == pytest.approx(expected)
    optimizer = sgd()
    expected = follow(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100), 100, optimizer)
    assert rates(PUBLISHED["dino"].schedule, 100, 3) == pytest.approx(np.repeat(expected, 3))
    for protocol in ("mocov2", "solo-learn"):
        optimizer = sgd()
        expected = follow(torch.optim.lr_scheduler.MultiStepLR(optimizer, [60, 80]), 100, optimizer)
        assert rates(PUBLISHED[protocol].schedule, 100, 2) == pytest.approx(np.repeat(expected, 2))
    assert rates(PUBLISHED["mocov2"].schedule, 5, 1) == pytest.approx([1, 1, 1, 0.1, 0.01])
    assert rates(PUBLISHED["lightly"].schedule, 1, 1) == [1]


def test_class_tokens_of_the_last_blocks_as_in_dino():
    torch.manual_seed(0)
    vit = Backbone("vit_tiny_patch16_224", **VIT).eval()
    train = data(8, backbone=vit)
    outputs = []
    hooks = [block.register_forward_hook(lambda *call: outputs.append(call[-1])) for block in vit.network.blocks]
    images = LinearSGD(layers=1)._features(vit, train.preprocessing, train.pixels)
    normed = [vit.network.norm(output) for output in outputs]
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(images, normed[-1][:, 0].detach())
    cases = {
        "dino": (LinearSGD(protocol="dino"), [output[:, 0] for output in normed]),
        "two": (LinearSGD(layers=2), [output[:, 0] for output in normed[-2:]]),
        "mean": (LinearSGD(layers=1, average_patches=True), [normed[-1][:, 0], normed[-1][:, 1:].mean(1)]),
    }
    for backbone in (vit, TransformedBackbone(nn.Identity(), vit)):
        for evaluator, expected in cases.values():
            found = evaluator._features(backbone, train.preprocessing, train.pixels)
            torch.testing.assert_close(found, torch.cat(expected, dim=1).detach())
    small = LinearSGD(protocol="dino", crop=False, epochs=1)
    assert "48 inputs of the head" in small(train, HeldOut(data(4)))[0].detail
    # A network without class tokens gives its output, as in DINO's script, unless layers were asked for.
    assert "27 inputs of the head" in small(data(8), HeldOut(data(4)))[0].detail
    for evaluator in (LinearSGD(layers=4), LinearSGD(average_patches=True)):
        with pytest.raises(ValueError, match="need a vision transformer of timm with a class token: set layers: 1"):
            evaluator.check_network(Recording(), 12)
    with pytest.raises(ValueError, match="class tokens of 5 blocks are wanted, and this network has 4"):
        LinearSGD(layers=5).check_network(vit, 12)
    LinearSGD(layers=4).check_network(vit, 12)


def test_the_description_names_the_settings():
    assert LinearSGD().describe() == (
        "linear layer on the backbone's output, frozen; lightly settings: SGD, learning rate 0.1 × batch / 256, momentum 0.9, "
        "weight decay 0, cosine to 0.001 in steps, 90 epochs, batches of 256, random resized crops and flips of train; "
        "trained on all of train; last epoch, center crops of test"
    )
    several = LinearSGD(protocol="dino", learning_rate=(0.1, 0.01), epochs=1, crop=False).describe()
    assert "the class tokens of the last 4 blocks (of a network without class token, its output)" in several
    assert "learning rate 0.01, 0.1 × batch / 256" in several
    assert "1 epoch, batches of 1024, center crops, features computed once" in several
    assert "2 learning rates trained side by side, one chosen on 10% of train held out" in several
    assert "the class token of the last block and the mean of its patch" in LinearSGD(average_patches=True).describe()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="protocol is one of lightly, solo-learn, dino, mocov2, got 'simclr'"):
        LinearSGD(protocol="simclr")
    with pytest.raises(ValueError, match="layers is a number of blocks of at least 1, got 0"):
        LinearSGD(layers=0)
    with pytest.raises(ValueError, match="learning_rate holds numbers above 0"):
        LinearSGD(learning_rate=())
    train, test = data(8), HeldOut(data(4))
    with pytest.raises(ValueError, match=r"linear_sgd\(\) is for one label per image"):
        LinearSGD()(replace(train, y=np.eye(8, 4, dtype=np.uint8)), test)
    with pytest.raises(
        ValueError,
        match="random crops need square images, got 12 × 8 px: set a size, or crop: false",
    ):
        LinearSGD(epochs=1)(replace(train, pixels=train.pixels[:, :, :8]), test)
    with pytest.raises(ValueError, match="the head diverged in epoch 1"):
        LinearSGD(learning_rate=1e6, weight_decay=1e12, epochs=1, batch_size=2, crop=False)(train, test)
    broken = Recording()
    broken.layers[3].running_mean.fill_(torch.nan)
    with pytest.raises(ValueError, match="features of train contain NaN or infinity: the backbone has diverged"):
        LinearSGD(epochs=1)(replace(train, backbone=broken), test)
    assert len(test.read()) == 4  # none of these read it
    with pytest.raises(ValueError, match="no images to score"):
        LinearSGD(epochs=1)(train, HeldOut(data(0)))
