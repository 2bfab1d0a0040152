import numpy as np
import pytest
import torch
from torch import nn

from wildfern.ssl.evaluation import Finetune, finetune
from wildfern.ssl.evaluation.finetune import flip_and_crop


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
