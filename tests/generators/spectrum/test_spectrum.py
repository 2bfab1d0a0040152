"""Colored noise: the transform and the fields against numpy, the slopes of the spectrum, colors, marginals, arguments."""

import numpy as np
import pytest

from wildfern.generators.counter_rng import bits, fold, key, uniform
from wildfern.generators.spectrum.colored_noise import RADII, grid_for, noise_fields, normal_radii
from wildfern.generators.spectrum.fourier import LANES, TURN, inverse_columns, unit_circle
from wildfern.generators.spectrum.kernel import ROOM, color_model
from wildfern.generators.spectrum.spectrum import SpectrumStream


@pytest.fixture(scope="module")
def circle() -> np.ndarray:
    table = np.empty((2, TURN), np.float32)
    unit_circle(table)
    return table


def fields_of(field_key: int, a: float, b: float, size: int, circle: np.ndarray) -> np.ndarray:
    n = grid_for(size)
    radii = np.empty(RADII, np.float32)
    normal_radii(radii)
    fields = np.zeros((2, size * size), np.float32)
    shapes = (2, n), (2, n * LANES), (2, n * LANES), (2, n * size)
    workspace = [np.full(shape, np.nan, np.float32) for shape in shapes]
    noise_fields(np.uint64(field_key), a, b, n, size, circle, radii, *workspace, fields)
    return fields.reshape(2, size, size)


def power_of(images: np.ndarray) -> np.ndarray:
    """Mean power spectrum of gray images [N, S, S]."""
    images = images - images.mean((1, 2), keepdims=True)
    return (np.abs(np.fft.fft2(images)) ** 2).mean(0)


def slope(power: np.ndarray, fewest: int, most: int) -> float:
    """Exponent of the amplitude spectrum f^-slope along one axis, by least squares in the logarithms."""
    f = np.arange(fewest, most)
    return -0.5 * np.polyfit(np.log(f), np.log(power[fewest:most]), 1)[0]


@pytest.mark.parametrize("n", [16, 32, 64, 256, 1024, 2048])
def test_the_transform_is_the_inverse_fourier_transform(n, circle):
    rng = np.random.default_rng(n)
    z = rng.normal(size=(n, LANES)) + 1j * rng.normal(size=(n, LANES))
    columns = np.stack([z.real, z.imag]).astype(np.float32).reshape(2, -1)
    real, imaginary = inverse_columns(columns, np.empty_like(columns), n, circle).reshape(2, n, LANES)
    expected = n * np.fft.ifft(z, axis=0)
    np.testing.assert_allclose(real + 1j * imaginary, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_the_grid_is_the_next_power_of_two():
    assert [grid_for(size) for size in (8, 16, 17, 224, 256, 2048)] == [16, 16, 32, 256, 256, 2048]


@pytest.mark.parametrize(("size", "a", "b"), [(8, 1.0, 1.0), (33, 0.7, 2.5), (64, 3.5, 0.5), (100, 2.0, 6.0)])
def test_fields_are_the_transform_of_the_drawn_coefficients(size, a, b, circle):
    n = grid_for(size)
    drawn = bits(np.array([77], np.uint64), n * n).reshape(n, n)  # [fx, fy]
    phase = (drawn & np.uint64(TURN - 1)) / TURN
    radius = np.sqrt(-2 * np.log(((drawn >> np.uint64(16)) % np.uint64(RADII) + 0.5) / RADII))
    spectrum = np.zeros((n, n), complex)
    for fx in range(n):
        for fy in range(n):
            weight = float(min(fx, n - fx)) ** a + float(min(fy, n - fy)) ** b
            if fx or fy:
                spectrum[fx, fy] = radius[fx, fy] * np.exp(2j * np.pi * phase[fx, fy]) / weight
    image = np.fft.ifft2(spectrum).T[:size, :size]  # rows are y
    expected = np.stack([image.real, image.imag])
    expected -= expected.mean((1, 2), keepdims=True)
    expected /= expected.std((1, 2), keepdims=True)
    np.testing.assert_allclose(fields_of(77, a, b, size, circle), expected, atol=2e-5)


def test_the_two_fields_of_a_transform_are_independent_normal_numbers(circle):
    fields = np.stack([fields_of(k, 0.0, 0.0, 32, circle) for k in range(60)])  # white: all values are independent
    assert abs((fields[:, 0] * fields[:, 1]).mean()) < 0.015
    for bound, share in ((0.5, 0.3829), (1.0, 0.6827), (2.0, 0.9545), (3.0, 0.9973)):
        assert (np.abs(fields) < bound).mean() == pytest.approx(share, abs=0.006)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (1.0, 2.0), (2.0, 1.0), (3.5, 3.5)])
