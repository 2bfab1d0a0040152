"""Flames: variations, steps, views and tones against plain formulas, symmetry, classes, instances, arguments.

Functions of the canvas run uncompiled (`py_func`): the frozen bytes of `test_streams` hold what the compiler makes of them.
"""

import numpy as np
import pytest

from wildfern.generators.flame import canvas, orbit
from wildfern.generators.flame.code import empty_code
from wildfern.generators.flame.flame import FlameStream
from wildfern.generators.flame.variations import POOL, VARIATIONS


def plain_variation(name, x, y, flipped):
    """V(x, y) as the paper's appendix has it; `flipped` is where Ω is π."""
    r2 = x * x + y * y + 1e-6
    r, theta = np.sqrt(r2), np.arctan2(x, y)
    half = theta / 2 + np.pi * flipped
    p, q = np.sin(theta + r), np.cos(theta - r)
    return {
        "linear": (x, y),
        "sinusoidal": (np.sin(x), np.sin(y)),
        "spherical": (x / r2, y / r2),
        "swirl": (x * np.sin(r2) - y * np.cos(r2), x * np.cos(r2) + y * np.sin(r2)),
        "horseshoe": ((x - y) * (x + y) / r, 2 * x * y / r),
        "polar": (theta / np.pi, r - 1),
        "handkerchief": (r * p, r * q),
        "heart": (r * np.sin(theta * r), -r * np.cos(theta * r)),
        "disc": (theta / np.pi * np.sin(np.pi * r), theta / np.pi * np.cos(np.pi * r)),
        "spiral": ((np.cos(theta) + np.sin(r)) / r, (np.sin(theta) - np.cos(r)) / r),
        "hyperbolic": (np.sin(theta) / r, r * np.cos(theta)),
        "diamond": (np.sin(theta) * np.cos(r), np.cos(theta) * np.sin(r)),
        "ex": (r * (p**3 + q**3), r * (p**3 - q**3)),
        "julia": (np.sqrt(r) * np.cos(half), np.sqrt(r) * np.sin(half)),
        "bent": (np.where(x < 0, 2 * x, x), np.where(y < 0, y / 2, y)),
        "fisheye": (2 / (r + 1) * y, 2 / (r + 1) * x),
        "exponential": (np.exp(x - 1) * np.cos(np.pi * y), np.exp(x - 1) * np.sin(np.pi * y)),
        "cylinder": (np.sin(x), y),
        "bubble": (4 / (r2 + 4) * x, 4 / (r2 + 4) * y),
        "eyefish": (2 / (r + 1) * x, 2 / (r + 1) * y),
    }[name]


def code_of(*maps, order=1):
    """A code of maps (affine, {variation: weight}, share of the pool)."""
    code = empty_code()
    total, below = sum(share for *_, share in maps), 0
    for i, (affine, variations, share) in enumerate(maps):
        code.affine[i] = affine
        for j, (name, weight) in enumerate(variations.items()):
            code.kinds[i, j], code.weights[i, j] = VARIATIONS.index(name), weight
        code.first[i] = POOL * below // total
        below += share
        code.color[i] = i
    code.first[len(maps)] = POOL
    code.numbers[:] = len(maps), order, 0
    return code


def pool(seed=0):
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 1, (3, POOL)).astype(np.float32)
    points[2] = rng.uniform(0, 1, POOL)
    return points


def step(code, points, number=0, key=1):
    """One step from a copy of `points`: the shuffled pool, and the points map by map."""
    points, moved = points.copy(), np.full((3, POOL), np.nan, np.float32)
    space = np.full((orbit.ROWS, POOL), np.nan, np.float32)
    orbit.step_pool(code, np.uint64(key), number, points, np.zeros((3, POOL), np.float32), moved, space)
    return points, moved


@pytest.mark.parametrize("name", VARIATIONS)
def test_variations_are_those_of_the_paper(name):
    affine = np.array([0.9, -0.4, 0.2, 0.3, 0.8, -0.1])
    points = pool(VARIATIONS.index(name))
    other = "bubble" if name == "linear" else "linear"
    _, moved = step(code_of((affine, {name: 0.75, other: 0.25}, 1)), points)
    a, b, e, c, d, f = affine.astype(np.float32).astype(float)
    x, y = points[:2].astype(float)
    x, y = a * x + b * y + e, c * x + d * y + f
    both = (np.array(plain_variation(kind, x, y, np.arange(POOL) % 2 == 0)) for kind in (name, other))
    expected = 0.75 * next(both) + 0.25 * next(both)
    near = np.hypot(x, y) > 0.05  # the rest is far away where a variation divides by r
    np.testing.assert_allclose(moved[:2, near], expected[:, near], rtol=2e-3, atol=2e-3)


