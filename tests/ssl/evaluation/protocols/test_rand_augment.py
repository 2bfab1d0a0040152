import math

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from wildfern.generators.counter_rng import fold
from wildfern.ssl.evaluation.protocols.rand_augment import (
    OPERATIONS,
    apply_operation,
    argument_of,
    draw_rand_augment,
    rand_augment,
)

FILL = (124, 116, 104)
TIMM = {
    "rotate": "Rotate",
    "posterize": "PosterizeIncreasing",
    "solarize": "SolarizeIncreasing",
    "solarize_add": "SolarizeAdd",
    "color": "ColorIncreasing",
    "contrast": "ContrastIncreasing",
    "brightness": "BrightnessIncreasing",
    "sharpness": "SharpnessIncreasing",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateXRel",
    "translate_y": "TranslateYRel",
}


def keys(n, seed=7):
    return fold(np.uint64(seed), np.arange(n))


def images(n=6, height=26, width=31):  # of fewer than 256 pixels, equalize leaves images as they are
    noise = torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(1))
    ramp = torch.linspace(0, 1, width) * torch.linspace(0.2, 1, n)[:, None, None, None]
    return (255 * (0.4 * noise + 0.6 * ramp)).to(torch.uint8)


@pytest.mark.parametrize(("name", "published"), TIMM.items())
@pytest.mark.parametrize("negative", [False, True])
def test_the_arguments_are_timms_at_every_magnitude(name, published, negative, monkeypatch):
    monkeypatch.setattr(auto_augment.random, "random", lambda: 1.0 if negative else 0.0)
    magnitudes = np.r_[np.linspace(0, 10, 41), 8.99999]
    found = argument_of(name, magnitudes, np.full(len(magnitudes), negative))
    expected = [auto_augment.LEVEL_TO_ARG[published](m, {"translate_pct": 0.45}) for m in magnitudes]
    np.testing.assert_allclose(found, [np.ravel(one)[0] for one in expected], atol=1e-12)


def test_the_operations_are_timms_and_as_likely():
    policy = auto_augment.rand_augment_transform("rand-m9-mstd0.5-inc1", {"img_mean": FILL})
    assert {op.name for op in policy.ops} == {"AutoContrast", "Equalize", "Invert", *TIMM.values()}
    assert len(policy.ops) == len(OPERATIONS) == 15
    assert (policy.num_layers, policy.choice_weights, policy.ops[0].prob) == (2, None, 0.5)
    operation, argument = draw_rand_augment(keys(20000), 2, 9.0)
    assert abs((operation >= 0).mean() - policy.ops[0].prob) < 0.01
    shares = np.bincount(operation[operation >= 0], minlength=15) / (operation >= 0).sum()
    assert abs(shares - 1 / 15).max() < 0.006
    degrees = argument[operation == OPERATIONS.index("rotate")]
    assert abs((degrees < 0).mean() - 0.5) < 0.05
    # Magnitudes are N(9, 0.5²) clipped to 10: at 3 degrees a step the median of the size is 27.
    assert np.median(abs(degrees)) == pytest.approx(27, abs=0.15)
    below = abs(degrees)[abs(degrees) < 27] - 27
    assert math.sqrt((below**2).mean()) == pytest.approx(1.5, abs=0.1)
    assert abs(degrees).max() == 30


def test_the_draws_of_an_image_depend_on_its_key_alone():
    operation, argument = draw_rand_augment(keys(20), 3, 5.0)
    some = np.array([11, 2, 17])
    other, its_argument = draw_rand_augment(keys(20)[some], 3, 5.0)
    np.testing.assert_array_equal(operation[some], other)
    np.testing.assert_array_equal(argument[some], its_argument)
    assert len({tuple(row) for row in operation.tolist()}) > 10


def by_torchvision(name, image, value):
    height, width = image.shape[1:]
    moved = {"interpolation": InterpolationMode.BILINEAR, "fill": list(FILL)}
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    slope = math.degrees(math.atan(value))
    match name:
        case "autocontrast" | "equalize" | "invert":
            return getattr(F, name)(image)
        case "posterize":
            return F.posterize(image, int(value))
        case "solarize":
            return F.solarize(image, value)
        case "color":
            return F.adjust_saturation(image, value)
        case "contrast" | "brightness" | "sharpness":
            return getattr(F, f"adjust_{name}")(image, value)
        case "rotate":
            return F.rotate(image, value, **moved)
        case "shear_x":
            return F.affine(image, **{**still, "shear": [slope, 0.0]}, center=[0, 0], **moved)
        case "shear_y":
            return F.affine(image, **{**still, "shear": [0.0, slope]}, center=[0, 0], **moved)
        case "translate_x":
            return F.affine(image, **{**still, "translate": [value * width, 0]}, **moved)
        case "translate_y":
            return F.affine(image, **{**still, "translate": [0, value * height]}, **moved)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "solarize_add"])
def test_pixels_are_torchvisions_for_the_same_arguments(name):
    batch = images()
    magnitudes, negative = np.array([9.0, 9.7, 8.2, 3.0, 10.0, 6.5]), np.arange(6) % 2 == 0
    arguments = argument_of(name, magnitudes, negative)
    found = apply_operation(name, batch, arguments, FILL)
    assert found.dtype == torch.uint8
    expected = torch.stack([by_torchvision(name, image, v) for image, v in zip(batch, arguments.tolist(), strict=True)])
    assert (expected != batch).float().mean() > 0.2
    difference = (found.int() - expected.int()).abs()
    # Bytes are rounded or truncated from floats that were summed in another order.
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01
    if name in ("autocontrast", "equalize", "invert", "posterize", "solarize"):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["invert", "posterize", "solarize", "solarize_add"])
def test_pixels_are_timms_where_pillow_and_torchvision_do_not_round(name):
    batch = images()
    arguments = argument_of(name, np.array([9.0, 9.7, 8.2, 3.0, 0.0, 6.5]), np.zeros(6, bool))
    for image, found, value in zip(batch, apply_operation(name, batch, arguments, FILL), arguments, strict=True):
        pillow = Image.fromarray(image.permute(1, 2, 0).numpy())
        expected = auto_augment.NAME_TO_OP[TIMM.get(name, "Invert")](
            pillow, *([] if name == "invert" else [int(value)])
        )
        np.testing.assert_array_equal(found.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_layers_follow_each_other_and_an_image_is_its_own():
    batch = images(12)
    operation, argument = draw_rand_augment(keys(12), 3, 9.0)
    assert (operation < 0).any(1).any()
    before = batch.clone()
    found = rand_augment(batch, operation, argument, FILL)
    assert torch.equal(batch, before)
    for i in range(12):
        image = batch[i : i + 1]
        for kind, value in zip(operation[i], argument[i : i + 1].T, strict=True):
            image = image if kind < 0 else apply_operation(OPERATIONS[kind], image, value, FILL)
        assert torch.equal(found[i], image[0])
