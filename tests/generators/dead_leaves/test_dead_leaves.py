"""Dead leaves: images against a plain loop over leaves and points, and the model's laws of sizes and of neighbors."""

import math

import numpy as np
import pytest

from wildfern.generators.counter_rng import draw64, fold64
from wildfern.generators.dead_leaves.dead_leaves import DeadLeavesStream
from wildfern.generators.dead_leaves.kernel import MOST_OF_THE_CANVAS, _draw_color, render_slice
from wildfern.generators.dead_leaves.sampler import SHAPES, hit_law, sample_center, sample_outline, sample_radius


def leaf_keys(count, seed=0):
    return [np.uint64(fold64(np.uint64(seed), np.uint64(i))) for i in range(count)]


def law_of(low, high, exponent):
    law = np.empty((3, 4))
    hit_law(low, high, exponent, law)
    return law


def plain_image(stream, index):
    """The sample point by point: 16 points a pixel, each assigned to the first leaf that contains it, all in float64."""
    size, shape = stream.size, SHAPES.index(stream.shapes)
    low = max(stream.radius[0], 0.5 / size)
    high = max(stream.radius[1], low)
    law, outline = law_of(low, high, stream.exponent), np.empty((4, 2))
    fine = (np.arange(4 * size) + 0.5) / (4 * size) if stream.antialias else (np.arange(4 * size) // 4 + 0.5) / size
    px, py = np.meshgrid(fine, fine)
    colors, free = np.zeros((*px.shape, 3)), np.ones(px.shape, bool)
    sample_key = np.uint64(fold64(stream.stream_key, np.uint64(index)))
    before = np.uint16(int(draw64(sample_key, np.uint64(16))) & 255)
    leaf = 0
    while free.any():
        leaf_key = np.uint64(fold64(sample_key, np.uint64(leaf)))
        leaf += 1
        radius = sample_radius(leaf_key, low, high, law)
        x, y = sample_center(leaf_key, radius)
        corners = sample_outline(leaf_key, shape, x, y, radius, outline)
        if corners == 0:
            inside = (px - x) ** 2 + (py - y) ** 2 <= radius**2
        else:
            inside = np.ones(px.shape, bool)
            for (x0, y0), (x1, y1) in zip(outline[:corners], np.roll(outline[:corners], -1, 0), strict=True):
                inside &= (x1 - x0) * (py - y0) - (y1 - y0) * (px - x0) >= 0
        if inside.mean() > MOST_OF_THE_CANVAS or not (inside & free).any():
            continue
        color = [int(level) for level in _draw_color(leaf_key, stream.color, before)]
        colors[inside & free] = color
        free &= ~inside
        before = np.uint16(color[1])
    return np.floor(colors.reshape(size, 4, size, 4, 3).mean((1, 3)) + 0.5)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("antialias", [True, False])
def test_images_match_the_plain_loop(shapes, antialias):
    for size, radius in ((8, (0.03, 1.0)), (33, (0.1, 0.8)), (70, (0.15, 1.0))):
        stream = DeadLeavesStream(size=size, radius=radius, shapes=shapes, antialias=antialias, exponent=2.5)
        images = stream.batch(np.arange(2)).images
        for index in range(2):
            differing = (images[index] != plain_image(stream, index)).any(-1)
            # Edges are found in float32: a point within 1e-6 of one may go to the other side.
            assert differing.sum() <= size * size / 500


@pytest.mark.parametrize(
    ("low", "high", "exponent"), [(0.03, 1.0, 3.0), (0.1, 0.5, 2.0), (0.2, 2.0, 1.0), (0.1, 1, 4.5)]
)
def test_radii_follow_the_power_law_of_leaves_that_meet_the_canvas(low, high, exponent):
    law = law_of(low, high, exponent)
    radii = np.sort([sample_radius(key, low, high, law) for key in leaf_keys(4000)])
    assert low <= radii[0]
    assert radii[-1] <= high
    grid = np.geomspace(low, high, 20_001)
    density = grid**-exponent * (1 + 2 * grid) ** 2
    cumulative = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(grid))])
    expected = np.interp(radii, grid, cumulative / cumulative[-1])
    assert np.abs(expected - (np.arange(4000) + 0.5) / 4000).max() < 1.63 / math.sqrt(4000)  # Kolmogorov, 1 %