def test_each_map_takes_its_share_and_the_pool_is_permuted():
    identity, shift = (1, 0, 0, 0, 1, 0), (1, 0, 10, 0, 1, 0)
    points = pool()
    after, moved = step(code_of((identity, {"linear": 1}, 1), (shift, {"linear": 1}, 3)), points)
    quarter = POOL // 4
    np.testing.assert_array_equal(moved[:2, :quarter], points[:2, :quarter])
    np.testing.assert_allclose(moved[0, quarter:], points[0, quarter:] + 10, atol=1e-6)
    color = np.where(np.arange(POOL) < quarter, 0, 1)
    np.testing.assert_allclose(moved[2], (points[2] + color) / 2, atol=1e-6)
    np.testing.assert_array_equal(np.sort(after[0]), np.sort(moved[0]))
    np.testing.assert_array_equal(sorted(map(tuple, after.T)), sorted(map(tuple, moved.T)))


def test_a_point_takes_maps_at_random():
    """Which maps a place of the pool had in consecutive steps: all combinations, as often as independent draws have them."""
    maps = ((0.25, 0, 0, 0, 0.25, 0), {"linear": 1}, 1), ((0.25, 0, 0.75, 0, 0.25, 0), {"linear": 1}, 1)
    code, points, histories = code_of(*maps), pool(), []
    for number in range(60):
        points, _ = step(code, points, number)
        if number >= 10:  # x is a number in base 4, whose digits 0 and 3 are the last maps
            digits = np.floor(points[0][:, None] * 4.0 ** np.arange(1, 5)).astype(int) % 4 // 2
            histories.append(np.bincount(digits @ [8, 4, 2, 1], minlength=16))
    counts = np.sum(histories, axis=0)
    np.testing.assert_allclose(counts / counts.sum(), 1 / 16, atol=0.006)


def test_symmetry_turns_the_attractor_onto_itself():
    maps = (
        ((0.5, -0.3, 0.6, 0.2, 0.5, 0.1), {"swirl": 0.6, "linear": 0.4}, 2),
        ((0.4, 0, -0.5, 0, 0.3, 0), {"linear": 1}, 1),
    )
    for order, alike in ((4, True), (1, False)):
        code, points, seen = code_of(*maps, order=order), pool(), []
        for number in range(300):
            points, _ = step(code, points, number)
            if number >= 20:
                seen.append(points[:2].copy())
        x, y = np.concatenate(seen, axis=1)
        counts, *_ = np.histogram2d(x, y, bins=12, range=[[-1.5, 1.5]] * 2)
        correlation = np.corrcoef(counts.ravel(), np.rot90(counts).ravel())[0, 1]
        assert (correlation > 0.98) == alike


def test_points_that_are_far_away_return():
    points = pool()
    points[0, 0], points[1, 1], points[0, 2] = np.nan, np.inf, 1e9
    _, moved = step(code_of(((1, 0, 0, 0, 1, 0), {"linear": 1}, 1)), points)
    assert (moved[:2, 0] == 0).all()
    assert (moved[:2, 1] == 0).all()
    assert (moved[:2, 2] == 0).all()
    np.testing.assert_array_equal(moved[:2, 3:], points[:2, 3:])


def test_the_view_follows_the_bulk_of_the_points():
    points = np.random.default_rng(0).normal(0, 0.5, (2, 4096)).astype(np.float32)
    points += np.array([[3.0], [-2.0]], np.float32)
    points[:, :200] = np.random.default_rng(1).normal(0, 1e4, (2, 200))
    points[0, 200] = np.nan
    x, y, spread = canvas.middle_and_spread.py_func(points, 4096)
    np.testing.assert_allclose([x, y, spread], [3, -2, 0.5 * np.sqrt(2)], atol=0.05)


