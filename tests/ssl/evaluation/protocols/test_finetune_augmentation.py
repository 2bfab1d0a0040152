import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.ssl.augmentation.table import draw_table
from wildfern.ssl.evaluation.preprocessing import Preprocessing, normalized
from wildfern.ssl.evaluation.protocols.finetune_augmentation import FinetuneAugmentation, flip_and_crop
from wildfern.ssl.evaluation.protocols.rand_augment import draw_rand_augment, rand_augment
from wildfern.ssl.evaluation.protocols.random_erasing import random_erasing

PLAIN = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
INDEX = np.array([5, 0, 9, 31])


@pytest.fixture
def images():
    return torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def keys(what, seed, epoch):
    return fold(np.uint64(key(f"finetune {what}", seed, epoch)), INDEX)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_random_resized_crops_are_torchvisions(images, interpolation):
    chosen = FinetuneAugmentation(crop_scale=(0.08, 1.0))
    found = chosen(images, INDEX, 3, 2, Preprocessing(mean=PLAIN.mean, std=PLAIN.std, interpolation=interpolation))
    table = draw_table([chosen._resized(16)], key("finetune resized crop", 3), 2, INDEX, 0)
    boxes = table.boxes(np.full(4, 16), np.full(4, 16))[0]
    area = boxes[:, 2] * boxes[:, 3] / 256
    assert ((area >= 0.05) & (area <= 1)).all()
    for image, box, flip, one in zip(images, boxes.tolist(), table.flip[0], found, strict=True):
        mode = InterpolationMode(interpolation)
        expected = F.resized_crop(image.float() / 255, *box, size=[16, 16], interpolation=mode, antialias=True)
        expected = expected.flip(2) if flip else expected
        torch.testing.assert_close(one, expected.clamp(0, 1), atol=1e-5, rtol=0)
    whole = FinetuneAugmentation(crop_scale=(1.0, 1.0), flip=False)
    torch.testing.assert_close(whole(images, INDEX, 3, 2, PLAIN), images.float() / 255, atol=1e-6, rtol=0)


def test_steps_follow_each_other_as_in_deit(images):
    chosen = FinetuneAugmentation(padding=2, rand_augment_layers=2, random_erasing=0.9)
    settings = Preprocessing()
    found = chosen(images, INDEX, 3, 2, settings)
    cropped = flip_and_crop(images.float() / 255, uniform(keys("crop", 3, 2), 3), 2)
    drawn = draw_rand_augment(keys("rand augment", 3, 2), 2, 9.0)
    changed = rand_augment(cropped.mul(255).round().byte(), *drawn, (124, 116, 104))
    expected = normalized(changed.float() / 255, settings.mean, settings.std)
    assert not torch.equal(changed, cropped.mul(255).round().byte())
    torch.testing.assert_close(found, random_erasing(expected, keys("random erasing", 3, 2), 0.9), atol=0, rtol=0)


@pytest.mark.parametrize("crops", [{}, {"crop_scale": (0.2, 1.0)}])
def test_an_image_depends_on_seed_epoch_and_its_index_alone(images, crops):
    chosen = FinetuneAugmentation(rand_augment_layers=2, random_erasing=0.5, **crops)
    found = chosen(images, INDEX, 3, 2, Preprocessing())
    some = np.array([2, 0])
    torch.testing.assert_close(chosen(images[some], INDEX[some], 3, 2, Preprocessing()), found[some], atol=1e-6, rtol=0)
    for other in (chosen(images, INDEX, 4, 2, Preprocessing()), chosen(images, INDEX, 3, 1, Preprocessing())):
        assert not torch.equal(other, found)


def test_it_says_what_it_does():
    assert FinetuneAugmentation().describe() == "flips and crops padded by an eighth of their size"
    assert FinetuneAugmentation(flip=False).describe(size=224) == "crops padded by 28 px"
    full = FinetuneAugmentation(crop_scale=(0.08, 1), rand_augment_layers=2, random_erasing=0.25)
    expected = (
        "flips and random resized crops of 8 to 100 % of the area, RandAugment of 2 × magnitude 9, random erasing 0.25"
    )
    assert full.describe(size=224) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"padding": 129}, "0 to 128 pixels, got 129"),
        ({"crop_scale": (0.5, 1.2)}, "0 < low ≤ high ≤ 1"),
        ({"crop_scale": (0.5,)}, "crop_scale must be a pair"),
        ({"crop_scale": (0.5, 1.0), "padding": 4}, "give one of them"),
        ({"rand_augment_layers": -1}, "must be 0 to 15, got -1"),
        ({"rand_augment_layers": 2, "rand_augment_magnitude": 11}, "must be 0 to 10, got 11"),
        ({"rand_augment_layers": 2, "rand_augment_magnitude": float("nan")}, "must be 0 to 10, got nan"),
        ({"rand_augment_magnitude": 5}, "no effect without rand_augment_layers"),
        ({"random_erasing": 1.5}, "random_erasing must be a probability"),
    ],
)
def test_impossible_settings_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        FinetuneAugmentation(**arguments)


def test_images_that_cannot_be_augmented_are_refused():
    with pytest.raises(ValueError, match="RandAugment needs images of 3 channels, and these have 4"):
        FinetuneAugmentation(rand_augment_layers=1).check_channels(4)
    FinetuneAugmentation().check_channels(4)
    with pytest.raises(ValueError, match="padding 8 must be less than the 8 px"):
        FinetuneAugmentation(padding=8).check_size(8)
