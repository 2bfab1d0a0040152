"""Local means and the difference of branches from them, against loops over cells and pixels."""

import math

import numpy as np
import pytest

from wildfern.generators.diamond_square import levels_for
from wildfern.generators.lsystem.texture_fill import (
    BLACK,
    LEAST_DIFFERENCE,
    MOST_DETAIL,
    WHITE,
    cell_means,
    cell_side,
    fill_layer,
    leave_room,
    limit_detail,
    shares_of_end,
)
from wildfern.generators.lsystem.textures import empty_texture

LUMA = np.array([0.299, 0.587, 0.114])
SIZES = [8, 33, 100]


def texture(number, size):
    """Squares of random bytes and size, from one color to another."""
    made, rng = empty_texture(size, levels_for(size), math.ceil(size / cell_side(size))), np.random.default_rng(number)
    made.clouds.field[:] = spread_out(rng.integers(0, 256, (size + 1, size + 1)), 1 + number % 3, size + size % 2)
    dark = rng.uniform(0, 150, 3)
    made.table[:] = np.linspace(dark, dark + rng.uniform(0, 80, 3) * (number % 4), 256).T.clip(0, 255)
    return made


def image_of(made, size):
    return made.table.astype(float).T[made.clouds.field[:size, :size]]


def plain_means(image):
    size, side = len(image), max(4, len(image) // 16)
    luma, starts = image @ LUMA, range(0, size, side)
    return np.array([[luma[i : i + side, j : j + side].mean() for j in starts] for i in starts])


def deviation_within_cells(image):
    side = max(4, len(image) // 16)
    return np.sqrt(np.mean((image @ LUMA - spread_out(plain_means(image), side, len(image))) ** 2))


def spread_out(means, side, size):
    return np.repeat(np.repeat(means, side, 0), side, 1)[:size, :size]


@pytest.mark.parametrize("size", SIZES)
def test_means_are_those_of_the_cells(size):
    for number in range(20):
        made = texture(number, size)
        mean, deviation = cell_means(made, size)
        image = image_of(made, size)
        assert mean == pytest.approx((image @ LUMA).mean(), abs=1e-6)
        assert deviation == pytest.approx(deviation_within_cells(image), abs=1e-4)
        np.testing.assert_allclose(made.means, plain_means(image), atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_strong_details_are_weakened_about_the_mean_color(size):
    changed = 0
    for number in range(60):
        made = texture(number, size)
        before = image_of(made, size)
        mean = limit_detail(made, size)
        after, deviation = image_of(made, size), deviation_within_cells(before)
        share = min(1.0, MOST_DETAIL / max(deviation, 1e-9))
        middle = before.mean((0, 1))
        np.testing.assert_allclose(after, middle + share * (before - middle), atol=1e-3)
        np.testing.assert_allclose(made.means, plain_means(after), atol=1e-3)
        assert mean == pytest.approx((after @ LUMA).mean(), abs=1e-3)
        changed += share < 1
    assert 5 < changed < 55


@pytest.mark.parametrize("end", [WHITE, BLACK])
@pytest.mark.parametrize("size", SIZES)
def test_branches_differ_locally_by_the_least_difference(end, size):
    """Whatever the textures; where they differ by more, the branches keep their colors."""
    for number in range(30):
        ground, branch = texture(2 * number, size), texture(2 * number + 1, size)
        for made in (ground, branch):
            limit_detail(made, size)
        behind, own = image_of(ground, size), branch.means.copy()
        leave_room(end, ground)
        room = LEAST_DIFFERENCE / 255
        np.testing.assert_allclose(image_of(ground, size), behind + room * (255 - end - behind), atol=1e-3)
        np.testing.assert_allclose(ground.means, plain_means(image_of(ground, size)), atol=1e-3)
        shares_of_end(end, ground.means, branch.means)
        shares = branch.means
        assert ((shares >= 0) & (shares <= 1)).all()
        mixed, sign = own + shares * (end - own), 1 if end == WHITE else -1
        difference = sign * (mixed - ground.means)
        assert difference.min() >= LEAST_DIFFERENCE - 1e-3
        np.testing.assert_allclose(difference[shares > 0], LEAST_DIFFERENCE, atol=1e-3)
        np.testing.assert_array_equal(shares == 0, sign * (own - ground.means) >= LEAST_DIFFERENCE)


def test_without_room_branches_are_white_or_black():
    for end, behind in ((WHITE, 230.0), (BLACK, 30.0)):
        shares = np.full((2, 2), 100.0)
        shares_of_end(end, np.full((2, 2), behind), shares)
        np.testing.assert_array_equal(shares, 1.0)


@pytest.mark.parametrize("size", SIZES)
def test_layers_are_filled_with_interpolated_shares(size):
    branch, rng = texture(5, size), np.random.default_rng(0)
    colors, side, cells = image_of(branch, size), cell_side(size), len(branch.means)
    branch.means[:] = rng.random((cells, cells))
    alpha = np.where(rng.random((size, size)) < 0.5, rng.random((size, size)), 0).astype(np.float32)
    layer = np.full((size, size, 3), -1, np.float32)
    fill_layer(branch, WHITE, alpha, layer)
    middles = (np.arange(cells) + 0.5) * side
    across = [np.interp(np.arange(size) + 0.5, middles, row) for row in branch.means]
    shares = np.array([np.interp(np.arange(size) + 0.5, middles, column) for column in np.transpose(across)]).T
    expected = colors + shares[..., None] * (255 - colors)
    np.testing.assert_allclose(layer, np.where(alpha[..., None] > 0, expected, -1), atol=1e-3)
