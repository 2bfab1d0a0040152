"""Textures against plain formulas with the same draws."""

import math

import numpy as np
import pytest

from wildfern.generators.counter_rng import bits, fold_one, key, uniform
from wildfern.generators.diamond_square import byte_field, field_space, levels_for
from wildfern.generators.lsystem.textures import (
    CELLS,
    CLOUDS,
    KINDS,
    NOISE,
    STRIPES,
    draw_colors,
    draw_field,
    frequency_between,
    place_row,
    scratch_for,
    texture_row,
)
from wildfern.generators.texture.lattice_noise import blocks, cells, fractal_sum

F = np.float32
COLORS, FIELD, SHAPE = 0, 1, 2


def draws(number, count=40):
    return uniform(np.uint64(number), count)


def salt(shape, draw):
    return np.uint32(int(bits(np.uint64(shape), draw + 1)[draw]) >> 32)


def highest_frequency(size):
    return max(2.0, min(24.0, size / 5))


def soft_noise(x, y, frequency, number):
    out = np.empty(len(x), F)
    blocks(x.astype(F), y.astype(F), F(frequency), True, number, out)
    return out


def placed(shape, row, size):
    """Turn, stretch, move; then the warp."""
    u = draws(shape)
    px, py = (np.arange(size) + 0.5) / size, (row + 0.5) / size
    c, s, stretch = math.cos(math.tau * u[0]), math.sin(math.tau * u[0]), 1 + u[1]
    x, y = stretch * (c * px + s * py) + 8 * u[2], (c * py - s * px) / stretch + 8 * u[3]
    if u[4] < 0.5:
        frequency = 1 + 3 * u[6]
        reach = 0.3 * u[5] / frequency
        x = x + reach * (soft_noise(x, y, frequency, salt(shape, 7)) - 0.5)
        y = y + reach * (soft_noise(x, y, frequency, salt(shape, 8)) - 0.5)
    return x, y


def plain_row(kind, shape, size, x, y):
    u, out, highest = draws(shape), np.empty(len(x), F), highest_frequency(size)
    frequency, number = 2 * (highest / 2) ** u[10], salt(shape, 9)
    if kind == NOISE:
        frequency = 2 * (highest / 2) ** (u[10] / 2)
        octaves = 1 + sum(frequency * 2**k <= size / 2 for k in range(1, 6))
        fractal_sum(x, y, F(frequency), octaves, F(0.3 + 0.6 * u[11]), 0, number, out)
    elif kind == STRIPES:
        out[:] = 0
        for wave in range(1 + int(3 * u[11])):
            here = frequency if wave == 0 else 2 * (highest / 2) ** u[23 + wave]
            weight = 1 if wave == 0 else 0.2 + 0.8 * u[29 + wave]
            across, down = here * np.cos(math.tau * u[20 + wave]), here * np.sin(math.tau * u[20 + wave])
            turns = across * x.astype(float) + down * y.astype(float) + u[26 + wave]
            out += (weight * np.sin(math.tau * turns)).astype(F)
    elif kind == CELLS:
        measure, scratch = 0 if u[11] < 0.5 else 2, np.empty((4, len(x)), F)
        cells(x, y, F(frequency), F(0.4 + 0.6 * u[12]), measure, number, scratch, out)
    else:
        blocks(x, y, F(frequency), u[11] < 0.5, number, out)
    return out


def coordinates(shape, row, size):
    x, y, spare = np.empty((3, size), F)
    place_row(np.uint64(shape), row, size, x, y, spare)
    return x, y


def field(number, size):
    clouds = field_space(size, levels_for(size))
    kind = draw_field(np.uint64(number), size, levels_for(size), clouds, scratch_for(size))
    return kind, clouds.field[:size, :size]


