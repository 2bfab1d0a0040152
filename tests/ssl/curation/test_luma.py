"""Luma against Pillow, sums against plain loops."""

import numpy as np
import pytest
from PIL import Image

from wildfern.ssl.curation.luma import equal_neighbors, luma_of


def noise(height: int, width: int, values: int = 256) -> np.ndarray:
    return np.random.default_rng(height + width).integers(0, values, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (40, 3), (190, 256)])
def test_luma_is_that_of_pillow(shape):
    pixels = noise(*shape)
    found = luma_of(pixels)
    expected = Image.fromarray(pixels).convert("L")
    np.testing.assert_array_equal(found.pixels, np.asarray(expected))
    assert found.histogram.tolist() == expected.histogram()


def test_luma_of_every_level_of_a_channel():
    for channel in range(3):
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[..., channel] = np.arange(256).reshape(16, 16)
        np.testing.assert_array_equal(luma_of(pixels).pixels, np.asarray(Image.fromarray(pixels).convert("L")))


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (9, 2), (3, 3), (30, 41)])
def test_sums_of_the_laplacian(shape):
    found = luma_of(noise(*shape))
    luma = found.pixels.tolist()
    laplacian = [
        luma[y - 1][x] + luma[y + 1][x] + luma[y][x - 1] + luma[y][x + 1] - 4 * luma[y][x]
        for y in range(1, shape[0] - 1)
        for x in range(1, shape[1] - 1)
    ]
    assert found.laplacian == sum(laplacian)
    assert found.laplacian_squares == sum(value**2 for value in laplacian)


def test_sums_of_the_strongest_laplacian():
    pixels = np.zeros((256, 256, 3), np.uint8)
    pixels[::2, ::2] = pixels[1::2, 1::2] = 255  # a chessboard: ±1020 everywhere
    found = luma_of(pixels)
    assert found.laplacian == 0
    assert found.laplacian_squares == 254**2 * 1020**2


@pytest.mark.parametrize("step", [1, 2, 5])
@pytest.mark.parametrize("shape", [(2, 2), (7, 12), (40, 31)])
def test_equal_neighbors_are_counted(shape, step):
    pixels = noise(*shape, values=2) // 2 * 200 + noise(*shape, values=2)[..., :1]
    rows = pixels.tolist()
    equal = [
        rows[y][x] == rows[y][x + 1] == rows[y + 1][x]
        for y in range(0, shape[0] - 1, step)
        for x in range(0, shape[1] - 1, step)
    ]
    assert equal_neighbors(pixels, step) == (sum(equal), len(equal))
    assert step > 1 or shape[0] < 7 or sum(equal)


def test_each_channel_counts():
    for channel in range(3):
        pixels = np.zeros((2, 2, 3), np.uint8)
        assert equal_neighbors(pixels, 1) == (1, 1)
        pixels[0, 1, channel] = 1
        assert equal_neighbors(pixels, 1) == (0, 1)
        pixels[0, 1, channel] = 0
        pixels[1, 0, channel] = 1
        assert equal_neighbors(pixels, 1) == (0, 1)
