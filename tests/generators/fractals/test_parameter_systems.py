"""Systems accepted by their filling rate, FractalDB's instances, and the classes around one fractal."""

import numpy as np
import pytest

from wildfern.generators import make_stream
from wildfern.generators.fractals.chaos_game import attractor_points
from wildfern.generators.fractals.ifs_sampler import MAX_SINGULAR, sample_systems
from wildfern.generators.fractals.jitter import weigh_a_parameter, weight_of
from wildfern.generators.fractals.parameter_systems import TAMEST, weigh_instance


def plain_filling_rate(system):
    """The published test with numpy: 100 000 points on 512 × 512 pixels with a border of 6."""
    points = attractor_points(system, 100_000, seed=1).astype(np.float64)
    low, high = points.min(0), points.max(0)
    cells = np.minimum((500 * (points - low) / (high - low)).astype(int), 499)
    return np.unique(500 * cells[:, 0] + cells[:, 1]).size / 512**2


@pytest.mark.parametrize("rate", [0.1, 0.2])
def test_classes_reach_their_filling_rate(rate):
    """Measured with other points: a few percent of noise, but much more where the outermost points are rare."""
    stream = make_stream("fractaldb", filling_rate=rate, maps=(2, 7))
    systems, counts = stream.systems(np.arange(40))
    rates = np.array([plain_filling_rate(s[:n]) for s, n in zip(systems, counts, strict=True)])
    assert (rates > 0.9 * rate).mean() >= 0.9
    assert rates.min() > 0.6 * rate
    assert np.median(rates) > rate
    assert np.abs(systems).max() <= 1
    assert counts.min() >= 2
    assert counts.max() <= 7
    assert len(set(counts.tolist())) > 3
    again, _ = make_stream("fractaldb", filling_rate=rate).systems(np.array([39, 0]))
    np.testing.assert_array_equal(again, systems[[39, 0]])


def test_without_a_filling_rate_the_first_draw_that_stays_bounded_is_taken():
    systems, counts = make_stream("fractaldb", filling_rate=0.0).systems(np.arange(200))
    assert set(counts.tolist()) == {2, 3, 4, 5, 6, 7}
    for i in range(6):  # the sixth map's parameters are there where there are six, and uniform on -1 … 1
        drawn = systems[counts > i, i]
        assert abs(drawn.mean()) < 4 / np.sqrt(3 * drawn.size)
        assert not systems[counts <= i, i].any()


def test_instances_are_weights_and_flips():
    system = np.random.default_rng(0).uniform(-1, 1, (3, 2, 3))
    seen = set()
    for row in range(25):
        changed = system.copy()
        weigh_instance(row, 0.4, 0, 3, changed)
        ratio = changed / system
        different = np.argwhere(np.abs(ratio - 1) > 1e-9)
        if row == 0:
            assert not len(different)
            continue
        parameter = {(r, c) for _, r, c in different.tolist()}
        assert len(parameter) == 1
        (place,) = parameter
        assert len(different) == 3
        np.testing.assert_allclose(ratio[:, place[0], place[1]], ratio[0, place[0], place[1]])
        seen.add((place, round(ratio[0, place[0], place[1]], 6)))
        half = system.copy()
        weigh_instance(row, 0.4, 1, 3, half)
        np.testing.assert_allclose(half, (system + changed) / 2)
    assert len(seen) == 24
    assert {weight for _, weight in seen} == {0.2, 0.6, 1.4, 1.8}
    tame = 5 * system
    weigh_instance(7, 0.4, TAMEST, 3, tame)
    assert np.linalg.norm(tame[:, :, :2], 2, axis=(1, 2)).max() <= 0.9
    np.testing.assert_array_equal(tame[:, :, 2], 5 * system[:, :, 2])


def test_flips_come_first_then_weights():
    stream = make_stream("fractaldb", size=48, classes=3, points=20_000, render="binary")
    images = stream.batch(3 * np.arange(8) + 1).images[..., 0] > 0

    def overlap(a, b):
        return (a & b).sum() / (a | b).sum()

    turned = [images[0], images[0][:, ::-1], images[0][::-1], images[0][::-1, ::-1]]
    for flip in range(4):  # other points, hence not quite the same
        assert np.argmax([overlap(images[flip], turn) for turn in turned]) == flip
        assert np.argmax([overlap(images[4 + flip], turn) for turn in images[4:]]) == flip
    assert overlap(images[0], images[4]) < overlap(images[0], images[1][:, ::-1])  # the first weight


