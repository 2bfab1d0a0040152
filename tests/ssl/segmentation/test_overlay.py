"""Overlays and comparisons, against loops over pixels; their colors, as color-blind people see them."""

from itertools import combinations

import numpy as np
import pytest
from skimage.color import rgb2lab

from wildfern.ssl.segmentation.overlay import FALSE_ALARM, FOUND, MISSED, comparison, overlay

RNG = np.random.default_rng(5)
IMAGE = RNG.integers(0, 256, (9, 13, 3), np.uint8)
MASK, PREDICTED, REGION = (RNG.random((9, 13)) < part for part in (0.7, 0.5, 0.8))
COLOR = (10, 200, 90)


def mixed(pixel, color, opacity):
    return [round((1 - opacity) * float(value) + opacity * part) for value, part in zip(pixel, color, strict=True)]


def is_inside(mask, row, column):
    """Whether no pixel above, below or beside is in the image but outside the mask."""
    height, width = mask.shape
    beside = ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
    return all(mask[r, c] for r, c in beside if 0 <= r < height and 0 <= c < width)


@pytest.mark.parametrize("outline", [True, False])
@pytest.mark.parametrize("opacity", [0, 0.6, 1])
def test_the_mask_is_mixed_with_the_color(outline, opacity):
    before = IMAGE.copy()
    shown = overlay(IMAGE, MASK, color=COLOR, opacity=opacity, outline=outline)
    assert (shown.shape, shown.dtype) == ((9, 13, 3), np.uint8)
    np.testing.assert_array_equal(IMAGE, before)
    insides = 0
    for row in range(9):
        for column in range(13):
            part = opacity if MASK[row, column] else 0
            if outline and is_inside(MASK, row, column):
                part *= 0.4
                insides += MASK[row, column]
            expected = mixed(IMAGE[row, column], COLOR, part)
            np.testing.assert_allclose(shown[row, column], expected, rtol=0, atol=1)  # halves are rounded either way
    assert not outline or 5 < insides < MASK.sum()


def test_what_is_inside_an_outline_remains_distinct():
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, ::2] = 100
    shown = overlay(image, np.ones((40, 40), bool))
    assert np.abs(np.diff(shown.astype(int), axis=1)).min() >= 75


@pytest.mark.parametrize(("channels", "first"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (4, [0, 1, 2]), (13, [0, 1, 2])])
def test_three_channels_are_shown_or_the_first_as_gray(channels, first):
    image = RNG.integers(0, 256, (9, 13, channels), np.uint8)
    np.testing.assert_array_equal(overlay(image, MASK), overlay(image[..., first], MASK))
    np.testing.assert_array_equal(
        comparison(image, PREDICTED, MASK, REGION), comparison(image[..., first], PREDICTED, MASK, REGION)
    )
    np.testing.assert_array_equal(overlay(IMAGE[..., 0], MASK), overlay(IMAGE[..., :1], MASK))


def test_masks_may_be_of_integers():
    np.testing.assert_array_equal(overlay(IMAGE, MASK * np.uint8(255)), overlay(IMAGE, MASK))
    np.testing.assert_array_equal(
        comparison(IMAGE, PREDICTED.astype(int), MASK.astype(np.uint8), REGION * np.uint8(2)),
        comparison(IMAGE, PREDICTED, MASK, REGION),
    )


@pytest.mark.parametrize("region", [None, REGION])
def test_a_comparison_colors_what_is_found_missed_and_falsely_found(region):
    shown = comparison(IMAGE, PREDICTED, MASK, region, opacity=0.75)
    for row in range(9):
        for column in range(13):
            gray = float(np.dot(IMAGE[row, column], (0.299, 0.587, 0.114)))
            found, true = PREDICTED[row, column], MASK[row, column]
            if region is not None and not region[row, column]:
                expected = [0.35 * gray] * 3
            elif found or true:
                color = FOUND if found and true else MISSED if true else FALSE_ALARM
                expected = mixed([gray] * 3, color, 0.75)
            else:
                expected = [gray] * 3
            np.testing.assert_allclose(shown[row, column], expected, rtol=0, atol=1)


# Machado, Oliveira & Fernandes (2009), severity 1; for linear RGB.
SEEN = {
    "protanopia": (
        *((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    ),
    "deuteranopia": (
        *((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    ),
    "tritanopia": (
        *((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
    ),
    "achromatopsia": ((0.2126, 0.7152, 0.0722),) * 3,
    "none": np.eye(3),
}


@pytest.mark.parametrize("vision", SEEN)
def test_the_colors_of_a_comparison_differ_for_all_kinds_of_color_vision(vision):
    """By ten times the difference in CIELAB (ΔE 2.3) that is just noticed; also where they are mixed with the same gray."""
    for gray in (30, 90, 150):
        pixels = np.full((1, 3, 3), gray, np.uint8)
        shown = comparison(pixels, np.array([[1, 0, 1]]), np.array([[1, 1, 0]]))[0] / 255
        linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
        seen = np.clip(linear @ np.transpose(SEEN[vision]), 0, 1)
        encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        for one, other in combinations(rgb2lab(encoded), 2):
            assert np.linalg.norm(one - other) > (11.5 if vision == "achromatopsia" else 23)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": IMAGE.astype(float)}, r"an image is uint8\[H, W, C\] or \[H, W\], got float64\[9, 13, 3\]"),
        ({"image": IMAGE[..., :0]}, r"got uint8\[9, 13, 0\]"),
        ({"image": IMAGE[0, 0]}, r"got uint8\[3\]"),
        ({"mask": MASK[:8]}, r"mask is bool\[9, 13\] or of integers, like its image, got bool\[8, 13\]"),
        ({"mask": MASK.astype(np.float32)}, r"got float32\[9, 13\]"),
    ],
)
def test_other_images_and_masks_are_errors(change, message):
    with pytest.raises(ValueError, match=message):
        overlay(**({"image": IMAGE, "mask": MASK} | change))
    with pytest.raises(ValueError, match=message):
        comparison(**({"image": IMAGE, "predicted": PREDICTED, "mask": MASK} | change))


def test_the_message_names_the_mask():
    with pytest.raises(ValueError, match="predicted is bool"):
        comparison(IMAGE, PREDICTED.T, MASK)
    with pytest.raises(ValueError, match="region is bool"):
        comparison(IMAGE, PREDICTED, MASK, REGION[:, :4])
    with pytest.raises(ValueError, match=r"opacity is in \[0, 1\], got 1.5"):
        overlay(IMAGE, MASK, opacity=1.5)
    with pytest.raises(ValueError, match=r"opacity is in \[0, 1\], got nan"):
        comparison(IMAGE, PREDICTED, MASK, opacity=float("nan"))
