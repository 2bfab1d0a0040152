import numpy as np
import pytest
import torch
from kornia.augmentation import AugmentationSequential
from scipy import ndimage, stats

from wildfern.ssl.augmentation.fourier_adaptation import (
    FourierAdaptation,
    draw_adaptation,
    fourier_adaptation,
    freecos_adaptation,
)


def images(n=4, height=40, width=48, seed=0, dtype=torch.float64):
    smooth = torch.rand(n, 3, 6, 7, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return torch.nn.functional.interpolate(smooth, (height, width), mode="bicubic").clamp(0, 1)


def noise_keys(n=4, step=0):
    return torch.from_numpy(draw_adaptation(1, step, np.arange(n), 0, 1).noise.view(np.int64))


@pytest.mark.parametrize("i", [0, 1, 2])
def test_reference_figures(shared, i):
    figures = np.load(shared / "golden" / "freecos.npz")
    source, target = (torch.from_numpy(figures[f"fda{i}_{name}"])[None] for name in ("source", "target"))
    ratio, expected = float(figures[f"fda{i}_ratio"]), torch.from_numpy(figures[f"fda{i}_result"])
    torch.testing.assert_close(fourier_adaptation(source, target, ratio)[0], expected, rtol=0, atol=1e-10)
    single = fourier_adaptation(source.float(), target.float(), ratio)[0]
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-3)  # of 255


@pytest.mark.parametrize(
    ("height", "width", "ratio"), [(8, 8, 0.5), (9, 8, 0.5), (7, 9, 0.3), (6, 11, 0.0), (1, 5, 0.1)]
)
def test_frequency_by_frequency(height, width, ratio):
    source, target = images(2, height, width), images(2, height, width, seed=1)
    b = int(min(height, width) * ratio)
    spectrum, other = (np.fft.fft2(x.numpy()) for x in (source, target))
    for v in range(height):
        for u in range(width):
            if min(v, height - v) <= b and min(u, width - u) <= b:
                phase = np.angle(spectrum[..., v, u])
                spectrum[..., v, u] = np.abs(other[..., v, u]) * np.exp(1j * phase)
    adapted = fourier_adaptation(source, target, ratio)
    np.testing.assert_allclose(adapted, np.fft.ifft2(spectrum).real, atol=1e-12)


def test_an_image_adapted_to_itself_is_unchanged_and_a_black_one_gets_the_mean():
    x = images()
    torch.testing.assert_close(fourier_adaptation(x, x, 0.4), x)
    gray = fourier_adaptation(torch.zeros_like(x), x, 0.0)
    torch.testing.assert_close(gray, x.mean(dim=(2, 3), keepdim=True).expand_as(x))


def test_adaptation_blur_and_noise_together():
    source, target, keys = images(), images(seed=1), noise_keys()
    without = freecos_adaptation(source, target, keys, ratio=0.3, blur_kernel=7, noise=0)
    sigma = 0.3 * (3 - 1) + 0.8
    adapted = fourier_adaptation(source, target, 0.3).clamp(0, 1).numpy()
    blurred = ndimage.gaussian_filter(adapted, (0, 0, sigma, sigma), mode="mirror", radius=(0, 0, 3, 3))
    np.testing.assert_allclose(without, blurred, atol=1e-12)
    full = freecos_adaptation(source, target, keys, ratio=0.3, blur_kernel=7, noise=5 / 255)
    assert full.min() >= 0
    assert full.max() <= 1
    inside = (without > 0.02) & (without < 0.98)
    noise = (full - without)[inside].numpy() * 255
    assert stats.kstest(noise, stats.uniform(-5, 10).cdf).pvalue > 1e-3
    assert torch.equal(full, freecos_adaptation(source, target, keys, 0.3, 7, 5 / 255))
    assert not torch.equal(full, freecos_adaptation(source, target, noise_keys(step=1), 0.3, 7, 5 / 255))


