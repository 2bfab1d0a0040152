"""The mask of an image against a plain loop of k-means in exact fractions."""

from fractions import Fraction

import numpy as np
import pytest

from wildfern.generators.counter_rng import integers
from wildfern.ssl.data.kmeans_mask import FRACTION, ITERATIONS, kmeans_mask

KEY = np.uint64(5)


def nearer_to_second(pixel, centers):
    distances = [
        sum((Fraction(int(value)) - c) ** 2 for value, c in zip(pixel, center, strict=True)) for center in centers
    ]
    return distances[1] < distances[0]


def mean(pixels):
    """Rounded half up to a sixteenth."""
    sums = [sum(int(value) for value in column) for column in zip(*pixels, strict=True)]
    return [Fraction((FRACTION * total * 2 + len(pixels)) // (2 * len(pixels)), FRACTION) for total in sums]


def plain_mask(image, key):
    pixels = image.reshape(-1, image.shape[2]).astype(int)
    start = pixels[integers(np.array([key], np.uint64), 1, len(pixels))[0, 0]]
    distances = [sum((pixel - start) ** 2) for pixel in pixels]
    centers = [[Fraction(int(v)) for v in start], [Fraction(int(v)) for v in pixels[distances.index(max(distances))]]]
    for _ in range(ITERATIONS):
        groups = [[], []]
        for pixel in pixels:
            groups[nearer_to_second(pixel, centers)].append(pixel)
        if not groups[0] or not groups[1]:
            break
        centers = [mean(group) for group in groups]
    return np.array([nearer_to_second(pixel, centers) for pixel in pixels]).reshape(image.shape[:2])


@pytest.mark.parametrize("channels", [1, 3])
def test_mask_of_the_plain_loop(channels):
    image = np.random.default_rng(0).integers(0, 256, (12, 9, channels), np.uint8)
    mask = kmeans_mask(image, KEY)
    np.testing.assert_array_equal(mask, plain_mask(image, KEY))
    assert 0.2 < mask.mean() < 0.8


def test_two_colors_are_separated_at_full_resolution():
    image = np.full((200, 150, 3), 30, np.uint8)
    image[40:95, 20:131] = (200, 90, 31)  # its sides are not those of blocks
    mask = kmeans_mask(image, KEY)
    found = {frozenset(map(tuple, image[part])) for part in (mask, ~mask)}
    assert found == {frozenset({(30, 30, 30)}), frozenset({(200, 90, 31)})}


def test_centers_are_those_of_the_reduced_image():
    small = np.random.default_rng(1).integers(0, 256, (64, 70, 3), np.uint8)
    large = small.repeat(3, axis=0).repeat(3, axis=1)  # blocks of one color, whose means are the small image
    np.testing.assert_array_equal(kmeans_mask(large, KEY), kmeans_mask(small, KEY).repeat(3, axis=0).repeat(3, axis=1))


def test_an_image_of_one_color_has_an_empty_mask():
    assert not kmeans_mask(np.full((8, 8, 3), 7, np.uint8), KEY).any()
