"""Train windows, the loss and the loop, against plain loops."""

import math

import numpy as np
import pytest
import torch
from masked_squares import PLAIN, noisy_image, square_image
from PIL import Image

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.ssl.evaluation.evaluator import MaskedImage
from wildfern.ssl.evaluation.protocols.segmentation_training import (
    Training,
    TrainWindows,
    losses_words,
    segmentation_loss,
    train_image,
)
from wildfern.ssl.models.segmentation_settings import SegmentationSettings
from wildfern.ssl.tracking.progress import SILENT

SHAPES = [(20, 24), (16, 16), (31, 17)]
AS_THEY_ARE = SegmentationSettings(16, (16, 16))


def windows_of(shapes=SHAPES, size=16, seed=3, region=True):
    images = [train_image(noisy_image(n, shape, region), AS_THEY_ARE) for n, shape in enumerate(shapes)]
    return TrainWindows(images, size, seed)


def test_windows_are_squares_of_the_images_drawn_by_seed_step_and_place():
    windows = windows_of(size=12)
    found = windows(7, np.arange(40))
    used = set()
    for place in range(40):
        number, down, right = uniform(fold(np.uint64(key("segmentation windows", 3, 7)), place), 3)[0]
        image = noisy_image(int(number * 3), SHAPES[int(number * 3)], True)
        height, width = image.mask.shape
        top, left = int(down * (height - 11)), int(right * (width - 11))
        part = np.s_[top : top + 12, left : left + 12]
        expected = image.pixels[part].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(found.images[place].numpy(), expected)
        np.testing.assert_array_equal(found.target[place].numpy(), image.mask[part])
        np.testing.assert_array_equal(found.inside[place].numpy(), image.region[part])
        used.add((int(number * 3), top, left))
    assert len(used) > 30
    assert {number for number, _, _ in used} == {0, 1, 2}


def test_windows_are_the_same_for_any_split_of_a_batch():
    windows = windows_of()
    whole = windows(2, np.arange(12))
    for cuts in ([4, 8], [1, 2, 11], [7]):
        parts = [windows(2, part) for part in np.split(np.arange(12), cuts)]
        for layer, pieces in zip(whole, zip(*parts, strict=True), strict=True):
            assert torch.equal(layer, torch.cat(pieces))
    for other in (windows(3, np.arange(12)), windows_of(seed=4)(2, np.arange(12))):
        assert not torch.equal(other.images, whole.images)


def test_each_place_of_an_image_is_drawn_equally_often():
    pixels = np.arange(6 * 7, dtype=np.uint8).reshape(6, 7, 1).repeat(3, 2)
    image = MaskedImage(pixels, np.zeros((6, 7), bool), None, 0)
    windows = TrainWindows([train_image(image, SegmentationSettings(4, (4, 4)))], 4, 0)
    corners = (windows(0, np.arange(6000)).images[:, 0, 0, 0] * 255).round().long()
    counts = torch.bincount(corners, minlength=42).reshape(6, 7)
    assert counts[3:].sum() == counts[:, 4:].sum() == 0
    # 500 are expected in each of the twelve places; the deviation is about 21.
    assert (counts[:3, :4] - 500).abs().max() < 100


def test_an_image_of_the_right_scale_is_kept_as_it_is():
    image = noisy_image(0, region=True)
    found = train_image(image, AS_THEY_ARE)
    np.testing.assert_array_equal(found.pixels, image.pixels)
    np.testing.assert_array_equal(found.target, image.mask * 255)
    np.testing.assert_array_equal(found.inside, image.region)
    assert train_image(image, AS_THEY_ARE, "all").inside.all()
    assert train_image(noisy_image(0), AS_THEY_ARE).inside.all()


def test_an_image_smaller_than_a_window_is_padded_by_reflection_like_its_mask():
    image = noisy_image(0, (9, 20), region=True)
    found = train_image(image, AS_THEY_ARE)
    around = (3, 4), (0, 0)
    np.testing.assert_array_equal(found.pixels, np.pad(image.pixels, (*around, (0, 0)), "reflect"))
    np.testing.assert_array_equal(found.target, np.pad(image.mask * 255, around, "reflect"))
    np.testing.assert_array_equal(found.inside, np.pad(image.region, around, "reflect"))


@pytest.mark.parametrize("scale", [0.8, 2.0])
def test_an_image_and_its_mask_are_resized_alike(scale):
    image = noisy_image(0, (30, 40), region=True)
    size = round(40 * scale), round(30 * scale)
    found = train_image(image, SegmentationSettings(16, (16 / scale, 16 / scale)))

    def resized(layer):
        return np.asarray(Image.fromarray(layer).resize(size, Image.Resampling.BILINEAR))

    np.testing.assert_array_equal(found.pixels, resized(image.pixels))
    np.testing.assert_array_equal(found.target, resized(image.mask * np.uint8(255)))
    np.testing.assert_array_equal(found.inside, resized(image.region * np.uint8(255)) >= 128)


