"""Neural fractals: networks and escape times against complex arithmetic, the rule for structure, classes, arguments.

The rule runs uncompiled (`py_func`), for it compiles more slowly than that.
"""

import numpy as np
import pytest

from wildfern.generators.counter_rng import fold64
from wildfern.generators.neural_fractal.escape import CAP, TRIAL, flaw, place_trial, spread_levels, try_view
from wildfern.generators.neural_fractal.fractal_class import NETWORK, draw_class
from wildfern.generators.neural_fractal.network import LANES, MOST_UNITS, apply_network, tanh_lanes
from wildfern.generators.neural_fractal.neural_fractal import NeuralFractalStream


def workspace(iterations=16):
    """z, c, hidden, sizes, times and counts, as `try_view` and `flaw` take them."""
    z, c = np.full((2, LANES), np.nan, np.float32), np.full((2, LANES), np.nan, np.float32)
    hidden = np.full((2, MOST_UNITS, 2, LANES), np.nan, np.float32)
    sizes = np.empty((iterations + 1, LANES), np.float32)
    return z, c, hidden, sizes, np.empty(TRIAL * TRIAL, np.int64), np.empty(iterations + 1, np.int64)


def drawn_class(stream, label, attempt):
    """network, view, iterations and share of an attempt at a class."""
    key = np.uint64(stream.stream_key)
    for part in (1, label, attempt, 0):
        key = np.uint64(fold64(key, np.uint64(part)))
    network, view = np.zeros(NETWORK, np.float32), np.empty(5, np.float32)
    iterations, share, _ = draw_class(key, stream._settings, network, view)
    return network, view, iterations, share


def plain_network(network, units, layers, power, z):
    """The network by numpy's complex numbers, for z complex[N]."""
    weights = network[..., 0].astype(float) + 1j * network[..., 1]
    values = z[None]
    for layer in range(layers + 1):
        inputs, outputs = 1 if layer == 0 else units, 1 if layer == layers else units
        values = weights[layer, :outputs, :inputs] @ values + weights[layer, :outputs, MOST_UNITS][:, None]
        values = values if layer == layers else np.tanh(values)
    return values[0] ** power


def test_tanh_is_that_of_complex_numbers():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 2, LANES).astype(np.float32), rng.normal(0, 20, LANES).astype(np.float32)
    x[:4], y[:4] = (-90, 90, 0, 0), (1, 1, 0, 1.5)
    expected = np.tanh(x.astype(float) + 1j * y)
    smooth = np.abs(expected) < 5  # elsewhere a pole is near
    tanh_lanes(x, y, LANES)
    np.testing.assert_allclose((x + 1j * y)[smooth], expected[smooth], atol=5e-4)
    assert np.isfinite(x).all()
    assert np.isfinite(y).all()
    pole_x, pole_y = np.zeros(LANES, np.float32), np.full(LANES, np.pi / 2, np.float32)
    tanh_lanes(pole_x, pole_y, LANES)
    assert np.abs(pole_x + 1j * pole_y).max() < 1e4


@pytest.mark.parametrize(("units", "layers", "power"), [(6, 3, 3), (1, 1, 1), (16, 2, 2)])
def test_networks_are_those_of_complex_numbers(units, layers, power):
    stream = NeuralFractalStream(units=units, layers=layers, power=power)
    network, *_ = drawn_class(stream, 0, 0)
    z, _, hidden, *_ = workspace()
    z[:] = np.random.default_rng(1).normal(0, 0.3, z.shape)
    got = apply_network(network, units, layers, power, z, LANES, hidden)
    expected = plain_network(network, units, layers, power, z[0].astype(float) + 1j * z[1])
    usual = np.abs(expected) < 10
    assert usual.mean() > 0.5
    error = np.abs(got[0] + 1j * got[1] - expected)[usual]
    assert np.quantile(error, 0.95) < 1e-2


def test_escape_times_and_the_threshold_are_those_of_the_plain_loop():
    stream = NeuralFractalStream()
    shares = []
    for label in range(12):
        network, view, iterations, share = drawn_class(stream, label, 0)
        z, c, hidden, sizes, times, _ = workspace()
        limit = try_view(network, 6, 3, 3, iterations, view, share, z, c, hidden, sizes, times)
        place_trial(view, c)
        points, orbit = c[0].astype(float) + 1j * c[1], np.zeros(LANES, complex)
        lengths = []
        for _ in range(iterations):
            orbit = plain_network(network, 6, 3, 3, orbit) + points
            orbit = np.where(np.abs(orbit) < CAP, orbit, CAP)
            lengths.append(np.abs(orbit))
        escaped = np.array(lengths) > limit
        expected = np.where(escaped.any(0), escaped.argmax(0), iterations)
        # Orbits are chaotic: single precision cannot follow all of them, but it can follow the first iterations.
        first = (times < 2) | (expected < 2)
        assert (times == expected)[first].mean() > 0.97 if first.any() else True
        assert abs((times < iterations).mean() - (expected < iterations).mean()) < 0.1
        shares.append((times < iterations).mean() - share)
    assert np.abs(shares).max() < 0.02  # what the threshold is for


