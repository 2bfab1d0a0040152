"""Probability maps of whole images, against plain loops and functions of single pixels."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from wildfern.ssl.segmentation.windows import blending_weights, probability_map, window_starts

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
SHAPES = [(1, 1), (1, 40), (5, 3), (16, 16), (15, 17), (33, 64), (50, 31)]


def image_of(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


def of_pixel(windows):
    """Logits that depend on the pixel alone."""
    return 1.5 * windows[:, 0] - windows[:, 1] + 0.5 * windows[:, 2]


def expected(image):
    x = (torch.from_numpy(image).double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return of_pixel(x.permute(2, 0, 1)[None])[0].sigmoid().numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("overlap", [0, 0.3, 0.5, 0.95])
def test_a_function_of_the_pixel_is_found_everywhere(shape, overlap):
    image = image_of(*shape, 3)
    found = probability_map(of_pixel, image, size=16, mean=MEAN, std=STD, overlap=overlap, batch_size=5)
    assert (found.shape, found.dtype) == (shape, np.float32)
    np.testing.assert_allclose(found, expected(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_windows_may_be_tiny(size):
    image = image_of(9, 4, 3)
    found = probability_map(of_pixel, image, size=size, mean=MEAN, std=STD)
    np.testing.assert_allclose(found, expected(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("size", "overlap"), [(1, 0), (1, 0.95), (8, 0), (8, 0.5), (8, 0.95), (512, 0.25)])
@pytest.mark.parametrize("more", [0, 1, 7, 8, 61, 1000])
def test_windows_cover_each_pixel_with_positive_weights_that_add_up_to_1(size, overlap, more):
    side = size + more
    starts = window_starts(side, size, overlap)
    weights = blending_weights(starts, size)
    assert starts[0] == 0
    assert starts[-1] == more
    step = max(1, round(size * (1 - overlap)))
    assert len(starts) == 1 + math.ceil(more / step)
    assert all(1 <= gap <= step for gap in np.diff(starts))
    sums = np.zeros(side)
    for start, row in zip(starts, weights, strict=True):
        assert (row > 0).all()
        for i in range(size):
            sums[start + i] += row[i]
    np.testing.assert_allclose(sums, 1, atol=1e-12)


def of_place(windows):
    """Logits that depend on the window around a pixel and the place of the pixel in the window."""
    places = torch.linspace(-2, 2, windows.shape[-1])
    return F.avg_pool2d(windows.mean(1), 3, 1, 1) + places - 0.3 * places[:, None]


def test_overlapping_windows_are_averaged_by_their_weights():
    """Against a double loop over all windows and their pixels."""
    image, size = image_of(21, 30, 3), 12
    numerator, denominator = np.zeros((2, 21, 30))
    for y in window_starts(21, size, 0.5):
        for x in window_starts(30, size, 0.5):
            window = torch.from_numpy(image[y : y + size, x : x + size]).float().permute(2, 0, 1)[None] / 255
            window = (window - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
            probabilities = of_place(window)[0].sigmoid()
            for i in range(size):
                for j in range(size):
                    weight = math.sin(math.pi * (i + 0.5) / size) ** 2 * math.sin(math.pi * (j + 0.5) / size) ** 2
                    numerator[y + i, x + j] += weight * probabilities[i, j].item()
                    denominator[y + i, x + j] += weight
    found = probability_map(of_place, image, size=size, mean=MEAN, std=STD)
    np.testing.assert_allclose(found, numerator / denominator, atol=1e-6)


def test_the_batch_size_does_not_matter():
    image = image_of(40, 70, 3)
    maps = [probability_map(of_place, image, size=16, mean=MEAN, std=STD, batch_size=n) for n in (1, 3, 8, 1000)]
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], rtol=0, atol=1e-6)


def test_a_small_image_is_reflected_on_both_sides():
    seen = []

    def segment(windows):
        seen.append(windows)
        return windows[:, 0]

    image = image_of(3, 4, 1)
    probability_map(segment, image, size=8, mean=(0,), std=(1,))

    def reflected(i, side):
        i = abs(i) % (2 * side - 2)
        return min(i, 2 * side - 2 - i)

    rows, columns = ([reflected(i - (8 - side) // 2, side) for i in range(8)] for side in (3, 4))
    whole = [[image[row, column, 0] / 255 for column in columns] for row in rows]
    np.testing.assert_allclose(seen[0][0, 0], whole, atol=1e-6)


@pytest.mark.parametrize("gray", [image_of(20, 30), image_of(20, 30, 1)])
def test_a_gray_image_is_repeated_if_there_are_three_means(gray):
    found = probability_map(of_pixel, gray, size=16, mean=MEAN, std=STD)
    three = np.stack([gray.reshape(20, 30)] * 3, axis=-1)
    np.testing.assert_array_equal(found, probability_map(of_pixel, three, size=16, mean=MEAN, std=STD))
    one = probability_map(lambda windows: windows[:, 0], gray, size=16, mean=(0,), std=(1,))
    np.testing.assert_allclose(one, 1 / (1 + np.exp(gray.reshape(20, 30) / -255)), atol=1e-6)


@pytest.mark.parametrize(("scale", "scaled"), [(0.5, (20, 31)), (2, (82, 124)), (0.001, (1, 1))])
def test_the_image_is_resized_first_and_the_map_back(scale, scaled):
    image = image_of(41, 62, 3)
    small = np.asarray(Image.fromarray(image).resize(scaled[::-1], Image.Resampling.BILINEAR))
    there = probability_map(of_place, small, size=16, mean=MEAN, std=STD)
    back = np.asarray(Image.fromarray(there).resize((62, 41), Image.Resampling.BILINEAR))
    found = probability_map(of_place, image, size=16, mean=MEAN, std=STD, scale=scale)
    assert found.shape == (41, 62)
    np.testing.assert_allclose(found, back, atol=1e-6)


def test_logits_of_half_precision_give_float32_in_0_to_1():
    seen = []

    def segment(windows):
        seen.append((windows.dtype, torch.is_grad_enabled()))
        return F.conv2d(windows, torch.full((1, 3, 1, 1), 100.0))[:, 0]

    found = probability_map(segment, image_of(40, 40, 3), size=16, mean=MEAN, std=STD, precision="bf16")
    assert set(seen) == {(torch.float32, False)}
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() == 1


def test_progress_is_told_after_each_batch():
    told = []
    probability_map(
        of_pixel,
        image_of(16, 40, 3),
        size=16,
        mean=MEAN,
        std=STD,
        batch_size=3,
        done=lambda windows, total: told.append((windows, total)),
    )
    assert told == [(3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (image_of(4, 4, 2), {}, "an image of 2 channels, but mean is of 3"),
        (image_of(4, 4, 3).astype(np.float32), {}, r"an image is uint8\[H, W, C\] or \[H, W\], got float32\[4, 4, 3\]"),
        (np.zeros((0, 4, 3), np.uint8), {}, r"got uint8\[0, 4, 3\]"),
        (np.zeros(4, np.uint8), {}, r"got uint8\[4\]"),
        (image_of(4, 4, 3), {"overlap": 0.96}, r"overlap is in \[0, 0.95\], got 0.96"),
        (image_of(4, 4, 3), {"overlap": -0.1}, "got -0.1"),
        (image_of(4, 4, 3), {"overlap": math.nan}, "got nan"),
        (image_of(4, 4, 3), {"scale": 0}, "scale is above 0, got 0"),
        (image_of(4, 4, 3), {"scale": math.inf}, "scale is above 0, got inf"),
        (image_of(4, 4, 3), {"size": 0, "overlap": 1}, "size and batch_size are 1 or more, got 0 and 8; overlap is in"),
        (image_of(4, 4, 3), {"std": (1, 1)}, "mean and std are of one length, got 3 and 2"),
    ],
)
def test_other_images_and_settings_are_errors(image, options, message):
    with pytest.raises(ValueError, match=message):
        probability_map(of_pixel, image, **({"size": 8, "mean": MEAN, "std": STD} | options))


def test_logits_of_another_shape_are_an_error():
    with pytest.raises(ValueError, match=r"segment returns logits \[1, 8, 8\], got \[1, 3, 8, 8\]"):
        probability_map(lambda windows: windows, image_of(8, 8, 3), size=8, mean=MEAN, std=STD)