def test_gray_images_are_repeated_and_other_channels_refused():
    gray = square_image(0, channels=1)
    np.testing.assert_array_equal(train_image(gray, AS_THEY_ARE).pixels, np.repeat(gray.pixels, 3, axis=2))
    assert train_image(square_image(0, channels=5), AS_THEY_ARE, channels=5).pixels.shape == (20, 24, 5)
    with pytest.raises(ValueError, match="images have 5 channels, but 3 are normalized"):
        train_image(square_image(0, channels=5), AS_THEY_ARE)


@pytest.mark.parametrize("some", [True, False])
def test_the_loss_is_that_of_a_loop_over_pixels(some):
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 3, 5, 5, generator=generator, dtype=torch.float64)
    target = target.sigmoid()
    inside = (torch.rand(3, 5, 5, generator=generator) < 0.5 * some).double()
    entropy = product = predicted = wanted = count = 0.0
    for place in np.ndindex(3, 5, 5):
        if inside[place]:
            p, t = 1 / (1 + math.exp(-logits[place])), float(target[place])
            entropy -= t * math.log(p) + (1 - t) * math.log(1 - p)
            product, predicted, wanted, count = product + p * t, predicted + p, wanted + t, count + 1
    expected = entropy / max(count, 1) + 1 - (2 * product + 1e-5) / (predicted + wanted + 1e-5)
    assert float(segmentation_loss(logits, target, inside)) == pytest.approx(expected, abs=1e-12)


def test_training_is_gradient_descent_on_the_windows_with_warm_up_and_cosine():
    training = Training(windows_of(), 20, 4, PLAIN, torch.device("cpu"), SILENT)
    weight = torch.nn.Parameter(torch.tensor([0.1, -0.2, 0.3]))

    def logits(x, weight):
        return torch.einsum("nchw,c->nhw", x, weight)

    optimizer = torch.optim.SGD([weight], lr=0.5)
    losses = training.train(optimizer, lambda x: logits(x, weight)[None])
    plain = torch.tensor([0.1, -0.2, 0.3], requires_grad=True)
    for step in range(20):
        windows = windows_of()(step, np.arange(4))
        loss = segmentation_loss(logits((windows.images - 0.5) / 0.25, plain), windows.target, windows.inside)
        (gradient,) = torch.autograd.grad(loss, plain)
        factor = min(1, (step + 1) / 3) * (1 + math.cos(math.pi * step / 20)) / 2
        plain = (plain - 0.5 * factor * gradient).detach().requires_grad_()
        assert float(losses[step, 0]) == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(weight, plain)
    assert losses.shape == (20, 1)


def test_networks_trained_side_by_side_are_the_same_as_alone():
    training = Training(windows_of(), 5, 4, PLAIN, torch.device("cpu"), SILENT)

    def trained(rates):
        weights = [torch.nn.Parameter(torch.zeros(3)) for _ in rates]
        optimizer = torch.optim.AdamW([{"params": [w], "lr": r} for w, r in zip(weights, rates, strict=True)])
        losses = training.train(optimizer, lambda x: torch.stack([torch.einsum("nchw,c->nhw", x, w) for w in weights]))
        return weights, losses

    (slow, fast), both = trained([0.01, 1.0])
    for number, (weight, rate) in enumerate([(slow, 0.01), (fast, 1.0)]):
        (alone,), losses = trained([rate])
        assert torch.equal(alone, weight)
        assert torch.equal(losses[:, 0], both[:, number])


def test_windows_are_augmented_by_step_before_normalization():
    training = Training(windows_of(), 3, 2, PLAIN, torch.device("cpu"), SILENT)
    weight, seen = torch.nn.Parameter(torch.zeros(())), []

    def augment(windows, step):
        return windows._replace(images=torch.full_like(windows.images, 0.25 * step))

    def logits(x):
        seen.append(x.unique().tolist())
        return weight * x[None, :, 0]

    training.train(torch.optim.SGD([weight], lr=0.1), logits, augment)
    assert seen == [[-2.0], [-1.0], [0.0]]


def test_the_switch_of_cudnn_is_restored(monkeypatch):
    training = Training(windows_of(), 1, 2, PLAIN, torch.device("cpu"), SILENT)
    for before in (False, True):
        monkeypatch.setattr(torch.backends.cudnn, "deterministic", before)

        def fail(x):
            assert torch.backends.cudnn.deterministic
            raise KeyError

        with pytest.raises(KeyError):
            training.train(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), fail)
        assert torch.backends.cudnn.deterministic is before


def test_losses_are_told_of_the_first_and_last_tenth_of_the_steps():
    words = "mean train loss 0.500 in the first tenth of the steps, 18.500 in the last"
    assert losses_words(torch.arange(20.0)) == words
    assert losses_words(torch.tensor([2.0])).startswith("mean train loss 2.000 in the first")
