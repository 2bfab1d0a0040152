import io

import numpy as np
import pytest
import scipy.ndimage
from corrupted_images import KEYS, close, corrupted, draws, in_hsv, numbers, synthetic, two_images
from PIL import Image

from wildfern.generators.counter_rng import fold, key, uniform


@pytest.fixture(params=[32, 68])
def pixels(request):
    return two_images(request.param)


def test_saturation_is_that_of_hsv(pixels):
    pixels[0, :2] = [[[0, 0, 0]], [[90, 90, 90]]]  # without a hue
    factor, summand = numbers(pixels, (2, 0.1), (5, 0.1))
    close(corrupted(pixels, "saturate", 4), in_hsv(lambda h, s, v: (h, min(s * factor + summand, 1), v), pixels))
    close(corrupted(pixels, "saturate", 1), in_hsv(lambda h, s, v: (h, 0.3 * s, v), pixels))


def test_contrast_moves_values_to_the_mean_of_their_channel(pixels):
    factor, x = numbers(pixels, 0.3, 0.1), pixels / 255
    mean = x.mean((1, 2), keepdims=True)
    close(corrupted(pixels, "contrast", 4), mean + factor * (x - mean))


def test_jpeg_is_that_of_pillow(pixels):
    for image, found in zip(pixels, corrupted(pixels, "jpeg_compression", 5), strict=True):
        stored = io.BytesIO()
        Image.fromarray(image).save(stored, "JPEG", quality=numbers(pixels, 40, 7))
        assert np.array_equal(np.round(found * 255), np.asarray(Image.open(stored)))


def test_pixelate_averages_blocks():
    pixels = np.stack([synthetic(80), synthetic(80, 1.0)])
    blocks = pixels.reshape(2, 20, 4, 20, 4, 3).mean((2, 4), keepdims=True)
    expected = np.broadcast_to(blocks, (2, 20, 4, 20, 4, 3)).reshape(pixels.shape) / 255
    close(corrupted(pixels, "pixelate", 5), expected, levels=1.01)  # Pillow rounds across and down
    small = np.asarray(Image.fromarray(synthetic(32)).resize((20, 20), Image.BOX).resize((32, 32), Image.BOX))
    close(corrupted(synthetic(32)[None], "pixelate", 5)[0], small / 255)


def test_elastic_transform_is_an_affine_map_and_local_shifts(pixels):
    size = pixels.shape[1]
    amount, sigma, reach = numbers(pixels, np.array([0.08, 0.06, 0.06]) * 32, np.array([2, 0.08, 0.2]) * 244)
    severity = numbers(pixels, 3, 2)
    jitter = reach * (2 * uniform(fold(fold(KEYS, key("elastic_transform")), 1), 6).reshape(-1, 3, 2) - 1)
    center, third = size // 2, size // 3
    points = np.array([(center + third, center + third), (center + third, center - third), (center - third,) * 2])
    fields = 2 * draws("elastic_transform", (2, size, size)) - 1
    y, x = np.mgrid[:size, :size]
    found = corrupted(pixels, "elastic_transform", severity)
    for image, moved, field, one in zip(pixels / 255, points + jitter, fields, found, strict=True):
        forward = np.linalg.solve(np.c_[points, np.ones(3)], moved).T  # [2, 3], from (x, y, 1)
        back = np.linalg.inv(np.r_[forward, [[0, 0, 1]]])
        from_x, from_y = (back @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)]))[:2].reshape(2, size, size)
        dx, dy = (amount * scipy.ndimage.gaussian_filter(f, sigma, mode="reflect", truncate=3) for f in field)
        for channel in range(3):
            warped = scipy.ndimage.map_coordinates(image[..., channel], [from_y, from_x], order=1, mode="mirror")
            expected = scipy.ndimage.map_coordinates(warped, [y + dy, x + dx], order=1, mode="reflect")
            close(one[..., channel], expected, levels=0.1)
