"""The kernel against Pillow, one direction after the other, and against means of whole blocks."""

import numpy as np
import pytest
from PIL import Image

from wildfern.ssl.curation.box_resize import box_resize


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_pillow(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    image = Image.fromarray(pixels).resize((pixels.shape[1], height), Image.Resampling.BOX)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def test_it_is_bit_for_bit_pillow():
    rng = np.random.default_rng(1)
    for number in range(400):
        height, width = rng.integers(1, 500 if number % 4 == 0 else 60, 2).tolist()
        target = rng.integers(1, 80, 2).tolist()
        pixels = noise(height, width, number)
        np.testing.assert_array_equal(
            box_resize(pixels, *target), by_pillow(pixels, *target), f"{pixels.shape} {target}"
        )


@pytest.mark.parametrize(
    ("shape", "target"), [((375, 500), (256, 192)), ((500, 333), (170, 256)), ((192, 256), (16, 16))]
)
def test_usual_sizes(shape, target):
    pixels = noise(*shape)
    np.testing.assert_array_equal(box_resize(pixels, *target), by_pillow(pixels, *target))


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (3, 2)])
def test_lines_and_single_pixels(shape):
    pixels = noise(*shape)
    for target in ((16, 16), (1, 1), (256, 1), (1, 256)):
        np.testing.assert_array_equal(box_resize(pixels, *target), by_pillow(pixels, *target))


def test_whole_blocks_have_their_means():
    pixels = noise(60, 80)
    short = np.floor(pixels.reshape(12, 5, 80, 3).mean(1, dtype=np.float64) + 0.5)
    expected = np.floor(short.reshape(12, 20, 4, 3).mean(2) + 0.5)
    np.testing.assert_array_equal(box_resize(pixels, 20, 12), expected)


def test_the_same_size_and_flat_images_stay():
    pixels = noise(30, 40)
    np.testing.assert_array_equal(box_resize(pixels, 40, 30), pixels)
    for value in (0, 1, 128, 254, 255):
        flat = np.full((61, 47, 3), value, np.uint8)
        assert (box_resize(flat, 13, 29) == value).all()


def test_arrays_of_any_layout():
    pixels = noise(50, 70)
    expected = box_resize(pixels, 20, 20)
    read_only = pixels.copy()
    read_only.flags.writeable = False
    for other in (
        read_only,
        np.asfortranarray(pixels),
        np.concatenate([pixels, pixels], 2)[..., :3],
        pixels[::-1][::-1],
    ):
        np.testing.assert_array_equal(box_resize(other, 20, 20), expected)
