"""Views of images with any number of channels, and with another mean and standard deviation."""

import numpy as np
import pytest
import torch

from wildfern.ssl.augmentation import MEAN, STD, multicrop, simclr
from wildfern.ssl.augmentation.color import ColorJitter, brightness_contrast
from wildfern.ssl.augmentation.host_crops import crop_images
from wildfern.ssl.augmentation.pixmix_views import PixMixSettings
from wildfern.ssl.data import open_source

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 20, 26, 13), np.uint8)
LEVELS = {"mean": tuple(np.linspace(0.2, 0.6, 13).tolist()), "std": tuple(np.linspace(0.1, 0.3, 13).tolist())}
NO_COLOR = {"saturation": 0.0, "hue": 0.0, "gray": 0.0}


def made(views, pixels, paired=None) -> list[torch.Tensor]:
    return views(views.prepare(pixels, 3, 5, np.arange(len(pixels)), paired))


def levels_of(*channels: int) -> dict[str, tuple[float, ...]]:
    return {name: tuple(values[c] for c in channels) for name, values in LEVELS.items()}


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_each_channel_is_cropped_blurred_and_solarized_like_those_of_rgb(as_list, interpolation):
    settings = {"size": 12, "local_size": 8, "jitter": 0.0, "solarize": 0.5, "interpolation": interpolation, **NO_COLOR}
    views = multicrop(**settings, **LEVELS)
    whole = made(views, list(IMAGES) if as_list else IMAGES)
    assert [tuple(group.shape) for group in whole] == [(2, 3, 13, 12, 12), (8, 3, 13, 8, 8)]
    for channels in ((0, 1, 2), (12, 5, 7)):
        pixels = np.ascontiguousarray(IMAGES[..., channels])
        three = made(multicrop(**settings, **levels_of(*channels)), list(pixels) if as_list else pixels)
        for group, expected in zip(whole, three, strict=True):
            torch.testing.assert_close(group[:, :, list(channels)], expected, rtol=0, atol=2e-5)


def test_one_channel_and_pairs():
    views = simclr(size=10, mean=(0.5,), std=(0.25,), **NO_COLOR)
    second = IMAGES[..., 1:2]
    group = made(views, IMAGES[..., :1], second)[0]
    assert group.shape == (2, 3, 1, 10, 10)
    alone = made(views, second)[0]
    torch.testing.assert_close(group[1], alone[1])


def test_brightness_and_contrast_are_those_of_gray_rgb_images():
    gray = torch.rand(5, 1, 6, 7, generator=torch.Generator().manual_seed(0))
    rgb = gray.expand(-1, 3, -1, -1)
    jitter = ColorJitter(0.6, 0.7, 0.0, 0.0, p=1.0)
    torch.manual_seed(4)
    parameters = jitter.generate_parameters(rgb.shape)
    expected = jitter.apply_transform(rgb, parameters, {})
    found = brightness_contrast(gray, parameters["factors"], parameters["is_contrast"])
    torch.testing.assert_close(found, expected[:, :1], rtol=0, atol=1e-3)  # the weights of luma sum to 0.9999


def test_what_changes_rgb_is_left_out_and_the_user_is_told():
    views = simclr(size=8, **LEVELS)
    assert views.notes == [
        "views: saturation, hue, gray are left out: they change RGB, and the images have 13 channels"
    ]
    assert simclr(size=8, **LEVELS, **NO_COLOR).notes == simclr(size=8).notes == []
    torch.testing.assert_close(made(views, IMAGES)[0], made(simclr(size=8, **LEVELS, **NO_COLOR), IMAGES)[0])


@pytest.mark.parametrize("size", [9, 32])
def test_another_mean_and_deviation_of_rgb(size):
    pixels = np.ascontiguousarray(IMAGES[..., :3])
    plain, other = made(simclr(size=size), pixels)[0], simclr(size=size, mean=(0.1, 0.5, 0.9), std=(0.5, 0.25, 1.0))
    numbers = [torch.tensor(n).view(1, 3, 1, 1) for n in (MEAN, STD, *other.normalization)]
    expected = (plain * numbers[1] + numbers[0] - numbers[2]) / numbers[3]
    torch.testing.assert_close(made(other, pixels)[0], expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(made(simclr(size=size, mean=MEAN, std=STD), pixels)[0], plain)
    erased = simclr(
        size=size, mean=(0.1, 0.5, 0.9), std=(0.5, 0.25, 1.0), extra=[{"operation": "RandomErasing", "p": 0.0}]
    )
    torch.testing.assert_close(made(erased, pixels)[0], expected, rtol=1e-4, atol=1e-4)


def test_crops_of_lists_are_those_of_three_channels_at_a_time():
    table = simclr(size=8).draw(1, 2, np.arange(3))[0]
    crops = crop_images(list(IMAGES), table, 8)
    assert crops.shape == (2, 3, 8, 8, 13)
    for first in (0, 4, 10):
        three = crop_images([np.ascontiguousarray(image[..., first : first + 3]) for image in IMAGES], table, 8)
        np.testing.assert_array_equal(crops[..., first : first + 3], three)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": (0.5,)}, "std is missing"),
        ({"mean": (0.5,), "std": (0.5, 0.5)}, "mean has 1 numbers and std 2"),
        ({"mean": (123.0,) * 3, "std": (58.0,) * 3}, r"must be in \[0, 1\]"),
        ({"mean": (0.5,), "std": (0.0,)}, "std above 0"),
        ({**LEVELS, "local_intensity_order": True}, "local_intensity_order needs RGB or gray images"),
        (
            {**LEVELS, "extra": [{"operation": "RandomHue", "p": 1.0, "hue": [0.1, 0.2]}]},
            "RandomHue cannot .* 13 channels",
        ),
        ({**LEVELS, "pixmix": PixMixSettings(data=None)}, "pixmix needs RGB images"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        simclr(size=8, **settings)


def test_images_with_another_number_of_channels_are_refused():
    positions = np.arange(3)
    with pytest.raises(ValueError, match=r"\[n, H, W, 3\], or \[n, H, W\] if gray, not \[3, 20, 26, 13\]"):
        simclr(size=8).prepare(IMAGES, 0, 0, positions)
    for pixels in (IMAGES[..., :3], list(IMAGES[..., :3])):
        with pytest.raises(ValueError, match="H, W, 13], as the mean and std of the views have 13 numbers"):
            simclr(size=8, **LEVELS).prepare(pixels, 0, 0, positions)


def test_kornia_operations_are_drawn_for_all_channels():
    views = simclr(size=8, **LEVELS, **NO_COLOR, extra=[{"operation": "RandomGaussianNoise", "p": 1.0, "std": 0.1}])
    plain = simclr(size=8, **LEVELS, **NO_COLOR)
    changed = (made(views, IMAGES)[0] - made(plain, IMAGES)[0]).abs().mean(dim=(0, 1, 3, 4))
    assert (changed > 0.05).tolist() == [True] * 13


def test_reference_images_must_be_rgb(tmp_path):
    from PIL import Image

    Image.fromarray(IMAGES[0, ..., :3]).save(tmp_path / "a.png")
    source = open_source(f"folder:{tmp_path}", bands=(1,))
    views = simclr(size=8, pixmix=PixMixSettings(data=source))
    with pytest.raises(ValueError, match="reference images must be RGB, but their source gives 1 channels"):
        views.prepare(np.ascontiguousarray(IMAGES[..., :3]), 0, 0, np.arange(3))