def test_one_radius_is_a_law_too():
    law = law_of(0.25, 0.25, 3.0)
    assert {sample_radius(key, 0.25, 0.25, law) for key in leaf_keys(50)} == {0.25}


def test_centers_fill_the_canvas_grown_by_the_radius():
    centers = np.array([sample_center(key, 0.5) for key in leaf_keys(4000)])
    assert centers.min() >= -0.5
    assert centers.max() < 1.5
    np.testing.assert_allclose(centers.mean(0), 0.5, atol=4 * 2 / math.sqrt(12 * 4000))
    np.testing.assert_allclose(centers.var(0), 4 / 12, rtol=0.05)


@pytest.mark.parametrize(
    ("shape", "corners"), [("square", 4), ("oriented", 4), ("rectangle", 4), ("triangle", 3), ("quad", 4)]
)
def test_outlines_lie_on_their_circle_by_rising_angle(shape, corners):
    turns = []
    for key in leaf_keys(200):
        outline = np.empty((4, 2))
        assert sample_outline(key, SHAPES.index(shape), 0.5, 0.25, 0.125, outline) == corners
        offsets = outline[:corners] - (0.5, 0.25)
        np.testing.assert_allclose(np.hypot(*offsets.T), 0.125)
        angles = np.arctan2(offsets[:, 1], offsets[:, 0]) % (2 * math.pi)
        start = np.argmin(angles)
        assert (np.diff(np.roll(angles, -start)) >= 0).all()
        turns.append(angles[0])
        sides = np.diff(outline[:corners], axis=0, append=outline[:1])
        if shape in ("square", "rectangle"):
            assert (np.abs(sides).min(1) < 1e-12).all()
        if shape in ("square", "oriented"):
            np.testing.assert_allclose(np.hypot(*sides.T), 0.125 * math.sqrt(2))
    assert (np.std(turns) < 1e-9) == (shape == "square")


def test_mixed_leaves_take_all_shapes_equally_often():
    outline, counts = np.empty((4, 2)), np.zeros(5)
    for key in leaf_keys(3000):
        counts[sample_outline(key, SHAPES.index("mixed"), 0.0, 0.0, 1.0, outline)] += 1
    np.testing.assert_allclose(counts / 3000, [1 / 6, 0, 0, 1 / 6, 4 / 6], atol=0.03)


@pytest.mark.parametrize("lag", [2, 6, 10])
def test_neighbors_share_a_leaf_as_often_as_the_model_says(lag):
    """Two points belong to one leaf with probability γ(d) / (2 γ(0) - γ(d)), γ(d) the overlap of a disk with itself shifted by d.

    That holds in the middle and at the border alike only if the leaves are those of the whole plane (Lee et al., 2001, sec. 3).
    """
    size, r = 48, 0.15
    stream = DeadLeavesStream(size=size, radius=(r, r), shapes="circle", antialias=False)
    same = (stream.batch(np.arange(600)).images[:, :, lag:] == stream.batch(np.arange(600)).images[:, :, :-lag]).all(-1)
    d = lag / size
    overlap = 2 * r * r * math.acos(d / (2 * r)) - d / 2 * math.sqrt(4 * r * r - d * d)
    expected = overlap / (2 * math.pi * r * r - overlap)
    assert abs(same.mean() - expected) < 0.01
    for border in (same[:, :, :2], same[:, :, -2:], same[:, :2], same[:, -2:]):
        assert abs(border.mean() - expected) < 0.03


