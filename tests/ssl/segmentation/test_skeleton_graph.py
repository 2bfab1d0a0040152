"""Skeleton graphs of shapes drawn by hand, by exact numbers."""

import math

import numpy as np
import pytest
from scipy import ndimage

from wildfern.ssl.segmentation.skeleton_graph import skeleton_graph

ROOT2 = math.sqrt(2)


def drawn(text):
    return np.array([[letter == "#" for letter in line] for line in text.split()])


def counts(graph):
    return len(graph.segments), graph.branch_points, graph.end_points, graph.components


def test_an_empty_mask_has_an_empty_graph():
    for shape in ((0, 0), (0, 5), (7, 9)):
        graph = skeleton_graph(np.zeros(shape, bool))
        assert (graph.segments, graph.nodes, graph.rows(), graph.total_length) == ([], [], [], 0)
        assert counts(graph) == (0, 0, 0, 0)


def test_a_single_pixel_is_a_segment_of_no_length():
    graph = skeleton_graph(drawn("... ..# ..."), pixel_size=3)
    assert counts(graph) == (1, 0, 1, 1)
    (segment,), (node,) = graph.segments, graph.nodes
    assert (segment.start, segment.end, segment.start_kind, segment.end_kind) == ((1, 2), (1, 2), "end", "end")
    assert (segment.length, segment.chord, segment.mean_width) == (0, 0, 3)
    assert math.isnan(segment.tortuosity)
    assert (node.position, node.kind, node.degree) == ((1, 2), "end", 0)


@pytest.mark.parametrize(
    ("text", "start", "end", "length"),
    [
        ("..... .#### .....", (1, 1), (1, 4), 3),
        ("#.... .#... ..#..", (0, 0), (2, 2), 2 * ROOT2),
        ("...## ..#.. .#... .#...", (0, 4), (3, 1), 2 + 2 * ROOT2),
        ("#.... #.... #.... #####", (0, 0), (3, 4), 5 + ROOT2),  # the corner is a diagonal step
    ],
)
def test_a_line(text, start, end, length):
    graph = skeleton_graph(drawn(text), pixel_size=0.5)
    assert counts(graph) == (1, 0, 2, 1)
    (segment,) = graph.segments
    assert (segment.start, segment.end, segment.start_kind, segment.end_kind) == (start, end, "end", "end")
    assert segment.length == pytest.approx(length / 2)
    assert segment.chord == pytest.approx(math.dist(start, end) / 2)
    assert segment.tortuosity == pytest.approx(length / math.dist(start, end))
    assert (segment.points[0].tolist(), segment.points[-1].tolist()) == (list(start), list(end))
    assert (segment.min_width, segment.mean_width, segment.max_width) == (0.5, 0.5, 0.5)


def test_a_cross():
    mask = np.zeros((13, 17), bool)
    mask[5, 2:15] = mask[1:12, 8] = True
    graph = skeleton_graph(mask)
    assert counts(graph) == (4, 1, 4, 1)
    assert [(s.start, s.end, s.length) for s in graph.segments] == [
        ((1, 8), (5, 8), 4),
        ((5, 2), (5, 8), 6),
        ((5, 8), (5, 14), 6),
        ((5, 8), (11, 8), 6),
    ]
    assert {(node.position, node.kind, node.degree) for node in graph.nodes} == {
        *(((5, 8), "branch", 4), ((1, 8), "end", 1), ((5, 2), "end", 1), ((5, 14), "end", 1), ((11, 8), "end", 1))
    }
    assert graph.total_length == 22


def test_a_y():
    graph = skeleton_graph(drawn("#.....# .#...#. ..#.#.. ...#... ...#... ...#..."))
    assert counts(graph) == (3, 1, 3, 1)
    assert [(s.start, s.end, s.start_kind, s.end_kind) for s in graph.segments] == [
        ((0, 0), (3, 3), "end", "branch"),
        ((0, 6), (3, 3), "end", "branch"),
        ((3, 3), (5, 3), "branch", "end"),
    ]
    assert [s.length for s in graph.segments] == pytest.approx([3 * ROOT2, 3 * ROOT2, 2])
    assert [s.tortuosity for s in graph.segments] == pytest.approx([1, 1, 1])


RING = "........ ..###... .#...#.. .#...#.. .#...#.. ..###... ........ ........ ........"
TAILED = "........ ..###... .#...#.. .#...#.. .#...#.. ..###... ...#.... ...#.... ...#...."


def test_a_ring_is_a_loop():
    graph = skeleton_graph(drawn(RING), pixel_size=2)
    assert counts(graph) == (1, 0, 0, 1)
    assert graph.nodes == []
    (segment,) = graph.segments
    assert (segment.start, segment.end, segment.start_kind, segment.end_kind) == ((1, 2), (1, 2), "loop", "loop")
    assert segment.length == pytest.approx(2 * (8 + 4 * ROOT2))
    assert segment.chord == 0
    assert math.isnan(segment.tortuosity)
    assert segment.points[0].tolist() == segment.points[-1].tolist() == [1, 2]
    assert len(segment.points) == 13


