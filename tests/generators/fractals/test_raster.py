"""Histogram, patches, colors, fields and blur against plain loops."""

import colorsys
import math

import numpy as np
import pytest

from wildfern.generators import counter_rng as rng
from wildfern.generators.blur import blur_across, blur_down
from wildfern.generators.color import _ramp
from wildfern.generators.diamond_square import byte_field, field_space, levels_for
from wildfern.generators.fractals.chaos_game import FIRST_ROW, LANES, rows_for
from wildfern.generators.fractals.raster import (
    RENDERS,
    _stamp,
    count_points,
    draw_placement,
    fill_canvas,
    fit_box,
    palette_entries,
)


def track_of(points_N2):
    rows = rows_for(len(points_N2))
    track = np.zeros((rows, 2, LANES), np.float32)
    padded = np.zeros(((rows - FIRST_ROW) * LANES, 2), np.float32)
    padded[: len(points_N2)] = points_N2
    track[FIRST_ROW:] = padded.reshape(-1, LANES, 2).transpose(0, 2, 1)
    return track.ravel()


@pytest.mark.parametrize("move", [False, True])
def test_counts_match_a_plain_histogram(move):
    size, points = 17, np.random.default_rng(0).normal(size=(777, 2)).astype(np.float32)
    box = (*points.min(0), *points.max(0))
    for place in range(20):
        affine, counts = np.empty(6, np.float32), np.empty(size * size + 1, np.uint32)
        placement = np.empty(6)
        fill_canvas(placement)
        swap = move and draw_placement(np.uint64(place), placement)
        fit_box(placement, size, box, affine)
        count_points(track_of(points), len(points), affine, swap, size, np.empty(LANES, np.int32), counts)
        expected = np.zeros((size, size), int)
        for x, y in points:
            u, v = (x - affine[0]) * affine[2] + affine[4], (y - affine[1]) * affine[3] + affine[5]
            if 0 <= u < size and 0 <= v < size:
                expected[(int(u), int(v)) if swap else (int(v), int(u))] += 1
        assert counts[:-1].reshape(size, size).tolist() == expected.tolist()
        assert counts[-1] == len(points) - expected.sum()
        assert move or counts[-1] == 0


def test_a_flat_attractor_stays_on_the_canvas():
    points = np.full((100, 2), 0.25, np.float32)
    affine, counts = np.empty(6, np.float32), np.empty(8 * 8 + 1, np.uint32)
    placement = np.empty(6)
    fill_canvas(placement)
    fit_box(placement, 8, (*points[0], *points[0]), affine)
    count_points(track_of(points), 100, affine, False, 8, np.empty(LANES, np.int32), counts)
    assert counts.max() == 100
    assert counts[-1] == 0