def test_the_coarse_grid_lies_as_the_view_says():
    c = np.empty((2, LANES), np.float32)
    place_trial(np.array([0.5, -1.0, 0.0, 2.0, -1.0], np.float32), c)  # a quarter turn, mirrored
    corner = c[:, 0]
    np.testing.assert_allclose(corner, [0.5 - 2.0 * 23 / 24, -1.0 - 2.0 * 23 / 24], atol=1e-6)
    np.testing.assert_allclose(c[:, -1], [0.5 + 2.0 * 23 / 24, -1.0 + 2.0 * 23 / 24], atol=1e-6)


def test_levels_are_ranks_of_escape_times():
    times, places = np.array([0, 0, 1, 3, 5, 5], np.int64), np.empty(7, np.float32)
    spread_levels.py_func(times, 5, places)
    np.testing.assert_allclose(places, [0, 0.5, 0.75, 0.75, 1, 1, 1])


def test_structure_is_neither_flat_nor_noise_nor_a_disc():
    rows, columns = np.mgrid[:TRIAL, :TRIAL]
    counts = np.empty(17, np.int64)

    def judged(times):
        return flaw.py_func(np.ascontiguousarray(times, np.int64).reshape(-1), 16, counts)

    islands = np.clip((columns + 3 * np.sin(rows)) // 4, 0, 16).astype(int)
    assert judged(islands) == 0.0
    assert judged(np.full_like(rows, 3)) > 0.5
    assert judged(np.random.default_rng(0).integers(0, 16, rows.shape)) > 0.5
    assert judged(rows // 12 * 9) > 0.25  # two halves
    sixteenth = np.where(rows % 16 < 15, rows // 16, 8)
    assert judged(sixteenth) > 0.0


def test_a_class_is_its_first_attempt_with_structure():
    stream = NeuralFractalStream(size=8, classes=6)
    stream.batch(np.arange(6))
    for label, taken in enumerate(stream._taken):
        for attempt in range(taken + 1):
            network, view, iterations, share = drawn_class(stream, label, attempt)
            z, c, hidden, sizes, times, counts = workspace()
            try_view(network, 6, 3, 3, iterations, view, share, z, c, hidden, sizes, times)
            assert (flaw.py_func(times, iterations, counts) == 0.0) == (attempt == taken)


def test_images_have_structure():
    images = NeuralFractalStream(size=48, classes=40, color=False).batch(np.arange(80)).images[..., 0].astype(float)
    assert np.median(images.std((1, 2))) > 25
    across = np.array([np.corrcoef(image[:, 1:].ravel(), image[:, :-1].ravel())[0, 1] for image in images])
    assert np.median(across) > 0.6
    assert np.quantile(across, 0.1) > 0.2
    fullest = [np.bincount(image.astype(int).ravel() // 16).max() / image.size for image in images]
    assert np.mean(fullest) < 0.7


def test_an_instance_looks_like_its_class():
    """Instances that vary little have edges in as many places as their class, whatever their colors."""
    stream = NeuralFractalStream(size=32, classes=12, color=False, variation=0.1)
    batch = stream.batch(np.arange(60))
    assert batch.labels.tolist() == [index % 12 for index in range(60)]
    images = batch.images[..., 0].astype(float)
    spread = np.ptp(images, axis=(1, 2))[:, None, None]
    edges = (np.abs(np.diff(images, axis=2)) > 0.1 * spread).mean((1, 2)).reshape(5, 12)  # instance, class
    assert edges.mean(0).var() > 2 * edges.var(0).mean()
    assert (edges.std(0) > 0).all()


def test_arguments_have_their_effects():
    def images(**arguments):
        return NeuralFractalStream(size=24, classes=4, **arguments).batch(np.arange(8)).images

    usual = images()
    for arguments in (
        {"units": 4},
        {"layers": 2},
        {"power": 2},
        {"iterations": (6, 8)},
        {"variation": 0.0},
        {"color": False},
        {"oversampling": 2},
    ):
        assert (images(**arguments) != usual).any(), arguments
    gray = images(color=False)
    assert (gray == gray[..., :1]).all()
    fine = images(oversampling=3).astype(float)
    assert np.abs(np.diff(fine, axis=2)).mean() < np.abs(np.diff(usual.astype(float), axis=2)).mean()
    assert np.abs(fine.mean((1, 2)) - usual.mean((1, 2))).max() < 25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": 17}, "units must lie between 1 and 16, not 17"),
        ({"layers": 0}, "layers must lie between 1 and 6, not 0"),
        ({"power": 2.5}, "power must be a whole number, not 2.5"),
        ({"iterations": (2, 8)}, "the least of iterations must lie between 4 and 64, not 2"),
        ({"variation": 3.0}, "variation must be a number between 0.0 and 2.0, not 3.0"),
        ({"oversampling": 5}, "oversampling must lie between 1 and 4, not 5"),
        ({"classes": 0}, "classes must lie between 1"),
        ({"color": "yes"}, "color must be true or false, not 'yes'"),
    ],
)
def test_bad_arguments_are_named_in_the_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        NeuralFractalStream(**arguments)
