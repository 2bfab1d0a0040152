"""Scenes and pairs: content, placement and labels."""

import numpy as np
import pytest

from wildfern.generators import make_stream
from wildfern.generators.counter_rng import fold, integers, key, uniform
from wildfern.generators.fractals.scene_kernel import draw_object_placement, paste

SMALL = {"size": 48, "points": 1500, "seed": 3}
BLACK = {"background": False, "blur": False}


def test_labels_are_the_classes_drawn_from_the_sample_key():
    indices = np.arange(300)
    labels = make_stream("ifs_multi", **SMALL, classes=20).batch(indices).labels
    assert labels.shape == (300, 20)
    assert labels.dtype == np.uint8
    content = fold(fold(fold(np.uint64(key("ifs_multi", 3)), 2), indices), 7)
    u = uniform(content, 6)
    counts = 1 + (5 * u[:, 0]).astype(int)
    expected = np.zeros_like(labels)
    for sample, (count, draws) in enumerate(zip(counts, u[:, 1:], strict=True)):
        expected[sample, (20 * draws[:count]).astype(int)] = 1
    np.testing.assert_array_equal(labels, expected)
    assert set(counts.tolist()) == {1, 2, 3, 4, 5}


def test_numbers_and_sides_of_fractals():
    """With one fractal an image, what is lit fits into a square of the stated side; several light more."""
    one = make_stream("ifs_multi", **SMALL, **BLACK, fractals=(1, 1), sides=(0.25, 0.25)).batch(np.arange(200))
    assert (one.labels.sum(1) == 1).all()
    lit = one.images.max(-1) > 0
    for axis in (1, 2):
        seen = lit.any(axis)
        extent = seen.shape[1] - seen[:, ::-1].argmax(1) - seen.argmax(1)
        assert extent.max() <= 12
        assert np.median(extent) >= 10
        first = seen.argmax(1)
        assert first.min() == 0  # the square lies anywhere
        assert first.max() >= 35
    many = make_stream("ifs_multi", **SMALL, **BLACK, fractals=(8, 8), sides=(0.25, 0.25)).batch(np.arange(200))
    assert (many.images.max(-1) > 0).mean() > 3 * lit.mean()


def test_squares_lie_on_the_canvas_or_are_cropped_by_it():
    placement = np.empty(6)
    for index, place in enumerate(integers(np.uint64(key("places")), 2000, 2**32)):
        left, top, visible, _ = draw_object_placement(np.uint64(place), 0.1, 1.5, 40, placement)
        assert 0 <= left <= 40 - visible
        assert 0 <= top <= 40 - visible
        side = placement[0] * visible
        assert 4 <= side <= 60
        assert visible == min(round(side), 40)
        # Half of a square of the relative side `placement[0]`, shifted, still reaches the borders of what is visible.
        assert (np.abs(placement[2:4]) <= 0.5 * (placement[0] - 1) + 1e-12).all()
        assert index or (np.abs(placement[4:]) == 1).all()


def test_pasting_keeps_unlit_pixels():
    generator = np.random.default_rng(0)
    entries = generator.integers(250, 262, (5, 5)).astype(np.uint16)
    palette, canvas = generator.integers(0, 256, (3, 256)).astype(np.uint8), np.full((9, 27), 7, np.uint8)
    paste(entries, 5, np.concatenate([palette, palette], 1)[:, : 2 * 256], 3, 2, canvas)
    expected = np.full((9, 9, 3), 7, np.uint8)
    for row in range(5):
        for column in range(5):
            if entries[row, column] >= 256:
                expected[2 + row, 3 + column] = np.concatenate([palette, palette], 1)[:, entries[row, column]]
    np.testing.assert_array_equal(canvas.reshape(9, 9, 3), expected)


def test_the_images_of_a_pair_are_two_renderings_of_one_fractal():
    plain = {"sides": (1.0, 1.0), "jitter": "none", "color": False, "render": "binary"}
    pairs = make_stream("ifs_pair", **SMALL | {"points": 8000}, **BLACK, **plain, classes=60).batch(np.arange(60))
    assert pairs.labels.tolist() == list(range(60))
    first, second = (p[..., 0] > 0 for p in (pairs.images, pairs.paired_images))

    def best_overlap(a, b):
        """Over the eight flips and transpositions that a placement may draw."""
        turns = [t for m in (b, b.T) for t in (m, m[::-1], m[:, ::-1], m[::-1, ::-1])]
        return max((a & t).sum() / (a | t).sum() for t in turns)

    same = [best_overlap(a, b) for a, b in zip(first, second, strict=True)]
    other = [best_overlap(a, b) for a, b in zip(first, np.roll(second, 1, 0), strict=True)]
    assert np.median(same) > 0.8  # but for the noise of the points
    assert np.median(other) < 0.6
    assert np.mean(np.array(same) > other) > 0.95
    assert (first != second).any((1, 2)).mean() > 0.9
    jittered = make_stream("ifs_pair", **SMALL, classes=60).batch(np.arange(60))
    backgrounds = np.abs(jittered.images.astype(int) - jittered.paired_images).mean((1, 2, 3))
    assert backgrounds.min() > 10


def test_pairs_of_sets_hold_the_same_classes_and_pairs_continue_over_instances():
    sets = make_stream("ifs_pair", **SMALL, classes=50, fractals=(2, 2)).batch(np.arange(100))
    assert sets.labels.shape == (100, 50)
    assert set(sets.labels.sum(1).tolist()) <= {1, 2}
    again = make_stream("ifs_pair", **SMALL, classes=50).batch([7, 57])
    assert again.labels.tolist() == [7, 7]
    assert (again.images[0] != again.images[1]).any()


@pytest.mark.parametrize("name", ["ifs_multi", "ifs_pair"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fractals": (0, 3)}, "the least of fractals must lie between 1 and 16, not 0"),
        ({"fractals": (2, 17)}, "the most of fractals must lie between 1 and 16, not 17"),
        ({"fractals": 2}, r"fractals must be a pair, least and most, such as \(1, 16\), not 2"),
        ({"sides": (0.6, 0.2)}, r"sides must be in order, least first: \(0.2, 0.6\), not \(0.6, 0.2\)"),
        ({"sides": (0.0, 0.2)}, "the least of sides must be a number between 0.01 and 4.0, not 0.0"),
        ({"sides": (0.1, float("nan"))}, "the most of sides must be a number between 0.01 and 4.0, not nan"),
        ({"points": 10**9}, "points must lie between 1 and 10000000, not 1000000000"),
        ({"classes": 200_000, "fractals": (1, 2)}, "classes must lie between 1 and 100000, not 200000"),
        ({"maps": (1, 3)}, "the least of maps must lie between 2 and 8, not 1"),
        ({"jitter": "svdd"}, "jitter='svdd' is not known: did you mean 'svd'"),
    ],
)
def test_bad_arguments_are_named_in_the_error(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_stream(name, **arguments)
