"""The chaos game against reference attractors, and against a single chain computed step by step."""

import numpy as np
import pytest

from wildfern.generators.fractals.chaos_game import FIRST_ROW, LANES, attractor_points, bounding_box, rows_for
from wildfern.generators.fractals.ifs_sampler import sample_systems


@pytest.fixture(scope="module")
def golden(shared):
    return dict(np.load(shared / "golden" / "ifs.npz"))


def test_occupancy_of_reference_systems(golden):
    """Shares of the cells differ by no more than the noise of two samples.

    With independent points a cell of share g gets a share that is off by sqrt(2/π · g (1 - g) (1/M + 1/4·10⁶)) on average,
    M ours and 4·10⁶ the reference's. Points of a chain are not independent: a slowly contracting map keeps them together
    for a while, which widens the noise of such systems. Hence: half the total difference stays below 1.8 times the figure
    for independent points in every system, and below 1.1 times on average.
    """
    ours = 1_000_000
    ratios = []
    for i, n in enumerate(golden["n_maps"]):
        points = attractor_points(golden["systems"][i, :n], ours, seed=i).astype(np.float64)
        low, high = golden["box"][i].reshape(2, 2)
        cells = np.clip((32 * (points - low) / (high - low)).astype(int), 0, 31)
        occupancy = np.bincount(32 * cells[:, 0] + cells[:, 1], minlength=1024).reshape(32, 32) / ours
        expected = golden["occupancy32"][i]
        noise = np.sqrt(2 / np.pi * expected * (1 - expected) * (1 / ours + 1 / 4e6))
        ratios.append(np.abs(occupancy - expected).sum() / noise.sum())
        # The reference box holds four times the points, and its outermost ones are rare: 1 in 10⁵ may fall beyond ours.
        assert (np.abs(points - (low + high) / 2) > (high - low) / 2).any(1).mean() < 1e-5
    assert max(ratios) < 1.8
    assert np.mean(ratios) < 1.1


def test_fill_rate_of_reference_systems(golden):
    """The share of a 256 × 256 grid that 10⁵ points reach.

    The grid spans the points' own bounding box, whose extremes vary with the sample in systems with rare outer points; one
    percent of box stretches the image and changes the rate by two. Hence 15 % for one system, 2 % on average.
    """
    ratios = []
    for i, n in enumerate(golden["n_maps"]):
        points = attractor_points(golden["systems"][i, :n], 100_000, seed=i).astype(np.float64)
        low, high = points.min(0), points.max(0)
        cells = np.minimum((256 * (points - low) / (high - low)).astype(int), 255)
        ratios.append(np.unique(256 * cells[:, 0] + cells[:, 1]).size / 65536 / golden["fill_rate_256_100k"][i])
    assert max(abs(np.array(ratios) - 1)) < 0.15
    assert abs(np.mean(ratios) - 1) < 0.02


@pytest.mark.parametrize("n", range(1, 9))
def test_every_point_is_a_map_of_the_point_before(n):
    single = np.array([[[0.5, 0.1, 0.3], [-0.2, 0.6, 0.1]]])
    system = single if n == 1 else sample_systems(1, np.array([n]), (n, n))[0][0]
    chains = attractor_points(system, 40 * LANES, seed=9).reshape(40, LANES, 2).astype(np.float64)
    images = np.einsum("kij,tcj->tcki", system[:, :, :2], chains[:-1]) + system[:, :, 2]
    error = np.abs(images - chains[1:, :, None]).max(-1)
    assert (error.min(-1) < 1e-5).all()
    chosen = np.bincount(error.argmin(-1).ravel(), minlength=n) / error[..., 0].size
    weights = np.abs(np.linalg.det(system[:, :, :2]))
    expected = weights / weights.sum()
    assert np.abs(chosen - expected).max() < 5 * np.sqrt(0.25 / error[..., 0].size)


def test_bounding_box_of_any_number_of_points():
    generator = np.random.default_rng(0)
    for points in (1, 5, 63, 64, 65, 1000):
        track = generator.normal(size=rows_for(points) * 2 * LANES).astype(np.float32)
        xy = track.reshape(-1, 2, LANES)[FIRST_ROW:].transpose(0, 2, 1).reshape(-1, 2)[:points]
        box = bounding_box(track, points, np.empty(2 * LANES, np.float32), np.empty(2 * LANES, np.float32))
        assert list(box) == [*xy.min(0), *xy.max(0)]


def test_a_system_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"\[n, 2, 3\] of 1 to 8 maps"):
        attractor_points(np.zeros((2, 2, 2)), 10)