def test_fields_have_the_published_spectrum(a, b, circle):
    f = np.minimum(np.arange(64), 64 - np.arange(64)).astype(float)
    fields = np.concatenate([fields_of(k, a, b, 64, circle) for k in range(150)])
    power = power_of(fields)
    expected = (f[None, :] ** a + f[:, None] ** b + (f[None, :] + f[:, None] == 0)) ** -2.0  # [fy, fx]
    ratio = np.log(power / expected)[1:, 1:]
    assert ratio.std() < 0.15  # 300 exponential variables are averaged: 1 / sqrt(300) each
    assert abs(ratio[:8, :8].mean() - ratio[-8:, -8:].mean()) < 0.1
    assert slope(power[0], 1, 32) == pytest.approx(a, abs=0.06)
    assert slope(power[:, 0], 1, 32) == pytest.approx(b, abs=0.06)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("color", [True, False])
def test_images_keep_the_slope(exponent, color):
    images = SpectrumStream(size=64, exponent=(exponent, exponent), color=color).batch(np.arange(300)).images
    power = power_of(images.mean(-1))
    for axis in (power[0], power[:, 0]):
        assert slope(axis, 1, 24) == pytest.approx(exponent, abs=0.15)


def test_each_image_has_its_own_exponents():
    stream = SpectrumStream(size=64, exponent=(0.5, 3.0), color=False)
    exponents = fold(fold(fold(np.array([key("spectrum", 0)], np.uint64), 1), np.arange(150)), 0)
    drawn = 0.5 + 2.5 * uniform(exponents, 2)
    images = stream.batch(np.arange(150)).images[..., 0].astype(float)
    across = [slope(power_of(image[None])[0], 1, 16) for image in images]
    down = [slope(power_of(image[None])[:, 0], 1, 16) for image in images]
    assert np.corrcoef(drawn[:, 0], across)[0, 1] > 0.8
    assert np.corrcoef(drawn[:, 1], down)[0, 1] > 0.8
    assert abs(np.corrcoef(drawn[:, 0], down)[0, 1]) < 0.3


def test_color_axes_are_orthogonal_near_gray_and_within_range():
    mean, axes = np.empty(3), np.empty((3, 3))
    brightness = []
    for color_key in range(500):
        color_model(np.uint64(color_key), True, mean, axes)
        gram = axes.T @ axes
        lengths = np.sqrt(np.diag(gram))
        np.testing.assert_allclose(gram / np.outer(lengths, lengths), np.eye(3), atol=1e-9)
        assert lengths[0] > lengths[1] > lengths[2] > 0
        deviations = np.sqrt((axes**2).sum(1))
        assert (ROOM * deviations <= np.minimum(mean, 1 - mean) + 1e-9).all()
        assert deviations.max() > 0.04
        brightness.append(abs(axes[:, 0].sum()) / np.sqrt(3) / lengths[0])
    assert np.mean(brightness) > 0.9


def test_marginals_are_centered_and_little_is_clipped():
    for color in (True, False):
        images = SpectrumStream(size=32, color=color).batch(np.arange(600)).images
        assert ((images == 0) | (images == 255)).mean() < 0.01
        assert images.mean() == pytest.approx(127.5, abs=6)
        assert images.mean((1, 2)).std() > 20  # images differ in their mean color
        assert 30 < images.std((1, 2)).mean() < 50


def test_without_color_images_are_gray():
    images = SpectrumStream(size=32, color=False).batch(np.arange(50)).images
    assert (images == images[..., :1]).all()
    colored = SpectrumStream(size=32).batch(np.arange(50)).images.astype(int)
    assert (np.abs(colored[..., 0] - colored[..., 2]).mean((1, 2)) > 2).mean() > 0.95


@pytest.mark.parametrize("size", [8, 33])
def test_no_image_is_constant(size):
    for exponent in ((0.0, 0.5), (0.5, 3.5), (6.0, 6.0)):
        images = SpectrumStream(size=size, seed=5, exponent=exponent).batch(np.arange(1000)).images
        assert images.mean(-1).std((1, 2)).min() > 4


def test_there_are_no_labels():
    stream = SpectrumStream(size=16)
    assert stream.num_classes is None
    assert stream.batch([3]).labels is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 4096}, "size must lie between 8 and 2048, not 4096"),
        ({"exponent": 2.0}, r"exponent must be a pair, least and most, such as \(0.0, 6.0\), not 2.0"),
        ({"exponent": (2.0, 1.0)}, r"exponent must be in order, least first: \(1.0, 2.0\), not \(2.0, 1.0\)"),
        ({"exponent": (-1.0, 1.0)}, "the least of exponent must be a number between 0.0 and 6.0, not -1.0"),
        ({"exponent": (1.0, float("nan"))}, "the most of exponent must be a number between"),
        ({"color": "red"}, "color must be true or false, not 'red'"),
    ],
)
def test_bad_arguments_are_named_in_the_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpectrumStream(**arguments)
