import inspect
import json
import sys

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from wildfern.recipes.components import argument_values, arguments_model
from wildfern.ssl.augmentation.mixing import draw_mixing, mix
from wildfern.ssl.evaluation import Finetune, HeldOut, LabeledImages, Preprocessing, finetune
from wildfern.ssl.evaluation.protocols.finetune import flip_and_crop
from wildfern.ssl.evaluation.protocols.finetune_regularization import Regularization
from wildfern.ssl.models import Backbone


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    )


def stripes(n, seed=0):
    """Three easy classes: horizontal stripes, vertical stripes, noise alone."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    pixels = rng.integers(0, 120, (n, 12, 12, 3))
    pixels[labels == 0, ::2] += 120
    pixels[labels == 1, :, ::2] += 120
    return pixels.astype(np.uint8), labels


def test_it_learns_is_repeatable_and_does_not_change_backbone_and_generator(backbone):
    backbone.requires_grad_(False)[3].eval()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    modes = [module.training for module in backbone.modules()]
    generator = torch.random.get_rng_state()
    arguments = (backbone, *stripes(120), *stripes(60, seed=1))
    options = {"epochs": 12, "batch_size": 16, "learning_rate": 1e-2}
    first = finetune(*arguments, **options)
    assert torch.equal(torch.random.get_rng_state(), generator)
    torch.manual_seed(123)
    assert finetune(*arguments, **options) == first
    assert finetune(*arguments, **options, seed=1).losses != first.losses
    assert first.accuracy > 0.9
    assert first.losses[-1] < 0.5 < 1.0 < first.losses[0]
    assert [module.training for module in backbone.modules()] == modes
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name])


def test_test_labels_do_not_influence_training(backbone):
    train, (pixels, labels) = stripes(30), stripes(30, seed=1)
    one = finetune(backbone, *train, pixels, labels, epochs=1)
    other = finetune(backbone, *train, pixels, np.full(30, 7), epochs=1)
    assert one.losses == other.losses
    assert other.accuracy == 0


def test_ragged_images_need_and_get_a_size(backbone):
    pixels, labels = stripes(8)
    ragged = [image[: 12 - i % 3] for i, image in enumerate(pixels)]
    result = finetune(backbone, ragged, labels, ragged, labels, size=8, epochs=1, batch_size=4)
    assert 0 <= result.accuracy <= 1
    assert "for 1 epoch" in result.protocol


def test_flip_and_crop_matches_the_loop():
    images = torch.rand(6, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    draws = np.random.default_rng(0).random((6, 3))
    draws[:2] = [[0.2, 0.0, 0.999], [0.9, 0.5, 0.5]]
    found = flip_and_crop(images, draws, 2)
    for image, (flip, down, right), one in zip(images, draws, found, strict=True):
        padded = np.pad(image.numpy(), ((0, 0), (2, 2), (2, 2)), mode="reflect")
        top, left = int(down * 5), int(right * 5)
        expected = padded[:, top : top + 7, left : left + 7]
        expected = expected[:, :, ::-1] if flip < 0.5 else expected
        np.testing.assert_array_equal(one.numpy(), expected)
    straight = flip_and_crop(images, np.tile([0.1, 0.5, 0.5], (6, 1)), 2, flip=False)
    assert torch.equal(straight, images)


def test_impossible_settings_are_refused(backbone):
    pixels, labels = stripes(6)
    with pytest.raises(ValueError, match="two classes"):
        finetune(backbone, pixels, labels * 0, pixels, labels)
    with pytest.raises(ValueError, match="epochs"):
        finetune(backbone, pixels, labels, pixels, labels, epochs=0)
    for padding in (-3, 4000):
        with pytest.raises(ValueError, match=f"0 to 128 pixels, got {padding}"):
            Finetune(padding=padding)
    with pytest.raises(ValueError, match="weight_decay >= 0"):
        Finetune(weight_decay=-3.0)
    with pytest.raises(ValueError, match="the train loss is nan in epoch 1 of 10; lower learning_rate"):
        finetune(backbone, *stripes(60), pixels, labels, learning_rate=float("1e30"), batch_size=16)


def test_a_batch_of_one_image_and_batch_normalization_is_one_clear_error():
    pixels, labels = stripes(6)
    layers = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten()
    with pytest.raises(
        ValueError, match="batch_size: 1 is too small to fine-tune this backbone: its batch normalization"
    ):
        finetune(nn.Sequential(*layers), pixels, labels, pixels, labels, epochs=1, batch_size=1)
    plain = nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.BatchNorm2d)))
    assert finetune(plain, pixels, labels, pixels, labels, epochs=1, batch_size=1).losses


VIT = {"img_size": 12, "patch_size": 4, "depth": 3, "embed_dim": 12, "num_heads": 2}


def test_regularization_sets_rates_and_drop_path_by_depth():
    vit, head = Backbone("vit_tiny_patch16_224", **VIT), nn.Linear(12, 3)
    chosen = Regularization(layer_decay=0.5, drop_path=0.2)
    chosen.set_drop_path(vit)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in vit.network.blocks]
    assert rates == [getattr(block.drop_path2, "drop_prob", 0.0) for block in vit.network.blocks] == [0.0, 0.1, 0.2]
    groups = chosen.optimizer_groups(vit, head, 0.3)
    found = {id(p): (group["lr_factor"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(vit.parameters())) + 2 == len(found)
    assert found[id(head.weight)] == (1.0, 0.3)
    assert found[id(vit.network.norm.bias)] == (1.0, 0.0)
    assert found[id(vit.network.blocks[2].mlp.fc1.weight)] == (0.5, 0.3)
    assert found[id(vit.network.patch_embed.proj.weight)] == (0.5**4, 0.3)
    assert {group["lr_factor"] for group in Regularization().optimizer_groups(vit, head, 0.3)} == {1.0}


def test_smoothed_labels_of_mixed_images_match_the_formula():
    logits = torch.randn(4, 3, dtype=torch.float64)
    images, chosen = torch.rand(4, 3, 6, 6), Regularization(mixup=0.8, cutmix=1.0, label_smoothing=0.1)
    mixed, targets = chosen.mixed(images, torch.tensor([0, 1, 2, 1]), 3, 5, 7)
    table = draw_mixing(5, 7, np.arange(4), 0, group=4)
    expected, shares = mix(images, torch.tensor([0, 1, 2, 1]), table, 3)
    assert torch.equal(mixed, expected)
    assert torch.equal(targets, shares)
    smoothed = 0.9 * targets.double() + 0.1 / 3
    loss = -(smoothed * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(chosen.loss(logits, targets.double(), multi_label=False), loss)
    assert Regularization().mixed(images, targets, 3, 5, 7) == (images, targets)


def test_a_transformer_learns_with_the_settings_of_mae():
    torch.manual_seed(0)
    options = {"layer_decay": 0.75, "drop_path": 0.1, "mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1}
    vit, data = Backbone("vit_tiny_patch16_224", **VIT), (*stripes(60), *stripes(30, seed=1))
    tuned = finetune(vit, *data, epochs=10, batch_size=10, learning_rate=5e-3, **options)
    assert tuned.accuracy > 0.6
    assert tuned.losses != finetune(vit, *data, epochs=10, batch_size=10, learning_rate=5e-3).losses
    said = "layer decay 0.75, drop path 0.1, mixup 0.8, cutmix 1, label smoothing 0.1), accuracy"
    assert said in tuned.protocol
    assert said in Finetune(**options).describe()


def test_impossible_regularization_is_refused(backbone):
    with pytest.raises(ValueError, match=r"layer_decay must be above 0 .*got 2; .*mixup must be 0 or more, got -1"):
        Finetune(layer_decay=2, mixup=-1)
    for options, words in (
        ({"drop_path": 0.1}, "drop_path needs a vision tr"),
        ({"layer_decay": 0.9}, "no order of layers"),
    ):
        with pytest.raises(ValueError, match=words):
            finetune(backbone, *stripes(6), *stripes(6), epochs=1, batch_size=2, **options)
        with pytest.raises(ValueError, match=words):
            Finetune(**options).check_network(backbone, 16)
    with pytest.raises(ValueError, match="padding 16 must be less than the 16 px"):
        Finetune(padding=16).check_network(backbone, 16)
    Finetune(padding=15).check_network(backbone, 16)
    Finetune(padding=15).check_network(backbone, None)


CHANGED = {
    "epochs": 3,
    "batch_size": 7,
    "learning_rate": (0.1, 0.2),
    "weight_decay": 0.3,
    "warmup": 0.2,
    "head_rate": 10.0,
    "ema_decay": 0.99,
    "flip": False,
    "padding": 3,
    "crop_scale": (0.2, 0.9),
    "rand_augment_layers": 3,
    "random_erasing": 0.3,
    "layer_decay": 0.7,
    "drop_path": 0.1,
    "mixup": 0.6,
    "cutmix": 0.7,
    "label_smoothing": 0.2,
}
TOGETHER = [
    {"learning_rate": (0.1, 0.2), "holdout": 0.25},
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "momentum": 0.8},
    {"optimizer": "sgd", "nesterov": True},
    {"ema_decay": 0.99, "ema_warmup": True},
    {"rand_augment_layers": 3, "rand_augment_magnitude": 4.0},
]


def test_function_and_evaluator_have_the_same_settings_and_describe_each(monkeypatch):
    found = []

    class Stop(Exception):
        pass

    def stopped(settings, *rest):
        found.append(settings)
        raise Stop

    monkeypatch.setattr(sys.modules[Finetune.__module__], "_finetune", stopped)
    given = [{name: value} for name, value in CHANGED.items()] + TOGETHER
    assert {name for one in given for name in one} | {"seed"} == set(inspect.signature(Finetune).parameters)
    for arguments in [{}, {"seed": 3}, *given]:
        with pytest.raises(Stop):
            finetune(None, *stripes(6), *stripes(6), **arguments)
        assert found[-1] == Finetune(**arguments).settings
    words = [Finetune(**arguments).describe() for arguments in [{}, *given]]
    assert len(set(words)) == len(words)


# As in docs/evaluation.md.
PUBLISHED = {
    "mae": """{epochs: 100, warmup: 0.05, batch_size: 1024, learning_rate: 4.0e-3, layer_decay: 0.75, weight_decay: 0.05,
        drop_path: 0.1, mixup: 0.8, cutmix: 1.0, label_smoothing: 0.1, crop_scale: [0.08, 1.0], rand_augment_layers: 2,
        random_erasing: 0.25}""",
    "deit": """{epochs: 1000, warmup: 0.005, batch_size: 768, optimizer: sgd, nesterov: true, learning_rate: 0.015,
        weight_decay: 1.0e-4, mixup: 0.8, cutmix: 1.0, label_smoothing: 0.1, crop_scale: [0.08, 1.0], rand_augment_layers: 2}""",
    "one_fractal": """{epochs: 1000, warmup: 0.01, batch_size: 768, optimizer: sgd, nesterov: true, learning_rate: 0.015,
        weight_decay: 1.0e-4, drop_path: 0.1, mixup: 0.8, cutmix: 1.0, label_smoothing: 0.1, crop_scale: [0.08, 1.0],
        rand_augment_layers: 2, random_erasing: 0.25}""",
    "anderson_farrell": """{epochs: 150, batch_size: 16, optimizer: sgd, learning_rate: 0.015, head_rate: 10.0,
        weight_decay: 5.0e-5}""",
    "vtab": """{epochs: 67, warmup: 0.08, batch_size: 64, optimizer: sgd, learning_rate: [0.001, 0.01, 0.1], weight_decay: 0.0,
        flip: false, padding: 0}""",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings_are_recipe_arguments(name):
    text = json.dumps(yaml.safe_load(PUBLISHED[name]))
    arguments = argument_values(arguments_model(Finetune, frozenset()).model_validate_json(text))
    assert Finetune(**arguments).describe().startswith("all weights fine-tuned for")


def test_scores_have_predictions_and_what_each_image_gives(backbone):
    parts = [LabeledImages(*stripes(n, seed), backbone, Preprocessing()) for n, seed in ((30, 0), (12, 1))]
    accuracy, balanced = Finetune(epochs=3, batch_size=10, learning_rate=1e-2)(parts[0], HeldOut(parts[1]))
    found = accuracy.predictions
    assert found.labels.tolist() == parts[1].y.tolist()
    assert (found.logits.dtype, found.logits.shape) == (torch.float32, (12, 3))
    assert found.classes.tolist() == [0, 1, 2]
    assert torch.equal(found.classes[found.logits.argmax(1)], found.ranked[:, 0])
    assert accuracy.value == accuracy.per_image.mean() == (found.ranked[:, 0] == found.labels).float().mean()
    assert balanced.per_image.mean() == pytest.approx(balanced.value)


def test_all_augmentations_learn(backbone):
    options = {
        "crop_scale": (0.6, 1.0),
        "rand_augment_layers": 1,
        "random_erasing": 0.25,
        "ema_decay": 0.9,
        "ema_warmup": True,
    }
    options |= {"optimizer": "sgd", "nesterov": True}
    train, test = stripes(120), stripes(60, seed=1)
    tuned = finetune(
        backbone, *train, *test, epochs=6, batch_size=12, learning_rate=0.2, interpolation="bicubic", **options
    )
    assert tuned.accuracy > 0.7
    gray = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    data = (train[0][..., :1], train[1], test[0][..., :1], test[1])
    with pytest.raises(ValueError, match="RandAugment needs images of 3 channels, and these have 1"):
        finetune(gray, *data, mean=(0.5,), std=(0.2,), rand_augment_layers=2)
