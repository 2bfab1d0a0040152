import pickle
from itertools import pairwise

import numpy as np
import pytest

from wildfern.ssl.curation import detector as detector_file
from wildfern.ssl.curation.detector import (
    OVERLAP,
    Box,
    Detector,
    _open_again,
    _starts,
    _views,
    detect_everywhere,
    merge_boxes,
    open_detector,
)
from wildfern.ssl.curation.manifest import CurationError


class RedSquares(Detector):
    """Finds the one group of red pixels, if it has from 8 to 40 of them per side, and remembers the sizes of its images."""

    detects = "red squares"
    not_checked = "other colors"
    tile = 128
    scales = (1.0, 2.0, 0.25)

    def __init__(self) -> None:
        super().__init__("red", b"weights", "red")
        self.seen: list[tuple[int, int]] = []

    def detect(self, image):
        self.seen.append(image.shape[:2])
        red = (image[..., 0] > 128) & (image[..., 1] < 64)
        rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
        if not len(rows) or not 8 <= rows[-1] - rows[0] + 1 <= 40:
            return []
        return [Box(float(columns[0]), float(rows[0]), columns[-1] + 1.0, rows[-1] + 1.0, 0.9)]


def square(height: int, width: int, left: int, top: int, side: int) -> np.ndarray:
    image = np.full((height, width, 3), 90, np.uint8)
    image[top : top + side, left : left + side] = [255, 0, 0]
    return image


def overlap_of(a: Box, b: Box) -> float:
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    common = max(width, 0) * max(height, 0)
    return common / ((a.right - a.left) * (a.bottom - a.top) + (b.right - b.left) * (b.bottom - b.top) - common)


def random_boxes(count: int, seed: int) -> list[Box]:
    random = np.random.default_rng(seed)
    corners, sides = random.uniform(0, 60, (count, 2)), random.uniform(5, 30, (count, 2))
    rows = np.column_stack([corners, corners + sides, random.random(count).round(1)])  # some scores are equal
    return [Box(*row) for row in rows.tolist()]


@pytest.mark.parametrize("overlap", [0.2, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_merged_boxes_match_the_plain_loop(seed, overlap):
    boxes = random_boxes(80, seed)
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.score):
        if all(overlap_of(box, other) <= overlap for other in kept):
            kept.append(box)
    assert merge_boxes(boxes, overlap) == kept
    assert 1 < len(kept) < len(boxes)


def test_no_boxes_merge_to_none_and_equal_ones_to_one():
    assert merge_boxes([]) == []
    assert merge_boxes([Box(1, 2, 3, 4, 0.5)] * 3) == [Box(1, 2, 3, 4, 0.5)]


@pytest.mark.parametrize("length", [5, 128, 129, 200, 224, 225, 1000, 2048])
def test_tiles_cover_the_length_and_overlap_enough(length):
    starts = _starts(length, 128)
    assert starts[0] == 0
    assert starts[-1] == max(length - 128, 0)
    for one, following in pairwise(starts):
        assert 0 < following - one <= 128 * (1 - OVERLAP) + 1
    fewer = len(starts) - 1
    assert fewer == 0 or fewer * 128 - (fewer - 1) * 128 * OVERLAP < length, "one tile less would do"


def test_views_of_small_medium_and_large_images():
    scales = (1.0, 2.0, 0.25)

    def views(height, width):
        return [(scale, len(windows)) for scale, windows in _views(height, width, 1024, 2048, scales)]

    assert views(200, 320) == [(1, 1), (2, 1)]
    assert views(200, 330) == [(1, 1)]  # enlarged, it would be over 640
    assert views(800, 600) == [(1, 1), (0.25, 1)]
    assert views(1024, 1100) == [(1024 / 1100, 1), (256 / 1100, 1)]  # tiles would show hardly more
    assert views(1500, 2000) == [(0.512, 1), (0.128, 1), (1, 2 * 3)]
    assert views(3000, 4000) == [(0.256, 1), (0.064, 1), (0.512, 2 * 3)]


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(90, 60, 20), (100, 700, 60), (520, 333, 60), (520, 333, 12), (900, 900, 160)],
    ids=["as it is", "shrunk", "shrunk and in tiles", "in tiles", "shrunk, too large for tiles"],
)
def test_a_square_is_found_in_its_place(height, width, side):
    left, top = width - side - 3, height - side - 11
    best = detect_everywhere(RedSquares(), square(height, width, left, top, side))[0]
    # Edges of a shrunk square are known to about one pixel of the tile.
    np.testing.assert_allclose(best[:4], [left, top, left + side, top + side], atol=1.25 * max(height, width) / 128)


def test_what_fills_a_large_image_is_found_at_a_quarter_of_its_size():
    finder = RedSquares()
    boxes = detect_everywhere(finder, square(900, 1000, 440, 400, 120), tile=1024)
    assert finder.seen == [(900, 1000), (225, 250)]
    np.testing.assert_allclose(boxes[0][:4], [440, 400, 560, 520], atol=3)


def test_small_images_are_enlarged():
    boxes = detect_everywhere(RedSquares(), square(50, 60, 20, 30, 6))
    np.testing.assert_allclose(boxes[0][:4], [20, 30, 26, 36], atol=1)


def test_tiles_find_what_the_whole_image_shows_too_small_and_never_exceed_their_side():
    finder = RedSquares()
    boxes = detect_everywhere(finder, square(500, 600, 400, 300, 10), largest=600)
    np.testing.assert_array_equal(boxes[0], [400, 300, 410, 310, 0.9])
    assert max(max(size) for size in finder.seen) <= 128
    assert detect_everywhere(RedSquares(), square(500, 600, 400, 300, 10), largest=128) == []
    assert detect_everywhere(RedSquares(), square(500, 600, 400, 300, 10), tile=600)[0][:4] == (400, 300, 410, 310)


def test_boxes_stay_in_the_image():
    class Beyond(RedSquares):
        def detect(self, image):
            return [Box(-5.0, -5.0, image.shape[1] + 5.0, image.shape[0] + 5.0, 0.5)]

    assert detect_everywhere(Beyond(), np.zeros((40, 30, 3), np.uint8)) == [Box(0, 0, 30, 40, 0.5)]


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_the_smallest_and_narrowest_images_are_searched(size):
    assert detect_everywhere(RedSquares(), np.zeros((*size, 3), np.uint8)) == []


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_other_arrays_are_refused(image):
    with pytest.raises(ValueError, match=r"must be uint8\[H, W, 3\]"):
        detect_everywhere(RedSquares(), image)


def test_an_unknown_detector_is_an_error_that_says_what_is_possible():
    with pytest.raises(CurationError, match=r"'retina' is neither 'centerface' .* \.onnx"):
        open_detector("retina")


def test_a_detector_travels_by_name_and_checks_its_weights(monkeypatch):
    finder = RedSquares()
    monkeypatch.setattr(detector_file, "open_detector", lambda name: RedSquares() if name == "red" else None)
    sent = pickle.loads(pickle.dumps(finder))
    assert (sent.name, sent.weights_sha256) == (finder.name, finder.weights_sha256)
    with pytest.raises(CurationError, match=r"the weights of .* red were replaced"):
        _open_again("red", "0" * 64)