def test_arguments_have_their_effects():
    def edges(**arguments):
        images = DeadLeavesStream(size=64, antialias=False, **arguments).batch(np.arange(20)).images
        return (images[:, 1:] != images[:, :-1]).any(-1).mean()

    assert edges(exponent=4.0) > 1.3 * edges(exponent=3.0) > 1.3**2 * edges(exponent=1.0)
    assert edges(radius=(0.05, 0.1)) > 1.5 * edges(radius=(0.1, 0.2))
    assert edges(shapes="triangle") > 1.5 * edges(shapes="circle")
    gray = DeadLeavesStream(size=32, color=False).batch(np.arange(4)).images
    assert (gray == gray[..., :1]).all()
    smooth = DeadLeavesStream(size=64, radius=(0.2, 1.0)).batch([0]).images
    hard = DeadLeavesStream(size=64, radius=(0.2, 1.0), antialias=False).batch([0]).images
    assert len(np.unique(smooth.reshape(-1, 3), axis=0)) > 3 * len(np.unique(hard.reshape(-1, 3), axis=0))
    assert np.abs(smooth.astype(int) - hard).mean() < 6
    other = DeadLeavesStream(size=64, radius=(0.2, 1.0), seed=1).batch([0]).images
    assert np.abs(smooth.astype(int) - other).mean() > 30


def test_colors_are_uniform_and_follow_one_another_at_a_distance():
    before, colors = np.uint16(7), []
    for key in leaf_keys(4000):
        color = [int(level) for level in _draw_color(key, True, before)]
        assert min((color[1] - int(before)) % 256, (int(before) - color[1]) % 256) >= 16
        before = np.uint16(color[1])
        colors.append(color)
    for channel in np.array(colors).T:
        assert np.abs(np.bincount(channel // 32, minlength=8) / 4000 - 1 / 8).max() < 0.025


@pytest.mark.parametrize(("radius", "size"), [((4.0, 4.0), 8), ((0.9, 4.0), 33), ((0.001, 0.001), 16)])
def test_no_image_is_a_single_leaf(radius, size):
    stream = DeadLeavesStream(size=size, radius=radius, antialias=False, color=False, exponent=1.0)
    for image in stream.batch(np.arange(500)).images[..., 0]:
        assert np.bincount(image.ravel()).max() <= MOST_OF_THE_CANVAS * size * size + 1
        assert np.ptp(image) >= 16


def test_the_last_leaf_fills_all_open_points():
    images = np.empty((1, 32, 32, 3), np.uint8)

    def render(most_leaves):
        indices = np.arange(1)
        render_slice(np.uint64(3), indices, SHAPES.index("circle"), 0.03, 1.0, 3.0, most_leaves, True, False, images)
        return images[0].astype(int)

    assert np.unique(render(0).reshape(-1, 3), axis=0).shape == (1, 3)
    few, all_leaves = render(20), render(10**6)
    last = max(np.unique(few.reshape(-1, 3), axis=0), key=lambda color: (few == color).all(-1).sum())
    open_then = (few == last).all(-1)
    assert 0.2 < open_then.mean() < 0.95
    assert (few == all_leaves).all(-1)[~open_then].all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shapes": "rectangel"}, "shapes='rectangel' is not known: did you mean 'rectangle'"),
        ({"radius": (0.5, 0.1)}, "radius must be in order, least first"),
        ({"radius": (0.0, 0.1)}, "the least of radius must be a number between 0.001 and 4.0, not 0.0"),
        ({"exponent": "3"}, "exponent must be a number between 0.0 and 10.0, not '3'"),
        ({"color": 2}, "color must be true or false, not 2"),
        ({"antialias": None}, "antialias must be true or false, not None"),
        ({"size": 4}, "size must lie between 8 and 2048, not 4"),
    ],
)
def test_bad_arguments_are_named_in_the_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        DeadLeavesStream(**arguments)


def test_samples_have_neither_labels_nor_masks():
    stream = DeadLeavesStream(size=8)
    assert stream.num_classes is None
    assert list(stream.batch([0]).arrays()) == ["images"]
