import numpy as np
import pytest
import torch
from kornia.augmentation import AugmentationSequential
from scipy import stats

from wildfern.generators import make_stream
from wildfern.ssl.augmentation.augmix_operations import OPERATIONS, augmented
from wildfern.ssl.augmentation.pixmix import PixMix, draw_pixmix, mixing_images, pixmix


def images(n=24, side=20, seed=0):
    smooth = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(smooth, (side, side), mode="bicubic").clamp(0, 1)


def plain(x, y, table, i):
    """One image, number by number."""

    def copy(column):
        return augmented(x[None], table.kind[i : i + 1, column], table.level[i : i + 1, column])[0]

    mixed = copy(0).double().numpy()
    for r in range(1, table.rounds[i] + 1):
        other = (y if table.kind[i, r] < 0 else copy(r)).double().numpy()
        a, b = table.a[i, r - 1], table.b[i, r - 1]
        out = np.empty_like(mixed)
        for at in np.ndindex(mixed.shape):
            if table.multiply[i, r - 1]:
                out[at] = (2 * mixed[at]) ** a * max(2 * other[at], 1e-37) ** b / 2
            else:
                out[at] = (a * (2 * mixed[at] - 1) + b * (2 * other[at] - 1) + 1) / 2
        mixed = np.clip(out, 0, 1)
    return torch.from_numpy(mixed)


def test_against_plain_loops():
    x, y = images(), images(seed=1)
    x[0, 0], y[1] = 0, 0  # black, where logarithms would fail
    table = draw_pixmix(5, 3, np.arange(24), 0)
    mixed = pixmix(x, y, table)
    for i in range(24):
        torch.testing.assert_close(mixed[i].double(), plain(x[i], y[i], table, i), rtol=0, atol=2e-5)
    assert torch.equal(
        pixmix(x, y, draw_pixmix(5, 3, np.arange(24), 0, rounds=0)), augmented(x, table.kind[:, 0], table.level[:, 0])
    )


def test_slices_are_parts_of_the_whole():
    x, y = images(), images(seed=1)
    whole = pixmix(x, y, draw_pixmix(2, 7, np.arange(24), 1))
    for own in (slice(0, 5), slice(5, 24)):
        part = pixmix(x[own], y[own], draw_pixmix(2, 7, np.arange(24)[own], 1))
        torch.testing.assert_close(part, whole[own], rtol=0, atol=1e-6)
    for seed, step, view in ((3, 7, 1), (2, 8, 1), (2, 7, 0)):
        assert not torch.equal(pixmix(x, y, draw_pixmix(seed, step, np.arange(24), view)), whole)


def test_distributions():
    n = 6000
    table = draw_pixmix(1, 0, np.arange(n), 0, set_size=10)
    assert stats.chisquare(np.bincount(table.rounds, minlength=5)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(table.mixing, minlength=10)).pvalue > 1e-3
    assert abs((table.kind < 0).mean() - 0.5) < 0.01
    assert stats.chisquare(np.bincount(table.kind[table.kind >= 0], minlength=len(OPERATIONS))).pvalue > 1e-3
    assert stats.kstest(np.abs(table.level).ravel(), stats.uniform(0.1, 2.9).cdf).pvalue > 1e-3
    assert abs((table.level > 0).mean() - 0.5) < 0.01
    assert abs(table.multiply.mean() - 0.5) < 0.01
    convex = table.b > 0
    assert abs(convex.mean() - 0.5) < 0.01
    assert stats.kstest(table.a[convex], stats.beta(3, 1).cdf).pvalue > 1e-3
    assert stats.kstest(table.a[~convex] - 1, stats.beta(1, 3).cdf).pvalue > 1e-3
    assert stats.kstest(np.abs(table.b).ravel(), stats.beta(1, 3).cdf).pvalue > 1e-3
    numbers = np.stack([table.a[:, 0], table.b[:, 0], table.level[:, 1], table.kind[:, 1], table.rounds, table.a[:, 1]])
    correlations = np.corrcoef(numbers[:, convex[:, :2].all(axis=1)]) - np.eye(6)
    assert np.abs(correlations).max() < 0.1


def test_half_precision_is_computed_in_single():
    x, y, table = images().half(), images(seed=1).half(), draw_pixmix(0, 0, np.arange(24), 0)
    mixed = pixmix(x, y, table)
    assert mixed.dtype == torch.float16
    assert torch.isfinite(mixed).all()
    torch.testing.assert_close(mixed.float(), pixmix(x.float(), y.float(), table), rtol=0, atol=1e-3)


def test_module_mixes_with_images_of_a_stream():
    stream = make_stream("dead_leaves", size=20, seed=1)
    x = images(6)
    chain = AugmentationSequential(PixMix(stream), data_keys=["input"])
    torch.manual_seed(3)
    seed = int(torch.randint(2**62, ()))
    table = draw_pixmix(seed, 0, np.arange(6), 0)
    expected = pixmix(x, mixing_images(stream, table.mixing) / 255, table)
    operation = PixMix(stream)
    torch.manual_seed(3)
    parameters = operation.generate_parameters(x.shape)
    parameters["batch_prob"] = torch.ones(6)
    torch.testing.assert_close(operation(x, parameters), expected)
    torch.manual_seed(4)
    one = chain(x)
    torch.manual_seed(4)
    assert torch.equal(chain(x), one)
    assert not torch.equal(chain(x), one)
    with pytest.raises(ValueError, match=r"mixing stream has 20 px, but the images \[24, 24\]"):
        chain(images(2, 24))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": -1}, "rounds"),
        ({"rounds": float("nan")}, "rounds"),
        ({"beta": 0}, "beta"),
        ({"beta": float("nan")}, "beta"),
        ({"severity": 11}, "severity"),
        ({"set_size": 0}, "set_size"),
    ],
)
def test_impossible_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_pixmix(0, 0, np.arange(4), 0, **arguments)


@pytest.mark.parametrize("p", [float("nan"), -0.1, 1.1])
def test_a_module_needs_a_probability(p):
    with pytest.raises(ValueError, match=r"p must be a probability in \[0, 1\]"):
        PixMix(make_stream("dead_leaves", size=20), p=p)


@pytest.mark.parametrize("by_container", [False, True])
def test_same_on_batch(by_container):
    stream, x = make_stream("dead_leaves", size=20, seed=1), images(1).expand(8, -1, -1, -1)
    if by_container:
        operation = AugmentationSequential(PixMix(stream), data_keys=["input"], same_on_batch=True)
    else:
        operation = PixMix(stream, same_on_batch=True)
    torch.manual_seed(1)
    seen = [operation(x) for _ in range(4)]
    for batch in seen:
        torch.testing.assert_close(batch, batch[:1].expand_as(batch), rtol=0, atol=1e-6)
    assert max((batch[0] - x[0]).abs().max() for batch in seen) > 0.1
    own = PixMix(stream)(x)
    assert (own - own[:1]).abs().max() > 0.1


def test_keepdim():
    assert PixMix(make_stream("dead_leaves", size=20), keepdim=True)(images(1)[0]).dim() == 3


def test_autocast_changes_nothing():
    x, y, table = images(), images(seed=1), draw_pixmix(0, 0, np.arange(24), 0)
    expected = pixmix(x, y, table)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pixmix(x, y, table), expected)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        pixmix(images(4), images(3), draw_pixmix(0, 0, np.arange(4), 0))
    with pytest.raises(ValueError, match="a table for 5"):
        pixmix(images(4), images(4), draw_pixmix(0, 0, np.arange(5), 0))