def test_parameters_depend_on_the_position_only():
    whole = draw_adaptation(3, 5, np.arange(2000), 1, 7)
    part = draw_adaptation(3, 5, np.arange(600, 900), 1, 7)
    np.testing.assert_array_equal(part.target, whole.target[600:900])
    np.testing.assert_array_equal(part.noise, whole.noise[600:900])
    assert stats.chisquare(np.bincount(whole.target, minlength=7)).pvalue > 1e-3
    assert len(np.unique(whole.noise)) == 2000
    for seed, step, view in ((4, 5, 1), (3, 6, 1), (3, 5, 2)):
        assert (draw_adaptation(seed, step, np.arange(2000), view, 7).target != whole.target).mean() > 0.5


def test_module_in_a_kornia_container():
    source, targets = images(8, dtype=torch.float32), images(3, seed=1, dtype=torch.float32)
    chain = AugmentationSequential(FourierAdaptation(targets, 0.2, 1, 0, p=0.5), data_keys=["input"])
    torch.manual_seed(0)
    out = chain(source)
    torch.manual_seed(0)
    assert torch.equal(chain(source), out)
    candidates = torch.stack(
        [source, *(fourier_adaptation(source, t.expand_as(source), 0.2).clamp(0, 1) for t in targets)]
    )
    nearest = (candidates - out).abs().amax(dim=(2, 3, 4))
    assert (nearest.min(dim=0).values < 1e-6).all()
    assert len(nearest.argmin(dim=0).unique()) > 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": 0.6}, r"\[0, 0.5\]"),
        ({"target": images(4, 20, 20)}, "must have one shape"),
        ({"blur_kernel": 4}, "odd"),
        ({"blur_kernel": 81}, "too large"),
        ({"noise": -0.1}, "noise must be a number of 0 or more"),
        ({"noise": float("nan")}, "noise must be"),
        ({"ratio": float("nan")}, r"\[0, 0.5\]"),
        ({"blur_kernel": float("nan")}, "odd"),
        ({"blur_kernel": 3.0}, "odd"),
    ],
)
def test_impossible_arguments(change, message):
    arguments = {"source": images(), "target": images(seed=1), "noise_keys": noise_keys(), **change}
    with pytest.raises(ValueError, match=message):
        freecos_adaptation(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p": float("nan")}, r"p must be a probability in \[0, 1\], got nan"),
        ({"p": 1.5}, r"p must be a probability in \[0, 1\], got 1.5"),
        ({"ratio": float("nan")}, r"ratio must be in \[0, 0.5\]"),
        ({"ratio": -0.1}, r"ratio must be in \[0, 0.5\]"),
        ({"blur_kernel": 4}, "blur_kernel must be odd"),
        ({"blur_kernel": -3}, "blur_kernel must be odd"),
        ({"blur_kernel": 81}, "too large"),
        ({"noise": float("nan")}, "noise must be"),
        ({"noise": -0.1}, "noise must be"),
        ({"targets": images(0)}, "M of 1 or more"),
    ],
)
def test_a_module_with_impossible_settings_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        FourierAdaptation(**{"targets": images(3), **change})


@pytest.mark.parametrize("by_container", [False, True])
def test_same_on_batch(by_container):
    targets, x = images(3, seed=1), images(1).expand(12, -1, -1, -1)
    if by_container:
        operation = AugmentationSequential(FourierAdaptation(targets, p=1.0), data_keys=["input"], same_on_batch=True)
    else:
        operation = FourierAdaptation(targets, p=1.0, same_on_batch=True)
    out = operation(x)
    torch.testing.assert_close(out, out[:1].expand_as(out))
    own = FourierAdaptation(targets, p=1.0)(x)
    assert (own - own[:1]).abs().max() > 1e-2


def test_keepdim():
    assert FourierAdaptation(images(3), keepdim=True)(images()[0]).dim() == 3


def test_autocast_changes_nothing():
    source, target = images(dtype=torch.float32), images(seed=1, dtype=torch.float32)
    expected = freecos_adaptation(source, target, noise_keys())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(freecos_adaptation(source, target, noise_keys()), expected)


def test_there_must_be_a_target():
    with pytest.raises(ValueError, match="at least one target"):
        draw_adaptation(0, 0, np.arange(2), 0, 0)