def test_counting_and_smoothing_keep_points_and_colors():
    size, view = 16, np.empty(6, np.float32)
    canvas.set_view.py_func(1.0, 2.0, 4.0, 0.0, 1.0, -1.0, size, view)  # a quarter turn, mirrored
    rng = np.random.default_rng(0)
    u, v = (middle + rng.normal(0, 1, POOL).astype(np.float32) for middle in np.float32([1, 2]))
    tint = rng.uniform(0, 1, POOL).astype(np.float32)
    counts = np.zeros(size * size + 1, np.uint64)
    canvas.count_points.py_func(u, v, tint, view, size, np.empty(POOL, np.int64), counts)
    column, row = np.floor(8 - 4 * (v - 2)).astype(int), np.floor(8 - 4 * (u - 1)).astype(int)
    expected, colors = np.zeros((size, size)), np.zeros((size, size))
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    np.add.at(expected, (row[inside], column[inside]), 1)
    np.add.at(colors, (row[inside], column[inside]), np.floor(tint[inside] * 255))
    counted = (counts[:-1] >> np.uint64(32)).reshape(size, size).astype(int)
    assert np.abs(counted - expected).sum() <= 4  # at borders of pixels
    assert counts[-1] >> np.uint64(32) == POOL - counted.sum()
    summed = (counts[:-1] & np.uint64(2**32 - 1)).reshape(size, size).astype(int)
    density, mean = np.empty((2, size, size), np.float32)
    canvas.smooth.py_func(counts, size, density, mean)
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    for plain, got in ((counted, density), (summed, density * mean)):
        padded = np.pad(plain, 1, mode="edge")
        around = sum(kernel[i, j] * padded[i : i + size, j : j + size] for i in range(3) for j in range(3))
        sure = counted / (counted + 3)
        np.testing.assert_allclose(got, sure * plain + (1 - sure) * around, rtol=1e-4, atol=1e-4)


def test_tones_are_logarithms_with_gamma():
    tones = np.empty(canvas.TONES, np.float32)
    canvas.tone_table.py_func(5.0, 2.0, tones)
    part = np.arange(canvas.TONES - 1)[: canvas.TONES // 2] / (canvas.TONES - 1)
    density = part / (1 - part)
    np.testing.assert_allclose(tones[: len(part)], np.sqrt(np.log1p(5 * density) / np.log1p(15)), atol=1e-5)
    assert tones[0] == 0
    assert tones[-1] == 1
    assert (np.diff(tones) >= 0).all()


def test_classes_fill_their_view_and_differ():
    stream = FlameStream(size=48, points=8000, classes=40, color=False)
    images = stream.batch(np.arange(40)).images[..., 0].astype(float)
    lit = (images > 12).mean((1, 2))
    assert lit.min() > 0.05
    assert 0.2 < lit.mean() < 0.9
    assert lit.std() > 0.1
    assert images.std((1, 2)).min() > 8
    full = FlameStream(size=48, points=8000, classes=40, color=False, filling_rate=0.5)
    assert (full.batch(np.arange(40)).images > 12).mean() > lit.mean() + 0.05


def test_an_instance_looks_like_its_class():
    stream = FlameStream(size=32, points=8000, classes=12, color=False)
    batch = stream.batch(np.arange(60))
    assert batch.labels.tolist() == [index % 12 for index in range(60)]
    lit = (batch.images[..., 0] > 24).mean((1, 2)).reshape(5, 12)  # instance, class
    assert lit.mean(0).var() > lit.var(0).mean()
    assert (lit.std(0) > 0).all()


def test_arguments_have_their_effects():
    def images(**arguments):
        return FlameStream(size=24, **{"points": 3000, "classes": 4} | arguments).batch(np.arange(8)).images

    usual = images()
    for arguments in (
        {"points": 9000},
        {"maps": (4, 8)},
        {"symmetry": 1.0},
        {"final": 1.0},
        {"variation": 0.0},
        {"color": False},
        {"background": True},
    ):
        assert (images(**arguments) != usual).any(), arguments
    assert (images(color=False) == images(color=False)[..., :1]).all()
    assert usual.min() == 0
    assert (images(background=True).max(-1) > 8).mean() > 0.95
    assert (usual != usual[..., :1]).any((1, 2, 3)).mean() > 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"points": 0}, "points must lie between 1 and 10000000, not 0"),
        ({"maps": (1, 4)}, "the least of maps must lie between 2 and 8, not 1"),
        ({"symmetry": 2.0}, "symmetry must be a number between 0.0 and 1.0, not 2.0"),
        ({"final": "no"}, "final must be a number between 0.0 and 1.0, not 'no'"),
        ({"variation": -1.0}, "variation must be a number between 0.0 and 2.0, not -1.0"),
        ({"filling_rate": 0.9}, "filling_rate must be a number between 0.0 and 0.5, not 0.9"),
        ({"classes": 0}, "classes must lie between 1"),
        ({"background": "black"}, "background must be true or false, not 'black'"),
    ],
)
def test_bad_arguments_are_named_in_the_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        FlameStream(**arguments)
