"""Luma against Pillow, sums against plain loops."""

import numpy as np
import pytest
from PIL import Image

from wildfern.ssl.curation.examined import Examined, examine


def examined(pixels: np.ndarray, step: int = 1) -> Examined:
    return examine(pixels, pixels, step)


def equal_of(pixels: np.ndarray, step: int = 1) -> tuple[int, int]:
    found = examine(pixels, pixels[:1, :1], step)
    return found.equal, found.sampled


def noise(height: int, width: int, values: int = 256) -> np.ndarray:
    return np.random.default_rng(height + width).integers(0, values, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (40, 3), (190, 256)])
def test_luma_is_that_of_pillow(shape):
    pixels = noise(*shape)
    found = examined(pixels)
    expected = Image.fromarray(pixels).convert("L")
    np.testing.assert_array_equal(found.luma, np.asarray(expected))
    assert found.histogram.tolist() == expected.histogram()


def test_luma_of_every_level_of_a_channel():
    for channel in range(3):
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[..., channel] = np.arange(256).reshape(16, 16)
        np.testing.assert_array_equal(examined(pixels).luma, np.asarray(Image.fromarray(pixels).convert("L")))


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (9, 2), (3, 3), (30, 41)])
def test_sums_of_the_laplacian(shape):
    found = examined(noise(*shape))
    luma = found.luma.tolist()
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
    found = examined(pixels)
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
    assert equal_of(pixels, step) == (sum(equal), len(equal))
    assert step > 1 or shape[0] < 7 or sum(equal)


def test_each_channel_counts():
    for channel in range(3):
        pixels = np.zeros((2, 2, 3), np.uint8)
        assert equal_of(pixels) == (1, 1)
        pixels[0, 1, channel] = 1
        assert equal_of(pixels) == (0, 1)
        pixels[0, 1, channel] = 0
        pixels[1, 0, channel] = 1
        assert equal_of(pixels) == (0, 1)


@pytest.mark.parametrize("shape", [(1, 1), (40, 3), (16, 32), (190, 256)])
def test_small_versions_are_those_of_pillow_columns_first(shape):
    pixels = noise(*shape)
    found = examined(pixels)
    box = Image.Resampling.BOX
    for image, side, small in (
        (Image.fromarray(pixels).convert("L"), 32, found.hashed),
        (Image.fromarray(pixels), 16, found.small),
    ):
        expected = image.resize((image.width, side), box).resize((side, side), box)
        np.testing.assert_array_equal(small, np.asarray(expected))