def test_fractaldb_is_gray_on_black_with_a_border():
    stream = make_stream("fractaldb", size=64, classes=10, points=6000)
    images = stream.batch(np.arange(1000)).images
    assert set(np.unique(images)) == {0, 127}
    border = images.copy()
    border[:, 1:-1, 1:-1] = 0
    assert border.any((1, 2, 3)).mean() < 0.02  # those that are shown closer, lest they be specks
    assert ((images > 0).any(-1).mean((1, 2)) > 1 / 64).all()
    shades = make_stream("fractaldb", size=64, classes=10, points=6000, render="graded").batch(np.arange(50)).images
    assert all(len(np.unique(image)) > 5 for image in shades)


@pytest.mark.parametrize("perturbation", ["additive", "multiplicative"])
def test_classes_around_one_fractal(perturbation):
    stream = make_stream("one_fractal", perturbation=perturbation, delta=0.2, seed=2, filling_rate=0.0)
    base, (systems, counts) = stream.base(), stream.systems(np.arange(300))
    assert base.shape == (2, 2, 3)
    assert (counts == 2).all()
    change = systems[:, :2] - base
    reach = np.full_like(base, 0.1) if perturbation == "additive" else 0.2 * np.abs(base)
    assert (np.abs(change) <= reach + 1e-12).all()
    relative = change / reach
    assert np.abs(relative.mean(0)).max() < 5 / np.sqrt(3 * 300)
    assert np.abs((relative**2).mean(0) - 1 / 3).max() < 5 * np.sqrt(4 / 45 / 300)
    s1, s2 = np.linalg.svd(base[:, :, :2], compute_uv=False).T
    assert 3.4 <= (s1 + 2 * s2).sum() <= 3.6
    assert len({make_stream("one_fractal", seed=seed).base().tobytes() for seed in range(3)}) == 3


def test_every_sigma_factor_up_to_its_bound_is_possible():
    for sigma in (0.5, 3.5, 6.0):
        base = make_stream("one_fractal", sigma_factor=sigma, filling_rate=0.0).base()
        s1, s2 = np.linalg.svd(base[:, :, :2], compute_uv=False).T
        assert abs((s1 + 2 * s2).sum() - sigma) <= 0.1 + 1e-9
        assert s1.max() <= MAX_SINGULAR + 1e-9


def test_weights_as_jitter_keep_contraction():
    systems, counts = sample_systems(0, np.arange(400), (3, 3))
    changed = kept = 0
    for number, system in enumerate(systems):
        weighed = system.copy()
        weigh_a_parameter(np.uint64(number), 3, weighed)
        ratio = np.where(system != 0, weighed / np.where(system == 0, 1, system), 1).round(9)
        assert np.linalg.norm(weighed[:, :, :2], 2, axis=(1, 2)).max() <= MAX_SINGULAR + 1e-12
        different = {tuple(place) for place in np.argwhere(ratio != 1)[:, 1:].tolist()}
        assert len(different) <= 1
        changed, kept = changed + len(different), kept + (not different)
        if different:
            assert ratio[:, *different.pop()].max() in (0.2, 0.6, 1.4, 1.8)
    assert counts.max() == 3
    assert changed > 300
    assert [round(weight_of(which), 9) for which in range(4)] == [0.2, 0.6, 1.4, 1.8]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("fractaldb", {"filling_rate": 0.5}, "filling_rate must be a number between 0.0 and 0.3, not 0.5"),
        ("fractaldb", {"weight_step": -1}, "weight_step must be a number between 0.0 and 0.5, not -1"),
        ("fractaldb", {"maps": (2, 9)}, "the most of maps must lie between 2 and 8, not 9"),
        ("fractaldb", {"points": 0}, "points must lie between 1"),
        ("one_fractal", {"maps": 1}, "maps must lie between 2 and 8, not 1"),
        ("one_fractal", {"sigma_factor": 7}, "sigma_factor must be a number between 0.5 and 6.0, not 7"),
        ("one_fractal", {"delta": "much"}, "delta must be a number between 0.0 and 1.0, not 'much'"),
        ("one_fractal", {"perturbation": "adition"}, "perturbation='adition' is not known: did you mean 'additive'"),
    ],
)
def test_bad_arguments_are_named_in_the_error(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_stream(name, **arguments)