def test_a_ring_with_a_tail_starts_and_ends_at_its_node():
    graph = skeleton_graph(drawn(TAILED))
    assert counts(graph) == (2, 1, 1, 1)
    ring, tail = graph.segments
    assert (ring.start, ring.end, ring.start_kind, ring.end_kind) == ((5, 3), (5, 3), "branch", "branch")
    assert ring.length == pytest.approx(8 + 4 * ROOT2)
    assert (tail.start, tail.end, tail.start_kind, tail.end_kind) == ((5, 3), (8, 3), "branch", "end")
    assert tail.length == 3


def test_a_pruned_tail_leaves_a_ring():
    assert counts(skeleton_graph(drawn(TAILED), shortest=3)) == (2, 1, 1, 1)
    pruned = skeleton_graph(drawn(TAILED), shortest=3.01)
    assert counts(pruned) == (1, 0, 0, 1)
    (segment,) = pruned.segments
    assert (segment.start_kind, segment.end_kind) == ("loop", "loop")
    np.testing.assert_array_equal(segment.points, skeleton_graph(drawn(RING)).segments[0].points)


def test_pruning_removes_spurs_once_and_joins_what_is_left():
    mask = np.zeros((20, 30), bool)
    mask[10, 2:28] = mask[8:10, 9] = mask[11:16, 20] = True
    mask[2, 2:5] = True  # connected to nothing
    whole = skeleton_graph(mask, pixel_size=10)
    assert counts(whole) == (6, 2, 6, 2)
    pruned = skeleton_graph(mask, pixel_size=10, shortest=25)
    assert counts(pruned) == (3, 1, 3, 1)
    assert [s.length for s in pruned.segments] == pytest.approx([180, 70, 50])
    assert [s.number for s in pruned.segments] == [1, 2, 3]
    assert {s.component for s in pruned.segments} == {1}
    only = skeleton_graph(mask, pixel_size=10, shortest=55)
    assert counts(only) == (1, 0, 2, 1)
    assert only.total_length == pytest.approx(250)
    assert only.segments[0].points.tolist() == [[10, column] for column in range(2, 28)]
    between = skeleton_graph(mask, shortest=1000)  # has no free end before
    assert counts(between) == (1, 0, 2, 1)
    assert between.total_length == pytest.approx(11)
    assert counts(skeleton_graph(mask[:9], shortest=1000)) == (0, 0, 0, 0)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 9, 15])
def test_a_bar_is_as_wide_as_it_is(width):
    mask = np.zeros((40, 200), bool)
    mask[10 : 10 + width, 20:180] = True
    for turned in (mask, mask.T):
        (segment,) = skeleton_graph(turned, shortest=20).segments
        middle = skeleton_graph(turned, shortest=20, pixel_size=0.5).segments[0]
        assert segment.max_width == width - (width % 2 == 0)
        assert abs(segment.mean_width - width) <= (1 if width % 2 else 1.05)
        assert middle.max_width == segment.max_width / 2
        assert middle.mean_width == segment.mean_width / 2


def test_widths_are_distances_to_the_nearest_pixel_outside():
    """By a loop over all pixels of the mask's surroundings; the image ends at its border."""
    mask = ndimage.gaussian_filter(np.random.default_rng(4).random((30, 40)), 1.5) > 0.5
    outside = np.argwhere(~np.pad(mask, 1)) - 1
    for segment in skeleton_graph(mask, pixel_size=2).segments:
        inner = segment.points[segment.start_kind == "branch" : len(segment.points) - (segment.end_kind == "branch")]
        widths = [2 * (2 * min(math.dist(point, other) for other in outside) - 1) for point in inner]
        found = segment.min_width, segment.mean_width, segment.max_width
        assert found == pytest.approx((min(widths), sum(widths) / len(widths), max(widths)))


def test_rows_have_the_same_columns_in_order():
    graph = skeleton_graph(drawn(TAILED))
    columns = [
        *("number", "component", "start_row", "start_column", "end_row", "end_column", "start_kind", "end_kind"),
        *("length", "chord", "tortuosity", "mean_width", "min_width", "max_width"),
    ]
    assert [list(row) for row in graph.rows()] == [columns, columns]
    assert list(graph.rows()[1].values()) == [2, 1, 5, 3, 8, 3, "branch", "end", 3, 3, 1, 1, 1, 1]
    assert {type(value) for row in graph.rows() for value in row.values()} == {int, float, str}


@pytest.mark.parametrize(
    ("mask", "options", "message"),
    [
        (np.zeros((2, 3, 1), bool), {}, r"a mask is bool\[H, W\] or of integers, got bool\[2, 3, 1\]"),
        (np.zeros((2, 3)), {}, r"got float64\[2, 3\]"),
        (np.zeros((2, 3), bool), {"pixel_size": 0}, "pixel_size is above 0, got 0"),
        (np.zeros((2, 3), bool), {"pixel_size": math.inf}, "pixel_size is above 0, got inf"),
        (np.zeros((2, 3), bool), {"shortest": -1}, "shortest is 0 or more, got -1"),
        (np.zeros((2, 3), bool), {"shortest": math.nan}, "got nan"),
    ],
)
def test_other_masks_and_settings_are_errors(mask, options, message):
    with pytest.raises(ValueError, match=message):
        skeleton_graph(mask, **options)
