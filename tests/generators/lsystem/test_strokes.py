"""Strokes against distances to segments, taken for every pixel of the image."""

import itertools
import math

import numpy as np
import pytest

from wildfern.generators.lsystem.strokes import paint_stroke, trace_middle


def empty(size):
    layers = np.zeros((size, size), np.uint8), np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    return *layers, np.full((size, size, 3), np.nan, np.float32)


def paint(segments, size, softness=0.0, colors=None):
    layers, joined = empty(size), []
    for i, segment in enumerate(segments):
        color = np.float32([0, 0, 0] if colors is None else colors[i])
        joined.append(paint_stroke(np.asarray(segment, np.float64), color, softness, *layers))
    return *layers, joined


def distances(segment, size):
    """Distance of every pixel center to the segment, and half the width at the nearest point."""
    x0, y0, x1, y1, w0, w1 = segment
    y, x = np.mgrid[:size, :size] + 0.5
    dx, dy = x1 - x0, y1 - y0
    t = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - x0 - t * dx, y - y0 - t * dy), (w0 + t * (w1 - w0)) / 2


def random_segments(seed, count, size):
    rng = np.random.default_rng(seed)
    ends = rng.uniform(-0.3 * size, 1.3 * size, (count, 4))
    ends[0, 3], ends[1, 2] = ends[0, 1], ends[1, 0]  # one level, one upright
    ends[2, 2:] = ends[2, :2] + 0.01
    return np.hstack([ends, rng.uniform(1.5, 9.0, (count, 2))])


@pytest.mark.parametrize("size", [8, 33, 64])
def test_masks_widths_and_coverage_are_those_of_every_pixel(size):
    for seed in range(20):
        segments = random_segments(seed, 6, size)
        mask, widths, alpha, _, joined = paint(segments, size, softness=0.6)
        expected = np.zeros((size, size), bool), np.zeros((size, size)), np.zeros((size, size))
        for segment, new in zip(segments, joined, strict=True):
            distance, half = distances(segment, size)
            inside = distance <= half
            assert new == (inside & ~expected[0]).sum()
            expected[0][inside] = True
            expected[1][inside] = np.maximum(expected[1], 2 * half)[inside]
            coverage = np.clip(half + 0.5 - distance, 0, 1) * (1 - 0.6 * (distance / (half + 0.5)) ** 2)
            np.maximum(expected[2], coverage, out=expected[2])
        np.testing.assert_array_equal(mask, expected[0])
        np.testing.assert_allclose(widths, expected[1], rtol=1e-6)
        np.testing.assert_allclose(alpha, expected[2], atol=1e-6)


@pytest.mark.parametrize("width", [1.5, 2.0, 5.3])
def test_coverage_adds_up_to_the_area(width):
    """Of a capsule, length × width and a disc, at any angle and place."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        x, y, angle, length = *rng.uniform(30, 34, 2), rng.uniform(0, math.tau), rng.uniform(10, 22)
        segment = x, y, x + length * math.cos(angle), y + length * math.sin(angle), width, width
        area = length * width + math.pi * width * width / 4
        assert paint([segment], 64)[2].sum() == pytest.approx(area, rel=0.03)


def test_later_strokes_lie_over_earlier_ones():
    size, colors = 32, [(200, 0, 0), (0, 100, 50)]
    level, upright = (2.0, 16.0, 30.0, 16.0, 6.0, 6.0), (16.2, 2.0, 16.2, 30.0, 6.0, 6.0)
    mask, _, alpha, layer, _ = paint([level, upright], size, colors=colors)
    (far, half), (over, _) = distances(level, size), distances(upright, size)
    np.testing.assert_array_equal(
        layer[over <= half - 0.5], np.broadcast_to(colors[1], ((over <= half - 0.5).sum(), 3))
    )
    alone = (far <= half) & (over >= half + 0.5)
    np.testing.assert_array_equal(layer[alone], np.broadcast_to(colors[0], (alone.sum(), 3)))
    edge = (far <= half - 0.5) & (np.abs(over - half) < 0.5)
    share = (half + 0.5 - over)[edge][:, None]
    assert edge.sum() >= 10
    np.testing.assert_allclose(layer[edge], share * colors[1] + (1 - share) * colors[0], atol=1e-3)
    np.testing.assert_array_equal(alpha > 0, np.isfinite(layer[..., 0]))
    assert mask[16, 16] == 1


def middle(segments, size):
    line = np.zeros((size, size), np.uint8)
    for segment in segments:
        trace_middle(np.asarray(segment, np.float64), line)
    return line


def pieces_of(line):
    """Number of 8-connected components of a small image."""
    left, found = {tuple(at) for at in np.argwhere(line)}, 0
    while left:
        found, border = found + 1, [left.pop()]
        while border:
            row, column = border.pop()
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            border += near
    return found


def test_middle_lines_are_one_connected_pixel_wide_and_inside_the_thinnest_mask():
    size = 48
    for seed in range(200):
        ends = np.random.default_rng(seed).uniform(1, size - 1, 4)
        segment = (*ends, 1.5, 1.5)
        line, mask = middle([segment], size), paint([segment], size)[0]
        steps = max(abs(ends[2] - ends[0]), abs(ends[3] - ends[1]))
        assert (line <= mask).all()
        assert pieces_of(line) == 1
        assert steps - 1 <= line.sum() <= steps + 3
        assert line[int(ends[1]), int(ends[0])] == line[int(ends[3]), int(ends[2])] == 1


def test_middle_lines_stay_connected_from_one_segment_to_the_next():
    size = 64
    for seed in range(100):
        points = np.clip(np.cumsum(np.random.default_rng(seed).normal(0, 4, (30, 2)), 0) + 32, 0, size - 1e-9)
        segments = [(*a, *b, 1.5, 1.5) for a, b in itertools.pairwise(points)]
        line = middle(segments, size)
        assert pieces_of(line) == 1
        assert (line <= paint(segments, size)[0]).all()


def test_middle_lines_end_at_the_edges_of_the_image():
    line = middle([(-1e6, 10.5, 1e6, 10.5, 2.0, 2.0), (5.5, -7.0, 5.5, 90.0, 2.0, 2.0)], 24)
    expected = np.zeros((24, 24), np.uint8)
    expected[10] = expected[:, 5] = 1
    np.testing.assert_array_equal(line, expected)
    assert middle([(-50.0, -3.0, 70.0, -1.0, 2.0, 2.0)], 24).sum() == 0
