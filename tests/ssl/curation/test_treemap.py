"""The squarified treemap: areas, cover and overlap by a plain count, the example of the paper, and nested levels."""

import numpy as np
import pytest

from wildfern.ssl.curation.treemap import ASPECT, ClusterTile, squarify, treemap
from wildfern.ssl.evaluation.report.thumbnails import Thumbnail

SMALL = np.zeros((16, 16, 3), np.float32)
ONE, TWO = (Thumbnail(f"data:image/png;base64,{name}", name, SMALL) for name in ("one", "two"))


def random_sizes(n, seed):
    return np.random.default_rng(seed).pareto(1.0, n) + 0.01


@pytest.mark.parametrize(("n", "width", "height"), [(1, 3, 1), (2, 1, 1), (7, 6, 4), (60, 1.5, 1), (300, 1, 9)])
def test_areas_are_proportional_and_cover_without_overlap(n, width, height):
    sizes = random_sizes(n, seed=n)
    rectangles = np.array(squarify(sizes.tolist(), width, height))
    areas = rectangles[:, 2] * rectangles[:, 3]
    np.testing.assert_allclose(areas, sizes / sizes.sum() * width * height, rtol=1e-9)
    left, top, right, bottom = *rectangles[:, :2].T, *(rectangles[:, :2] + rectangles[:, 2:]).T
    assert left.min() >= 0
    assert top.min() >= 0
    assert right.max() == pytest.approx(width)
    assert bottom.max() == pytest.approx(height)
    for i in range(n):  # areas add up to the whole, so no overlap means that they cover it
        for j in range(i):
            across = min(right[i], right[j]) - max(left[i], left[j])
            down = min(bottom[i], bottom[j]) - max(top[i], top[j])
            assert min(across, down) < 1e-9


def test_the_example_of_the_paper():
    """Bruls et al., figure 4: sizes 6, 6, 4, 3, 2, 2, 1 in a rectangle of 6 x 4."""
    rectangles = squarify([6, 6, 4, 3, 2, 2, 1], 6, 4)
    expected = [
        (0, 0, 3, 2),
        (0, 2, 3, 2),
        (3, 0, 12 / 7, 7 / 3),
        (3 + 12 / 7, 0, 9 / 7, 7 / 3),
        (3, 7 / 3, 6 / 5, 5 / 3),
        (3 + 6 / 5, 7 / 3, 6 / 5, 5 / 3),
        (3 + 12 / 5, 7 / 3, 3 / 5, 5 / 3),
    ]
    np.testing.assert_allclose(rectangles, expected)


def test_rectangles_are_in_the_order_given():
    sizes = [1.0, 6.0, 3.0]
    order = [2, 0, 1]
    mixed = squarify([sizes[place] for place in order], 2, 1)
    assert mixed == [squarify(sizes, 2, 1)[place] for place in order]


def test_nearer_to_squares_than_slices():
    sizes = random_sizes(50, seed=3)
    shapes = np.array(squarify(sizes.tolist(), 1.5, 1.0))[:, 2:]
    slices = np.stack([1.5 * sizes / sizes.sum(), np.ones(50)], axis=1)

    def mean_aspect(shapes):
        return float((shapes.max(1) / shapes.min(1)).mean())

    assert mean_aspect(shapes) < 2 < mean_aspect(slices)


def test_no_sizes_and_bad_sizes():
    assert squarify([], 2, 1) == []
    for sizes in ([1, 0], [1, -2], [float("nan")], [float("inf"), 1]):
        with pytest.raises(ValueError, match="positive"):
            squarify(sizes, 2, 1)


def test_nested_levels_fill_the_canvas_and_share_images():
    inner = [ClusterTile(3, "a1", [ONE]), ClusterTile(1, "a2", [TWO, ONE])]
    nodes, uris = treemap([ClusterTile(2, "b", [TWO]), ClusterTile(4, "a", [ONE, TWO], inner)])
    assert uris == [TWO.uri, ONE.uri]
    assert [(node["label"], node["size"], node["thumbnails"]) for node in nodes] == [("b", 2, [0]), ("a", 4, [1, 0])]
    assert nodes[0]["children"] == []
    children = nodes[1]["children"]
    assert [(node["label"], node["thumbnails"]) for node in children] == [("a1", [1]), ("a2", [0, 1])]
    for level, sizes in ((nodes, [2, 4]), (children, [3, 1])):
        shares = [node["box"][2] * node["box"][3] for node in level]
        np.testing.assert_allclose(shares, np.array(sizes) / sum(sizes), atol=1e-4)
    left, top, width, height = squarify([3, 1], ASPECT, 1.0)[0]
    np.testing.assert_allclose(children[0]["box"], [left / ASPECT, top, width / ASPECT, height], atol=1e-5)