def test_patches_are_sums_over_the_mask():
    size, counts = 9, np.random.default_rng(0).integers(0, 5, 82).astype(np.uint32)
    for mask in (1, 0b000010000, 0b100000011, 511):
        stamped = np.empty(82, np.uint32)
        _stamp(mask, size, counts, stamped)
        padded = np.pad(counts[:-1].reshape(size, size), 1)
        taps = [padded[2 - t // 3 : 2 - t // 3 + size, 2 - t % 3 : 2 - t % 3 + size] for t in range(9) if mask >> t & 1]
        assert stamped[:-1].reshape(size, size).tolist() == sum(taps).tolist()


def test_palette_entries_of_graded_and_binary():
    counts = np.array([0, 1, 2, 4] * 16 + [99], np.uint32)
    field, entries = np.full((8, 8), 77, np.uint8), np.empty((8, 8), np.uint16)
    for render, expected in (("graded", [77, 256 + 63, 256 + 127, 256 + 255]), ("binary", [77, 511, 511, 511])):
        palette_entries(RENDERS.index(render), np.uint64(0), 8, counts, np.empty_like(counts), field, entries)
        assert entries.ravel()[:4].tolist() == expected


def test_colors_match_the_standard_library():
    table = np.empty((3, 256), np.uint8)
    for h, h1, s, s1, v, v1 in np.random.default_rng(0).uniform(0, 1, (50, 6)) * [1, 1, 0.5, 0.5, 0.5, 0.7]:
        _ramp(h, h1, s, s1, v, v1, table)
        expected = [
            colorsys.hsv_to_rgb((h + h1 * i / 255) % 1, s + s1 * i / 255, min(v + v1 * i / 255, 1)) for i in range(256)
        ]
        assert np.abs(table.T - 255 * np.array(expected)).max() < 0.51


def plain_field(field_key, levels, size):
    """Diamond-square on a torus, cell by cell, with the three ten-bit noises of every cell's random number."""
    first = rng.bits(np.array([field_key], np.uint64), 2)[0]
    states = [int(b >> np.uint64(32)) | 1 for b in rng.bits(first[1:], 2 ** (levels - 1))[0]]
    ratio = math.exp(-0.4 - 0.4 * float(first[0] >> np.uint64(11)) / 2**53)
    grid = np.zeros((1, 1))
    for level in range(levels):
        m, amplitude = 2**level, 0.5 * ratio**level
        low, high = grid.min(), grid.max()
        finer = np.zeros((2 * m, 2 * m))
        above = np.zeros(m)
        for i in range(-1, (size + 1) // 2 if level == levels - 1 else m):
            noise = np.zeros((3, m))
            for j in range(m):
                state = states[j]
                state ^= state << 13 & 0xFFFFFFFF
                state ^= state >> 17
                state ^= state << 5 & 0xFFFFFFFF
                states[j] = state
                noise[:, j] = [amplitude * ((state >> shift & 1023) / 511.5 - 1) for shift in (0, 10, 20)]
            rows = grid[i % m], grid[(i + 1) % m]
            centers = sum(row + np.roll(row, -1) for row in rows) / 4 + noise[0]
            if i >= 0:
                finer[2 * i, ::2], finer[2 * i + 1, 1::2] = rows[0], centers
                finer[2 * i, 1::2] = (rows[0] + np.roll(rows[0], -1) + above + centers) / 4 + noise[1]
                finer[2 * i + 1, ::2] = (rows[0] + rows[1] + centers + np.roll(centers, 1)) / 4 + noise[2]
            above = centers
        grid = finer
    return np.clip(255.99 * (grid - low) / (high - low), 0, 255)[:size, :size]


@pytest.mark.parametrize("size", [8, 9, 31, 32, 33, 100])
def test_fields_match_plain_diamond_square(size):
    levels = levels_for(size)
    space = field_space(size, levels)
    for field_key in range(5):
        byte_field(np.uint64(field_key), size, levels, space)
        field = space.field
        expected = plain_field(field_key, levels, size)
        # Truncated to a byte: less than one below, and float32's rounding above.
        difference = expected - field[:size, :size]
        assert difference.min() > -0.01
        assert difference.max() < 1.01
        # Neighbors are alike, and the range is used.
        assert np.ptp(field[:size, :size]) > 150
        assert np.abs(np.diff(expected)).mean() < 0.9 * expected.std()


def test_blur_is_the_separable_kernel():
    size, outer = 11, 40
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)
    mixed, out = np.empty((size, 3 * size), np.uint8), np.empty((size, 3 * size), np.uint8)
    taps = np.repeat(np.array([[outer], [256 - 2 * outer]], np.uint16), 3 * size, axis=1)
    for row in range(size):
        line = np.concatenate([np.zeros(3, np.uint8), image[row].ravel(), np.zeros(3, np.uint8)])
        blur_across(line, taps, mixed[row])
    for row in range(size):
        blur_down(mixed[max(row - 1, 0)], mixed[row], mixed[min(row + 1, size - 1)], taps, out[row])
    weights = np.array([outer, 256 - 2 * outer, outer]) / 256
    padded = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)), mode="edge")
    expected = sum(weights[i] * weights[j] * padded[i : i + size, j : j + size] for i in range(3) for j in range(3))
    assert np.abs(out.reshape(size, size, 3) - expected).max() <= 1