@pytest.mark.parametrize("size", [8, 33, 224])
def test_rows_are_turned_stretched_moved_and_half_of_them_warped(size):
    warped = 0
    for number in range(60):
        shape = key("shape", number)
        for row in (0, size // 2, size - 1):
            np.testing.assert_allclose(coordinates(shape, row, size), placed(shape, row, size), atol=3e-5)
        warped += draws(shape)[4] < 0.5
    assert 15 < warped < 45


@pytest.mark.parametrize("size", [8, 50, 224])
def test_frequencies_lie_between_two_and_what_the_pixels_resolve(size):
    found = [frequency_between(u, size) for u in (0.0, 0.5, 1.0)]
    highest = highest_frequency(size)
    np.testing.assert_allclose(found, [2, math.sqrt(2 * highest), highest])


@pytest.mark.parametrize("kind", range(1, len(KINDS)), ids=KINDS[1:])
@pytest.mark.parametrize("size", [12, 97])
def test_rows_of_each_kind_are_those_of_the_formula(kind, size):
    for number in range(30):
        shape, out = key("row", number), np.empty(size, F)
        x, y = coordinates(shape, 5, size)
        texture_row(kind, np.uint64(shape), size, x, y, np.empty((4, size), F), out)
        np.testing.assert_allclose(out, plain_row(kind, shape, size, x, y), atol=2e-4)


@pytest.mark.parametrize("size", [8, 33])
def test_fields_span_all_bytes_and_every_kind_is_as_frequent(size):
    kinds = []
    for number in range(400):
        texture = key("field", number)
        kind, found = field(texture, size)
        kinds.append(kind)
        if kind == CLOUDS:
            clouds = field_space(size, levels_for(size))
            byte_field(np.uint64(fold_one(texture, FIELD)), size, levels_for(size), clouds)
            np.testing.assert_array_equal(found, clouds.field[:size, :size])
        else:
            shape = fold_one(texture, SHAPE)
            values = [plain_row(kind, shape, size, *coordinates(shape, row, size)) for row in range(size)]
            low, span = np.min(values), np.ptp(values)
            expected = np.float64(values - low) * (255.99 / span if span > 0 else 0.0)
            assert np.abs(found + 0.5 - expected).max() < 0.55
            assert (found.min(), found.max()) == (0, 255)
    np.testing.assert_allclose(np.bincount(kinds, minlength=len(KINDS)) / 400, 1 / len(KINDS), atol=0.08)


def plain_colors(texture):
    u = draws(fold_one(texture, COLORS))
    level, spread, tint = 255 * u[1], 20 + 100 * u[2], 0 if u[0] < 0.3 else 90 * u[3]
    knots = np.zeros((3, 4))
    for channel in range(3):
        for knot in range(4):
            height = (-1 if u[24] < 0.5 else 1) * spread * (2 * (knot + u[8 + knot]) / 4 - 1)
            own = 0.5 * tint * (2 * u[12 + 3 * knot + channel] - 1)
            knots[channel, knot] = level + tint * (2 * u[5 + channel] - 1) + height + own
    place = np.clip((1 + 2 * u[4]) * (np.arange(256) / 255 - 0.5) + 0.5, 0, 1)
    return [np.interp(place, np.linspace(0, 1, 4), np.clip(row, 0, 255)) for row in knots]


def colors(texture):
    table = np.empty((3, 256), F)
    draw_colors(np.uint64(texture), table)
    return table


def test_colors_are_gradients_through_four_random_ones():
    tables = [colors(key("colors", number)) for number in range(500)]
    for number in range(100):
        np.testing.assert_allclose(tables[number], plain_colors(key("colors", number)), atol=1e-3)
    gray = [(table == table[0]).all() for table in tables]
    assert np.mean(gray) == pytest.approx(0.3, abs=0.08)
    # In grays brightness rises or falls all the way, so that no value of a field has a bright or dark line of its own.
    steps = np.array([np.diff(table[0]) for table, plain in zip(tables, gray, strict=True) if plain])
    rising, falling = (steps >= 0).all(1), (steps <= 0).all(1)
    assert (rising | falling).all()
    assert 0.3 < rising.mean() < 0.7
    means = np.array([table.mean() for table in tables])
    assert np.histogram(means, 5, (0, 255))[0].min() > 50
